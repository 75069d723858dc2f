"""What a teacher that sorts has to choose from, and when it does not sort at all."""

from __future__ import annotations

import pytest

from agentflow.errors import CompressionError
from agentflow.mcp.compression.distillation.labels import Labels


def test_spellings_of_one_label_are_one() -> None:
    labels = Labels.learnt(["mail", "Mail", '"mail."', " games\n", "**games**", "I cannot say"])
    assert labels.names == ("games", "mail")
    assert labels.rare == 1
    assert labels.numbered(["MAIL!", "games", "neither", ""]) == [1, 0, None, None]


def test_the_usual_spelling_is_the_name() -> None:
    assert Labels.learnt(["Mail", "mail", "Mail", "Web", "Web"]).names == ("Mail", "Web")


@pytest.mark.parametrize(
    "answers",
    [
        [],
        ["mail"] * 5,
        [f"a long story, number {number}" for number in range(50)],
        [*["mail"] * 3, *["web"] * 3, *(f"story {number}" for number in range(10))],
        [str(number // 2) for number in range(600)],
    ],
)
def test_what_does_not_sort_is_refused(answers: list[str]) -> None:
    with pytest.raises(CompressionError, match="no labels"):
        Labels.learnt(answers)
