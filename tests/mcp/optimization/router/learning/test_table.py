"""Tables of outcomes: what fits together, and what is the same prompt."""

from __future__ import annotations

import numpy as np
import pytest

from agentflow.errors import ConfigurationError
from agentflow.mcp.optimization.router.learning.table import OutcomeTable, prompt_key, token_estimate


def table() -> OutcomeTable:
    return OutcomeTable.of(["a", "b", "c"], {"m": [1.0, 0.0, float("nan")], "n": [float("nan")] * 3})


def test_who_never_answered_is_left_out() -> None:
    judged = table().judged()
    assert judged.models == ("m",)
    assert judged.texts == ("a", "b")
    assert judged.complete
    assert not table().complete


def test_the_digest_is_of_all_that_can_be_learned() -> None:
    other = OutcomeTable.of(["a", "b", "c"], {"m": [1.0, 1.0, float("nan")], "n": [float("nan")] * 3})
    assert table().digest() == table().digest()
    assert table().digest() != other.digest()
    assert table().digest() != table().rows(np.array([0, 2, 1])).digest()


def test_the_same_prompt_is_the_same_whatever_its_blanks_are() -> None:
    assert prompt_key(" What  IS\nit?") == prompt_key("what is it?")
    assert prompt_key("Straße") == prompt_key("STRASSE")


def test_tokens_are_about_a_quarter_of_the_bytes() -> None:
    assert token_estimate("x" * 400) == 100
    assert token_estimate("") == 1
    assert token_estimate("語" * 40) == 30


@pytest.mark.parametrize(
    "broken",
    [
        lambda: OutcomeTable.of(["a"], {"m": [1.5]}),
        lambda: OutcomeTable.of(["a"], {"m": [-0.5]}),
        lambda: OutcomeTable.of(["a"], {"m": [1.0]}, groups=["x", "y"]),
        lambda: OutcomeTable.of(["a"], {"m": [1.0]}, input_tokens=[1.0, 2.0]),
        lambda: OutcomeTable.of(["a"], {}),
        lambda: OutcomeTable.of(["a"], {"m": [1.0, 0.0]}),
        lambda: table().picked(["q"]),
        lambda: OutcomeTable.of(["a"], {"m": [float("nan")]}).judged(),
    ],
)
def test_what_does_not_fit_together_is_refused(broken: object) -> None:
    assert callable(broken)
    with pytest.raises(ConfigurationError):
        broken()
