"""A router from its section of models.yml.

auto: {router: {candidates: [small, large], lambda: 0.01, policy: router.policy, rules: [{use: large, tenant: acme}]}}

Files are read when the router is made, which is when its model is first asked for. A checker is what a package offers
in the entry point group `agentflow.checkers`: none is ever imported by a path that stands in a file.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import partial
from importlib.metadata import entry_points
from typing import Any, Final, TypeVar, cast

from msgspec import UNSET, Struct, UnsetType

from agentflow.clock import Clock
from agentflow.errors import ConfigurationError, MissingExtraError, describe
from agentflow.llm.config.schema import set_fields
from agentflow.llm.config.wrappers import CascadeEntry, ExplorationEntry, RouterEntry, RuleEntry
from agentflow.llm.providers.base import LLMProvider
from agentflow.llm.wrapping import Surroundings
from agentflow.mcp.optimization.router.canary import Canary
from agentflow.mcp.optimization.router.candidate import Pool
from agentflow.mcp.optimization.router.cascade import Cascade
from agentflow.mcp.optimization.router.exploring import Exploration
from agentflow.mcp.optimization.router.judge import Accept, Checker
from agentflow.mcp.optimization.router.learning.policy import Policy
from agentflow.mcp.optimization.router.router import ModelRouter
from agentflow.mcp.optimization.router.rules import Rule

__all__ = ["from_settings"]

T = TypeVar("T")

_CHECKERS: Final = "agentflow.checkers"


def from_settings(inner: LLMProvider, settings: RouterEntry, surroundings: Surroundings) -> ModelRouter:
    """The router of an entry. `inner` is never asked: an entry with a router is no model itself.

    With a canary, or with exploration, it listens for feedback until the registry is closed.

    Raises UnknownModelError for a candidate that nobody knows, MissingExtraError where a policy needs numpy, and
    ConfigurationError for a policy or a checker that cannot be had.
    """
    where = f"models.{surroundings.model}.router"
    models = {name: surroundings.ask(name) for name in settings.candidates}  # which finds routers that go in circles
    load = partial(_policy, surroundings)
    canary = settings.canary
    router = ModelRouter(
        Pool(tuple(settings.candidates), surroundings.describe, models.__getitem__),
        name=surroundings.model,
        policy=_made(settings.policy, load),
        quality_floor=_given(settings.quality_floor),
        budget_per_call=_given(settings.budget_per_call),
        value=_given(settings.value),
        qualities=_given(settings.quality),
        rules=[_rule(rule) for rule in _given(settings.rules) or ()],
        cascade=_cascade(settings.cascade, where),
        residency=_given(settings.residency) or (),
        max_cost=_given(settings.max_cost),
        sessions="conversation" if settings.sessions is UNSET else settings.sessions,
        shadow=_made(settings.shadow, load),
        canary=None if canary is UNSET else Canary(**{**set_fields(canary), "policy": load(canary.policy)}),
        exploration=_exploration(settings.exploration),
        healthy=surroundings.healthy,
        rng=_ClockRandom(surroundings.clock),
    )
    if canary is not UNSET or router.explores:
        router.listen()
    return router


class _ClockRandom(random.Random):
    """Chance as the clock of the registry has it, so that a test's clock decides it."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(int(clock.random() * (1 << 53)))


def _policy(surroundings: Surroundings, path: str) -> Policy:
    try:
        from agentflow.mcp.optimization.router.learning.artifact import load_policy  # not every router needs numpy
    except ModuleNotFoundError as error:
        if error.name != "numpy":
            raise
        raise MissingExtraError(f"models.{surroundings.model}.router: a learned policy", "learn") from error
    return load_policy(surroundings.folder / path)


def _rule(entry: RuleEntry) -> Rule:
    said: Mapping[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in set_fields(entry).items()
    }
    return Rule(**said)


def _cascade(entry: bool | CascadeEntry | UnsetType, where: str) -> Cascade | None:
    if entry is UNSET or entry is False:
        return None
    if entry is True:
        return Cascade()
    said = set_fields(entry)
    stages = tuple(said.pop("stages", ()))
    if "check" in said:
        said["check"] = _checker(said["check"], f"{where}.cascade.check")
    return Cascade(stages, Accept(**said))


def _exploration(entry: bool | ExplorationEntry | UnsetType) -> Exploration | None:
    if entry is UNSET or entry is False:
        return None
    return Exploration() if entry is True else Exploration(**set_fields(cast(Struct, entry)))


def _checker(name: str, where: str) -> Checker:
    """Raises ConfigurationError for one that is not installed, or does not load."""
    known = {entry.name: entry for entry in entry_points(group=_CHECKERS)}
    if name not in known:
        close = get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(sorted(known)) or 'none'}"
        raise ConfigurationError(
            f"{where}: no installed package offers the checker {name!r} in the entry point group {_CHECKERS}; {hint} "
            "(a function of your own is given in code: Accept(check=…))"
        )
    try:
        return cast(Checker, known[name].load())
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"{where}: the checker {name!r} does not load: {describe(error)}") from error


def _made(value: str | UnsetType, make: Callable[[str], T]) -> T | None:
    return None if value is UNSET else make(value)


def _given(value: T | UnsetType) -> T | None:
    return None if value is UNSET else value
