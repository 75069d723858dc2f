"""The kinds of events: what stands in the schema and on the page is what is in the table, and events keep to it."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from jsonschema import Draft202012Validator
from tests.support.event_schema import exported, misfits

from agentflow.core import ExecutionEvent
from agentflow.core.observability.attribution import ORDER
from agentflow.core.observability.kinds import FACTS, FIELDS, KINDS, event_schema

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = ROOT / "docs" / "events.schema.json"


def _script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("event_kinds", ROOT / "scripts" / "event_kinds.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


EVENT = ExecutionEvent(
    "model_success", "run", "article/write#1", "write", 1, 7, 1.8e9, 2.5,
    data={"model": "gpt-4o", "provider": "openai", "cost": None, "breakdown": {"limiter": 1.5, "generation": 1.0}},
    span=6, parent=4, at=3.0,
)  # fmt: skip


# ---- what is made of the table -------------------------------------------------------------------------------


def test_the_schema_file_is_the_one_that_the_table_makes() -> None:
    """`python scripts/event_kinds.py` writes it."""
    assert SCHEMA.read_text(encoding="utf-8") == _script().schema_text()


def test_the_page_holds_the_table() -> None:
    page = (ROOT / "docs" / "observability.md").read_text(encoding="utf-8")
    assert page == _script().filled(page)


def test_a_page_without_its_marks_is_not_overwritten() -> None:
    with pytest.raises(SystemExit, match="lacks the marks"):
        _script().filled("# A page\n")


@pytest.mark.parametrize("strict", [False, True])
def test_both_forms_are_schemas(strict: bool) -> None:
    Draft202012Validator.check_schema(event_schema(strict=strict))


def test_the_fields_are_those_of_the_record() -> None:
    assert set(FIELDS) == set(ExecutionEvent.__slots__)


def test_every_fact_is_said_by_some_kind_and_every_kind_says_known_facts() -> None:
    said = {fact for kind in KINDS.values() for fact in kind.facts}
    assert said == set(FACTS)
    assert all(len(kind.facts) == len(set(kind.facts)) for kind in KINDS.values())


def test_what_begins_and_ends_is_complete() -> None:
    """Whatever has a start can end well, badly, and by being cancelled; what users' code runs in may be parked, too."""
    begun = [name.removesuffix("_start") for name in KINDS if name.endswith("_start")]
    assert begun == ["flow", "node", "compensate", "model", "attempt", "tool"]
    for what in begun:
        assert all(KINDS[f"{what}_{end}"].ends for end in ("success", "error", "cancelled"))
    assert all(KINDS[f"{what}_interrupted"].ends for what in ("flow", "node", "tool"))


# ---- what it refuses -----------------------------------------------------------------------------------------


def test_an_event_that_keeps_to_it_is_fine() -> None:
    assert misfits([EVENT]) == []


def test_a_kind_of_the_users_own_says_what_it_likes() -> None:
    assert misfits([replace(EVENT, kind="order_placed", duration=None, data={"basket": [1, {"a": None}]})]) == []


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"kind": ""}, "kind"),
        ({"sequence": -1}, "sequence"),
        ({"visit": -1}, "visit"),
        ({"duration": None}, "duration: None is not of type 'number'"),
        ({"kind": "model_start", "data": {"model": "m", "provider": "p"}}, "duration: 2.5 is not of type 'null'"),
        ({"data": {"model": "m"}}, "data: 'provider' is a required property"),
        ({"data": {**EVENT.data, "breakdown": {"sleeping": 1.0}}}, "'sleeping' is not one of"),
        ({"data": {**EVENT.data, "breakdown": {"own": -1.0}}}, "breakdown.own: -1.0 is less than the minimum"),
        ({"data": {**EVENT.data, "input_tokens": "12"}}, "data.input_tokens: '12' is not of type 'integer'"),
        ({"data": {**EVENT.data, "api_key": "x"}}, "'api_key' was unexpected"),
        ({"kind": "feedback", "duration": None, "data": {"source": "user", "score": 1.5}}, "1.5 is greater than"),
    ],
)
def test_what_does_not_keep_to_it_is_named(change: dict[str, object], complaint: str) -> None:
    assert complaint in " | ".join(misfits([replace(EVENT, **change)]))


def test_the_published_form_puts_up_with_what_later_releases_add() -> None:
    later = exported(replace(EVENT, data={**EVENT.data, "carbon": 1.0}))
    assert Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8"))).is_valid(later)
    assert misfits([replace(EVENT, data={**EVENT.data, "carbon": 1.0})])


def test_every_category_of_time_may_stand_in_a_breakdown() -> None:
    assert misfits([replace(EVENT, data={**EVENT.data, "breakdown": dict.fromkeys(ORDER, 0.1)})]) == []
