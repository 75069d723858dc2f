"""Rows of many callers through a model in one pass: what comes while a pass is under way goes into the next.

    passes = Passes(lambda rows: embedder.vectors(rows), most=32)
    found = await passes.ask([[1, 7, 4], [1, 9]])         an array, one line a row

Rows of about the same length go together, so that little is computed for padding. A pass that fails is done again row
by row, so that one caller's row fails one caller. The thread ends when nobody waits.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future

import numpy as np
from numpy.typing import NDArray

from agentflow.errors import AgentFlowError, ModelError, ServerError, describe

__all__ = ["Passes"]

Found = NDArray[np.float32]
Row = Sequence[int]


class Passes:
    """`run` is called in one thread at a time with at most `most` rows. Safe to use from several event loops."""

    def __init__(self, run: Callable[[Sequence[Row]], Found], *, most: int = 32) -> None:
        self._run = run
        self._most = most
        self._lock = threading.Lock()
        self._waiting: list[tuple[Row, Future[Found]]] = []
        self._thread: threading.Thread | None = None
        self._closed = False

    async def ask(self, rows: Sequence[Row]) -> Found:
        """Raises ModelError where the model fails, or was closed."""
        futures: list[Future[Found]] = [Future() for _ in rows]
        with self._lock:
            if self._closed:
                raise ModelError("the model was closed")
            self._waiting.extend(zip(rows, futures, strict=True))
            if self._thread is None and self._waiting:
                self._thread = threading.Thread(target=self._work, name="agentflow-edge")
                self._thread.start()
        return np.stack(await asyncio.gather(*map(asyncio.wrap_future, futures)))

    def close(self) -> None:
        """Those who wait get a ModelError. Waits for the pass that is under way."""
        with self._lock:
            self._closed = True
            waiting, self._waiting = self._waiting, []
            thread = self._thread
        for _, future in waiting:
            if future.set_running_or_notify_cancel():
                future.set_exception(ModelError("the model was closed"))
        if thread is not None:
            thread.join()

    def _work(self) -> None:
        while batch := self._taken():
            self._answer(batch)

    def _taken(self) -> list[tuple[Row, Future[Found]]]:
        """The one who waits longest, and those whose rows are nearest in length; whoever was cancelled is out."""
        with self._lock:
            self._waiting = [each for each in self._waiting if not each[1].cancelled()]
            if not self._waiting:
                self._thread = None
                return []
            wanted = len(self._waiting[0][0])
            order = sorted(self._waiting, key=lambda each: abs(len(each[0]) - wanted))
            batch = order[: self._most]
            chosen = {id(future) for _, future in batch}
            self._waiting = [each for each in self._waiting if id(each[1]) not in chosen]
        return [each for each in batch if each[1].set_running_or_notify_cancel()]

    def _answer(self, batch: list[tuple[Row, Future[Found]]]) -> None:
        try:
            found = self._run([row for row, _ in batch])
        except Exception as error:  # noqa: BLE001  # whatever the runtime raises, callers must hear of it
            if len(batch) > 1:
                for each in batch:
                    self._answer([each])
                return
            batch[0][1].set_exception(_told(error))
            return
        for line, (_, future) in zip(found, batch, strict=True):
            future.set_result(line)


def _told(error: Exception) -> Exception:
    return error if isinstance(error, AgentFlowError) else ServerError(f"the model failed: {describe(error)}")
