"""How fast an artifact is, and what it takes: measured in fresh processes, each from its start.

    trial = try_out(folder, prompt=[1, 7, 4], plan=SpeedPlan(output_tokens=32))
    trial.speed.cold_start · trial.runtime · trial.runtime_version

The first process proves that the runtime can load the artifact at all: what cannot be loaded, or brings the process
down, is an ArtifactError. Files are likely cached by then, so a cold start is one of the process and not of the disk.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import msgspec

from agentflow.errors import ArtifactError, CompressionError, MissingExtraError
from agentflow.mcp.compression.artifact.manifest import Speed, Task
from agentflow.mcp.compression.measurement.speed_worker import Answer, Missing, Order

__all__ = ["SpeedPlan", "Trial", "try_out"]

_WORKER = "agentflow.mcp.compression.measurement.speed_worker"
_LOOK = 0.2  # seconds between two looks whether somebody wants it to end
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedPlan:
    """`starts` processes, `repeats` answers of `output_tokens` in the last of them. `threads=None`: the runtime's own
    choice. `timeout`: seconds that one process may take."""

    output_tokens: int = 32
    repeats: int = 5
    starts: int = 3
    threads: int | None = None
    timeout: float = 900.0

    def __post_init__(self) -> None:
        if self.output_tokens < 2 or self.repeats < 1 or self.starts < 1:
            raise CompressionError("a speed is measured over 2 tokens or more, 1 repeat and 1 start at least")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What came of it: the runtime that loaded the artifact, and the tokens that it wrote."""

    runtime: str
    runtime_version: str
    tokens: tuple[int, ...]
    speed: Speed


def try_out(
    folder: Path,
    *,
    prompt: Sequence[int],
    task: Task = "generate",
    kind: str | None = None,
    plan: SpeedPlan | None = None,
    check: Callable[[], None] = lambda: None,
) -> Trial:
    """Start processes that open `folder` in the runtime `kind` (None: the one that fits) and read `prompt`, ids of one
    token or more. Raises ArtifactError where it cannot be loaded, MissingExtraError where the runtime is not here."""
    if not prompt:
        raise CompressionError("a speed is measured with a prompt of 1 token or more")
    plan = plan or SpeedPlan()
    order = Order(
        folder=str(folder),
        task=task,
        kind=kind,
        threads=plan.threads,
        prompt=tuple(int(token) for token in prompt),
        output_tokens=plan.output_tokens,
        repeats=0,
        started=0.0,
    )
    answers = [_started(order, plan, last=number == plan.starts - 1, check=check) for number in range(plan.starts)]
    last = answers[-1]
    speed = Speed(
        tokens_per_second=last.rate,
        time_to_first_token=last.first,
        cold_start=median(each.cold_start for each in answers),
        resident_bytes=last.resident_bytes,
        prompt_tokens=len(order.prompt),
        output_tokens=len(last.tokens),
        repeats=plan.repeats,
        threads=plan.threads,
    )
    return Trial(runtime=last.runtime, runtime_version=last.runtime_version, tokens=last.tokens, speed=speed)


def _started(order: Order, plan: SpeedPlan, *, last: bool, check: Callable[[], None]) -> Answer:
    environ = {**os.environ, **({name: str(plan.threads) for name in _THREADS} if plan.threads else {})}
    order = msgspec.structs.replace(order, repeats=plan.repeats if last else 0, started=time.monotonic())
    process = subprocess.Popen(
        [sys.executable, "-m", _WORKER, msgspec.json.encode(order).decode()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environ,
    )
    try:
        said, complained = _waited(process, plan.timeout, check)
    except subprocess.TimeoutExpired:
        raise ArtifactError(order.folder, f"it wrote nothing within {plan.timeout:g} s") from None
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()
    if process.returncode != 0:
        raise ArtifactError(order.folder, f"its runtime could not use it: {_why(process.returncode, complained)}")
    try:
        answer = msgspec.json.decode(said.strip().splitlines()[-1], type=Answer | Missing)
    except (msgspec.MsgspecError, IndexError):
        raise ArtifactError(order.folder, "the process that measured it said nothing that can be read") from None
    if isinstance(answer, Missing):
        raise MissingExtraError(answer.feature, answer.extra)
    return answer


def _waited(process: subprocess.Popen[bytes], timeout: float, check: Callable[[], None]) -> tuple[bytes, bytes]:
    until = time.monotonic() + timeout
    while True:
        check()
        try:
            return process.communicate(timeout=_LOOK)
        except subprocess.TimeoutExpired:
            if time.monotonic() > until:
                raise


def _why(code: int, complained: bytes) -> str:
    lines = [line.strip() for line in complained.decode(errors="replace").splitlines() if line.strip()]
    if code < 0:
        return f"signal {-code} ended it" + (f" after {lines[-1][:300]!r}" if lines else "")
    return lines[-1][:500] if lines else f"it ended with {code}"
