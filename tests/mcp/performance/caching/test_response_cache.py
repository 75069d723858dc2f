"""What a cache answers by itself, what it asks, what it keeps, and what it tells: with a provider that counts."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from msgspec.structs import replace
from tests.support.costly import CENT, Costly, asked

from agentflow.clock import VirtualClock
from agentflow.core.observability.events import ExecutionEvent
from agentflow.errors import ConfigurationError, RateLimitError, UnsupportedError
from agentflow.llm.caller import Caller, asking_as
from agentflow.llm.content import Image, Raw, Text, ToolCall
from agentflow.llm.messages import Alternative, EmbeddingRequest, Message, Request, Response, Tool
from agentflow.llm.providers.base import EmbeddingProvider, LLMProvider, TokenCounter
from agentflow.llm.providers.scripted import ScriptedProvider
from agentflow.mcp.performance.caching import ResponseCache

MINUTE = 60.0


def cached(model: LLMProvider, **options: Any) -> ResponseCache:
    return ResponseCache(model, **{"ttl": MINUTE, "jitter": 0.0, **options})


async def twice(model: LLMProvider, request: Request, **options: Any) -> tuple[Response, Response, ResponseCache]:
    cache = cached(model, **options)
    return await cache.execute(request), await cache.execute(request), cache


# ---- hits ----------------------------------------------------------------------------------------------------


async def test_the_second_answer_is_the_first_one_and_free() -> None:
    """Everything but its price is what it was; its usage is what it once took."""
    model = Costly()
    first, second, cache = await twice(model, asked())
    assert (first.cost, first.cache_hit) == (CENT, None)
    assert second == replace(first, cost=0.0, cache_hit="exact")
    assert len(model.calls) == 1
    found = cache.statistics()
    assert (found.hits, found.misses, found.kept, found.saved, found.unpriced) == (1, {"absent": 1}, 1, CENT, 0)
    assert found.hit_rate == 0.5


async def test_it_is_a_provider_that_can_what_the_wrapped_one_can() -> None:
    model = Costly()
    cache = cached(model)
    assert isinstance(cache, LLMProvider)
    assert isinstance(cache, EmbeddingProvider)
    assert isinstance(cache, TokenCounter)
    assert cache.name == "lab"
    assert await cache.count_tokens(asked("Hello")) == 5
    await cache.aclose()
    await cache.aclose()
    assert model.closed == 2


async def test_what_the_wrapped_one_cannot_it_cannot_either() -> None:
    class Plain:
        name = "plain"
        schemas = False

    cache = cached(Plain())  # type: ignore[arg-type]
    assert not cache.schemas
    with pytest.raises(UnsupportedError):
        await cache.count_tokens(asked())
    with pytest.raises(UnsupportedError):
        await cache.embed(EmbeddingRequest("e", ("a",)))


async def test_an_answer_of_unknown_price_saves_what_nobody_knows() -> None:
    _, second, cache = await twice(Costly(cost=None), asked())
    assert second.cost == 0.0
    assert (cache.statistics().saved, cache.statistics().unpriced) == (0.0, 1)


async def test_nobody_can_change_what_another_gets() -> None:
    """Arguments of a call are a dictionary, which some would write to."""
    call = Response((Text("a"), ToolCall("1", "t", {"x": 1})), "m", "lab", finish_reason="tool_calls")
    cache = cached(ScriptedProvider(lambda _: call), tools="always")
    await cache.execute(asked())
    (await cache.execute(asked())).tool_calls[0].arguments["x"] = 2  # type: ignore[index]
    assert (await cache.execute(asked())).tool_calls[0].arguments == {"x": 1}


async def test_where_its_time_went_and_whose_run_it_was_is_not_kept() -> None:
    model = ScriptedProvider(lambda _: Response("x", "m", "lab", finish_reason="stop", run_id="run-1", cost=1.0))
    _, second, _ = await twice(model, asked())
    assert (second.run_id, second.timing) == (None, None)


# ---- what is not for the cache -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (asked(temperature=None), "temperature"),
        (asked(temperature=0.2), "temperature"),
        (asked(temperature=0.0, params={"temperature": 1}), "temperature"),
        (asked(metadata={"agentflow_cache": "off"}), "bypass"),
        (asked(tools=(Tool("t"),)), "tools"),
        (asked(params={"tools": [{"name": "t"}]}), "tools"),
        (asked(params={"web_search_options": {}}), "tools"),
        (replace(asked(), messages=(Message("user", (Image("https://host/a.png"),)),)), "address"),
    ],
)
async def test_what_might_be_answered_otherwise_is_asked(request_: Request, reason: str) -> None:
    model = Costly()
    first, second, cache = await twice(model, request_)
    assert first.text != second.text
    assert len(model.calls) == 2
    assert cache.statistics().misses == {reason: 2}
    assert cache.statistics().kept == 0


@pytest.mark.parametrize(
    ("request_", "options"),
    [
        (asked(temperature=0.7), {"temperature": "any"}),
        (asked(temperature=None), {"temperature": "any"}),
        (asked(temperature=None), {"default_temperature": 0.0}),
        (asked(temperature=0.7, metadata={"agentflow_cache": "on"}), {}),
        (asked(temperature=0.7, params={"temperature": 0}), {}),
        (asked(tools=(Tool("t"),)), {"tools": "unused"}),
        (asked(tools=(Raw("openai", {"type": "web_search"}),)), {"tools": "always"}),
        (replace(asked(), messages=(Message("user", (Image("https://host/a.png"),)),)), {"addresses": True}),
        (replace(asked(), messages=(Message("user", (Image("file-id:file-1"),)),)), {}),
    ],
)
async def test_what_is_allowed_is_cached(request_: Request, options: Mapping[str, Any]) -> None:
    model = Costly()
    _, second, _ = await twice(model, request_, **options)
    assert second.cache_hit == "exact"
    assert len(model.calls) == 1


async def test_a_tool_that_the_provider_runs_is_only_cached_where_all_are() -> None:
    model = Costly()
    await twice(model, asked(tools=(Raw("openai", {"type": "web_search"}),)), tools="unused")
    assert len(model.calls) == 2


# ---- answers that are not kept -------------------------------------------------------------------------------

CALL = ToolCall("1", "send_mail", {"to": "everybody"})


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Response("cut o", "m", "lab", finish_reason="length"), "length"),
        (Response("I cannot", "m", "lab", finish_reason="content_filter"), "content_filter"),
        (Response("wait", "m", "lab", finish_reason="paused"), "paused"),
        (Response("broken", "m", "lab", finish_reason="error"), "error"),
        (Response("who knows", "m", "lab"), "unfinished"),
        (Response("", "m", "lab", finish_reason="stop"), "empty"),
        (Response((CALL,), "m", "lab", finish_reason="tool_calls"), "tool_calls"),
        (Response((CALL,), "m", "lab", finish_reason="stop"), "tool_calls"),
        (Response("a", "m", "lab", finish_reason="stop", alternatives=(Alternative("b", "length"),)), "length"),
        (Response("a", "m", "lab", finish_reason="stop", opaque={"x": 2**70}), "unstorable"),
    ],
)
async def test_an_answer_that_is_no_whole_one_is_not_kept(answer: Response, reason: str) -> None:
    """Cut off, refused, broken, or one that makes something happen."""
    model = ScriptedProvider(lambda _: answer)
    _, second, cache = await twice(model, asked(tools=(Tool("t"),)), tools="unused")
    assert second.cache_hit is None
    assert len(model.requests) == 2
    assert cache.statistics().unkept == {reason: 2}


async def test_several_answers_are_kept_together() -> None:
    answer = Response("a", "m", "lab", finish_reason="stop", alternatives=(Alternative("b", "stop"),))
    model = ScriptedProvider(lambda _: answer)
    _, second, _ = await twice(model, asked(n=2))
    assert [other.text for other in second.alternatives] == ["b"]
    assert second.cache_hit == "exact"


async def test_an_error_is_not_kept() -> None:
    model = Costly()
    model.fail = [RateLimitError("too fast", provider="lab")]
    cache = cached(model)
    with pytest.raises(RateLimitError):
        await cache.execute(asked())
    assert (await cache.execute(asked())).text == "answer 2 to Hi"


async def test_what_is_larger_than_the_cache_is_not_kept() -> None:
    _, _, cache = await twice(Costly(), asked(), memory_bytes=100)
    assert cache.statistics().unkept == {"too_large": 2}


# ---- what a call wants ---------------------------------------------------------------------------------------


async def test_a_wish_is_heard_and_not_handed_on() -> None:
    """Providers refuse metadata that they do not know."""
    model = Costly()
    metadata = {"team": "search", "agentflow_cache": "on", "agentflow_cache_tags": "a,b", "agentflow_cache_ttl": "5"}
    cache = cached(model)
    await cache.execute(asked(metadata=metadata))
    await cache.execute(asked(metadata={"agentflow_cache": "off"}))
    assert [call.metadata for call in model.calls] == [{"team": "search"}, {}]


@pytest.mark.parametrize(
    "metadata", [{"agentflow_cache": "maybe"}, {"agentflow_cache_ttl": "soon"}, {"agentflow_cache_ttl": "-1"}]
)
async def test_a_wish_that_nobody_understands_is_an_error(metadata: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError):
        await cached(Costly()).execute(asked(metadata=metadata))


async def test_a_refresh_is_asked_anew_and_kept() -> None:
    model = Costly()
    cache = cached(model)
    await cache.execute(asked())
    second = await cache.execute(asked(metadata={"agentflow_cache": "refresh"}))
    third = await cache.execute(asked())
    assert [second.text, third.text] == ["answer 2 to Hi"] * 2
    assert (second.cost, third.cost) == (CENT, 0.0)
    assert cache.statistics().misses == {"absent": 1, "refresh": 1}


# ---- time ----------------------------------------------------------------------------------------------------


def test_an_answer_ends() -> None:
    """With its time to live, or with the one that the call said."""
    clock, model = VirtualClock(), Costly()

    async def main() -> None:
        cache = cached(model, ttl=100, clock=clock)
        await cache.execute(asked())
        await cache.execute(asked("short", metadata={"agentflow_cache_ttl": "10"}))
        clock.advance(99)
        assert (await cache.execute(asked())).cache_hit == "exact"
        assert (await cache.execute(asked("short"))).cache_hit is None
        clock.advance(1)
        assert (await cache.execute(asked())).cache_hit is None

    clock.run(main())


def test_answers_of_one_moment_do_not_all_end_in_one_moment() -> None:
    """At three quarters of their time about half of them live; and none lives longer than its time to live."""
    clock, model = VirtualClock(seed=1), Costly()

    async def main() -> tuple[int, int]:
        cache = cached(model, ttl=100, jitter=0.5, clock=clock)
        questions = [asked(str(number)) for number in range(100)]
        for question in questions:
            await cache.execute(question)
        clock.advance(75)
        alive = [(await cache.execute(question)).cache_hit for question in questions].count("exact")
        await cache.purge()
        for question in questions:
            await cache.execute(question)
        clock.advance(100)
        return alive, [(await cache.execute(question)).cache_hit for question in questions].count("exact")

    alive, immortal = clock.run(main())
    assert 30 < alive < 70
    assert immortal == 0


def test_an_old_answer_is_given_while_it_is_asked_for_anew() -> None:
    """Nobody waits; the next one gets the new answer. Several who get the old one have it asked once."""
    clock, model = VirtualClock(), Costly()

    async def main() -> None:
        cache = cached(model, ttl=100, stale=50, clock=clock)
        await cache.execute(asked())
        clock.advance(120)
        old = await asyncio.gather(*[cache.execute(asked()) for _ in range(5)])
        assert {each.text for each in old} == {"answer 1 to Hi"}
        await clock.sleep(1)
        assert (await cache.execute(asked())).text == "answer 2 to Hi"
        assert len(model.calls) == 2
        assert cache.statistics().stale == 5
        clock.advance(200)
        assert (await cache.execute(asked())).text == "answer 3 to Hi"
        await cache.aclose()

    clock.run(main())


def test_an_old_answer_stays_where_no_new_one_comes() -> None:
    clock, model = VirtualClock(), Costly()

    async def main() -> None:
        cache = cached(model, ttl=100, stale=50, clock=clock)
        await cache.execute(asked())
        clock.advance(120)
        model.fail = [RateLimitError("too fast")]
        for _ in range(2):
            assert (await cache.execute(asked())).text == "answer 1 to Hi"
            await clock.sleep(1)

    clock.run(main())


# ---- tenants -------------------------------------------------------------------------------------------------


async def test_a_tenant_finds_its_own_answers_alone() -> None:
    """Nobody's answers are nobody's, not everybody's."""
    model = Costly()
    cache = cached(model)
    for tenant in ("a", "b", None, "a", "b", None):
        with asking_as(Caller(tenant=tenant)):
            await cache.execute(asked())
    assert len(model.calls) == 3
    assert cache.statistics().hits == 3


