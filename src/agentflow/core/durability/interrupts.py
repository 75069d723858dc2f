"""A question to a person, in the middle of a run: asked once, answered whenever, and nobody waits meanwhile.

    publish = await interrupt("Publish this?", draft, schema=bool)

    asked before? ──no──▶ keep the question ──▶ Parked ──▶ the run returns with status "interrupted"
         │ yes
         ▼
    answered? ──no──▶ Parked again;  past `timeout`: the default, or InterruptTimeoutError
         │ yes
         ▼
    does the answer fit? ──no──▶ ask again       ──yes──▶ it is returned

The node that asks runs again from its top when the run goes on; what it had asked of models and tools is taken from the
journal. A class node's exec that has returned does not run again. An answer is for one question, its prompt and its
payload: a node that asks for something else the second time has to wait for another answer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, TypeVar, overload

from agentflow.core.durability.answers import answer_type
from agentflow.core.durability.bodies import answered
from agentflow.core.durability.records import Interrupt, Record
from agentflow.core.durability.step import DurableStep, current_step
from agentflow.core.durability.values import decode, encode
from agentflow.core.observability.scope import current_scope
from agentflow.core.portal import run_blocking
from agentflow.errors import AnswerError, ConfigurationError, InterruptTimeoutError

__all__ = ["NO_DEFAULT", "answer_id", "interrupt", "interrupt_blocking", "interrupt_in", "is_question", "node_path"]

T = TypeVar("T")
D = TypeVar("D")


class _NoDefault:
    """Stands for a default that was not given; None is one."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<no default>"


NO_DEFAULT: Final = _NoDefault()


# What is returned depends on the schema: a type gives one of its values, or the default where that is something else.


@overload
async def interrupt(
    prompt: str, payload: object = None, *, schema: type[T], timeout: float | None = None, default: _NoDefault = ...
) -> T: ...
@overload
async def interrupt(
    prompt: str, payload: object = None, *, schema: type[T], timeout: float | None = None, default: D
) -> T | D: ...
@overload
async def interrupt(
    prompt: str,
    payload: object = None,
    *,
    schema: object = None,
    timeout: float | None = None,
    default: object = NO_DEFAULT,
) -> Any: ...
async def interrupt(
    prompt: str,
    payload: object = None,
    *,
    schema: object = None,
    timeout: float | None = None,
    default: object = NO_DEFAULT,
) -> Any:
    """Ask a person, and return what they answer. The run is parked until then, when its other branches have finished.

    `payload` is what they are shown with the question. The answer must fit `schema`: a type, or a list of choices; None
    takes any JSON. After `timeout` seconds `default` is the answer, where there is one.

    Raises InterruptTimeoutError where nobody answered in time, ConfigurationError in a run that is not durable and for
    a schema that cannot be asked for, and SerializationError for a payload that cannot be stored.
    """
    step = current_step.get()
    if step is None:
        raise ConfigurationError(
            "interrupt() parks a run until somebody answers, so the run has to be durable, and the node as well: "
            "run(…, durability=SqliteDurability()), or AsyncFlow(…, durability=…)"
        )
    wanted, shown = answer_type(schema), encode(payload, "payload")
    question, problem = None, None
    while True:
        id, record = step.question(lambda known: _asks(known, prompt, shown))
        if record is None:
            asked = Interrupt(id, node_path(id), prompt, payload, wanted.schema, problem=problem)
            question = await _ask(step, asked, shown, timeout, question)
        else:
            question = interrupt_in(record)
        reply = step.journal.find(answer_id(id))
        if reply is None:
            return await _waited(step, question, timeout, default)
        given, value = answered(reply)
        if not given:
            return _unanswered(question, timeout, default)
        try:
            return wanted.accept(value)
        except AnswerError as error:
            problem = str(error)  # it is asked for again, under another id


@overload
def interrupt_blocking(
    prompt: str, payload: object = None, *, schema: type[T], timeout: float | None = None, default: _NoDefault = ...
) -> T: ...
@overload
def interrupt_blocking(
    prompt: str, payload: object = None, *, schema: type[T], timeout: float | None = None, default: D
) -> T | D: ...
@overload
def interrupt_blocking(
    prompt: str,
    payload: object = None,
    *,
    schema: object = None,
    timeout: float | None = None,
    default: object = NO_DEFAULT,
) -> Any: ...
def interrupt_blocking(
    prompt: str,
    payload: object = None,
    *,
    schema: object = None,
    timeout: float | None = None,
    default: object = NO_DEFAULT,
) -> Any:
    """`interrupt` for a sync node, which runs in a thread."""
    return run_blocking(lambda: interrupt(prompt, payload, schema=schema, timeout=timeout, default=default))


async def _ask(
    step: DurableStep, new: Interrupt, payload: str, timeout: float | None, before: Interrupt | None
) -> Interrupt:
    """Keep the question. One that is asked again has as much time as was left."""
    asked = step.clock.time()
    due = before.due if before is not None else None if timeout is None else asked + timeout
    question = replace(new, asked=asked, due=due)
    await step.journal.save(Record(question.id, "wait", _body(question, payload), asked))
    scope = current_scope.get()
    if scope is not None:
        told: dict[str, object] = {"interrupt": question.id, "due": due}
        await scope.send("interrupt", {**told, "question": question.prompt} if scope.channel.content else told)
    return question


async def _waited(step: DurableStep, question: Interrupt, timeout: float | None, default: object) -> Any:
    """Nobody has answered yet: wait on, unless the time is up, which is kept as an answer would be."""
    now = step.clock.time()
    if question.due is None or now < question.due:
        raise step.park(question)
    await step.journal.save(Record(answer_id(question.id), "answer", '{"expired":true}', now))
    reply = step.journal.find(answer_id(question.id))
    given, _ = (False, None) if reply is None else answered(reply)
    if given:
        raise step.park(question)  # somebody was quicker: it is taken at once when the run goes on
    return _unanswered(question, timeout, default)


def _unanswered(question: Interrupt, timeout: float | None, default: object) -> Any:
    if isinstance(default, _NoDefault):
        raise InterruptTimeoutError(question.id, timeout or 0.0)
    return default


# ---- as it is kept -------------------------------------------------------------------------------------------


def answer_id(interrupt: str) -> str:
    """The id of the record that holds its answer."""
    return f"{interrupt}!answer"


def is_question(name: object) -> bool:
    """Whether it is the id of a question, pending or not."""
    return isinstance(name, str) and name.rpartition("!")[2].startswith("wait:")


def node_path(id: str) -> str:
    """The path of the node that a record belongs to, also of what a tool in it has asked."""
    return id.partition("!")[0]


def _body(question: Interrupt, payload: str) -> str:
    schema = None if question.schema is None else dict(question.schema)
    asked = {
        "prompt": question.prompt,
        "schema": schema,
        "due": question.due,
        "kind": question.kind,
        "problem": question.problem,
    }
    return f'{{"question":{json.dumps(asked)}{_payload(payload)}'


def _payload(text: str) -> str:
    """How the body of a question ends."""
    return f',"payload":{text}}}'


def _asks(record: Record, prompt: str, payload: str) -> bool:
    """Whether this is what it asked."""
    return record.body.endswith(_payload(payload)) and interrupt_in(record).prompt == prompt


def interrupt_in(record: Record) -> Interrupt:
    """What a `wait` or a `timer` record waits for."""
    body: Mapping[str, Any] = decode(record.body, record.id)  # type: ignore[assignment]  # we have written it
    asked = body["question"]
    return Interrupt(record.id, node_path(record.id), payload=body["payload"], asked=record.at, **asked)
