"""Runs that go on later: killed and resumed, answered from a shell, forked, cancelled, shown, and kept nowhere."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pytest

from agentflow.llm.agentflow import AgentFlow

FILE = ".agentflow/runs.db"
STEPS = """
import asyncio, os
from agentflow import *

def did(name):
    with open("calls.txt", "a") as calls:
        print(name, file=calls)

@node(writes="plan")
async def plan():
    did("plan")
    return "a plan"

@node(writes="draft")
async def write():
    did("write")
    if os.path.exists("hang"):
        print("hanging", flush=True)
        await asyncio.sleep(600)
    if os.path.exists("break"):
        raise ValueError("broken")
    return "a draft"

@node(reads=("plan", "draft"), writes="output")
async def join(plan, draft):
    did("join")
    return f"{plan}, {draft}"

flow = AsyncFlow(plan >> write >> join, name="steps")
"""


@pytest.fixture
def steps(place: Path) -> Path:
    file = place / "steps.py"
    file.write_text(STEPS)
    return file


def calls(place: Path) -> list[str]:
    return (place / "calls.txt").read_text().split()


def newest(invoke) -> str:
    return str(json.loads(invoke("runs", "--json").stdout)[0]["id"])


# ---- killed, interrupted, failed -----------------------------------------------------------------------------


def test_a_run_that_was_killed_is_resumed_with_the_calls_that_are_missing(spawn, steps: Path, place, invoke) -> None:
    (place / "hang").touch()
    process = spawn("run", "steps.py")
    assert process.stdout.readline() == b"hanging\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait(60)
    (place / "hang").unlink()
    shown = invoke("runs", "resume", "last", "-o", "out.md")
    assert (shown.exit_code, shown.stdout) == (0, "wrote out.md\n")
    assert (place / "out.md").read_text() == "a plan, a draft\n"
    assert calls(place) == ["plan", "write", "write", "join"]


def test_after_ctrl_c_the_run_goes_on_as_was_said(spawn, steps: Path, place: Path, invoke) -> None:
    (place / "hang").touch()
    process = spawn("run", "steps.py")
    assert process.stdout.readline() == b"hanging\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    found = re.search(r"to go on: agentflow (runs resume \w+)$", err.decode().strip())
    assert found is not None
    (place / "hang").unlink()
    assert invoke(*found[1].split()).stdout == "a plan, a draft\n"
    assert calls(place).count("plan") == 1


def test_a_run_that_failed_says_how_to_go_on_and_does(steps: Path, place: Path, invoke) -> None:
    (place / "break").touch()
    failed = invoke("run", "steps.py")
    assert failed.exit_code == 1
    run = newest(invoke)
    assert f"(agentflow trace {run}; agentflow runs resume {run})" in failed.stderr.splitlines()[-2]
    (place / "break").unlink()
    assert invoke("runs", "resume", run[:12]).stdout == "a plan, a draft\n"
    assert calls(place) == ["plan", "write", "write", "join"]


def test_a_run_is_found_and_gone_on_with_from_another_folder(steps: Path, place: Path, invoke, monkeypatch) -> None:
    (place / "break").touch()
    invoke("run", "steps.py")
    (place / "elsewhere").mkdir()
    monkeypatch.chdir(place / "elsewhere")
    shown = invoke("runs", "resume", "last", "--file", str(place / FILE))
    assert shown.stdout == "a plan, a draft\n"


def test_a_run_that_is_done_hands_out_its_output_once_more(steps: Path, place: Path, invoke) -> None:
    invoke("run", "steps.py")
    assert invoke("runs", "resume", "last").stdout == "a plan, a draft\n"
    assert calls(place) == ["plan", "write", "join"]


def test_begun_again_under_its_id_a_run_goes_on(steps: Path, place: Path, invoke) -> None:
    (place / "break").touch()
    invoke("run", "steps.py", "--run-id", "mine")
    (place / "break").unlink()
    assert invoke("run", "steps.py", "--run-id", "mine").stdout == "a plan, a draft\n"
    assert calls(place).count("plan") == 1
    other = invoke("run", "steps.py", "--run-id", "mine", "-i", "x=1")
    assert (other.exit_code, "began with other inputs" in other.stderr) == (2, True)


# ---- what cannot be kept -------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["--no-durable", "--no-record"])
def test_whoever_wants_nothing_kept_is_obeyed(steps: Path, place: Path, invoke, how: str) -> None:
    assert invoke("run", "steps.py", how).stdout == "a plan, a draft\n"
    assert invoke("runs", "resume", "last").exit_code == 2
    assert (place / FILE).exists() == (how == "--no-durable")


def test_a_recorded_run_that_is_not_durable_says_so(steps: Path, invoke) -> None:
    invoke("run", "steps.py", "--no-durable")
    shown = invoke("runs", "resume", newest(invoke))
    assert shown.exit_code == 2
    assert "is recorded but not durable" in shown.stderr


def test_a_step_that_cannot_be_stored_is_said_and_runs_again(place: Path, invoke) -> None:
    (place / "f.py").write_text(
        "from agentflow import *\n@node(writes='it')\nasync def connect(): return object()\n"
        "@node(writes='output')\nasync def end(): return 'done'\nflow = AsyncFlow(connect >> end)\n"
    )
    shown = invoke("run", "f.py")
    assert (shown.exit_code, shown.stdout) == (0, "done\n")
    assert shown.stderr.count("connect will run again if the run is resumed") == 1
    assert "note: it: a value of type object cannot be stored" in shown.stderr


def test_a_file_that_cannot_be_written_keeps_no_run_from_running(steps: Path, place: Path, invoke) -> None:
    (place / ".agentflow").write_text("a file where a folder should be")
    shown = invoke("run", "steps.py")
    assert (shown.exit_code, shown.stdout) == (0, "a plan, a draft\n")
    assert shown.stderr.count("note: ") == 1
    assert calls(place) == ["plan", "write", "join"]


def test_a_file_that_goes_away_in_the_middle_stops_no_run(place: Path, invoke) -> None:
    (place / "f.py").write_text(
        "import shutil\nfrom agentflow import *\n"
        "@node\nasync def away(s): shutil.rmtree('.agentflow')\n"
        "@node(writes='output')\nasync def end(): return 'done'\nflow = AsyncFlow(away >> end)\n"
    )
    shown = invoke("run", "f.py")
    assert (shown.exit_code, shown.stdout) == (0, "done\n")


# ---- answered from a shell -----------------------------------------------------------------------------------


def test_without_a_terminal_a_run_ends_parked_and_says_how_to_answer(asks: Path, invoke) -> None:
    shown = invoke("run", "ask.py:two")
    run = newest(invoke)
    assert (shown.exit_code, shown.stdout) == (4, "")
    assert shown.stderr.splitlines()[-4:] == [
        "it asks: Publish this? (publish | discard)",
        f"  agentflow answer {run} --interrupt judge ANSWER",
        "it asks: Tell the readers? (yes/no)",
        f"  agentflow answer {run} --interrupt notify ANSWER",
    ]


def test_json_lists_what_a_run_waits_for(asks: Path, invoke) -> None:
    shown = invoke("run", "ask.py", "--json", "-q")
    result = json.loads(shown.stdout)
    assert (shown.exit_code, result["status"], result["output"]) == (4, "interrupted", None)
    [question] = result["interrupts"]
    assert (question["prompt"], question["wanted"]) == ("Publish this?", "publish | discard")
    assert question["payload"] == {"title": "Tides", "draft": "The moon pulls the sea."}


@pytest.mark.parametrize("by", ["word", "file", "pipe"])
def test_an_answer_goes_on_with_the_run(asks: Path, place: Path, invoke, by: str) -> None:
    invoke("run", "ask.py")
    (place / "answer.txt").write_text("discard\n")
    how = {"word": ["discard"], "file": ["--file", "answer.txt"], "pipe": ["--file", "-"]}[by]
    assert invoke("answer", "last", *how, input="discard\n").stdout == "discard\n"
    assert (place / "calls.txt").read_text() == "write\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["perhaps", "--interrupt", "judge"], '"perhaps" will not do; wanted is publish | discard'),
        (["yes"], "say with --interrupt which of them this is, judge or notify"),
        (["yes", "--interrupt", "jugde"], "There is no open question 'jugde': there is judge or notify."),
        (["yes", "--file", "x"], "The answer is given twice"),
        (["--file", "nowhere.txt"], "nowhere.txt: No such file or directory"),
    ],
)
def test_an_answer_that_cannot_be_taken_says_why(asks: Path, invoke, words: list[str], said: str) -> None:
    invoke("run", "ask.py:two")
    shown = invoke("answer", "last", *words)
    assert (shown.exit_code, said in shown.stderr) == (2, True), shown.stderr


def test_only_keeps_the_answer_for_others(asks: Path, invoke) -> None:
    invoke("run", "ask.py")
    assert "kept; to go on: agentflow runs resume " in invoke("answer", "last", "publish", "--only").stdout
    assert newest(invoke)
    assert invoke("runs", "resume", "last").stdout == "publish\n"


def test_answer_without_one_shows_what_is_asked(asks: Path, invoke) -> None:
    invoke("run", "ask.py")
    shown = invoke("answer", "last")
    assert shown.exit_code == 4
    assert shown.stdout.startswith("it asks: Publish this? (publish | discard)\n")
    assert invoke("answer", "nobody", "x").exit_code == 2


# ---- forked, cancelled, deleted, changed ---------------------------------------------------------------------


def test_a_fork_goes_on_from_a_step_with_what_was_set(steps: Path, place: Path, invoke) -> None:
    invoke("run", "steps.py")
    shown = invoke("runs", "fork", "last", "--at", "write", "--set", "plan=another", "--run-id", "second")
    assert shown.stdout == "another, a draft\n"
    assert calls(place) == ["plan", "write", "join", "write", "join"]
    assert "forked  from " in invoke("runs", "show", "second").stdout
    assert invoke("runs", "fork", "last", "--at", "nowhere").exit_code == 1


def test_a_run_that_was_cancelled_cannot_go_on(asks: Path, invoke) -> None:
    invoke("run", "ask.py")
    run = newest(invoke)
    assert invoke("runs", "cancel", "last").stdout == f"cancelled {run}\n"
    assert "had ended before: it is cancelled" in invoke("runs", "cancel", run).stdout
    shown = invoke("runs", "resume", run)
    assert (shown.exit_code, "was cancelled for good" in shown.stderr) == (2, True)
    [listed] = json.loads(invoke("runs", "--json").stdout)
    assert listed["status"] == "cancelled"


def test_what_is_deleted_is_gone_and_its_trace_stays(steps: Path, invoke) -> None:
    invoke("run", "steps.py")
    run = newest(invoke)
    assert invoke("runs", "delete", run).stdout == f"deleted the steps of {run}\n"
    assert invoke("runs", "show", run).exit_code == 2
    assert invoke("trace", run).exit_code == 0


def test_a_changed_flow_is_told_change_by_change_and_migrated(steps: Path, place: Path, invoke) -> None:
    (place / "break").touch()
    invoke("run", "steps.py")
    (place / "break").unlink()
    steps.write_text(
        STEPS.replace("async def plan()", "async def outline()").replace("plan >> write", "outline >> write")
    )
    shown = invoke("runs", "resume", "last")
    assert shown.exit_code == 2
    assert "  plan is gone\n  outline is new\n" in shown.stderr
    assert "--migrate OLD=NEW" in shown.stderr.splitlines()[-1]
    assert invoke("runs", "resume", "last", "--migrate", "plan=outline").stdout == "a plan, a draft\n"
    assert calls(place).count("plan") == 1


def test_a_flow_that_has_moved_is_named(steps: Path, place: Path, invoke) -> None:
    (place / "break").touch()
    invoke("run", "steps.py")
    (place / "break").unlink()
    steps.rename(place / "moved.py")
    shown = invoke("runs", "resume", "last")
    assert (shown.exit_code, "say so with --flow FILE:NAME" in shown.stderr) == (2, True)
    assert invoke("runs", "resume", "last", "--flow", "moved.py").stdout == "a plan, a draft\n"


# ---- shown ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", ["80", "160"])
def test_show_lists_the_steps_within_the_width(asks: Path, invoke, monkeypatch, width: str) -> None:
    invoke("run", "ask.py")
    monkeypatch.setenv("COLUMNS", width)
    shown = invoke("runs", "show", "last").stdout
    assert max(len(line) for line in shown.splitlines() if not line.startswith("from ")) <= int(width)
    assert re.search(r"^write#1 +done .* draft = The moon pulls the sea\.", shown, re.MULTILINE)
    assert re.search(r"^judge#1 +waiting .*\? Publish this\?", shown, re.MULTILINE)
    assert "it asks: Publish this? (publish | discard)" in shown


def test_show_has_one_step_in_full_and_all_as_json(asks: Path, invoke) -> None:
    invoke("run", "ask.py")
    assert "draft:\n  The moon pulls the sea.\n" in invoke("runs", "show", "last", "--step", "write").stdout
    run = json.loads(invoke("runs", "show", "last", "--json").stdout)
    assert (run["status"], run["inputs"]) == ("waiting", {"args": []})
    assert [step["id"] for step in run["steps"]] == ["article/write#1", "article/judge#1!wait:1"]
    assert invoke("runs", "show", "last", "--step", "nowhere").exit_code == 2


def test_show_knows_the_types_of_the_flows_own_file(place: Path, invoke) -> None:
    (place / "f.py").write_text(
        "from dataclasses import dataclass\nfrom agentflow import *\n@storable\n@dataclass\n"
        "class Plan:\n    title: str\n"
        "@node(writes='plan')\nasync def a(): return Plan('Tides')\n"
        "@node(reads='plan', writes='output')\nasync def b(plan): return await interrupt('Ok?', plan, schema=bool)\n"
        "flow = AsyncFlow(a >> b)\n"
    )
    invoke("run", "f.py")
    shown = invoke("runs", "show", "last")
    assert shown.exit_code == 0, shown.stderr
    assert "Tides" in shown.stdout


def test_runs_without_a_command_lists_as_ever(steps: Path, invoke) -> None:
    invoke("run", "steps.py")
    assert "steps" in invoke("runs", "--status", "done").stdout
    assert invoke("runs", "--status", "failed").stdout == ""
    assert "Did you mean `agentflow runs resume`?" in invoke("runs", "resum", "x").stderr


# ---- the model it began with ---------------------------------------------------------------------------------

TWO_MODELS = """
providers:
  stage: {kind: scripted, options: {answers: [Curtain up]}}
  other: {kind: scripted, options: {answers: [Nothing of the kind]}}
