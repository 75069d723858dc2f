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

import asyncio
import copy
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, TypeVar

from agentflow.clock import Clock, SystemClock
from agentflow.core.graph import Graph, Operand
from agentflow.core.lifecycle import Executable
from agentflow.core.limits import Ledger, Limits
from agentflow.core.mermaid import mermaid
from agentflow.core.node import BaseNode
from agentflow.core.observability.audit.seat import current_audit
from agentflow.core.observability.observers import Observation, Observer, joined
from agentflow.core.observability.scope import Channel, Reader
from agentflow.core.outline import outline
from agentflow.core.portal import run_blocking
from agentflow.core.program import FlowRun, Program, Scoping
from agentflow.core.robustness.pipeline import Pipeline
from agentflow.core.run import Keeper, Run, current_run, new_run_id
from agentflow.core.schema import Validator, validator_for
from agentflow.core.state import Inputs, Key, SharedState, key_name
from agentflow.core.stream import BlockingEventStream, EventStream
from agentflow.core.tasks import raise_first, run_together
from agentflow.errors import AgentFlowError, GraphError, InputError

__all__ = ["AsyncFlow", "Flow", "FlowResult"]

F = TypeVar("F", bound="_FlowBase")

Status = Literal["done", "interrupted", "failed", "cancelled"]

_UNAUDITED: Final = nullcontext()
_PATIENCE: Final = 1.0  # seconds that a run waits at its end for those who watch it alone


@dataclass(frozen=True, slots=True)
class FlowResult:
    """How a run ended. `duration` is in seconds; `interrupts` lists what a parked run waits for."""

    state: SharedState
    action: str | None
    status: Status
    error: Exception | None
    run_id: str
    duration: float
    interrupts: tuple[object, ...] = ()


@dataclass(slots=True)
class _Terms:
    """What a caller says of a run beside its input."""

    context: object = None
    run_id: str | None = None
    tenant: str | None = None
    limits: Limits | None = None
    observers: Sequence[Observer] = ()
    batch: str | None = None


