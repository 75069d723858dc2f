"""One call on its way through a pipeline: what it asks for, how long it may take, and where its time went.

Operation(deadline, tokens, tenant, priority)  ──Pipeline──▶  queue 0.2 s, limiter 1.2 s, backoff 0.8 s, 2 attempts
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from math import inf
from typing import TYPE_CHECKING, Any, TypeAlias

from agentflow.clock import Clock
from agentflow.core.robustness.shedding import Priority
from agentflow.core.robustness.timing import Timing, account

if TYPE_CHECKING:
    from agentflow.core.observability.scope import Scope
    from agentflow.core.robustness.attempt import Attempt
    from agentflow.core.robustness.deadline import Deadline
    from agentflow.core.robustness.load_shedder import Ticket
    from agentflow.core.robustness.retry import RetryPolicy

__all__ = ["Operation", "Remark", "Tell"]

Tell: TypeAlias = Callable[[str, Mapping[str, object], int], Awaitable[None]]
"""Takes a decision to whoever watches: its kind, its facts, and the number of the attempt it belongs to."""

Remark: TypeAlias = Callable[[str, Mapping[str, object], int], None]
"""The same where nothing may wait."""


class Operation:
    """What one call brings along, used by one task; hedged calls have one each. A call that broke after it had begun
    goes on with it (`Pipeline.again`): attempts and times add up. `key` is the idempotency key of its attempts, where
    it must be the same in another process; hedged calls beside the first have others.

    `policy` is the caller's own word on repeating, over the pipeline's, and `clock` the one it is timed by. `tell` and
    `remark` are None where nobody watches, `scope` where nobody wants to hear of single attempts. Of hedged calls all
    but one are lost: `on_loss` hears of each that was sent, for it may cost money, and `on_drop` gets what it had given
    already, to be closed.
    """

    __slots__ = (
        "attempts",
        "backoff",
        "begun",
        "clock",
        "connect",
        "deadline",
        "failed",
        "input_tokens",
        "key",
        "limiter",
        "on_drop",
        "on_loss",
        "output_tokens",
        "policy",
        "pool",
        "prior",
        "priority",
        "queue",
        "remark",
        "scope",
        "sent",
        "tell",
        "tenant",
        "ticket",
    )

    def __init__(
        self,
        deadline: Deadline,
        input_tokens: int = 0,
        output_tokens: int = 0,
        tenant: str | None = None,
        priority: Priority = Priority.NORMAL,
        *,
        policy: RetryPolicy | None = None,
        clock: Clock | None = None,
        tell: Tell | None = None,
        remark: Remark | None = None,
        on_loss: Callable[[], None] | None = None,
        on_drop: Callable[[Any], Awaitable[None]] | None = None,
    ) -> None:
        self.deadline = deadline
        self.input_tokens = input_tokens
        self.output_tokens = output_tokens
        self.tenant = tenant
        self.priority = priority
        self.policy = policy
        self.clock = clock
        self.tell = tell
        self.remark = remark
        self.scope: Scope | None = None
        self.key: str | None = None
        self.on_loss = on_loss
        self.on_drop = on_drop
        self.attempts = 0
        self.queue = self.limiter = self.pool = self.backoff = self.failed = self.connect = 0.0
        self.begun = inf  # when the attempt that runs, or has succeeded, began
        self.sent = False
        self.prior: Attempt | None = None  # of a call that is begun anew, the one that broke
        self.ticket: Ticket | None = None

    def leg(self, deadline: Deadline) -> Operation:
        """The same once more, for a hedged call beside this one."""
        leg = Operation(
            deadline,
            self.input_tokens,
            self.output_tokens,
            self.tenant,
            self.priority,
            policy=self.policy,
            clock=self.clock,
            tell=self.tell,
            remark=self.remark,
        )
        leg.ticket, leg.attempts, leg.scope = self.ticket, self.attempts, self.scope
        return leg

    def adopt(self, leg: Operation) -> None:
        """The leg that won: its account is that of the whole call."""
        self.attempts, self.begun, self.sent = leg.attempts, leg.begun, leg.sent
        self.limiter += leg.limiter
        self.pool += leg.pool
        self.backoff += leg.backoff
        self.failed += leg.failed
        self.connect += leg.connect

    def waits(self) -> dict[str, float]:
        """What was waited for until now, in seconds; without what was not."""
        waits = {"queue": self.queue, "limiter": self.limiter, "pool": self.pool, "backoff": self.backoff}
        return {name: seconds for name, seconds in waits.items() if seconds > 0.0}

    def broke(self, now: float) -> None:
        """What had begun well has failed: the time since counts as the failed attempt's."""
        self.failed += max(0.0, now - self.begun)
        self.begun = inf

    def lose(self) -> None:
        if self.on_loss is not None:
            self.on_loss()

    async def drop(self, value: object) -> None:
        if self.on_drop is not None:
            await self.on_drop(value)

    def timing(self, now: float, started: float, first: float | None = None) -> Timing:
        """The account so far; `started` is when the call began and `first` when its first piece came."""
        answering = now - (self.begun if first is None else first)
        return account(
            self.queue,
            self.limiter,
            self.pool,
            self.backoff,
            self.failed,
            self.connect,
            None if first is None else first - self.begun,
            max(0.0, answering),
            now - started,
            self.attempts,
        )
