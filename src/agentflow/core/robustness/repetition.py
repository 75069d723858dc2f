"""The repetitions of one operation: counted, noted, and ended where time, the budget or the rules say so.

repetition = Repetition(policy, attempt, clock)
wait = repetition.after(error)             seconds until the next attempt; None: raise the error
"""

from __future__ import annotations

import asyncio

from agentflow.clock import Clock
from agentflow.core.robustness.attempt import Attempt, mark_owned
from agentflow.core.robustness.deadline import Deadline, is_bounded_by
from agentflow.core.robustness.decision import tell
from agentflow.core.robustness.notes import add_notes, brief
from agentflow.core.robustness.retry_rules import RetryRules

__all__ = ["Repetition"]


class Repetition:
    """Keeps count for one operation: asked after each failure, it says how long to wait, or that this was the last.

    `attempt` is counted up with each repetition. The budget is told of the first attempt by whoever makes it.
    """

    __slots__ = ("_clock", "_earlier", "_previous", "attempt", "deadline", "policy")

    def __init__(self, policy: RetryRules, attempt: Attempt, clock: Clock, deadline: Deadline | None = None) -> None:
        self.policy = policy
        self.attempt = attempt
        self._clock = clock
        self.deadline = deadline
        self._earlier: list[str] = []
        self._previous: float | None = None

    def after(self, error: Exception) -> float | None:
        """Seconds until the next attempt. None: raise `error`, which has its notes and marks now."""
        wait = self._next_wait(error)
        if wait is None:
            self.give_up(error)
            return None
        policy, number = self.policy, self.attempt.number
        self._earlier.append(f"attempt {number} of {policy.max_attempts}: {brief(error)}; waited {wait:.3g} s")
        self._previous = wait
        self.attempt.number = number + 1
        tell(policy.listener, "retry", policy.name, attempt=number, error=type(error).__name__, delay=wait)
        return wait

    def _next_wait(self, error: Exception) -> float | None:
        policy, number = self.policy, self.attempt.number
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            return None  # somebody made another error of the caller's cancellation
        if not policy.allows(number, error, self.attempt.began):
            return None
        wait = policy.wait_for(number, error, self._clock.random(), self._previous)
        if not self._has_time_for(wait):
            self._earlier.append(f"not tried again: the next wait, {wait:.3g} s, would outlast the time left")
            return None
        if policy.budget is not None and not policy.budget.try_spend():
            self._earlier.append("not tried again: the retry budget is used up")
            return None
        return wait

    def _has_time_for(self, wait: float) -> bool:
        if self.deadline is not None and not self.deadline.allows(wait):
            return False
        return not is_bounded_by(asyncio.get_running_loop().time() + wait)

    def give_up(self, error: Exception, why: str | None = None) -> None:
        """Mark and note what is raised now; `why` is a last note, where it might have been tried again."""
        if why is not None:
            self._earlier.append(why)
        if self.policy.max_attempts > 1:  # who never repeats leaves that to the layers around
            mark_owned(error)
        add_notes(error, self._earlier)
