"""llama.cpp behind the protocol: the same tokens as transformers, and a GGUF called like any other model.

It is compiled where it is installed, so these tests borrow it from an environment that has it, and are skipped where
none does: this one, the Python that AGENTFLOW_LLAMA_CPP_PYTHON names, or .venvs/llama.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from threading import Event

import pytest
from tests.mcp.performance.edge.runtimes.test_decoders import LENGTH, PROMPTS, by_transformers
from tests.support.trained import ROOT, teacher_folder

PROGRAM = """
import asyncio, json, sys
sys.path.append(sys.argv[2])
import numpy as np
from agentflow.errors import ArtifactError
from agentflow.llm.messages import Message, OutputFormat, Request
from agentflow.mcp.performance.edge.opening import open_runtime
from agentflow.mcp.performance.edge.provider import EdgeProvider

folder, prompts, length = sys.argv[1], json.loads(sys.argv[3]), int(sys.argv[4])
runtime = open_runtime(folder, threads=1)

def greedy(prompts):
    decoding = runtime.open(prompts)
    written = [[] for _ in prompts]
    for _ in range(length):
        tokens = decoding.logits().argmax(axis=-1).tolist()
        for row, token in zip(written, tokens):
            row.append(token)
        decoding.append(tokens)
    decoding.close()
    return written

together, alone = greedy(prompts), [greedy([prompt])[0] for prompt in prompts]
scores = runtime.score(prompts[1])
last = runtime.open([prompts[1]]).logits()[0]
full = runtime.open([list(range(3, runtime.context_length - 2))])
for _ in range(4):
    full.append([5])
finite = bool(np.isfinite(full.logits()).all())
runtime.close()
runtime.close()

async def called():
    provider = EdgeProvider(folder, threads=1)
    ask = Request("m", (Message("user", "def read(self):"),), max_tokens=8)
    several = await asyncio.gather(*[provider.execute(ask) for _ in range(3)])
    shaped = Request("m", ask.messages, output=OutputFormat("a", {"enum": ["yes", "no"]}))
    text = (await provider.execute(shaped)).text
    await provider.aclose()
    return [each.text for each in several], text

texts, shaped = asyncio.run(called())
try:
    open_runtime(sys.argv[5])
    damaged = ""
except ArtifactError as error:
    damaged = str(error)
print(json.dumps({
    "name": runtime.name, "together": together, "alone": alone, "shape": scores.shape,
    "apart": float(np.abs(scores[-1] - last).max()), "finite": finite, "texts": texts, "shaped": shaped,
    "damaged": damaged,
}))
"""


@cache
def _home_of_llama_cpp() -> Path | None:
    """The site-packages that llama_cpp lies in."""
    named = os.environ.get("AGENTFLOW_LLAMA_CPP_PYTHON")
    for python in filter(None, (sys.executable, named, ROOT / ".venvs" / "llama" / "bin" / "python")):
        if shutil.which(str(python)) is None:
            continue
        line = "import importlib.util as u; s = u.find_spec('llama_cpp'); print(s.origin if s else '')"
        found = subprocess.run([str(python), "-c", line], capture_output=True, text=True, check=True).stdout.strip()
        if found:
            return Path(found).parent.parent
    return None


def _gguf(folder: Path) -> Path:
    """The trained model in full precision, with its tokenizer beside it."""
    import torch

    from agentflow.mcp.compression.checkpoint import Checkpoint
    from agentflow.mcp.compression.export.gguf_model import write_gguf
    from agentflow.mcp.compression.work import Work

    folder.mkdir()
    none = torch.zeros((0, 0), dtype=torch.int64)
    work = Work(
        calibration=none, training=none, evaluation=none, scratch=folder, teacher=teacher_folder(), cancelled=Event()
    )
    write_gguf(Checkpoint.open(teacher_folder()), folder, "f32", work)
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        shutil.copy(teacher_folder() / name, folder)
    return folder


def test_a_gguf_is_read_called_and_found_damaged(tmp_path: Path) -> None:
    home = _home_of_llama_cpp()
    if home is None:
        pytest.skip("no Python here has llama-cpp-python: pip install 'agentflow-engine[gguf]' compiles it")
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(b"GGUF and no more")
    arguments = [str(_gguf(tmp_path / "m")), str(home), json.dumps(PROMPTS), str(LENGTH), str(damaged)]
    done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found = json.loads(done.stdout)
    assert found["name"] == "llama.cpp"
    assert found["together"] == found["alone"] == by_transformers()
    assert found["shape"] == [len(PROMPTS[1]), 2048]
    assert found["apart"] < 2e-4
    assert found["finite"]
    assert len(set(found["texts"])) == 1
    assert found["shaped"] in ('"yes"', '"no"')
    assert "damaged.gguf" in found["damaged"]