async def test_tenants_may_share() -> None:
    model = Costly()
    cache = cached(model, share_tenants=True)
    for tenant in ("a", "b", None):
        with asking_as(Caller(tenant=tenant)):
            await cache.execute(asked())
    assert len(model.calls) == 1


# ---- purging -------------------------------------------------------------------------------------------------


async def test_answers_are_purged_by_what_they_are() -> None:
    """By model, by the words of the question, by tag, by tenant, by several of these; or all of them."""
    model = Costly()
    cache = cached(model)
    tag = {"agentflow_cache_tags": "faq, v1"}
    questions = [asked("a"), asked("a", seed=1), asked("b", metadata=tag), replace(asked("c"), model="big")]

    async def fill() -> None:
        for question in questions:
            await cache.execute(question)
        with asking_as(Caller(tenant="acme")):
            await cache.execute(asked("a", metadata=tag))

    await fill()
    assert await cache.purge(prompt="a") == 2
    await fill()
    assert await cache.purge(prompt="a", tenant="acme") == 1
    await fill()
    assert await cache.purge(tag="faq") == 2
    await fill()
    assert await cache.purge(tag="v1", tenant="acme") == 1
    await fill()
    assert await cache.purge(model="big") == 1
    await fill()
    assert await cache.purge(model="big", prompt="a") == 0
    assert await cache.purge() == 5
    assert await cache.purge() == 0
    assert cache.statistics().entries == 0


