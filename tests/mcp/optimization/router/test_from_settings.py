"""A router of models.yml, asked through the client: guarded, priced and watched models behind one name."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from tests.support.event_schema import misfits

from agentflow.core import ExecutionEvent
from agentflow.core.observability import observe
from agentflow.core.observability.feedback import feedback
from agentflow.core.observability.observers import observations
from agentflow.errors import ConfigurationError, LimitExceededError, NoCandidateError
from agentflow.llm.agentflow import AgentFlow
from agentflow.llm.config.registry import ModelRegistry
from agentflow.llm.content import ToolCall
from agentflow.llm.messages import Request, Response
from agentflow.llm.providers.base import ProviderSettings
from agentflow.llm.providers.scripted import ScriptedProvider
from agentflow.llm.wrapped_models import provider_of, surroundings_of
from agentflow.mcp.optimization.router import ModelRouter
from agentflow.mcp.optimization.router import from_settings as making

MODELS = """
providers:
  one: {kind: first}
  two: {kind: second}
defaults: {retry: {max_attempts: 1}}
models:
  small: {provider: one, price: {input: 1, output: 1}, capabilities: [tools], context: 8000}
  large: {provider: two, price: {input: 100, output: 100}, capabilities: [tools, image], regions: [eu]}
"""


class Place:
    """A registry over two scripted providers, of which each counts what it is asked."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.said: dict[str, Any] = {"one": "small", "two": "large"}
        self.made: dict[str, ScriptedProvider] = {}

    def registry(self, **entries: str) -> ModelRegistry:
        text = MODELS + "".join(f"  {name}: {entry}\n" for name, entry in entries.items())
        (self._folder / "models.yml").write_text(text)
        registry = ModelRegistry.load(environ={}, cwd=self._folder, home=self._folder)
        registry.register_provider("first", self._provider)
        registry.register_provider("second", self._provider)
        AgentFlow.registry = registry
        return registry

    def _provider(self, settings: ProviderSettings) -> ScriptedProvider:
        name = settings.name
        self.made[name] = ScriptedProvider(lambda request: self.said[name], name=name)
        return self.made[name]

    def asked(self, name: str) -> list[Request]:
        return self.made[name].requests if name in self.made else []


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    before = AgentFlow._registry
    yield Place(tmp_path)
    AgentFlow._registry = before


class Routes:
    inline = True

    def __init__(self) -> None:
        self.events: list[ExecutionEvent] = []

    def observe(self, event: ExecutionEvent) -> None:
        self.events.append(event)


async def test_a_router_of_models_yml_answers_like_any_model_and_says_who_it_was(place: Place) -> None:
    place.registry(auto="{router: {candidates: [small, large]}}")
    reply = await AgentFlow.model("auto").prompt("Hello there").execute_full()
    assert (reply.text, reply.provider, reply.cost) == ("small", "one", pytest.approx(3e-6))
    assert [request.model for request in place.asked("one")] == ["small"]
    assert place.asked("two") == []
    async with AgentFlow.model("auto").prompt("Hello there").execute_streaming() as stream:
        whole = await stream.collect()
    assert (whole.text, whole.provider, whole.cost) == ("small", "one", pytest.approx(3e-6))


async def test_rules_cascade_residency_and_floor_are_said_without_code(place: Place) -> None:
    place.registry(
        ruled="{router: {candidates: [small, large], rules: [{use: large, text: '(?i)contract'}]}}",
        climbing="{router: {candidates: [large, small], cascade: {schema: true}}}",
        kept="{router: {candidates: [small, large], residency: [eu]}}",
        good="{router: {candidates: [small, large], quality_floor: 0.8, quality: {small: 0.7, large: 0.9}}}",
    )
    assert await AgentFlow.model("ruled").prompt("This Contract").execute() == "large"
    assert await AgentFlow.model("ruled").prompt("This poem").execute() == "small"
    assert await AgentFlow.model("kept").prompt("Hi").execute() == "large"
    assert await AgentFlow.model("good").prompt("Hi").execute() == "large"
    place.said = {"one": "no number", "two": "42"}
    assert await AgentFlow.model("climbing").prompt("How many?").output(int).execute() == 42


async def test_a_cascade_costs_what_its_stages_cost_and_the_limit_of_the_caller_counts_them_all(place: Place) -> None:
    place.registry(climbing="{router: {candidates: [large, small], cascade: true}}")
    place.said = {"one": Response("cut off", "m", "one", finish_reason="length"), "two": "fine"}
    reply = await AgentFlow.model("climbing").prompt("one two").execute_full()
    assert reply.text == "fine"
    assert reply.cost is None  # the first said nothing of what it used
    place.said = {"one": ["half", " a"], "two": "fine"}
    climbing = AgentFlow.model("climbing").limits(requests=1)
    with pytest.raises(LimitExceededError):
        place.said = {"one": Response("cut off", "m", "one", finish_reason="length"), "two": "fine"}
        await climbing.prompt("one two").execute_full()


