"""Requests that come at about the same time, sent as one: by a clock that jumps, to a server that counts."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.batch_server import BatchServer
from tests.support.bench import Bench
from tests.support.memory_durability import MemoryDurability

from agentflow import AsyncFlow, SharedState, node
from agentflow.clock import VirtualClock
from agentflow.core.limits import Ledger, Limits
from agentflow.core.observability.scope import Scope
from agentflow.errors import (
    BadRequestError,
    ConfigurationError,
    LimitExceededError,
    ModelTimeoutError,
    ProtocolError,
    RateLimitError,
    ServerError,
    UnsupportedError,
)
from agentflow.llm.caller import Caller, asking_as, current_caller
from agentflow.llm.messages import EmbeddingRequest, Embeddings, Message, Request, Response, Usage
from agentflow.llm.providers.base import EmbeddingProvider
from agentflow.llm.providers.scripted import ScriptedProvider
from agentflow.llm.wrapped_models import provider_of
from agentflow.mcp.performance.batching import BatchingProvider, RequestBatcher

Test = Callable[[RequestBatcher, BatchServer], Awaitable[None]]


def chat(text: str, **said: Any) -> Request:
    return Request("m", (Message("user", text),), **said)


def texts(*inputs: str, **said: Any) -> EmbeddingRequest:
    return EmbeddingRequest("e", inputs, **said)


def bench(test: Test, server: dict[str, Any] | None = None, **rules: Any) -> BatchServer:
    """Run a test in virtual time, and see that nothing is left behind."""
    clock = VirtualClock()
    made = BatchServer(clock, **(server or {}))

    async def main() -> None:
        batcher = RequestBatcher(made, clock=clock, **rules)
        await test(batcher, made)
        await batcher.aclose()
        assert made.at_once == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}

    clock.run(main())
    return made


def sizes(server: BatchServer) -> list[int]:
    return [len(batch) for batch in server.batches]


@dataclass
class Heard:
    """Whoever watches: the `batch` events of one run."""

    facts: list[dict[str, object]] = field(default_factory=list)

    async def send(self, kind: str, facts: dict[str, object]) -> None:
        assert kind == "batch"
        self.facts.append(facts)

    def caller(self, **said: Any) -> Caller:
        return Caller(scope=cast("Scope", self), **said)


# ---- when


def test_while_nothing_is_under_way_a_request_goes_at_once() -> None:
    async def test(batcher: RequestBatcher, server: BatchServer) -> None:
        for _ in range(3):
            begun = server.clock.monotonic()
            await batcher.execute(chat("hi"))
            assert server.clock.monotonic() - begun == pytest.approx(0.011)

    assert sizes(bench(test)) == [1, 1, 1]


def test_what_is_asked_at_the_same_time_goes_together() -> None:
    async def test(batcher: RequestBatcher, server: BatchServer) -> None:
        answers = await asyncio.gather(*[batcher.execute(chat(str(n))) for n in range(20)])
        assert [answer.text for answer in answers] == [f"re {n}" for n in range(20)]

    assert sizes(bench(test)) == [20]


def test_what_comes_while_the_server_is_busy_gathers_until_it_is_back() -> None:
    async def test(batcher: RequestBatcher, server: BatchServer) -> None:
        first = asyncio.ensure_future(batcher.execute(chat("first")))
        await server.clock.sleep(0.001)
        rest = []
        for number in range(5):
            rest.append(asyncio.ensure_future(batcher.execute(chat(str(number)))))
            await server.clock.sleep(0.001)
        await asyncio.gather(first, *rest)

    server = bench(test, latency_budget=1.0)
    assert server.batches == [["first"], ["0", "1", "2", "3", "4"]]
    assert server.began[1] == pytest.approx(0.011, abs=1e-5)


def test_a_batch_that_is_full_does_not_wait_for_the_one_before() -> None:
    async def test(batcher: RequestBatcher, server: BatchServer) -> None:
        await asyncio.gather(*[batcher.execute(chat(str(n))) for n in range(10)])

    server = bench(test, server={"devices": 4}, max_size=4, latency_budget=1.0)
    assert sizes(server) == [4, 4, 2]
    assert server.began[:2] == [0.0, 0.0]
    assert server.began[2] > 0.01  # it is not full: it waits for a batch to come back


def test_no_more_batches_are_under_way_than_may_be() -> None:
    async def test(batcher: RequestBatcher, server: BatchServer) -> None:
        await asyncio.gather(*[batcher.execute(chat(str(n))) for n in range(40)])

    server = bench(test, server={"devices": 9}, max_size=4, in_flight=3)
    assert (server.most_at_once, sum(sizes(server))) == (3, 40)


def test_what_waits_goes_in_time_for_its_latency_budget_by_what_batches_have_taken() -> None:
    """A long batch is under way. The second request has 50 ms, of which a batch takes about 10: it goes after 40."""

    async def test(batcher: RequestBatcher, server: BatchServer) -> None:
        await batcher.execute(chat("learn"))
        server.base = 1.0
        long = asyncio.ensure_future(batcher.execute(chat("long")))
        await server.clock.sleep(0.001)
        server.base = 0.010
        asked = server.clock.monotonic()
        await batcher.execute(chat("short"))
        assert 0.045 < server.clock.monotonic() - asked <= 0.0501
        await long

    server = bench(test, server={"devices": 2}, latency_budget=0.05)
    assert server.batches == [["learn"], ["long"], ["short"]]


def test_tokens_bound_a_batch_too() -> None:
    async def test(batcher: RequestBatcher, server: BatchServer) -> None:
        await asyncio.gather(*[batcher.embed(texts("x" * 40)) for _ in range(5)])

    assert sizes(bench(test, max_tokens=20)) == [2, 2, 1]


def test_closing_sends_what_waits_and_waits_for_the_answers() -> None:
    heard = Heard()

    async def test(batcher: RequestBatcher, server: BatchServer) -> None:
        with asking_as(heard.caller()):
            asked = [asyncio.ensure_future(batcher.execute(chat(str(n)))) for n in range(3)]
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            asked += [asyncio.ensure_future(batcher.execute(chat(str(n)))) for n in range(3, 6)]
            await asyncio.sleep(0)
        await batcher.aclose()
        assert all(each.done() for each in asked)
        assert server.closed == 1

    server = bench(test, server={"devices": 2}, latency_budget=10.0)
    assert sizes(server) == [3, 3]
    assert [facts["reason"] for facts in heard.facts] == ["idle", "drain"]


# ---- what is told


def test_whoever_watches_is_told_of_each_batch_once_a_run() -> None:
    one, two = Heard(), Heard()

    async def test(batcher: RequestBatcher, server: BatchServer) -> None:
        asked = []
        for number in range(6):
            run = one.caller(run_id="r1") if number % 2 else two.caller(run_id="r2")
            with asking_as(run):
                asked.append(asyncio.ensure_future(batcher.execute(chat("four"))))
        await asyncio.gather(*asked)

    bench(test)
    assert one.facts == two.facts == [{"model": "m", "size": 6, "reason": "idle", "tokens": 30, "waited": 0.0}]


# ---- embeddings


def test_embeddings_are_merged_and_everyone_gets_his_own_vectors_and_his_part_of_the_cost() -> None:
    async def test(batcher: RequestBatcher, server: BatchServer) -> None:
        assert isinstance(batcher, EmbeddingProvider)
        found = await asyncio.gather(*[batcher.embed(texts("a" * n, "b")) for n in range(1, 5)])
        for number, answer in enumerate(found, 1):
            assert [vector[0] for vector in answer.vectors] == [number, 1]
        assert sum(answer.usage.input_tokens for answer in found if answer.usage) == 14
        assert sum(answer.cost or 0 for answer in found) == pytest.approx(0.014)

    assert sizes(bench(test)) == [8]


def test_only_what_is_alike_is_merged() -> None:
    async def test(batcher: RequestBatcher, server: BatchServer) -> None:
        await asyncio.gather(
            batcher.embed(texts("a")),
            batcher.embed(texts("b", dimensions=8)),
            batcher.embed(texts("c", params={"task": "query"})),
            batcher.embed(texts("d", params={"task": "query"})),
        )

    assert sorted(bench(test).batches) == [["a"], ["b"], ["c", "d"]]


def test_a_request_with_more_texts_than_a_batch_takes_is_divided() -> None:
    async def test(batcher: RequestBatcher, server: BatchServer) -> None:
        found = await batcher.embed(texts(*["x" * n for n in range(10)]))
        assert [vector[0] for vector in found.vectors] == list(range(10))
        assert found.usage == Usage(45)

    assert sizes(bench(test, max_size=4)) == [4, 4, 2]


def test_a_divided_request_whose_text_is_bad_fails_and_the_rest_of_it_is_called_off() -> None:
    async def test(batcher: RequestBatcher, server: BatchServer) -> None:
        other = asyncio.ensure_future(batcher.embed(texts("good")))
        with pytest.raises(BadRequestError):
            await batcher.embed(texts("bad", *["x"] * 30))
        assert len((await other).vectors) == 1

    server = bench(test, max_size=4, in_flight=1)
    assert sum(sizes(server)) < 31


@pytest.mark.parametrize("durable", [False, True])
def test_in_a_durable_step_each_request_is_a_call_of_its_own_that_the_journal_keeps(
    tmp_path: Path, durable: bool
) -> None:
    provider = ScriptedProvider([])
    yml = "models:\n  v: {provider: toy, price: {input: 1, output: 1}, batch: {max_size: 8}}\n"
    made = Bench(tmp_path, {"toy": provider}, yml)
    ask_for = list("abc")

    async def vector(text: str) -> None:
        await made.ask("v").embed([text])

    @node
    async def ask(state: SharedState) -> None:
        await asyncio.gather(*[vector(text) for text in ask_for])

    more: dict[str, Any] = {"durability": MemoryDurability(made.clock)} if durable else {}
    made.run(AsyncFlow(ask, name="f", **more).run({}))
    assert sorted(map(len, provider.embedded)) == ([1, 1, 1] if durable else [3])


def test_a_request_without_texts_has_no_vectors() -> None:
    async def test(batcher: RequestBatcher, server: BatchServer) -> None:
        assert (await batcher.embed(texts())).vectors == ()

    bench(test)


def test_what_waits_when_the_registry_is_closed_is_answered_before_its_provider_is(tmp_path: Path) -> None:
    class Closing(ScriptedProvider):
        closed = False

        async def embed(self, request: EmbeddingRequest) -> Embeddings:
            assert not self.closed
            await asyncio.sleep(0.01)
            return await super().embed(request)

        async def aclose(self) -> None:
            self.closed = True

    provider = Closing([])
    yml = "models:\n  v: {provider: toy, price: {input: 1, output: 1}, batch: {latency_budget: 10}}\n"
    made = Bench(tmp_path, {"toy": provider}, yml)

    async def main() -> None:
        asked = [asyncio.ensure_future(made.ask("v").embed([text])) for text in "ab"]
        await asyncio.sleep(0.001)
        asked += [asyncio.ensure_future(made.ask("v").embed([text])) for text in "cd"]
        await asyncio.sleep(0.001)
        await made.registry.aclose()
        assert [len(each.result()) for each in asked] == [1] * 4

    made.run(main())
    assert provider.embedded == [("a", "b"), ("c", "d")]
    assert provider.closed


# ---- one bad request


@pytest.mark.parametrize("tells", [True, False], ids=["told apart", "found by halving"])
def test_one_bad_request_fails_alone(tells: bool) -> None:
    async def test(batcher: RequestBatcher, server: BatchServer) -> None:
        asked = [batcher.execute(chat("bad" if n == 11 else str(n))) for n in range(16)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert [n for n, answer in enumerate(answers) if isinstance(answer, BadRequestError)] == [11]
        assert [answer.text for answer in answers if isinstance(answer, Response)] == [
            f"re {n}" for n in range(16) if n != 11
        ]

    server = bench(test, server={"tells": tells})
    assert len(server.batches) == (1 if tells else 1 + 2 * 4)


def test_those_who_are_found_to_be_good_do_not_wait_for_the_rest_of_the_search() -> None:
    async def test(batcher: RequestBatcher, server: BatchServer) -> None:
        asked = [asyncio.ensure_future(batcher.execute(chat("bad" if n == 7 else str(n)))) for n in range(8)]
        await asked[0]
        assert not asked[6].done()
        await asyncio.wait(asked)

    bench(test)


def test_an_error_that_is_everybodys_is_raised_by_everyone_at_once() -> None:
    async def test(batcher: RequestBatcher, server: BatchServer) -> None:
        asked = [batcher.execute(chat(f"bad {n}")) for n in range(4)]
        errors = await asyncio.gather(*asked, return_exceptions=True)
        assert all(isinstance(error, RateLimitError) for error in errors)
        assert len(set(map(id, errors))) == 4

    server = bench(test, server={"error": lambda: RateLimitError("slow", status=429)})
    assert len(server.batches) == 1


def test_a_caller_may_say_which_errors_lie_in_one_request() -> None:
    async def test(batcher: RequestBatcher, server: BatchServer) -> None:
        asked = [batcher.execute(chat("bad" if n == 1 else str(n))) for n in range(4)]
        errors = await asyncio.gather(*asked, return_exceptions=True)
        assert [isinstance(error, ServerError) for error in errors] == [False, True, False, False]

    bench(
        test,
        server={"error": lambda: ServerError("it fell over", status=500)},
        bisects=lambda error: isinstance(error, ServerError),
    )


def test_too_few_answers_are_nobodys() -> None:
    class Short(BatchServer):
        async def execute_many(self, requests: Sequence[Request]) -> Sequence[Response | Exception]:
            return (await super().execute_many(requests))[1:]

    async def main() -> None:
        batcher = RequestBatcher(Short(clock), clock=clock)
        errors = await asyncio.gather(*[batcher.execute(chat("a")) for _ in range(2)], return_exceptions=True)
        assert [type(error) for error in errors] == [ProtocolError] * 2

    clock = VirtualClock()
    clock.run(main())


# ---- callers who leave, and time


def test_who_is_cancelled_before_it_is_sent_is_taken_out() -> None:
    async def test(batcher: RequestBatcher, server: BatchServer) -> None:
        first = asyncio.ensure_future(batcher.execute(chat("first")))
        await server.clock.sleep(0.001)
        rest = [asyncio.ensure_future(batcher.execute(chat(str(n)))) for n in range(3)]
        await asyncio.sleep(0)
        rest[1].cancel()
        await asyncio.wait([first, *rest])
        assert rest[1].cancelled()

    assert bench(test).batches == [["first"], ["0", "2"]]


def test_who_is_cancelled_under_way_leaves_the_others_their_answers() -> None:
    async def test(batcher: RequestBatcher, server: BatchServer) -> None:
        asked = [asyncio.ensure_future(batcher.execute(chat(str(n)))) for n in range(3)]
        await server.clock.sleep(0.001)
        asked[1].cancel()
        await asyncio.wait(asked)
        assert [each.cancelled() for each in asked] == [False, True, False]
        assert server.cancelled == 0

    bench(test)


def test_a_batch_that_nobody_waits_for_any_more_is_called_off() -> None:
    async def test(batcher: RequestBatcher, server: BatchServer) -> None:
        asked = [asyncio.ensure_future(batcher.execute(chat(str(n)))) for n in range(3)]
        await server.clock.sleep(0.001)
        for each in asked:
            each.cancel()
        await asyncio.wait(asked)
        await asyncio.sleep(0)
        assert server.cancelled == 1
        await batcher.execute(chat("and on"))

    bench(test)


def test_each_has_an_eye_on_its_own_time() -> None:
    async def test(batcher: RequestBatcher, server: BatchServer) -> None:
        hasty = asyncio.ensure_future(batcher.embed(texts("a", timeout=0.5)))
        patient = asyncio.ensure_future(batcher.embed(texts("b", timeout=60.0)))
        with pytest.raises(ModelTimeoutError, match="total"):
            await hasty
        assert len((await patient).vectors) == 1

    assert sizes(bench(test, server={"base": 5.0})) == [2]


def test_one_batcher_serves_several_event_loops_one_after_another() -> None:
    clock = VirtualClock()
    server = BatchServer(clock)
    batcher = RequestBatcher(server, clock=clock)

    async def main() -> None:
        await asyncio.gather(*[batcher.execute(chat("a")) for _ in range(3)])

    for _ in range(3):
        clock.run(main())
        server._devices = asyncio.Semaphore(1)
    assert sizes(server) == [3, 3, 3]
    assert len(batcher._lanes) == 1


# ---- who pays, and for whom


def test_what_a_batch_has_cost_is_noted_in_the_ledgers_of_those_who_asked(tmp_path: Path) -> None:
    """Through a guarded model, which notes one request; each caller is charged for his own words."""
    yml = "models:\n  v: {provider: toy, price: {input: 1000000, output: 1}, batch: {max_size: 8}}\n"
    made = Bench(tmp_path, {"toy": ScriptedProvider([])}, yml)
    ledgers = [Ledger(Limits()), Ledger(Limits())]

    async def one(ledger: Ledger, words: str) -> None:
        batcher = provider_of(made.registry, "v")
        assert isinstance(batcher, RequestBatcher)
        with asking_as(Caller(ledgers=(ledger,))):
            await batcher.embed(texts(words))

    async def main() -> None:
        await asyncio.gather(one(ledgers[0], "one two"), one(ledgers[1], "one two three four five six"))

    made.run(main())
    assert [ledger.requests for ledger in ledgers] == [1, 1]
    assert [ledger.tokens for ledger in ledgers] == [2, 6]
    assert sum(ledger.dollars for ledger in ledgers) == pytest.approx(8.0)


def test_who_has_used_up_his_limit_is_refused_and_the_others_are_not() -> None:
    spent = Ledger(Limits(requests=1))
    spent.request()

    async def test(batcher: RequestBatcher, server: BatchServer) -> None:
        with asking_as(Caller(ledgers=(spent,))), pytest.raises(LimitExceededError):
            await batcher.embed(texts("a"))
        await batcher.embed(texts("b"))

    assert bench(test).batches == [["b"]]


def test_a_batch_is_asked_for_in_the_name_of_all_and_a_single_request_in_its_own() -> None:
    seen: list[Caller] = []

    class Asking(BatchServer):
        async def execute_many(self, requests: Sequence[Request]) -> Sequence[Response | Exception]:
            seen.append(current_caller())
            return await super().execute_many(requests)

    async def main() -> None:
        batcher = RequestBatcher(Asking(clock), clock=clock)

        async def ask(**said: Any) -> None:
            with asking_as(Caller(**said)):
                await batcher.execute(chat("hi"))

        await ask(tenant="ann", flow="f", run_id="r1")
        await asyncio.gather(ask(tenant="ann", flow="f", run_id="r1"), ask(tenant="ann", flow="g", run_id="r2"))
        await asyncio.gather(ask(tenant="ann"), ask(tenant="bob"))

    clock = VirtualClock()
    clock.run(main())
    assert [(caller.tenant, caller.flow) for caller in seen] == [("ann", "f"), ("ann", None), (None, None)]


def test_a_single_request_is_made_in_the_context_of_who_asked_and_a_batch_in_nobodys() -> None:
    """Limits of time and steps of a journal, which travel so, are those of one caller."""
    mark: ContextVar[str] = ContextVar("mark", default="nobody")
    seen: list[str] = []

    class Marked(BatchServer):
        async def execute_many(self, requests: Sequence[Request]) -> Sequence[Response | Exception]:
            seen.append(mark.get())
            return await super().execute_many(requests)

    async def main() -> None:
        batcher = RequestBatcher(Marked(clock), clock=clock)
        mark.set("ann")
        await batcher.execute(chat("alone"))
        await asyncio.gather(batcher.execute(chat("one")), batcher.execute(chat("two")))

    clock = VirtualClock()
    clock.run(main())
    assert seen == ["ann", "nobody"]


def test_a_fault_in_what_sorts_errors_is_heard_by_everyone() -> None:
    def faulty(error: Exception) -> bool:
        raise ZeroDivisionError

    async def test(batcher: RequestBatcher, server: BatchServer) -> None:
        asked = [batcher.execute(chat("bad")) for _ in range(2)]
        errors = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(error) for error in errors] == [ZeroDivisionError] * 2

    bench(test, bisects=faulty)


# ---- every request is answered once, with its own answer


PLAN = st.lists(
    st.tuples(
        st.sampled_from(["ann", "bob", None]),  # who
        st.floats(0, 0.03),  # after so many seconds
        st.sampled_from(["chat", "texts", "texts"]),
        st.integers(0, 12),  # a bad one is 0
        st.none() | st.floats(0.001, 0.05),  # leaves after so many seconds
    ),
    max_size=40,
)


@given(PLAN, st.integers(1, 6), st.integers(1, 3), st.sampled_from([0.0, 0.02]), st.booleans())
def test_every_request_is_answered_once_with_its_own_answer_however_it_comes(
    plan: list[tuple[str | None, float, str, int, float | None]],
    max_size: int,
    in_flight: int,
    latency: float,
    padded: bool,
) -> None:
    async def one(batcher: RequestBatcher, server: BatchServer, at: int) -> str:
        tenant, delay, kind, number, patience = plan[at]
        await server.clock.sleep(delay)
        text = "bad" if number == 0 else "x" * number
        try:
            with asking_as(Caller(tenant=tenant)):
                async with asyncio.timeout(patience):
                    if kind == "chat":
                        answer = await batcher.execute(chat(text))
                        assert answer.text == f"re {text}"
                    else:
                        found = await batcher.embed(texts(text, "y" * at))
                        assert [vector[0] for vector in found.vectors] == [len(text), at]
        except BadRequestError:
            assert number == 0
            return "bad"
        except TimeoutError:
            assert patience is not None
            return "left"
        assert number != 0
        return "answered"

    async def test(batcher: RequestBatcher, server: BatchServer) -> None:
        ended = await asyncio.gather(*[one(batcher, server, at) for at in range(len(plan))])
        counts = Counter(ended)
        assert counts["bad"] <= sum(number == 0 for _, _, _, number, _ in plan)
        assert counts["answered"] + counts["bad"] + counts["left"] == len(plan)
        if all(patience is None for *_, patience in plan):
            assert counts["left"] == 0

    server = bench(test, max_size=max_size, in_flight=in_flight, latency_budget=latency, padded=padded)
    assert all(size <= max(max_size, 2) for size in sizes(server))
    assert server.most_at_once <= 2 * in_flight  # chat and embeddings are two lanes


# ---- what it cannot do, and what models.yml says


def test_without_a_server_for_many_chats_go_one_by_one_and_streams_always_do() -> None:
    provider = ScriptedProvider(lambda request: request.prompt)
    assert not isinstance(provider, BatchingProvider)

    async def main() -> None:
        batcher = RequestBatcher(provider, clock=clock)
        assert (await batcher.execute(chat("hi"))).text == "hi"
        said = [chunk.content async for chunk in batcher.execute_streaming(chat("hi"))]
        assert "".join(said) == "hi"
        with pytest.raises(UnsupportedError, match="does not count"):
            await batcher.count_tokens(chat("hi"))

    clock = VirtualClock()
    clock.run(main())


def test_without_embeddings_inside_there_are_none() -> None:
    class Plain:
        name = "plain"

    async def main() -> None:
        with pytest.raises(UnsupportedError, match="no embeddings"):
            await RequestBatcher(cast("Any", Plain())).embed(texts("a"))

    asyncio.run(main())


def test_models_yml_says_its_rules(tmp_path: Path) -> None:
    yml = (
        "models:\n  v: {provider: toy, batch: {max_size: 9, max_tokens: 99, latency_budget: 0.2, in_flight: 2, "
        "padded: true}}\n  odd: {provider: toy, batch: {max_size: 0}}\n"
    )
    made = Bench(tmp_path, {"toy": ScriptedProvider([])}, "models:\n  v: {provider: toy}\n")
    with pytest.raises(ConfigurationError, match="max_size"):
        Bench(tmp_path, {}, yml)
    made = Bench(tmp_path, {"toy": ScriptedProvider([])}, yml.replace("max_size: 0", "max_size: 1"))
    batcher = provider_of(made.registry, "v")
    assert isinstance(batcher, RequestBatcher)
    rules = batcher._rules
    assert (rules.max_size, rules.max_tokens, rules.latency_budget, rules.in_flight, rules.padded) == (
        9, 99, 0.2, 2, True,
    )  # fmt: skip
