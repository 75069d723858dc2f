"""Speeds come from fresh processes; what cannot be loaded there is said in words."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from tests.support.tiny_models import tiny_decoder

from agentflow.errors import ArtifactError, CompressionError, MissingExtraError
from agentflow.mcp.compression.measurement import speed as module
from agentflow.mcp.compression.measurement.speed import SpeedPlan, try_out
from agentflow.mcp.compression.measurement.speed_worker import _peak


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return tiny_decoder(tmp_path_factory.mktemp("tiny") / "model")


def test_a_real_runtime_is_timed_from_the_start_of_its_process(model: Path) -> None:
    begun = time.monotonic()
    trial = try_out(model, prompt=[5, 6, 7], plan=SpeedPlan(output_tokens=3, repeats=2, starts=1, threads=1))
    took = time.monotonic() - begun
    assert trial.runtime == "transformers"
    assert trial.runtime_version.startswith("5.")
    assert len(trial.tokens) == 3
    speed = trial.speed
    assert 0 < speed.time_to_first_token < speed.cold_start < took
    assert speed.tokens_per_second > 0
    assert speed.resident_bytes is not None
    assert speed.resident_bytes > 50_000_000  # PyTorch alone is more
    assert (speed.prompt_tokens, speed.output_tokens, speed.repeats, speed.threads) == (3, 3, 2, 1)


def test_the_memory_of_a_process_is_its_own_and_not_its_parent_s() -> None:
    """Linux hands ru_maxrss down to children: after a big parent every small child would look big."""
    assert _peak() is not None
    held = bytearray(b"x" * 300_000_000)
    here = _peak()
    assert here is not None
    assert here > 300_000_000
    program = "from agentflow.mcp.compression.measurement.speed_worker import _peak; print(_peak())"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=100)
    assert int(said.stdout) < 150_000_000
    assert len(held) == 300_000_000


def test_the_worker_loads_no_torch_for_a_runtime_without_it() -> None:
    program = (
        "import agentflow.mcp.compression.measurement.speed_worker, sys; "
        "print('torch' in sys.modules, 'numpy' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=100)
    assert said.stdout == "False False\n"


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """Another program in the worker's place."""

    def put(program: str) -> None:
        (tmp_path / "played.py").write_text(textwrap.dedent(program), encoding="utf-8")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.setattr(module, "_WORKER", "played")

    return put


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("import os; os.abort()", "signal 6 ended it"),
        ("raise ValueError('bad magic')", "its runtime could not use it: ValueError: bad magic"),
        ("raise SystemExit(7)", "it ended with 7"),
        ("print('hello')", "said nothing that can be read"),
        ("pass", "said nothing that can be read"),
        ("while True: pass", "wrote nothing within 1 s"),
    ],
)
def test_a_process_that_fails_is_the_artifact_s_failure(program: str, words: str, worker, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    worker(program)
    with pytest.raises(ArtifactError, match=words) as failure:
        try_out(tmp_path, prompt=[1], plan=SpeedPlan(timeout=1.0 if "while" in program else 60.0))
    assert failure.value.path == str(tmp_path)


def test_a_runtime_that_is_not_installed_is_no_fault_of_the_artifact(worker, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    worker("""print('{"type": "Missing", "feature": "the runtime llama.cpp", "extra": "gguf"}')""")
    with pytest.raises(MissingExtraError, match=r"the runtime llama\.cpp needs an extra"):
        try_out(tmp_path, prompt=[1])


def test_cancelling_ends_the_process(worker, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    class Stopped(BaseException):
        pass

    note = tmp_path / "pid"
    worker(f"import os, pathlib; pathlib.Path({str(note)!r}).write_text(str(os.getpid()))\nwhile True: pass")

    def check() -> None:
        if note.exists() and note.read_text():
            raise Stopped

    with pytest.raises(Stopped):
        try_out(tmp_path, prompt=[1], check=check)
    assert not Path(f"/proc/{note.read_text()}").exists()


def test_a_plan_that_measures_nothing_is_refused(tmp_path: Path) -> None:
    for plan in ({"output_tokens": 1}, {"repeats": 0}, {"starts": 0}):
        with pytest.raises(CompressionError, match="2 tokens or more"):
            SpeedPlan(**plan)
    with pytest.raises(CompressionError, match="1 token or more"):
        try_out(tmp_path, prompt=[])
