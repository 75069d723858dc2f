"""A stretch of a run, performed: an engine lets the flow be walked, and what came of it is told.

    spec_of(flow, state)  ──▶ RunSpec ──▶ performed: engine.execute(spec, body)
                                              └─▶ body: DurableRun(journal), the flow is walked ──▶ FlowResult

An engine that lets a run happen in another process gives back how it ended; the state is then had by walking the
journal once more, with nothing new begun.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Protocol, cast
from weakref import WeakKeyDictionary

from agentflow.clock import Clock
from agentflow.core.durability.keeping import DurableRun
from agentflow.core.durability.past import PastJournal
from agentflow.core.durability.protocol import Body, Durability, Journal
from agentflow.core.durability.records import Ending, RunSpec
from agentflow.core.durability.step import current_step, step_out
from agentflow.core.durability.values import decode, encode
from agentflow.core.graph import Graph
from agentflow.core.limits import Limits
from agentflow.core.observability.scope import Reader
from agentflow.core.outline import whole_outline
from agentflow.core.result import FlowResult
from agentflow.core.run import new_run_id
from agentflow.core.state import Inputs, SharedState
from agentflow.core.terms import Terms
from agentflow.errors import FlowError, describe

__all__ = ["Performer", "body_of", "graph_of", "performed", "spec_of", "terms_of"]


class Performer(Protocol):
    """A flow, as it is needed here."""

    @property
    def name(self) -> str: ...

    @property
    def graph(self) -> Graph: ...

    @property
    def clock(self) -> Clock: ...

    @property
    def source(self) -> str | None: ...

    @property
    def strict(self) -> bool: ...

    async def perform(
        self, inputs: Inputs | None, terms: Terms, reader: Reader | None, keeper: DurableRun | None, /
    ) -> FlowResult:
        """One stretch of a run; what went wrong stands in the result."""
        ...


def spec_of(flow: Performer, state: SharedState, terms: Terms) -> RunSpec:
    """What a run begins with. Raises SerializationError for an input that cannot be stored."""
    return RunSpec(
        terms.run_id or new_run_id(),
        flow.name,
        encode(state.snapshot(), "input"),
        graph_of(flow),
        terms.tenant,
        None if terms.limits is None else json.dumps(asdict(terms.limits)),
        flow.source,
    )


def body_of(flow: Performer, spec: RunSpec, terms: Terms) -> Body:
    """What runs the run, for an engine that begins or recovers it by itself."""

    async def body(journal: Journal) -> Ending:
        return _ending(await _stretch(flow, spec, journal, terms_of(spec, terms), None))

    return body


async def performed(
    flow: Performer,
    engine: Durability,
    spec: RunSpec,
    terms: Terms,
    reader: Reader | None,
    state: SharedState | None = None,
) -> FlowResult:
    outcome: FlowResult | None = None

    async def body(journal: Journal) -> Ending:
        nonlocal outcome
        fresh = state if state is not None and not journal.records() else None
        outcome = await _stretch(flow, spec, journal, terms, reader, fresh)
        return _ending(outcome)

    started = flow.clock.monotonic()
    ending = await engine.execute(spec, body)
    if outcome is None:  # it ran somewhere else
        journal = PastJournal(spec.run_id, await engine.records(spec.run_id))
        outcome = await _stretch(flow, spec, journal, terms, None, elsewhere=True)
        outcome = _elsewhere(outcome, ending, flow.clock.monotonic() - started)
    return outcome


async def _stretch(
    flow: Performer,
    spec: RunSpec,
    journal: Journal,
    terms: Terms,
    reader: Reader | None,
    state: SharedState | None = None,
    *,
    elsewhere: bool = False,
) -> FlowResult:
    """One stretch of the run: from its start, through what the journal has, as far as it goes."""
    keeper = DurableRun(
        journal,
        flow.clock,
        forked_from=spec.forked_from,
        forked_at=spec.forked_at,
        strict=flow.strict,
        elsewhere=elsewhere,
    )
    inputs = cast("Mapping[str, object]", decode(spec.inputs, "input"))
    if state is None:
        state = SharedState(inputs, context=terms.context)
        inputs = cast("Mapping[str, object]", decode(spec.inputs, "input"))  # those may be changed in place
    if journal.ended:  # it is looked at, and nothing happens: whoever watches has seen it
        return await flow.perform(state, replace(terms, observers=()), None, keeper)
    await keeper.begin(state, inputs)
    around = current_step.set(None)  # where it was started in a step of another run, that keeps nothing of this one
    try:
        result = await flow.perform(state, terms, reader, keeper)
    finally:
        step_out(around)
    for name in keeper.changed_in_place():
        warnings.warn(
            f"run {spec.run_id} of {flow.name}: the value of {name!r} was changed in place after it was kept, which "
            f"the run would not have when it goes on: write it again, state[{name!r}] = …",
            RuntimeWarning,
            stacklevel=2,
        )
    return result


def _ending(result: FlowResult) -> Ending:
    if result.status == "interrupted":
        return Ending("waiting", None, None, result.interrupts)
    if result.error is not None:
        return Ending("failed", None, describe(result.error))
    return Ending("done", result.action)


def _elsewhere(result: FlowResult, ending: Ending, seconds: float) -> FlowResult:
    """The state that the journal gives, and the end that the engine tells of."""
    if ending.status == "waiting":
        return replace(result, status="interrupted", interrupts=ending.interrupts, duration=seconds)
    if ending.status == "failed":
        error = result.error or FlowError(ending.error or "the run has failed")
        return replace(result, status="failed", error=error, duration=seconds)
    return replace(result, status="done", action=ending.action, error=None, interrupts=(), duration=seconds)


_graphs: WeakKeyDictionary[Graph, str] = WeakKeyDictionary()


def graph_of(flow: Performer) -> str:
    """The outline of its graph as JSON text; it is made once, as a graph never changes."""
    found = _graphs.get(flow.graph)
    if found is None:
        found = _graphs[flow.graph] = json.dumps(whole_outline(flow.graph), separators=(",", ":"))
    return found


def terms_of(spec: RunSpec, terms: Terms) -> Terms:
    """What the caller says now, and where he says nothing, what was said when the run began."""
    limits = terms.limits
    if limits is None and spec.limits is not None:
        limits = Limits(**json.loads(spec.limits))
    return replace(terms, run_id=spec.run_id, tenant=terms.tenant or spec.tenant, limits=limits)
