"""Amounts as people read them."""

from __future__ import annotations

import pytest

from agentflow.cli.tracing.amounts import dollars, duration, per_cent, spent, tokens


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.0, "0 ms"),
        (-1.0, "0 ms"),
        (0.0004, "0.4 ms"),
        (0.0123, "12 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1.00 s"),
        (9.99, "9.99 s"),
        (59.94, "59.9 s"),
        (59.96, "1m 00s"),
        (3599.7, "1h 00m"),
        (86_400.0, "24h 00m"),
        (400_000.0, "4.6 d"),
    ],
)
def test_durations_take_seven_signs_at_most(seconds: float, said: str) -> None:
    assert duration(seconds) == said
    assert len(said) <= 7


def test_money_that_nobody_knows_is_not_nothing() -> None:
    assert (dollars(None), dollars(0.0), dollars(0.0, more=True)) == ("?", "$0", "$0+?")
    assert [dollars(each) for each in (3e-9, 0.0000151, 0.00002, 0.00123, 0.0123, 1234.5)] == [
        "<$0.0000001",
        "$0.0000151",
        "$0.00002",
        "$0.00123",
        "$0.0123",
        "$1,234.50",
    ]
    assert (spent(0.0, 3, 3), spent(0.0, 3, 1), spent(0.5, 3, 1), spent(0.0, 0, 0)) == ("?", "$0+?", "$0.5000+?", "$0")


def test_tokens_and_shares_stay_short() -> None:
    assert [tokens(each) for each in (0, 999, 12_345, 999_499, 999_500, 4_560_000)] == [
        "0",
        "999",
        "12.3k",
        "999k",
        "1M",
        "4.56M",
    ]
    assert [per_cent(1, 3), per_cent(1, 300), per_cent(0, 1), per_cent(1, 0)] == ["33%", "<1%", "0%", "0%"]
