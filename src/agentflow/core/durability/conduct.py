"""What is done with durable runs: begun, gone on with, looked at, cancelled, found again after a crash.

started(flow, …)     begins one, or goes on with the one of that id
resumed(flow, id)    goes on: does the flow still fit, is there an answer, then it is performed
recovered(flow)      the same with all that nobody runs and that can go on
"""

from __future__ import annotations

from typing import Final

from agentflow.core.durability.answering import keep_answer, refuse_misfits, under_new_names
from agentflow.core.durability.changes import Migration
from agentflow.core.durability.fitting import fitting, found, refuse_changes
from agentflow.core.durability.history import StepHistory, history_of
from agentflow.core.durability.performing import Performer, performed, spec_of, terms_of
from agentflow.core.durability.protocol import Durability
from agentflow.core.durability.records import RunInfo
from agentflow.core.observability.audit.seat import current_audit
from agentflow.core.observability.ending import told_cancelled
from agentflow.core.observability.scope import Reader
from agentflow.core.result import FlowResult
from agentflow.core.state import SharedState
from agentflow.core.tasks import run_together
from agentflow.core.terms import NoAnswer, Terms
from agentflow.errors import AgentFlowError, RunHeldError, SerializationError

__all__ = ["called_off", "cancelled", "past", "recovered", "resumed", "started"]

_NO_ANSWER: Final = NoAnswer()
_ALL: Final = 1_000_000


async def started(
    flow: Performer, engine: Durability, state: SharedState, terms: Terms, reader: Reader | None, *, known: bool = True
) -> FlowResult:
    """Begin a run, or go on with the one of that id, if it can be `known`. Raises RunExistsError where that began with
    something else, and FlowChangedError where the flow was another one then."""
    try:
        spec = spec_of(flow, state, terms)
    except SerializationError:
        if flow.strict:
            raise
        return await flow.perform(state, terms, reader, None)
    if known:
        await refuse_changes(engine, spec)
    return await performed(flow, engine, spec, terms, reader, state)


async def resumed(
    flow: Performer,
    engine: Durability,
    run_id: str,
    answer: object,
    migrate: Migration | None,
    terms: Terms,
    reader: Reader | None = None,
) -> FlowResult:
    """Go on with a run. Raises UnknownRunError, FlowChangedError, AnswerError, RunHeldError, RunEndedError."""
    info = await fitting(flow, engine, await found(flow, engine, run_id), migrate)
    if not isinstance(answer, NoAnswer):
        await keep_answer(engine, info, under_new_names(answer, migrate))
    result = await performed(flow, engine, info.spec, terms_of(info.spec, terms), reader)
    if not isinstance(answer, NoAnswer):
        refuse_misfits(result, info)
    return result


async def recovered(flow: Performer, engine: Durability, concurrency: int, terms: Terms) -> list[FlowResult]:
    """Go on with every run of the flow that nobody runs and that can go on. What fails stands in its result."""
    lost = await engine.runs(flow=flow.name, status="lost", limit=_ALL)
    due = await engine.runs(flow=flow.name, status="waiting", due=flow.clock.time(), limit=_ALL)
    todo = iter([info.run_id for info in (*lost, *due)])
    results: list[FlowResult] = []

    async def worker() -> None:
        for run_id in todo:
            try:
                results.append(await resumed(flow, engine, run_id, _NO_ANSWER, None, terms))
            except RunHeldError:
                continue  # somebody else was quicker
            except AgentFlowError as error:
                results.append(FlowResult(SharedState(), None, "failed", error, run_id, 0.0))

    outcome = await run_together([worker() for _ in range(concurrency)])
    if outcome.failures:
        raise outcome.failures[0]
    return results


async def past(flow: Performer, engine: Durability, run_id: str) -> list[StepHistory]:
    """What the run has done so far. Raises UnknownRunError."""
    info = await found(flow, engine, run_id)
    return history_of(await engine.records(info.run_id))


async def cancelled(flow: Performer, engine: Durability, run_id: str) -> bool:
    """End the run for good; False where it had ended. Raises UnknownRunError."""
    return await called_off(engine, await found(flow, engine, run_id))


async def called_off(engine: Durability, info: RunInfo) -> bool:
    """The same of a run that was found, whose flow need not be at hand."""
    if current_audit() is not None:
        from agentflow.core.auditing import run_cancelled

        await run_cancelled(info.spec.flow, info.run_id, info.spec.tenant)
    ends = await engine.cancel(info.run_id)
    if ends and info.status != "running":  # what is under way tells its own end
        told_cancelled(info.spec.flow, info.run_id)
    return ends
