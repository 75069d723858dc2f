"""A provider within a budget: what it reserves, what it settles, and what stays reserved because nobody knows."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.clock import VirtualClock
from agentflow.core.accounts import NANO, Charge, Standing, Verdict
from agentflow.core.observability.scope import Scope
from agentflow.errors import (
    BudgetExceededError,
    BudgetUnavailableError,
    ConfigurationError,
    ModelConnectionError,
    ModelError,
    ModelTimeoutError,
    OverloadedError,
    RateLimitError,
    ServerError,
    StreamInterruptedError,
    UnboundedCostError,
    UnsupportedError,
)
from agentflow.llm.caller import Caller, asking_as, current_caller
from agentflow.llm.config.prices import Rates
from agentflow.llm.messages import EmbeddingRequest, Message, Request, Response, StreamChunk
from agentflow.llm.providers.base import EmbeddingProvider, LLMProvider
from agentflow.llm.providers.scripted import ScriptedProvider
from agentflow.mcp.optimization.budget import Allowance, Budget, BudgetedProvider, MemoryAccounts

RATES = Rates.stated(10.0, 100.0)  # dollars a million: a token of an answer is 0.0001
REQUEST = Request("m", (Message("user", "How are you?"),), max_tokens=100)
BOUND = 0.0117  # of that request, about: 100 tokens of answer, and the prompt at a byte a token


def budgeted(inner: LLMProvider, budget: Budget) -> BudgetedProvider:
    return BudgetedProvider(inner, budget, price=RATES)


async def spent(budget: Budget) -> float:
    return sum(account.spent for account in await budget.status())


async def reserved(budget: Budget) -> float:
    return sum(account.reserved for account in await budget.status())


@dataclass
class Heard:
    """Whoever watches: the `budget` events, by what was decided."""

    facts: list[dict[str, object]] = field(default_factory=list)

    async def send(self, kind: str, facts: dict[str, object]) -> None:
        assert kind == "budget"
        self.facts.append(facts)

    def remark(self, kind: str, facts: dict[str, object]) -> None:
        assert kind == "budget"
        self.facts.append(facts)

    @property
    def decisions(self) -> list[object]:
        return [facts["decision"] for facts in self.facts]

    def caller(self, **said: Any) -> Caller:
        return Caller(scope=cast("Scope", self), **said)


@dataclass
class Paying:
    """A guarded model, as far as a budget knows one: it notes in the ledgers of whoever asks."""

    notes: Sequence[float | None]
    error: Exception | None = None
    name: str = "paying"

    async def execute(self, request: Request) -> Response:
        for ledger in current_caller().ledgers:
            ledger.request()
            for cost in self.notes:
                ledger.spend(10, cost)
        if self.error is not None:
            raise self.error
        return Response("fine", "m", self.name, cost=0.5)

    async def execute_streaming(self, request: Request) -> AsyncGenerator[StreamChunk, None]:
        ledgers = current_caller().ledgers
        try:
            for word in ("one ", "two ", "three"):
                yield StreamChunk(word)
            if self.error is not None:
                raise self.error
        finally:
            for ledger in ledgers:
                for cost in self.notes:
                    ledger.spend(10, cost)

    async def aclose(self) -> None: ...


# ---- what is settled


async def test_a_call_costs_what_its_usage_says_and_the_rest_is_room_again() -> None:
    budget = Budget(per_day=1.0)
    model = budgeted(ScriptedProvider(["very well indeed"]), budget)
    await model.execute(REQUEST)
    assert (await spent(budget), await reserved(budget)) == (pytest.approx(3 * 10 / 1e6 + 3 * 100 / 1e6), 0.0)


async def test_while_a_call_is_under_way_its_upper_bound_is_reserved() -> None:
    budget = Budget(per_day=1.0)
    seen: list[float] = []

    async def look(request: Request) -> str:
        seen.append(await reserved(budget))
        return "well"

    await budgeted(ScriptedProvider(look), budget).execute(REQUEST)
    assert seen == [pytest.approx(BOUND, rel=0.1)]


async def test_every_request_that_was_paid_for_counts_and_not_the_answer_alone() -> None:
    """Two attempts of a hedge, or two stages of a cascade: the ledger has both, the answer's own cost is of one."""
    budget = Budget(per_day=1.0)
    await budgeted(Paying([0.001, 0.002]), budget).execute(REQUEST)
    assert await spent(budget) == pytest.approx(0.003)


