"""What the tier knows of one tenant: how its answers behave, whether it may answer, and what it has done so far.

    realm.decide(entry, similarity, chance, chance) ──▶ "similar" | "exploring" | "audit" | "switched_off"
    realm.learn(entry, similarity, right)           ──▶ whether the population is to be fitted

Tenants share nothing, statistics neither: what one asks cannot make the tier bold, or switch it off, for another.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias

from msgspec import Struct

from agentflow.errors import ConfigurationError
from agentflow.mcp.performance.caching.semantic.decision import Per, explores
from agentflow.mcp.performance.caching.semantic.entries import Entry
from agentflow.mcp.performance.caching.semantic.likelihood import Evidence, Label, Population
from agentflow.mcp.performance.caching.semantic.watch import State, Watch, error_interval

__all__ = ["Decision", "Promise", "Realm", "SemanticStatistics"]

Decision: TypeAlias = Literal["similar", "exploring", "audit", "switched_off"]


class Promise(Struct, frozen=True):
    """What the tier is held to: see `VerifiedTier`, whose arguments these are. Raises ConfigurationError."""

    delta: float = 0.02
    per: Per = "hit"
    audit: float = 0.05
    alpha: float = 0.05
    caution: float = 0.5
    pooled: bool = True
    recovers: bool = False

    def __post_init__(self) -> None:
        for name, value in (("delta", self.delta), ("alpha", self.alpha)):
            if not 0.0 < value < 1.0:
                raise ConfigurationError(f"{name} is between 0 and 1, not {value!r}")
        if not 0.0 <= self.audit <= 1.0 or not self.caution >= 0.0:
            raise ConfigurationError("audit is a share from 0 to 1, and caution 0 or more")
        if self.per not in ("hit", "request"):
            raise ConfigurationError(f"per is 'hit' or 'request', not {self.per!r}")


class SemanticStatistics(Struct, frozen=True):
    """What the tier did for one tenant since the process began. `asked` counts the questions for which there was a
    similar one. `error` and `error_interval` (95 %, valid at all times) come from the audited hits alone."""

    state: State
    since: str
    asked: int
    hits: int
    explored: int
    audited: int
    wrong: int
    error: float | None
    error_interval: tuple[float, float]


class Realm:
    def __init__(self, name: str, promise: Promise, watch: Watch | None = None) -> None:
        self.name = name
        self.watch = watch or Watch()
        self._populations = _fresh(promise)
        self._promise = promise
        self._counts = {"similar": 0, "exploring": 0, "audit": 0, "switched_off": 0}
        self._audited = self._wrong = 0

    def decide(self, entry: Entry, similarity: float, *, chance: float, lot: float) -> Decision:
        """What to do about a question so similar to the entry's. `chance` decides about asking, `lot` about the audit;
        both are uniform in [0, 1)."""
        promise = self._promise
        bound = self.population(entry).bound(entry.evidence, similarity, caution=promise.caution)
        made: Decision = "similar"
        if explores(bound, chance, delta=promise.delta, per=promise.per):
            made = "exploring"
        elif self.watch.state == "off":
            made = "switched_off"
        elif lot < promise.audit:
            made = "audit"
        self._counts[made] += 1
        return made

    def learn(self, entry: Entry, similarity: float, right: bool) -> bool:
        """Add a label; whether it is time to fit the population of the entry."""
        entry.evidence = entry.evidence or Evidence()
        entry.evidence.add(Label(similarity, right))
        return self.population(entry).note()

    def population(self, entry: Entry) -> Population:
        """What is known of its like."""
        return self._populations[entry.anchored]

    def fit(self, entry: Entry, entries: Iterable[Entry]) -> None:
        """Fit the population of the entry to its like among these."""
        like = [each.evidence for each in entries if each.anchored == entry.anchored and each.evidence is not None]
        self.population(entry).fit(like)

    def refit(self, entries: Sequence[Entry]) -> None:
        """Fit both populations, where there is anything to fit them to."""
        for anchored in self._populations:
            like = [entry for entry in entries if entry.anchored == anchored and entry.evidence is not None]
            if like and self._promise.pooled:
                self.fit(like[0], like)

    def judged(self, decision: Decision, right: bool) -> bool:
        """A decision's answer was compared with the model's (or counts as right, since the model gave it, or since
        nobody looked): whether the state has changed by it."""
        promise, watch = self._promise, self.watch
        if decision == "audit":
            self._audited += 1
            self._wrong += not right
        if watch.state == "off":
            counts = decision == "switched_off"
            return counts and watch.see(right, delta=promise.delta, alpha=promise.alpha, recovers=promise.recovers)
        if promise.per == "hit":
            counts = decision == "audit"
            return counts and watch.see(right, delta=promise.delta, alpha=promise.alpha, recovers=False)
        # Of all questions at most δ are answered wrongly, and of these answers a share is looked at.
        seen, share = right or decision != "audit", promise.delta * promise.audit
        what = f"questions, of whose hits {promise.audit:g} were audited,"
        return watch.see(seen, delta=share, alpha=promise.alpha, recovers=False, seen=what)

    def forget(self, entries: Sequence[Entry]) -> None:
        """What was learned is of another time."""
        self._populations = _fresh(self._promise)
        for entry in entries:
            entry.evidence = None

    def statistics(self) -> SemanticStatistics:
        counts = self._counts
        return SemanticStatistics(
            self.watch.state,
            self.watch.since,
            sum(counts.values()),
            counts["similar"],
            counts["exploring"] + counts["switched_off"],
            self._audited,
            self._wrong,
            self._wrong / self._audited if self._audited else None,
            error_interval(self._wrong, self._audited),
        )


def _fresh(promise: Promise) -> dict[bool, Population]:
    """One for answers to questions with names or numbers, one for the others."""
    return {anchored: Population(pooled=promise.pooled) for anchored in (False, True)}
