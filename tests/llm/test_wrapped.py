"""Entries of models.yml that wrap models: what the client leaves to the wrappers, and what it keeps for itself."""

from __future__ import annotations

import asyncio
import importlib.metadata
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from tests.support.bench import Bench, Slow
from tests.support.memory_durability import MemoryDurability

from agentflow import AsyncFlow, ExecutionEvent, SharedState, node, observe
from agentflow.core.limits import Ledger, Limits
from agentflow.errors import ConfigurationError, LimitExceededError, ModelTimeoutError, ServerError, UnknownModelError
from agentflow.llm.caller import Caller, asking_as, current_caller, steps_as
from agentflow.llm.messages import EmbeddingRequest, Embeddings, Request, Response, StreamChunk, Usage
from agentflow.llm.providers.base import LLMProvider
from agentflow.llm.providers.scripted import ScriptedProvider
from agentflow.llm.wrapped_models import provider_of
from agentflow.llm.wrapping import Surroundings, wrapper

PRICE = "price: {input: 1000000, output: 0}"  # a dollar a token


class Toy:
    """A wrapper that notes what it is asked and by whom, and has answers of its own for prompts it knows."""

    made: list[Toy] = []

    def __init__(self, inner: LLMProvider, settings: Any, surroundings: Surroundings) -> None:
        self.inner = inner
        self.settings = settings
        self.surroundings = surroundings
        self.name = inner.name
        self.seen: list[tuple[Request, Caller]] = []
        self.known: dict[str, Response] = {}
        self.meter = Ledger(Limits())
        self.closed = 0
        Toy.made.append(self)

    async def execute(self, request: Request) -> Response:
        caller = current_caller()
        self.seen.append((request, caller))
        found = self.known.get(request.prompt)
        if found is not None:
            await caller.tell("cache_hit", {"model": "m", "tier": "exact"})
            return replace(found, cost=0.0, cache_hit="exact")
        with asking_as(caller.charging(self.meter)):
            return await self.inner.execute(request)

    async def execute_streaming(self, request: Request) -> AsyncIterator[StreamChunk]:
        caller = current_caller()
        self.seen.append((request, caller))
        async with aclosing(steps_as(caller.charging(self.meter), self.inner.execute_streaming(request))) as source:
            async for chunk in source:
                yield chunk

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        return await self.inner.embed(request)  # type: ignore[attr-defined]

    async def aclose(self) -> None:
        self.closed += 1


class Pick:
    """A router that asks its first candidate."""

    eager = False

    def __init__(self, inner: LLMProvider, settings: Any, surroundings: Surroundings) -> None:
        self.name = "router"
        self._first = settings.candidates[0]
        self._ask = surroundings.ask
        if self.eager:
            surroundings.ask(self._first)

    async def execute(self, request: Request) -> Response:
        return await self._ask(self._first).execute(request)

    async def execute_streaming(self, request: Request) -> AsyncIterator[StreamChunk]:
        async for chunk in self._ask(self._first).execute_streaming(request):
            yield chunk

    async def aclose(self) -> None: ...