async def test_an_answer_of_unknown_cost_stays_reserved_until_somebody_says_what_it_cost() -> None:
    budget = Budget(per_day=1.0)
    await budgeted(Paying([None]), budget).execute(REQUEST)
    assert (await spent(budget), await reserved(budget)) == (0.0, pytest.approx(BOUND, rel=0.1))
    [held] = await budget.held()
    assert await budget.correct(held.call, 0.002)
    assert (await spent(budget), await reserved(budget)) == (pytest.approx(0.002), 0.0)
    assert not await budget.correct(held.call, 0.003)


async def test_what_is_known_counts_where_it_is_more_than_the_bound() -> None:
    """One of two requests said what it cost, and that alone is more than was reserved."""
    budget = Budget(per_day=1.0)
    await budgeted(Paying([0.5, None]), budget).execute(REQUEST)
    assert (await spent(budget), await reserved(budget)) == (0.5, 0.0)


@pytest.mark.parametrize(
    ("error", "free"),
    [
        (RateLimitError("too fast", status=429), True),
        (RateLimitError("too fast"), True),
        (OverloadedError("busy", status=529), True),
        (ModelTimeoutError("connect", 1.0), True),
        (ConfigurationError("no such thing"), True),
        (BudgetExceededError("inner", limit=1, spent=1, reserved=0, needed=1), True),
        (ModelError("timeout of a gateway", status=408), False),
        (ServerError("down", status=504), False),
        (ModelTimeoutError("total", 1.0), False),
        (ModelConnectionError("it broke"), False),
        (StreamInterruptedError("cut", partial=""), False),
    ],
    ids=lambda value: value if isinstance(value, bool) else f"{type(value).__name__}-{getattr(value, 'status', '')}",
)
async def test_a_call_that_failed_is_free_where_it_was_surely_not_billed(error: Exception, free: bool) -> None:
    budget = Budget(per_day=1.0)
    with pytest.raises(type(error)):
        await budgeted(ScriptedProvider([error]), budget).execute(REQUEST)
    assert await spent(budget) == 0
    assert bool(await reserved(budget)) is not free


async def test_what_earlier_requests_cost_counts_also_where_the_last_one_was_refused() -> None:
    budget = Budget(per_day=1.0)
    with pytest.raises(RateLimitError):
        await budgeted(Paying([0.001], RateLimitError("too fast", status=429)), budget).execute(REQUEST)
    assert (await spent(budget), await reserved(budget)) == (pytest.approx(0.001), 0.0)


async def test_a_caller_who_is_cancelled_leaves_the_bound_reserved() -> None:
    budget = Budget(per_day=1.0)
    asked = asyncio.Event()

    async def wait(request: Request) -> str:
        asked.set()
        await asyncio.Event().wait()
        return "never"

    heard = Heard()
    with asking_as(heard.caller()):
        asking = asyncio.ensure_future(budgeted(ScriptedProvider(wait), budget).execute(REQUEST))
    await asked.wait()
    asking.cancel()
    await asyncio.wait([asking])
    assert await reserved(budget) == pytest.approx(BOUND, rel=0.1)
    assert heard.decisions == ["allowed", "held"]
    assert await budget.correct(str(heard.facts[-1]["call"]), 0.0)


# ---- streams


async def test_a_stream_that_is_read_to_its_end_costs_what_its_last_chunk_says() -> None:
    budget = Budget(per_day=1.0)
    model = budgeted(ScriptedProvider(["very well indeed"]), budget)
    said = [chunk.content async for chunk in model.execute_streaming(REQUEST)]
    assert "".join(said) == "very well indeed"
    assert (await spent(budget), await reserved(budget)) == (pytest.approx(0.00033), 0.0)


