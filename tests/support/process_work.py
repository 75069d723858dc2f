"""What tests let worker processes do: functions that another process can import."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from functools import cache, wraps
from pathlib import Path
from threading import Lock
from typing import Any

FOREVER = 3_600.0


def pid(*_: object) -> int:
    return os.getpid()


def double(number: int) -> int:
    return 2 * number


def keyword(number: int, *, times: int) -> int:
    return number * times


async def later(number: int) -> int:
    await asyncio.sleep(0)
    return 2 * number


def nap(note: str) -> None:
    """Write down who runs here, and stay for ever."""
    part = Path(f"{note}.part")
    part.write_text(str(os.getpid()), encoding="utf-8")
    part.rename(note)
    time.sleep(FOREVER)


async def async_nap(note: str) -> None:
    nap(note)


def deaf(note: str) -> None:
    """As `nap`, but no polite request ends it."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    nap(note)


def with_child(note: str) -> None:
    """As `nap`, in a program of its own that this process waits for."""
    code = f"from tests.support.process_work import nap; nap({note!r})"
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )


def gate(note: str) -> int:
    """Wait until somebody has made the file."""
    while not Path(note).exists():
        time.sleep(0.005)
    return os.getpid()


def append(file: str, number: int) -> int:
    with open(file, "a", encoding="utf-8") as out:
        out.write(f"{number}\n")
    return number


def leave(code: int) -> None:
    os._exit(code)


def kill_myself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def size(data: bytes) -> int:
    return len(data)


def zeros(count: int) -> bytes:
    return bytes(count)


def echo(value: Any) -> Any:
    return value


def lock(_: object) -> object:
    return Lock()


class Odd(Exception):
    """Its `__init__` takes other arguments than it leaves in `args`, and it holds what cannot be pickled."""

    def __init__(self, code: int, *, place: str) -> None:
        super().__init__(f"{code} at {place}")
        self.code = code
        self.place = place
        self.lock = Lock()


def odd(code: int) -> None:
    raise Odd(code, place="here")


def divide(number: int) -> float:
    return 1 / number


def local_error() -> None:
    class Nowhere(Exception):
        pass

    raise Nowhere("nobody else knows me")


def stop(_: object) -> None:
    raise StopIteration(3)


def fail_once_there(item: int, note: str) -> None:
    """The first item fails when the second is at work."""
    if item:
        nap(note)
    gate(note)
    raise ValueError("another is there")


def meet(folder: str, item: int, count: int) -> tuple[int, int]:
    """Wait until so many are here at once, or were."""
    Path(folder, str(os.getpid())).touch()
    while len(list(Path(folder).iterdir())) < count:
        time.sleep(0.005)
    return item, os.getpid()


def twice(function: Any) -> Any:
    @wraps(function)
    def call(number: int) -> int:
        return 2 * function(number)

    return call


@twice
def quadruple(number: int) -> int:
    return 2 * number


@cache
def remembered(number: int) -> tuple[int, int]:
    return number, os.getpid()


def modules(_: object) -> list[str]:
    return list(sys.modules)


def interrupted() -> str:
    os.kill(os.getpid(), signal.SIGINT)
    return "still here"


def nested(number: int) -> int:
    """A worker may have workers of its own."""
    from agentflow.core.processes.pool import call_in_process

    async def ask() -> int:
        return await call_in_process(double, number)

    return asyncio.run(ask())
