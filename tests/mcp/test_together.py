"""What wraps models, all of it together: journals, ledgers, locks and the end of a registry."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.support.bench import Bench, Slow
from tests.support.memory_durability import MemoryDurability

from agentflow import AsyncFlow, ExecutionEvent, SharedState, node, observe
from agentflow.core.limits import Limits
from agentflow.core.run import current_run
from agentflow.errors import LimitExceededError, ServerError
from agentflow.llm.messages import Request, Response, Usage
from agentflow.llm.providers.base import ProviderSettings
from agentflow.llm.providers.scripted import ScriptedProvider

COSTS = "price: {input: 1000000, output: 0}, max_tokens: 10, context: 1000"  # a dollar a token of the prompt


def answered(text: str) -> Response:
    return Response(text, "m", "toy", usage=Usage(3, 2), finish_reason="stop")


async def whole(bench: Bench, model: str = "m") -> Response:
    return await bench.ask(model).execute_full()


async def streamed(bench: Bench, model: str = "m") -> Response:
    async with bench.ask(model).execute_streaming() as stream:
        return await stream.collect()


Way = Callable[[Bench], Awaitable[Response]]
WAYS = pytest.mark.parametrize("way", [whole, streamed])


# ---- durable steps -----------------------------------------------------------------------------------------------


@dataclass
class Dying:
    """A run that asks `m` twice and dies, and once more when it goes on. `spent` is what its ledger knows in the end:
    requests, tokens, dollars."""

    bench: Bench
    way: Way
    texts: list[str]
    spent: tuple[int, int, float] = (0, 0, 0.0)

    def run(self) -> None:
        fails = [True]

        @node
        async def ask(state: SharedState) -> None:
            for _ in range(2):
                self.texts.append((await self.way(self.bench)).text)
            if fails.pop():
                raise RuntimeError("the process dies")
            self.texts.append((await self.way(self.bench)).text)
            run = current_run.get()
            assert run is not None
            assert run.ledger is not None
            self.spent = run.ledger.requests, run.ledger.tokens, run.ledger.dollars

        flow = AsyncFlow(ask, name="article", clock=self.bench.clock, durability=MemoryDurability())

        async def main() -> None:
            with suppress(Exception):
                await flow.run({}, run_id="r1", limits=Limits(requests=99))
            fails.append(False)
            await flow.resume("r1", limits=Limits(requests=99))

        self.bench.run(main())


@WAYS
def test_the_same_question_asked_again_in_a_step_finds_its_own_answer(tmp_path: Path, way: Way) -> None:
    toy = ScriptedProvider([answered("A"), answered("B"), answered("C")], name="toy")
    bench = Bench(tmp_path, {"toy": toy}, f"models: {{m: {{provider: toy, {COSTS}, budget: {{per_day: 5000}}}}}}")
    dying = Dying(bench, way, [])
    dying.run()
    assert dying.texts == ["A", "B", "A", "B", "C"]
    assert dying.spent == (3, 15, 9.0)


@WAYS
def test_a_cached_answer_is_replayed_and_was_never_a_request(tmp_path: Path, way: Way) -> None:
    toy = ScriptedProvider([answered("A"), answered("B")], name="toy")
    yml = f"models: {{m: {{provider: toy, {COSTS}, temperature: 0, cache: {{ttl: 60}}}}}}"
    dying = Dying(Bench(tmp_path, {"toy": toy}, yml), way, [])
    dying.run()
    assert dying.texts == ["A"] * 5
    assert dying.spent == (1, 5, 3.0)


def test_whoever_waits_for_a_run_that_is_given_up_hears_nothing_of_its_journal(tmp_path: Path) -> None:
    yml = "models: {m: {provider: toy, temperature: 0, cache: {ttl: 60}}}"
    bench = Bench(tmp_path, {"toy": Slow(10.0)}, yml)

    @node
    async def ask(state: SharedState) -> None:
        await whole(bench)

    async def main() -> str:
        flow = AsyncFlow(ask, name="article", clock=bench.clock, durability=MemoryDurability())
        running = asyncio.ensure_future(flow.run({}))
        await bench.clock.sleep(1.0)
        waiting = asyncio.ensure_future(bench.ask("m").execute())
        await bench.clock.sleep(1.0)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        return await waiting

    assert bench.run(main()) == "done"


def test_what_is_asked_anew_behind_a_run_is_kept_although_the_run_is_over(tmp_path: Path) -> None:
    answers = iter("ABC")

    async def slowly(request: Request) -> Response:
        await asyncio.sleep(1.0)
        return answered(next(answers))

    yml = "models: {m: {provider: toy, temperature: 0, cache: {ttl: 10, jitter: 0, stale: 90}}}"
    bench, texts = Bench(tmp_path, {"toy": ScriptedProvider(slowly, name="toy")}, yml), []

    @node
    async def ask(state: SharedState) -> None:
        texts.append((await whole(bench)).text)

    async def main() -> None:
        flow = AsyncFlow(ask, name="article", clock=bench.clock, durability=MemoryDurability())
        for pause in (12.0, 2.0, 0.0):
            await flow.run({})
            await bench.clock.sleep(pause)

    bench.run(main())
    assert texts == ["A", "A", "B"]


# ---- ledgers -----------------------------------------------------------------------------------------------------


def test_a_stand_in_for_what_was_refused_unasked_is_a_request(tmp_path: Path) -> None:
    refused = f"m: {{provider: toy, {COSTS}, budget: {{per_day: 0.1}}, fallback: [{{model: o, when: [refused]}}]}}"
    other = ScriptedProvider(["There.", "There."], name="other")
    bench = Bench(tmp_path, {"other": other}, f"models: {{{refused}, o: {{provider: other}}}}")
    bench.add("toy", ScriptedProvider([], name="toy"))
    assert bench.run(bench.ask("m").limits(requests=1).execute()) == "There."
    with pytest.raises(LimitExceededError):
        bench.run(bench.ask("m").limits(requests=0).execute())


def test_a_stand_in_for_what_was_asked_is_the_same_request(tmp_path: Path) -> None:
    yml = "models: {m: {provider: toy, retry: {max_attempts: 1}, cache: {ttl: 9}, fallback: [o]}, o: {provider: other}}"
    toy, other = ScriptedProvider([ServerError("down")], name="toy"), ScriptedProvider(["There."], name="other")
    bench = Bench(tmp_path, {"toy": toy, "other": other}, yml)
    assert bench.run(bench.ask("m").limits(requests=1).execute()) == "There."


# ---- routers -----------------------------------------------------------------------------------------------------


@dataclass
class Number:
    x: int


def test_a_typed_answer_needs_no_key_of_a_candidate_that_cannot_be_asked(tmp_path: Path) -> None:
    yml = (
        "providers: {keyed: {kind: openai, base_url: 'https://example.com/v1', api_key_env: NOT_SET}}\n"
        "models: {a: {provider: toy}, b: {provider: keyed, model_id: x}, auto: {router: {candidates: [b, a]}}}"
    )
    bench = Bench(tmp_path, {"toy": ScriptedProvider(['{"x": 1}'], name="toy")}, yml)
    assert bench.run(bench.ask("auto").output(Number).execute()) == Number(1)


@pytest.mark.parametrize(("said", "seconds"), [(None, 2.0), (50.0, 50.0)])
def test_a_candidate_that_is_too_slow_leaves_time_for_another(
    tmp_path: Path, said: float | None, seconds: float
) -> None:
    yml = (
        "models: {slow: {provider: toy, timeout: 2, price: {input: 1, output: 1}}, "
        "quick: {provider: other, price: {input: 9, output: 9}}, "
        "auto: {timeout: 100, router: {candidates: [slow, quick]}}}"
    )
    bench = Bench(tmp_path, {"toy": Slow(70.0), "other": ScriptedProvider(["There."], name="other")}, yml)
    asked = bench.ask("auto") if said is None else bench.ask("auto").timeout(said)
    assert bench.run(asked.execute()) == "There."
    assert bench.clock.monotonic() == pytest.approx(seconds, abs=0.1)


class Counting(ScriptedProvider):
    async def count_tokens(self, request: Request) -> int:
        return len(request.prompt)


def test_a_router_counts_tokens_as_the_model_does_that_it_would_choose(tmp_path: Path) -> None:
    yml = "models: {m: {provider: toy}, auto: {router: {candidates: [m]}, budget: {per_day: 3}, cache: {ttl: 9}}}"
    bench = Bench(tmp_path, {"toy": Counting([], name="toy")}, yml)
    assert bench.run(bench.ask("auto").count_tokens()) == len("Hi")


# ---- the registry ------------------------------------------------------------------------------------------------


class Closing(ScriptedProvider):
    closed = 0

    async def aclose(self) -> None:
        self.closed += 1


def test_what_waits_in_a_batch_at_the_end_is_asked_of_the_provider_that_is_closed_then(tmp_path: Path) -> None:
    made: list[Closing] = []

    def factory(settings: ProviderSettings) -> Closing:
        made.append(Closing([], name="toy"))
        return made[-1]

    bench = Bench(tmp_path, {}, "models: {m: {provider: toy, batch: {max_size: 8}}}")
    bench.registry.register_provider("toy", factory)

    async def main() -> None:
        asked = [asyncio.ensure_future(bench.ask("m").embed([text])) for text in "abc"]
        await asyncio.sleep(0)
        await bench.registry.aclose()
        await asyncio.gather(*asked)

    bench.run(main())
    assert [each.closed for each in made] == [1]


def test_a_chain_is_made_while_another_thread_changes_the_models(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {"toy": ScriptedProvider([], name="toy")}, "models: {m: {provider: toy}}")
    registry, found, changed = bench.registry, ScriptedProvider([]), threading.Event()

    def change() -> None:
        registry.register_model("z", provider="toy")
        changed.set()

    def make(describe: object) -> ScriptedProvider:
        threading.Thread(target=change, daemon=True).start()
        assert not changed.wait(0.05)  # it waits for what is being made, and holds nothing that this needs
        assert registry.describe("toy/new").provider == "toy"
        return found

    making = threading.Thread(target=registry.chains.get, args=("m", make), daemon=True)
    making.start()
    assert changed.wait(60)
    making.join()


class Watching:
    """Sees every event of this process."""

    inline = True
    chunks = content = False

    def __init__(self) -> None:
        self.events: list[ExecutionEvent] = []

    def observe(self, event: ExecutionEvent) -> None:
        self.events.append(event)


def test_what_is_asked_anew_behind_a_stale_answer_is_a_run_of_its_own(tmp_path: Path) -> None:
    """It ends after the run that was given the old answer, and no limit of that run bounds it."""
    yml = "models: {m: {provider: toy, temperature: 0, cache: {ttl: 10, jitter: 0, stale: 60}}}"
    bench = Bench(tmp_path, {"toy": ScriptedProvider(lambda request: "a", name="toy")}, yml)
    watching = Watching()

    async def main() -> None:
        asking = bench.ask("m").tenant("acme")
        await asking.execute()
        await bench.clock.sleep(20)
        await asking.limits(requests=0).execute()
        await bench.clock.sleep(1)
        await bench.registry.aclose()

    with observe(watching):
        bench.run(main())
    runs: dict[str, list[str]] = {}
    for event in watching.events:
        runs.setdefault(event.run_id, []).append(event.kind)
    *_, old, anew = runs.values()
    assert old == ["flow_start", "cache_hit", "flow_success"]
    assert "model_success" in anew
    assert "flow_start" not in anew
