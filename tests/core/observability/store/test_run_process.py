"""Whether a process is dead: said only where it is sure."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from agentflow.core.observability.store.process import Process, birth_of, standing, this_process

HERE = Process(pid=10, began="81", boot="b1", namespace="n1", machine="m1", host="h1")


@pytest.mark.parametrize(
    ("differs", "born", "expected"),
    [
        ({}, "81", "alive"),
        ({}, "99", "dead"),  # another process has its pid now
        ({}, None, "dead"),
        ({"namespace": "n2"}, None, "unknown"),  # another container: its pids are not ours
        ({"boot": "b2"}, "81", "dead"),  # this host was started anew
        ({"boot": "b2", "host": "h2"}, None, "unknown"),
        ({"boot": "b2", "machine": "m2"}, None, "unknown"),
        ({"began": ""}, None, "unknown"),
        ({"boot": ""}, None, "unknown"),
    ],
)
def test_nothing_is_claimed_of_other_hosts_and_containers(
    differs: dict[str, str], born: str | None, expected: str
) -> None:
    assert standing(replace(HERE, **differs), HERE, lambda pid: born) == expected


def test_a_host_without_an_id_of_its_own_is_known_by_its_boot_alone() -> None:
    here = replace(HERE, machine="")
    assert standing(replace(here, boot="b2"), here, lambda pid: None) == "unknown"
    assert standing(here, here, lambda pid: None) == "dead"


def test_where_there_are_no_boot_ids_a_free_pid_is_all_that_counts() -> None:
    here = replace(HERE, boot="", namespace="", pid=os.getpid())
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert standing(here, here) == "unknown"
    assert standing(replace(here, pid=gone.pid), here) == "dead"
    assert standing(replace(here, pid=gone.pid, host="h2"), here) == "unknown"


def test_this_process_is_alive() -> None:
    here = this_process()
    assert here.pid == os.getpid()
    assert standing(here, here) in {"alive", "unknown"}


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="needs /proc")
def test_a_zombie_is_dead() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.read()  # it has ended, or is about to
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    try:
        assert birth_of(child.pid) is None
    finally:
        child.communicate()
    assert birth_of(2**22 + 1) is None