async def test_a_stream_that_is_left_costs_what_its_ledger_says_of_what_has_come() -> None:
    budget = Budget(per_day=1.0)
    async with aclosing(budgeted(Paying([0.0004]), budget).execute_streaming(REQUEST)) as chunks:
        await anext(chunks)
    assert (await spent(budget), await reserved(budget)) == (pytest.approx(0.0004), 0.0)


async def test_a_stream_that_is_left_where_nobody_keeps_a_ledger_stays_reserved() -> None:
    budget = Budget(per_day=1.0)
    async with aclosing(budgeted(ScriptedProvider(["a b c"]), budget).execute_streaming(REQUEST)) as chunks:
        await anext(chunks)
    assert await reserved(budget) == pytest.approx(BOUND, rel=0.1)


async def test_a_stream_that_breaks_in_the_middle_costs_what_its_ledger_says() -> None:
    budget = Budget(per_day=1.0)
    model = budgeted(Paying([0.0007], StreamInterruptedError("cut", partial="")), budget)
    with pytest.raises(StreamInterruptedError):
        _ = [chunk async for chunk in model.execute_streaming(REQUEST)]
    assert (await spent(budget), await reserved(budget)) == (pytest.approx(0.0007), 0.0)


async def test_a_stream_that_is_never_begun_reserves_nothing() -> None:
    budget = Budget(per_day=1.0)
    chunks = budgeted(ScriptedProvider(["a b c"]), budget).execute_streaming(REQUEST)
    await chunks.aclose()
    assert await budget.held() == ()


async def test_vectors_cost_what_their_texts_do() -> None:
    budget = Budget(per_day=1.0)
    model = budgeted(ScriptedProvider([]), budget)
    assert isinstance(model, EmbeddingProvider)
    found = await model.embed(EmbeddingRequest("e", ("two words", "three more words")))
    assert len(found.vectors) == 2
    assert await spent(budget) == pytest.approx(5 * 10 / 1e6)


async def test_what_the_provider_inside_cannot_do_the_budget_cannot() -> None:
    model = budgeted(Paying([]), Budget(per_day=1.0))
    with pytest.raises(UnsupportedError, match="no embeddings"):
        await model.embed(EmbeddingRequest("e", ("a",)))
    with pytest.raises(UnsupportedError, match="does not count"):
        await model.count_tokens(REQUEST)


# ---- refusals


async def test_a_call_for_which_there_is_no_room_is_not_made() -> None:
    inner = ScriptedProvider(["well"])
    clock = VirtualClock(start=1_700_000_000.0)
    budget = Budget(per_day=BOUND / 2, clock=clock, account="search")
    with pytest.raises(BudgetExceededError) as caught:
        await budgeted(inner, budget).execute(REQUEST)
    error = caught.value
    assert inner.requests == []
    assert (error.account, error.limit, error.spent, error.reserved) == ("search/day", BOUND / 2, 0, 0)
    assert error.needed == pytest.approx(BOUND, rel=0.1)
    assert error.resets_at == 1_700_006_400.0  # midnight, UTC
    assert error.retry_after == 6_400.0
    assert "raise the limit, lower max_tokens" in str(error)


async def test_a_hard_budget_refuses_what_it_cannot_bound_and_a_ceiling_bounds_it() -> None:
    unbounded = Request("m", (Message("user", "Hi"),))
    budget = Budget(per_day=1.0)
    with pytest.raises(UnboundedCostError, match="set max_tokens"):
        await budgeted(ScriptedProvider(["well"]), budget).execute(unbounded)
    seen: list[float] = []

    async def look(request: Request) -> str:
        seen.append(await reserved(budget))
        return "well"

    model = BudgetedProvider(ScriptedProvider(look), budget, price=RATES, ceiling=0.25)
    await model.execute(unbounded)
    assert seen == [0.25]


async def test_the_price_table_of_the_package_serves_models_that_it_knows() -> None:
    model = BudgetedProvider(ScriptedProvider(["well"], name="openai"), Budget(per_day=1.0))
    await model.execute(Request("gpt-4o", (Message("user", "Hi"),), max_tokens=10))
    assert 0 < await spent(model.budget) < 0.001


