"""A program in a process of its own: its answer, its failures in words, and its end when somebody cancels."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agentflow.errors import BackendError
from agentflow.mcp.compression.backends import Command, run_worker
from agentflow.mcp.compression.work import CancelledWork


def nothing() -> None:
    pass


def run(
    folder: Path, program: str, job: dict[str, object] | None = None, check: Callable[[], None] = nothing
) -> dict[str, object]:
    folder.mkdir(exist_ok=True)
    return dict(run_worker(Command("a program", (sys.executable, "-I", "-c", program)), job or {}, folder, check))


ECHO = "import json, sys; job = json.load(open(sys.argv[1])); json.dump({'got': job}, open(sys.argv[2], 'w'))"


def test_the_job_comes_in_and_the_answer_comes_out(tmp_path: Path) -> None:
    assert run(tmp_path / "s", ECHO, {"a": 1, "ü": "✓"}) == {"got": {"a": 1, "ü": "✓"}}
    assert list((tmp_path / "s").iterdir()) == []


def test_a_failure_tells_the_end_of_what_was_printed(tmp_path: Path) -> None:
    program = "import sys; print('x' * 100_000); print('the last words'); sys.exit(3)"
    with pytest.raises(BackendError, match=r"a program: it ended with 3; it said: x+\nthe last words") as caught:
        run(tmp_path / "s", program)
    assert len(caught.value.output) <= 4000
    assert list((tmp_path / "s").iterdir()) == []


def test_a_crash_is_named_by_its_signal(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"it crashed \(SIGSEGV\)"):
        run(tmp_path / "s", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")


def test_one_that_was_killed_may_have_had_too_little_memory(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="it was killed, perhaps as memory ran out"):
        run(tmp_path / "s", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")


@pytest.mark.parametrize(("program", "problem"), [
    ("pass", "it left no answer"),
    ("import sys; open(sys.argv[2], 'w').write('{')", "it left no answer"),
    ("import sys; open(sys.argv[2], 'w').write('[]')", "its answer is no object"),
])  # fmt: skip
def test_an_answer_that_is_none_is_an_error(tmp_path: Path, program: str, problem: str) -> None:
    with pytest.raises(BackendError, match=problem):
        run(tmp_path / "s", program)


def test_a_program_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="cannot be started"):
        run_worker(Command("a program", (str(tmp_path / "none"),)), {}, tmp_path, nothing)


def gone(pid: int) -> bool:
    """Whether no process has the number, or only one that has ended and that nobody has looked at yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


FAMILY = """
import json, os, subprocess, sys
job = json.load(open(sys.argv[1]))
child = subprocess.Popen([sys.executable, "-c", "import threading; threading.Event().wait()"])
open(job["place"] + ".new", "w").write(f"{os.getpid()} {child.pid}")
os.rename(job["place"] + ".new", job["place"])
child.wait()
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks Linux who is alive")
def test_cancelling_ends_the_program_and_what_it_started(tmp_path: Path) -> None:
    place = tmp_path / "pids"

    def check() -> None:
        if place.exists():
            raise CancelledWork

    with pytest.raises(CancelledWork):
        run(tmp_path / "s", FAMILY, {"place": str(place)}, check)
    parent, child = map(int, place.read_text().split())
    assert gone(parent)
    while not gone(child):  # it was sent SIGKILL, which may take a moment; the time limit of the test stands over this
        os.sched_yield()
    assert list((tmp_path / "s").iterdir()) == []


def test_its_input_ends_with_this_process(tmp_path: Path) -> None:
    """Standard input is a pipe that stays open while the job runs: a worker may wait for its end."""
    program = (
        "import json, os, select, sys; ready = select.select([0], [], [], 0)[0]; "
        "json.dump({'ended': bool(ready)}, open(sys.argv[2], 'w'))"
    )
    assert run(tmp_path / "s", program) == {"ended": False}


def test_nothing_is_fetched_from_elsewhere(tmp_path: Path) -> None:
    program = "import json, os, sys; json.dump({'offline': os.environ['HF_HUB_OFFLINE']}, open(sys.argv[2], 'w'))"
    assert json.dumps(run(tmp_path / "s", program)) == '{"offline": "1"}'
