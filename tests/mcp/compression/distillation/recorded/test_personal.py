"""What belongs to a person is taken out of texts; numbers that only look like it stay."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.mcp.compression.distillation.recorded import RecordedAnswer, Scrubber, Turn


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("ring +49 30 901820 now", "ring [redacted:phone] now"),
        ("ring +1 (415) 555-2671.", "ring [redacted:phone]."),
        ("(415) 555-2671", "[redacted:phone]"),
        ("415-555-2671, please", "[redacted:phone], please"),
        ("0049 30 9018200", "[redacted:phone]"),
        ("030 / 90 18 20 is no number we know, 030/901820 is", None),
        ("+4915123456789", "[redacted:phone]"),
        ("0151 23456789", "[redacted:phone]"),
        ("pay to DE89 3704 0044 0532 0130 00 today", "pay to [redacted:iban] today"),
        ("GB82WEST12345698765432", "[redacted:iban]"),
        ("card 4111 1111 1111 1111", "card [redacted:card]"),
        ("ada@example.org", "[redacted:email]"),
        ("sk-proj-4f9a8b7c6d5e4f3a2b1c", "[redacted:key]"),
    ],
)
def test_is_taken_out(text: str, clean: str | None) -> None:
    found = Scrubber().scrub(text)
    assert found == clean if clean is not None else "901820 is" not in found


@pytest.mark.parametrize(
    "text",
    [
        "released on 2026-11-27 at 10:15:30",
        "version 4.15.123-45",
        "DE89 3704 0044 0532 0130 01 has another check digit",
        "took 1795816800 seconds",
        "a price of 1 234 567 euros",
        "0.123456789",
        "lines 100-200 of 300",
        "commit 0415555267112ab",
        "192.168.100.200",
    ],
)
def test_is_left_alone(text: str) -> None:
    assert Scrubber().scrub(text) == text


def test_counts_what_it_found_and_not_what_was_out_before() -> None:
    scrubber = Scrubber({"ticket": r"TCK-\d+"})
    again = scrubber.scrub("TCK-12 and TCK-13 by [redacted:email]")
    assert again == "[redacted:ticket] and [redacted:ticket] by [redacted:email]"
    assert scrubber.scrub(again) == again
    assert scrubber.found == {"ticket": 2}


def test_scrubs_every_turn_and_the_answer() -> None:
    answer = RecordedAnswer(
        messages=(Turn("system", "I am bob@example.org"), Turn("user", "415-555-2671")),
        answer="GB82WEST12345698765432", model="large", at=0.0, run="r",
    )  # fmt: skip
    clean = Scrubber().scrubbed(answer)
    assert [turn.content for turn in clean.messages] == ["I am [redacted:email]", "[redacted:phone]"]
    assert clean.answer == "[redacted:iban]"


@given(st.text(alphabet="0123456789+()- ./DE", max_size=80))
def test_any_text_comes_back_the_same_when_scrubbed_again(text: str) -> None:
    clean = Scrubber().scrub(text)
    assert Scrubber().scrub(clean) == clean
