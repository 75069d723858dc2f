"""Another's program in a process of its own: a job as JSON in, an answer as JSON out, and an end to it when asked.

    run_worker(Command("llama.cpp", (python, "-I", "…/llama_quantize.py")), {"source": "…"}, scratch, check)

The program is called with two more arguments, the file of the job and the file where its answer belongs. What it prints
is kept, and its end is told where it fails. Its standard input is a pipe of which nothing comes: it ends when this
process does, so that a worker which waits for that end outlives nobody.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from agentflow.errors import BackendError

__all__ = ["Command", "run_worker"]

PAUSE = 0.1  # seconds between two looks at whether somebody cancelled
TAIL = 4000  # bytes of what the program printed
_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


@dataclass(frozen=True, slots=True)
class Command:
    """`backend` is its name in errors; `arguments` begin with the program."""

    backend: str
    arguments: Sequence[str]


def run_worker(
    command: Command, job: Mapping[str, object], scratch: Path, check: Callable[[], None]
) -> Mapping[str, Any]:
    """What the program answers; `scratch` must be there, and nothing is left in it.

    `check` is called ten times a second and may raise, which ends the program and whatever it started. Raises
    BackendError where it cannot be started, fails, is killed, or answers nothing readable.
    """
    with TemporaryDirectory(dir=scratch, prefix="worker-") as folder:
        place = Path(folder)
        (place / "job.json").write_text(json.dumps(job), encoding="utf-8")
        code = _run(command, place, check)
        output = _tail(place / "output")
        if code:
            raise BackendError(command.backend, _ended(code), output=output)
        try:
            answer = json.loads((place / "answer.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise BackendError(command.backend, f"it left no answer: {error}", output=output) from error
    if not isinstance(answer, dict):
        raise BackendError(command.backend, "its answer is no object", output=output)
    return answer


def _run(command: Command, place: Path, check: Callable[[], None]) -> int:
    arguments = [*command.arguments, str(place / "job.json"), str(place / "answer.json")]
    with (place / "output").open("wb") as output:
        try:
            process = subprocess.Popen(
                arguments,
                cwd=place,
                env=os.environ | _OFFLINE,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that what it starts can be ended with it
            )
        except OSError as error:
            raise BackendError(command.backend, f"{arguments[0]} cannot be started: {error}") from error
    with process:
        try:
            return _waited(process, check)
        finally:
            _end(process)


def _waited(process: subprocess.Popen[bytes], check: Callable[[], None]) -> int:
    while True:
        check()
        try:
            return process.wait(PAUSE)
        except subprocess.TimeoutExpired:
            continue


def _end(process: subprocess.Popen[bytes]) -> None:
    """It and its children; harmless once they are gone."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _ended(code: int) -> str:
    if code == -signal.SIGKILL:
        return "it was killed, perhaps as memory ran out"
    if code < 0:
        return f"it crashed ({signal.Signals(-code).name})"
    return f"it ended with {code}"


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL))
            return file.read().decode(errors="replace")
    except OSError:
        return ""
