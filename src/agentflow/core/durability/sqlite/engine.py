"""Durable runs in a SQLite file: what they did is in it before it counts, and whoever has the file can go on with them.

    flow = AsyncFlow(…, durability=SqliteDurability())       .agentflow/runs.db, beside the run store's tables
    result = await flow.run(state, run_id="order-17")        killed at any moment, called again: goes on where it was

    execute ──▶ claim ──▶ body(journal) ──▶ end              claims and ends are transactions, and between them
                              └─▶ save, save, save           one transaction holds what one turn of the loop saved

`sync="normal"` survives the death of the process at any moment; after a power cut the last moments may be missing, and
what is there is whole. `sync="full"` waits for the disk at every save. Two processes never run one run: a lock that the
kernel keeps says who has it (`owners.py`). Nothing is opened or written before the first use.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sqlite3
import weakref
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

from agentflow.clock import Clock, SystemClock
from agentflow.core.durability.past import PastJournal
from agentflow.core.durability.protocol import Body
from agentflow.core.durability.records import Ending, Record, RunInfo, RunSpec, RunStatus
from agentflow.core.durability.sqlite import record_rows, run_rows
from agentflow.core.durability.sqlite.attendant import Attendant
from agentflow.core.durability.sqlite.failures import Busy, explained
from agentflow.core.durability.sqlite.following import Followers
from agentflow.core.durability.sqlite.group_commit import GroupCommit
from agentflow.core.durability.sqlite.journal import RunJournal, record_of
from agentflow.core.durability.sqlite.large_bodies import LargeBodies
from agentflow.core.durability.sqlite.ledger import Ledger
from agentflow.core.durability.sqlite.owners import Owners
from agentflow.core.durability.sqlite.record_rows import RecordRow
from agentflow.core.durability.sqlite.run_rows import RunRow
from agentflow.core.durability.sqlite.store import Store, Sync
from agentflow.core.durability.sqlite.stretch import AskedToEndError, Stretch, Stretches
from agentflow.errors import ConfigurationError, DurabilityError, RunEndedError, UnknownRunError

__all__ = ["DEFAULT_PATH", "SqliteDurability"]

DEFAULT_PATH: Final = ".agentflow/runs.db"
_LARGE: Final = 65_536  # bytes of UTF-8
_SOON, _LATE = 0.02, 1.0  # seconds between two looks at a run in another process
_SWEPT: Final = 200  # files of large bodies that one transaction looks after
_ENGINES: Final[weakref.WeakSet[SqliteDurability]] = weakref.WeakSet()


class SqliteDurability:
    """An engine (`Durability`). Safe to use from any number of threads and event loops, and from several processes.

    `patience` is how many seconds another process may be writing to the file before that is a DurabilityError. Bodies
    of `blob_bytes` and more, in UTF-8, stand in files beside the database. `clock` says the wall time of runs.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] = DEFAULT_PATH,
        *,
        sync: Sync = "normal",
        patience: float = 10.0,
        blob_bytes: int = _LARGE,
        clock: Clock | None = None,
    ) -> None:
        if sync not in ("normal", "full"):
            raise ConfigurationError(f"sync is 'normal' or 'full', not {sync!r}")
        if not patience >= 0 or blob_bytes < 1:
            raise ConfigurationError("patience is 0 or more seconds, and blob_bytes 1 or more")
        self.path: Final = _place(path)
        self._blob_bytes = blob_bytes
        self._clock = clock or SystemClock()
        self._store = Store(self.path, sync=sync, patience=patience)
        self._owners = Owners(self.path)
        self._bodies = LargeBodies(self.path)
        self._stretches = Stretches(f"another task of this process ({os.getpid()} on {socket.gethostname()})")
        self._ledger = Ledger(self._owners, self._bodies, self._stretches, self._clock, str(self.path))
        self._group = GroupCommit(self._store, self._hear)
        self._attendant = Attendant(self._look, lambda: len(self._stretches) > 0)
        self._followers = Followers()
        self._is_closing = False
        self._store.log_is_large = self._attendant.hurry
        _ENGINES.add(self)

    # ---- running ---------------------------------------------------------------------------------------------

    async def execute(self, spec: RunSpec, body: Body, /) -> Ending:
        with self._stretches.enter(spec.run_id) as stretch:
            row, rows = await self._claimed(spec)
            if row.status != "done":
                journal = RunJournal(row.id, rows, self._bodies, row.number, self._store.generation, self._save)
                try:
                    return await self._run(stretch, journal, body)
                finally:
                    self._followers.tell(spec.run_id)
        return await body(PastJournal(row.id, [record_of(each, self._bodies) for each in rows]))

    async def _claimed(self, spec: RunSpec) -> tuple[RunRow, list[RecordRow]]:
        """The run, which is ours now, and what it has."""
        try:
            row = await self._store.write(lambda connection: self._ledger.claim(connection, spec))
        except asyncio.CancelledError:
            self._let_go(spec.run_id)
            raise
        try:
            return row, await self._store.read(lambda connection: record_rows.load(connection, row.number))
        except BaseException:
            self._let_go(spec.run_id)
            raise

    async def _run(self, stretch: Stretch, journal: RunJournal, body: Body) -> Ending:
        self._attendant.needed()
        try:
            while True:
                ending = await stretch.walk(body, journal)
                became = await self._end(journal, ending)
                if became == "cancelled":
                    raise AskedToEndError
                if became != "answered":
                    return ending
                rows = await self._store.read(lambda connection: record_rows.load(connection, journal.number))
                journal.learn(rows)
        except AskedToEndError:
            await self._end(journal, None)
            raise _ended_for_good(journal.run_id) from None
        except Exception as error:
            with suppress(DurabilityError):  # what `body` raised is worth more
                await self._end(journal, Ending("failed", error=f"{type(error).__name__}: {error}"))
            raise
        except BaseException:
            self._end_at_once(journal)
            raise
        finally:
            journal.is_over = True

    def _end(self, journal: RunJournal, ending: Ending | None) -> asyncio.Future[str]:
        """Write how it ended, None for cancelled, behind all that was saved."""
        owner, now = self._owners.name or "", self._clock.time()
        return self._group.submit(
            lambda connection: run_rows.end(connection, journal.number, owner, ending, now),
        )

    def _end_at_once(self, journal: RunJournal) -> None:
        """On a cancellation nothing can be waited for. If others are writing, it is written as soon as they are not."""
        self._end(journal, None).add_done_callback(_forget_failure)
        self._group.flush_now()

    def _let_go(self, run_id: str) -> None:
        """Something came in between while the run was being claimed: perhaps it has been."""
        owner, now = self._owners.name or "", self._clock.time()

        def end(connection: sqlite3.Connection) -> None:
            row = run_rows.row_of(connection, run_id)
            if row is not None and row.owner == owner:
                run_rows.end(connection, row.number, owner, None, now)

        self._group.submit(end).add_done_callback(_forget_failure)
        self._group.flush_now()

    # ---- saving ----------------------------------------------------------------------------------------------

    async def _save(self, journal: RunJournal, record: Record) -> None:
        earlier = journal.being_saved.get(record.id)
        if earlier is None and not self._is_large(record.body):
            await self._submit(journal, _row_of(record), None)
            return
        task = asyncio.create_task(self._save_large(journal, record, earlier))
        journal.being_saved[record.id] = task

        def is_over(task: asyncio.Task[None]) -> None:
            if journal.being_saved.get(record.id) is task:
                del journal.being_saved[record.id]

        task.add_done_callback(is_over)
        await asyncio.shield(task)

    async def _save_large(self, journal: RunJournal, record: Record, earlier: asyncio.Task[None] | None) -> None:
        """Behind an `earlier` one of the same id, which must not take the place of this one afterwards."""
        row, large = await self._prepared(record)
        if earlier is not None and earlier.get_loop() is asyncio.get_running_loop():
            await asyncio.wait([earlier])
        await self._submit(journal, row, large)

    def _submit(self, journal: RunJournal, row: RecordRow, large: bytes | None) -> asyncio.Future[None]:
        stands = row

        def save(connection: sqlite3.Connection) -> None:
            nonlocal stands
            self._refuse_strangers(journal)
            stands = self._ledger.save(connection, journal.number, row, large)

        def saved() -> None:
            journal.keep(stands)
            self._followers.tell(journal.run_id)

        return self._group.submit(save, saved)

    def _refuse_strangers(self, journal: RunJournal) -> None:
        if journal.generation != self._store.generation:
            raise DurabilityError(
                f"run {journal.run_id} belongs to another process, or to a file that is not there any more: "
                "what it does from now on is not kept, and it cannot be resumed from here",
                run_id=journal.run_id,
            )
        if journal.is_over:
            raise DurabilityError(
                f"this stretch of run {journal.run_id} is over, so nothing can be added to it", run_id=journal.run_id
            )

    def _is_large(self, body: str) -> bool:
        if len(body) * 4 < self._blob_bytes:
            return False
        return len(body) >= self._blob_bytes or (not body.isascii() and len(_encoded(body)) >= self._blob_bytes)

    async def _prepared(self, record: Record) -> tuple[RecordRow, bytes | None]:
        """Its row, and its body where that has got a file of its own."""
        if not self._is_large(record.body):
            return _row_of(record), None
        large = _encoded(record.body)
        try:
            name = await asyncio.to_thread(self._bodies.put, large)
        except OSError as error:
            raise explained(error, self.path) from error
        return _row_of(record)._replace(body="", large=name), large

    # ---- the runs there are ----------------------------------------------------------------------------------

    async def find(self, run_id: str, /) -> RunInfo:
        self._need_file(run_id)
        return await self._store.read(lambda connection: self._ledger.find(connection, run_id))

    async def records(self, run_id: str, /) -> Sequence[Record]:
        self._need_file(run_id)
        rows = await self._store.read(lambda connection: self._ledger.records(connection, run_id))
        return [record_of(row, self._bodies) for row in rows]

    async def runs(
        self, *, flow: str | None = None, status: RunStatus | None = None, due: float | None = None, limit: int = 100
    ) -> Sequence[RunInfo]:
        if not self._store.is_there:
            return ()
        return await self._store.read(lambda connection: self._ledger.listed(connection, flow, status, due, limit))

    async def follow(self, run_id: str, /) -> AsyncIterator[Record]:
        self._need_file(run_id)
        row = await self._store.read(lambda connection: self._ledger.row(connection, run_id))
        after, delay = 0, _SOON
        with self._followers.of(row.id) as news:
            while True:
                ask = partial(self._ledger.news, number=row.number, after=after)
                goes_on, rows, after = await self._store.read(ask)
                for each in rows:
                    yield record_of(each, self._bodies)
                if not goes_on:
                    return
                told = await news.wait(None if row.id in self._stretches else delay)
                delay = _SOON if told or rows else min(2 * delay, _LATE)

    def _need_file(self, run_id: str) -> None:
        if not self._store.is_there:
            raise UnknownRunError(run_id, path=self.path)

    # ---- changing them ---------------------------------------------------------------------------------------

    async def answer(self, run_id: str, answers: Mapping[str, str], /) -> None:
        self._need_file(run_id)
        now = self._clock.time()
        prepared = {
            interrupt: await self._prepared(Record(f"{interrupt}!answer", "answer", text, now))
            for interrupt, text in answers.items()
        }
        rows = {interrupt: row for interrupt, (row, _) in prepared.items()}
        whole = await self._store.write(lambda connection: self._ledger.answer(connection, run_id, rows))
        self._followers.tell(whole)

    async def fork(self, spec: RunSpec, update: Record | None, /) -> None:
        self._need_file(spec.forked_from or "")
        row = None if update is None else (await self._prepared(update))[0]
        await self._store.write(lambda connection: self._ledger.fork(connection, spec, row))

    async def rewrite(self, spec: RunSpec, records: Sequence[Record], /) -> None:
        self._need_file(spec.run_id)
        rows = [(await self._prepared(record))[0] for record in records]
        await self._store.write(lambda connection: self._ledger.rewrite(connection, spec, rows))

    async def cancel(self, run_id: str, /) -> bool:
        self._need_file(run_id)
        whole, ends = await self._store.write(lambda connection: self._ledger.cancel(connection, run_id))
        if ends:
            self._stretches.ask_to_end(whole)
            self._followers.tell(whole)
        return ends

    async def delete(self, run_id: str, /) -> None:
        self._need_file(run_id)
        await self._store.write(lambda connection: self._ledger.delete(connection, run_id))
        names = await asyncio.to_thread(lambda: list(self._bodies.names()))
        for start in range(0, len(names), _SWEPT):
            some = names[start : start + _SWEPT]
            await self._store.write(partial(self._ledger.sweep, names=some))

    # ---- hearing of cancellations ----------------------------------------------------------------------------

    def _hear(self, connection: sqlite3.Connection) -> None:
        """Part of each transaction of ours."""
        if self._owners.name is not None:
            for run_id in run_rows.asked_to_end(connection, self._owners.name):
                self._stretches.ask_to_end(run_id)

    def _look(self) -> None:
        """In the attendant's thread."""
        with suppress(Busy, DurabilityError):
            self._store.attempt(self._hear, writes=False)
        self._store.keep_log_small()

    # ---- the end ---------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """With runs under way, once the last of them is over. What is used later opens the file again."""
        if len(self._stretches):
            return
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._attendant.end()
        self._store.close(also=self._leave)

    def _leave(self) -> None:
        if not len(self._stretches):
            self._owners.leave()

    def after_fork_in_child(self) -> None:
        """Nothing of what the parent has is ours."""
        self._owners.forget()
        self._stretches.begin()
        self._attendant.begin()
        self._followers.begin()
        self._group.begin()


def _row_of(record: Record) -> RecordRow:
    return RecordRow(
        record.id,
        record.kind,
        record.body,
        record.at,
        record.seconds,
        record.attempts,
        record.cost,
        record.tokens,
        None,
    )


def _ended_for_good(run_id: str) -> RunEndedError:
    return RunEndedError(run_id, "cancelled", "was cancelled for good: begin another, or fork it")


def _encoded(body: str) -> bytes:
    try:
        return body.encode()
    except UnicodeEncodeError as error:
        raise DurabilityError("half a character cannot be kept: a text holds a lone surrogate") from error


def _forget_failure(waiter: asyncio.Future[Any]) -> None:
    """Nobody waits for it any more: the run is found as lost, and can be resumed."""
    if not waiter.cancelled():
        waiter.exception()


def _place(path: str | os.PathLike[str]) -> Path:
    name = os.fspath(path)
    if not name or name == ":memory:" or "\0" in name or name.startswith("file:"):
        raise ConfigurationError(f"durable runs are kept in a file on a disk, not in {name!r}")
    return Path(name).expanduser().absolute()  # what it means must not change with the working directory


def _after_fork_in_child() -> None:
    for engine in list(_ENGINES):
        engine.after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
