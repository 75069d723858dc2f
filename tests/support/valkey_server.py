"""A Valkey or Redis server that tests start, freeze, kill and start again: on loopback, with nothing on disk.

with running(folder) as server:     server.url       redis://127.0.0.1:PORT/0
    server.kill(); server.start()   kill -9, and a new one on the same port that remembers nothing
    server.freeze(); server.thaw()  it holds its connections, and does not answer
    server.command("PING")          a command, by a socket of its own
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import missing_service
from tests.support.programs import free_port, surroundings

__all__ = ["Server", "running"]

_PATIENCE = 10.0


@contextmanager
def running(folder: Path, *, cluster: bool = False) -> Iterator[Server]:
    server = Server(folder, cluster=cluster)
    server.start()
    try:
        yield server
    finally:
        server.kill()


class Server:
    def __init__(self, folder: Path, *, cluster: bool = False) -> None:
        program = shutil.which("valkey-server") or shutil.which("redis-server")
        if program is None:
            missing_service("neither valkey-server nor redis-server is installed: run scripts/install-services")
        self._program = str(program)
        self._folder = folder
        self._cluster = cluster
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.started_at = 0.0  # monotonic

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = {"port": self.port, "bind": "127.0.0.1", "dir": self._folder, "save": "", "appendonly": "no"}
        if self._cluster:
            options |= {"cluster-enabled": "yes", "cluster-port": free_port()}
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen([self._program, *words], stdout=log, stderr=log, env=surroundings())
        self.started_at = time.monotonic()
        self._wait()
        if self._cluster:
            self.command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
            self._until(lambda: b"cluster_state:ok" in self.command("CLUSTER", "INFO"))

    def kill(self) -> None:
        """End it at once, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(_PATIENCE)
            self._process = None

    def freeze(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def command(self, *words: str) -> Any:
        """The answer to one command: bytes, a number, a list of those, or None."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            packed = b"".join(b"$%d\r\n%s\r\n" % (len(word.encode()), word.encode()) for word in words)
            connection.sendall(b"*%d\r\n%s" % (len(words), packed))
            with connection.makefile("rb") as lines:
                return _answer(lines)

    def calls(self) -> dict[str, int]:
        """How often each command was called, as the server counted since `CONFIG RESETSTAT`."""
        text = self.command("INFO", "commandstats").decode()
        rows = [line.removeprefix("cmdstat_").split(":calls=") for line in text.splitlines() if ":calls=" in line]
        return {name: int(rest.split(",")[0]) for name, rest in rows}

    def _wait(self) -> None:
        def answers() -> bool:
            assert self._process is not None
            if self._process.poll() is not None:
                pytest.fail(f"the server ended: {(self._folder / 'server.log').read_text()[-500:]}")
            try:
                return bool(self.command("PING") == b"PONG")
            except OSError:
                return False

        self._until(answers)

    def _until(self, condition: Any) -> None:
        end = time.monotonic() + _PATIENCE
        while not condition():
            if time.monotonic() > end:
                pytest.fail(f"the server is not ready: {(self._folder / 'server.log').read_text()[-500:]}")
            time.sleep(0.01)


def _answer(lines: Any) -> Any:
    line = lines.readline()
    kind, rest = line[:1], line[1:].strip()
    match kind:
        case b"+":
            return rest
        case b":":
            return int(rest)
        case b"$":
            return None if rest == b"-1" else lines.read(int(rest) + 2)[:-2]
        case b"*":
            return [_answer(lines) for _ in range(int(rest))]
    raise AssertionError(f"the server said {line!r}")
