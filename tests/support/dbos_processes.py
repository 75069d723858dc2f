"""Starts and ends the processes of dbos_worker, and looks at what they have done."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import ROOT
from tests.support.dbos_worker import done_in
from tests.support.programs import surroundings

__all__ = ["ended", "most_at_once", "started", "work_in", "workers"]


def started(**job: object) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "tests.support.dbos_worker", json.dumps(job)]
    environment = surroundings() | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen(words, cwd=ROOT, env=environment, **pipes)  # type: ignore[call-overload,no-any-return]


@contextmanager
def workers(count: int, **job: object) -> Iterator[list[subprocess.Popen[str]]]:
    """That many, all of them ready; those that are left are let go in the end."""
    running = [started(**job) for _ in range(count)]
    try:
        for each in running:
            assert each.stdout is not None
            assert each.stdout.readline() == "ready\n"
        yield running
    finally:
        for each in running:
            ended(each)


def ended(process: subprocess.Popen[str], patience: float = 60.0) -> int:
    """Its exit code, when it has been asked to end."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    try:
        return process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait(patience)


def most_at_once(log: Path, *, without: int | None = None) -> int:
    """The most runs that had work under way at one time. What the process `without` had when it was killed ends with
    its last line."""
    notes = sorted(done_in(log), key=lambda note: note["at"])
    under_way: Counter[tuple[str, int]] = Counter()
    last = max((note["at"] for note in notes if note["pid"] == without), default=0.0)
    most = 0
    for note in notes:
        if without is not None and note["at"] > last:
            for key in [key for key in under_way if key[1] == without]:
                del under_way[key]
        under_way[note["run"], note["pid"]] += 1 if note["what"] == "begin" else -1
        most = max(most, sum(count > 0 for count in under_way.values()))
    return most


def work_in(log: Path) -> Counter[str]:
    """How often each piece of work was begun."""
    return Counter(f"{note['run']} {note['id']}" for note in done_in(log) if note["what"] == "begin")
