"""Trying now and then what may be better than it looks, with the probability of each choice known exactly.

    forecasts, λ ──▶ utility of each: λ·quality − cost, normal, as wide as the doubt about the quality
                 ──▶ P(it has the most), by quadrature  ──▶  one draw

That is Thompson sampling (Thompson, 1933; Chapelle and Li, "An empirical evaluation of Thompson sampling", 2011): each
model is chosen as often as it is the best, for all one knows. The probabilities are worked out instead of only sampled
from, because what is learned from the log later divides by them (inverse propensity weights).

What feedback says is laid over the forecasts: the mean by which each model was better or worse than forecast, as a
normal posterior.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from agentflow.errors import ConfigurationError
from agentflow.mcp.optimization.router.learning.policy import Forecast

__all__ = ["Experience", "Exploration", "chances", "drawn", "spread"]

_INTERVAL = 3.29  # standard deviations in a 90 % interval
_LEAST_DOUBT = 0.005  # of a quality: nobody knows it better than that
_NOISE = 0.25  # variance of one outcome between 0 and 1, at most
_POINTS = 49
_TAIL = 4.8  # standard deviations on either side
_ROOT_TWO = math.sqrt(2.0)


@dataclass(frozen=True, slots=True)
class Exploration:
    """`least` is the probability that each allowed model has at any rate, so that no weight is endless. Raises
    ConfigurationError for one that is no share below a half."""

    least: float = 0.01

    def __post_init__(self) -> None:
        if not 0.0 <= self.least < 0.5:
            raise ConfigurationError(f"exploration: `least` is a probability from 0 to below 0.5, not {self.least!r}")


class Experience:
    """By how much each model was better or worse than forecast, as feedback says. Two numbers a model."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, float]] = {}

    def add(self, model: str, surprise: float) -> None:
        """An outcome less what was forecast of it."""
        count, total = self._known.get(model, (0, 0.0))
        self._known[model] = count + 1, total + surprise

    def belief(self, model: str, forecast: Forecast) -> tuple[float, float]:
        """Mean and standard deviation of the model's quality, after all that is known of it."""
        doubt = max((forecast.high - forecast.low) / _INTERVAL, _LEAST_DOUBT)
        count, total = self._known.get(model, (0, 0.0))
        variance = 1.0 / (1.0 / doubt**2 + count / _NOISE)
        return forecast.quality + variance * total / _NOISE, math.sqrt(variance)


def chances(
    forecasts: Mapping[str, Forecast], value: float, experience: Experience, how: Exploration
) -> dict[str, float]:
    """How likely each model is to have the most utility; they add up to 1.

    `value` is λ in US dollars. Models of an unknown (infinite) cost have none but `least`.
    """
    beliefs = {}
    for model, forecast in forecasts.items():
        mean, doubt = experience.belief(model, forecast)
        if forecast.cost_usd < math.inf:
            beliefs[model] = value * mean - forecast.cost_usd, max(value * doubt, 1e-12)
    shares = _best(beliefs) if beliefs else dict.fromkeys(forecasts, 1.0 / len(forecasts))
    return spread(shares, forecasts, how)


def spread(shares: Mapping[str, float], models: Collection[str], how: Exploration) -> dict[str, float]:
    """The same shares, with the least for each of the models."""
    least = min(how.least, 1.0 / len(models))
    rest = 1.0 - least * len(models)
    return {model: least + rest * shares.get(model, 0.0) for model in models}


def drawn(probabilities: Mapping[str, float], rng: random.Random) -> str:
    """One of them, each as often as its probability says."""
    point, passed, last = rng.random(), 0.0, ""
    for model, probability in probabilities.items():
        passed += probability
        if probability > 0.0:
            last = model
        if point < passed and probability > 0.0:
            return model
    return last  # what rounding has left over


def _best(beliefs: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """P(X_i is the largest) of independent normals: ∫ φ_i ∏ Φ_j, each over its own range."""
    if len(beliefs) == 1:
        return dict.fromkeys(beliefs, 1.0)
    found = {model: _largest(model, beliefs) for model in beliefs}
    total = sum(found.values())
    return {model: share / total for model, share in found.items()}


def _largest(model: str, beliefs: Mapping[str, tuple[float, float]]) -> float:
    mean, doubt = beliefs[model]
    others = [belief for name, belief in beliefs.items() if name != model]
    total = 0.0
    for point, weight in _GRID:
        share, here = weight, mean + doubt * point
        for middle, spread in others:
            share *= 0.5 * math.erfc((middle - here) / (spread * _ROOT_TWO))
            if share < 1e-15:
                break
        total += share
    return total


def _grid() -> tuple[tuple[float, float], ...]:
    """Points of a standard normal, and what each stands for."""
    points = [_TAIL * (2.0 * number / (_POINTS - 1) - 1.0) for number in range(_POINTS)]
    weights = [math.exp(-point * point / 2.0) for point in points]
    whole = sum(weights)
    return tuple((point, weight / whole) for point, weight in zip(points, weights, strict=True))


_GRID = _grid()
