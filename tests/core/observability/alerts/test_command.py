"""Commands: real programs, what they are given, and that nothing of them is left behind."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.support.alerting import ALERT

from agentflow.clock import VirtualClock
from agentflow.core.observability.alerts import command
from agentflow.core.observability.alerts.action_mapping import read_action
from agentflow.core.observability.alerts.command import Command
from agentflow.errors import AlertActionError, ConfigurationError, OperationTimeoutError

WRITE = """
import json, os, sys
told = {name: value for name, value in os.environ.items() if name.startswith("AGENTFLOW_ALERT_")}
json.dump({"stdin": json.load(sys.stdin), "environment": told, "arguments": sys.argv[2:]}, open(sys.argv[1], "w"))
"""


def python(program: str, *arguments: str, **options: Any) -> Command:
    return Command([sys.executable, "-c", program, *arguments], **options)


async def test_a_command_gets_the_alert_as_json_and_as_variables_and_no_shell(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    await python(WRITE, str(out), "$HOME; rm -rf *").act(ALERT)
    found = json.loads(out.read_text())
    assert found["stdin"] == ALERT.to_json()
    assert found["arguments"] == ["$HOME; rm -rf *"]
    told = {name.removeprefix("AGENTFLOW_ALERT_"): value for name, value in found["environment"].items()}
    assert told == {
        "RULE": "hot",
        "STATE": "firing",
        "PREVIOUS": "pending",
        "SEVERITY": "critical",
        "VALUE": "13.5",
        "MESSAGE": "hot is firing",
        "SUMMARY": "",
        "FINGERPRINT": "f1",
        "ID": "t-1",
        "LABEL_MODEL": "gpt-4o",
        "LABEL_NOTE": ALERT.labels["note"],
    }


async def test_labels_of_any_kind_and_size_fit(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    labels = {"größe, 中": "x" * 1_000_000, "nul": "a\0b", "half": "\ud800", **{f"l{n}": "y" for n in range(200)}}
    await python(WRITE, str(out)).act(replace(ALERT, labels=labels, value=None))
    found = json.loads(out.read_text())
    assert found["stdin"]["labels"] == labels
    told = found["environment"]
    assert told["AGENTFLOW_ALERT_LABEL_GR_SSE___"] == "x" * 8192
    assert (told["AGENTFLOW_ALERT_LABEL_NUL"], told["AGENTFLOW_ALERT_LABEL_HALF"]) == ("ab", "?")
    assert told["AGENTFLOW_ALERT_VALUE"] == ""


async def test_a_command_need_not_read_what_it_is_given() -> None:
    await python("pass").act(replace(ALERT, labels={"big": "x" * 1_000_000}))


async def test_another_status_than_0_is_a_failure() -> None:
    with pytest.raises(AlertActionError, match=r"^the command python\S* ended with status 3$"):
        await python("raise SystemExit(3)").act(ALERT)
    with pytest.raises(AlertActionError, match="was ended by signal 15"):
        await python("import os; os.kill(os.getpid(), 15)").act(ALERT)


async def test_a_program_that_is_not_there_is_a_failure() -> None:
    with pytest.raises(FileNotFoundError):
        await Command(["/nowhere/page"]).act(ALERT)


LINGER = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
with open(sys.argv[1] + ".new", "w") as out:
    out.write(f"{os.getpid()} {child.pid}")
os.rename(sys.argv[1] + ".new", sys.argv[1])
time.sleep(600)
"""


async def both_gone(pids: Path) -> None:
    """The command was waited for, so its number is free; what it started is gone, too, or waits for init to notice."""
    parent, child = map(int, pids.read_text().split())
    with pytest.raises(ProcessLookupError):
        os.kill(parent, 0)
    for _ in range(1000):
        if _is_gone(child):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("what the command started goes on")


def _is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


async def test_a_command_whose_time_is_up_is_killed_with_what_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids = tmp_path / "pids"
    monkeypatch.setattr(command, "monotonic", lambda: 601.0 if pids.exists() else 0.0)
    with pytest.raises(OperationTimeoutError, match=r"the command python\S* took longer than 600 s"):
        await python(LINGER, str(pids), timeout=600.0).act(ALERT)
    await both_gone(pids)


async def test_a_command_that_nobody_waits_for_any_more_is_killed_too(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    task = asyncio.create_task(python(LINGER, str(pids), timeout=600.0).act(ALERT))
    while not pids.exists():
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    parent = int(pids.read_text().split()[0])
    for _ in range(1000):
        try:
            os.kill(parent, 0)
        except ProcessLookupError:
            break
        await asyncio.sleep(0.01)
    await both_gone(pids)


@pytest.mark.parametrize("arguments", ["echo hi", [], [1], ["a\0b"], None])
def test_a_command_is_a_list(arguments: Any) -> None:
    with pytest.raises(ConfigurationError, match="allowed is a list: the program and its arguments"):
        Command(arguments)


@pytest.mark.parametrize("timeout", [0.0, -1.0, float("inf"), float("nan")])
def test_a_command_has_a_time_limit(timeout: float) -> None:
    with pytest.raises(ConfigurationError, match="timeout: found"):
        Command(["true"], timeout=timeout)


def test_a_command_is_read_from_a_mapping() -> None:
    assert read_action({"command": ["a", "b"], "timeout": "5s"}, "a", clock=VirtualClock()) == Command(
        ("a", "b"), timeout=5.0
    )
