"""A benchmark as it runs: three lines that change on a terminal, a line now and then elsewhere.

    gpt-4o  1 of 2  ━━━━━━━━━━━━━━━━━━━━━╸──────────  34 of 66 s  measuring
    sent 170 of 330 · 12 under way · lag 1.2 ms · 2 errors: RateLimitError 2
    latest answers  p50 812 ms · p90 1.4 s · p99 2.3 s

It writes to stderr, so that stdout holds what was found.
"""

from __future__ import annotations

from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Final, Protocol, TextIO

from agentflow.mcp.optimization.benchmark import Progress
from agentflow.mcp.optimization.benchmark.amounts import seconds
from agentflow.mcp.optimization.benchmark.measures import Window
from agentflow.mcp.optimization.benchmark.percentiles import quantile

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

__all__ = ["Watching", "watching_on"]

_LATEST: Final = 500
_PAUSE: Final = 10.0
_BAR: Final = (12, 40)


class Watching(Protocol):
    def __enter__(self) -> Watching: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def see(self, progress: Progress) -> None: ...


def watching_on(stream: TextIO, window: Window, *, quiet: bool) -> Watching:
    """What suits a stream: live on a terminal that can move its cursor."""
    if quiet:
        return _Quiet(window)
    if stream.isatty():
        from rich.console import Console

        console = Console(file=stream)
        if console.is_terminal and not console.is_dumb_terminal:
            return _Live(window, console)
    return _Plain(window, stream)


class _Quiet:
    """Keeps the latest latencies and says nothing."""

    def __init__(self, window: Window) -> None:
        self._window = window
        self._latest: deque[float] = deque(maxlen=_LATEST)
        self._model = ""

    def __enter__(self) -> _Quiet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def see(self, progress: Progress) -> None:
        if progress.model != self._model:
            self._model = progress.model
            self._latest.clear()
        self._latest.extend(progress.standing.recent)

    def _phase(self, progress: Progress) -> str:
        if progress.at < self._window.start:
            return "warming up"
        if progress.at < self._window.end:
            return "measuring"
        return "cooling down" if progress.at < progress.duration else "waiting for the last answers"

    def _counts(self, progress: Progress) -> str:
        standing = progress.standing
        failed = sum(standing.errors.values())
        parts = [f"sent {standing.sent:,} of {progress.planned:,}", f"{standing.in_flight:,} under way"]
        parts.append(f"lag {seconds(standing.lag)}")
        if failed:
            kinds = ", ".join(f"{name} {count:,}" for name, count in standing.errors.most_common(2))
            parts.append(f"{failed:,} error{'s' * (failed != 1)}: {kinds}")
        return " · ".join(parts)

    def _latencies(self) -> str:
        if not self._latest:
            return "no answer yet"
        ordered = sorted(self._latest)
        told = " · ".join(f"{name} {seconds(quantile(ordered, p))}" for name, p in (("p50", 0.5), ("p90", 0.9)))
        return f"latest answers  {told} · slowest {seconds(ordered[-1])}"


class _Plain(_Quiet):
    """A line every ten seconds, and one for each model's start."""

    def __init__(self, window: Window, stream: TextIO) -> None:
        super().__init__(window)
        self._stream = stream
        self._next = 0.0

    def see(self, progress: Progress) -> None:
        if progress.model != self._model:
            self._next = 0.0
        super().see(progress)
        if progress.at >= self._next:
            self._next = progress.at + _PAUSE
            at = f"{min(progress.at, progress.duration):.0f} of {progress.duration:g} s"
            print(f"{progress.model}: {at}, {self._phase(progress)}: {self._counts(progress)}", file=self._stream)


class _Live(_Quiet):
    """The three lines, redrawn as they change."""

    def __init__(self, window: Window, console: Console) -> None:
        super().__init__(window)
        self._console = console
        self._live: Live | None = None

    def __enter__(self) -> _Live:
        from rich.live import Live
        from rich.text import Text

        self._live = Live(Text("starting the load processes …", style="dim"), console=self._console, transient=True)
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def see(self, progress: Progress) -> None:
        super().see(progress)
        if self._live is not None:
            self._live.update(self._picture(progress))

    def _picture(self, progress: Progress) -> RenderableType:
        from rich.text import Text

        width = self._console.width
        at = f"  {min(progress.at, progress.duration):.0f} of {progress.duration:g} s  "
        phase, which = self._phase(progress), f"  {progress.number} of {progress.of}  " if progress.of > 1 else "  "
        room = width - len(progress.model) - len(at) - len(phase) - len(which) - 1
        cells = max(0, min(_BAR[1], room))
        done = round(cells * min(1.0, progress.at / progress.duration))
        head = Text.assemble((progress.model, "bold"), (which, "dim"))
        if cells >= _BAR[0]:
            head.append("━" * done, style="cyan").append("─" * (cells - done), style="dim")
        head.append(at).append(phase, style="dim")
        failed = bool(progress.standing.errors)
        lines = [
            head,
            Text(self._counts(progress), style="red" if failed else ""),
            Text(self._latencies(), style="dim"),
        ]
        for line in lines:
            line.truncate(width, overflow="ellipsis")
        return Text("\n").join(lines)
