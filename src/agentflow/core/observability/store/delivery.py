"""Brings batches into the file, however often it takes: tries again what passes, and sets a damaged file aside.

    delivery.insist(batch, left, wait)      False: the end came first, and the batch is not in the file
    delivery.make_room()                    what is too old or too much leaves, a little at a time
    delivery.trouble                        why the file cannot be written just now

A batch that holds an event that no table takes is written event by event, without that one.
"""

from __future__ import annotations

import logging
import math
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from agentflow.core.observability.store.database import is_busy, is_damage
from agentflow.core.observability.store.losses import Losses
from agentflow.core.observability.store.run_file import Kept, RunFile
from agentflow.errors import RunStoreError

__all__ = ["RENEWALS", "Delivery"]

RENEWALS: Final = 3
"""How many damaged files are set aside: where that many are, it is the disk."""

_FIRST_PAUSE: Final = 0.05  # seconds before the second try
_LONGEST_PAUSE: Final = 2.0
_TRIMMING: Final = 0.02  # seconds of making room after one batch
_UNFIT: Final = (
    sqlite3.IntegrityError,
    sqlite3.ProgrammingError,
    sqlite3.InterfaceError,
    sqlite3.DataError,
    ValueError,
    TypeError,
    OverflowError,
)  # what SQLite and its module raise for values, not for a disk
_log = logging.getLogger("agentflow.runs")


@dataclass(frozen=True, slots=True)
class _Problem:
    """Why the file cannot be written, and whether that passes by itself: another process is writing."""

    text: str
    passes: bool


class Delivery:
    """Everything that is done with the file is done under `gate`, so that nobody forks meanwhile."""

    def __init__(self, file: RunFile, losses: Losses) -> None:
        self.file = file
        self.gate = threading.Lock()
        self.trouble: str | None = None
        self._losses = losses
        self._renewals = RENEWALS

    def check(self) -> None:
        """Open the file now. Raises RunStoreError where that is impossible."""
        try:
            try:
                self._open()
            except sqlite3.DatabaseError as error:
                if not (is_damage(error) and self._set_aside()):
                    raise
                self._open()
        except (sqlite3.Error, OSError) as error:
            raise RunStoreError(f"{self.file.path} cannot be written: {error}", path=self.file.path) from error

    def insist(self, batch: list[Kept], left: Callable[[], float], wait: Callable[[float], object]) -> bool:
        """Whether it is in the file. `left` is the time until the end, infinite while nobody wants to end; then only
        another process is waited for."""
        pause = _FIRST_PAUSE
        while (problem := self._try(batch)) is not None:
            self.say(problem.text)
            seconds = left()
            if seconds < math.inf and (seconds <= 0.0 or not problem.passes):
                return False
            wait(min(pause, seconds))
            pause = min(2 * pause, _LONGEST_PAUSE)
        if batch and self.trouble is not None:
            _log.warning("%s is written again", self.file.path)
            self.trouble = None
        return True

    def make_room(self) -> None:
        """In small steps, and never for long."""
        end = time.monotonic() + _TRIMMING
        try:
            while time.monotonic() < end:
                with self.gate:
                    if self.trouble or not self.file.trim():
                        return
        except (sqlite3.Error, OSError, RunStoreError):
            self.close()  # the next batch finds out what is wrong

    def close(self) -> None:
        with self.gate:
            self.file.close()

    def say(self, problem: str) -> None:
        if self.trouble is None:
            _log.warning("%s cannot be written, and is tried again: %s", self.file.path, problem)
        self.trouble = problem

    def _open(self) -> None:
        with self.gate:
            self.file.open()

    def _try(self, batch: list[Kept]) -> _Problem | None:
        """Why it cannot be written just now; None where it has been."""
        losses = self._losses.take()
        if not batch and not losses:
            return None
        try:
            with self.gate:
                left_out = self.file.write(batch, losses)
        except _UNFIT as error:
            self._losses.put_back(losses)
            return self._one_by_one(batch, error)
        except sqlite3.Error as error:
            self._losses.put_back(losses)
            if is_damage(error) and self._set_aside():
                return self._try(batch)
            self.close()
            return _Problem(str(error), passes=is_busy(error))
        except (OSError, RunStoreError) as error:
            self._losses.put_back(losses)
            return _Problem(str(error), passes=False)
        if left_out:
            self._losses.add("bound", left_out)
        return None

    def _one_by_one(self, batch: list[Kept], error: Exception) -> _Problem | None:
        """One event that no table takes must not keep the others out, nor be tried for ever."""
        if len(batch) <= 1:
            self._losses.add("unwritable", len(batch), note=type(error).__name__)
            return None
        problem = None
        while batch and problem is None:
            problem = self._try(batch[:1])
            if problem is None:
                del batch[:1]  # what is in the file already is not written again
        return problem

    def _set_aside(self) -> bool:
        """Whether a new file may take the place of the damaged one: where that is damaged too, it is the disk."""
        if self._renewals == 0:
            return False
        self._renewals -= 1
        try:
            with self.gate:
                aside = self.file.set_aside()
        except OSError:
            return False
        if aside is not None:
            _log.warning("%s is damaged: it is now %s, and a new one begins", self.file.path, aside.name)
            self._losses.add("damaged", 0, note=aside.name)
        return True
