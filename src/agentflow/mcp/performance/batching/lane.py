"""One line of requests that can go together, on one event loop: gathers them, sends them, hands the answers out.

    ask ──▶ [ line ] ──decide──▶ batch ──▶ send ──▶ each his own answer, or error
                ▲                              └─ refused: halved, until the bad one stands alone
                └── looked at when something comes, comes back, or is due

Nothing is sent before the event loop's next turn, so that what is asked at the same time goes together; while nothing
is under way, nothing waits longer than that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context, copy_context
from typing import Final, Generic, TypeAlias, TypeVar

from agentflow.clock import Clock
from agentflow.errors import ProtocolError
from agentflow.llm.caller import Caller, asking_as, current_caller
from agentflow.mcp.performance.batching.bisecting import Bisects, answers_of, by_itself
from agentflow.mcp.performance.batching.item import Item
from agentflow.mcp.performance.batching.line import Line
from agentflow.mcp.performance.batching.portions import BatchBill
from agentflow.mcp.performance.batching.rules import BatchRules, Reason, decide
from agentflow.mcp.performance.batching.service_time import ServiceTime

__all__ = ["Lane", "SendMany"]

P = TypeVar("P")
A = TypeVar("A")

SendMany: TypeAlias = Callable[[Sequence[P]], Awaitable[Sequence[A | Exception]]]

_ROUNDING: Final = 1e-6  # seconds that a timer sleeps too long, not too short


class Lane(Generic[P, A]):
    """`model` is what events call it. Used on its own event loop alone."""

    def __init__(
        self, model: str, rules: BatchRules, send: SendMany[P, A], times: ServiceTime, bisects: Bisects, clock: Clock
    ) -> None:
        self._model = model
        self._rules = rules
        self._send = send
        self._times = times
        self._bisects = bisects
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._line: Line[P, A] = Line()
        self._under_way: set[asyncio.Task[None]] = set()
        self._look: asyncio.TimerHandle | asyncio.Handle | None = None
        self._draining = False

    @property
    def is_idle(self) -> bool:
        return not self._under_way and not len(self._line)

    async def ask(self, payload: P, *, size: int, tokens: int, longest: int, timeout: float | None) -> A:
        """The answer to one request. Whoever is cancelled is taken out, and others go on."""
        caller, now = current_caller(), self._clock.monotonic()
        for ledger in caller.ledgers:
            ledger.check()
        budget = self._rules.latency_budget
        deadline = now + (budget if timeout is None else min(budget, timeout))
        waiter: asyncio.Future[A] = self._loop.create_future()
        item = Item(payload, size, tokens, longest, caller, now, deadline, waiter, copy_context())
        self._line.push(item)
        self._look_soon()
        try:
            return await waiter
        except asyncio.CancelledError:
            self._leave(item)
            raise
        finally:
            if item.facts and waiter.done() and not waiter.cancelled():
                await caller.tell("batch", item.facts)

    async def drain(self) -> None:
        """Send all that waits, and wait until everything is answered."""
        self._draining = True
        try:
            while not self.is_idle:
                self._look_now()
                if self._under_way:
                    await asyncio.wait(list(self._under_way))
        finally:
            self._draining = False

    # ---- when ------------------------------------------------------------------------------------------------

    def _look_soon(self) -> None:
        if not isinstance(self._look, asyncio.TimerHandle) and self._look is not None:
            return
        self._forget_look()
        self._look = self._loop.call_soon(self._look_now, context=Context())

    def _look_now(self) -> None:
        self._forget_look()
        while len(self._line):
            now = self._clock.monotonic()
            gathered = self._line.gathered(self._rules)
            expected = self._times.expected(gathered.tokens or gathered.size)
            verdict = decide(self._rules, gathered, len(self._under_way), expected, now, draining=self._draining)
            if verdict.reason is None:
                if verdict.wait is not None:
                    wait = verdict.wait + _ROUNDING
                    self._look = self._loop.call_later(wait, self._look_now, context=Context())
                return
            self._start(self._line.take(self._rules), verdict.reason, now)

    def _forget_look(self) -> None:
        if self._look is not None:
            self._look.cancel()
            self._look = None

    # ---- a batch ---------------------------------------------------------------------------------------------

    def _start(self, batch: list[Item[P, A]], reason: Reason, now: float) -> None:
        self._note(batch, reason, now)
        context = batch[0].context if len(batch) == 1 else Context()  # limits of time and steps of others bind nobody
        task = self._loop.create_task(self._carry_out(batch), context=context)
        self._under_way.add(task)
        task.add_done_callback(self._back)

        def left() -> None:
            if all(item.gone for item in batch):
                task.cancel()

        for item in batch:
            item.left = left

    def _back(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()
        self._look_soon()

    def _note(self, batch: list[Item[P, A]], reason: Reason, now: float) -> None:
        """What is told of it, by one of each run."""
        told: set[object] = set()
        for item in batch:
            scope = item.caller.scope
            if scope is None or item.caller.run_id in told:
                continue
            told.add(item.caller.run_id)
            item.facts = {
                "model": self._model,
                "size": sum(each.size for each in batch),
                "reason": reason,
                "tokens": sum(each.tokens for each in batch),
                "waited": max(0.0, now - min(each.arrived for each in batch)),
            }

    async def _carry_out(self, batch: list[Item[P, A]]) -> None:
        bill = BatchBill()
        alone = len(batch) == 1
        try:
            with asking_as(batch[0].caller if alone else _all_of(batch).charging(bill)):
                answers = await answers_of(batch, self._send_some, self._bisects)
            for item, answer in zip(batch, answers, strict=True):
                _hand(item, answer)
        except Exception as error:  # noqa: BLE001 - a fault of ours is theirs to hear of
            for item in batch:
                _hand(item, error)
        finally:
            if not alone:
                bill.divide([item.caller.ledgers for item in batch], [item.tokens or item.size for item in batch])
            for item in batch:
                item.waiter.cancel()  # who has no answer yet: the event loop comes to its end

    async def _send_some(self, batch: Sequence[Item[P, A]]) -> Sequence[A | Exception]:
        begun = self._clock.monotonic()
        answers = await self._send([item.payload for item in batch])
        self._times.learn(self._work(batch), self._clock.monotonic() - begun)
        if len(answers) != len(batch):
            raise ProtocolError(f"{len(answers)} answers came for {len(batch)} requests", model=self._model)
        for item, answer in zip(batch, answers, strict=True):
            _hand(item, answer)  # while the other half is still being looked through
        return answers

    def _work(self, batch: Sequence[Item[P, A]]) -> int:
        size, tokens = sum(item.size for item in batch), sum(item.tokens for item in batch)
        return self._rules.weight(tokens, max(item.longest for item in batch), size) or size

    def _leave(self, item: Item[P, A]) -> None:
        if item.left is not None:
            item.left()
        elif not item.taken:
            self._line.remove(item)
            self._look_soon()


def _hand(item: Item[P, A], answer: A | Exception) -> None:
    if item.waiter.done():
        return
    if isinstance(answer, Exception):
        item.waiter.set_exception(by_itself(answer))
    else:
        item.waiter.set_result(answer)


def _all_of(batch: Sequence[Item[P, A]]) -> Caller:
    """Who asks for several: what they have in common. The one event of the model's call goes to the first of them."""
    first = batch[0].caller
    tenants = {item.caller.tenant for item in batch}
    flows = {item.caller.flow for item in batch}
    return Caller(
        tenant=first.tenant if len(tenants) == 1 else None,
        flow=first.flow if len(flows) == 1 else None,
        run_id=first.run_id,
        priority=min(item.caller.priority for item in batch),
        scope=first.scope,
    )
