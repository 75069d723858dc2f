"""Numbers as a reader of a report wants them: 0.0123 s is "12.3 ms", an infinite one is "never"."""

from __future__ import annotations

import math

from agentflow.mcp.optimization.benchmark.percentiles import Estimate

__all__ = ["between", "dollars", "of_metric", "per_cent", "plain", "seconds", "signed"]


def seconds(value: float | None) -> str:
    """Three digits, in the unit that suits."""
    if value is None:
        return "–"
    if math.isinf(value):
        return "never"
    if abs(value) < 5e-8:  # less than any clock tells
        return "0 ms"
    if abs(value) < 0.0009995:
        return f"{value * 1e6:.3g} µs"
    if abs(value) < 0.9995:
        return f"{value * 1e3:.3g} ms"
    return f"{value:.3g} s" if abs(value) < 999.5 else f"{value:,.0f} s"


def between(estimate: Estimate) -> str:
    """The interval, as "12.1–12.9 ms" and the like; an end that cannot be told is left open."""
    low, high = seconds(estimate.low), seconds(estimate.high)
    if estimate.low is None:
        return f"≤ {high}" if estimate.high is not None else "–"
    if estimate.high is None or math.isinf(estimate.high):
        return f"≥ {low}"
    number, _, unit = low.partition(" ")
    return f"{number}–{high}" if high.endswith(f" {unit}") else f"{low}–{high}"


def per_cent(share: float | None) -> str:
    """Whole ones, or with as many digits as tell 99.9 from 100."""
    if share is None:
        return "–"
    hundredths = share * 100.0
    if math.isinf(hundredths):
        return "∞"
    nearly = 0.0005 < abs(hundredths) < 10.0 or 99.0 < hundredths < 99.995
    return f"{hundredths:.2g}%" if nearly and hundredths < 10.0 else f"{hundredths:.{2 if nearly else 1}f}%"


def dollars(amount: float | None) -> str:
    if amount is None:
        return "–"
    if math.isinf(amount):
        return "∞"
    return f"${amount:,.2f}" if amount >= 1.0 or amount == 0.0 else f"${amount:.3g}"


def plain(value: float | None) -> str:
    """Three digits, thousands grouped."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100.0 else f"{value:.3g}"


def signed(share: float) -> str:
    """A change: "+12.3%", "−4%"."""
    if not share:
        return "±0%"
    if math.isinf(share):
        return "+∞" if share > 0.0 else "−∞"
    return f"{'−' if share < 0.0 else '+'}{abs(share) * 100.0:.3g}%"


def of_metric(name: str, value: float) -> str:
    """A number in the unit of what is compared."""
    if "." in name:
        return seconds(value)
    return dollars(value) if name == "cost" else per_cent(value)
