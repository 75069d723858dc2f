"""One request, all candidates, one decision: filters, then the conversation so far, rules, the policy, the cascade.

    Request, Caller ──▶ who may answer ──▶ who has begun to ──▶ what a rule says ──▶ what a policy prefers ──▶ Decision

Nothing is asked of anybody here, and nothing is changed: the same request with the same source of randomness gives the
same decision, which is how `explain` knows what `execute` will do.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from agentflow.errors import ConfigurationError, NoCandidateError
from agentflow.llm.caller import Caller
from agentflow.llm.config.model import ModelConfig
from agentflow.llm.config.prices import Rates
from agentflow.llm.messages import Request, Usage
from agentflow.mcp.optimization.router.canary import Arm, Trial
from agentflow.mcp.optimization.router.candidate import Pool
from agentflow.mcp.optimization.router.cascade import Cascade
from agentflow.mcp.optimization.router.decision import Decision
from agentflow.mcp.optimization.router.demands import Demands, demands
from agentflow.mcp.optimization.router.exploring import Experience, Exploration, chances, drawn, spread
from agentflow.mcp.optimization.router.filters import Excluded, exclusion, means
from agentflow.mcp.optimization.router.learning.policy import Choice, Forecast, Policy
from agentflow.mcp.optimization.router.rules import Rule, first_match
from agentflow.mcp.optimization.router.sessions import Sessions, Standing, standing
from agentflow.mcp.optimization.router.stated import StatedPolicy

__all__ = ["Decider", "Failed", "value_of"]

Failed = Mapping[str, Excluded]
"""Models that were asked already, and why they do not answer."""


class _Field(NamedTuple):
    """Who may answer, what is known of them, and who may not."""

    allowed: tuple[str, ...]
    excluded: dict[str, Excluded]
    prices: dict[str, Rates]


@dataclass(frozen=True)
class Decider:
    """All that a router decides by. `policy` None means that only `stated` decides; with `policy` that is asked where
    the policy knows none of those who may answer. `able` says why a candidate cannot be asked at all, such as for want
    of a key."""

    name: str
    pool: Pool
    stated: StatedPolicy
    policy: Policy | None = None
    rules: tuple[Rule, ...] = ()
    cascade: Cascade | None = None
    residency: frozenset[str] | None = None
    max_cost: float | None = None
    sessions: Sessions = "conversation"
    shadow: Policy | None = None
    trial: Trial | None = None
    exploration: Exploration | None = None
    experience: Experience = field(default_factory=Experience)
    healthy: Callable[[str], bool] = lambda name: True
    able: Callable[[str], str | None] = lambda name: None
    _labels: dict[int, str] = field(default_factory=dict, repr=False, compare=False)

    def decide(
        self, request: Request, caller: Caller, rng: random.Random, *, id: str = "", failed: Failed | None = None
    ) -> Decision:
        """Raises NoCandidateError where nobody may answer, ConfigurationError for a policy that breaks its word."""
        asked = demands(request, self.residency)
        found = self._field(asked, caller, failed or {})
        stays = self._standing(request)
        begun = stays is not None and stays.in_tools and stays.model in found.allowed
        matched = None if begun else first_match(self.rules, request, asked, tenant=caller.tenant, flow=caller.flow)
        rule = None if matched is None else f"rule {matched[0]}{f' ({matched[1].name})' if matched[1].name else ''}"
        if matched is not None and rule is not None:
            found = _kept_to(matched[1].models, rule, found)
        if not found.allowed:
            unwell = any(each.unwell for each in found.excluded.values())
            raise NoCandidateError(self.name, _told(found.excluded), unwell=unwell)
        arm, policy = self._arm(request, caller)
        choice = self._choice(asked, found, stays, rule, policy, rng)
        stages: tuple[str, ...] = ()
        if self.cascade is not None and not begun:
            choice, stages = self._climbing(self.cascade, asked, found, choice)
        return self._decision(id, asked, found, choice, rule=rule, arm=arm, policy=policy, stages=stages)

    # ---- who may answer --------------------------------------------------------------------------------------

    def _field(self, asked: Demands, caller: Caller, failed: Failed) -> _Field:
        may = means(self.max_cost, caller.ledgers)
        excluded: dict[str, Excluded] = {}
        prices: dict[str, Rates] = {}
        allowed = []
        for name in self.pool.names:
            config = self.pool.describe(name)
            price = config.current_price()
            if price is not None and price.usual is not None:
                prices[name] = price.usual
            expected = None if price is None else price.cost(self._usage(name, asked, config))
            healthy = name in failed or self.healthy(name)
            why = failed.get(name) or exclusion(config, asked, may, healthy=healthy, expected=expected)
            if why is None and (unable := self.able(name)) is not None:
                why = Excluded("configuration", unable)
            if why is None:
                allowed.append(name)
            else:
                excluded[name] = why
        return _Field(tuple(allowed), excluded, prices)

    def _usage(self, name: str, asked: Demands, config: ModelConfig) -> Usage:
        """What it would use: an answer of its usual length, unless that is bounded."""
        tokens = round(self.stated.lengths.tokens(name))
        most = asked.max_tokens or config.max_tokens or tokens
        return Usage(asked.input_tokens, min(tokens, most))

    def _standing(self, request: Request) -> Standing | None:
        if self.sessions == "never":
            return None
        found = standing(request, self.name)
        return None if found is None or (self.sessions == "tools" and not found.in_tools) else found

    # ---- who is preferred ------------------------------------------------------------------------------------

    def _arm(self, request: Request, caller: Caller) -> tuple[Arm | None, Policy]:
        """Whose policy decides."""
        usual = self.policy or self.stated
        if self.trial is None:
            return None, usual
        arm = self.trial.arm(caller.tenant or caller.run_id or request.prompt)
        return arm, self.trial.canary.policy if arm == "canary" else usual

    def _choice(
        self,
        asked: Demands,
        found: _Field,
        stays: Standing | None,
        rule: str | None,
        policy: Policy,
        rng: random.Random,
    ) -> Choice:
        if stays is not None and stays.model in found.allowed:
            why = "the conversation waits for its tools" if stays.in_tools else "it has answered before"
            return _certain(stays.model, f"{why}, and goes on", "session")
        if len(found.allowed) == 1:
            why = "no other may answer" if rule is None else f"{rule} says so"
            return _certain(found.allowed[0], why, "only" if rule is None else "rule")
        choice = self._preferred(policy, asked, found, rng)
        return choice if self.exploration is None else _explored(choice, policy, self.exploration, self.experience, rng)

    def _preferred(self, policy: Policy, asked: Demands, found: _Field, rng: random.Random) -> Choice:
        """Raises ConfigurationError for a policy that chooses what it was not offered."""
        known = [name for name in found.allowed if name in policy.models]
        chooser = policy if known else self.stated
        offered = known or found.allowed
        choice = chooser.choose(asked.text, offered, found.prices, rng, input_tokens=asked.input_tokens)
        if choice.model not in offered:
            raise ConfigurationError(
                f"{self.name}: the policy {chooser.name} chose {choice.model!r}, and might choose {', '.join(offered)}"
            )
        return choice

    def _climbing(
        self, cascade: Cascade, asked: Demands, found: _Field, choice: Choice
    ) -> tuple[Choice, tuple[str, ...]]:
        """The stages from the chosen model on. Where nothing is aimed at, a cascade begins with its first."""
        known = self.stated.forecast(asked.text, found.allowed, found.prices, input_tokens=asked.input_tokens)
        ranked = cascade.ranked(found.allowed, lambda name: known[name].cost_usd)
        aimless = choice.kind == "stated" and self.stated.objective is None
        if aimless and len(ranked) > 1:
            odds = {name: float(name == ranked[0]) for name in found.allowed}
            choice = Choice(ranked[0], 1.0, "it is the first stage that may answer", "cascade", odds, known)
        at = ranked.index(choice.model) if choice.model in ranked else len(ranked)
        return choice, ranked[at:]

    # ---- what is told of it ----------------------------------------------------------------------------------

    def _decision(
        self,
        id: str,
        asked: Demands,
        found: _Field,
        choice: Choice,
        *,
        rule: str | None,
        arm: Arm | None,
        policy: Policy,
        stages: tuple[str, ...],
    ) -> Decision:
        decided = choice.kind not in ("session", "only", "rule")
        return Decision(
            id,
            self.name,
            choice.model,
            choice.kind,
            choice.reason,
            found.allowed,
            _told(found.excluded),
            self._forecasts(asked, found, choice),
            choice.probabilities,
            choice.propensity,
            rule,
            self._label(policy),
            _aim(policy),
            value_of(policy),
            arm if decided else None,
            self._shadowed(asked, found) if decided else None,
            stages if len(stages) > 1 else (),
            asked.input_tokens,
        )

    def _label(self, policy: Policy) -> str:
        """Its name and digest, which is worked out once: a policy does not change, and lives as long as the router."""
        label = self._labels.get(id(policy))
        if label is None:
            label = self._labels[id(policy)] = f"{policy.name} {policy.digest}"
        return label

    def _forecasts(self, asked: Demands, found: _Field, choice: Choice) -> Mapping[str, Forecast]:
        """The policy's, and of those that it does not know what is stated of them."""
        if len(choice.forecasts) == len(found.allowed):
            return choice.forecasts
        rest = [name for name in found.allowed if name not in choice.forecasts]
        stated = self.stated.forecast(asked.text, rest, found.prices, input_tokens=asked.input_tokens)
        return {name: choice.forecasts.get(name) or stated[name] for name in found.allowed}

    def _shadowed(self, asked: Demands, found: _Field) -> str | None:
        """What the shadow policy would have chosen; it changes nothing, not even where it fails."""
        if self.shadow is None:
            return None
        known = [name for name in found.allowed if name in self.shadow.models]
        rng = random.Random(asked.text)
        try:
            return self.shadow.choose(asked.text, known, found.prices, rng, input_tokens=asked.input_tokens).model
        except Exception as error:  # noqa: BLE001 - a policy on trial may do anything
            return f"({type(error).__name__})"


