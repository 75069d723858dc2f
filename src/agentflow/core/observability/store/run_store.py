"""Keeps what runs tell in a file, so that `agentflow runs` and `agentflow trace` can show it later.

    with RunStore() as store, observe(store):          # .agentflow/runs.db
        await flow.run({"topic": "tides"})
    RunReader().runs()

Telling it something takes about a microsecond and never waits: a thread of its own writes. At a clean end (`close`,
the end of `with`, the end of the program) all of it is in the file; at `kill -9` the last 100 ms may be missing. What
has no room while the disk is slow or full is dropped, event by event, and counted: in `lost` and `losses`, and in the
file.

Prompts and answers are kept only with `capture="content"`. Every text passes the redactor, whatever it is; one that is
longer than `max_text` is cut and says how long it was. The pieces of streams are not kept: a key that comes in two
pieces would be found in neither, and the whole answer stands at its end.

The file holds at most about `max_bytes`, and runs that ended less than `max_age` seconds ago: the oldest leave first,
and what they have cost is remembered. Several processes may write the same file.
"""

from __future__ import annotations

import atexit
import os
import time
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, TypeAlias

from agentflow.clock import Clock, SystemClock
from agentflow.core.observability.events import ExecutionEvent
from agentflow.core.observability.redaction.redactor import Redactor
from agentflow.core.observability.store.cleaning import Cleaner
from agentflow.core.observability.store.process import Process, this_process
from agentflow.core.observability.store.retention import Retention
from agentflow.core.observability.store.run_file import RunFile
from agentflow.core.observability.store.writer import Writer
from agentflow.errors import ConfigurationError

__all__ = ["DEFAULT_PATH", "Capture", "RunStore"]

Capture: TypeAlias = Literal["none", "content"]

DEFAULT_PATH: Final = ".agentflow/runs.db"
_MEGABYTE: Final = 1024 * 1024
_DAY: Final = 24 * 3600.0
_PATIENCE: Final = 5.0  # seconds that the end of a program waits for the disk
_CLOCK: Final = SystemClock()
_LEAST_BYTES: Final = 256 * 1024
_LEAST_TEXT: Final = 100
_NOT_KEPT: Final = frozenset({"chunk", "alert"})


class RunStore:
    """An observer that is called inline, from any number of threads and event loops.

    `redactor` is a Redactor, or any function from a text to what may be kept of it. `max_text` is in characters. The
    file is opened with the first event; `open()` does so at once, and raises where that is impossible.
    """

    inline = True
    chunks = False

    def __init__(
        self,
        path: str | os.PathLike[str] = DEFAULT_PATH,
        *,
        capture: Capture = "none",
        max_bytes: int | None = 256 * _MEGABYTE,
        max_age: float | None = 30 * _DAY,
        max_text: int = 65_536,
        redactor: Redactor | Callable[[str], str] | None = None,
        clock: Clock = _CLOCK,
    ) -> None:
        self.path: Final = _place(path)
        if capture not in ("none", "content"):
            raise ConfigurationError(f"capture is 'none' or 'content', not {capture!r}")
        if max_bytes is not None and max_bytes < _LEAST_BYTES:
            raise ConfigurationError(f"max_bytes is {_LEAST_BYTES:,} or more, or None for no bound, not {max_bytes!r}")
        if max_age is not None and not 0.0 < max_age < float("inf"):
            raise ConfigurationError(f"max_age is a number of seconds above 0, or None for no bound, not {max_age!r}")
        if max_text < _LEAST_TEXT:
            raise ConfigurationError(f"max_text is {_LEAST_TEXT} characters or more, not {max_text!r}")
        self.content: Final = capture == "content"
        self._writer = _writer_of(
            self.path,
            lambda here: Retention(max_bytes=max_bytes, max_age=max_age, here=here, clock=clock),
            Cleaner(redactor or Redactor(), content=self.content, longest=max_text),
            clock,
        )
        weakref.finalize(self, self._writer.stop).atexit = False

    def observe(self, event: ExecutionEvent, /) -> None:
        """Keep it. The pieces of streams are not kept, nor are alerts, which belong to no run."""
        if event.kind not in _NOT_KEPT:
            self._writer.put(event)

    def open(self) -> None:
        """Open the file now, and make it where it is missing. Raises RunStoreError, with what to do about it."""
        self._writer.check()

    def flush(self, timeout: float = _PATIENCE) -> bool:
        """Wait until all that was told until now is in the file. Whether it is, within `timeout` seconds."""
        return self._writer.flush(timeout)

    def close(self, timeout: float = _PATIENCE) -> bool:
        """Write the rest, and end. Whether all of it was written; what was not is counted. Further events are lost."""
        return self._writer.close(timeout)

    def __enter__(self) -> RunStore:
        self._writer.start()  # so that no run waits for that
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def lost(self) -> int:
        """Events that are not in the file, and never will be."""
        return self._writer.losses.total

    @property
    def losses(self) -> Mapping[str, int]:
        """The same by reason; docs/runs.md says what each means."""
        return self._writer.losses.by_reason

    @property
    def behind(self) -> int:
        """Events that wait to be written."""
        return self._writer.behind

    @property
    def trouble(self) -> str | None:
        """Why the file cannot be written just now; None where it can."""
        return self._writer.trouble

    def __repr__(self) -> str:
        return f"<RunStore {self.path}: {self.behind} behind, {self.lost} lost>"


def _writer_of(path: Path, retention: Callable[[Process], Retention], cleaner: Cleaner, clock: Clock) -> Writer:
    """A writer that knows nothing of the store, so that one that is forgotten ends."""

    def file() -> RunFile:
        here = this_process()
        return RunFile(path, retention(here), here, clock.time)

    writer = Writer(file, cleaner, clock.time)
    _writers.add(writer)
    return writer


def _place(path: str | os.PathLike[str]) -> Path:
    name = os.fspath(path)
    if not name or name == ":memory:" or "\0" in name or name.startswith("file:"):
        raise ConfigurationError(f"a run store is a file on a disk, not {name!r}")
    return Path(name).expanduser().absolute()  # what it means must not change with the working directory


# ---- the end of the process, and of its children -------------------------------------------------------------

_writers: weakref.WeakSet[Writer] = weakref.WeakSet()
_held: list[Writer] = []


@atexit.register
def _end() -> None:
    end = time.monotonic() + _PATIENCE
    for writer in list(_writers):
        writer.close(max(0.0, end - time.monotonic()))


def _before_fork() -> None:
    _held[:] = [writer for writer in list(_writers) if writer.before_fork()]


def _after_fork_in_parent() -> None:
    for writer in _held:
        writer.after_fork_in_parent()
    _held.clear()


def _after_fork_in_child() -> None:
    _held.clear()
    for writer in list(_writers):
        writer.after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
