"""`agentflow route MODEL PROMPT`: which model a router would ask, which not, and why. Nothing is sent.

cat contract.txt | agentflow route auto --tenant acme "Summarise:"       the piped text follows the prompt
"""

from __future__ import annotations

import asyncio
import json
import math
import sys
from typing import TYPE_CHECKING

import click

from agentflow.cli.debug import debug_option
from agentflow.errors import ConfigurationError
from agentflow.llm.agentflow import AgentFlow
from agentflow.llm.caller import Caller, asking_as
from agentflow.llm.messages import Message, Request

if TYPE_CHECKING:  # for a router there is more to load than for other commands
    from agentflow.mcp.optimization.router.decision import Decision
    from agentflow.mcp.optimization.router.router import ModelRouter

__all__ = ["command"]


@click.command("route", short_help="Show which model a router would ask, and why.")
@click.argument("model")
@click.argument("words", nargs=-1, metavar="[PROMPT]")
@click.option("-s", "--system", metavar="TEXT", help="Instructions that come before the prompt.")
@click.option("--tenant", metavar="NAME", help="For whom it is asked.")
@click.option("--flow", metavar="NAME", help="In which flow it is asked.")
@click.option("--max-tokens", type=click.IntRange(min=1), metavar="N", help="How long the answer may be.")
@click.option("--residency", metavar="PLACES", help="The only places where it may be worked on, as in eu,ch.")
@click.option("--json", "wants_json", is_flag=True, help="Print the decision as JSON.")
@debug_option
def command(
    model: str,
    words: tuple[str, ...],
    system: str | None,
    tenant: str | None,
    flow: str | None,
    max_tokens: int | None,
    residency: str | None,
    wants_json: bool,
) -> None:
    """Explain how MODEL, an entry of models.yml with a `router`, would route PROMPT: candidates with expected quality
    and price, exclusions with reasons, the rule or policy that decides. What is piped in follows the PROMPT after a
    blank line, or is the prompt."""
    prompt = "\n\n".join(part for part in (" ".join(words).strip(), _piped()) if part)
    if not prompt:
        raise click.UsageError('There is nothing to route: give a prompt, as in agentflow route auto "Prove it."')
    router = _router(model)
    config = AgentFlow.registry.describe(model)
    turns = (Message("user", prompt),) if system is None else (Message("system", system), Message("user", prompt))
    request = Request(
        model,
        turns,
        max_tokens=config.max_tokens if max_tokens is None else max_tokens,
        metadata={} if residency is None else {"residency": residency},
    )
    try:
        with asking_as(Caller(tenant, flow)):
            decision = router.explain(request)
    finally:
        asyncio.run(router.aclose())
    click.echo(json.dumps(_plain(decision), indent=2, ensure_ascii=False) if wants_json else str(decision))


def _router(model: str) -> ModelRouter:
    """Raises UnknownModelError, and ConfigurationError for an entry that is no router."""
    from agentflow.llm.wrapped_models import surroundings_of
    from agentflow.mcp.optimization.router.from_settings import from_settings

    registry = AgentFlow.registry
    config = registry.describe(model)
    section = config.wrappers.get("router")
    if section is None:
        routers = [name for name in registry.models() if registry.describe(name).routed]
        known = f"routers are {', '.join(routers)}" if routers else "models.yml has none: see `agentflow route --help`"
        raise ConfigurationError(f"{model!r} is a model, and no router; {known}")
    return from_settings(registry.resolve(model)[1], section, surroundings_of(registry, config))  # type: ignore[arg-type]


def _plain(decision: Decision) -> dict[str, object]:
    """What JSON can hold of it: an unknown cost is null."""
    return {
        "router": decision.router,
        "chosen": decision.chosen,
        "by": decision.by,
        "reason": decision.reason,
        "rule": decision.rule,
        "policy": decision.policy,
        "objective": decision.objective,
        "lambda": decision.value_usd,
        "arm": decision.arm,
        "shadow": decision.shadow,
        "stages": list(decision.stages),
        "input_tokens": decision.input_tokens,
        "candidates": {name: _forecast(decision, name) for name in decision.allowed},
        "excluded": dict(decision.excluded),
    }


def _forecast(decision: Decision, name: str) -> dict[str, float | None]:
    known = decision.forecasts.get(name)
    chance = {"propensity": decision.probabilities.get(name, 0.0)}
    if known is None:
        return {"quality": None, "low": None, "high": None, "cost": None, **chance}
    cost = known.cost_usd if known.cost_usd < math.inf else None
    return {"quality": known.quality, "low": known.low, "high": known.high, "cost": cost, **chance}


def _piped() -> str:
    """What was piped in; nothing from a terminal, which would wait for somebody to type."""
    if sys.stdin is None or sys.stdin.isatty():
        return ""
    return sys.stdin.buffer.read().decode("utf-8", "replace").removeprefix("\ufeff").strip()
