"""What a server's headers say of time: when to come back, and what is left of its limits until when.

    retry_after({"retry-after": "20"}, now=time.time())                                     ──▶  20.0
    server_limits({"x-ratelimit-remaining-tokens": "149984",
                   "x-ratelimit-reset-tokens": "6m0s"}, now=time.time())
                                               ──▶  {"tokens_remaining": 149984.0, "tokens_reset": 360.0}

Headers are looked up in lower case. A time of day counts from the answer's own `date`, so that a wrong clock here does
no harm; without one from `now` (wall time, seconds since 1970). All results are seconds from now, or counts. What
cannot be read counts as not there: nothing here raises.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

__all__ = ["date", "duration", "retry_after", "seconds_until", "server_limits"]

_LARGEST: Final = 1e15  # no count of tokens is larger; a longer number is a mistake
_LONGEST: Final = 64  # characters of a date or a number
_MONTH: Final = 31 * 86400.0  # a bare number that is larger is no duration in seconds, but a time


def retry_after(headers: Mapping[str, str], *, now: float) -> float | None:
    """Seconds to wait before the next attempt, where the server says so.

    Reads `retry-after-ms`, then `retry-after` as seconds, as a duration or as an HTTP date.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("retry-after", "")
    seconds = _number(value)
    return seconds_until(value, headers, now) if seconds is None else seconds


# OpenAI and those who follow it say a duration, Anthropic a time (RFC 3339).
_OPENAI: Final = tuple(
    (f"{what}_{fact}", f"x-ratelimit-{fact}-{what}")
    for what in ("requests", "tokens")
    for fact in ("remaining", "reset")
)
_ANTHROPIC: Final = tuple(
    (f"{what.replace('-', '_')}_{fact}", f"anthropic-ratelimit-{what}-{fact}")
    for what in ("requests", "tokens", "input-tokens", "output-tokens")
    for fact in ("remaining", "reset")
)


def server_limits(headers: Mapping[str, str], *, now: float) -> dict[str, float] | None:
    """What is left of each limit (`requests_remaining`, `tokens_…`, `input_tokens_…`, `output_tokens_…`), and in how
    many seconds it is whole again (`requests_reset`, …). None where the server says nothing."""
    if "x-ratelimit-remaining-requests" in headers or "x-ratelimit-remaining-tokens" in headers:
        names = _OPENAI
    elif "anthropic-ratelimit-requests-remaining" in headers or "anthropic-ratelimit-tokens-remaining" in headers:
        names = _ANTHROPIC
    else:
        return None
    found: dict[str, float] = {}
    for key, name in names:
        value = headers.get(name)
        if value is not None:
            fact = _number(value) if key.endswith("remaining") else _reset(value, headers, now)
            if fact is not None:
                found[key] = fact
    return found or None


def _reset(value: str, headers: Mapping[str, str], now: float) -> float | None:
    """Seconds; some write them as a bare number."""
    seconds = _number(value)
    if seconds is None:
        return seconds_until(value, headers, now)
    return seconds if seconds <= _MONTH else None


def seconds_until(value: str, headers: Mapping[str, str], now: float) -> float | None:
    """Seconds, from a duration or until a time, and 0 for one that is past. `headers` are those of the same answer."""
    seconds = duration(value)
    then = date(value) if seconds is None else None
    if then is None:
        return seconds
    return max(0.0, then - (date(headers.get("date", "")) or now))


_UNITS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9}
_STEP: Final = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)")


def duration(written: str) -> float | None:
    """Seconds, from a duration as Go and Google write it: "34.4s", "1m6.779s", "6h0m0s", "12ms". None for the rest."""
    steps = _STEP.findall(written)
    if not steps or "".join([digits + unit for digits, unit in steps]) != written:
        return 0.0 if written == "0" else None
    seconds = sum([float(digits) * _UNITS[unit] for digits, unit in steps])
    return seconds if seconds < float("inf") else None


def date(value: str) -> float | None:
    """Seconds since 1970 of a time as HTTP writes it, or ISO 8601; without a time zone it is UTC."""
    return _date(value) if value and len(value) <= _LONGEST else None


@lru_cache(maxsize=64)  # the answers of one second have the same date
def _date(value: str) -> float | None:
    from email.utils import parsedate_to_datetime  # slow to import, and seldom needed

    for read in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            then = read(value)
            return (then if then.tzinfo is not None else then.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            continue
    return None


def _number(value: str | None) -> float | None:
    """A finite number, 0 or more."""
    if not value or len(value) > _LONGEST:
        return None
    try:
        found = float(value)
    except ValueError:
        return None
    return found if 0 <= found <= _LARGEST else None