async def test_one_tenant_cannot_spend_what_is_anothers() -> None:
    budget = Budget(per_tenant=Allowance(per_day=1.5 * BOUND))
    model = budgeted(Paying([BOUND]), budget)
    for tenant in ("acme", "acme/day", None):
        with asking_as(Caller(tenant=tenant)):
            await model.execute(REQUEST)
            with pytest.raises(BudgetExceededError):
                await model.execute(REQUEST)
    names = [account.account for account in await budget.status()]
    assert names == ["budget/tenant:/day", "budget/tenant:acme%2Fday/day", "budget/tenant:acme/day"]


async def test_a_run_and_a_flow_have_accounts_of_their_own() -> None:
    budget = Budget(per_run=1.5 * BOUND, per_flow=Allowance(per_hour=3.5 * BOUND))
    model = budgeted(Paying([BOUND]), budget)
    for run in ("r1", "r2", "r3"):
        with asking_as(Caller(flow="article", run_id=run)):
            await model.execute(REQUEST)
            with pytest.raises(BudgetExceededError, match="never reset"):
                await model.execute(REQUEST)
    with asking_as(Caller(flow="article", run_id="r4")), pytest.raises(BudgetExceededError, match="flow:article/hour"):
        await model.execute(REQUEST)


async def test_a_call_outside_of_any_run_is_a_run_of_its_own() -> None:
    model = budgeted(Paying([BOUND]), Budget(per_run=1.5 * BOUND))
    for _ in range(3):
        await model.execute(REQUEST)
    with pytest.raises(BudgetExceededError):
        await budgeted(Paying([BOUND]), Budget(per_run=BOUND / 2)).execute(REQUEST)


async def test_providers_with_one_budget_spend_the_same_money() -> None:
    budget = Budget(per_day=2.5 * BOUND)
    first, second = budgeted(Paying([BOUND]), budget), budgeted(Paying([BOUND]), budget)
    await first.execute(REQUEST)
    await second.execute(REQUEST)
    with pytest.raises(BudgetExceededError):
        await first.execute(REQUEST)


def test_a_new_day_has_new_money_and_a_rolling_one_has_it_when_the_old_is_a_day_old() -> None:
    noon = 1_700_049_600.0

    async def day(budget: Budget, clock: VirtualClock) -> list[str]:
        model = budgeted(Paying([BOUND]), budget)
        tried = []
        for hours in (0, 13, 10.9, 0.5):
            await clock.sleep(hours * 3_600)
            try:
                await model.execute(REQUEST)
                tried.append("answered")
            except BudgetExceededError:
                tried.append("refused")
        return tried

    for window, expected in (
        ("calendar", ["answered", "answered", "refused", "refused"]),
        ("rolling", ["answered", "refused", "refused", "answered"]),
    ):
        clock = VirtualClock(start=noon)
        budget = Budget(per_day=1.5 * BOUND, window=cast("Any", window), clock=clock)
        assert clock.run(day(budget, clock)) == expected


# ---- soft budgets, and who is told


async def test_whoever_watches_is_told_what_was_reserved_and_what_it_cost() -> None:
    heard = Heard()
    with asking_as(heard.caller(tenant="acme")):
        await budgeted(ScriptedProvider(["very well indeed"]), Budget(per_day=1.0)).execute(REQUEST)
    allowed, settled = heard.facts
    assert heard.decisions == ["allowed", "settled"]
    assert {"model", "account", "reserved", "spent", "limit", "call", "reason", "tenant"} < set(allowed)
    assert (settled["cost"], settled["spent"]) == (pytest.approx(0.00033), pytest.approx(0.00033))
    assert settled["call"] == allowed["call"]


async def test_a_refusal_is_told_with_its_reason() -> None:
    heard = Heard()
    with asking_as(heard.caller()), pytest.raises(BudgetExceededError):
        await budgeted(ScriptedProvider(["well"]), Budget(per_day=BOUND / 2)).execute(REQUEST)
    [refused] = heard.facts
    assert (refused["decision"], refused["account"], refused["limit"]) == ("refused", "budget/day", BOUND / 2)


