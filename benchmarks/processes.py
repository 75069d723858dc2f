"""Processes that benchmarks talk to by lines, and what a process costs from its start to its end."""

from __future__ import annotations

import json
import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def started(*command: str) -> Iterator[subprocess.Popen[str]]:
    """A process that we talk to by lines and that ends when its input does."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
    try:
        yield process
    finally:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def heard(process: subprocess.Popen[str]) -> Any:
    """The next line of JSON; whatever else a library prints is passed over."""
    assert process.stdout is not None
    for line in process.stdout:
        try:
            return json.loads(line)
        except ValueError:
            continue
    raise RuntimeError(f"{process.args!r} ended with status {process.wait()}: its error output says why")


def ask(process: subprocess.Popen[str], **command: object) -> Any:
    assert process.stdin is not None
    process.stdin.write(json.dumps(command) + "\n")
    return heard(process)


def allow_files(count: int) -> bool:
    """Raise the soft limit of open files of this process and of those it starts from now on; says whether it reaches
    `count`, which the hard limit may forbid."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count:
        soft = count if hard == resource.RLIM_INFINITY else min(count, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return soft == resource.RLIM_INFINITY or soft >= count


def cost(*command: str) -> float:
    """Seconds of CPU that a process and its children took, start and end included. It must succeed."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return usage.ru_utime + usage.ru_stime