async def test_events_stand_between_question_and_requests(place: Place) -> None:
    place.registry(auto="{router: {candidates: [small, large], lambda: 0.1, quality: {small: 0.5, large: 0.6}}}")
    seen = Routes()
    with observe(seen):
        await AgentFlow.model("auto").tenant("acme").prompt("Hi").execute()
    kinds = [event.kind for event in seen.events]
    assert kinds.index("route") < kinds.index("model_start")
    [route] = [event.data for event in seen.events if event.kind == "route"]
    assert (route["from"], route["to"], route["tenant"]) == ("auto", "small", "acme")
    assert misfits(seen.events) == []


async def test_a_streamed_cascade_costs_what_it_costs_at_once_and_every_request_is_noted(place: Place) -> None:
    place.registry(climbing="{router: {candidates: [small, large], cascade: {schema: true}}}")
    place.said = {"one": "no number", "two": "42"}
    asking = AgentFlow.model("climbing").prompt("one two three").output(int, retries=0)
    seen = Routes()
    with observe(seen):
        whole = await asking.execute_full()
        async with asking.execute_streaming() as stream:
            streamed = await stream.collect()
    bills = [event.data["cost"] for event in seen.events if event.kind == "model_success"]
    assert len(bills) == 4
    assert whole.cost == pytest.approx(sum(bills[:2]))
    assert streamed.cost == pytest.approx(sum(bills[2:]))
    assert (whole.text, whole.usage) == (streamed.text, streamed.usage)
    assert misfits(seen.events) == []


async def test_tools_are_run_and_every_round_goes_to_the_same_model(place: Place) -> None:
    def weather(city: str) -> str:
        """The weather in a city."""
        return f"rain in {city}, " * 100

    registry = place.registry(auto="{router: {candidates: [small, large], rules: [{use: large, longer: 200}]}}")
    calling = Response((ToolCall("1", "weather", {"city": "Oslo"}),), "small", "one", finish_reason="tool_calls")
    said = iter([calling, "It rains."])
    registry.resolve("small")
    place.made["one"]._answers = lambda request: next(said)
    assert await AgentFlow.model("auto").prompt("Weather?").tools(weather).execute() == "It rains."
    assert len(place.asked("one")) == 2
    assert place.asked("two") == []
    assert await AgentFlow.model("auto").prompt("words " * 200).execute() == "large"


async def test_a_model_that_is_down_hands_over_and_an_open_breaker_excludes_it(place: Place) -> None:
    from agentflow.errors import ServerError

    registry = place.registry(auto="{router: {candidates: [small, large]}}")
    place.said["one"] = ServerError("down")
    router = provider_of(registry, "auto")
    assert isinstance(router, ModelRouter)
    for _ in range(12):
        assert await AgentFlow.model("auto").prompt("Hi").execute() == "large"
    assert router.explain(Request("auto", ())).excluded == {"small": "health: its circuit breaker is open"}
    asked = len(place.asked("one"))
    assert await AgentFlow.model("auto").prompt("Hi").execute() == "large"
    assert len(place.asked("one")) == asked


async def test_where_nobody_may_answer_a_stand_in_of_the_entry_does(place: Place) -> None:
    place.registry(
        nowhere="{router: {candidates: [small, large], residency: [mars]}}",
        covered="{router: {candidates: [small, large], residency: [mars]}, fallback: [small]}",
    )
    with pytest.raises(NoCandidateError):
        await AgentFlow.model("nowhere").prompt("Hi").execute()
    assert await AgentFlow.model("covered").prompt("Hi").execute() == "small"


async def test_a_call_s_demand_for_places_binds_stand_ins_too(place: Place) -> None:
    place.registry(covered="{router: {candidates: [small]}, fallback: [small, large]}")
    demanding = AgentFlow.model("covered").metadata(residency="eu").prompt("Hi")
    assert await demanding.execute() == "large"
    assert place.asked("one") == []


async def test_routers_that_lead_to_each_other_are_found_when_they_are_made(place: Place) -> None:
    place.registry(a="{router: {candidates: [small, b]}}", b="{router: {candidates: [large, a]}}")
    with pytest.raises(ConfigurationError, match="leads back to itself: a → b → a"):
        await AgentFlow.model("a").prompt("Hi").execute()


async def test_a_router_may_route_to_a_router(place: Place) -> None:
    place.registry(
        a="{router: {candidates: [b, large], rules: [{use: b, text: easy}, {use: large}]}}",
        b="{router: {candidates: [small, large]}}",
    )
    assert await AgentFlow.model("a").prompt("easy").execute() == "small"
    assert await AgentFlow.model("a").prompt("other").execute() == "large"


