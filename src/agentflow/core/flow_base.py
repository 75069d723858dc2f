"""What every flow is made of: its graph, compiled once, and its runs as coroutines.

perform    one stretch of a run ──▶ FlowResult; what went wrong stands in it
_run       the same, kept where there is an engine
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

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
from agentflow.core.parking import Parked
from agentflow.core.program import FlowRun, Program, Scoping
from agentflow.core.result import FlowResult, Status
from agentflow.core.robustness.pipeline import Pipeline
from agentflow.core.run import Run, current_run, new_run_id
from agentflow.core.schema import Validator, validator_for
from agentflow.core.state import Inputs, Key, SharedState, key_name
from agentflow.core.stream import EventStream
from agentflow.core.tasks import raise_first, run_together
from agentflow.core.terms import Terms
from agentflow.errors import AgentFlowError, DurabilityError, GraphError, InputError

if TYPE_CHECKING:
    from agentflow.core.durability.changes import Migration
    from agentflow.core.durability.history import StepHistory
    from agentflow.core.durability.keeping import DurableRun
    from agentflow.core.durability.protocol import Body, Durability
    from agentflow.core.durability.records import Interrupt, RunSpec

__all__ = ["FlowBase"]

F = TypeVar("F", bound="FlowBase")

_UNAUDITED: Final = nullcontext()
_PATIENCE: Final = 1.0  # seconds that a run waits at its end for those who watch it alone


class FlowBase(BaseNode):
    """What `AsyncFlow` and `Flow` share: the graph, and the run as a coroutine.

    Whoever loads a flow may say of it: `source`, the words that load it again, is kept with its durable runs; without
    `strict` a step that cannot be stored does not fail, but is done again when its run goes on.
    """

    source: str | None = None
    strict: bool = True

    def __init__(
        self,
        *statements: Operand,
        name: str | None = None,
        max_steps: int = 100_000,
        inputs: type | Validator | None = None,
        guard: Pipeline | None = None,
        clock: Clock | None = None,
        durability: Durability | None = None,
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
        self.durability = durability
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

    @property
    def clock(self) -> Clock:
        return self._clock

    async def _run(self, inputs: Inputs | None, terms: Terms, reader: Reader | None = None) -> FlowResult:
        """One run to its end, or until it is parked; failures stand in the result, a cancellation passes through."""
        engine = terms.durability or self.durability
        if engine is None:
            return await self.perform(inputs, terms, reader, None)
        from agentflow.core.durability.conduct import started

        state, known = _start_state(inputs, terms.context), terms.run_id is not None
        terms = replace(terms, run_id=terms.run_id or new_run_id())
        try:
            return await started(self, engine, state, terms, reader, known=known)
        except AgentFlowError as error:  # it did not begin, or could not be kept
            return FlowResult(state, None, "failed", error, terms.run_id or "", 0.0)

    async def perform(
        self, inputs: Inputs | None, terms: Terms, reader: Reader | None, keeper: DurableRun | None
    ) -> FlowResult:
        """One stretch of a run, for whatever keeps it; what went wrong stands in the result."""
        name = terms.run_id or new_run_id()
        watching = joined(terms.observers)
        channel = ledger = None
        if (reader or watching) and (keeper is None or not keeper.journal.ended):
            stretch, since = (0, None) if keeper is None else (keeper.stretch, keeper.since)
            channel = Channel(name, self._clock, reader, watching, stretch=stretch, since=since)
        if terms.limits:
            ledger = Ledger(terms.limits)
            if keeper is not None:
                ledger.take_over(*keeper.spent())
        run = Run(
            name,
            self._clock,
            channel,
            terms.tenant,
            ledger,
            keeper,
            origin=self._origin(terms) if channel else {},
            flow=self.name,
        )
        started = self._clock.monotonic()
        interrupts: tuple[Interrupt, ...] | None = None
        state = SharedState()
        action: str | None = None
        error: Exception | None = None
        around, token = current_run.get(), current_run.set(run)
        try:
            async with _UNAUDITED if current_audit() is None else _audited(self.name, run, around, keeper):
                state = _start_state(inputs, terms.context)
                body = FlowRun(self.name, self._program, self.max_steps, self.schema, None, self.guard)
                action = await body.run(state, run, self.name, 1, whole=True)
        except AgentFlowError as failure:
            error = failure
        except Parked as parked:
            if keeper is None:
                raise  # it is the run around this one that is kept, and that is parked
            interrupts = parked.interrupts
        finally:
            seconds = self._clock.monotonic() - started
            try:  # noqa: SIM105 - suppress() would cost each run
                current_run.reset(token)
            except ValueError:  # closed from outside, in another context
                pass
            if terms.observers:
                await _told(watching[-len(terms.observers) :])
        status: Status = "failed" if error else "done" if interrupts is None else "interrupted"
        try:
            return FlowResult(state, action, status, error, name, seconds, interrupts or ())
        finally:
            error = None  # its traceback knows this frame

    def _origin(self, terms: Terms) -> Mapping[str, object]:
        """What the first event of a run says of where it comes from."""
        around = current_run.get()
        facts = {
            "graph": outline(self.graph),
            "tenant": terms.tenant,
            "parent_run": None if around is None else around.run_id,
            "batch": terms.batch,
        }
        return {name: value for name, value in facts.items() if value is not None}

    def _event_stream(self, inputs: Inputs | None, terms: Terms) -> EventStream[FlowResult]:
        name = terms.run_id or new_run_id()
        state = _start_state(inputs, terms.context)
        inside = replace(terms, run_id=name)
        started = self._clock.monotonic()

        def cancelled() -> FlowResult:
            return FlowResult(state, None, "cancelled", None, name, self._clock.monotonic() - started)

        return EventStream(lambda reader: self._run(state, inside, reader), cancelled)

    async def _run_batch(
        self,
        inputs: Iterable[Inputs],
        concurrency: int,
        on_error: Literal["collect", "raise"],
        terms: Terms,
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

    # ---- durable runs

    def spec(
        self,
        state: Inputs | None = None,
        *,
        run_id: str | None = None,
        tenant: str | None = None,
        limits: Limits | None = None,
    ) -> RunSpec:
        """What a run begins with, for an engine that lets it run elsewhere or later: `engine.submit(flow.spec({…}))`.

        Raises SerializationError for an input that cannot be stored.
        """
        from agentflow.core.durability.performing import spec_of

        return spec_of(self, _start_state(state, None), Terms(None, run_id, tenant, limits))

    def body(self, spec: RunSpec, *, context: object = None, observers: Sequence[Observer] = ()) -> Body:
        """What runs such a run, for an engine that begins or recovers it: `engine.serve(flow.name, flow.body)`."""
        from agentflow.core.durability.performing import body_of

        return body_of(self, spec, Terms(context, observers=observers))

    async def _resume(self, run_id: str, answer: object, migrate: Migration | None, terms: Terms) -> FlowResult:
        from agentflow.core.durability.conduct import resumed

        return await resumed(self, self._engine(terms.durability), run_id, answer, migrate, terms)

    async def _fork(self, run_id: str, at: str, update: Inputs | None, terms: Terms) -> FlowResult:
        from agentflow.core.durability.forking import forked

        return await forked(self, self._engine(terms.durability), run_id, at, update, terms)

    async def _recover(self, concurrency: int, terms: Terms) -> list[FlowResult]:
        from agentflow.core.durability.conduct import recovered

        return await recovered(self, self._engine(terms.durability), concurrency, terms)

    async def _history(self, run_id: str, durability: Durability | None) -> list[StepHistory]:
        from agentflow.core.durability.conduct import past

        return await past(self, self._engine(durability), run_id)

    async def _cancel(self, run_id: str, durability: Durability | None) -> bool:
        from agentflow.core.durability.conduct import cancelled

        return await cancelled(self, self._engine(durability), run_id)

    def _engine(self, durability: Durability | None) -> Durability:
        engine = durability or self.durability
        if engine is None:
            raise DurabilityError(
                f"where is the run kept? Give {self.name} what keeps its runs, durability=SqliteDurability(), "
                "here or when it is built"
            )
        return engine


@asynccontextmanager
async def _audited(flow: str, run: Run, around: Run | None, keeper: DurableRun | None) -> AsyncIterator[None]:
    """Record in the audit log of this process that a run begins or goes on, and how that ends. Raises AuditError."""
    from agentflow.core.auditing import run_begun, run_ended, run_parked, run_resumed

    if keeper is not None and keeper.journal.ended:
        yield
        return
    if keeper is not None and keeper.stretch:
        act = await run_resumed(flow, run.run_id, run.tenant, keeper.stretch)
    else:
        act = await run_begun(flow, run.run_id, run.tenant, None if around is None else around.run_id)
    try:
        yield
    except Parked as parked:
        run_parked(act, [each.id for each in parked.interrupts])
        raise
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