async def test_an_answer_is_purged_by_who_gave_it_as_well() -> None:
    """A router's answer is purged by the model that it chose."""
    cache = cached(ScriptedProvider(lambda _: Response("x", "small-2", "lab", finish_reason="stop")))
    await cache.execute(asked())
    assert await cache.purge(model="small-2") == 1


# ---- vectors -------------------------------------------------------------------------------------------------


async def test_vectors_are_kept_text_by_text() -> None:
    """Only the texts that are new are asked for, each once, and all come in their order, as exact as they were."""
    model = Costly()
    cache = cached(model)
    first = await cache.embed(EmbeddingRequest("e", ("a", "bb", "a")))
    second = await cache.embed(EmbeddingRequest("e", ("ccc", "bb", "a", "ccc")))
    third = await cache.embed(EmbeddingRequest("e", ("a", "bb")))
    assert model.texts == [("a", "bb"), ("ccc",)]
    assert [len(first.vectors), len(second.vectors)] == [3, 4]
    assert [vector[0] for vector in second.vectors] == [3.0, 2.0, 1.0, 3.0]
    assert third.vectors == first.vectors[:2]
    assert (first.cost, second.cost, third.cost) == (CENT, CENT, 0.0)
    assert third.usage is not None
    assert third.usage.total_tokens == 0
    found = cache.statistics()
    assert (found.texts, found.texts_found) == (7, 4)
    assert found.saved == pytest.approx(2 * CENT)


