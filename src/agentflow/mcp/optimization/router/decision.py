"""What a router has decided for one request, and why: what `explain` returns, what is told in an event `route`.

print(router.explain(request))

auto → small   it has the most of $0.01 × quality − cost
model   chosen  quality            cost       P      note
small   ✓       0.81 [0.74, 0.87]  $0.000213  1.00
large           0.93 [0.88, 0.96]  $0.004100  0.00
vision                                               capability: it has no tools
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from agentflow.mcp.optimization.router.canary import Arm
from agentflow.mcp.optimization.router.learning.policy import Forecast

__all__ = ["Decision"]


@dataclass(frozen=True, slots=True)
class Decision:
    """`chosen` is the model that is asked, among the `allowed`; `excluded` says why others are not.

    `by` says what decided: `session`, `rule` (one that leaves a single model), `only` (one is left), `cascade` (its
    first stage), or the policy's own word (`learned`, `hull`, `stated`, `fixed`, `explored`). `rule` is the rule that
    holds, whether it decided or only narrowed the choice. `propensity` is the probability with which `chosen` was
    chosen, `probabilities` those of all. `policy` is its name and digest, `objective` what it aims at, `value_usd` its
    λ where it has one. `arm` is whose policy has decided where one is on trial; `shadow` what the shadow policy would
    have chosen. `stages` are the models of a cascade from the chosen one on; empty without one. `forecasts` are what is
    expected of the allowed ones: an infinite cost is unknown.
    """

    id: str
    router: str
    chosen: str
    by: str
    reason: str
    allowed: tuple[str, ...]
    excluded: Mapping[str, str] = field(default_factory=dict)
    forecasts: Mapping[str, Forecast] = field(default_factory=dict)
    probabilities: Mapping[str, float] = field(default_factory=dict)
    propensity: float = 1.0
    rule: str | None = None
    policy: str = ""
    objective: str | None = None
    value_usd: float | None = None
    arm: Arm | None = None
    shadow: str | None = None
    stages: tuple[str, ...] = ()
    input_tokens: int = 0

    def facts(self) -> dict[str, object]:
        """What an event says of it, beside where it goes and why."""
        facts: dict[str, object] = {
            "choice": self.id,
            "candidates": {name: self._known(name) for name in self.allowed},
            "excluded": dict(self.excluded),
            "propensity": self.propensity,
        }
        said = {"policy": self.policy or None, "arm": self.arm, "shadow": self.shadow}
        return facts | {name: value for name, value in said.items() if value is not None}

    def _known(self, name: str) -> dict[str, float]:
        found = {"propensity": self.probabilities.get(name, 0.0)}
        forecast = self.forecasts.get(name)
        if forecast is not None:
            found["quality"] = forecast.quality
            if forecast.cost_usd < math.inf:
                found["cost"] = forecast.cost_usd
        return found

    def __str__(self) -> str:
        head = [f"{self.router} → {self.chosen}   {self.reason}"]
        said = {
            "policy": self.policy,
            "aim": self.objective,
            "λ": None if self.value_usd is None else f"${self.value_usd:.4g}",
            "rule": self.rule,
            "arm": self.arm,
            "shadow": self.shadow,
            "cascade": " → ".join(self.stages),
            "prompt": f"about {self.input_tokens:,} tokens",
        }
        head += [f"{name}: {value}" for name, value in said.items() if value]
        rows = [("model", "chosen", "quality", "cost", "P", "note")]
        rows += [(name, "✓" if name == self.chosen else "", *self._row(name), "") for name in self.allowed]
        rows += [(name, "", "", "", "", why) for name, why in self.excluded.items()]
        return "\n".join([*head, "", *_table(rows)])

    def _row(self, name: str) -> tuple[str, str, str]:
        forecast, chance = self.forecasts.get(name), f"{self.probabilities.get(name, 0.0):.2f}"
        if forecast is None:
            return "?", "?", chance
        quality = f"{forecast.quality:.2f} [{forecast.low:.2f}, {forecast.high:.2f}]"
        cost = f"${forecast.cost_usd:.6f}" if forecast.cost_usd < math.inf else "?"
        return quality if forecast.high - forecast.low < 1.0 else "?", cost, chance


def _table(rows: Sequence[Sequence[str]]) -> Iterable[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
