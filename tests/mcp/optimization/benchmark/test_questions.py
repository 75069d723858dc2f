"""What is asked and how answers are checked: data sets, checkers, JSON Schema."""

from __future__ import annotations

import json
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from agentflow.errors import ConfigurationError, DocumentError
from agentflow.llm.messages import Message
from agentflow.mcp.optimization.benchmark import (
    Case,
    Contains,
    Dataset,
    Exact,
    Matches,
    Synthetic,
    ValidJson,
    checker_named,
)
from agentflow.mcp.optimization.benchmark.json_schema import Schema


def dataset(tmp_path: Path, *lines: object) -> Dataset:
    file = tmp_path / "questions.jsonl"
    file.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return Dataset.read(file)


def test_a_line_is_a_question_with_what_is_expected_of_its_answer(tmp_path: Path) -> None:
    found = dataset(
        tmp_path,
        {"prompt": "2 + 2?", "expected": "4", "max_tokens": 8, "system": "Be brief.", "temperature": 0, "id": 7},
        "",
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}], "expected": {"a": 1}},
    )
    first, second = found.questions
    assert first == Case((Message("system", "Be brief."), Message("user", "2 + 2?")), "4", 8, 0, "7")
    assert first.prompt == "2 + 2?"
    assert second.messages == (Message("user", "Hi"), Message("assistant", "Ho"))
    assert second.expected == '{"a": 1}'


def test_questions_are_asked_from_the_first_again_when_they_are_used_up() -> None:
    assert [case.prompt for case in Dataset.of("a", "b").cases(5)] == ["a", "b", "a", "b", "a"]


def test_a_fingerprint_follows_what_is_asked_and_expected_not_the_file(tmp_path: Path) -> None:
    one = dataset(tmp_path, {"prompt": "a", "expected": "b"})
    assert one.fingerprint == Dataset(one.questions, "elsewhere").fingerprint
    assert one.fingerprint != dataset(tmp_path, {"prompt": "a", "expected": "c"}).fingerprint
    assert Synthetic(10, 5).fingerprint != Synthetic(10, 6).fingerprint


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "this is no JSON"),
        ("[]", "a question is an object"),
        ({"prompt": "a", "expect": "b"}, "nobody knows expect"),
        ({"prompt": "a", "messages": []}, "a prompt, or messages"),
        ({"expected": "a"}, "a prompt, or messages"),
        ({"messages": []}, "messages is a list of turns"),
        ({"messages": [{"role": "user"}]}, "a turn has a role and a content"),
        ({"prompt": 3}, "prompt: found a int"),
        ({"prompt": "a", "max_tokens": 1.5}, "max_tokens: found 1.5"),
        ({"prompt": "a", "max_tokens": True}, "max_tokens: found True"),
        ({"prompt": "a", "temperature": -1}, "temperature: found -1"),
    ],
)
def test_what_is_no_question_is_an_error_that_names_the_line(tmp_path: Path, line: object, complaint: str) -> None:
    with pytest.raises(DocumentError, match=f":2: .*{complaint}"):
        dataset(tmp_path, {"prompt": "fine"}, line)


def test_an_empty_file_and_a_missing_one_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="is empty"):
        dataset(tmp_path, "")
    with pytest.raises(DocumentError, match="No such file"):
        Dataset.read(tmp_path / "nowhere.jsonl")


# ---- checkers ----------------------------------------------------------------------------------------------------

PARIS = Case.of("Capital of France?", expected="Paris")
OPEN = Case.of("Write a poem.")


@pytest.mark.parametrize(
    ("checker", "text", "case", "mark"),
    [
        (Exact(), " paris \n", PARIS, True),
        (Exact(strict=True), "paris", PARIS, False),
        (Exact(), "It is Paris", PARIS, False),
        (Exact(), "anything", OPEN, None),
        (Contains(), "It is PARIS, I think", PARIS, True),
        (Contains(), "London", PARIS, False),
        (Contains("sea"), "The sea", OPEN, True),
        (Contains(), "anything", OPEN, None),
        (Matches(r"^\d+$"), "42", OPEN, True),
        (Matches(r"^\d+$"), "42?", OPEN, False),
        (ValidJson(), '{"a": 1}', OPEN, True),
        (ValidJson(), '```json\n{"a": 1}\n```', OPEN, False),
        (ValidJson({"required": ["b"]}), '{"a": 1}', OPEN, False),
        (ValidJson(), "[" * 100_000, OPEN, False),
    ],
)
def test_checkers(checker: Any, text: str, case: Case, mark: bool | None) -> None:
    assert checker(text, case) is mark


