"""Slices of time: days that begin at midnight somewhere, and windows that end now."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.errors import ConfigurationError
from agentflow.mcp.optimization.budget.windows import Calendar, Period, Rolling, windows

BERLIN = ZoneInfo("Europe/Berlin")
PERIODS: list[Period] = ["hour", "day", "month"]
MOMENTS = st.floats(1_500_000_000, 2_000_000_000)
LENGTHS = {"hour": 3_600, "day": 86_400, "month": 30 * 86_400}


def at(text: str, zone: ZoneInfo = BERLIN) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()


def test_a_day_ends_at_midnight_of_its_time_zone() -> None:
    place = Calendar(BERLIN).place("day", at("2026-07-14T23:59"))
    assert (place.slice, place.ends) == (at("2026-07-14"), at("2026-07-15"))


def test_the_day_on_which_clocks_go_back_has_25_hours() -> None:
    place = Calendar(BERLIN).place("day", at("2026-10-25T12:00"))
    assert place.ends - place.slice == 25 * 3_600


def test_a_month_ends_with_its_last_day() -> None:
    place = Calendar(BERLIN).place("month", at("2028-02-29T10:00"))
    assert (place.slice, place.ends) == (at("2028-02-01"), at("2028-03-01"))


def test_an_hour_is_that_of_the_wall_clock_also_where_zones_differ_by_half_an_hour() -> None:
    india = ZoneInfo("Asia/Kolkata")
    place = Calendar(india).place("hour", at("2026-07-14T09:10", india))
    assert (place.slice, place.ends) == (at("2026-07-14T09:00", india), at("2026-07-14T10:00", india))


@given(MOMENTS, st.sampled_from(PERIODS), st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata"]))
def test_a_moment_lies_in_its_window_and_the_next_window_begins_where_that_ends(
    now: float, period: Period, zone: str
) -> None:
    calendar = windows("calendar", zone)
    place = calendar.place(period, now)
    assert place.slice <= now < place.ends == place.resets
    assert calendar.place(period, place.ends).slice == place.ends
    assert calendar.place(period, now) == place


@given(MOMENTS, st.sampled_from(PERIODS), st.floats(0, 1))
def test_a_rolling_slice_counts_for_its_whole_length_and_one_slice_more_at_most(
    now: float, period: Period, part: float
) -> None:
    """What is charged at a moment still counts when the length is over, however the moment lay in its slice."""
    place = Rolling().place(period, now)
    length = LENGTHS[period]
    assert now + length < place.ends + 1e-6 <= now + length * (1 + 1 / 60) + 1e-5
    assert now < place.resets <= now + length / 60 + 1e-6


def test_a_time_zone_that_nobody_knows_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="Europe/Berlin or UTC"):
        windows("calendar", "Mars/Olympus")