async def test_a_vector_of_another_size_is_another_vector() -> None:
    model = Costly()
    cache = cached(model)
    for dimensions in (None, 2, None):
        await cache.embed(EmbeddingRequest("e", ("a",), dimensions))
    assert len(model.texts) == 2


async def test_no_texts_are_no_question() -> None:
    """What the provider says to nothing is said by the provider."""
    model = Costly()
    assert (await cached(model).embed(EmbeddingRequest("e", ()))).vectors == ()


# ---- telling -------------------------------------------------------------------------------------------------


async def test_every_decision_is_told_with_its_reason() -> None:
    told: list[tuple[str, dict[str, object]]] = []

    class Ear:
        async def send(self, kind: str, facts: Mapping[str, object]) -> ExecutionEvent | None:
            told.append((kind, dict(facts)))
            return None

    cache = cached(Costly())
    with asking_as(Caller(tenant="acme", scope=Ear())):  # type: ignore[arg-type]
        await cache.execute(asked())
        await cache.execute(asked())
        await cache.execute(asked(temperature=1.0))
        await cache.embed(EmbeddingRequest("e", ("a",)))
    common = {"model": "tiny-1", "tenant": "acme"}
    assert told[0] == ("cache_miss", {**common, "reason": "absent"})
    kind, facts = told[1]
    assert kind == "cache_hit"
    assert facts.items() >= {**common, "tier": "exact", "reason": "fresh", "saved": CENT, "stale": False}.items()
    assert facts["input_tokens"] == 10
    assert facts["output_tokens"] == 5
    assert told[2] == ("cache_miss", {**common, "reason": "temperature"})
    assert told[3] == ("cache_miss", {"model": "e", "tenant": "acme", "reason": "absent"})


# ---- options -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{"ttl": 0}, {"ttl": -1.0}, {"ttl": float("inf")}, {"jitter": 1.0}, {"stale": -1.0}, {"memory_bytes": -1},
     {"lease": 0.0}, {"secret": b"short"}],
)  # fmt: skip
def test_an_option_that_cannot_be_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        cached(Costly(), **options)