@pytest.fixture(autouse=True)
def wrappers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The toy is what `cache` and `budget` name, as if a package offered it."""
    Toy.made.clear()
    monkeypatch.setattr(sys.modules[__name__], "Toy", Toy, raising=False)
    here = [
        EntryPoint(name, f"{__name__}:{value}", "agentflow.wrappers")
        for name, value in (("cache", "Toy"), ("budget", "Toy"), ("router", "Pick"), ("broken", "nothing"))
    ]
    real = importlib.metadata.entry_points

    def entry_points(**wanted: str) -> EntryPoints:
        return EntryPoints(here) if wanted.get("group") == "agentflow.wrappers" else real(**wanted)

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    yield
    Toy.made.clear()


def wrapped(tmp_path: Path, provider: LLMProvider, more: str = "") -> Bench:
    yml = f"models:\n  m: {{provider: toy, cache: {{ttl: 60}}, {PRICE}}}\n{more}"
    return Bench(tmp_path, {"toy": provider}, yml)


def answered(text: str = "Hello.", **more: Any) -> Response:
    return Response(text, "m", "toy", usage=Usage(3, 2), finish_reason="stop", **more)


Way = Callable[[Bench], Awaitable[Response]]


async def whole(bench: Bench, model: str = "m") -> Response:
    return await bench.ask(model).execute_full()


async def streamed(bench: Bench, model: str = "m") -> Response:
    async with bench.ask(model).streaming(True).execute_streaming() as stream:
        return await stream.collect()


WAYS = pytest.mark.parametrize("way", [whole, streamed])


# ---- what the wrapper gets, and what the client leaves to it ------------------------------------------------------


@WAYS
def test_the_model_inside_is_guarded_priced_and_told_of_once(tmp_path: Path, way: Way) -> None:
    bench = wrapped(tmp_path, ScriptedProvider([answered()], name="toy"))
    reply = bench.run_watched(lambda: way(bench))
    assert (reply.text, reply.cost, reply.provider, reply.model, reply.cache_hit) == ("Hello.", 3.0, "toy", "m", None)
    assert bench.kinds.count("model_start") == bench.kinds.count("model_success") == 1
    assert [kind for kind in bench.kinds if kind != "chunk"] == ["model_start", "model_success"]
    assert reply.timing is not None
    assert reply.timing.attempts == 1
    bench.assert_free("m")


def test_what_a_wrapper_answers_by_itself_is_no_request(tmp_path: Path) -> None:
    toy = ScriptedProvider([], name="toy")
    bench = wrapped(tmp_path, toy)

    async def ask() -> Response:
        ask_once = bench.ask("m").limits(requests=0)
        provider_of(bench.registry, "m")
        Toy.made[0].known["Hi"] = answered()
        return await ask_once.execute_full()

    reply = bench.run_watched(ask)
    assert (reply.text, reply.cost, reply.cache_hit) == ("Hello.", 0.0, "exact")
    assert bench.kinds == ["cache_hit"]
    assert toy.requests == []
    assert reply.timing is not None
    assert reply.timing.attempts == 0


@WAYS
def test_a_wrapper_knows_who_asks(tmp_path: Path, way: Way) -> None:
    bench = wrapped(tmp_path, ScriptedProvider([answered()], name="toy"))

    @node
    async def ask(state: SharedState) -> None:
        await way(bench)

    bench.run(AsyncFlow(ask, name="article", clock=bench.clock).run({}, tenant="acme", run_id="r1"))
    [(request, caller)] = Toy.made[0].seen
    assert (caller.tenant, caller.flow, caller.run_id) == ("acme", "article", "r1")
    assert request.prompt == "Hi"


@WAYS
def test_every_ledger_around_hears_what_the_model_inside_costs(tmp_path: Path, way: Way) -> None:
    bench = wrapped(tmp_path, ScriptedProvider([answered()], name="toy"))
    bench.run(way(bench))
    assert (Toy.made[0].meter.dollars, Toy.made[0].meter.requests) == (3.0, 1)


def test_a_limit_of_the_call_bounds_the_model_inside(tmp_path: Path) -> None:
    bench = wrapped(tmp_path, ScriptedProvider(["a", "b"], name="toy"))
    with pytest.raises(LimitExceededError):
        bench.run(bench.ask("m").limits(requests=0).execute())


def test_nobody_asks_once_the_answer_is_there(tmp_path: Path) -> None:
    bench = wrapped(tmp_path, ScriptedProvider([["a", "b"]], name="toy"))

    async def read() -> list[Caller]:
        seen = []
        async with bench.ask("m").tenant("acme").streaming(True).execute_streaming() as stream:
            async for _ in stream:
                seen.append(current_caller())
        return seen

    assert set(map(repr, bench.run(read()))) == {repr(Caller())}


# ---- time, failures, stand-ins -----------------------------------------------------------------------------------


@WAYS
def test_one_limit_of_time_holds_and_the_model_inside_is_ended_by_its_own(tmp_path: Path, way: Way) -> None:
    bench = Bench(tmp_path, {"toy": Slow(60.0)}, "models: {m: {provider: toy, timeout: 2, cache: {ttl: 60}}}")
    with pytest.raises(ModelTimeoutError):
        bench.run(way(bench))
    assert bench.clock.monotonic() == pytest.approx(2.0, abs=0.05)
    assert bench.breaker("m").counts().failures == 1


@WAYS
def test_a_stand_in_answers_where_the_wrapped_model_fails(tmp_path: Path, way: Way) -> None:
    yml = (
        "  spare: {provider: other}\n"
        "  first: {provider: toy, cache: {ttl: 9}, retry: {max_attempts: 1}, fallback: [spare]}\n"
    )
    bench = wrapped(tmp_path, ScriptedProvider([ServerError("down")], name="toy"), yml)
    bench.add("other", ScriptedProvider(["There."], name="other"))
    reply = bench.run_watched(lambda: way(bench, "first"))  # type: ignore[call-arg]
    assert (reply.text, reply.provider) == ("There.", "other")
    assert "fallback" in bench.kinds


def test_a_wrapped_stand_in_is_asked_through_what_wraps_it(tmp_path: Path) -> None:
    yml = "  first: {provider: other, retry: {max_attempts: 1}, fallback: [m]}"
    bench = wrapped(tmp_path, ScriptedProvider(["There."], name="toy"), yml)
    bench.add("other", ScriptedProvider([ServerError("down")], name="other"))
    reply = bench.run(bench.ask("first").execute_full())
    assert (reply.text, len(Toy.made[0].seen)) == ("There.", 1)


def test_retries_happen_once_inside(tmp_path: Path) -> None:
    toy = ScriptedProvider([ServerError("down")] * 3, name="toy")
    bench = wrapped(tmp_path, toy)
    with pytest.raises(ServerError):
        bench.run(bench.ask("m").execute())
    assert len(toy.requests) == 3


@WAYS
def test_a_cancelled_caller_leaves_nothing_held(tmp_path: Path, way: Way) -> None:
    slow = Slow(60.0)
    bench = Bench(tmp_path, {"toy": slow}, "models: {m: {provider: toy, cache: {ttl: 60}}}")

    async def main() -> None:
        task = asyncio.ensure_future(way(bench))
        await bench.clock.sleep(1.0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    bench.run(main())
    bench.assert_free("m")


# ---- durable steps -----------------------------------------------------------------------------------------------


@WAYS
def test_an_answer_is_journalled_as_the_question_and_paid_for_once(tmp_path: Path, way: Way) -> None:
    toy = ScriptedProvider([answered(), answered("Again.")], name="toy")
    bench = wrapped(tmp_path, toy)
    texts: list[str] = []
    fails = [True]

    @node
    async def ask(state: SharedState) -> None:
        texts.append((await way(bench)).text)
        if fails.pop():
            raise RuntimeError("the process dies")

    journal = MemoryDurability()
    flow = AsyncFlow(ask, name="article", clock=bench.clock, durability=journal)

    async def main() -> None:
        with suppress(Exception):
            await flow.run({}, run_id="r1")
        fails.append(False)
        await flow.resume("r1")

    bench.run(main())
    assert texts == ["Hello.", "Hello."]
    assert len(toy.requests) == 1
    assert Toy.made[0].meter.dollars == 3.0


# ---- routers, embeddings, the order ------------------------------------------------------------------------------


@WAYS
def test_a_router_is_an_entry_without_a_provider(tmp_path: Path, way: Way) -> None:
    bench = wrapped(
        tmp_path, ScriptedProvider([answered()], name="toy"), "  auto: {router: {candidates: [m]}, temperature: 0.5}"
    )
    reply = bench.run_watched(lambda: way(bench, "auto"))  # type: ignore[call-arg]
    assert (reply.text, reply.provider, reply.cost) == ("Hello.", "toy", 3.0)
    [(request, _)] = Toy.made[0].seen
    assert request.temperature == 0.5
    assert bench.of("model_success")[0]["model"] == "m"


def test_the_cache_stands_outside_of_the_budget(tmp_path: Path) -> None:
    bench = Bench(
        tmp_path,
        {"toy": ScriptedProvider(["a"], name="toy")},
        "models: {m: {provider: toy, budget: {per_day: 1}, cache: {ttl: 60}}}",
    )
    bench.run(bench.ask("m").execute())
    budget, cache = Toy.made
    assert cache.inner is budget


def test_defaults_wrap_every_model_that_says_nothing_of_its_own_and_no_router(tmp_path: Path) -> None:
    yml = (
        "defaults: {budget: {per_day: 5}}\n"
        "models: {m: {provider: toy}, free: {provider: toy, budget: null}, auto: {router: {candidates: [m]}}}"
    )
    bench = Bench(tmp_path, {"toy": ScriptedProvider(["a"], name="toy")}, yml)
    named = {name: set(bench.registry.describe(name).wrappers) for name in ("m", "toy/x", "free", "auto")}
    assert named == {"m": {"budget"}, "toy/x": {"budget"}, "free": set(), "auto": {"router"}}


def test_embeddings_pass_through_what_wraps_the_model(tmp_path: Path) -> None:
    bench = wrapped(tmp_path, ScriptedProvider([], name="toy", vector=lambda text: [float(len(text))]))
    vectors = bench.run(bench.ask("m").embed(["a", "bcd"]))
    assert tuple(map(tuple, vectors)) == ((1.0,), (3.0,))


def test_closing_the_registry_closes_what_was_made_also_what_was_replaced(tmp_path: Path) -> None:
    bench = wrapped(tmp_path, ScriptedProvider(["a", "b"], name="toy"))

    async def main() -> None:
        await bench.ask("m").execute()
        bench.registry.register_model("m", provider="toy", cache={"ttl": 5})
        await bench.ask("m").execute()
        await bench.registry.aclose()

    bench.run(main())
    assert [(toy.settings.ttl, toy.closed) for toy in Toy.made] == [(60.0, 1), (5.0, 1)]


def test_a_chain_goes_on_where_other_models_change_and_is_made_anew_where_its_own_do(tmp_path: Path) -> None:
    """So a cache in memory is not emptied by every model that is added."""
    bench = wrapped(
        tmp_path,
        ScriptedProvider(lambda request: "a", name="toy"),
        "  auto: {router: {candidates: [m]}, cache: {ttl: 9}}",
    )

    async def main() -> None:
        await bench.ask("auto").execute()
        made = len(Toy.made)
        for number in range(20):
            bench.registry.register_model(f"other-{number}", provider="toy")
            await bench.ask("auto").execute()
        assert len(Toy.made) == made
        bench.registry.register_model("m", provider="toy", cache={"ttl": 5})
        await bench.ask("auto").execute()
        assert len(Toy.made) == made + 2  # the router's chain, and its candidate's

    bench.run(main())


def test_made_up_names_do_not_fill_memory(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {"toy": ScriptedProvider([], name="toy")}, "defaults: {cache: {ttl: 60}}")
    for number in range(600):
        provider_of(bench.registry, f"toy/m{number}")
    assert len(bench.registry.chains._made) == 512


# ---- mistakes ----------------------------------------------------------------------------------------------------


def test_routers_that_lead_back_to_themselves_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    yml = "models: {a: {router: {candidates: [b]}}, b: {router: {candidates: [a]}}}"
    bench = Bench(tmp_path, {}, yml)
    monkeypatch.setattr(Pick, "eager", True)
    with pytest.raises(ConfigurationError, match="'a' leads back to itself: a → b → a"):
        bench.run(bench.ask("a").execute())


def test_a_candidate_that_nobody_knows_is_named_at_once(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {}, "models: {auto: {router: {candidates: [missing]}}}")
    with pytest.raises(ConfigurationError, match=r"'auto' routes to a candidate that nobody knows: .*'missing'"):
        bench.registry.resolve("auto")


def test_a_router_with_a_provider_is_refused(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {}, "models: {auto: {provider: openai, router: {candidates: [gpt-4o]}}}")
    with pytest.raises(ConfigurationError, match="a router is no model itself"):
        bench.registry.describe("auto")


def test_a_wrapper_that_nobody_offers_or_that_does_not_load_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"models\.m\.batch: nothing installed offers the wrapper 'batch'"):
        wrapper("batch", "models.m.batch")
    with pytest.raises(ConfigurationError, match="does not load"):
        wrapper("broken", "models.m.broken")


def test_an_unknown_model_stays_unknown(tmp_path: Path) -> None:
    bench = wrapped(tmp_path, ScriptedProvider([], name="toy"))
    with pytest.raises(UnknownModelError):
        bench.run(bench.ask("nobody").execute())


# ---- outside of any flow -----------------------------------------------------------------------------------------


@dataclass
class Watching:
    """Sees every event of this process."""

    events: list[ExecutionEvent] = field(default_factory=list)
    inline = True
    chunks = False
    content = False

    def observe(self, event: ExecutionEvent) -> None:
        self.events.append(event)

    @property
    def spans(self) -> list[tuple[str, int, int | None]]:
        first = self.events[0].sequence
        return [(event.kind, event.span - first, event.parent) for event in self.events if event.kind != "chunk"]


@WAYS
def test_a_question_outside_of_any_flow_is_told_as_a_run_with_the_models_inside(tmp_path: Path, way: Way) -> None:
    bench = wrapped(tmp_path, ScriptedProvider([answered()], name="toy"))
    watching = Watching()
    with observe(watching):
        bench.run(way(bench))
    kinds = [kind for kind, _, _ in watching.spans]
    assert (kinds[0], kinds[-1]) == ("flow_start", "flow_success")
    assert kinds.count("model_success") == 1
    assert {event.run_id for event in watching.events} == {watching.events[0].run_id}
    assert next(event for event in watching.events if event.kind == "model_start").parent == watching.events[0].span


def test_where_no_model_was_asked_the_run_has_its_end_all_the_same(tmp_path: Path) -> None:
    bench = wrapped(tmp_path, ScriptedProvider([], name="toy"))
    provider_of(bench.registry, "m")
    Toy.made[0].known["Hi"] = answered()
    watching = Watching()
    with observe(watching):
        bench.run(whole(bench))
    assert [kind for kind, _, _ in watching.spans] == ["flow_start", "cache_hit", "flow_success"]


@WAYS
def test_a_question_that_fails_or_is_left_ends_its_run_so(tmp_path: Path, way: Way) -> None:
    bench = wrapped(tmp_path, ScriptedProvider([ServerError("down")] * 3, name="toy"))
    watching = Watching()

    async def leave() -> None:
        async with bench.ask("m", "again").streaming(True).execute_streaming() as stream:
            await anext(aiter(stream))

    with observe(watching), pytest.raises(ServerError):
        bench.run(way(bench))
    assert watching.events[-1].kind == "flow_error"
    bench.add("toy", ScriptedProvider([["a", "b"]], name="toy"))
    with observe(watching):
        bench.run(leave())
    assert watching.events[-1].kind == "flow_cancelled"