async def test_a_threshold_is_told_once_when_it_is_passed() -> None:
    heard = Heard()
    budget = Budget(per_day=10 * BOUND, soft=[0.25, 0.5])
    model = budgeted(Paying([BOUND]), budget)
    with asking_as(heard.caller()):
        for _ in range(9):
            await model.execute(REQUEST)
    warned = [facts["reason"] for facts in heard.facts if facts["decision"] == "warned"]
    assert warned == ["25% of the limit are spent", "50% of the limit are spent"]


async def test_a_soft_budget_lets_everything_through_and_says_when_it_is_spent() -> None:
    heard = Heard()
    budget = Budget(per_day=1.5 * BOUND, mode="soft")
    model = budgeted(Paying([BOUND]), budget)
    with asking_as(heard.caller()):
        for _ in range(3):
            await model.execute(REQUEST)
        await model.execute(Request("m", (Message("user", "Hi"),)))  # nothing bounds it
    warned = [facts["reason"] for facts in heard.facts if facts["decision"] == "warned"]
    assert warned == ["100% of the limit are spent"]
    assert "unbounded" in heard.decisions
    assert await spent(budget) == pytest.approx(4 * BOUND)


async def test_a_cost_above_its_bound_is_told_and_counts_in_full() -> None:
    heard = Heard()
    budget = Budget(per_day=1.0)
    with asking_as(heard.caller()):
        await budgeted(Paying([0.9]), budget).execute(REQUEST)
    assert heard.decisions == ["allowed", "settled", "overrun", "warned"]
    assert await spent(budget) == 0.9


async def test_what_stays_reserved_is_told_with_the_id_to_put_it_right() -> None:
    heard = Heard()
    budget = Budget(per_day=1.0)
    with asking_as(heard.caller()), pytest.raises(ServerError):
        await budgeted(ScriptedProvider([ServerError("down", status=500)]), budget).execute(REQUEST)
    assert heard.decisions == ["allowed", "held"]
    assert await budget.correct(str(heard.facts[-1]["call"]), 0.0)


# ---- a store that does not answer


class Gone(MemoryAccounts):
    """A store that is away while it is told to be, but for what it is to settle soon."""

    away = True

    async def reserve(self, call: str, amount: int, charges: Sequence[Charge], *, now: float, lease: float) -> Verdict:
        if self.away:
            raise BudgetUnavailableError("budget", "no answer")
        return await super().reserve(call, amount, charges, now=now, lease=lease)

    async def settle(self, call: str, amount: int, *, now: float) -> tuple[Standing, ...]:
        if self.away:
            raise BudgetUnavailableError("budget", "no answer")
        return await super().settle(call, amount, now=now)


async def test_a_store_that_does_not_answer_stops_a_hard_budget_and_not_a_soft_one() -> None:
    heard = Heard()
    inner = ScriptedProvider(lambda request: "well")
    with asking_as(heard.caller()), pytest.raises(BudgetUnavailableError):
        await budgeted(inner, Budget(per_day=1.0, store=Gone())).execute(REQUEST)
    assert (inner.requests, heard.decisions) == ([], ["refused"])
    await budgeted(inner, Budget(per_day=1.0, store=Gone(), mode="soft")).execute(REQUEST)
    assert len(inner.requests) == 1


async def test_an_answer_is_not_lost_where_its_settlement_cannot_be_told_now() -> None:
    store = Gone()
    store.away = False
    budget = Budget(per_day=1.0, store=store)

    async def leave(request: Request) -> str:
        store.away = True
        return "very well indeed"

    answer = await budgeted(ScriptedProvider(leave), budget).execute(REQUEST)
    assert answer.text == "very well indeed"
    assert await spent(budget) == pytest.approx(0.00033)


