"""What counts as good: a joint objective, which one request meets as a whole or not at all.

    Objective(ttft=2.0, tpot=0.2)        MLPerf's for a chat model of 70 B: the first token in 2 s, then 5 a second
    Objective.parse("ttft=2,tpot=0.2,e2e=30")

Goodput is the rate of requests that were answered, met it, and passed their checks ("DistServe", Zhong et al., OSDI
2024, §2). Percentiles one by one do not say it: the slow tenth of the first tokens and the slow tenth of the endings
may be different requests, or the same.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from agentflow.errors import ConfigurationError
from agentflow.mcp.optimization.benchmark.arrivals import positive
from agentflow.mcp.optimization.benchmark.record import Record

__all__ = ["Objective"]


@dataclass(frozen=True, slots=True)
class Objective:
    """Limits in seconds, None for none: `ttft` to the first token, `tpot` per output token after it, `e2e` in all."""

    ttft: float | None = None
    tpot: float | None = None
    e2e: float | None = None

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if value is not None:
                positive(f"objective {each.name}", value)

    @classmethod
    def parse(cls, text: str) -> Objective:
        """`ttft=2,tpot=0.2`. Raises ConfigurationError."""
        known = [each.name for each in fields(cls)]
        found: dict[str, float] = {}
        for part in text.split(","):
            name, equals, value = (word.strip() for word in part.partition("="))
            if name not in known or not equals or name in found:
                raise ConfigurationError(
                    f"objective {text!r}: allowed are {', '.join(known)}, each once, in seconds, as in ttft=2,tpot=0.2"
                )
            try:
                found[name] = float(value)
            except ValueError:
                raise ConfigurationError(f"objective {name}: found {value!r}, allowed is a number of seconds") from None
        return cls(**found)

    def met_by(self, record: Record) -> bool:
        """An error meets nothing. An answer of one token has no time per further token, and so none too many."""
        if not record.answered:
            return False
        limits = ((self.ttft, record.ttft), (self.tpot, record.tpot), (self.e2e, record.e2e))
        return all(limit is None or value is None or value <= limit for limit, value in limits)

    def __str__(self) -> str:
        told = [(each.name, getattr(self, each.name)) for each in fields(self)]
        return ", ".join(f"{name} ≤ {value:g} s" for name, value in told if value is not None) or "answered"