def value_of(policy: Policy) -> float | None:
    """λ, in US dollars: what a policy takes a good answer to be worth, where it says so (`value_usd`), or has worked it
    out for what it aims at (`aim.high`)."""
    value = getattr(policy, "value_usd", None)
    if value is None:
        value = getattr(getattr(policy, "aim", None), "high", None)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _explored(choice: Choice, policy: Policy, how: Exploration, known: Experience, rng: random.Random) -> Choice:
    """Another one, now and then. A mixture that was proven (the hull) is kept but for the least that each has: whoever
    has not earned to decide does not do so by exploring."""
    value = value_of(policy)
    if value is None or len(choice.forecasts) < 2 or choice.kind == "explored":
        return choice
    if choice.kind == "hull":
        odds = spread(choice.probabilities, choice.forecasts, how)
    else:
        odds = chances(choice.forecasts, value, known, how)
    model = drawn(odds, rng)
    why = choice.reason if model == choice.model else "it may be better than it looks"
    return Choice(model, min(1.0, odds[model]), why, "explored", odds, choice.forecasts)


def _aim(policy: Policy) -> str | None:
    aim = getattr(policy, "objective", None)
    return None if aim is None else str(aim)


def _kept_to(models: tuple[str, ...], rule: str, found: _Field) -> _Field:
    """Those of the rule alone; others are excluded by it."""
    others = {
        name: Excluded("rule", f"{rule} keeps to {', '.join(models)}") for name in found.allowed if name not in models
    }
    return _Field(tuple([n for n in found.allowed if n in models]), found.excluded | others, found.prices)


def _certain(model: str, reason: str, kind: str) -> Choice:
    return Choice(model, 1.0, reason, kind, {model: 1.0})


def _told(excluded: Mapping[str, Excluded]) -> dict[str, str]:
    return {name: str(why) for name, why in excluded.items()}