class Slow(MemoryAccounts):
    """A store that has decided, but whose answer is still on its way."""

    async def reserve(self, call: str, amount: int, charges: Sequence[Charge], *, now: float, lease: float) -> Verdict:
        await super().reserve(call, amount, charges, now=now, lease=lease)
        return await asyncio.get_running_loop().create_future()


async def test_a_caller_who_is_cancelled_while_it_is_reserved_leaves_nothing_behind() -> None:
    budget = Budget(per_day=1.0, store=Slow())
    asking = asyncio.ensure_future(budgeted(ScriptedProvider(["well"]), budget).execute(REQUEST))
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait([asking])
    assert await budget.held() == ()


# ---- never exceeded


Outcome = Callable[[float], Awaitable[float | None]]


@dataclass
class Dice:
    """A model that costs any part of its bound, fails, hangs or is left: as a list of numbers says."""

    rolls: list[tuple[str, float]]
    name: str = "dice"
    costs: int = 0  # 1e-9 dollars, as they were noted
    most: int = 0

    async def execute(self, request: Request) -> Response:
        kind, share = self.rolls.pop()
        for _ in range(int(share * 5)):
            await asyncio.sleep(0)
        if kind == "refused":
            raise RateLimitError("too fast", status=429)
        if kind == "broken":
            raise ServerError("down", status=500)
        if kind == "hangs":
            await asyncio.Event().wait()
        cost = share * 0.0100
        self.costs += math.ceil(cost * NANO - 1e-4)
        for ledger in current_caller().ledgers:
            ledger.spend(1, cost)
        return Response("", "m", self.name, cost=cost)

    def execute_streaming(self, request: Request) -> AsyncGenerator[StreamChunk, None]:
        raise NotImplementedError

    async def aclose(self) -> None: ...


KINDS = st.sampled_from(["answered", "answered", "answered", "refused", "broken", "hangs"])


@given(st.lists(st.tuples(KINDS, st.floats(0, 1)), min_size=1, max_size=40), st.integers(1, 20))
def test_a_hard_budget_is_never_exceeded_and_the_account_is_the_sum_of_what_calls_have_cost(
    rolls: list[tuple[str, float]], room: int
) -> None:
    """Any number of concurrent calls that end in any way. When all is over the account holds the sum of the costs, and
    for each call of unknown cost its bound."""
    clock = VirtualClock()

    async def main() -> None:
        budget = Budget(per_day=room * BOUND, clock=clock)
        dice = Dice(list(rolls))
        model = budgeted(dice, budget)

        async def one() -> None:
            try:
                async with asyncio.timeout(5):
                    await model.execute(REQUEST)
            except (ModelError, BudgetExceededError, TimeoutError):
                pass
            [*accounts] = await budget.status()
            assert all(account.spent + account.reserved <= account.limit for account in accounts)

        await asyncio.gather(*[one() for _ in rolls])
        held = await budget.held()
        assert round(await spent(budget) * NANO) == dice.costs
        assert round(await reserved(budget) * NANO) == sum(each.amount for each in held)
        await clock.sleep(1_000)  # their leases lapse
        assert round(await spent(budget) * NANO) == dice.costs + sum(each.amount for each in held)

    clock.run(main())


# ---- arguments


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({}, "without a limit"),
        ({"per_day": 0.0}, "per_day is above 0"),
        ({"per_day": math.nan}, "per_day is above 0"),
        ({"per_run": 1e9}, "per_run is above 0 and at most 1,000,000"),
        ({"per_day": 1.0, "soft": 1.5}, "soft are fractions"),
        ({"per_day": 1.0, "lease": 0.0}, "lease is a number of seconds"),
        ({"per_day": 1.0, "account": ""}, "account is a name"),
        ({"per_day": 1.0, "time_zone": "Mars"}, "no time zone 'Mars'"),
    ],
)
def test_what_cannot_be_is_a_configuration_error(said: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        Budget(**said)


def test_no_file_is_made_before_the_first_call(tmp_path: Path) -> None:
    budgeted(ScriptedProvider([]), Budget(per_day=1.0, store=tmp_path / "budget.db"))
    assert list(tmp_path.iterdir()) == []
