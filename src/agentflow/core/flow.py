"""A flow: paths of nodes, checked when it is built, walked when it runs.

    flow = AsyncFlow(
        plan >> Each(search, over=QUERIES, into=FINDINGS) >> write >> judge,
        judge.on("rewrite") >> write,
        judge.on("accept") >> (publish, notify) >> done >> END,
        name="article",
    )
    result = await flow.run({"topic": "tides"})

`AsyncFlow` is awaited; `Flow` is the same without await. Both are nodes, so a flow nests in another.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final, Literal

from agentflow.core.flow_base import FlowBase
from agentflow.core.limits import Limits
from agentflow.core.observability.observers import Observer
from agentflow.core.portal import run_blocking
from agentflow.core.result import FlowResult
from agentflow.core.run import new_run_id
from agentflow.core.state import Inputs
from agentflow.core.stream import BlockingEventStream, EventStream
from agentflow.core.terms import NoAnswer, Terms

if TYPE_CHECKING:
    from agentflow.core.durability.changes import Migration
    from agentflow.core.durability.history import StepHistory
    from agentflow.core.durability.protocol import Durability

__all__ = ["NO_ANSWER", "AsyncFlow", "Flow", "FlowResult"]

NO_ANSWER: Final = NoAnswer()


class AsyncFlow(FlowBase):
    """A flow that is awaited.

    `statements` are paths; the flow starts at the head of the first. `max_steps` bounds the visits of one run,
    `inputs` is a dataclass or TypedDict that the input must fit (or a Validator), `guard` is a pipeline around each
    run: a time-out, a limiter, a load shedder, a breaker. `durability` keeps its runs, unless a run says otherwise; as
    a node of another flow it is kept with that one's run. `clock` is for tests.

    Raises GraphError when the statements cannot work together.
    """

    async def run(
        self,
        state: Inputs | None = None,
        *,
        context: object = None,
        run_id: str | None = None,
        tenant: str | None = None,
        limits: Limits | None = None,
        observers: Sequence[Observer] = (),
        durability: Durability | None = None,
    ) -> FlowResult:
        """Run from the first node to the end. A SharedState is used as it is, a mapping is copied into a new one.

        `context` is what nodes get by `state.context(Type)`; `tenant` labels the run; `limits` bounds what its model
        calls may spend together; `observers` see the events of this run, beside those who watch all (`observe`).
        `durability` keeps the run: it can be parked and resumed, and one that is begun again under the `run_id` of an
        earlier one goes on with that. A parked run has the status "interrupted".

        Raises what made the run fail: NodeError, UnknownTransition, StepLimitError, StateConflict, InputError; of a
        durable one also DurabilityError, RunHeldError, RunExistsError.
        """
        terms = Terms(context, run_id, tenant, limits, observers, durability=durability)
        return _sound(await self._run(state, terms))

    def stream(
        self,
        state: Inputs | None = None,
        *,
        context: object = None,
        run_id: str | None = None,
        tenant: str | None = None,
        limits: Limits | None = None,
        observers: Sequence[Observer] = (),
        durability: Durability | None = None,
    ) -> EventStream[FlowResult]:
        """Run and watch: `async with flow.stream(…) as events: async for event in events: …`."""
        return self._event_stream(state, Terms(context, run_id, tenant, limits, observers, durability=durability))

    async def run_batch(
        self,
        inputs: Iterable[Inputs],
        *,
        concurrency: int = 16,
        on_error: Literal["collect", "raise"] = "collect",
        context: object = None,
        tenant: str | None = None,
        limits: Limits | None = None,
        observers: Sequence[Observer] = (),
        durability: Durability | None = None,
    ) -> list[FlowResult]:
        """One run for every input, at most `concurrency` at once; results in input order. `limits` holds for each.

        A failed run's result has status "failed" and its error; with `on_error="raise"` the first failure cancels the
        others and is raised.
        """
        terms = Terms(context, None, tenant, limits, observers, new_run_id(), durability=durability)
        return await self._run_batch(inputs, concurrency, on_error, terms)

    async def resume(
        self,
        run_id: str,
        answer: object = NO_ANSWER,
        *,
        migrate: Migration | None = None,
        context: object = None,
        tenant: str | None = None,
        limits: Limits | None = None,
        observers: Sequence[Observer] = (),
        durability: Durability | None = None,
    ) -> FlowResult:
        """Go on with a run that is parked, has failed, was interrupted, or whose process died.

        `answer` is for the one question it waits for, or a mapping of answers by the id of the interrupt; without one
        it goes on as far as it can. What the run has done is not done again. `migrate` says what the steps of a changed
        flow are called now: `{"old": "new"}`, None for one to forget. `tenant` and `limits` are those it began with
        unless given; a context is never stored, so it is given again.

        Raises UnknownRunError, RunHeldError, RunEndedError, FlowChangedError, AnswerError, and what `run` raises.
        """
        terms = Terms(context, None, tenant, limits, observers, durability=durability)
        return _sound(await self._resume(run_id, answer, migrate, terms))

    async def fork(
        self,
        run_id: str,
        *,
        at: str,
        update: Inputs | None = None,
        new_run_id: str | None = None,
        context: object = None,
        tenant: str | None = None,
        limits: Limits | None = None,
        observers: Sequence[Observer] = (),
        durability: Durability | None = None,
    ) -> FlowResult:
        """A new run, `new_run_id`, that has done what the other had done before its step `at`, and goes on from there.

        `at` is the id of a step (`flow.history` lists them) or its end, as `write#2`. `update` is written into the
        state as that step finds it. Raises UnknownRunError, DurabilityError where there is no such step,
        FlowChangedError, and what `run` raises.
        """
        terms = Terms(context, new_run_id, tenant, limits, observers, durability=durability)
        return _sound(await self._fork(run_id, at, update, terms))

    async def recover(
        self,
        *,
        concurrency: int = 16,
        context: object = None,
        observers: Sequence[Observer] = (),
        durability: Durability | None = None,
    ) -> list[FlowResult]:
        """Go on with all runs of this flow that nobody runs and that can: whose process died, and whose timer or
        interrupt is due; at most `concurrency` at once. What fails stands in its result.
        """
        terms = Terms(context, observers=observers, durability=durability)
        return await self._recover(concurrency, terms)

    async def history(self, run_id: str, *, durability: Durability | None = None) -> list[StepHistory]:
        """What the run has done so far: each step with what it wrote, its attempts, and its cost.

        Raises UnknownRunError.
        """
        return await self._history(run_id, durability)

    async def cancel(self, run_id: str, *, durability: Durability | None = None) -> bool:
        """End a run for good, wherever it runs; False where it had ended. What it has done is not undone.

        Raises UnknownRunError.
        """
        return await self._cancel(run_id, durability)


class Flow(FlowBase):
    """The same flow without await: it runs on an event loop of its own thread, so also inside Jupyter."""

    def run(
        self,
        state: Inputs | None = None,
        *,
        context: object = None,
        run_id: str | None = None,
        tenant: str | None = None,
        limits: Limits | None = None,
        observers: Sequence[Observer] = (),
        durability: Durability | None = None,
    ) -> FlowResult:
        """`AsyncFlow.run`, waited for. Ctrl-C cancels the run and waits until it has ended."""
        terms = Terms(context, run_id, tenant, limits, observers, durability=durability)
        return _sound(run_blocking(lambda: self._run(state, terms)))

    def stream(
        self,
        state: Inputs | None = None,
        *,
        context: object = None,
        run_id: str | None = None,
        tenant: str | None = None,
        limits: Limits | None = None,
        observers: Sequence[Observer] = (),
        durability: Durability | None = None,
    ) -> BlockingEventStream[FlowResult]:
        """`AsyncFlow.stream` as a plain context manager and iterator."""
        terms = Terms(context, run_id, tenant, limits, observers, durability=durability)
        return BlockingEventStream(lambda: self._event_stream(state, terms))

    def run_batch(
        self,
        inputs: Iterable[Inputs],
        *,
        concurrency: int = 16,
        on_error: Literal["collect", "raise"] = "collect",
        context: object = None,
        tenant: str | None = None,
        limits: Limits | None = None,
        observers: Sequence[Observer] = (),
        durability: Durability | None = None,
    ) -> list[FlowResult]:
        """`AsyncFlow.run_batch`, waited for."""
        terms = Terms(context, None, tenant, limits, observers, new_run_id(), durability=durability)
        return run_blocking(lambda: self._run_batch(inputs, concurrency, on_error, terms))

    def resume(
        self,
        run_id: str,
        answer: object = NO_ANSWER,
        *,
        migrate: Migration | None = None,
        context: object = None,
        tenant: str | None = None,
        limits: Limits | None = None,
        observers: Sequence[Observer] = (),
        durability: Durability | None = None,
    ) -> FlowResult:
        """`AsyncFlow.resume`, waited for."""
        terms = Terms(context, None, tenant, limits, observers, durability=durability)
        return _sound(run_blocking(lambda: self._resume(run_id, answer, migrate, terms)))

    def fork(
        self,
        run_id: str,
        *,
        at: str,
        update: Inputs | None = None,
        new_run_id: str | None = None,
        context: object = None,
        tenant: str | None = None,
        limits: Limits | None = None,
        observers: Sequence[Observer] = (),
        durability: Durability | None = None,
    ) -> FlowResult:
        """`AsyncFlow.fork`, waited for."""
        terms = Terms(context, new_run_id, tenant, limits, observers, durability=durability)
        return _sound(run_blocking(lambda: self._fork(run_id, at, update, terms)))

    def recover(
        self,
        *,
        concurrency: int = 16,
        context: object = None,
        observers: Sequence[Observer] = (),
        durability: Durability | None = None,
    ) -> list[FlowResult]:
        """`AsyncFlow.recover`, waited for."""
        terms = Terms(context, observers=observers, durability=durability)
        return run_blocking(lambda: self._recover(concurrency, terms))

    def history(self, run_id: str, *, durability: Durability | None = None) -> list[StepHistory]:
        """`AsyncFlow.history`, waited for."""
        return run_blocking(lambda: self._history(run_id, durability))

    def cancel(self, run_id: str, *, durability: Durability | None = None) -> bool:
        """`AsyncFlow.cancel`, waited for."""
        return run_blocking(lambda: self._cancel(run_id, durability))


def _sound(result: FlowResult) -> FlowResult:
    """The result of a run that has not failed; else its error is raised."""
    try:
        if result.error is not None:
            raise result.error
        return result
    finally:
        del result  # the error's traceback knows this frame
