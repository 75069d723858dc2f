"""Words for the way numbers are written down."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.errors import RecipeError
from agentflow.mcp.compression.scheme import BITS, Scheme


@pytest.mark.parametrize(
    ("text", "scheme"),
    [
        ("w4g64", Scheme(4, 64)),
        ("w3g128-asym", Scheme(3, 128, symmetric=False)),
        ("w8", Scheme(8)),
        ("w8g32", Scheme(8, 32)),
        ("w8a8", Scheme(8, activation_bits=8)),
        ("w8a8-static", Scheme(8, activation_bits=8, static=True)),
    ],
)
def test_a_word_says_bits_groups_and_symmetry(text: str, scheme: Scheme) -> None:
    assert Scheme.parse(text) == scheme
    assert str(scheme) == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is no scheme"),
        ("int4", "is no scheme"),
        ("w5g64", "bits 2, 3, 4 or 8"),
        ("w4", "need groups"),
        ("w4g4", "at least 8 channels"),
        ("w4g64a8", "go with w8a8"),
        ("w4g64-static", "is about activations"),
        ("w8a8-asym", "go with w8a8"),
    ],
)
def test_another_word_is_refused_with_its_reason(text: str, reason: str) -> None:
    with pytest.raises(RecipeError, match=reason):
        Scheme.parse(text)


@given(st.sampled_from(BITS), st.integers(8, 1024), st.booleans())
def test_every_scheme_can_be_written_and_read(bits: int, group: int, symmetric: bool) -> None:
    scheme = Scheme(bits, group, symmetric)
    assert Scheme.parse(str(scheme)) == scheme
    assert scheme.highest - scheme.lowest + 1 == 2**bits


def test_scales_count_among_the_bits() -> None:
    assert Scheme.parse("w4g64").bits_a_weight(256) == 4.25
    assert Scheme.parse("w8").bits_a_weight(256) == 8 + 16 / 256
    assert Scheme.parse("w4g32-asym").bits_a_weight(64) == 4 + 20 / 32
