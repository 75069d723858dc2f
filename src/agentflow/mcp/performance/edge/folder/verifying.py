"""Is a deployed folder whole, and does it run? Checksums first, then run.py in a fresh process.

verify("deployed/support")    →    Check(files=14, runtime="onnxruntime-genai", version="0.18.0", seconds=0.4)
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from agentflow.errors import ArtifactError, BackendError
from agentflow.mcp.performance.edge.folder import checksums
from agentflow.mcp.performance.edge.folder.deployed import ARTIFACT, RUN

__all__ = ["Check", "verify"]

_PATIENCE: Final = 600.0


class _Said(msgspec.Struct):
    """What run.py --check prints."""

    runtime: str
    version: str
    pieces: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Check:
    """`files` are as they were written. `seconds` are from the start of the program to its first token, or vector; the
    process itself starts before that."""

    files: int
    runtime: str
    version: str
    seconds: float


def verify(folder: str | Path, *, python: str = sys.executable) -> Check:
    """Raises ArtifactError where a file is damaged, missing or was added, BackendError where the model does not run.

    `python` is the interpreter that runs it: one with the packages of requirements.txt."""
    place = Path(folder)
    if not place.is_dir():
        raise ArtifactError(place, "there is no such folder")
    if not (place / RUN).is_file() or not (place / ARTIFACT).is_dir():
        raise ArtifactError(place, f"it is no deployed folder: it has no {RUN} or no {ARTIFACT}")
    wrong = checksums.damage(place)
    if wrong is not None:
        raise ArtifactError(place, wrong)
    files = len((place / checksums.NAME).read_text(encoding="utf-8").splitlines())
    said = _run(place, python)
    return Check(files, said.runtime, said.version, said.seconds)


def _run(place: Path, python: str) -> _Said:
    """Writes nothing into the folder, so that its checksums still hold."""
    try:
        done = subprocess.run(
            [python, "-B", str(place.resolve() / RUN), "--check"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            env={**os.environ, "PYTHONIOENCODING": "utf-8"},
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BackendError(RUN, f"it does not run: {error}") from error
    if done.returncode != 0:
        raise BackendError(RUN, f"it ended with exit code {done.returncode}", output=done.stderr or done.stdout)
    try:
        said = msgspec.json.decode(done.stdout.strip().splitlines()[-1], type=_Said)
    except (msgspec.MsgspecError, IndexError) as error:
        raise BackendError(RUN, "it did not say what it ran", output=done.stdout) from error
    if said.pieces < 1:
        raise BackendError(RUN, "the model was loaded, and wrote nothing")
    return said