class _FlowBase(BaseNode):
    """What `AsyncFlow` and `Flow` share: the graph, and the run as a coroutine."""

    def __init__(
        self,
        *statements: Operand,
        name: str | None = None,
        max_steps: int = 100_000,
        inputs: type | Validator | None = None,
        guard: Pipeline | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(name=name or "flow", guard=guard)
        if guard is not None and (guard.repeats or guard.hedges):
            raise GraphError(
                f"{self.name}: a run is not repeated or hedged, because its nodes write as they go: "
                "give retry= and hedges to the nodes, and the flow a guard without them"
            )
        if max_steps < 1:
            raise GraphError(f"max_steps is at least 1, not {max_steps}")
        self.max_steps = max_steps
        self.graph = Graph(self.name, statements)
        self.schema = validator_for(inputs)
        self._clock = clock or SystemClock()
        self._scope: Scoping | None = None
        self._program = Program(self.graph)

    def using(
        self: F,
        *,
        inputs: Mapping[str | Key[Any], str | Key[Any]] | None = None,
        outputs: Mapping[str | Key[Any], str | Key[Any]] | None = None,
    ) -> F:
        """The same flow with a state of its own when it is nested; the receiving name stands first.

            inner.using(inputs={"topic": "title"}, outputs={"summary": "draft"})

        gives the inner `topic` the outer `title`, and the outer `summary` the inner `draft`.
        """
        twin = copy.copy(self)
        twin._scope = Scoping(_names(inputs), _names(outputs))
        return twin

    def mermaid(self) -> str:
        """The graph as a Mermaid flowchart."""
        return mermaid(self.graph)

    # ---- as a node of another flow

    def inner_graph(self) -> Graph:
        return self.graph

    def actions(self) -> frozenset[str] | None:
        return self.graph.final_actions()

    def keys_read(self) -> tuple[str, ...]:
        return tuple(self._scope.inputs.values()) if self._scope else ()

    def keys_written(self) -> tuple[str, ...]:
        return tuple(self._scope.outputs) if self._scope else ()

    def executable(self) -> Executable:
        return FlowRun(self.name, self._program, self.max_steps, self.schema, self._scope, self.guard)

    # ---- running

    async def _run(
        self, inputs: Inputs | None, terms: _Terms, reader: Reader | None = None, keeper: Keeper | None = None
    ) -> FlowResult:
        """One run to its end; failures stand in the result, a cancellation passes through."""
        name = terms.run_id or new_run_id()
        watching = joined(terms.observers)
        channel = Channel(name, self._clock, reader, watching) if reader or watching else None
        ledger = Ledger(terms.limits) if terms.limits else None
        run = Run(name, self._clock, channel, terms.tenant, ledger, keeper, origin=self._origin(terms) if channel else {})
        started = self._clock.monotonic()
        state = SharedState()
        action: str | None = None
        error: Exception | None = None
        around, token = current_run.get(), current_run.set(run)
        try:
            async with _UNAUDITED if current_audit() is None else _audited(self.name, run, around):
                state = _start_state(inputs, terms.context)
                body = FlowRun(self.name, self._program, self.max_steps, self.schema, None, self.guard)
                action = await body.run(state, run, self.name, 1, exact=True)
        except AgentFlowError as failure:
            error = failure
        finally:
            seconds = self._clock.monotonic() - started
            try:  # noqa: SIM105 - suppress() would cost each run
                current_run.reset(token)
            except ValueError:  # closed from outside, in another context
                pass
            if terms.observers:
                await _told(watching[-len(terms.observers) :])
        status: Status = "done" if error is None else "failed"
        try:
            return FlowResult(state, action, status, error, name, seconds)
        finally:
            error = None  # its traceback knows this frame

    def _origin(self, terms: _Terms) -> Mapping[str, object]:
        """What the first event of a run says of where it comes from."""
        around = current_run.get()
        facts = {
            "graph": outline(self.graph),
            "tenant": terms.tenant,
            "parent_run": None if around is None else around.run_id,
            "batch": terms.batch,
        }
        return {name: value for name, value in facts.items() if value is not None}

    def _event_stream(self, inputs: Inputs | None, terms: _Terms) -> EventStream[FlowResult]:
        name = terms.run_id or new_run_id()
        state = _start_state(inputs, terms.context)
        inside = replace(terms, context=None, run_id=name)
        started = self._clock.monotonic()

        def cancelled() -> FlowResult:
            return FlowResult(state, None, "cancelled", None, name, self._clock.monotonic() - started)

        return EventStream(lambda reader: self._run(state, inside, reader), cancelled)

    async def _run_batch(
        self,
        inputs: Iterable[Inputs],
        concurrency: int,
        on_error: Literal["collect", "raise"],
        terms: _Terms,
    ) -> list[FlowResult]:
        if concurrency < 1:
            raise ValueError(f"concurrency is at least 1, not {concurrency}")
        if on_error not in ("collect", "raise"):
            raise ValueError(f'on_error is "collect" or "raise", not {on_error!r}')
        todo = enumerate(inputs)
        results: dict[int, FlowResult] = {}

        async def worker() -> None:
            for index, values in todo:
                await asyncio.sleep(0)  # runs that never wait must not keep the event loop from others
                result = await self._run(values, terms)
                if result.error is not None and on_error == "raise":
                    raise result.error
                results[index] = result

        outcome = await run_together([worker() for _ in range(concurrency)])
        if outcome.failures:
            raise_first(outcome.failures)
        return [results[index] for index in range(len(results))]


class AsyncFlow(_FlowBase):
    """A flow that is awaited.

    `statements` are paths; the flow starts at the head of the first. `max_steps` bounds the visits of one run,
    `inputs` is a dataclass or TypedDict that the input must fit (or a Validator), `guard` is a pipeline around each
    run: a time-out, a limiter, a load shedder, a breaker. `clock` is for tests.

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
    ) -> FlowResult:
        """Run from the first node to the end. A SharedState is used as it is, a mapping is copied into a new one.

        `context` is what nodes get by `state.context(Type)`; `tenant` labels the run; `limits` bounds what its model
        calls may spend together; `observers` see the events of this run, beside those who watch all (`observe`).
        Raises what made the run fail: NodeError, UnknownTransition, StepLimitError, StateConflict, InputError.
        """
        result = await self._run(state, _Terms(context, run_id, tenant, limits, observers))
        try:
            if result.error is not None:
                raise result.error
            return result
        finally:
            del result  # the error's traceback knows this frame

    def stream(
        self,
        state: Inputs | None = None,
        *,
        context: object = None,
        run_id: str | None = None,
        tenant: str | None = None,
        limits: Limits | None = None,
        observers: Sequence[Observer] = (),
    ) -> EventStream[FlowResult]:
        """Run and watch: `async with flow.stream(…) as events: async for event in events: …`."""
        return self._event_stream(state, _Terms(context, run_id, tenant, limits, observers))

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
    ) -> list[FlowResult]:
        """One run for every input, at most `concurrency` at once; results in input order. `limits` holds for each.

        A failed run's result has status "failed" and its error; with `on_error="raise"` the first failure cancels the
        others and is raised.
        """
        terms = _Terms(context, None, tenant, limits, observers, new_run_id())
        return await self._run_batch(inputs, concurrency, on_error, terms)


class Flow(_FlowBase):
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
    ) -> FlowResult:
        """`AsyncFlow.run`, waited for. Ctrl-C cancels the run and waits until it has ended."""
        result = run_blocking(lambda: self._run(state, _Terms(context, run_id, tenant, limits, observers)))
        try:
            if result.error is not None:
                raise result.error
            return result
        finally:
            del result  # the error's traceback knows this frame

    def stream(
        self,
        state: Inputs | None = None,
        *,
        context: object = None,
        run_id: str | None = None,
        tenant: str | None = None,
        limits: Limits | None = None,
        observers: Sequence[Observer] = (),
    ) -> BlockingEventStream[FlowResult]:
        """`AsyncFlow.stream` as a plain context manager and iterator."""
        terms = _Terms(context, run_id, tenant, limits, observers)
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
    ) -> list[FlowResult]:
        """`AsyncFlow.run_batch`, waited for."""
        terms = _Terms(context, None, tenant, limits, observers, new_run_id())
        return run_blocking(lambda: self._run_batch(inputs, concurrency, on_error, terms))


@asynccontextmanager
async def _audited(flow: str, run: Run, around: Run | None) -> AsyncIterator[None]:
    """Record in the audit log of this process that a run begins, and how it ends. Raises AuditError."""
    from agentflow.core.auditing import run_begun, run_ended

    act = await run_begun(flow, run.run_id, run.tenant, None if around is None else around.run_id)
    try:
        yield
    except BaseException as error:
        if act is not None:
            run_ended(act, error)
        raise
    if act is not None:
        run_ended(act, None)


async def _told(own: Sequence[Observation]) -> None:
    """Give those who watched one run the time to see its end, unless they are far behind."""
    try:
        for observation in own:
            await observation.drained(_PATIENCE)
    finally:
        for observation in own:
            if not observation.inline:  # who needs no thread may see how what outlives the run ends
                observation.close(timeout=0.0)


def _start_state(inputs: Inputs | None, context: object) -> SharedState:
    if isinstance(inputs, SharedState) and context is None:
        return inputs
    if isinstance(inputs, SharedState):
        return inputs.with_context(context)
    if inputs is not None and not isinstance(inputs, Mapping):
        raise InputError(f"the input of a flow is a mapping of names to values, not {type(inputs).__name__}")
    return SharedState(inputs, context=context)


def _names(mapping: Mapping[str | Key[Any], str | Key[Any]] | None) -> dict[str, str]:
    return {key_name(receiving): key_name(giving) for receiving, giving in (mapping or {}).items()}
