"""Answers on their way to the questions of a run: paired, checked as far as can be told here, recorded, and kept.

answer(engine, info, True)               for the one question there is
answer(engine, info, {id: value, …})     several by their ids, all or none
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from agentflow.core.durability.answers import check_answer
from agentflow.core.durability.bodies import answer_body
from agentflow.core.durability.changes import Migration, moved_id
from agentflow.core.durability.interrupts import is_question
from agentflow.core.durability.protocol import Durability
from agentflow.core.durability.records import RunInfo
from agentflow.core.observability.audit.seat import current_audit
from agentflow.core.result import FlowResult
from agentflow.errors import AnswerError

__all__ = ["answered", "keep_answer", "no_question", "refuse_misfits", "under_new_names"]


async def answered(engine: Durability, run_id: str, answer: object) -> None:
    """Keep an answer, or several by their ids, for whoever goes on with it. Raises UnknownRunError, AnswerError."""
    await keep_answer(engine, await engine.find(run_id), answer)


async def keep_answer(engine: Durability, info: RunInfo, answer: object) -> None:
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


def under_new_names(answer: object, migrate: Migration | None) -> object:
    """Whoever answers knows the questions by the names that they were asked under."""
    if migrate is None or not isinstance(answer, Mapping) or not all(map(is_question, answer)):
        return answer
    return {moved_id(id, migrate) or id: value for id, value in answer.items()}


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
        _refuse_wrong_key(info, questions[0], answer)
        return {questions[0]: answer}
    if not questions:
        raise no_question(info)
    raise AnswerError(
        f"run {info.run_id} waits for {len(questions)} answers: give a mapping by {', '.join(questions)}",
        run_id=info.run_id,
    )


def _refuse_wrong_key(info: RunInfo, question: str, answer: object) -> None:
    """Where something else than a mapping is wanted, one is meant to be by the ids of questions."""
    schema = next(each.schema for each in info.interrupts if each.id == question)
    if not isinstance(answer, Mapping) or not answer or schema is None or "anyOf" in schema:
        return
    kind = schema.get("type", "object")
    if "object" not in (kind if isinstance(kind, list) else [kind]) or "enum" in schema:
        wrong = next((name for name in answer if name != question), question)
        raise AnswerError(
            f"run {info.run_id} does not wait for an answer to {wrong}: the only question is {question}",
            run_id=info.run_id,
            interrupt=question,
        )


def no_question(info: RunInfo) -> AnswerError:
    """What to raise where nothing is asked."""
    how = f"it is {info.status}" if info.due is None or info.status != "waiting" else f"it sleeps until {_moment(info)}"
    return AnswerError(f"run {info.run_id} waits for no answer: {how}", run_id=info.run_id)


def _moment(info: RunInfo) -> str:
    """When it is due: the time of day, and the day where it is another than that on which the run moved last."""
    try:
        due, moved = datetime.fromtimestamp(info.due or 0.0), datetime.fromtimestamp(info.updated)
    except (OverflowError, ValueError, OSError):
        return "the end of the calendar"
    return f"{due:%H:%M:%S}" if due.date() == moved.date() else f"{due:%Y-%m-%d %H:%M:%S}"


def _is_plain(value: object) -> bool:
    """Whether it is JSON as it stands; the node itself looks at a value of a type of its own."""
    if isinstance(value, list):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(isinstance(name, str) and _is_plain(inner) for name, inner in value.items())
    return value is None or type(value) in (bool, int, float, str)


def refuse_misfits(result: FlowResult, before: RunInfo) -> None:
    """Raises AnswerError where a node has refused what it was answered now, and asks again."""
    waited = {question.id for question in before.interrupts}
    for question in result.interrupts:
        if question.problem is not None and question.id not in waited:
            raise AnswerError(question.problem, run_id=result.run_id, interrupt=question.id)
