"""Amounts as people read them: 4_512_345 → "4.51 MB", 0.0213 → "21.3 ms", 0.9134 → "91.3 %"."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

__all__ = ["FORMS", "change", "count", "number", "rate", "seconds", "share", "size"]


def size(bytes: float) -> str:
    """In thousands, as disks are sold: "512 B", "4.51 MB", "13.2 GB"."""
    for unit, power in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if bytes >= power * 0.9995:
            return f"{bytes / power:.3g} {unit}" if bytes < power * 999.5 else f"{bytes / power:,.0f} {unit}"
    return f"{bytes:.0f} B"


def seconds(value: float) -> str:
    if value < 0.0009995:
        return f"{value * 1e6:.3g} µs"
    return f"{value * 1000:.3g} ms" if value < 0.9995 else f"{value:.3g} s"


def share(value: float) -> str:
    return f"{value * 100:.1f} %"


def change(value: float) -> str:
    """A rise or fall as a share of what was: "+1.2 %"."""
    return f"{value * 100:+.2f} %"


def number(value: float) -> str:
    if value == 0.0:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def rate(value: float) -> str:
    """Tokens a second."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def count(value: float) -> str:
    """At most five signs: "950", "3.36 M", "7.24 G"."""
    for unit, power in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= power * 0.9995:
            return f"{value / power:.3g} {unit}"
    return f"{value:.0f}"


FORMS: Final[dict[str, Callable[[float], str]]] = {
    "size": size,
    "seconds": seconds,
    "share": share,
    "change": change,
    "number": number,
    "rate": rate,
    "count": count,
}
