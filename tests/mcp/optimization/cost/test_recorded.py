"""What the run store has recorded of a flow becomes a log: who asked what where, what it cost, how good it was."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from agentflow import AsyncFlow, ModelRegistry, SharedState, node
from agentflow.core.observability import observe
from agentflow.core.observability.feedback import feedback
from agentflow.core.observability.store import RunReader, RunStore
from agentflow.llm.builder import LLMClientBuilder
from agentflow.llm.client import Call
from agentflow.mcp.optimization.cost import CostOptimizer, UsageLog, recorded_log

YML = """
providers:
  lab: {kind: scripted, options: {answers: [yes, no, maybe, so, "on", "off"]}}
models:
  tiny: {provider: lab, price: {input: 1000.0, output: 2000.0}, max_tokens: 64, temperature: 0.0}
"""


@pytest.fixture
def registry(tmp_path: Path) -> ModelRegistry:
    (tmp_path / "models.yml").write_text(YML)
    return ModelRegistry.load(tmp_path / "models.yml", environ={}, cwd=tmp_path, home=tmp_path)


async def recorded(
    tmp_path: Path, registry: ModelRegistry, *, capture: Literal["none", "content"] = "none", runs: int = 2
) -> UsageLog:
    @node
    async def ask(state: SharedState) -> None:
        tiny = LLMClientBuilder(lambda: registry, Call("tiny"))
        await tiny.system("Be brief.").prompt("Is the moon near?").execute()

    flow = AsyncFlow(ask >> ask.named("again"), name="moon")
    with RunStore(tmp_path / "runs.db", capture=capture) as store, observe(store):
        for number in range(runs):
            result = await flow.run({}, tenant="acme")
            feedback(result.run_id, score=float(number == 0))
    await registry.aclose()
    with RunReader(tmp_path / "runs.db") as reader:
        return recorded_log(reader)


async def test_each_call_is_there_with_where_it_was_made(tmp_path: Path, registry: ModelRegistry) -> None:
    log = await recorded(tmp_path, registry)
    assert [(call.flow, call.step, call.tenant) for call in log] == [
        ("moon", "ask", "acme"),
        ("moon", "again", "acme"),
    ] * 2
    first = log[0]
    assert (first.model, first.provider, first.max_tokens, first.temperature) == ("tiny", "lab", 64, 0.0)
    assert first.finish_reason == "stop"
    assert first.input_tokens > 0
    assert first.cost == pytest.approx((first.input_tokens * 1000.0 + first.output_tokens * 2000.0) / 1e6)
    assert first.duration is not None


async def test_a_score_of_a_run_is_that_of_its_calls(tmp_path: Path, registry: ModelRegistry) -> None:
    log = await recorded(tmp_path, registry)
    assert [call.score for call in log] == [1.0, 1.0, 0.0, 0.0]


async def test_without_contents_nothing_is_identified_and_that_is_said(tmp_path: Path, registry: ModelRegistry) -> None:
    log = await recorded(tmp_path, registry)
    if all(call.fingerprint is None for call in log):
        assert any("requests are not identified" in note for note in log.notes)
    assert {call.prefix for call in log} == {None}


async def test_with_contents_requests_are_told_apart_by_their_words(tmp_path: Path, registry: ModelRegistry) -> None:
    log = await recorded(tmp_path, registry, capture="content")
    assert len({call.fingerprint for call in log}) == 1
    assert log[0].fingerprint
    assert log[0].prefix
    assert 0 < log[0].prefix_tokens < log[0].input_tokens
    assert "Is the moon near?" not in "".join(map(str, log))


async def test_recorded_runs_can_be_optimised(tmp_path: Path, registry: ModelRegistry) -> None:
    log = await recorded(tmp_path, registry, capture="content", runs=3)
    found = CostOptimizer(log, describe=registry.describe).propose()
    [cache] = [each for each in found.proposals if each.kind == "cache"]
    assert cache.calls == 5
    assert cache.saves.low is None
    assert any("too few to say how sure" in note for note in found.notes)
    assert found.prices.rates("tiny") is not None


async def test_since_leaves_out_runs_that_began_before(tmp_path: Path, registry: ModelRegistry) -> None:
    await recorded(tmp_path, registry)
    with RunReader(tmp_path / "runs.db") as reader:
        assert len(recorded_log(reader, since=4e9)) == 0


async def test_requests_that_differ_in_more_than_words_are_told_apart(tmp_path: Path, registry: ModelRegistry) -> None:
    """The fingerprint that is recorded beside the contents counts tools and all sampling, not the words alone."""

    def weather(city: str) -> str:
        """The weather."""
        return "fine"

    tiny = LLMClientBuilder(lambda: registry, Call("tiny")).prompt("Is it warm?")
    with RunStore(tmp_path / "runs.db", capture="content") as store, observe(store):
        for asked in (tiny, tiny, tiny.tools(weather), tiny.seed(7)):
            await asked.execute()
    await registry.aclose()
    with RunReader(tmp_path / "runs.db") as reader:
        log = recorded_log(reader)
    prints = [call.fingerprint for call in log]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3
    assert not any("told apart by their words" in note for note in log.notes)


async def test_a_router_s_chance_belongs_to_the_call_that_it_chose(tmp_path: Path) -> None:
    """What weighs outcomes later: how likely it was that this model would be asked. A cached answer is no call."""
    (tmp_path / "models.yml").write_text(
        "providers:\n  lab: {kind: scripted, options: {answers: [a, b, c]}}\n"
        "models:\n"
        "  small: {provider: lab, price: {input: 1, output: 2}}\n"
        "  large: {provider: lab, price: {input: 10, output: 20}}\n"
        "  routed: {router: {candidates: [small, large], quality: {small: 0.8, large: 0.9}, lambda: 0.001, "
        "exploration: true}, cache: {ttl: 60}}\n"
    )
    routed = ModelRegistry.load(tmp_path / "models.yml", environ={}, cwd=tmp_path, home=tmp_path)

    @node
    async def ask(state: SharedState) -> None:
        await LLMClientBuilder(lambda: routed, Call("routed")).prompt("Hello").temperature(0.0).execute()

    with RunStore(tmp_path / "runs.db") as store, observe(store):
        await AsyncFlow(ask >> ask.named("again"), name="two").run({})
    await routed.aclose()
    with RunReader(tmp_path / "runs.db") as reader:
        [call] = recorded_log(reader)
    assert call.model in ("small", "large")
    assert call.propensity is not None
    assert 0.0 < call.propensity < 1.0
