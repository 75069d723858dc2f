"""Programs that tests start and that are none of ours: where they are, that they are up, and that they stay at home.

python_of("oracles")                    the Python of .venvs/oracles; a skip, in CI a failure, where it is missing
with started(command, port, log): …     a server on loopback, from the moment it listens to the end of the block
Oracle("openai").verdict(job)           what an official SDK makes of an answer (see oracle.py)
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import ROOT, missing_service

__all__ = ["Oracle", "free_port", "python_of", "started", "surroundings"]

_NOWHERE = "http://127.0.0.1:9"  # nothing listens there, so what would go out of the machine fails at once


def surroundings(**more: str) -> dict[str, str]:
    """The environment of a program that is to reach loopback alone: no keys, no settings, and a proxy to nowhere."""
    proxies = {f"{scheme}_proxy": _NOWHERE for scheme in ("http", "https", "all")}
    both = {**proxies, **{name.upper(): value for name, value in proxies.items()}}
    nearby = dict.fromkeys(("no_proxy", "NO_PROXY"), "127.0.0.1,localhost")
    return {"PATH": os.environ.get("PATH", ""), "PYTHONUTF8": "1", **both, **nearby, **more}


def python_of(environment: str) -> Path:
    """The Python of an environment that scripts/environments.py makes."""
    folder = ROOT / ".venvs" / environment
    if not (folder / ".made-for").exists():
        missing_service(f"{environment} is not installed: run scripts/install-services")
    return folder / "bin" / "python"


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def started(
    command: Sequence[str | Path], port: int, log: Path, *, environ: Mapping[str, str], patience: float = 30
) -> Iterator[None]:
    """A server that listens on `port`. What it says goes to `log`, the end of which a failure quotes."""
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output, env=environ) as process:
        try:
            _wait(port, process, log, patience)
            yield
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait(port: int, process: subprocess.Popen[bytes], log: Path, patience: float) -> None:
    name, end = Path(str(process.args[0])).name, time.monotonic() + patience  # type: ignore[index]
    while time.monotonic() < end:
        if process.poll() is not None:
            pytest.fail(f"{name} ended with status {process.returncode}: {log.read_text()[-500:]}")
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    pytest.fail(f"{name} did not listen within {patience:.0f} s: {log.read_text()[-500:]}")


class Oracle:
    """One official SDK, in a process of its own that answers job by job until it is closed."""

    def __init__(self, sdk: str) -> None:
        program = Path(__file__).with_name("oracle.py")
        self.sdk = sdk
        self._process = subprocess.Popen(
            [python_of("oracles"), "-I", "-W", "ignore", program, sdk],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=surroundings(),
            encoding="utf-8",
        )
        self.version = self._read()["version"]

    def verdict(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """What the SDK makes of it: {"answer": …}, {"status": …} of an error, or {"failed": why}."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return self._read()

    def close(self) -> None:
        with self._process as process:  # closes its input, at the end of which it ends
            assert process.stdin is not None
            process.stdin.close()
            process.wait(10)

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            pytest.fail(f"the process of the {self.sdk} SDK ended with status {self._process.wait(10)}")
        said: dict[str, Any] = json.loads(line)
        return said
