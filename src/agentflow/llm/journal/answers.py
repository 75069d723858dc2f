"""What a model answered, in the journal of the step that asked it.

    entry = Entry(step, request, model, provider, Response)
    entry.found ── None ──▶ ask, with entry.key(model) ──▶ entry.keep(…)
                └─ Found(by, reply) ──▶ entry.replay(…): nothing is sent, no guard is asked, and it is told as such

One entry is one request of a question, whoever answers it in the end: attempts, hedges and stand-ins are inside it. An
answer that failed is not kept, and is asked for again.
"""

from __future__ import annotations

import hashlib
from typing import Generic, NamedTuple, TypeVar

import msgspec
from msgspec import Struct

from agentflow.core.durability.step import DurableStep
from agentflow.core.run import current_run
from agentflow.errors import SerializationError
from agentflow.llm.bill import spent, usage_facts
from agentflow.llm.content import plain
from agentflow.llm.guards import Guards
from agentflow.llm.journal.fingerprint import request_print
from agentflow.llm.journal.inside import Inside
from agentflow.llm.journal.saving import saved
from agentflow.llm.messages import EmbeddingRequest, Embeddings, Request, Response, Usage

__all__ = ["Entry", "Found"]

R = TypeVar("R", bound=Response | Embeddings)


class Found(NamedTuple, Generic[R]):
    """A recorded answer, and the configured name of the model that gave it."""

    by: str
    reply: R


class _Kept(Struct, frozen=True, omit_defaults=True):
    """The same as it stands in the journal. Cost and tokens are those of the requests that what wraps models has made,
    which have records of their own."""

    by: str
    reply: msgspec.Raw
    cost: float | None = 0.0
    tokens: int = 0


class Entry(Generic[R]):
    """One request to a model, in a step. `found` is what was answered earlier, None where it is to be asked.

    `model` is the configured name of who is asked first. `name` tells the entry from all others in its step. `inside`
    is the step of what it is asked of, where that wraps models and makes requests of its own. Raises SerializationError
    where what is asked has no fingerprint, or what is found is no answer.
    """

    __slots__ = ("_asked", "_call", "_model", "found", "inside", "name")

    def __init__(
        self, step: DurableStep, asked: Request | EmbeddingRequest, model: str, provider: str, kind: type[R]
    ) -> None:
        self._asked = asked
        self._model = model
        self._call = call = step.call(request_print(asked, provider))
        self.name = call.id.removeprefix(step.path)
        self.inside = Inside(step, call.id)
        self.found: Found[R] | None = None
        if call.found is not None:
            kept = _read(call.found, call.id)
            self.found = Found(kept.by, _answer(kept.reply, kind, call.id))
            if kept.tokens or kept.cost != 0.0:
                step.count(kept.cost, kept.tokens)

    def key(self, model: str) -> str:
        """The idempotency key of asking `model`. A stand-in is asked something else, and has a key of its own: a
        provider refuses one that was used for another request."""
        key = self._call.idempotency_key
        return key if model == self._model else hashlib.sha256(f"{key}\0{model}".encode()).hexdigest()[:32]

    async def keep(
        self,
        guards: Guards,
        asked: Request | EmbeddingRequest,
        reply: R,
        attempts: int | None = None,
        *,
        paid: bool = True,
    ) -> None:
        """Whoever was `asked` in the end has answered, after so many attempts: those of its timing, where it has one.
        Where it was not `paid`, but what was asked `inside` of it, it is no request: it has no attempts and no cost of
        its own. Raises DurabilityError, SerializationError."""
        usage, cost = spent(guards, asked, reply) if paid else (Usage(), 0.0)
        if not paid:
            attempts = 0
        elif attempts is None:
            attempts = reply.timing.attempts if isinstance(reply, Response) and reply.timing is not None else 1
        body = _written(guards.config.name, reply, self.inside, self._call.id)
        await saved(self._call.save(body, cost=cost, tokens=usage.total_tokens, attempts=attempts))

    async def replay(self, guards: Guards, reply: R, number: int = 0) -> R:
        """The recorded answer to the `number`-th request of a question, told to whoever watches. The run's ledger has
        had it when the run was loaded; the question's own begins anew with each replay."""
        if not isinstance(reply, Response) or reply.cache_hit is None:  # a cache's answer was no request then, either
            _charge(guards, *spent(guards, self._asked, reply))
        if guards.scope is not None:
            facts: dict[str, object] = {"model": guards.config.name, "provider": guards.config.provider}
            if number:
                facts["round"] = number
            operation = "chat" if isinstance(reply, Response) else "embeddings"
            facts |= {"operation": operation, **usage_facts(reply.usage), "cost": reply.cost}
            await guards.scope.send("model_replayed", facts)
        return reply


def _charge(guards: Guards, usage: Usage, cost: float | None) -> None:
    run = current_run.get()
    outer = None if run is None else run.ledger
    for ledger in guards.ledgers:
        if ledger is not outer:
            ledger.request()
            ledger.spend(usage.total_tokens, cost)


def _written(by: str, reply: Response | Embeddings, inside: Inside, id: str) -> str:
    try:
        raw = msgspec.Raw(msgspec.json.encode(reply, enc_hook=plain))
        return msgspec.json.encode(_Kept(by, raw, inside.cost, inside.tokens)).decode()
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise SerializationError(id, f"JSON cannot hold the answer: {error}") from error


def _read(body: str, id: str) -> _Kept:
    try:
        return msgspec.json.decode(body, type=_Kept)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise SerializationError(id, f"what is recorded there is no answer of a model: {error}") from error


def _answer(reply: msgspec.Raw, kind: type[R], id: str) -> R:
    try:
        return msgspec.json.decode(reply, type=kind)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise SerializationError(id, f"what is recorded there is no answer of a model: {error}") from error
