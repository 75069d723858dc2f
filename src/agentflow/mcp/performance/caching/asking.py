"""What happens when an answer is not there: one asks the model for all who want it, and keeps what may be kept.

answer(question), chunks(question) ──▶ a seat in the flight of that name
    the flight: in the store? similar? ──▶ another process's turn? ──▶ the model ──▶ all seats ──▶ kept, if it may be
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from functools import partial
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from agentflow.clock import Clock
from agentflow.core.durability.step import current_step, step_out
from agentflow.errors import (
    BudgetExceededError,
    DurabilityError,
    LimitExceededError,
    ModelTimeoutError,
    OperationTimeoutError,
)
from agentflow.llm.caller import asking_as
from agentflow.llm.messages import Response, StreamChunk
from agentflow.llm.providers.base import LLMProvider
from agentflow.llm.streaming.join import Joiner
from agentflow.llm.streaming.stream import close
from agentflow.mcp.performance.caching.flight import Flight, Flights, Landed, free
from agentflow.mcp.performance.caching.kept import Piece, kept_answer, kept_stream
from agentflow.mcp.performance.caching.keys import Keyring
from agentflow.mcp.performance.caching.lease import Leases
from agentflow.mcp.performance.caching.lifetime import Lifetime
from agentflow.mcp.performance.caching.notes import Notes
from agentflow.mcp.performance.caching.policy import Policy
from agentflow.mcp.performance.caching.question import Question
from agentflow.mcp.performance.caching.replay import Replay, replayed
from agentflow.mcp.performance.caching.semantic_tier import Asked, SemanticTier, Verdict
from agentflow.mcp.performance.caching.shelf import Found, Shelf
from agentflow.mcp.performance.caching.tally import Tally

__all__ = ["Asking", "Parts"]

# What went wrong for the one who asked, and need not for another: his time, his limits, the journal of his run.
_PERSONAL: Final = (OperationTimeoutError, LimitExceededError, BudgetExceededError, DurabilityError)


class Parts(Struct, frozen=True):
    """What asking needs; one for each cache."""

    inner: LLMProvider
    shelf: Shelf
    keyring: Keyring
    policy: Policy
    lifetime: Lifetime
    notes: Notes
    tally: Tally
    clock: Clock
    replay: Replay
    leases: Leases | None = None
    semantic: SemanticTier | None = None


class Asking:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._flights = Flights()

    async def answer(self, question: Question) -> Response:
        """The answer, whoever asks for it. Raises what asking has raised."""
        until = _until(question)
        while True:
            flight, leads = self._flights.board(question.flight, partial(self._fly, question, False))
            async with flight.seat() as seat:
                try:
                    async with asyncio.timeout_at(None if leads else until):
                        landed, pays = await seat.whole()
                except Exception as error:
                    if leads:
                        raise
                    if _is_personal(error):
                        continue
                    raise _own(error, question) from error
                if pays:
                    return landed.answer
                await self._found(question, landed, leads)
                return free(landed)

    async def chunks(self, question: Question) -> AsyncGenerator[StreamChunk, None]:
        """The same in pieces."""
        until = _until(question)
        while True:
            flight, leads = self._flights.board(question.flight, partial(self._fly, question, True))
            begun = False
            async with flight.seat() as seat, aclosing(seat.chunks(self._replayed)) as source:
                try:
                    while True:
                        async with asyncio.timeout_at(None if leads else until):
                            chunk = await anext(source, None)
                        if chunk is None:
                            break
                        begun = True
                        yield chunk
                except Exception as error:
                    if leads:
                        raise
                    if not begun and _is_personal(error):
                        continue
                    raise _own(error, question) from error
                landed = flight.landing.result()
                if landed.tier is not None or flight.payer is not seat:
                    await self._found(question, landed, leads)
                return

    def refresh(self, question: Question) -> None:
        """Ask anew in the background, unless somebody does already. It is part of no durable step and of no run: that
        may be over before."""
        caller = question.caller.apart(self._parts.clock, question.request.model)
        anew = replace(question, anew="stale", caller=caller)
        token = current_step.set(None)
        try:
            with asking_as(caller):
                flight, leads = self._flights.board(anew.flight, partial(self._fly, anew, False))
        finally:
            step_out(token)
        flight.unattended = flight.unattended or leads

    async def end(self) -> None:
        await self._flights.end()

    # ---- the flight ------------------------------------------------------------------------------------------

    async def _fly(self, question: Question, streaming: bool, flight: Flight) -> None:
        parts = self._parts
        asked = Asked(question.request, parts.inner.name, question.scope)
        verdict = None
        if question.anew is None:
            if await self._landed_kept(question, flight):
                return
            verdict = None if parts.semantic is None else await parts.semantic.find(asked)
            if verdict is not None and await self._landed_similar(question, verdict, flight):
                return
        async with self._turn(question) as found:
            if found is not None:
                flight.land(_landed(found, "exact", "elsewhere"))
                return
            await self._missed(question, verdict)
            pieces: Sequence[Piece] = ()
            if streaming:
                answer, pieces = await self._pumped(question, flight)
            else:
                answer = await parts.inner.execute(question.request)
            flight.land(Landed(answer, answer.cost))
            kept = await self._keep(question, answer, pieces)
        if kept and parts.semantic is not None:
            await parts.semantic.keep(asked, question.name, answer)

    async def _pumped(self, question: Question, flight: Flight) -> tuple[Response, Sequence[Piece]]:
        """A stream to its end, each piece handed on as it comes."""
        parts, joiner = self._parts, Joiner()
        begun = parts.clock.monotonic()
        source = parts.inner.execute_streaming(question.request)
        try:
            async for chunk in source:
                joiner.add(chunk)
                if joiner.overflowed:
                    flight.forget()
                await flight.add(Piece(parts.clock.monotonic() - begun, chunk))
        finally:
            await close(source)
        answer = joiner.response(provider=parts.inner.name, model=question.request.model)
        return answer, () if joiner.overflowed else tuple(flight.pieces)

    async def _keep(self, question: Question, answer: Response, pieces: Sequence[Piece]) -> bool:
        """Keep it, if the policy allows it and there is room."""
        parts = self._parts
        reason = parts.policy.spurns(answer)
        if reason is None:
            request, wishes = question.request, question.wishes
            times = parts.lifetime.of(parts.clock.time(), parts.clock.random(), wishes.ttl)
            labels = parts.keyring.labels(
                models=(request.model, answer.model),
                prompt=request.prompt,
                tags=wishes.tags,
                tenant=question.scope,
            )
            kept = kept_stream(pieces, answer, times, labels) if pieces else kept_answer(answer, times, labels)
            reason = await parts.shelf.keep(question.name, question.scope, kept)
        if reason is not None:
            parts.tally.spurned(reason)
            return False
        parts.tally.kept()
        return True

    def _turn(self, question: Question) -> AbstractAsyncContextManager[Found | None]:
        """Wait until no other process asks for the same; what it has brought."""
        parts = self._parts
        if parts.leases is None or question.wishes.mode == "refresh":
            return nullcontext()
        return parts.leases.turn(question.name, partial(parts.shelf.fresh, question.name, question.scope))

    # ---- what is there already -------------------------------------------------------------------------------

    async def _landed_kept(self, question: Question, flight: Flight) -> bool:
        """In the store; memory has been looked at."""
        found = await self._parts.shelf.there(question.name, question.scope)
        if found is None:
            return False
        stale = found.kept.expires <= self._parts.clock.time()
        flight.land(_landed(found, "exact", "stale" if stale else "fresh"))
        if stale:
            self.refresh(question)
        return True

    async def _landed_similar(self, question: Question, verdict: Verdict, flight: Flight) -> bool:
        """The answer to a question in other words."""
        if verdict.key is None:
            return False
        found = await self._parts.shelf.fresh(verdict.key, question.scope)
        if found is None:
            return False
        flight.land(_landed(found, "semantic", verdict.reason, verdict.facts))
        return True

    def _replayed(self, landed: Landed) -> AsyncIterator[StreamChunk]:
        pieces = () if landed.found is None else landed.found.kept.chunks(landed.tier or "exact")
        return replayed(pieces, self._parts.replay, self._parts.clock)

    # ---- telling ---------------------------------------------------------------------------------------------

    async def _missed(self, question: Question, verdict: Verdict | None) -> None:
        store = self._parts.shelf.store
        facts: Mapping[str, object] = {}
        if question.anew:
            reason = question.anew
        elif verdict is not None:
            reason = verdict.reason if verdict.key is None else "gone"
            facts = {"tier": "semantic", **verdict.facts}
        else:
            reason = "absent" if store is None or store.trouble is None else "unavailable"
        await self._parts.notes.miss(question.caller, question.request.model, reason, facts)

    async def _found(self, question: Question, landed: Landed, leads: bool) -> None:
        await self._parts.notes.hit(
            question.caller,
            question.request.model,
            landed.reason if leads else "joined",
            worth=landed.worth,
            usage=landed.answer.usage,
            tier=landed.tier or "exact",
            found=None if landed.found is None else landed.found.kept,
            facts=landed.facts,
        )


def _landed(found: Found, tier: str, reason: str, facts: Mapping[str, object] = {}) -> Landed:
    return Landed(found.answer(tier), found.kept.cost, tier, found, reason, facts)


def _until(question: Question) -> float | None:
    """Until when one who only waits may wait, by the event loop's clock; for the one who asks, the model keeps it."""
    seconds = question.request.timeout
    return None if seconds is None else asyncio.get_running_loop().time() + seconds


def _is_personal(error: Exception) -> bool:
    """Whether it was the other's trouble, so that one may try for oneself."""
    return isinstance(error, _PERSONAL)


def _own(error: Exception, question: Question) -> Exception:
    """One error for each who gets it, for a traceback grows with every raise; and one's own time-out as what it is."""
    if type(error) is TimeoutError:
        seconds = question.request.timeout or 0.0
        return ModelTimeoutError("total", seconds, model=question.request.model)
    try:
        return copy.copy(error)
    except Exception:  # noqa: BLE001 - an error of somebody else's, that cannot be made again
        return error
