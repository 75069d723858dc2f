"""Who is alive, told without clocks: every engine holds an advisory lock of PostgreSQL for as long as it lives.

    engine search-3.4711.9f3a ──▶ a session of its own ──▶ pg_advisory_lock(AgentFlow, hash of its name)
    the process is killed      ──▶ its session ends, the server frees the lock ──▶ others may take over what it ran

A server that restarts frees all locks, too. So an engine that is seen without its lock is given `grace` seconds to come
back and take it again, counted by whoever looks, and from when that one had itself come back. Behind that stands a
fence: DBOS lets an execution save only while the run still bears its token, so one that was taken for dead and is not
can add nothing to the run's journal.

The same server keeps two from changing how one run stands at the same time (`on_run`). Locks belong to sessions: a
pooler between here and the server must not hand sessions around (PgBouncer: `pool_mode = session`).
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import psycopg

__all__ = ["Lease", "Leases"]

_ENGINES: Final = 0x41464C45  # the two spaces in which our locks stand
_RUNS: Final = 0x41464C52
_PATIENCE: Final = 10  # seconds to connect
# How soon the server notices that a whole machine is gone, which ends no session by itself.
_KEEPALIVES: Final = "-c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3"
_HELD: Final = """
    SELECT objid::bigint FROM pg_locks
    WHERE locktype = 'advisory' AND classid::bigint = %s AND objsubid = 2 AND granted
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


class Leases:
    """The locks on one database. Every call is a session of its own, from any thread."""

    def __init__(self, url: str, grace: float) -> None:
        self._url = url
        self._grace = grace

    @property
    def grace(self) -> float:
        return self._grace

    def connect(self) -> psycopg.Connection:
        """Raises psycopg.Error."""
        import psycopg

        return psycopg.connect(
            self._url,
            autocommit=True,
            connect_timeout=_PATIENCE,
            application_name="agentflow",
            options=_KEEPALIVES,
        )

    @contextmanager
    def on_run(self, run_id: str) -> Iterator[None]:
        """How this run stands is changed by nobody else meanwhile."""
        with closing(self.connect()) as session:
            session.execute("SELECT pg_advisory_lock(%s::int, %s::int)", (_RUNS, _hash(run_id)))
            yield

    @contextmanager
    def in_place_of(self, engine: str) -> Iterator[bool]:
        """Take the lock of an engine that seems dead: false where it is alive, or another is doing this already."""
        with closing(self.connect()) as session:
            yield _try(session, engine)

    def alive(self, engines: set[str]) -> set[str]:
        """Those of them that hold their locks just now."""
        if not engines:
            return set()
        with closing(self.connect()) as session:
            held = {row[0] for row in session.execute(_HELD, (_ENGINES,)).fetchall()}
        return {engine for engine in engines if _hash(engine) in held}

    def is_dead(self, engine: str) -> bool:
        """Whether it stays without its lock for as long as it may take to come back. Blocks that long to say so."""
        end = time.monotonic() + self._grace
        while not self.alive({engine}):
            if time.monotonic() >= end:
                return True
            time.sleep(min(0.2, self._grace / 4))
        return False


class Lease:
    """Our own lock, held by a thread: taken again whenever the server lost it."""

    def __init__(self, leases: Leases, engine: str, beat: float) -> None:
        self._leases = leases
        self._engine = engine
        self._beat = beat
        self._end = threading.Event()
        self._held_since: float | None = None
        self._session: psycopg.Connection | None = None
        self._thread = threading.Thread(target=self._keep, name="agentflow-lease", daemon=True)

    def take(self) -> bool:
        """False where another engine's name has the same hash: choose another. Raises psycopg.Error."""
        self._session = self._leases.connect()
        if not _try(self._session, self._engine):
            self._session.close()
            return False
        self._held_since = time.monotonic()
        self._thread.start()
        return True

    def held_for(self) -> float:
        """Seconds since it was last taken; none where it is not held."""
        since = self._held_since
        return 0.0 if since is None else time.monotonic() - since

    def give_up(self) -> None:
        self._end.set()
        if self._thread.ident is not None:
            self._thread.join(_PATIENCE)
        if self._session is not None:
            self._session.close()

    def _keep(self) -> None:
        import psycopg

        while not self._end.wait(self._beat):
            try:
                if self._session is None:
                    self._session = self._leases.connect()
                if self._held_since is None:
                    if _try(self._session, self._engine):
                        self._held_since = time.monotonic()
                else:
                    self._session.execute("SELECT 1")
            except psycopg.Error:
                self._held_since = None
                session, self._session = self._session, None
                if session is not None:
                    with suppress(psycopg.Error):
                        session.close()


def _try(session: psycopg.Connection, engine: str) -> bool:
    row = session.execute("SELECT pg_try_advisory_lock(%s::int, %s::int)", (_ENGINES, _hash(engine))).fetchone()
    return bool(row and row[0])


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") >> 1