models: {play: {provider: stage}, film: {provider: other}}
defaults: {model: film}
"""
PAID = """
from agentflow import *

@node(writes="output")
async def ask():
    said = await AgentFlow.model().prompt("What happens?").execute()
    await interrupt("Go on?", schema=bool)
    return said

flow = AsyncFlow(ask, name="paid")
"""


@pytest.fixture
def paid(place: Path) -> Path:
    folder = place / "a folder"
    folder.mkdir()
    (place / "models.yml").write_text(TWO_MODELS)
    (folder / "paid.py").write_text(PAID)
    return folder / "paid.py"


@pytest.mark.parametrize(
    "words",
    [
        ["answer", "last", "yes"],
        ["answer", "last", "yes", "--flow", "a folder/paid.py"],
        ["runs", "resume", "last"],
        ["worker", "a folder/paid.py", "--once"],
        ["runs", "fork", "last", "--at", "ask", "--set", "a=1"],
    ],
    ids=lambda words: words[-1],
)
def test_a_run_asks_the_model_it_began_with(paid: Path, invoke, words: list[str]) -> None:
    invoke("run", "a folder/paid.py", "--model", "play")
    if words[0] != "answer":
        invoke("answer", "last", "yes", "--only")
    [parked] = json.loads(invoke("runs", "--json").stdout)
    AgentFlow.registry._default = None  # as in a process of its own
    shown = invoke(*words)
    assert AgentFlow.registry.default_model().name == "play", shown.stderr
    if "fork" not in words:
        assert (shown.exit_code, json.loads(invoke("runs", "--json").stdout)[0]["status"]) == (0, "done")
        [ended] = json.loads(invoke("runs", "--json").stdout)
        assert (parked["calls"], ended["calls"]) == (1, 1)


def test_another_model_may_be_named(paid: Path, invoke) -> None:
    invoke("run", "a folder/paid.py", "--model", "play")
    assert invoke("answer", "last", "yes", "--model", "film").stdout == "Nothing of the kind\n"


def test_a_worker_goes_on_with_runs_of_several_models(paid: Path, place: Path, invoke) -> None:
    for name, words in {"one": ["--model", "play"], "two": [], "three": ["--model", "gone"]}.items():
        (place / "models.yml").write_text(TWO_MODELS.replace("film: {", "gone: {provider: other}, film: {"))
        AgentFlow.init()
        invoke("run", "a folder/paid.py", "--run-id", name, *words)
        invoke("answer", name, "yes", "--only")
    (place / "models.yml").write_text(TWO_MODELS)
    AgentFlow.init()
    shown = invoke("worker", "a folder/paid.py", "--once")
    assert "paid three: left alone: unknown model 'gone'" in shown.stderr
    assert {run["id"]: (run["status"], run["calls"]) for run in json.loads(invoke("runs", "--json").stdout)} == {
        "one": ("done", 1),
        "two": ("done", 1),
        "three": ("waiting", 1),
    }


# ---- said in the right words ---------------------------------------------------------------------------------


def test_a_run_that_failed_says_how_much_was_undone(place: Path, invoke) -> None:
    (place / "f.py").write_text(
        "from agentflow import *\n"
        "async def back(prepared, result): pass\n"
        "@node(writes='a', compensate=back)\nasync def a(): return 1\n"
        "@node(writes='b', compensate=back)\nasync def b(): return 1\n"
        "@node\nasync def c(s): raise ValueError('broken')\n"
        "flow = AsyncFlow(a >> b >> c)\n"
    )
    shown = invoke("run", "f.py")
    assert (shown.exit_code, "; 2 steps undone (agentflow trace " in shown.stderr) == (1, True), shown.stderr


def test_a_run_that_sleeps_says_until_when(place: Path, invoke) -> None:
    (place / "f.py").write_text(
        "from agentflow import *\n@node\nasync def nap(s): await sleep(1e6, park=True)\nflow = AsyncFlow(nap)\n"
    )
    invoke("run", "f.py")
    shown = invoke("answer", "last", "yes")
    assert (shown.exit_code, re.search(r"waits for no answer: it sleeps until \d{4}-", shown.stderr) is not None) == (
        2,
        True,
    )


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("step.py", STEPS, r"did you mean \S+step.py\? If the flow is elsewhere now, say so with --flow FILE:NAME\n"),
        ("steps.py", "def", r"steps.py:1:4: SyntaxError: invalid syntax\n"),
    ],
)
def test_where_the_flow_may_be_is_said_where_that_helps(
    steps: Path, place: Path, invoke, name: str, text: str, said: str
) -> None:
    invoke("run", "steps.py")
    steps.unlink()
    (place / name).write_text(text)
    shown = invoke("runs", "resume", "last")
    assert (shown.exit_code, re.search(f"{said}$", shown.stderr) is not None) == (2, True), shown.stderr


def test_what_is_not_there_is_not_called_several(steps: Path, invoke) -> None:
    invoke("run", "steps.py")
    assert "there is no run 'zzz' in " in invoke("runs", "show", "zzz").stderr
    assert "there is no step 'zzz': the last are " in invoke("runs", "show", "last", "--step", "zzz").stderr
    assert "has no step 'zzz': its steps are " in invoke("runs", "fork", "last", "--at", "zzz").stderr
