"""What is done with durable runs: begun, gone on with, forked, looked at, cancelled, found again after a crash.

    started(flow, …)   ──▶ RunSpec ─┐
    resumed(flow, id)  ──▶ RunSpec ─┼──▶ engine.execute(spec, body) ──▶ body: DurableRun(journal), the flow is walked
    forked(flow, id)   ──▶ RunSpec ─┘

An engine that lets a run happen in another process gives back how it ended; the state is then had by walking the
journal once more, with nothing new begun.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any, Final, Protocol, cast

from agentflow.clock import Clock
from agentflow.core.durability.answers import check_answer
from agentflow.core.durability.bodies import answer_body, writes_body
from agentflow.core.durability.changes import Migration, changes, moved, moved_id
from agentflow.core.durability.history import StepHistory, history_of
from agentflow.core.durability.interrupts import is_question
from agentflow.core.durability.keeping import DurableRun
from agentflow.core.durability.past import PastJournal
from agentflow.core.durability.protocol import Body, Durability, Journal
from agentflow.core.durability.records import Ending, Record, RunInfo, RunSpec
from agentflow.core.durability.step import current_step, step_out
from agentflow.core.durability.values import decode, encode
from agentflow.core.graph import Graph
from agentflow.core.limits import Limits
from agentflow.core.observability.audit.seat import current_audit
from agentflow.core.observability.ending import told_cancelled
from agentflow.core.observability.scope import Reader
from agentflow.core.outline import whole_outline
from agentflow.core.result import FlowResult
from agentflow.core.run import new_run_id
from agentflow.core.state import Inputs, SharedState, Writes, key_name
from agentflow.core.tasks import run_together
from agentflow.core.terms import NoAnswer, Terms
from agentflow.errors import (
    AgentFlowError,
    AnswerError,
    DurabilityError,
    FlowChangedError,
    FlowError,
    RunHeldError,
    SerializationError,
    UnknownRunError,
    describe,
)

__all__ = [
    "Performer",
    "answered",
    "body_of",
    "called_off",
    "cancelled",
    "forked",
    "past",
    "recovered",
    "resumed",
    "spec_of",
    "started",
]


_NO_ANSWER: Final = NoAnswer()
_ALL: Final = 1_000_000


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


# ---- what one can do -----------------------------------------------------------------------------------------


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
        await _refuse_changes(engine, spec)
    return await _performed(flow, engine, spec, terms, reader, state)


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
    info = await _fitting(flow, engine, await _found(flow, engine, run_id), migrate)
    if not isinstance(answer, NoAnswer):
        await _answer(engine, info, _under_new_names(answer, migrate))
    result = await _performed(flow, engine, info.spec, _terms_of(info.spec, terms), reader)
    if not isinstance(answer, NoAnswer):
        _refuse_misfits(result, info)
    return result


async def forked(
    flow: Performer,
    engine: Durability,
    run_id: str,
    at: str,
    update: Inputs | None,
    terms: Terms,
    reader: Reader | None = None,
) -> FlowResult:
    """A new run that has done what the other had done before its step `at`, and goes on from there."""
    info = await _fitting(flow, engine, await _found(flow, engine, run_id), None)
    first, path = _step_named(at, info, await engine.records(info.run_id))
    new = terms.run_id or new_run_id()
    source = flow.source or info.spec.source
    spec = replace(info.spec, run_id=new, forked_from=info.run_id, forked_at=first, source=source)
    if current_audit() is not None:
        from agentflow.core.auditing import run_forked

        await run_forked(flow.name, new, spec.tenant, source=info.run_id, at=path)
    await engine.fork(spec, _update(path, update, flow.clock))
    return await _performed(flow, engine, spec, _terms_of(spec, terms), reader)


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
    info = await _found(flow, engine, run_id)
    return history_of(await engine.records(info.run_id))


async def answered(engine: Durability, run_id: str, answer: object) -> None:
    """Keep an answer, or several by their ids, for whoever goes on with it. Raises UnknownRunError, AnswerError."""
    await _answer(engine, await engine.find(run_id), answer)


async def cancelled(flow: Performer, engine: Durability, run_id: str) -> bool:
    """End the run for good; False where it had ended. Raises UnknownRunError."""
    return await called_off(engine, await _found(flow, engine, run_id))


async def called_off(engine: Durability, info: RunInfo) -> bool:
    """The same of a run that was found, whose flow need not be at hand."""
    if current_audit() is not None:
        from agentflow.core.auditing import run_cancelled

        await run_cancelled(info.spec.flow, info.run_id, info.spec.tenant)
    ends = await engine.cancel(info.run_id)
    if ends and info.status != "running":  # what is under way tells its own end
        told_cancelled(info.spec.flow, info.run_id)
    return ends


def spec_of(flow: Performer, state: SharedState, terms: Terms) -> RunSpec:
    """What a run begins with. Raises SerializationError for an input that cannot be stored."""
    return RunSpec(
        terms.run_id or new_run_id(),
        flow.name,
        encode(state.snapshot(), "input"),
        _graph(flow),
        terms.tenant,
        None if terms.limits is None else json.dumps(asdict(terms.limits)),
        flow.source,
    )


def body_of(flow: Performer, spec: RunSpec, terms: Terms) -> Body:
    """What runs the run, for an engine that begins or recovers it by itself."""

    async def body(journal: Journal) -> Ending:
        return _ending(await _stretch(flow, spec, journal, _terms_of(spec, terms), None))

    return body


# ---- running -------------------------------------------------------------------------------------------------


async def _performed(
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
        outcome = await _stretch(flow, spec, journal, terms, None)
        outcome = _elsewhere(outcome, ending, flow.clock.monotonic() - started)
    return outcome


async def _stretch(
    flow: Performer,
    spec: RunSpec,
    journal: Journal,
    terms: Terms,
    reader: Reader | None,
    state: SharedState | None = None,
) -> FlowResult:
    """One stretch of the run: from its start, through what the journal has, as far as it goes."""
    keeper = DurableRun(journal, flow.clock, forked_from=spec.forked_from, forked_at=spec.forked_at, strict=flow.strict)
    if state is None:
        inputs = cast("Mapping[str, object]", decode(spec.inputs, "input"))
        state = SharedState(inputs, context=terms.context)
    if journal.ended:  # it is looked at, and nothing happens: whoever watches has seen it
        return await flow.perform(state, replace(terms, observers=()), None, keeper)
    await keeper.begin(state)
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


# ---- what is needed for it -----------------------------------------------------------------------------------


async def _found(flow: Performer, engine: Durability, run_id: str) -> RunInfo:
    info = await engine.find(run_id)
    if info.spec.flow != flow.name:
        raise DurabilityError(
            f"run {info.run_id} is one of the flow {info.spec.flow!r}, not of {flow.name!r}", run_id=info.run_id
        )
    return info


def _graph(flow: Performer) -> str:
    return json.dumps(whole_outline(flow.graph), separators=(",", ":"))


async def _fitting(flow: Performer, engine: Durability, info: RunInfo, migrate: Migration | None) -> RunInfo:
    """The run, if the flow is the one that it began with, or `migrate` says how the one becomes the other."""
    graph = _graph(flow)
    if info.spec.graph == graph:
        return info
    different = changes(json.loads(info.spec.graph), json.loads(graph))
    if not different:
        return info
    if migrate is None:
        raise FlowChangedError(info.run_id, different)
    spec = replace(info.spec, graph=graph)
    await engine.rewrite(spec, moved(await engine.records(info.run_id), migrate))
    named = [(question, moved_id(question.id, migrate)) for question in info.interrupts]
    return replace(
        info, spec=spec, interrupts=tuple(replace(question, id=id) for question, id in named if id is not None)
    )


def _under_new_names(answer: object, migrate: Migration | None) -> object:
    """Whoever answers knows the questions by the names that they were asked under."""
    if migrate is None or not isinstance(answer, Mapping) or not all(map(is_question, answer)):
        return answer
    return {moved_id(id, migrate) or id: value for id, value in answer.items()}


async def _refuse_changes(engine: Durability, spec: RunSpec) -> None:
    """Raises FlowChangedError where there is such a run already, of another flow by this name."""
    with suppress(UnknownRunError):
        info = await engine.find(spec.run_id)
        if (info.run_id, info.spec.flow) != (spec.run_id, spec.flow):
            return  # the beginning of its id alone; or the engine says that it is another run
        different = changes(json.loads(info.spec.graph), json.loads(spec.graph))
        if different:
            raise FlowChangedError(info.run_id, different)


def _terms_of(spec: RunSpec, terms: Terms) -> Terms:
    """What the caller says now, and where he says nothing, what was said when the run began."""
    limits = terms.limits
    if limits is None and spec.limits is not None:
        limits = Limits(**json.loads(spec.limits))
    return replace(terms, run_id=spec.run_id, tenant=terms.tenant or spec.tenant, limits=limits)


async def _answer(engine: Durability, info: RunInfo, answer: object) -> None:
    answers = _by_interrupt(info, answer)
    schemas = {question.id: question.schema for question in info.interrupts}
    for id, value in answers.items():
        if id in schemas and _is_plain(value):
            try:
                check_answer(value, schemas[id])
            except AnswerError as error:
                raise AnswerError(str(error), run_id=info.run_id, interrupt=id) from None
    if current_audit() is not None:
        from agentflow.core.auditing import run_answered

        await run_answered(info.spec.flow, info.run_id, info.spec.tenant, answers)
    await engine.answer(info.run_id, {id: answer_body(value) for id, value in answers.items()})


def _by_interrupt(info: RunInfo, answer: object) -> Mapping[str, object]:
    """The answers by the id of the interrupt; one alone is for the only question there is."""
    questions = [each.id for each in info.interrupts if each.kind == "question"]
    if isinstance(answer, Mapping) and answer and all(is_question(name) for name in answer):
        over = [name for name in answer if name not in questions]
        if over and info.status == "waiting":  # else the engine knows whether anybody waits for it
            raise AnswerError(
                f"run {info.run_id} does not wait for an answer to {over[0]}", run_id=info.run_id, interrupt=over[0]
            )
        return answer
    if len(questions) == 1:
        return {questions[0]: answer}
    if not questions:
        raise AnswerError(f"run {info.run_id} waits for no answer: it is {info.status}", run_id=info.run_id)
    raise AnswerError(
        f"run {info.run_id} waits for {len(questions)} answers: give a mapping by {', '.join(questions)}",
        run_id=info.run_id,
    )


def _is_plain(value: object) -> bool:
    """Whether it is JSON as it stands; the node itself looks at a value of a type of its own."""
    if isinstance(value, list):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(isinstance(name, str) and _is_plain(inner) for name, inner in value.items())
    return value is None or type(value) in (bool, int, float, str)


def _refuse_misfits(result: FlowResult, before: RunInfo) -> None:
    """Raises AnswerError where a node has refused what it was answered now, and asks again."""
    waited = {question.id for question in before.interrupts}
    for question in result.interrupts:
        if question.problem is not None and question.id not in waited:
            raise AnswerError(question.problem, run_id=result.run_id, interrupt=question.id)


def _step_named(at: str, info: RunInfo, records: Sequence[Record]) -> tuple[str, str]:
    """The first record that belongs to a step, and the step's whole path. `write#2`, or `write` for its first visit,
    are enough where no other step ends so."""
    paths = list(dict.fromkeys(path for record in records if (path := record.id.partition("!")[0])))
    around = list(dict.fromkeys("/".join(path.split("/")[:depth]) for path in paths for depth in _depths(path)))
    exact = [path for path in around if path == at]
    near = exact or [path for path in around if path.endswith((f"/{at}", f"/{at}#1"))]
    if len(near) != 1:
        several = f"several steps end so: {', '.join(near[:5])}" if near else f"its steps are {', '.join(paths[-5:])}"
        raise DurabilityError(f"run {info.run_id} has no single step {at!r}: {several}", run_id=info.run_id)
    inside = (f"{near[0]}/", f"{near[0]}!")
    first = next(record.id for record in records if record.id == near[0] or record.id.startswith(inside))
    return first, near[0]


def _depths(path: str) -> range:
    """Where a path may be cut off so that a step is left: nested flows, sections and Eachs are steps, too."""
    return range(2, path.count("/") + 2)


def _update(path: str, update: Inputs | None, clock: Clock) -> Record | None:
    if update is None:
        return None
    if "#" not in path.rpartition("/")[2]:
        raise DurabilityError(f"{path} is an item, which sees no state: fork at the step within it, or at its Each")
    values: dict[str, object] = {key_name(cast("Any", key)): value for key, value in update.items()}
    return Record(f"{path}!update", "update", writes_body(Writes(values)), clock.time())
