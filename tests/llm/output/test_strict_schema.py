"""OpenAI's strict subset: what of a JSON Schema it can say."""

from __future__ import annotations

from typing import Any

import pytest

from agentflow.llm.output.strict_schema import Schema, strict_schema


def test_every_field_is_required_and_every_object_closed() -> None:
    """What may be left out may be null, and rules without a keyword there are told in words."""
    assert strict_schema(
        {
            "type": "object",
            "properties": {
                "name": {"type": "string", "minLength": 1, "description": "in full"},
                "days": {"type": "integer", "default": 1},
                "unit": {"type": "string", "enum": ["C", "F"]},
                "home": {"$ref": "#/$defs/Home"},
                "note": {"type": ["string", "null"], "default": None},
            },
            "required": ["name"],
            "$defs": {
                "Home": {"type": "object", "title": "Home", "properties": {}, "additionalProperties": False},
                "Unused": {"type": "string"},
            },
        }
    ) == {
        "type": "object",
        "properties": {
            "name": {"type": "string", "description": "in full (minLength: 1)"},
            "days": {"type": ["integer", "null"], "description": "(default: 1)"},
            "unit": {"type": ["string", "null"], "enum": ["C", "F", None]},
            "home": {"anyOf": [{"$ref": "#/$defs/Home"}, {"type": "null"}]},
            "note": {"type": ["string", "null"]},
        },
        "required": ["name", "days", "unit", "home", "note"],
        "additionalProperties": False,
        "$defs": {"Home": {"type": "object", "properties": {}, "required": [], "additionalProperties": False}},
    }


def test_a_reference_about_which_more_is_said_is_written_out() -> None:
    """The subset wants a `$ref` to stand alone."""
    rule = strict_schema(
        {
            "type": "object",
            "properties": {"a": {"$ref": "#/$defs/A", "description": "the first"}, "b": {"$ref": "#/$defs/A"}},
            "required": ["a", "b"],
            "$defs": {"A": {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}},
        }
    )
    assert rule is not None
    found: Any = rule["properties"]
    assert found["a"]["description"] == "the first"
    assert found["a"]["properties"] == {"x": {"type": "integer"}}
    assert found["b"] == {"$ref": "#/$defs/A"}


@pytest.mark.parametrize(
    "inner",
    [
        {},
        {"type": "object"},
        {"type": "object", "additionalProperties": {"type": "integer"}},
        {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": True},
        {"type": "array"},
        {"type": "array", "prefixItems": [{"type": "string"}]},
        {"type": "array", "items": {}},
        {"not": {"type": "string"}},
        {"allOf": [{"type": "string"}, {"type": "integer"}]},
        {"type": "object", "properties": {"a": {"type": ["string", "null"]}}},
    ],
)
def test_what_strictness_would_change_has_no_strict_schema(inner: Schema) -> None:
    """Free keys, tuples, anything at all, and a null that means something else than an absence."""
    assert strict_schema({"type": "object", "properties": {"x": inner}, "required": ["x"]}) is None


def test_the_top_must_be_an_object() -> None:
    """APIs ask for that."""
    assert strict_schema({"anyOf": [{"type": "null"}]}) is None
    assert strict_schema({"type": "string"}) is None
