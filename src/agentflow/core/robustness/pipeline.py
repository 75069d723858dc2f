"""All guards around one kind of call, in the order that is right, fused into one coroutine.

    pipeline = Pipeline("search", timeout=60, retry=RetryPolicy(), limiter=limiter, breaker=breaker)
    found = await pipeline.run(lambda: search("tides"))

    total time-out ─▶ shedder ─▶ hedge ─▶ retry ─▶ each attempt: limiter, rates and a slot ─▶ pool ─▶
    breaker's permit, last ─▶ attempt time-out ─▶ faults ─▶ the call ─▶ settle and record, at once

The order is fixed: what is around the retry is paid once, what is inside it by each attempt; nothing waits for a
provider that is known to be down; and a permit of the breaker is never held while something waits. Whoever wants
another order puts one pipeline into another.

The caller's cancellation gives everything back and records nothing. What is settled or recorded is so synchronously, so
that no second cancellation can come between.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar, cast

from agentflow.clock import Clock, SystemClock
from agentflow.core.cancellation import failure_of
from agentflow.core.robustness.attempt import Attempt, current_attempt
from agentflow.core.robustness.deadline import Deadline
from agentflow.core.robustness.held import Held, Reached, is_ours
from agentflow.core.robustness.operation import Operation
from agentflow.core.robustness.retry import Repetition, RetryPolicy, inherited_policy
from agentflow.core.robustness.shedding import Priority, is_overload
from agentflow.core.robustness.time_limit import bounded_by_context
from agentflow.core.robustness.usual_time import UsualTime
from agentflow.errors import RejectedError, describe

if TYPE_CHECKING:  # a pipeline loads no guard that nobody has made
    from agentflow.core.observability.scope import Scope
    from agentflow.core.robustness.fault_injector import FaultInjector
    from agentflow.core.robustness.hedging import Hedge
    from agentflow.core.robustness.limiting import Breaker, Limiter
    from agentflow.core.robustness.load_shedder import LoadShedder, Ticket
    from agentflow.core.robustness.resource_pool import ResourcePool
    from agentflow.core.robustness.retry_budget import RetryBudget

__all__ = ["Pipeline", "lent"]

P = ParamSpec("P")
R = TypeVar("R")

Work = Callable[[], Awaitable[R]]

_SENT: Final = Reached.SENT  # looked up for each call
_BEGUN: Final = Reached.BEGUN


class Pipeline:
    """Frozen, and shared by all calls of its kind, tasks, event loops and threads. `PipelineBuilder` makes one, too.

    A stage that is None costs nothing. `repeats` are the errors that may be repeated at all. A `pool` lends each
    attempt a resource, which `lent(pool)` gives inside the call. `describe()` is the whole of it in words.

    `run` raises what the call raises, in the end the original error with the earlier attempts as notes; a
    `RejectedError` where a guard refused; an OperationTimeoutError where a limit of ours expired.
    """

    __slots__ = (
        "_all_attempts_timeout",
        "_attempt_timeout",
        "_breaker",
        "_budget",
        "_clock",
        "_faults",
        "_hedge",
        "_limiter",
        "_plain",
        "_pool",
        "_repeats",
        "_retry",
        "_shedder",
        "_timeout",
        "_usual",
        "_waits",
        "hedges",
        "name",
    )

    def __init__(
        self,
        name: str = "pipeline",
        *,
        timeout: float | None = None,
        shedder: LoadShedder | None = None,
        hedge: Hedge | None = None,
        retry: RetryPolicy | None = None,
        budget: RetryBudget | None = None,
        repeats: tuple[type[Exception], ...] = (Exception,),
        limiter: Limiter | None = None,
        pool: ResourcePool[Any] | None = None,
        breaker: Breaker | None = None,
        attempt_timeout: float | None = None,
        faults: FaultInjector | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.name = name
        self._timeout = _seconds("timeout", timeout)
        self._shedder = shedder
        self._usual = UsualTime()
        self._hedge = hedge
        self._retry = retry
        self._budget = budget if budget is not None or retry is None else retry.budget
        self._repeats = repeats
        self._limiter = limiter
        self._pool = pool
        self._breaker = breaker
        self._attempt_timeout = _seconds("attempt_timeout", attempt_timeout)
        self._faults = faults
        self.hedges: Final = hedge is not None
        """Whether a call may be made twice at the same time."""
        self._plain = attempt_timeout is None and faults is None
        self._waits = limiter is not None or shedder is not None  # where a call may have to wait
        self._clock = clock or SystemClock()

    # ---- using it --------------------------------------------------------------------------------------------

    async def run(
        self,
        function: Work[R],
        *,
        timeout: float | None = None,
        input_tokens: int = 0,
        output_tokens: int = 0,
        tenant: str | None = None,
        priority: Priority = Priority.NORMAL,
    ) -> R:
        """What `function()` returns, after as many attempts as that takes. `timeout` (seconds) wins over the
        pipeline's; the tokens are what the limiter reserves."""
        deadline = self.deadline(timeout)
        try:
            # By position: the names of a class's arguments cost as much as the arguments.
            operation = Operation(deadline, input_tokens, output_tokens, tenant, priority)
            held = await self.open(function, operation)
            held.succeed()
            return held.value
        finally:
            deadline.close()

    def __call__(self, function: Callable[P, Awaitable[R]]) -> Callable[P, Coroutine[Any, Any, R]]:
        """The function, guarded: `@pipeline`."""

        @functools.wraps(function)
        async def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            return await self.run(lambda: function(*args, **kwargs))

        return guarded

    def deadline(self, seconds: float | None = None) -> Deadline:
        """The limit of one call: `seconds`, else the pipeline's own, and never later than what is around it allows."""
        return Deadline(bounded_by_context(self._timeout if seconds is None else seconds), self.name)

    def having(self, name: str, *, retry: RetryPolicy | None = None, attempt_timeout: float | None = None) -> Pipeline:
        """The same guards, shared with this one, under another name and with these in place of its own where given."""
        return Pipeline(
            name,
            timeout=self._timeout,
            shedder=self._shedder,
            hedge=self._hedge,
            retry=retry or self._retry,
            budget=self._budget,
            repeats=self._repeats,
            limiter=self._limiter,
            pool=self._pool,
            breaker=self._breaker,
            attempt_timeout=attempt_timeout or self._attempt_timeout,
            faults=self._faults,
            clock=self._clock,
        )

    @property
    def breaker(self) -> Breaker | None:
        """The circuit breaker that its calls pass."""
        return self._breaker

    @property
    def counts_tokens(self) -> bool:
        """Whether the limiter wants to know how many tokens a call takes."""
        return self._limiter is not None and self._limiter.counts_tokens

    @property
    def repeats(self) -> bool:
        """Whether a call may be made again."""
        return self._retry is not None

    async def open(self, work: Work[R], operation: Operation) -> Held[R]:
        """As `run`, for a call that goes on after `work` has returned, such as a stream: what it holds is held until
        the caller says how it ended."""
        shedder, ticket = self._shedder, None
        if shedder is not None:
            ticket = shedder.try_admit(operation.priority, operation.tenant)
            if ticket is None:
                ticket = await self._admitted(shedder, operation)
            operation.ticket = ticket
        try:
            if self._hedge is None:
                held = await self._attempts(work, operation)
            else:
                held = await self._hedged(self._hedge, work, operation)
        except BaseException as error:
            if ticket is not None:
                ticket.end(error)
            raise
        held.ticket = ticket
        return held

    def repetition(self, operation: Operation) -> Repetition | None:
        """Keeps count for a call that breaks after it has begun. None where it is not to be begun anew: the policy
        that holds says so with `after_first_chunk`."""
        policy = operation.policy or (inherited_policy() if self._retry is not None else None) or self._retry
        if policy is None or not policy.after_first_chunk:
            return None
        clock = operation.clock or self._clock
        return Repetition(self._with_budget(policy), Attempt(operation.policy), clock, operation.deadline)

    async def again(
        self, work: Work[R], operation: Operation, broken: Held[R], failure: Exception, repetition: Repetition
    ) -> Held[R] | None:
        """Open it anew, after a wait; None where there is no point in it. `broken` was told of its `failure`."""
        if not isinstance(failure, self._repeats):
            return None
        operation.broke((operation.clock or self._clock).monotonic())
        operation.prior, broken.attempt.account = broken.attempt, None
        repetition.attempt.number = operation.attempts
        if not await self._paused(failure, repetition, operation):
            return None
        try:
            return await self.open(work, operation)
        except RejectedError as refusal:
            repetition.give_up(failure, f"not tried again: {describe(refusal)}")  # what is wrong is what came before
            return None
        except Exception as error:
            repetition.give_up(error)
            raise

    def describe(self) -> str:
        """Every stage in the order in which a call passes it, one a line."""
        from agentflow.core.robustness.stages import described

        return described(
            self.name,
            {
                "timeout": self._timeout,
                "shed": self._shedder,
                "hedge": self._hedge,
                "retry": self._retry,
                "budget": self._budget,
                "limit": self._limiter,
                "pool": self._pool,
                "breaker": self._breaker,
                "attempt_timeout": self._attempt_timeout,
                "faults": self._faults,
            },
        )

    # ---- the stages ------------------------------------------------------------------------------------------

    async def _admitted(self, shedder: LoadShedder, operation: Operation) -> Ticket:
        try:
            wait = self._usual.wait(operation.deadline.remaining)
            ticket = await shedder.admit(operation.priority, operation.tenant, timeout=wait)
        except RejectedError as error:
            await _refused(operation, error)
            raise
        operation.queue += ticket.waited
        if operation.tell is not None:
            try:
                await operation.tell("shedder_wait", {"guard": shedder.name, "seconds": ticket.waited}, 1)
            except BaseException as error:  # cancelled while a reader was behind: nobody else knows the ticket yet
                ticket.end(error)
                raise
        return ticket

    async def _hedged(self, hedge: Hedge, work: Work[R], operation: Operation) -> Held[R]:
        """The first of several that begins well; the others are cancelled, and told so."""
        legs: list[Operation] = []
        clock = operation.clock or self._clock
        began = clock.monotonic()

        async def leg() -> Held[R]:
            deadline = operation.deadline.beside()
            mine = operation.leg(deadline)
            mine.failed = clock.monotonic() - began  # until then the others have run for nothing
            legs.append(mine)
            if len(legs) == 1:
                mine.key = operation.key  # a second request with the same key would be taken for the first
            if len(legs) > 1 and operation.tell is not None:
                await operation.tell("hedge", {"guard": hedge.name, "number": len(legs)}, 1)
            try:
                held = await self._attempts(work, mine)
            except asyncio.CancelledError:
                if mine.sent:
                    operation.lose()
                raise
            finally:
                deadline.close()
            held.leg = mine
            return held

        async def lose(held: Held[R]) -> None:
            held.leave()
            operation.lose()
            await operation.drop(held.value)

        try:
            held = await hedge.run_opened(leg, lose)
        except Exception:
            if legs:
                operation.adopt(legs[0])  # whose error it is
            raise
        operation.adopt(held.leg)
        return held

    async def _attempts(self, work: Work[R], operation: Operation) -> Held[R]:
        """Attempts until one succeeds, or until there is no point in another."""
        explicit = operation.policy
        attempt = Attempt(explicit, operation.key)
        if explicit is None and attempt.outer is not None and self._retry is not None:
            explicit = attempt.policy = inherited_policy()
        policy = explicit or self._retry
        if operation.attempts:
            attempt.follow(operation.attempts, operation.prior)
        elif self._budget is not None:
            self._budget.request()
        attempt.account, attempt.deadline = operation, operation.deadline
        repetition: Repetition | None = None
        failure: Exception | None = None
        last: Exception | None = None
        try:
            while True:
                operation.attempts, operation.sent = attempt.number, False
                try:
                    return await self._attempt(work, operation, attempt)
                except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - repeated, or raised below
                    failure = failure_of(error)
                if repetition is not None and last is not None and not operation.sent:
                    repetition.give_up(last, f"not tried again: {describe(failure)}")  # what is wrong came before
                    raise last
                if policy is None or not isinstance(failure, self._repeats):
                    raise failure
                if repetition is None:
                    clock = operation.clock or self._clock
                    repetition = Repetition(self._with_budget(policy), attempt, clock, operation.deadline)
                last = failure
                if not await self._paused(failure, repetition, operation):
                    raise failure
        finally:
            failure = last = None  # its traceback knows this frame

    async def _attempt(self, work: Work[R], operation: Operation, attempt: Attempt) -> Held[R]:
        limiter, breaker = self._limiter, self._breaker
        deadline, clock = operation.deadline, operation.clock or self._clock
        deadline.check()
        held: Held[R] = Held(limiter, attempt)
        try:
            if limiter is not None:
                held.reservation = limiter.try_reserve(
                    input_tokens=operation.input_tokens, output_tokens=operation.output_tokens
                )
                if held.reservation is None:
                    if breaker is not None:
                        breaker.check()  # nobody queues for what is known to be down
                    await self._reserved(limiter, held, operation)
            if self._pool is not None:
                await self._lent(self._pool, held, operation)
            if breaker is not None:
                if operation.remark is not None:
                    held.settled = functools.partial(_announce, breaker, operation)
                    held.settled()  # time alone may have changed it
                held.permit = breaker.acquire()
            if operation.scope is not None:
                held.scope = attempt.scope = _attempt_scope(operation.scope, attempt.number)
            operation.begun = clock.monotonic()
            token = current_attempt.set(attempt)
            held.reached = _SENT
            operation.sent = True
            try:
                with deadline:
                    held.value = await (work() if self._plain else self._call(work, operation))
            finally:
                try:  # noqa: SIM105 - suppress() would cost each attempt
                    current_attempt.reset(token)
                except ValueError:  # closed from outside, in another context
                    pass
            held.reached = _BEGUN
            if self._waits:
                self._usual.learn(clock.monotonic() - operation.begun)
            return held
        except BaseException as error:
            await self._failed(error, held, operation)
            raise

    async def _failed(self, error: BaseException, held: Held[R], operation: Operation) -> None:
        """An attempt has ended so: give back, record, and tell whoever watches."""
        sent = held.reached is not Reached.TAKEN and not is_ours(error)
        held.fail(error)
        if sent:
            operation.broke((operation.clock or self._clock).monotonic())
        if operation.tell is not None and isinstance(error, RejectedError):
            await _refused(operation, error)

    async def _call(self, work: Work[R], operation: Operation) -> R:
        """The call, with faults, within the limit of one attempt."""
        limit = Deadline(self._attempt_timeout, self.name)
        attempt = current_attempt.get()
        if attempt is not None and limit.remaining < operation.deadline.remaining:
            attempt.deadline = limit  # what runs inside has no more time than this
        try:
            with limit:
                return await self._faulty(work)
        finally:
            limit.close()
            if attempt is not None:
                attempt.deadline = operation.deadline

    async def _faulty(self, work: Work[R]) -> R:
        if self._faults is not None:
            await self._faults.before()
        return await work()

    async def _reserved(self, limiter: Limiter, held: Held[Any], operation: Operation) -> None:
        held.reservation = reservation = await limiter.reserve(
            input_tokens=operation.input_tokens,
            output_tokens=operation.output_tokens,
            timeout=self._usual.wait(operation.deadline.remaining),
        )
        operation.limiter += reservation.waited
        if operation.tell is not None and reservation.waited:
            facts = {"guard": self.name, "seconds": reservation.waited}
            await operation.tell("limiter_wait", facts, operation.attempts)

    async def _lent(self, pool: ResourcePool[object], held: Held[Any], operation: Operation) -> None:
        clock = operation.clock or self._clock
        since = clock.monotonic()
        held.lease = lease = await pool.acquire(timeout=_left(operation.deadline))
        held.attempt.resource = (pool, lease.resource)
        waited = clock.monotonic() - since
        operation.pool += waited
        if operation.tell is not None and waited > 0.0:
            await operation.tell("pool_wait", {"guard": pool.name, "seconds": waited}, operation.attempts)

    async def _paused(self, failure: Exception, repetition: Repetition, operation: Operation) -> bool:
        """Wait until the next attempt. Whether there is one."""
        number = repetition.attempt.number
        delay = repetition.after(failure)
        if delay is None:
            return False
        if operation.tell is not None:
            facts = {"error": describe(failure), "error_type": type(failure).__name__, "delay": delay}
            await operation.tell("retry", facts, number)
        if operation.ticket is not None and is_overload(failure):
            operation.ticket.strained()
        await (operation.clock or self._clock).sleep(delay)
        operation.backoff += delay
        return True

    def _with_budget(self, policy: RetryPolicy) -> RetryPolicy:
        """A caller's own policy shares the pipeline's budget, unless it brings one."""
        return policy if self._budget is None or policy.budget is not None else replace(policy, budget=self._budget)


