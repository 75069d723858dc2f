"""Tool calls in pieces: whatever a server does with numbers, ids and names, each piece finds its call."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.llm.content import Json, ToolCall
from agentflow.llm.messages import StreamChunk, ToolCallDelta
from agentflow.llm.providers.openai.chat_calls import ToolCalls
from agentflow.llm.streaming.join import join

OSLO, ROME = '{"city":"Oslo"}', '{"city":"Rome"}'


def added(*events: Sequence[Any], answer: str = "chatcmpl-1") -> tuple[ToolCall, ...]:
    """The calls that the entries of several events add up to."""
    calls = ToolCalls("openai", 0)
    chunks = [StreamChunk(tool_calls=calls.read(list(entries), answer)) for entries in events]
    return join(chunks, provider="p", model="m").tool_calls


def piece(index: Any = None, id_: Any = None, name: Any = None, arguments: Any = None, **more: Any) -> dict[str, Json]:
    """An entry of a delta with what is given and nothing else."""
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    entry = {"index": index, "id": id_, "function": function or None, **more}
    return {key: value for key, value in entry.items() if value is not None}


def seen(calls: Sequence[ToolCall]) -> list[tuple[str, str, str]]:
    return [(call.id, call.name, call.json) for call in calls]


BOTH = [("a", "f", OSLO), ("b", "f", ROME)]

SERVERS: list[tuple[str, list[list[dict[str, Json]]], list[tuple[str, str, str]]]] = [
    (
        "numbers the calls and names each once, as OpenAI does",
        [
            [piece(0, "a", "f", "")],
            [piece(0, arguments='{"city":')],
            [piece(0, arguments='"Oslo"}')],
            [piece(1, "b", "f", "")],
            [piece(1, arguments=ROME)],
        ],
        BOTH,
    ),
    (
        "mixes the pieces of both",
        [
            [piece(0, "a", "f"), piece(1, "b", "f")],
            [piece(1, arguments='{"city":'), piece(0, arguments='{"city":"Os')],
            [piece(0, arguments='lo"}')],
            [piece(1, arguments='"Rome"}')],
        ],
        BOTH,
    ),
    ("sends each call whole", [[piece(0, "a", "f", OSLO)], [piece(1, "b", "f", ROME)]], BOTH),
    ("sends both whole at once, without numbers", [[piece(None, "a", "f", OSLO), piece(None, "b", "f", ROME)]], BOTH),
    ("gives every call the same number", [[piece(0, "a", "f", OSLO)], [piece(0, "b", "f", ROME)]], BOTH),
    ("gives both the same number in one event", [[piece(0, "a", "f", OSLO), piece(0, "b", "f", ROME)]], BOTH),
    (
        "has one call twice in one event",
        [[piece(0, "a", "f", '{"city":'), piece(0, arguments='"Oslo"}')]],
        BOTH[:1],
    ),
    (
        "repeats the id with every piece, and the number is wrong",
        [
            [piece(0, "a", "f", "")],
            [piece(0, "b", "f", "")],
            [piece(0, "a", None, OSLO)],
            [piece(0, "b", None, ROME)],
        ],
        BOTH,
    ),
    (
        "repeats id and name with every piece",
        [[piece(0, "a", "f", '{"city":')], [piece(0, "a", "f", '"Oslo"}')], [piece(1, "b", "f", ROME)]],
        BOTH,
    ),
    (
        "repeats the name alone with every piece",
        [[piece(0, "a", "f", '{"city":')], [piece(0, None, "f", '"Oslo"}')]],
        BOTH[:1],
    ),
    (
        "counts the number up with every piece",
        [[piece(0, "a", "f", "")], [piece(1, None, None, '{"city":')], [piece(2, None, None, '"Oslo"}')]],
        BOTH[:1],
    ),
    ("never sends a number", [[piece(None, "a", "f", "")], [piece(None, None, None, OSLO)]], BOTH[:1]),
    (
        "sends empty ids with later pieces",
        [[piece(0, "a", "f", "")], [piece(0, "", "", OSLO)], [piece(1, "b", "f", "")], [piece(1, "", "", ROME)]],
        BOTH,
    ),
    (
        "gives every piece an id of its own",
        [
            [piece(0, "a", "f", '{"city":')],
            [piece(0, "x", None, '"Os')],
            [piece(0, "y", "", 'lo"}')],
            [piece(1, "b", "f", "")],
            [piece(1, "z", None, ROME)],
        ],
        BOTH,
    ),
    (
        "gives every piece an id of its own and no number",
        [[piece(None, "a", "f", "")], [piece(None, "x", None, OSLO)], [piece(None, "b", "f", ROME)]],
        BOTH,
    ),
    ("sends the id after the name", [[piece(0, None, "f", "")], [piece(0, "a", None, OSLO)]], BOTH[:1]),
    ("sends arguments as an object", [[piece(0, "a", "f", {"city": "Oslo"})]], BOTH[:1]),
    ("sends no arguments", [[piece(0, "a", "f")]], [("a", "f", "{}")]),
]


@pytest.mark.parametrize(("events", "expected"), [case[1:] for case in SERVERS], ids=[case[0] for case in SERVERS])
def test_a_server_that(events: list[list[dict[str, Json]]], expected: list[tuple[str, str, str]]) -> None:
    assert seen(added(*events)) == expected


# ---- ids of our own ------------------------------------------------------------------------------------------


def test_calls_without_ids_get_some_that_are_always_the_same() -> None:
    """Whole and in pieces, as often as the answer is read, and no two alike."""
    whole = ToolCalls("openai", 0).whole([piece(None, None, "f", OSLO), piece(None, None, "f", ROME)], None, "x")
    streamed = added([piece(0, None, "f", "")], [piece(0, None, None, OSLO)], [piece(1, None, "f", ROME)], answer="x")
    at_one_number = added([piece(0, None, "f", OSLO)], [piece(0, None, "f", ROME)], answer="x")
    assert seen(streamed) == seen(whole) == seen(at_one_number)
    assert [call.json for call in whole] == [OSLO, ROME]
    assert len({call.id for call in whole}) == 2
    assert all(call.id.startswith("call_") and len(call.id) <= 40 for call in whole), "OpenAI takes 40 characters"


def test_made_ids_differ_from_answer_to_answer_and_choice_to_choice() -> None:
    entry = [piece(0, None, "f", OSLO)]
    ids = {ToolCalls("openai", choice).read(entry, answer)[0].id for choice in (0, 1) for answer in ("x", "y")}
    assert len(ids) == 4


def test_an_id_is_not_made_again_for_later_pieces() -> None:
    calls = ToolCalls("openai", 0)
    first, second = calls.read([piece(0, None, "f", "{"), piece(0, None, None, "}")], "x")
    assert first.id
    assert second == ToolCallDelta(0, arguments="}")


def test_the_same_id_for_different_calls_keeps_them_apart() -> None:
    calls = added([piece(0, "a", "f", OSLO), piece(1, "a", "f", ROME)])
    assert [call.json for call in calls] == [OSLO, ROME]


def test_the_same_id_for_whole_calls_without_numbers_keeps_them_apart() -> None:
    """A name, and arguments where there was nothing left to say, begin another call."""
    calls = added([piece(None, "a", "f", OSLO), piece(None, "a", "f", ROME)])
    assert [call.json for call in calls] == [OSLO, ROME]
    repeated = added([piece(None, "a", "f", '{"city":')], [piece(None, "a", "f", '"Os}lo"}')])
    assert [call.json for call in repeated] == ['{"city":"Os}lo"}']


@given(
    st.recursive(
        st.text(max_size=4),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    ),
    st.data(),
)
def test_where_arguments_end_is_seen_wherever_they_are_cut(value: Any, data: st.DataObject) -> None:
    """Two calls that repeat the name with every piece are two, whatever brackets and quotes their texts hold."""
    text = json.dumps({"x": value}, ensure_ascii=data.draw(st.booleans()))
    cuts = sorted(data.draw(st.lists(st.integers(1, len(text) - 1), max_size=4, unique=True)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    events = [[piece(None, None, "f", one)] for one in [*pieces, *pieces]]
    assert [call.json for call in added(*events)] == [text, text]


# ---- what is not modelled ------------------------------------------------------------------------------------


def test_what_comes_with_a_call_stays_with_it() -> None:
    signature: Json = {"google": {"thought_signature": "s"}}
    (call,) = added([piece(0, "a", "f", "", extra_content=signature)], [piece(0, None, None, OSLO)])
    assert call.opaque == {"openai": {"extra_content": signature}}


def test_what_says_nothing_is_not_kept() -> None:
    (call,) = added([piece(0, "a", "f", OSLO, type="function") | {"extra_content": None, "custom": None}])
    assert call.opaque == {}


@pytest.mark.parametrize("entries", [None, 7, "x", {}, [7, None, "x"], []])
def test_entries_that_are_none_are_no_calls(entries: Any) -> None:
    calls = ToolCalls("openai", 0)
    assert calls.read(entries, "x") == ()
    assert calls.whole(entries, entries if entries != {} else None, "x") == []
    assert not calls


@pytest.mark.parametrize(
    "entry",
    [
        {"index": [], "id": 7, "function": {"name": 7, "arguments": 7}},
        {"index": {}, "id": None, "function": "f"},
        {"index": 1.5, "function": []},
        {"index": True, "type": 7, "custom": 7},
        {},
    ],
)
def test_an_entry_of_the_wrong_types_is_a_call_without_a_name(entry: Any) -> None:
    (delta,) = ToolCalls("openai", 0).read([entry], "x")
    assert (delta.index, delta.name, delta.arguments) == (0, "", "")
    assert delta.id.startswith("call_")


# ---- the law -------------------------------------------------------------------------------------------------

ARGUMENTS = st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=8), max_size=3).map(json.dumps)
CALLS = st.lists(st.tuples(st.sampled_from(["f", "g"]), ARGUMENTS), min_size=1, max_size=5)


@given(st.data(), CALLS, st.booleans(), st.booleans())
def test_any_splitting_and_mixing_gives_the_same_calls(
    data: st.DataObject, wanted: list[tuple[str, str]], repeats_id: bool, numbered: bool
) -> None:
    """Each call begins in its turn, its pieces stay in their order, and what belongs together is told by the number or
    by an id that every piece repeats."""
    repeats_id = repeats_id or not numbered
    queues: list[list[dict[str, Json]]] = []
    for at, (name, arguments) in enumerate(wanted):
        cuts = sorted(data.draw(st.lists(st.integers(0, len(arguments)), max_size=4)))
        texts = [arguments[a:b] for a, b in zip([0, *cuts], [*cuts, len(arguments)], strict=True)]
        number, id_ = at if numbered else None, f"call_{at}"
        rest = [piece(number, id_ if repeats_id else None, None, text) for text in texts]
        queues.append([piece(number, id_, name, ""), *rest])
    pieces, begun = [], 0
    while any(queues):
        open_ = [at for at, queue in enumerate(queues) if queue and at <= begun]
        at = data.draw(st.sampled_from(open_))
        pieces.append(queues[at].pop(0))
        begun = max(begun, at + 1)
    events = []
    while pieces:
        size = data.draw(st.integers(1, 3))
        events.append([pieces.pop(0) for _ in range(min(size, len(pieces)))])
    assert seen(added(*events)) == [(f"call_{at}", name, text) for at, (name, text) in enumerate(wanted)]


@given(CALLS, st.booleans())
def test_whole_calls_without_ids_are_told_apart_by_their_names(wanted: list[tuple[str, str]], numbered: bool) -> None:
    """One call an event, as local servers send them, all with the same number or with none."""
    events = [[piece(0 if numbered else None, None, name, text)] for name, text in wanted]
    assert [(call.name, call.json) for call in added(*events)] == wanted
