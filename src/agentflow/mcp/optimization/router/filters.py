"""Who may not answer, and why: pure questions, asked of each candidate before anything is preferred.

    capability   it cannot do what is asked (as far as its entry says what it can)
    context      the prompt and the answer asked for are longer than its context
    residency    what it is told may be worked on in places that are not allowed, or nobody knows where
    health       its circuit breaker lets nothing through
    budget       it may cost more than a call may, or than there is left

The first that applies is the reason that is told.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from agentflow.core.limits import Ledger
from agentflow.llm.config.model import ModelConfig
from agentflow.llm.messages import Usage
from agentflow.mcp.optimization.router.demands import Demands

__all__ = ["Excluded", "Means", "exclusion", "means"]


class Excluded(Struct, frozen=True):
    """Why one may not answer. `filter` is the one that applies; `unwell` says that it may later."""

    filter: str
    why: str
    unwell: bool = False

    def __str__(self) -> str:
        return f"{self.filter}: {self.why}"


class Means(Struct, frozen=True):
    """What a call may cost, in US dollars; None for anything. `per_call` bounds what it may cost at most, `left` what
    it is expected to."""

    per_call: float | None = None
    left: float | None = None


def means(per_call: float | None, ledgers: Sequence[Ledger]) -> Means:
    """`left` is the least that the ledgers have left."""
    left = [each.limits.dollars - each.dollars for each in ledgers if each.limits.dollars is not None]
    return Means(per_call, min(left) if left else None)


def exclusion(
    config: ModelConfig, asked: Demands, may: Means, *, healthy: bool, expected: float | None
) -> Excluded | None:
    """Why this model may not answer; None where it may. `expected` is what it would cost, None where nobody knows."""
    return (
        _capability(config, asked)
        or _context(config, asked)
        or _residency(config, asked)
        or (None if healthy else Excluded("health", "its circuit breaker is open", unwell=True))
        or _budget(config, asked, may, expected)
    )


def _capability(config: ModelConfig, asked: Demands) -> Excluded | None:
    can = config.capabilities
    if can is None:
        return None
    if "embed" in can:
        return Excluded("capability", "it is a model for embeddings")
    lacking = asked.needs - can
    return Excluded("capability", f"it has no {', '.join(sorted(lacking))}") if lacking else None


def _context(config: ModelConfig, asked: Demands) -> Excluded | None:
    wanted = asked.max_tokens or config.max_tokens or 0
    if config.max_output is not None and wanted > config.max_output:
        return Excluded("context", f"it answers with at most {config.max_output:,} tokens, asked for are {wanted:,}")
    if config.context is not None and asked.input_tokens + max(wanted, 1) > config.context:
        answer = f" and {wanted:,} for the answer" if wanted else ""
        return Excluded("context", f"about {asked.input_tokens:,} tokens{answer} in a context of {config.context:,}")
    return None


def _residency(config: ModelConfig, asked: Demands) -> Excluded | None:
    if asked.regions is None:
        return None
    if not config.regions:
        return Excluded("residency", "nobody says where it works (`regions` of its entry)")
    outside = set(config.regions) - asked.regions
    if not outside:
        return None
    allowed = ", ".join(sorted(asked.regions)) or "nowhere"
    return Excluded("residency", f"it may work in {', '.join(sorted(outside))}, allowed is {allowed}")


def _budget(config: ModelConfig, asked: Demands, may: Means, expected: float | None) -> Excluded | None:
    if may.left is not None:
        if expected is None:
            return Excluded("budget", "its price is unknown, and there is a limit in dollars")
        if expected > may.left:
            return Excluded("budget", f"it would cost about ${expected:.4g}, and ${max(may.left, 0.0):.4g} is left")
    if may.per_call is not None:
        most = _most(config, asked)
        if most is None:
            return Excluded("budget", "nobody can say what it costs at most: state its price, and max_tokens")
        if most > may.per_call:
            return Excluded("budget", f"it may cost ${most:.4g}, and a call at most ${may.per_call:.4g}")
    return None


def _most(config: ModelConfig, asked: Demands) -> float | None:
    """What it may cost at most: the prompt as estimated, and the longest answer that it may give."""
    longest = asked.max_tokens or config.max_tokens or config.max_output
    price = config.current_price()
    return None if price is None or longest is None else price.cost(Usage(asked.input_tokens, longest))