def lent(pool: ResourcePool[R]) -> R:
    """What the pipeline around this code has taken from `pool` for this attempt. Raises LookupError outside of one."""
    attempt = current_attempt.get()
    while attempt is not None:
        if isinstance(attempt.resource, tuple) and attempt.resource[0] is pool:
            return cast("R", attempt.resource[1])
        attempt = attempt.outer
    raise LookupError("nothing of this pool is lent here: call it inside a pipeline that has this pool as a stage")


def _attempt_scope(scope: Scope, number: int) -> Scope:
    """Whoever watches hears that an attempt begins. Nothing waits here: a permit of the breaker may be held."""
    inner = scope.inside()
    inner.common = scope.common
    inner.counts = False  # the call itself says where its time went
    inner.enter("attempt_start", scope.common, attempt=number)
    return inner


def _announce(breaker: Breaker, operation: Operation) -> None:
    """Whoever watches hears what a breaker has become since it was told of last: by this call, another, or time."""
    before, state = breaker.announced, breaker.state
    if state is before or operation.remark is None:
        return
    breaker.announced = state
    facts = {"guard": breaker.name, "from": before.value, "to": state.value, "retry_after": breaker.retry_after}
    operation.remark("breaker_state", facts, max(1, operation.attempts))


async def _refused(operation: Operation, error: RejectedError) -> None:
    if operation.tell is not None:
        facts = {"guard": error.guard, "error": str(error), "error_type": type(error).__name__}
        await operation.tell("rejected", {**facts, "retry_after": error.retry_after}, max(1, operation.attempts))


def _left(deadline: Deadline) -> float | None:
    left = deadline.remaining
    return None if left == float("inf") else left


def _seconds(name: str, value: float | None) -> float | None:
    if value is not None and not value > 0:
        raise ValueError(f"{name} is seconds above 0, or None for no limit, not {value!r}")
    return value
