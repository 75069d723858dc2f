"""The replay of an exact cache answers what a real one would have answered, call for call."""

from __future__ import annotations

from collections import OrderedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.cost_traffic import Traffic
from tests.support.costly import asked

from agentflow.clock import VirtualClock
from agentflow.llm.caller import Caller, asking_as
from agentflow.llm.messages import Request, Response, Usage
from agentflow.llm.providers.scripted import ScriptedProvider
from agentflow.mcp.optimization.cost import Call, UsageLog
from agentflow.mcp.optimization.cost.exact_cache import ExactCache, hits
from agentflow.mcp.optimization.cost.price_snapshot import PriceSnapshot
from agentflow.mcp.optimization.cost.replay import saving
from agentflow.mcp.optimization.cost.table import Table, table_of
from agentflow.mcp.performance.caching import ResponseCache

NO_PRICES = PriceSnapshot({}, "2026-11-26", "nobody")


def table(*calls: Call) -> Table:
    return table_of(UsageLog(calls), NO_PRICES)


def call(at: float, key: str, **facts: object) -> Call:
    defaults = {"model": "m", "cost": 1.0, "temperature": 0.0, "finish_reason": "stop", "fingerprint": key}
    return Call(at=at, **{**defaults, **facts})  # type: ignore[arg-type]


def answered(made: Table, **options: float) -> list[bool]:
    return [bool(each) for each in hits(made, made.counts & ExactCache(1.0).covers(made), **options)]  # type: ignore[arg-type]


def test_an_answer_holds_from_when_it_came_however_often_it_is_given() -> None:
    made = table(*(call(at, "a", duration=2.0) for at in (0.0, 1.0, 11.9, 12.0, 13.0)))
    assert answered(made, ttl=10.0) == [False, True, True, False, True]


def test_tenants_and_models_share_nothing() -> None:
    made = table(
        call(0.0, "a", tenant="x"), call(1.0, "a", tenant="y"), call(2.0, "a", tenant="x", model="n"),
        call(3.0, "a", tenant="x"),
    )  # fmt: skip
    assert answered(made, ttl=10.0) == [False, False, False, True]


@pytest.mark.parametrize(
    "facts",
    [{"failed": True}, {"finish_reason": "length"}, {"temperature": 0.7}, {"temperature": None}, {"cacheable": False}],
)
def test_what_is_not_cached_is_not_answered(facts: dict[str, object]) -> None:
    made = table(call(0.0, "a", **facts), call(1.0, "a", **facts))
    assert answered(made, ttl=10.0) == [False, False]


def test_a_cache_of_all_requests_takes_those_whose_answers_vary() -> None:
    made = table(call(0.0, "a", temperature=1.0), call(1.0, "a", temperature=1.0))
    assert ExactCache(10.0, all_requests=True).covers(made).all()
    assert not ExactCache(10.0).covers(made).any()


def test_what_is_not_identified_is_never_answered() -> None:
    made = table(Call(at=0.0, model="m", cost=1.0), Call(at=1.0, model="m", cost=1.0))
    assert answered(made, ttl=10.0) == [False, False]


def one_by_one(calls: list[Call], ttl: float, capacity: int | None) -> list[bool]:
    """A dictionary, asked call by call."""
    entries: OrderedDict[str, float] = OrderedDict()
    found = []
    for each in calls:
        key = each.fingerprint or ""
        found.append(each.at < entries.get(key, -1.0))
        if not found[-1]:
            entries[key] = each.at + (each.duration or 0.0) + ttl
        entries.move_to_end(key)
        if capacity is not None and len(entries) > capacity:
            entries.popitem(last=False)
    return found


CALLS = st.lists(
    st.tuples(st.integers(0, 400), st.sampled_from("abcdef"), st.integers(0, 6)), min_size=1, max_size=60
).map(lambda rows: [call(float(at), key, duration=float(took)) for at, key, took in sorted(rows)])


@settings(max_examples=150)
@given(calls=CALLS, ttl=st.integers(1, 200), capacity=st.one_of(st.none(), st.integers(1, 6)))
def test_the_replay_is_that_of_a_dictionary_asked_call_by_call(
    calls: list[Call], ttl: int, capacity: int | None
) -> None:
    made = table(*calls)
    found = hits(made, made.counts, ttl=float(ttl), capacity=capacity)
    assert [bool(each) for each in found] == one_by_one(calls, float(ttl), capacity)


def test_a_real_cache_answers_the_same_calls() -> None:
    """A day's traffic through `ResponseCache`, on a clock that jumps, next to its replay."""
    made = Traffic.drawn(seed=5, runs=250, days=1.0)
    at_once = [
        Call(**{name: getattr(each, name) for name in each.__struct_fields__ if name != "duration"})
        for each in made.log
    ]
    log = UsageLog(at_once)
    ttl = 1_800.0
    clock = VirtualClock()

    async def replayed() -> list[bool]:
        model = ScriptedProvider(_answer)
        cache = ResponseCache(model, ttl=ttl, jitter=0.0, clock=clock)
        found = []
        for each in log:
            clock.advance(max(0.0, each.at - log[0].at - clock.monotonic()))
            with asking_as(Caller(tenant=each.tenant)):
                reply = await cache.execute(asked(each.fingerprint or "").replace_model(each.model))
            found.append(reply.cache_hit == "exact")
        await cache.aclose()
        return found

    found = clock.run(replayed())
    own = table_of(log, made.prices)
    assert sum(found) > 100
    assert found == [bool(each) for each in hits(own, own.counts, ttl=ttl)]


def _answer(request: Request) -> Response:
    return Response("yes", model=request.model, provider="scripted", usage=Usage(1, 1), finish_reason="stop", cost=0.01)


def test_what_is_saved_is_what_the_hits_have_cost() -> None:
    made = table(*(call(float(at), "a", run=f"r{at}", cost=0.5) for at in range(100)))
    saves = saving(made, [ExactCache(1_000.0, jitter=0.0)])
    assert saves.value * made.log.days == pytest.approx(49.5)
