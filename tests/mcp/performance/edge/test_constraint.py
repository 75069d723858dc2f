"""Answers held to schemas: whatever a model of random weights writes at any temperature is valid, or was cut off."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.edge_models import tiny_folder

from agentflow.errors import BadRequestError
from agentflow.mcp.performance.edge.constraint import Constraint, Grammars
from agentflow.mcp.performance.edge.draft import Draft, Wishes
from agentflow.mcp.performance.edge.sampling import Sampling
from agentflow.mcp.performance.edge.tokenizer import EdgeTokenizer

VOCABULARY = 300
TOKENIZER = EdgeTokenizer(tiny_folder())
GRAMMARS = Grammars(TOKENIZER, VOCABULARY)

_LEAVES: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.sampled_from(
        [
            {"type": "boolean"},
            {"type": "null"},
            {"type": "integer", "minimum": -3, "maximum": 120},
            {"type": "number", "minimum": 0, "maximum": 1},
            {"type": "string", "maxLength": 5},
            {"type": "string", "pattern": "^[a-c]{1,3}-[0-9]$"},
            {"type": "string", "format": "date"},
            {"const": 'ö "quoted"'},
            {"enum": ["north", 2, None, True]},
        ]
    ),
)
_NAMES = st.text("abä_ ", min_size=1, max_size=4)


def _within(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    arrays = st.builds(
        lambda items, most: {"type": "array", "items": items, "maxItems": most}, inner, st.integers(0, 3)
    )
    unions = st.builds(lambda several: {"anyOf": several}, st.lists(inner, min_size=1, max_size=3))
    objects = st.dictionaries(_NAMES, inner, max_size=3).flatmap(
        lambda fields: st.builds(
            lambda needed: {
                "type": "object", "properties": fields, "required": needed, "additionalProperties": False,
            },
            st.just(sorted(fields)) | st.lists(st.sampled_from(sorted(fields)), unique=True) if fields else st.just([]),
        )
    )  # fmt: skip
    return arrays | unions | objects


SCHEMAS = st.recursive(_LEAVES, _within, max_leaves=6)


def _write(constraint: Constraint, seed: int, *, most: int = 600, temperature: float = 1.5) -> tuple[str, str | None]:
    """What a model of noise writes."""
    noise = np.random.default_rng(seed)
    wishes = Wishes(sampling=Sampling(temperature=temperature), seed=seed, max_tokens=most)
    draft = Draft([5], wishes, TOKENIZER, room=most, constraint=constraint)
    text = ""
    while True:
        step = draft.take(noise.normal(scale=3.0, size=VOCABULARY).astype(np.float32))
        text += step.text
        if step.finish is not None:
            return text, step.finish


@settings(max_examples=60)
@given(SCHEMAS, st.integers(0, 1000))
def test_what_comes_out_whole_is_valid(schema: dict[str, Any], seed: int) -> None:
    text, finish = _write(GRAMMARS.schema(schema), seed)
    assert finish == "stop"
    jsonschema.validate(json.loads(text), schema, format_checker=jsonschema.FormatChecker())


@settings(max_examples=15)
@given(st.integers(0, 200))
def test_any_json_object_is_an_object(seed: int) -> None:
    text, finish = _write(GRAMMARS.schema(None), seed)
    if finish == "stop":
        assert isinstance(json.loads(text), dict)


@pytest.mark.parametrize("pattern", ["(yes|no)", "[0-9]{4}-[0-9]{2}", "ü+", "a{0}"])
def test_an_expression_matches_the_whole_answer(pattern: str) -> None:
    for seed in range(5):
        text, finish = _write(GRAMMARS.regex(pattern), seed, most=200)
        assert finish == "length" or re.fullmatch(pattern, text)


def test_too_few_tokens_are_told_as_length() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    text, finish = _write(GRAMMARS.schema(schema), 1, most=4)
    assert finish == "length"
    assert '{"a": "'.startswith(text)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nonsense"},
        {"not": {"type": "string"}},
        {"type": "string", "pattern": "(?=a)b"},
        {"$ref": "#/$defs/nowhere"},
        {"type": "integer", "minimum": 3, "maximum": 2},
        {"type": "array", "uniqueItems": True},
    ],
)
def test_a_schema_that_cannot_be_kept_to_is_refused(schema: dict[str, Any]) -> None:
    """Rather than kept to in part."""
    with pytest.raises(BadRequestError, match="cannot be kept to"):
        GRAMMARS.schema(schema)


@pytest.mark.parametrize("pattern", ["(", "(?=a)b", "a(?!b)"])
def test_an_expression_that_cannot_be_kept_to_is_refused(pattern: str) -> None:
    with pytest.raises(BadRequestError, match="cannot be kept to"):
        GRAMMARS.regex(pattern)
