"""Amounts as the proposals say them: 0.00042 → "$0.00042", 1234.5 → "$1,234.50", 0.173 → "17.3%"."""

from __future__ import annotations

__all__ = ["lifetime", "per_cent", "usd"]


def usd(amount: float) -> str:
    """US dollars, with as many digits as say something."""
    size, sign = abs(amount), "-" if amount < 0 else ""
    if size >= 0.995:
        return f"{sign}${size:,.2f}"
    if size < 1e-7:
        return "$0"
    if size >= 0.0995:
        return f"{sign}${size:.2f}"
    return f"{sign}${size:.2g}" if size >= 1e-3 else f"{sign}${size:.7f}".rstrip("0")


def per_cent(part: float, whole: float) -> str:
    if not whole:
        return "0%"
    share = 100.0 * part / whole
    return f"{share:.1f}%" if abs(share) < 10 else f"{share:.0f}%"


def lifetime(seconds: float) -> str:
    """300 → "5 min", 3600 → "1 h", 86400 → "1 d"."""
    for unit, size in (("d", 86_400.0), ("h", 3_600.0), ("min", 60.0)):
        if seconds >= size:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"
