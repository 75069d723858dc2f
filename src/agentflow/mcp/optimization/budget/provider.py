"""A provider whose every call is within a budget, whatever is inside: a model, a router, a cascade.

    model = BudgetedProvider(OpenAIProvider(…), Budget(per_day=20.0))
    await model.execute(Request("gpt-4o", (Message("user", "Hi"),), max_tokens=200))
        reserve what it may cost at most ──▶ ask ──▶ settle what it cost

What inner requests have cost is read from a ledger of the call's own, so that retries, hedges, streams that were left
and every stage of a cascade count. Where a request was sent and nobody knows its cost (it timed out, its caller was
cancelled), the reservation stays, and lapses into spent: `budget.correct(call, cost)` puts it right.

Whoever watches hears `budget` events: allowed, settled, held, warned (a threshold was passed), overrun (a call cost
more than its bound), unbounded (a soft budget let through what it cannot bound) and refused.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Final, TypeVar

from agentflow.clock import Clock, SystemClock
from agentflow.core.accounts import Standing
from agentflow.errors import BudgetExceededError, RejectedError, UnboundedCostError, UnsupportedError
from agentflow.llm.caller import Caller, asking_as, current_caller, steps_as
from agentflow.llm.config.prices import Price, Rates
from agentflow.llm.messages import EmbeddingRequest, Embeddings, Request, Response, StreamChunk
from agentflow.llm.providers.base import LLMProvider
from agentflow.llm.streaming.stream import close
from agentflow.mcp.optimization.budget.budget import Budget, Reservation
from agentflow.mcp.optimization.budget.meter import Meter, cost_nothing
from agentflow.mcp.optimization.budget.money import charged, dollars
from agentflow.mcp.optimization.budget.tariffs import Costs, Stated

__all__ = ["BudgetedProvider"]

A = TypeVar("A", Response, Embeddings)
_CLOCK: Final = SystemClock()


class BudgetedProvider:
    """`price`, `max_output` and `context` (tokens) are the model's, where the package's table does not know them;
    `ceiling` is what a call is taken to cost at most where that cannot be told (US dollars). `costs` says all of that
    in another way. Raises BudgetExceededError, BudgetUnavailableError, UnboundedCostError, and what `inner` does."""

    def __init__(
        self,
        inner: LLMProvider,
        budget: Budget,
        *,
        price: Price | Rates | None = None,
        max_output: int | None = None,
        context: int | None = None,
        ceiling: float | None = None,
        costs: Costs | None = None,
        clock: Clock = _CLOCK,
        model: str | None = None,
    ) -> None:
        self.inner = inner
        self.budget = budget
        self._model = model
        stated = Stated(inner.name, clock, price=price, max_output=max_output, context=context)
        self._costs = costs or Costs(stated, ceiling)

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def schemas(self) -> bool:
        """Whether the API inside has words for the schema of an answer."""
        return bool(getattr(self.inner, "schemas", True))

    async def execute(self, request: Request) -> Response:
        call = await self._open(request)
        try:
            with asking_as(call.inside):
                answer = await self.inner.execute(request)
        except BaseException as error:
            await call.failed(error)
            raise
        await call.ended(self._cost(answer))
        return answer

    async def execute_streaming(self, request: Request) -> AsyncGenerator[StreamChunk, None]:
        """A stream that is left, or breaks, has cost what its ledger says, or what is reserved."""
        call = await self._open(request)
        source = steps_as(call.inside, self.inner.execute_streaming(request))
        tally = _Tally(self._costs, request.model)
        try:
            try:
                async for chunk in source:
                    tally.note(chunk)
                    yield chunk
            finally:
                await close(source)  # what has come is noted in the ledger then
        except BaseException as error:
            await call.failed(error, begun=tally.begun)
            raise
        await call.ended(tally.cost)

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        """Raises UnsupportedError where the provider inside has no embeddings."""
        embed = getattr(self.inner, "embed", None)
        if embed is None:
            raise UnsupportedError(f"provider {self.name!r} has no embeddings")
        call = await self._open(request)
        try:
            with asking_as(call.inside):
                found: Embeddings = await embed(request)
        except BaseException as error:
            await call.failed(error)
            raise
        await call.ended(self._cost(found))
        return found

    async def count_tokens(self, request: Request) -> int:
        """By the provider inside; it costs nothing. Raises UnsupportedError where that does not count."""
        count = getattr(self.inner, "count_tokens", None)
        if count is None:
            raise UnsupportedError(f"provider {self.name!r} does not count tokens")
        counted: int = await count(request)
        return counted

    async def aclose(self) -> None:
        try:
            await self.inner.aclose()
        finally:
            await self.budget.aclose()

    async def _open(self, request: Request | EmbeddingRequest) -> _Call:
        caller = current_caller()
        told = _Told(caller, self._model or request.model)
        amount = 0
        try:
            amount = self._costs.most(request)
        except UnboundedCostError as error:
            if self.budget.is_hard:
                await told.refused(self.budget.account, error)
                raise
            await told.say("unbounded", None, reason=str(error), account=self.budget.account)
        try:
            reservation = await self.budget.reserve(amount, caller)
        except RejectedError as error:
            await told.refused(self.budget.account, error)
            raise
        return await _Call(self.budget, reservation, told).begun()

    def _cost(self, answer: Response | Embeddings) -> float | None:
        if answer.cost is not None or answer.usage is None:
            return answer.cost
        tier = answer.service_tier if isinstance(answer, Response) else None
        return self._costs.cost(answer.model, answer.usage, tier)


class _Call:
    """One call under way: its reservation, and what is noted of it."""

    __slots__ = ("_budget", "_meter", "_reservation", "_told", "inside")

    def __init__(self, budget: Budget, reservation: Reservation, told: _Told) -> None:
        self._budget = budget
        self._reservation = reservation
        self._told = told
        self._meter = Meter()
        self.inside = told.caller.charging(self._meter)

    async def begun(self) -> _Call:
        try:
            if self._told.caller.watched:
                await self._told.say("allowed", self._reservation.tightest, reason="there is room", **self._facts())
        except BaseException:
            self._reservation.settle_soon(0)
            raise
        return self

    async def ended(self, said: float | None) -> None:
        """It was answered, and the answer says what it has cost."""
        amount = self._meter.cost if self._meter.noted else None if said is None else charged(said)
        if amount is None:
            await self._hold("nobody knows what it has cost")
        else:
            await self._settle(amount, "answered")

    async def failed(self, error: BaseException, *, begun: bool = False) -> None:
        """It was not. A stream of which something had come is in the ledger, where there is one."""
        known = cost_nothing(error) or (begun and self._meter.noted > 0)
        amount = self._meter.cost if known else None
        if not isinstance(error, Exception):
            self._left(amount)
            return
        if amount is None:
            await self._hold(f"it may have been billed: {type(error).__name__}")
        else:
            await self._settle(amount, type(error).__name__)

    def _left(self, amount: int | None) -> None:
        """Its caller is gone, so nothing can be waited for."""
        if amount is not None:
            self._reservation.settle_soon(amount)
        elif self._told.caller.watched:
            reason = "it may have been billed: its caller has left"
            self._told.remark("held", self._reservation.tightest, reason=reason, **self._facts())

    async def _settle(self, amount: int, reason: str) -> None:
        standings = await self._reservation.settle(amount)
        if not self._told.caller.watched:
            return
        facts = {**self._facts(), "cost": dollars(amount)}
        await self._told.say("settled", _tightest(standings), reason=reason, **facts)
        if amount > self._reservation.amount > 0:
            await self._told.say("overrun", _tightest(standings), reason="it cost more than its bound", **facts)
        await self._warn(standings)

    async def _hold(self, reason: str) -> None:
        """It stays reserved, at its upper bound, unless more is known to be gone already."""
        if self._meter.known > self._reservation.amount:
            await self._settle(self._meter.known, reason)
            return
        if self._told.caller.watched:
            await self._told.say("held", self._reservation.tightest, reason=reason, **self._facts())

    async def _warn(self, standings: tuple[Standing, ...]) -> None:
        for standing in standings:
            passed = self._budget.passed(standing)
            if passed is not None:
                await self._told.say("warned", standing, reason=f"{passed:.0%} of the limit are spent")

    def _facts(self) -> dict[str, object]:
        return {"reserved": dollars(self._reservation.amount), "call": self._reservation.call}


class _Told:
    """Whoever watches, and what they are told."""

    __slots__ = ("_model", "caller")

    def __init__(self, caller: Caller, model: str) -> None:
        self.caller = caller
        self._model = model

    async def say(self, decision: str, standing: Standing | None, **facts: object) -> None:
        if self.caller.watched:
            await self.caller.tell("budget", self._all(decision, standing, facts))

    def remark(self, decision: str, standing: Standing | None, **facts: object) -> None:
        """The same, and nobody is waited for."""
        if self.caller.scope is not None:
            self.caller.scope.remark("budget", self._all(decision, standing, facts))

    def _all(self, decision: str, standing: Standing | None, facts: Mapping[str, object]) -> Mapping[str, object]:
        told: dict[str, object] = {"model": self._model, "decision": decision, "account": "", **facts}
        if standing is not None:
            told.update(_facts_of(standing))
        if self.caller.tenant is not None:
            told["tenant"] = self.caller.tenant
        return told

    async def refused(self, account: str, error: Exception) -> None:
        facts: dict[str, object] = {"account": account, "reason": str(error)}
        if isinstance(error, BudgetExceededError):
            spent = error.spent + error.reserved
            facts |= {"account": error.account, "limit": error.limit, "spent": spent, "reserved": error.needed}
        await self.say("refused", None, **facts)


class _Tally:
    """What a stream says of its cost, where no ledger is told."""

    __slots__ = ("_costs", "_model", "_tier", "begun", "cost")

    def __init__(self, costs: Costs, model: str) -> None:
        self._costs = costs
        self._model = model
        self._tier: str | None = None
        self.begun = False
        self.cost: float | None = None

    def note(self, chunk: StreamChunk) -> None:
        self.begun = True
        self._model = chunk.model or self._model
        self._tier = chunk.service_tier or self._tier
        if chunk.cost is not None:
            self.cost = chunk.cost
        elif chunk.usage is not None:
            self.cost = self._costs.cost(self._model, chunk.usage, self._tier)


def _tightest(standings: tuple[Standing, ...]) -> Standing | None:
    return min(standings, key=lambda each: each.limit - each.taken, default=None)


def _facts_of(standing: Standing) -> Mapping[str, object]:
    return {"account": standing.account, "spent": dollars(standing.taken), "limit": dollars(standing.limit)}