def test_the_command_line_names_checkers_with_what_they_need(tmp_path: Path) -> None:
    (tmp_path / "person.json").write_text('{"required": ["name"]}')
    assert checker_named("exact") == Exact()
    assert checker_named("contains") == Contains()
    assert checker_named("regex:^a:b$") == Matches("^a:b$")
    schema = checker_named(f"schema:{tmp_path / 'person.json'}")
    assert schema('{"name": "Ann"}', OPEN) is True
    assert schema("{}", OPEN) is False


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("exakt", "did you mean exact"),
        ("regex", "needs a pattern"),
        ("regex:(", "regex"),
        ("exact:3", "nothing behind a colon"),
        ("schema:nowhere.json", "No such file"),
        ("json:x", "nothing behind a colon"),
    ],
)
def test_a_checker_that_nobody_knows_is_an_error_that_helps(text: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        checker_named(text)


def shorter(argument: str | None) -> Any:
    """What a package's entry point leads to."""
    return lambda text, case: len(text) < int(argument or 10)


def test_packages_add_checkers_by_an_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    found = EntryPoint("shorter", f"{__name__}:shorter", "agentflow.checkers")
    monkeypatch.setattr(EntryPoint, "load", lambda self: shorter)
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [found] if group == found.group else [])
    assert checker_named("shorter:3")("ab", OPEN) is True
    assert checker_named("shorter:3")("abc", OPEN) is False
    with pytest.raises(ConfigurationError, match=r"known are .*shorter"):
        checker_named("nothing like it")


# ---- JSON Schema -------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-5, 5, width=16) | st.text("abc", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)
SMALL = st.integers(0, 3)
KINDS = st.sampled_from(["object", "array", "string", "number", "integer", "boolean", "null"])


def schemas() -> st.SearchStrategy[Any]:
    plain = st.fixed_dictionaries(
        {},
        optional={
            "type": KINDS | st.lists(KINDS, min_size=1, max_size=3, unique=True),
            "enum": st.lists(JSON, min_size=1, max_size=3),
            "const": JSON,
            "minimum": st.integers(-3, 3),
            "exclusiveMaximum": st.integers(-3, 3),
            "multipleOf": st.sampled_from([1, 2, 0.5]),
            "minLength": SMALL,
            "maxLength": SMALL,
            "pattern": st.sampled_from(["^a", "b$", "abc?"]),
            "minItems": SMALL,
            "maxItems": SMALL,
            "uniqueItems": st.booleans(),
            "required": st.lists(st.sampled_from("abc"), max_size=2, unique=True),
            "minProperties": SMALL,
            "maxProperties": SMALL,
            "dependentRequired": st.dictionaries(st.sampled_from("abc"), st.just(["a"]), max_size=2),
        },
    )

    def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        return st.fixed_dictionaries(
            {},
            optional={
                "properties": st.dictionaries(st.sampled_from("abc"), inner, max_size=2),
                "patternProperties": st.dictionaries(st.sampled_from(["^a", "[bc]"]), inner, max_size=2),
                "additionalProperties": inner,
                "propertyNames": inner,
                "prefixItems": st.lists(inner, min_size=1, max_size=2),
                "items": inner,
                "contains": inner,
                "minContains": SMALL,
                "anyOf": st.lists(inner, min_size=1, max_size=2),
                "allOf": st.lists(inner, min_size=1, max_size=2),
                "oneOf": st.lists(inner, min_size=1, max_size=2),
                "not": inner,
                "if": inner,
                "then": inner,
                "else": inner,
            },
        )

    return st.recursive(plain | st.booleans(), nested, max_leaves=5)


@given(schema=schemas(), value=JSON)
def test_a_value_fits_a_schema_where_the_reference_implementation_says_so(schema: Any, value: Any) -> None:
    assert Schema(schema).fits(value) == Draft202012Validator(schema).is_valid(value)


def test_references_lead_within_the_schema() -> None:
    tree = {
        "$defs": {"node": {"properties": {"child": {"$ref": "#/$defs/node"}}, "required": ["v"]}},
        "$ref": "#/$defs/node",
    }
    assert Schema(tree).fits({"v": 1, "child": {"v": 2}})
    assert not Schema(tree).fits({"v": 1, "child": {}})
    assert not Schema({"$ref": "#"}).fits(1)  # in circles


@pytest.mark.parametrize(
    ("schema", "complaint"),
    [
        ({"requierd": ["a"]}, "requierd is not understood"),
        ({"properties": {"a": {"unevaluatedItems": False}}}, "#/properties/a: unevaluatedItems"),
        ({"type": "text"}, "no type 'text'"),
        ({"$ref": "https://example.org/a"}, "leads out of the schema"),
        ({"$ref": "#/$defs/a"}, "leads nowhere"),
        ({"pattern": "("}, "pattern"),
        ({"items": 3}, "found a int"),
    ],
)
def test_a_schema_that_is_not_understood_is_an_error_and_passes_nothing(schema: Any, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint.replace("$", r"\$")):
        Schema(schema)
