"""When a server says to come back, and what it says of its limits: every spelling that is known, and any garbage."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.core.robustness.retry_after import date, duration, retry_after, seconds_until, server_limits


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "7"}, 7.0),
        ({"retry-after": "Sun, 22 Nov 2026 10:00:30 GMT", "date": "Sun, 22 Nov 2026 10:00:00 GMT"}, 30.0),
        ({"retry-after": "Sun, 22 Nov 2026 09:00:00 GMT", "date": "Sun, 22 Nov 2026 10:00:00 GMT"}, 0.0),
        ({"retry-after": "Thu, 01 Jan 1970 00:01:40 GMT"}, 40.0),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "in a while"}, None),
    ],
)
def test_retry_after_in_all_its_spellings(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, now=60.0) == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("34.4s", 34.4),
        ("1m6.779s", 66.779),
        ("6h0m0s", 21600.0),
        ("12ms", 0.012),
        ("1.5h", 5400.0),
        ("7us", 7e-6),
        ("7\u00b5s", 7e-6),  # the micro sign
        ("7\u03bcs", 7e-6),  # the Greek letter
        ("7ns", 7e-9),
        ("0", 0.0),
        ("0s", 0.0),
        (".5s", 0.5),
        ("", None),
        ("12", None),
        ("-1s", None),
        ("1m x", None),
        ("soon", None),
        ("9" * 400 + "s", None),
    ],
)
def test_durations_are_read_as_go_and_google_write_them(text: str, seconds: float | None) -> None:
    """Anything else is none."""
    assert duration(text) == (None if seconds is None else pytest.approx(seconds, rel=1e-9, abs=0))


# ---- times ---------------------------------------------------------------------------------------------------

DATE = "Mon, 21 Sep 2026 14:13:35 GMT"
HERE = 1_000.0  # a clock that is decades wrong


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("Mon, 21 Sep 2026 14:14:05 GMT", 30.0),
        ("2026-09-21T14:14:05Z", 30.0),
        ("2026-09-21T16:14:05+02:00", 30.0),
        ("2026-09-21T14:14:05.5Z", 30.5),
        ("Mon, 21 Sep 2026 14:14:05 -0000", 30.0),
        ("2026-09-21T14:14:05", 30.0),
        ("2026-09-21T14:00:00Z", 0.0),
        ("2m", 120.0),
        ("soon", None),
        ("", None),
    ],
)
def test_a_time_counts_from_the_answers_own_date(value: str, seconds: float | None) -> None:
    """Without a zone it is UTC, whatever zone this machine is in."""
    assert seconds_until(value, {"date": DATE}, HERE) == seconds


def test_a_time_without_a_zone_is_utc_in_japan_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "JST-9")
    time.tzset()
    try:
        assert date("2026-09-21T14:14:07") == date("2026-09-21T14:14:07Z")
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_date_that_is_very_long_is_not_read() -> None:
    assert date(f"{DATE}{' ' * (64 - len(DATE))}") == date(DATE)
    assert date(f"{DATE}{' ' * (65 - len(DATE))}") is None


@pytest.mark.parametrize("own", ["", "yesterday", "x" * 100_000])
def test_without_a_date_that_can_be_read_it_counts_from_here(own: str) -> None:
    assert seconds_until("Thu, 01 Jan 1970 00:17:00 GMT", {"date": own}, HERE) == 20.0


@given(
    st.text() | st.from_regex(r"[0-9TZ:+. -]{1,30}") | st.from_regex(r"[A-Z][a-z]{2}, \d+ [A-Z][a-z]{2} \d+ [\d:]+ \S+")
)
def test_garbage_is_no_time(value: str) -> None:
    for headers in ({"retry-after": value}, {"retry-after-ms": value}, {"retry-after": value, "date": value}):
        found = retry_after(headers, now=HERE)
        assert found is None or 0 <= found < float("inf")
    assert date(value) is None or isinstance(date(value), float)


# ---- limits --------------------------------------------------------------------------------------------------


def test_openais_limits_are_counts_and_durations() -> None:
    headers = {
        "x-ratelimit-limit-requests": "10000",
        "x-ratelimit-remaining-requests": "9999",
        "x-ratelimit-reset-requests": "8.64s",
        "x-ratelimit-remaining-tokens": "149984",
        "x-ratelimit-reset-tokens": "6m0s",
    }
    assert server_limits(headers, now=HERE) == {
        "requests_remaining": 9999.0,
        "requests_reset": pytest.approx(8.64),
        "tokens_remaining": 149984.0,
        "tokens_reset": 360.0,
    }


def test_anthropics_limits_are_counts_and_times() -> None:
    headers = {
        "date": DATE,
        "anthropic-ratelimit-requests-remaining": "49",
        "anthropic-ratelimit-requests-reset": "2026-09-21T14:13:36Z",
        "anthropic-ratelimit-tokens-remaining": "48000",
        "anthropic-ratelimit-tokens-reset": "2026-09-21T14:14:35Z",
        "anthropic-ratelimit-input-tokens-remaining": "40000",
        "anthropic-ratelimit-input-tokens-reset": "2026-09-21T14:13:45Z",
        "anthropic-ratelimit-output-tokens-remaining": "0",
        "anthropic-ratelimit-output-tokens-reset": "2026-09-21T14:13:00Z",
    }
    assert server_limits(headers, now=HERE) == {
        "requests_remaining": 49.0,
        "requests_reset": 1.0,
        "tokens_remaining": 48000.0,
        "tokens_reset": 60.0,
        "input_tokens_remaining": 40000.0,
        "input_tokens_reset": 10.0,
        "output_tokens_remaining": 0.0,
        "output_tokens_reset": 0.0,
    }


@pytest.mark.parametrize(
    ("headers", "limits"),
    [
        ({}, None),
        ({"date": DATE, "content-type": "application/json", "retry-after": "3"}, None),
        ({"x-ratelimit-remaining-requests": "many"}, None),
        ({"x-ratelimit-remaining-requests": "-1", "x-ratelimit-reset-requests": "-1s"}, None),
        ({"x-ratelimit-remaining-requests": "nan", "x-ratelimit-remaining-tokens": "inf"}, None),
        ({"x-ratelimit-remaining-tokens": "7"}, {"tokens_remaining": 7.0}),
        (
            {"x-ratelimit-remaining-requests": "7", "x-ratelimit-reset-requests": "soon"},
            {"requests_remaining": 7.0},
        ),
        (
            {"x-ratelimit-remaining-requests": "7", "x-ratelimit-reset-requests": "12"},
            {"requests_remaining": 7.0, "requests_reset": 12.0},
        ),
        (
            {"x-ratelimit-remaining-requests": "7", "x-ratelimit-reset-requests": "1763800000"},
            {"requests_remaining": 7.0},
        ),
        ({"x-ratelimit-remaining-tokens": "1e15"}, {"tokens_remaining": 1e15}),
        ({"x-ratelimit-remaining-tokens": "1000000000000001"}, None),
        ({"anthropic-ratelimit-tokens-remaining": "9" * 400}, None),
        ({"anthropic-ratelimit-tokens-remaining": "7"}, {"tokens_remaining": 7.0}),
        ({"anthropic-ratelimit-requests-remaining": "7"}, {"requests_remaining": 7.0}),
    ],
)
def test_what_cannot_be_read_counts_as_not_said(headers: dict[str, str], limits: dict[str, float] | None) -> None:
    """A bare number is in seconds, unless it is so large that it must be a time of day."""
    assert server_limits(headers, now=HERE) == limits


@given(st.text(), st.text())
def test_garbage_is_no_limit(remaining: str, reset: str) -> None:
    for prefix in ("x-ratelimit-{}-tokens", "anthropic-ratelimit-tokens-{}"):
        headers = {prefix.format("remaining"): remaining, prefix.format("reset"): reset, "date": reset}
        found = server_limits(headers, now=HERE) or {}
        assert all(0 <= value < float("inf") for value in found.values())
