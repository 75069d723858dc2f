"""How far the making of an artifact is: a bar for each piece of work on a terminal, a line now and then elsewhere.

    quantize: model.layers.3  ━━━━━━━━━━━━━━━╸━━━━  4/12  0:00:08
    the source's logits       ━━━━━━━━━━━━━━━━━━━━  64/64 0:00:02

It writes to stderr. `see` is called from the thread that works.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Final, Protocol, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["Watching", "watching_on"]

_PAUSE: Final = 10.0  # seconds between two lines of one piece of work


class Watching(Protocol):
    def __enter__(self) -> Watching: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def see(self, what: str, done: int, of: int) -> None: ...


def watching_on(stream: TextIO, *, quiet: bool) -> Watching:
    """What suits a stream: bars on a terminal that can move its cursor."""
    if quiet:
        return _Silent()
    if stream.isatty():
        from rich.console import Console

        console = Console(file=stream)
        if console.is_terminal and not console.is_dumb_terminal:
            return _Bars(stream)
    return _Lines(stream)


class _Silent:
    def __enter__(self) -> _Silent:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def see(self, what: str, done: int, of: int) -> None:
        pass


class _Bars(_Silent):
    """One bar at a time moves; those of work that is done stay above it."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self._progress: Progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=Console(file=stream),
        )
        self._tasks: dict[str, TaskID] = {}
        self._now: str | None = None

    def __enter__(self) -> _Bars:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def see(self, what: str, done: int, of: int) -> None:
        title = what.partition(":")[0]
        if title not in self._tasks:
            self._tasks[title] = self._progress.add_task(title, total=of or None)
        task = self._tasks[title]
        if self._now not in (None, title):
            self._progress.stop_task(self._tasks[str(self._now)])
        self._now = title
        self._progress.update(task, description=what, completed=done, total=of or None)


class _Lines(_Silent):
    """A line when work begins, when it ends, and every ten seconds between."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._said: tuple[str, float] = ("", 0.0)

    def see(self, what: str, done: int, of: int) -> None:
        title, now = what.partition(":")[0], self._clock()
        begun, at = self._said
        if title == begun and now - at < _PAUSE and not (of and done >= of):
            return
        self._said = (title, now)
        self._stream.write(f"{what}{f' {done}/{of}' if of else ''}\n")
        self._stream.flush()
