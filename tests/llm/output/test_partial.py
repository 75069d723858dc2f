"""What an unfinished JSON text says so far."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.llm.content import Json
from agentflow.llm.output.partial import PartialJson, partial_json

texts = st.text(st.one_of(st.characters(), st.sampled_from('"\\/\n\té😀𝄞\ud83d\ude00')), max_size=12)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
documents = st.builds(
    lambda value, indent, plain: json.dumps(value, indent=indent, ensure_ascii=not plain),
    values,
    st.sampled_from([None, 1]),
    st.booleans(),
)


def is_beginning(part: Json, whole: Json) -> bool:
    """Whether `part` can grow into `whole`: all but its last piece is the same."""
    if isinstance(part, str) and isinstance(whole, str):
        return whole.startswith(part)
    if isinstance(part, list) and isinstance(whole, list):
        return len(part) <= len(whole) and all_but_last(part, whole)
    if isinstance(part, dict) and isinstance(whole, dict):
        same_keys = list(part) == list(whole)[: len(part)]
        return same_keys and all_but_last(list(part.values()), list(whole.values()))
    return type(part) is type(whole) and part == whole


def all_but_last(part: list[Json], whole: list[Json]) -> bool:
    if not part:
        return True
    return part[:-1] == whole[: len(part) - 1] and is_beginning(part[-1], whole[len(part) - 1])


@given(documents)
def test_the_whole_text_has_the_value_that_json_says(text: str) -> None:
    """Nothing is lost and nothing is added once the text has ended."""
    assert partial_json(text) == json.loads(text)


@given(documents)
def test_every_beginning_of_a_text_has_a_beginning_of_its_value(text: str) -> None:
    """A text cut anywhere gives a value that the whole one continues."""
    whole = json.loads(text)
    for end in range(len(text)):
        part = partial_json(text[:end])
        # a number at the top has no end, so its beginning is another number
        assert part is None or isinstance(whole, int | float) or is_beginning(part, whole)


@given(documents, st.data())
def test_pieces_give_what_their_sum_gives(text: str, data: st.DataObject) -> None:
    """However a text is cut into pieces, each step says what the text so far says at once."""
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=20)) | {0, len(text)})
    partial = PartialJson()
    for start, end in pairwise(cuts):
        assert partial.feed(text[start:end]) == partial_json(text[:end])
    if not isinstance(json.loads(text), int | float) or isinstance(json.loads(text), bool):
        assert partial.complete or not text


@given(st.text(st.sampled_from('{}[]",:\\u0d83-1.e+ \ntrfalsn'), max_size=30))
def test_no_text_raises(text: str) -> None:
    """What is no JSON at all has a value so far, or None; a text that is JSON has its own."""
    part = partial_json(text)
    try:
        whole = json.loads(text, strict=False)
    except ValueError:
        return
    assert part == whole


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("  ", None),
        ("{", {}),
        ("[", []),
        ('{"na', {}),
        ('{"name"', {}),
        ('{"name":', {}),
        ('{"name": "A', {"name": "A"}),
        ('{"name": "Ada", "a', {"name": "Ada"}),
        ('{"age": 3', {}),
        ('{"age": 36,', {"age": 36}),
        ("[1, 2", [1]),
        ("[1, 2 ", [1, 2]),
        ("[tru", []),
        ("[true", [True]),
        ("[null, fal", [None]),
        ('["a\\', ["a"]),
        ('["a\\n', ["a\n"]),
        ('["\\u00e', [""]),
        ('["\\u00e9', ["é"]),
        ('["\\ud83d', [""]),
        ('["\\ud83d\\ude', [""]),
        ('["\\ud83d\\ude00', ["😀"]),
        ('["\\ud83d!', ["\ud83d!"]),
        ('[{"a": [{"b": "c', [{"a": [{"b": "c"}]}]),
        ("12", 12),
        ("-", None),
        ("1e", None),
        ('"open', "open"),
    ],
)
def test_what_is_open_is_closed_and_what_is_half_is_left_out(text: str, value: Json) -> None:
    """Texts and containers are closed; keys, numbers, literals and escapes wait until they are whole."""
    assert partial_json(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[1, oops, 2]", [1]),
        ('{"a": 1} and more', {"a": 1}),
        ("[1}", [1]),
        ('{"a": "\\q"}', {}),
        ("[01, 2]", []),
        ("[1,]", [1]),
        ("nonsense", None),
        ("[" + "9" * 5000 + "]", []),
    ],
)
def test_what_follows_a_fault_or_the_end_is_not_looked_at(text: str, value: Json) -> None:
    """The value stays what it was before the text went wrong."""
    assert partial_json(text) == value


def test_a_value_is_complete_when_its_last_bracket_has_come() -> None:
    """`complete` tells a whole value from one that goes on."""
    partial = PartialJson()
    partial.feed('{"a": [1]')
    assert not partial.complete
    partial.feed("}")
    assert partial.complete


def test_a_fault_is_never_complete() -> None:
    """A text that goes wrong is not taken for a whole one."""
    partial = PartialJson()
    partial.feed("[1 2]")
    assert not partial.complete


def test_values_given_out_do_not_change_later() -> None:
    """Each value can be kept and compared with the next one."""
    partial = PartialJson()
    seen = [partial.feed(piece) for piece in ('{"a": [1, ', '2, {"b": "c', 'd"', "}]}")]
    assert seen == [{"a": [1]}, {"a": [1, 2, {"b": "c"}]}, {"a": [1, 2, {"b": "cd"}]}, {"a": [1, 2, {"b": "cd"}]}]


def test_prose_before_the_value_is_skipped_where_that_is_wanted() -> None:
    """Models greet and open a fence before they write JSON."""
    partial = PartialJson(prose=True)
    assert partial.feed("Sure! Here it is:\n```js") is None
    assert partial.feed('on\n{"a": "b') == {"a": "b"}
    assert partial.feed('"}\n```\nAnything {else}?') == {"a": "b"}
    assert partial_json('Sure: {"a": 1}') is None


def test_a_long_text_is_read_once() -> None:
    """Two hundred thousand pieces of one character are a matter of a second, not of minutes."""
    partial = PartialJson()
    body = "x" * 50_000
    for piece in '{"a": "' + body + '", "b": [' + "1," * 20_000:
        partial.feed(piece)
    assert partial.value == {"a": body, "b": [1] * 20_000}


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_what_is_nested_without_end_is_a_fault(opening: str) -> None:
    """A piece costs what is open, so that must not grow with what comes."""
    partial = PartialJson()
    for _ in range(20_000):
        partial.feed(opening)
    value, depth = partial.value, 0
    while value:
        assert isinstance(value, list | dict)
        value, depth = next(iter(value.values() if isinstance(value, dict) else value), None), depth + 1
    assert depth < 201
    assert not partial.complete
    assert partial_json("[" * 200 + "1" + "]" * 200) == json.loads("[" * 200 + "1" + "]" * 200)
