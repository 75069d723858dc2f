"""Amounts as people read them: 0.0123 → "12 ms", 0.00042 → "$0.00042", 12345 → "12.3k"."""

from __future__ import annotations

__all__ = ["count_of", "dollars", "duration", "per_cent", "spent", "tokens"]


def duration(seconds: float) -> str:
    """At most seven signs: "0 ms", "0.4 ms", "12 ms", "1.24 s", "12.4 s", "2m 05s", "3h 07m"."""
    if seconds < 0.00005:
        return "0 ms"
    if seconds < 0.00995:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.995:
        return f"{seconds:.2f} s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m {rest:02}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02}m" if hours < 48 else f"{hours / 24:.1f} d"


def dollars(amount: float | None, *, more: bool = False) -> str:
    """US dollars; "?" where nobody knows. With `more` there is something unknown on top."""
    if amount is None:
        return "?"
    if amount == 0.0:
        text = "$0"
    elif amount < 0.0000001:
        text = "<$0.0000001"
    elif amount < 0.0001:
        text = f"${amount:.7f}".rstrip("0")
    elif amount < 0.01:
        text = f"${amount:.5f}".rstrip("0")
    elif amount < 1.0:
        text = f"${amount:.4f}"
    else:
        text = f"${amount:,.2f}"
    return f"{text}+?" if more else text


def spent(cost: float, answered: int, unpriced: int) -> str:
    """What so many answered calls have cost, of which nobody knows the price of some."""
    if unpriced and unpriced >= answered and not cost:
        return dollars(None)
    return dollars(cost, more=unpriced > 0)


def tokens(count: int) -> str:
    """At most five signs: "0", "950", "12.3k", "4.56M"."""
    if count < 1000:
        return str(count)
    if count < 999_500:
        return f"{count / 1000:.3g}k"
    return f"{count / 1_000_000:.3g}M"


def per_cent(part: float, whole: float) -> str:
    if whole <= 0.0:
        return "0%"
    share = 100.0 * part / whole
    return "<1%" if 0.0 < share < 1.0 else f"{share:.0f}%"


def count_of(count: int, noun: str) -> str:
    """A number with its noun: "1 call", "12 calls"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
