"""A PostgreSQL that tests start, restart and kill: on loopback, in a folder of its own, without fsync unless asked for.

with running() as server:       server.url("runs")    postgresql://agentflow:SECRET@127.0.0.1:PORT/runs, made if missing
    server.restart()            as an administrator would: connections are cut, what was committed is there
    server.kill(); server.start()   kill -9 of all of it, and recovery
    server.query("runs", "SELECT 1")

PostgreSQL refuses to run as root: there it runs as `postgres` or `nobody`, in a folder that is theirs.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import missing_service
from tests.support.programs import free_port

__all__ = ["PASSWORD", "PostgresServer", "emptied", "running"]

PASSWORD = "s3cret-of-the-database"
_PATIENCE = 30.0


@contextmanager
def running(*, durable: bool = False) -> Iterator[PostgresServer]:
    """`durable` keeps fsync on."""
    server = PostgresServer(durable=durable)
    try:
        server.start()
        yield server
    finally:
        server.remove()


class PostgresServer:
    def __init__(self, *, durable: bool = False) -> None:
        self._programs = _programs()
        self._user = _unprivileged()
        # Not below pytest's folder, which only its own user may enter.
        self._folder = Path(tempfile.mkdtemp(prefix="agentflow-pg-"))
        if self._user is not None:
            os.chown(self._folder, self._user.pw_uid, self._user.pw_gid)
        self._data = self._folder / "data"
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._initialise(durable)

    def url(self, database: str, *, password: str = PASSWORD) -> str:
        return f"postgresql://agentflow:{password}@127.0.0.1:{self.port}/{database}"

    def create(self, database: str) -> str:
        """A new database; its address."""
        self.query("postgres", f'CREATE DATABASE "{database}"')
        return self.url(database)

    def query(self, database: str, text: str) -> list[tuple[Any, ...]]:
        import psycopg

        with psycopg.connect(self.url(database), autocommit=True, connect_timeout=5) as connection:
            cursor = connection.execute(text.encode())
            return cursor.fetchall() if cursor.description else []

    def start(self) -> None:
        words = [self._programs / "postgres", "-D", self._data, "-p", str(self.port)]
        with (self._folder / "server.log").open("ab") as log:
            self._process = self._run(words, stdout=log, stderr=log)
        end = time.monotonic() + _PATIENCE
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > end:
                pytest.fail(f"PostgreSQL does not start: {(self._folder / 'server.log').read_text()[-800:]}")
            time.sleep(0.02)

    def stop(self) -> None:
        """As `pg_ctl stop -m fast`: connections are cut, and all is written."""
        self._end(signal.SIGINT)

    def restart(self) -> None:
        self.stop()
        self.start()

    def kill(self) -> None:
        """kill -9 of the server; its children see that and end."""
        self._end(signal.SIGKILL)

    def remove(self) -> None:
        self._end(signal.SIGQUIT)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            self._process.send_signal(how)
        self._process.wait(_PATIENCE)
        self._process = None

    def _answers(self) -> bool:
        import psycopg

        try:
            self.query("postgres", "SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def _initialise(self, durable: bool) -> None:
        secret = self._folder / "password"
        secret.write_text(PASSWORD)
        if self._user is not None:
            os.chown(secret, self._user.pw_uid, self._user.pw_gid)
        words = [self._programs / "initdb", "-D", self._data, "-U", "agentflow", "-A", "scram-sha-256", "-E", "UTF8"]
        words += ["--no-locale", "--no-sync", f"--pwfile={secret}"]
        done = self._run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        output = done.communicate(timeout=120)[0]
        if done.returncode != 0:
            missing_service(f"initdb failed: {output.decode()[-500:]}")
        settings = [
            "listen_addresses = '127.0.0.1'",
            f"unix_socket_directories = '{self._folder}'",
            "max_connections = 300",
        ]
        if not durable:
            settings += ["fsync = off", "synchronous_commit = off", "full_page_writes = off"]
        with (self._data / "postgresql.conf").open("a") as file:
            file.write("".join(f"{line}\n" for line in settings))

    def _run(self, words: list[Any], **options: Any) -> subprocess.Popen[bytes]:
        if self._user is not None:
            options |= {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}
        environment = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"}
        return subprocess.Popen[bytes]([str(word) for word in words], cwd=self._folder, env=environment, **options)


def emptied(server: PostgresServer, database: str) -> None:
    """No runs are in it, and DBOS's tables stay, where there are any."""
    names = server.query(database, "SELECT tablename FROM pg_tables WHERE schemaname = 'dbos'")
    kept = {"dbos_migrations", "application_versions", "queues"}
    tables = ", ".join(f'dbos."{name}"' for (name,) in names if name not in kept)
    if tables:
        server.query(database, f"TRUNCATE {tables} CASCADE")


def _programs() -> Path:
    """Where `initdb` and `postgres` are: Debian keeps them out of the PATH, the newest version last."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: float(folder.parent.name))
    found = shutil.which("initdb")
    for folder in [*reversed(folders), *([Path(found).parent] if found else [])]:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    missing_service("PostgreSQL is not installed: run scripts/install-services")
    raise AssertionError


def _unprivileged() -> pwd.struct_passwd | None:
    """Whom to run it as; None where we are nobody special ourselves."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            return pwd.getpwnam(name)
    missing_service("PostgreSQL cannot run as root, and there is no other user here")
    raise AssertionError
