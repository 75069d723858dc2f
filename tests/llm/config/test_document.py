"""YAML text to plain data: strict, by YAML 1.2's types, and able to say where something stands."""

from __future__ import annotations

import textwrap

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from agentflow.llm.config.document import MalformedYaml, Place, locate, parse


def is_number(text: str) -> bool:
    """PyYAML knows YAML 1.1, where `-.1` and `1e1` are texts, and writes them without quotes; in YAML 1.2 they are
    numbers."""
    try:
        float(text)
    except ValueError:
        return False
    return True


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text("ab1.-:#'\" ~e\n", max_size=8).filter(lambda text: not is_number(text))
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("abc. ", min_size=1, max_size=4), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.text("abcd", min_size=1, max_size=3), VALUES, max_size=5))
def test_what_a_yaml_writer_writes_is_read_back(data: dict[str, object]) -> None:
    assert parse(yaml.safe_dump(data, width=1000)) == data


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("~", None),
        ("''", ""),
        ("'1'", "1"),
        ("007", 7),
        ("1e-3", 0.001),
        (".5", 0.5),
        ("2026-11-23", "2026-11-23"),
        ("12:30:45", "12:30:45"),
        ("!!str 5", "5"),
        ("- 1\n- [2, {a: 3}]", [1, [2, {"a": 3}]]),
        ("", None),
        ("# nothing", None),
        ("a: &x [1]\nb: *x", {"a": [1], "b": [1]}),
        ("base: &b {x: 1, y: 2}\nuse: {<<: *b, y: 3}", {"base": {"x": 1, "y": 2}, "use": {"x": 1, "y": 3}}),
        ("1: one", {"1": "one"}),
    ],
)
def test_types_are_those_of_yaml_1_2(text: str, value: object) -> None:
    assert parse(text) == value


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("a: 1\nb: [1, 2\nc: 3\n", Place(3, 2), "malformed YAML"),
        ("a: 1\n\tb: 2\n", Place(2, 1), "malformed YAML"),
        ("a: {b: 1\n", Place(2, 1), "malformed YAML"),
        ("a: 1\nx:\n  b: 2\n  b: 3\n", Place(4, 3), "twice"),
        ("a: 1\n---\nb: 2\n", Place(2, 1), "second document"),
        ("a: !!python/object/apply:os.system [echo]\n", Place(1, 4), "tags"),
        ("a: !secret x\n", Place(1, 4), "tags"),
        ("a: &x [*x]\n", Place(1, 8), "inside its own anchor"),
        ("a: *nowhere\n", Place(1, 4), "anchor"),
        ("? [1, 2]\n: 3\n", Place(1, 3), "key must be a text"),
        ("a: {<<: 5}\n", Place(1, 10), "<<"),
        ("ok: 1\nbad: \x01\n", Place(2, 6), "character"),
        ("[" * 100, Place(1, 65), "64 levels"),
    ],
)
def test_what_is_not_allowed_is_refused_with_its_place(text: str, place: Place, words: str) -> None:
    with pytest.raises(MalformedYaml, match=words) as caught:
        parse(text)
    assert caught.value.place == place


@pytest.mark.parametrize("opening", ["[", "{a: ", "- "])
def test_a_hundred_thousand_brackets_are_an_error_and_not_a_crash(opening: str) -> None:
    with pytest.raises(MalformedYaml):
        parse(opening * 100_000)


def test_aliases_of_aliases_take_no_exponential_time() -> None:
    """The "billion laughs": each level names the one before nine times."""
    levels = ["a0: &a0 [x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 40)]
    data = parse("\n".join(levels))
    assert isinstance(data, dict)
    assert len(data) == 40


def test_errors_do_not_repeat_the_text_of_the_file() -> None:
    with pytest.raises(MalformedYaml) as caught:
        parse("api_key: 'sk-sentinel-0123456789abcdef\nother: [\n")
    assert "sentinel" not in str(caught.value)
    assert caught.value.__context__ is None or "sentinel" not in repr(caught.value.__context__)


def test_locate_finds_keys_items_and_the_nearest_enclosing_place() -> None:
    text = textwrap.dedent("""\
        models:
          # a comment
          fast:
            stop: [one,
                   two]
            retry: {max_attempts: 3}
        """)
    assert locate(text, ("models",)) == Place(1, 1)
    assert locate(text, ("models", "fast", "stop")) == Place(4, 5)
    assert locate(text, ("models", "fast", "stop", 1)) == Place(5, 12)
    assert locate(text, ("models", "fast", "retry", "max_attempts")) == Place(6, 13)
    assert locate(text, ("models", "fast", "nothing")) == Place(3, 3)
    assert locate(text, ()) == Place(1, 1)
