"""What a router remembers of what came of its decisions: how long answers are, how good, and which policy did worse.

    memory.answered(journey, tokens, "chatcmpl-7")    an answer is whole
    memory.failed(journey)                            who was chosen has failed
    memory.scored("run-1", 0.8)  ──▶  1               somebody says how good it was, of one decision

A decision is known by its own id, by the run it was made in, and by the ids of the answer: the last 10,000 names.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from agentflow.mcp.optimization.router.canary import Trial
from agentflow.mcp.optimization.router.decision import Decision
from agentflow.mcp.optimization.router.exploring import Experience
from agentflow.mcp.optimization.router.journey import Journey
from agentflow.mcp.optimization.router.lengths import Lengths

__all__ = ["Memory"]

_log: Final = logging.getLogger("agentflow.router")
_NAMES: Final = 10_000
_IN_ONE_RUN: Final = 1_000


class Memory:
    """Safe in several threads. `trial` is None where no policy is on trial."""

    def __init__(self, lengths: Lengths, experience: Experience, trial: Trial | None) -> None:
        self.trial = trial
        self._lengths = lengths
        self._experience = experience
        self._made: OrderedDict[str, list[Decision]] = OrderedDict()
        self._lock = threading.Lock()

    def answered(self, journey: Journey, tokens: int | None, *names: str | None) -> None:
        """An answer is whole: so many tokens long, and also known by these names."""
        if tokens is not None:
            self._lengths.learn(journey.model, tokens)
        decision = journey.decision
        self._keep(decision, (decision.id, journey.caller.run_id, *names))
        self._ended(journey, well=journey.error is None)

    def failed(self, journey: Journey) -> None:
        """Who was chosen has failed. It counts once for a request, however many fail after it."""
        self._ended(journey, well=False)

    def scored(self, names: Sequence[str | None], score: float) -> int:
        """Of how many decisions that says something: those under the first name that is known."""
        made: Sequence[Decision] = ()
        with self._lock:
            for name in names:
                made = made or tuple(self._made.get(name or "", ()))
        for decision in made:
            forecast = decision.forecasts.get(decision.chosen)
            if forecast is not None:
                self._experience.add(decision.chosen, score - forecast.quality)
            if self.trial is not None and decision.arm is not None and self.trial.scored(decision.arm, score):
                self._tell(decision.router)
        return len(made)

    def _keep(self, decision: Decision, names: Sequence[str | None]) -> None:
        with self._lock:
            for name in dict.fromkeys(filter(None, names)):
                made = self._made.setdefault(name, [])
                if len(made) < _IN_ONE_RUN:
                    made.append(decision)
                self._made.move_to_end(name)
            while len(self._made) > _NAMES:
                self._made.popitem(last=False)

    def _ended(self, journey: Journey, *, well: bool) -> None:
        arm = journey.decision.arm
        if self.trial is None or arm is None or journey.counted:
            return
        journey.counted = True
        if self.trial.ended(arm, well=well):
            self._tell(journey.decision.router)

    def _tell(self, router: str) -> None:
        assert self.trial is not None
        _log.warning("%s: the policy on trial is taken back, because %s", router, self.trial.over)
