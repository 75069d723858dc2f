"""What comes from a run is text, whatever it holds."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.cli.tracing.markup import element, joined


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[dict[str, str | None]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes.append(dict(attrs))

    def handle_data(self, data: str) -> None:
        self.text += data


@given(st.text(), st.text())
def test_no_text_and_no_value_becomes_markup(words: str, value: str) -> None:
    reader = _Reader()
    reader.feed(str(element("p", words, element("b", "x"), title=value)))
    reader.close()
    assert reader.tags == ["p", "b"]
    assert set(reader.attributes[0]) == {"title"}


def test_text_comes_out_as_it_went_in() -> None:
    reader = _Reader()
    reader.feed(str(joined(element("p", "5 < 6 & \"7\" 'x' </p>"), None, element("i", 3))))
    assert reader.text == "5 < 6 & \"7\" 'x' </p>3"


def test_signs_that_no_page_may_hold_or_that_turn_the_reading_are_shown() -> None:
    assert str(element("p", "a\0b\x1b[31m\ud800\u202ec")) == "<p>a\ufffdb\ufffd[31m\ufffd[U+202E]c</p>"


def test_attributes_are_written_as_html_spells_them() -> None:
    made = element("td", data_depth=3, class_="a", aria_label=None, hidden=True, open=False, x=1 / 3)
    assert str(made) == '<td data-depth="3" class="a" hidden x="0.333333"></td>'


def test_a_script_of_ours_may_not_hold_what_would_end_it() -> None:
    with pytest.raises(ValueError, match="would end it"):
        element("script", "let a = '</script>'")
