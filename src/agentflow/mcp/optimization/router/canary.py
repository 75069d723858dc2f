"""A policy on trial: a few calls are decided by it, and it is taken back as soon as it does worse, without doubt.

    Canary(policy, fraction=0.05)  ──▶  5 of 100 tenants (or runs, where there is no tenant), always the same ones
    feedback, failures             ──▶  two sequential tests against the policy in force  ──▶  taken back

Both tests together take back a policy that is no worse with a probability of at most `error`, however often they look.
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from typing import Final, Literal

from agentflow.errors import ConfigurationError
from agentflow.mcp.optimization.router.learning.policy import Policy
from agentflow.mcp.optimization.router.sequential import Sequence, worse

__all__ = ["Arm", "Canary", "Trial"]

Arm = Literal["incumbent", "canary"]
_TESTS: Final = 2
_SIDES: Final = 2
_SHARES: Final = 1 << 64


@dataclass(frozen=True, slots=True)
class Canary:
    """`fraction` is the share of callers that it decides for. `error` is the probability of taking back a policy that
    is no worse. Raises ConfigurationError for a share or a probability that is none."""

    policy: Policy
    fraction: float = 0.05
    error: float = 0.05

    def __post_init__(self) -> None:
        for name, value in (("fraction", self.fraction), ("error", self.error)):
            if not 0.0 < value < 1.0:
                raise ConfigurationError(f"canary: {name} is between 0 and 1, not {value!r}")


class Trial:
    """How the canary does beside the policy in force. `over` is why it was taken back; None as long as it is tried.

    Safe in several threads.
    """

    def __init__(self, canary: Canary) -> None:
        self.canary = canary
        self.over: str | None = None
        self._lock = threading.Lock()
        self._begin()

    def arm(self, key: str) -> Arm:
        """Who decides for this key: a tenant, a run, or the text itself."""
        if self.over is not None:
            return "incumbent"
        place = int.from_bytes(hashlib.blake2b(key.encode("utf-8", "replace"), digest_size=8).digest(), "big")
        return "canary" if place < self.canary.fraction * _SHARES else "incumbent"

    def scored(self, arm: Arm, score: float) -> bool:
        """Somebody said how good an answer was. Returns whether that takes the canary back."""
        return self._noted(self._quality, arm, score, "its answers are worse")

    def ended(self, arm: Arm, *, well: bool) -> bool:
        """A call was answered, or failed for good. Returns whether that takes the canary back."""
        return self._noted(self._answered, arm, float(well), "its calls fail more often")

    def take_back(self, reason: str) -> None:
        """From now on the policy in force decides everything."""
        self.over = self.over or reason

    def restart(self) -> None:
        """Try it again, with nothing known."""
        with self._lock:
            self._begin()
            self.over = None

    @property
    def counts(self) -> dict[str, int]:
        """Outcomes so far, by arm and by what they say."""
        return {
            f"{arm} {what}": known[arm].count
            for what, known in (("scored", self._quality), ("ended", self._answered))
            for arm in known
        }

    def _begin(self) -> None:
        error = self.canary.error / (_TESTS * _SIDES)
        self._quality: dict[Arm, Sequence] = {"incumbent": Sequence(error), "canary": Sequence(error)}
        self._answered: dict[Arm, Sequence] = {"incumbent": Sequence(error), "canary": Sequence(error)}

    def _noted(self, known: dict[Arm, Sequence], arm: Arm, outcome: float, why: str) -> bool:
        with self._lock:
            known[arm].add(outcome)
            if self.over is not None or not worse(known["canary"], known["incumbent"]):
                return False
            low, high = known["incumbent"].bounds[0], known["canary"].bounds[1]
            self.over = f"{why}: at most {high:.3f} where the policy in force has at least {low:.3f}"
            return True
