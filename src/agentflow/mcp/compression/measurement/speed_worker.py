"""A process that opens one model, asks it one thing, and says how long that took since the process was started.

    python -m agentflow.mcp.compression.measurement.speed_worker ORDER      ORDER and the answer are JSON, one line each

It is a process of its own so that loading is paid for, no other model's memory is counted, and a damaged file that
brings a runtime written in C++ down takes nobody with it.
"""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import msgspec

from agentflow.errors import MissingExtraError

__all__ = ["Answer", "Missing", "Order", "main"]


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """`started` is the time.monotonic() of just before the process was: one clock for all processes of a machine."""

    folder: str
    task: str
    kind: str | None
    threads: int | None
    prompt: tuple[int, ...]
    output_tokens: int
    repeats: int
    started: float


class Answer(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Seconds each; `first` with the model loaded. For a model that writes nothing `rate` counts tokens read."""

    runtime: str
    runtime_version: str
    cold_start: float
    first: float
    rate: float
    resident_bytes: int | None
    tokens: tuple[int, ...]


class Missing(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The runtime is not installed, which is no fault of the artifact."""

    feature: str
    extra: str


def main(words: list[str]) -> int:
    order = msgspec.json.decode(words[0], type=Order)
    said: Answer | Missing
    try:
        said = _writing(order) if order.task == "generate" else _reading(order)
    except MissingExtraError as error:
        said = Missing(feature=error.feature, extra=error.extra)
    sys.stdout.write("\n" + msgspec.json.encode(said).decode() + "\n")
    return 0


def _writing(order: Order) -> Answer:
    from agentflow.mcp.performance.edge.opening import open_runtime

    runtime = open_runtime(Path(order.folder), kind=order.kind, threads=order.threads)
    decoding = runtime.open([order.prompt])
    token = int(decoding.logits()[0].argmax())
    cold = time.monotonic() - order.started
    decoding.close()
    firsts, rates, written = [], [], [token]
    for _ in range(order.repeats):
        begun = time.perf_counter()
        decoding = runtime.open([order.prompt])
        written = [int(decoding.logits()[0].argmax())]
        first = time.perf_counter()
        while len(written) < order.output_tokens:
            decoding.append([written[-1]])
            written.append(int(decoding.logits()[0].argmax()))
        ended = time.perf_counter()
        decoding.close()
        firsts.append(first - begun)
        rates.append((len(written) - 1) / max(ended - first, 1e-9))
    return _answer(runtime.name, runtime.version, cold, firsts, rates, tuple(written))


def _reading(order: Order) -> Answer:
    from agentflow.mcp.performance.edge.opening import open_embedder, open_labeller

    call: Callable[[list[tuple[int, ...]]], object]
    if order.task == "classify":
        labeller = open_labeller(Path(order.folder), kind=order.kind, threads=order.threads)
        name, version, call = labeller.name, labeller.version, labeller.scores
    else:
        embedder = open_embedder(Path(order.folder), kind=order.kind, threads=order.threads)
        name, version, call = embedder.name, embedder.version, embedder.vectors
    call([order.prompt])
    cold = time.monotonic() - order.started
    times = []
    for _ in range(order.repeats):
        begun = time.perf_counter()
        call([order.prompt])
        times.append(max(time.perf_counter() - begun, 1e-9))
    return _answer(name, version, cold, times, [len(order.prompt) / each for each in times], ())


def _answer(
    name: str, version: str, cold: float, firsts: list[float], rates: list[float], tokens: tuple[int, ...]
) -> Answer:
    return Answer(
        runtime=name,
        runtime_version=version,
        cold_start=cold,
        first=median(firsts) if firsts else 0.0,
        rate=median(rates) if rates else 0.0,
        resident_bytes=_peak(),
        tokens=tokens,
    )


def _peak() -> int | None:
    """The most memory this process has held. Linux's ru_maxrss is no answer: a child inherits its parent's there."""
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    if platform.system() == "Darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes there
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
