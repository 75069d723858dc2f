"""When a batch is sent, what goes into it, how long it will take, and what each pays: decisions without a loop."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Awaitable, Sequence
from contextvars import Context
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.core.limits import Ledger, Limits
from agentflow.core.robustness.load_shedder import Priority
from agentflow.errors import (
    BadRequestError,
    ConfigurationError,
    ContextLengthError,
    ModelTimeoutError,
    RateLimitError,
    ServerError,
)
from agentflow.llm.caller import Caller
from agentflow.llm.messages import EmbeddingRequest, Embeddings, Usage
from agentflow.mcp.performance.batching.bisecting import answers_of, by_itself, lies_in_one
from agentflow.mcp.performance.batching.item import Item
from agentflow.mcp.performance.batching.line import Line
from agentflow.mcp.performance.batching.merging import divided, joined, merged, parted, tokens_of
from agentflow.mcp.performance.batching.portions import BatchBill, portions
from agentflow.mcp.performance.batching.rules import BatchRules, Gathered, decide
from agentflow.mcp.performance.batching.service_time import ServiceTime

RULES = BatchRules(max_size=8, max_tokens=100, latency_budget=0.1, in_flight=2)


# ---- when


@pytest.mark.parametrize(
    ("gathered", "under_way", "draining", "reason", "wait"),
    [
        (Gathered(0, 0, math.inf), 0, False, None, None),
        (Gathered(1, 1, 5.0), 0, False, "idle", None),
        (Gathered(1, 1, 5.0), 1, False, None, 0.7),  # 5.0 - 0.3 - 4.0
        (Gathered(1, 1, 4.3), 1, False, "deadline", None),
        (Gathered(1, 1, 3.0), 1, False, "deadline", None),
        (Gathered(8, 8, 5.0), 1, False, "full", None),
        (Gathered(2, 100, 5.0), 1, False, "tokens", None),
        (Gathered(8, 100, 3.0), 2, False, None, None),  # as many are under way as may be
        (Gathered(1, 1, 5.0), 1, True, "drain", None),
    ],
)
def test_a_batch_is_sent_when_it_is_full_due_or_nothing_else_is_under_way(
    gathered: Gathered, under_way: int, draining: bool, reason: str | None, wait: float | None
) -> None:
    verdict = decide(RULES, gathered, under_way, 0.3, 4.0, draining=draining)
    assert verdict.reason == reason
    assert verdict.wait == (None if wait is None else pytest.approx(wait))


@pytest.mark.parametrize("said", [{"max_size": 0}, {"max_tokens": 0}, {"in_flight": 0}, {"latency_budget": -1.0}])
def test_rules_that_cannot_be_are_configuration_errors(said: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(said))):
        BatchRules(**said)


# ---- who


class Waits:
    """A future that a test can make without a loop."""

    def __init__(self) -> None:
        self.over = False

    def done(self) -> bool:
        return self.over


def item(
    name: str, tenant: str | None = None, size: int = 1, tokens: int = 10, priority: Priority = Priority.NORMAL
) -> Item[str, str]:
    caller = Caller(tenant=tenant, priority=priority)
    longest = -(-tokens // size)
    waiter: Any = Waits()
    return Item(name, size, tokens, longest, caller, 0.0, 1.0, waiter, Context())


def line_of(*items: Item[str, str]) -> Line[str, str]:
    line: Line[str, str] = Line()
    for each in items:
        line.push(each)
    return line


def names(batch: Sequence[Item[str, str]]) -> list[str]:
    return [each.payload for each in batch]


def test_tenants_take_turns_whoever_came_first() -> None:
    line = line_of(*[item(f"a{n}", "ann") for n in range(6)], *[item(f"b{n}", "bob") for n in range(2)])
    assert names(line.take(BatchRules(max_size=5))) == ["a0", "b0", "a1", "b1", "a2"]
    assert names(line.take(BatchRules(max_size=5))) == ["a3", "a4", "a5"]
    assert len(line) == 0


def test_turns_are_counted_in_tokens() -> None:
    """Whoever asks for three times as much is served a third as often."""
    large = [item(f"a{n}", "ann", tokens=30) for n in range(20)]
    small = [item(f"b{n}", "bob", tokens=10) for n in range(20)]
    taken = line_of(*large, *small).take(BatchRules(max_size=16))
    counts = Counter(each.caller.tenant for each in taken)
    assert counts == {"bob": 12, "ann": 4}


def test_who_comes_back_after_a_pause_has_saved_nothing_up() -> None:
    line = line_of(*[item(f"a{n}", "ann") for n in range(20)])
    line.take(BatchRules(max_size=10))
    for number in range(10):
        line.push(item(f"b{number}", "bob"))
    assert Counter(each.caller.tenant for each in line.take(BatchRules(max_size=8))) == {"ann": 4, "bob": 4}


def test_what_is_more_important_goes_first() -> None:
    line = line_of(item("low", priority=Priority.LOW), item("normal"), item("high", priority=Priority.HIGH))
    assert names(line.take(BatchRules(max_size=2))) == ["high", "normal"]


def test_what_is_larger_than_a_batch_goes_alone_and_is_not_passed_over_for_ever() -> None:
    line = line_of(item("huge", "ann", size=50, tokens=500), *[item(f"b{n}", "bob") for n in range(3)])
    assert names(line.take(BatchRules(max_size=8, max_tokens=100))) == ["huge"]
    assert names(line.take(BatchRules(max_size=8, max_tokens=100))) == ["b0", "b1", "b2"]


def test_where_the_server_pads_inputs_of_a_length_go_together() -> None:
    line = line_of(*[item(f"{tokens}-{n}", tokens=tokens) for n in range(3) for tokens in (10, 100)])
    padded = BatchRules(max_size=8, padded=True)
    assert names(line.take(padded)) == ["10-0", "10-1", "10-2"]
    assert names(line.take(padded)) == ["100-0", "100-1", "100-2"]


@given(
    st.lists(
        st.tuples(st.sampled_from(["ann", "bob", "eve", None]), st.integers(1, 5), st.integers(1, 60)), max_size=40
    ),
    st.integers(1, 10),
    st.none() | st.integers(1, 100),
    st.booleans(),
    st.sets(st.integers(0, 39)),
)
def test_everything_is_taken_once_in_batches_within_their_limits(
    asked: list[tuple[str | None, int, int]], max_size: int, max_tokens: int | None, padded: bool, leaving: set[int]
) -> None:
    rules = BatchRules(max_size=max_size, max_tokens=max_tokens, padded=padded)
    items = [item(str(number), tenant, size, tokens) for number, (tenant, size, tokens) in enumerate(asked)]
    line = line_of(*items)
    left = [each for number, each in enumerate(items) if number in leaving]
    for each in left:
        line.remove(each)
    taken: list[Item[str, str]] = []
    while len(line):
        batch = line.take(rules)
        size, tokens = sum(each.size for each in batch), sum(each.tokens for each in batch)
        weight = max(each.longest for each in batch) * size if padded else tokens
        assert len(batch) == 1 or (size <= max_size and weight <= (max_tokens or math.inf))
        taken += batch
    assert sorted(names(taken), key=int) == [each.payload for each in items if each not in left]
    assert line.gathered(rules) == Gathered(0, 0, math.inf)


@given(st.lists(st.integers(5, 40), min_size=2, max_size=6))
def test_while_all_wait_they_are_served_alike_however_much_each_has_asked_for(counts: list[int]) -> None:
    """Jain's index of what tenants got, at any time before the first has nothing left: at least 0.98 from the fourth
    round on."""
    line = line_of(*[item(f"{who}-{n}", str(who)) for who, count in enumerate(counts) for n in range(count)])
    served: Counter[str] = Counter({str(who): 0 for who in range(len(counts))})
    while all(served[str(who)] < count for who, count in enumerate(counts)):
        for each in line.take(BatchRules(max_size=len(counts) + 1)):
            served[str(each.caller.tenant)] += 1
        got = list(served.values())
        if all(served[str(who)] < count for who, count in enumerate(counts)):
            assert max(got) - min(got) <= 1
            assert min(got) < 4 or sum(got) ** 2 / (len(got) * sum(each**2 for each in got)) >= 0.98


# ---- how long


def test_what_batches_take_is_learned_by_their_size_and_old_times_fade() -> None:
    times = ServiceTime()
    assert times.expected(100) == 0.0
    times.learn(100, 1.0)
    assert times.expected(100) == times.expected(70) == 1.0
    times.learn(100, 2.0)
    assert times.expected(100) == pytest.approx(1.2)
    assert times.expected(200) == pytest.approx(2.4)  # twice as much takes at most twice as long
    assert times.expected(10) == pytest.approx(1.2)  # and less takes no longer
    for _ in range(40):
        times.learn(100, 3.0)
    assert times.expected(100) == pytest.approx(3.0, rel=0.01)


# ---- who pays


@given(st.integers(0, 10_000), st.lists(st.integers(0, 500), min_size=1, max_size=20))
def test_portions_add_up_and_are_within_one_of_what_is_right(amount: int, weights: list[int]) -> None:
    made = portions(amount, weights)
    assert sum(made) == amount
    whole = sum(weights) or len(weights)
    for portion, weight in zip(made, weights, strict=True):
        right = amount * (weight if sum(weights) else 1) / whole
        assert abs(portion - right) < 1


def test_the_bill_of_a_batch_is_divided_among_those_who_asked() -> None:
    bill = BatchBill()
    ledgers = [Ledger(Limits()) for _ in range(3)]
    bill.request()
    bill.spend(90, 0.9)
    bill.divide([(ledgers[0],), (ledgers[1], ledgers[2])], [1, 2])
    assert [(each.requests, each.tokens, round(each.dollars, 9)) for each in ledgers] == [
        (1, 30, 0.3),
        (1, 60, 0.6),
        (1, 60, 0.6),
    ]


def test_a_bill_of_unknown_cost_is_unknown_to_each() -> None:
    bill, ledger = BatchBill(), Ledger(Limits(dollars=5.0))
    bill.request()
    bill.spend(90, None)
    bill.divide([(ledger,)], [1])
    assert (ledger.tokens, ledger._unpriced) == (90, True)


# ---- one bad request


def send_to(bad: set[int], sent: list[list[int]]) -> Any:
    async def send(asked: Sequence[int]) -> Sequence[int | Exception]:
        sent.append(list(asked))
        if bad & set(asked):
            raise BadRequestError("no")
        return [number * 10 for number in asked]

    return send


def run(work: Awaitable[Any]) -> Any:
    async def main() -> Any:
        return await work

    return asyncio.run(main())


@given(st.integers(1, 64), st.sets(st.integers(0, 63), max_size=4))
def test_bad_requests_fail_alone_and_are_found_in_logarithmically_many_calls(count: int, bad: set[int]) -> None:
    bad = {each for each in bad if each < count}
    sent: list[list[int]] = []
    answers = run(answers_of(range(count), send_to(bad, sent), lies_in_one))
    for number, answer in enumerate(answers):
        assert isinstance(answer, BadRequestError) if number in bad else answer == number * 10
    assert len(sent) <= 1 + 2 * len(bad) * math.ceil(math.log2(count) if count > 1 else 0)


@pytest.mark.parametrize(
    ("error", "one"),
    [
        (BadRequestError("no", status=400), True),
        (ContextLengthError("long", status=400), True),
        (ValueError("no tensor of that shape"), True),
        (RateLimitError("slow", status=429), False),
        (ServerError("down", status=500), False),
        (ModelTimeoutError("total", 1.0), False),
        (OSError("no route"), False),
    ],
)
def test_only_what_may_lie_in_one_request_is_looked_for(error: Exception, one: bool) -> None:
    assert lies_in_one(error) is one


def test_each_of_several_has_an_error_of_his_own() -> None:
    error = RateLimitError("slow", status=429, retry_after=3.0)
    own = by_itself(error)
    assert own is not error
    assert (type(own), str(own), own.__dict__) == (RateLimitError, str(error), error.__dict__)


# ---- merging


TEXTS = st.lists(st.text(max_size=8), min_size=1, max_size=12)


@given(st.lists(TEXTS, min_size=1, max_size=8))
def test_vectors_of_merged_requests_come_back_to_those_who_asked(asked: list[list[str]]) -> None:
    requests = [EmbeddingRequest("m", tuple(texts)) for texts in asked]
    one = merged(requests)
    found = Embeddings(tuple((float(at),) for at, _ in enumerate(one.inputs)), "m", "p", Usage(101), cost=1.0)
    answers = [answer for answer in parted(found, requests) if isinstance(answer, Embeddings)]
    assert [len(answer.vectors) for answer in answers] == [len(request.inputs) for request in requests]
    assert [vector for answer in answers for vector in answer.vectors] == list(found.vectors)
    assert sum(answer.usage.input_tokens for answer in answers if answer.usage) == 101
    assert math.fsum(answer.cost or 0 for answer in answers) == pytest.approx(1.0)


@given(TEXTS, st.integers(1, 5), st.none() | st.integers(1, 6), st.booleans())
def test_a_large_request_is_divided_into_pieces_that_fit_and_joined_again(
    texts: list[str], max_size: int, max_tokens: int | None, padded: bool
) -> None:
    rules = BatchRules(max_size=max_size, max_tokens=max_tokens, padded=padded)
    request = EmbeddingRequest("m", tuple(texts))
    pieces = divided(request, rules)
    assert [text for piece in pieces for text in piece.inputs] == texts
    for piece in pieces:
        counts = tokens_of(piece)
        assert len(counts) == 1 or rules.fits(len(counts), rules.weight(sum(counts), max(counts), len(counts)))
    found = [Embeddings(tuple((1.0,) for _ in piece.inputs), "m", "p", Usage(2), cost=0.5) for piece in pieces]
    whole = joined(found)
    assert len(whole.vectors) == len(texts)
    assert whole.usage == Usage(2 * len(pieces))
    assert whole.cost == 0.5 * len(pieces)
