"""Artifacts that can be deployed, and a Python in which what they must not need cannot be imported.

artifact_of(tmp_path / "a", onnx_of("trained"))       a real one
run(folder / "run.py", "A prompt")                    without torch, transformers and agentflow
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.support.made_artifacts import SOURCE, STAGES, TENSORS

from agentflow.mcp.compression.artifact import Artifact, assemble
from agentflow.mcp.compression.artifact.manifest import Task

__all__ = ["FORBIDDEN", "artifact_of", "fake_model", "run"]

FORBIDDEN = ("torch", "transformers", "agentflow", "safetensors", "onnx", "msgspec")

_FORBIDDING = """
import runpy, sys
class Gate:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in FORBIDDEN:
            raise ImportError(f"{name} is forbidden", name=name)
sys.meta_path.insert(0, Gate())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def artifact_of(folder: Path, model: Path, *, task: Task = "generate", licence: str | None = "MIT License") -> Artifact:
    """An artifact of the files in `model`, whose source had a licence."""
    source = folder.parent / "source"
    source.mkdir(exist_ok=True)
    if licence is not None:
        (source / "LICENSE").write_text(licence)
    return assemble(
        folder,
        model=model,
        name="small",
        task=task,
        source=SOURCE,
        source_folder=source,
        stages=STAGES,
        recipe_sha256="0" * 64,
        tensors=TENSORS,
        labels=("good", "bad") if task == "classify" else (),
    )


def fake_model(folder: Path, name: str = "model.onnx") -> Path:
    """A folder that has the names of a model's files, and nothing in them that runs."""
    folder.mkdir()
    (folder / name).write_bytes(b"weights")
    (folder / "tokenizer.json").write_text("{}")
    return folder


def run(
    program: Path, *words: str, input: str = "", forbidden: Sequence[str] = FORBIDDEN
) -> subprocess.CompletedProcess[str]:
    """The program in a process of its own."""
    gate = _FORBIDDING.replace("FORBIDDEN", repr(tuple(forbidden)))
    command = [sys.executable, "-B", "-c", gate, str(program), *words]
    return subprocess.run(command, input=input, capture_output=True, text=True)
