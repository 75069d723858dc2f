"""What is told apart: sentences, headings, lists, tables, code, in many scripts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.llm.extractive.blocks import Kind, blocks
from agentflow.llm.extractive.sentences import LONGEST, read, split_sentences


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("Dr. Ito met Mrs. Bell. They spoke.", ["Dr. Ito met Mrs. Bell.", "They spoke."]),
        ("Pi is 3.14 and so on. Next.", ["Pi is 3.14 and so on.", "Next."]),
        ("Use caches, e.g. Redis. Or none.", ["Use caches, e.g. Redis.", "Or none."]),
        ("Edit foo.py, then see https://a.example/x.html?q=1. Done.",
         ["Edit foo.py, then see https://a.example/x.html?q=1.", "Done."]),
        ("J. R. Smith wrote it. He left.", ["J. R. Smith wrote it.", "He left."]),
        ('He said "Stop." Then he left.', ['He said "Stop."', "Then he left."]),
        ("1. Open the door. 2. Go in.", ["1. Open the door.", "2. Go in."]),
        ("Wait... What? yes, wait.", ["Wait...", "What? yes, wait."]),
        ("月は海を引く。潮が満ちる！船は待つ。", ["月は海を引く。", "潮が満ちる！", "船は待つ。"]),
        ("Луна тянет море. Прилив растёт.", ["Луна тянет море.", "Прилив растёт."]),
        ("هل يأتي المد؟ نعم يأتي.", ["هل يأتي المد؟", "نعم يأتي."]),
        ("चाँद खींचता है। ज्वार आता है।", ["चाँद खींचता है।", "ज्वार आता है।"]),
    ],
)  # fmt: skip
def test_a_sentence_ends_where_a_reader_would_end_it(text: str, expected: list[str]) -> None:
    assert split_sentences(text) == expected


@given(st.text(max_size=3000))
def test_cutting_into_sentences_loses_nothing_but_spaces(text: str) -> None:
    pieces = split_sentences(text)
    assert "".join("".join(pieces).split()) == "".join(text.split())
    assert all(0 < len(piece) <= LONGEST for piece in pieces)


def test_text_without_an_end_is_cut_at_spaces() -> None:
    pieces = split_sentences("word " * 1000)
    assert len(pieces) > 5
    assert all(set(piece.split()) == {"word"} for piece in pieces)


MARKDOWN = """---
title: front matter
---
# Tides

[![badge](https://img.example/b.svg)](https://ci.example)

The **moon** pulls the [sea](https://a.example/sea),
and `tide.py` computes `when`.

- Spring tides come at new moon.
- Neap tides come between.

| day | height |
|-----|--------|
| 1   | 4.2    |

```python
print("The code is not a sentence.")
```

    >>> tide(3)
    4.2
"""


def test_markdown_is_told_apart_and_its_markup_taken_off() -> None:
    found = [(block.kind, block.text) for block in blocks(MARKDOWN)]
    assert (Kind.HEADING, "Tides") in found
    assert (Kind.PROSE, "The moon pulls the sea, and `tide.py` computes `when`.") in found
    assert (Kind.ITEM, "Neap tides come between.") in found
    assert [text for kind, text in found if kind is Kind.CODE] == [
        'print("The code is not a sentence.")',
        ">>> tide(3) 4.2",
    ]
    assert sum(kind is Kind.TABLE for kind, _ in found) == 1
    assert not any("badge" in text or "front matter" in text for _, text in found)


def test_a_fence_needs_no_language_and_may_follow_a_line() -> None:
    found = [(block.kind, block.text) for block in blocks("Run it:\n```\ntide --now\n\nmore\n```\nThen wait.")]
    assert found == [(Kind.PROSE, "Run it:"), (Kind.CODE, "tide --now more"), (Kind.PROSE, "Then wait.")]


def test_a_lone_item_is_an_item_and_a_lone_title_a_heading() -> None:
    assert [block.kind for block in blocks("- red shoes\n\nRed shoes\n\nShoes\n~~~~~\n")] == [
        Kind.ITEM,
        Kind.HEADING,
        Kind.HEADING,
    ]


def test_restructured_text_is_told_apart() -> None:
    text = (
        "=====\nTides\n=====\n\nThe :func:`moon` pulls; see ``tide``::\n\n    tide = moon * 2\n\n    more\n\n"
        ".. image:: x.png\n   :width: 3\n\nBack to prose.\n\n.. _target: https://a.example\n"
    )
    assert [(block.kind, block.text) for block in blocks(text)] == [
        (Kind.HEADING, "Tides"),
        (Kind.PROSE, "The moon pulls; see `tide`::"),
        (Kind.CODE, "tide = moon * 2"),
        (Kind.CODE, "more"),
        (Kind.PROSE, "Back to prose."),
    ]


def test_indented_prose_is_prose() -> None:
    text = "       The tool lists files in the current directory by\n       default, sorted by name.\n"
    assert [block.kind for block in blocks(text)] == [Kind.PROSE]


def test_only_the_marks_of_a_quotation_are_dropped() -> None:
    assert [block.text for block in blocks("> Needs pytest (version >= 3) to run.")] == [
        "Needs pytest (version >= 3) to run."
    ]


def test_a_lone_fact_is_no_sentence() -> None:
    assert [block.kind for block in blocks("> Stability: 2 - Stable\n\nThe module is stable.")] == [
        Kind.TABLE,
        Kind.PROSE,
    ]


def test_several_outermost_headings_are_several_documents() -> None:
    found = read("## a.md\n\nThe moon pulls.\n\n### more\n\nIt pulls hard.\n\n## b.md\n\nBread rises.\n")
    assert [(sentence.text, sentence.document) for sentence in found if sentence.kind is Kind.PROSE] == [
        ("The moon pulls.", 0),
        ("It pulls hard.", 0),
        ("Bread rises.", 1),
    ]


def test_sections_of_one_document_are_not_documents() -> None:
    for text in (
        "Opening prose.\n\n## One\n\nFirst.\n\n## Two\n\nSecond.",
        "# T\n\n## One\n\nFirst.\n\n## Two\n\nSecond.",
    ):
        assert {sentence.document for sentence in read(text)} == {0}


@given(st.text(alphabet="ab.#>-*`~=_|[]()<>:! \t\n\\\u3002\u4e00", max_size=400))
def test_no_mixture_of_markup_is_an_error(text: str) -> None:
    for sentence in read(text):
        assert sentence.text.strip() == sentence.text != ""
