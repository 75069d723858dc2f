"""The front door and what models.yml records: when it begins, what `init` replaces, and feedback on what came out."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentflow import AgentFlow, AsyncFlow, LLMNode
from agentflow.core.observability import RunReader
from agentflow.core.observability.observers import observations
from agentflow.errors import ConfigurationError
from agentflow.llm.agentflow import _Door

KEPT = """
providers: {toy: {kind: scripted, options: {answers: [one, two, three]}}}
observability: {runs: kept.db, metrics: true}
"""


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project whose models.yml keeps runs, and no registry loaded yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("AGENTFLOW_CONFIG", raising=False)
    monkeypatch.setattr(_Door, "_registry", None)
    (tmp_path / "models.yml").write_text(KEPT)
    yield tmp_path
    if _Door._registry is not None:
        _Door._registry.observing.close()
    assert observations() == ()


async def test_looking_at_the_registry_starts_nothing_and_the_first_call_does(project: Path) -> None:
    assert AgentFlow.registry.models()
    assert not AgentFlow.registry.observing.running
    reply = await AgentFlow.model("toy/m").prompt("Hi").execute_full()
    AgentFlow.registry.observing.close()
    assert RunReader("kept.db").find(str(reply.run_id)).name == "toy/m"


async def test_init_starts_it_before_the_first_flow(project: Path) -> None:
    AgentFlow.init()
    ask = LLMNode("toy/m", prompt="Hi", writes="answer")
    result = await AsyncFlow(ask, name="greet").run({})
    AgentFlow.registry.observing.close()
    assert RunReader("kept.db").find(result.run_id).name == "greet"


async def test_a_second_init_goes_on_with_what_is_the_same_and_ends_what_is_not(project: Path) -> None:
    first = AgentFlow.init()
    store, metrics = first.observing.runs, first.observing.metrics
    (project / "quiet.yml").write_text("observability: {metrics: false}")
    second = AgentFlow.init("quiet.yml")
    assert second.observing.runs is store
    assert (second.observing.metrics, first.observing.running) == (None, False)
    assert [each.observer for each in observations()] == [store]
    assert metrics is not None


def test_an_init_that_fails_leaves_what_runs_alone(project: Path) -> None:
    first = AgentFlow.init()
    (project / "bad.yml").write_text("audit: {key_env: NO_SUCH_KEY}")
    with pytest.raises(ConfigurationError, match=r"bad\.yml:1:1: .*NO_SUCH_KEY"):
        AgentFlow.init("bad.yml")
    assert AgentFlow.registry is first
    assert first.observing.running


async def test_feedback_is_kept_with_the_run_of_a_reply_a_result_or_an_id(project: Path) -> None:
    AgentFlow.init()
    reply = await AgentFlow.model("toy/m").prompt("Hi").execute_full()
    result = await AsyncFlow(LLMNode("toy/m", prompt="Hi", writes="answer"), name="greet").run({})
    AgentFlow.feedback(reply, score=1, label="helpful")
    AgentFlow.feedback(result, score=0.25, comment="too short")
    AgentFlow.feedback(result.run_id, label="seen")
    AgentFlow.registry.observing.close()
    reader = RunReader("kept.db")
    assert [event.data["score"] for event in reader.events(str(reply.run_id)) if event.kind == "feedback"] == [1.0]
    said = [dict(event.data) for event in reader.events(result.run_id) if event.kind == "feedback"]
    assert said == [{"score": 0.25, "comment": "too short", "source": "user"}, {"label": "seen", "source": "user"}]
    assert reader.find(result.run_id).status == "done"


async def test_feedback_on_a_reply_that_nobody_watched_says_how_to_record(project: Path) -> None:
    (project / "models.yml").write_text(KEPT.replace("runs: kept.db, metrics: true", ""))
    reply = await AgentFlow.model("toy/m").prompt("Hi").execute_full()
    assert reply.run_id is None
    with pytest.raises(ConfigurationError, match=r"belongs to no run.*turn the run store on with `observability"):
        AgentFlow.feedback(reply, score=1)


@pytest.mark.parametrize("score", [float("nan"), -1, 2])
def test_a_bad_score_is_refused(project: Path, score: float) -> None:
    AgentFlow.init()
    with pytest.raises(ConfigurationError, match="a score is a number from 0 to 1"):
        AgentFlow.feedback("r1", score=score)


PROGRAM = """
import asyncio
from agentflow import AgentFlow, AsyncFlow, LLMNode
AgentFlow.init()
flow = AsyncFlow(LLMNode("toy/m", prompt="Hi", writes="answer"), name="greet")
print(asyncio.run(flow.run({})).run_id)
"""

ALERTING = """
  logs: {level: WARNING}
  alerts: {interval: 3600, rules: [{name: any-run, metric: flow_runs, above: 0}]}
"""


def test_a_program_that_just_ends_has_written_all_and_heard_of_its_alerts(project: Path) -> None:
    (project / "models.yml").write_text(KEPT.replace("{runs: kept.db, metrics: true}", f"\n  runs: kept.db{ALERTING}"))
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True)
    run = RunReader("kept.db").find(done.stdout.strip())
    assert (run.status, run.calls) == ("done", 1)
    [line] = [line for line in done.stderr.splitlines() if "agentflow.alerts:" in line]
    assert "any-run is firing: flow_runs is 1" in line
    assert "Traceback" not in done.stderr


async def test_feedback_from_another_process_finds_the_run(project: Path) -> None:
    AgentFlow.init()
    reply = await AgentFlow.model("toy/m").prompt("Hi").execute_full()
    AgentFlow.registry.observing.close()
    program = f"from agentflow import AgentFlow; AgentFlow.init(); AgentFlow.feedback({reply.run_id!r}, score=0.5)"
    subprocess.run([sys.executable, "-c", program], timeout=60, check=True)
    assert [e.data["score"] for e in RunReader("kept.db").events(str(reply.run_id)) if e.kind == "feedback"] == [0.5]