async def test_a_candidate_without_a_key_is_excluded_with_the_reason(place: Place, tmp_path: Path) -> None:
    registry = place.registry(
        keyless="{provider: openai, model_id: gpt-4o}", auto="{router: {candidates: [keyless, small]}}"
    )
    router = provider_of(registry, "auto")
    assert isinstance(router, ModelRouter)
    assert "OPENAI_API_KEY" in router.explain(Request("auto", ())).excluded["keyless"]
    assert await AgentFlow.model("auto").prompt("Hi").execute() == "small"


@pytest.mark.parametrize(
    ("entry", "kind", "words"),
    [
        ("{router: {candidates: [small, larg]}}", ConfigurationError, "did you mean large"),
        ("{router: {candidates: [small, large], quality_floor: 0.9}}", ConfigurationError, "state `quality`"),
        ("{router: {candidates: [small], rules: [{use: large}]}}", ConfigurationError, "rule 1 names large"),
        (
            "{router: {candidates: [small], rules: [{use: small, text: '('}]}}",
            ConfigurationError,
            "no regular expression",
        ),
        ("{router: {candidates: [small], cascade: {check: nobody}}}", ConfigurationError, "agentflow.checkers"),
        ("{router: {candidates: [small], cascade: {check: 'os:system'}}}", ConfigurationError, "agentflow.checkers"),
    ],
)
async def test_what_cannot_be_obeyed_is_said_when_the_router_is_made(
    place: Place, entry: str, kind: type[Exception], words: str
) -> None:
    place.registry(auto=entry)
    with pytest.raises(kind, match=words):
        await AgentFlow.model("auto").prompt("Hi").execute()


async def test_a_checker_that_a_package_offers_is_found_by_its_name(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Offered:
        name = "polite"

        def load(self) -> object:
            return lambda request, response: "please" in response.text

    monkeypatch.setattr(making, "entry_points", lambda group: [Offered()] if group == "agentflow.checkers" else [])
    place.said = {"one": "no", "two": "yes"}
    place.registry(auto="{router: {candidates: [small, large], cascade: {check: polite}}}")
    assert await AgentFlow.model("auto").prompt("Hi").execute() == "yes"


async def test_one_that_explores_listens_for_feedback_until_the_registry_is_closed(place: Place) -> None:
    registry = place.registry(
        auto="{router: {candidates: [small, large], lambda: 1, quality: {small: 0.5, large: 0.5}, exploration: true}}"
    )
    before = len(observations())
    await AgentFlow.model("auto").prompt("Hi").execute()  # which makes the router
    assert len(observations()) == before + 1
    reply = await AgentFlow.model("auto").prompt("Hi").execute_full()
    assert reply.run_id is not None
    router = provider_of(registry, "auto")
    assert isinstance(router, ModelRouter)
    asked = Request("auto", ())
    chosen = reply.text
    odds = router.explain(asked).probabilities[chosen]
    for _ in range(20):
        feedback(reply.run_id, score=1.0)
    assert router.explain(asked).probabilities[chosen] > odds
    await registry.aclose()
    assert len(observations()) == before


async def test_without_a_learned_policy_numpy_is_not_loaded() -> None:
    import subprocess

    program = dedent(
        """
        import asyncio, sys
        from agentflow.llm.providers.scripted import ScriptedProvider
        from agentflow.llm.messages import Message, Request
        from agentflow.mcp.optimization.router import Candidate, Exploration, ModelRouter
        from agentflow.mcp.optimization.router.from_settings import from_settings
        models = {name: Candidate(ScriptedProvider(lambda r: "ok"), quality=0.5) for name in "ab"}
        router = ModelRouter(models, value=0.1, exploration=Exploration())
        print(asyncio.run(router.execute(Request("auto", (Message("user", "Hi"),)))).text)
        print({"numpy", "sklearn", "scipy", "aiohttp", "matplotlib"} & set(sys.modules))
        """
    )
    ran = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert ran.stdout.split() == ["ok", "set()"]


def test_what_a_router_is_made_from_is_what_the_entry_says(place: Place) -> None:
    cascade = "{samples: 3, agreement: 0.5}"
    entry = f"{{router: {{candidates: [small, large], cascade: {cascade}, max_cost: 0.5, sessions: never}}}}"
    registry = place.registry(auto=entry)
    config = registry.describe("auto")
    section: Any = config.wrappers["router"]
    router = making.from_settings(ScriptedProvider([]), section, surroundings_of(registry, config))
    decider = router._decider
    assert decider.cascade is not None
    assert (decider.cascade.accept.samples, decider.cascade.accept.agreement) == (3, 0.5)
    assert (decider.max_cost, decider.sessions, decider.name) == (0.5, "never", "auto")
