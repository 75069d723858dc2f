"""Who runs a run: every engine holds a lock on a file of its own, and its name stands with the runs it has.

    .agentflow/runs.db-owners/
        search-3.4711.9f3a5c0d1e2b       locked while engine 9f3a… of process 4711 on host search-3 has runs

    owners.me                name to write beside a run, the lock is taken
    owners.is_alive(name)    False once the lock can be taken: that process is dead, or has given back what it had

No clock and no heartbeat come into it: the kernel frees the locks of a process that was killed, at once, and keeps
those of one that is merely stopped. All processes that share the file must run under one kernel, as for SQLite's WAL
itself.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
from contextlib import suppress
from pathlib import Path

from agentflow.core.file_lock import FileLock

__all__ = ["Owners"]


class Owners:
    """All that have runs in one file, and the one that we are. One thread at a time."""

    def __init__(self, database: Path) -> None:
        self._folder = database.with_name(f"{database.name}-owners")
        self._mine: FileLock | None = None
        self.name: str | None = None
        """Our name, while we hold the lock on it."""

    @property
    def me(self) -> str:
        """Our name. The lock on it is taken when it is first asked for, and kept until `leave`. Raises OSError."""
        if self._mine is None or not self._mine.stands():
            self.leave()
            self._mine = self._take_one()
            self.name = self._mine.path.name
            self._clear()
        return self._mine.path.name

    def _take_one(self) -> FileLock:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        host = re.sub(r"[^\w-]", "-", socket.gethostname())[:64]
        while True:
            lock = FileLock(self._folder / f"{host}.{os.getpid()}.{secrets.token_hex(6)}")
            if lock.take():
                if lock.stands():  # whoever clears the folder may have come in between
                    return lock
                lock.give_up()

    def is_alive(self, name: str) -> bool:
        """Whether that one still has its runs. Raises OSError where the system does not let us ask."""
        if name == self.name:
            return True
        path = self._folder / name
        if not path.exists():
            return False
        lock = FileLock(path)
        if not lock.take():
            return True
        with suppress(OSError):  # Windows keeps files that are open
            path.unlink()
        lock.give_up()
        return False

    def words(self, name: str) -> str:
        """Who that is, for a person."""
        host, _, rest = name.partition(".")
        pid = rest.partition(".")[0]
        if name == self.name:
            return f"another task of this process ({pid} on {host})"
        return f"process {pid} on {host}"

    def leave(self) -> None:
        """Give back the lock, and with it all runs that still bear our name."""
        lock, self._mine, self.name = self._mine, None, None
        if lock is not None:
            if lock.stands():
                with suppress(OSError):
                    lock.path.unlink()
            lock.give_up()

    def forget(self) -> None:
        """In a forked child: the lock is the parent's."""
        lock, self._mine, self.name = self._mine, None, None
        if lock is not None:
            lock.give_up()

    def _clear(self) -> None:
        """Take away what dead ones have left."""
        with suppress(OSError):
            for path in list(self._folder.iterdir()):
                self.is_alive(path.name)
