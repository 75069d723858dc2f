"""Whether a value fits a schema, held against the reference implementation."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from agentflow.mcp.optimization.router.schema_fit import misfit

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "minLength": 1}, "age": {"type": ["integer", "null"], "minimum": 0}},
    "required": ["name"],
    "additionalProperties": False,
}
TREE = {
    "$defs": {
        "Tree": {"type": "object", "properties": {"left": {"anyOf": [{"$ref": "#/$defs/Tree"}, {"type": "null"}]}}}
    },
    "$ref": "#/$defs/Tree",
}


@pytest.mark.parametrize(
    ("value", "schema", "why"),
    [
        ({"name": "Ada"}, PERSON, None),
        ({"name": "Ada", "age": 36}, PERSON, None),
        ({"name": "Ada", "age": 36.0}, PERSON, None),
        ({"name": "Ada", "age": None}, PERSON, None),
        ({"name": "Ada", "age": "old"}, PERSON, "$.age: it is no integer or null"),
        ({"name": "Ada", "age": 3.5}, PERSON, "$.age: it is no integer or null"),
        ({"name": "Ada", "age": True}, PERSON, "$.age: it is no integer or null"),
        ({"name": "Ada", "age": -1}, PERSON, "$.age: -1 is out of bounds"),
        ({"name": ""}, PERSON, "$.name: 0 characters is out of bounds"),
        ({"age": 1}, PERSON, "$: it lacks 'name'"),
        ({"name": "Ada", "x": 1}, PERSON, "$: it has a field 'x', which is not known"),
        ([], PERSON, "$: it is no object"),
        ({"left": {"left": None}}, TREE, None),
        ({"left": 3}, TREE, "$.left: it fits none of the 2 shapes that are allowed"),
        ("b", {"enum": ["a", "b"]}, None),
        ("c", {"enum": ["a", "b"]}, "$: it is none of the values that are allowed"),
        (1, {"enum": [True]}, "$: it is none of the values that are allowed"),
        (1, {"const": 2}, "$: it is not the value that is wanted"),
        (["a", 1], {"type": "array", "items": {"type": "string"}}, "$[1]: it is no string"),
        ([1, "a"], {"prefixItems": [{"type": "integer"}], "items": {"type": "string"}}, None),
        ([1], {"minItems": 2}, "$: 1 items is out of bounds"),
        ("abc", {"pattern": "^b"}, "$: it does not match the pattern"),
        (5, {"exclusiveMaximum": 5}, "$: 5 is out of bounds"),
        (1, {"allOf": [{"type": "integer"}, {"minimum": 2}]}, "$: 1 is out of bounds"),
        ("x", {"$ref": "#/nowhere"}, None),
        ("x", {"pattern": "("}, None),
    ],
)
def test_what_fits_and_why_not(value: Any, schema: dict[str, Any], why: str | None) -> None:
    assert misfit(value, schema) == why


def test_a_schema_that_goes_in_circles_fits_nothing() -> None:
    assert misfit(1, {"$ref": "#"}) == "$: it is nested too deeply"


_scalars = st.sampled_from([None, True, False, -1, 0, 1, 2, 0.5, 1.0, "", "a"])
_names = st.sampled_from("xy")
_values = st.recursive(
    _scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(_names, inner, max_size=2)),
    max_leaves=4,
)
_kinds = st.sampled_from(["object", "array", "string", "integer", "number", "boolean", "null"])
_leaf = st.one_of(
    _kinds.map(lambda kind: {"type": kind}),
    st.lists(_kinds, min_size=1, max_size=2, unique=True).map(lambda kinds: {"type": kinds}),
    st.lists(_scalars, min_size=1, max_size=2).map(lambda values: {"enum": values}),
    st.integers(-1, 1).map(lambda least: {"minimum": least}),
    st.just({}),
)


def _object(known: dict[str, Any], required: list[str], closed: bool) -> dict[str, Any]:
    rest = {"additionalProperties": False} if closed else {}
    return {"type": "object", "properties": known, "required": required, **rest}


def _further(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    some = st.lists(inner, min_size=1, max_size=2)
    return st.one_of(
        st.builds(_object, st.dictionaries(_names, inner, max_size=2), st.lists(_names, max_size=1), st.booleans()),
        inner.map(lambda each: {"type": "array", "items": each}),
        some.map(lambda each: {"anyOf": each}),
        some.map(lambda each: {"oneOf": each}),
    )


@settings(max_examples=300)
@given(_values, st.recursive(_leaf, _further, max_leaves=4))
def test_it_agrees_with_the_reference(value: Any, schema: dict[str, Any]) -> None:
    assert (misfit(value, schema) is None) == Draft202012Validator(schema).is_valid(value)
