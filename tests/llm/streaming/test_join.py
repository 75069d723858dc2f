"""Chunks add up to the answer they were cut from, in whatever pieces they come."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.llm.content import Image, Part, Raw, Reasoning, Text, ToolCall, content_of
from agentflow.llm.messages import (
    Alternative,
    Message,
    Response,
    StreamChunk,
    TokenLogprob,
    ToolCallDelta,
    Usage,
)
from agentflow.llm.streaming.join import Joiner, chunks_of, join, laid_over

words = st.text(min_size=1, max_size=12)
opaque = st.sampled_from([{}, {"openai": {"id": "x"}}, {"google": {"signature": "abc", "list": [1]}}])


def parts() -> st.SearchStrategy[Part]:
    return st.one_of(
        st.builds(Text, words, opaque=opaque),
        st.builds(Reasoning, words, opaque=opaque),
        st.builds(lambda text: ToolCall.parse("call-1", "f", '{"a": "' + "x" * text + '"}'), st.integers(0, 9)),
        st.builds(ToolCall, st.just("call-2"), st.just("f"), st.just({"a": 1}), opaque=opaque),
        st.just(Image("https://example.org/cat.png")),
        st.just(Raw("anthropic", {"type": "server_tool_use", "id": "s1"})),
    )


def responses() -> st.SearchStrategy[Response]:
    content = st.lists(parts(), max_size=5).map(content_of)
    other = st.builds(Alternative, content, finish_reason=st.just("stop"), logprobs=st.just((TokenLogprob("a", -1.0),)))
    return st.builds(
        Response,
        content,
        st.just("m-1"),
        st.just("lab"),
        usage=st.one_of(st.none(), st.just(Usage(3, 2, cached_tokens=1))),
        finish_reason=st.sampled_from([None, "stop", "tool_calls"]),
        request_id=st.just("r1"),
        cost=st.one_of(st.none(), st.just(0.5)),
        opaque=opaque,
        id=st.just("id-1"),
        service_tier=st.just("default"),
        logprobs=st.just((TokenLogprob("b", -2.0, (("c", -3.0),)),)),
        alternatives=st.lists(other, max_size=2).map(tuple),
    )


@given(responses())
def test_an_answer_taken_apart_adds_up_to_itself(response: Response) -> None:
    """`join` is the inverse of `chunks_of`, for every kind of part and for several answers."""
    assert join(chunks_of(response), provider="lab", model="m-1") == response


@given(responses(), st.data())
def test_texts_may_be_cut_anywhere(response: Response, data: Any) -> None:
    """Where a text or the arguments of a call are cut makes no difference."""
    cut: list[StreamChunk] = []
    for chunk in chunks_of(response):
        at = data.draw(st.integers(0, len(chunk.content)))
        if chunk.content and chunk.slot is not None:
            cut.append(StreamChunk(chunk.content[:at], index=chunk.index, slot=chunk.slot))
            cut.append(StreamChunk(chunk.content[at:], index=chunk.index, slot=chunk.slot, opaque=chunk.opaque))
        else:
            cut.append(chunk)
    assert join(cut, provider="lab", model="m-1") == response


@given(st.lists(st.sampled_from(["a", "b", "c"]), max_size=30))
def test_tool_calls_are_told_apart_by_their_index(order: list[str]) -> None:
    """Pieces of several calls may come in any order: each goes to its own call."""
    joiner = Joiner()
    indices = {name: index for index, name in enumerate(dict.fromkeys(order))}
    for name, index in indices.items():
        joiner.add(StreamChunk(tool_calls=(ToolCallDelta(index, f"id-{name}", name),)))
    for name in order:
        joiner.add(StreamChunk(tool_calls=(ToolCallDelta(indices[name], arguments=name),)))
    calls = joiner.response(provider="lab", model="m").tool_calls
    assert {call.name: call.raw for call in calls} == {name: name * order.count(name) for name in indices}


def test_chunks_without_a_slot_make_one_text_and_one_reasoning() -> None:
    """As a server sends them that knows no parts."""
    pieces = [StreamChunk("Hel"), StreamChunk(reasoning="hm"), StreamChunk("lo"), StreamChunk(reasoning="m")]
    assert join(pieces, provider="lab", model="m").content == (Text("Hello"), Reasoning("hmm"))


def test_parts_stand_in_the_order_of_their_first_piece() -> None:
    pieces = [
        StreamChunk(reasoning="first", slot=0),
        StreamChunk("then", slot=1),
        StreamChunk(tool_calls=(ToolCallDelta(0, "c1", "f", "{}"),)),
        StreamChunk("last", slot=3),
        StreamChunk(slot=0, opaque={"anthropic": {"signature": "s"}}),
    ]
    assert join(pieces, provider="lab", model="m").content == (
        Reasoning("first", opaque={"anthropic": {"signature": "s"}}),
        Text("then"),
        ToolCall("c1", "f", {}, "{}"),
        Text("last"),
    )


def test_usage_is_the_last_word_and_never_added_within_a_round() -> None:
    pieces = [StreamChunk(usage=Usage(3, 1)), StreamChunk("x"), StreamChunk(usage=Usage(5, 9))]
    assert join(pieces, provider="lab", model="m").usage == Usage(5, 9)


def test_a_further_round_begins_a_new_answer_and_adds_its_usage() -> None:
    """The turns between the rounds are kept, so that the history is whole."""
    calling = Message("assistant", (ToolCall("c1", "f"),))
    pieces = [
        StreamChunk("Let me look."),
        StreamChunk(usage=Usage(3, 1), cost=0.5, finish_reason="tool_calls"),
        StreamChunk(round=1, turn=calling),
        StreamChunk("Sunny.", round=1),
        StreamChunk(usage=Usage(9, 2), cost=0.25, finish_reason="stop", round=1),
    ]
    reply = join(pieces, provider="lab", model="m")
    assert (reply.text, reply.usage, reply.cost, reply.finish_reason) == ("Sunny.", Usage(12, 3), 0.75, "stop")
    assert reply.messages == (calling, reply.message)


def test_the_cost_is_unknown_if_that_of_any_round_is() -> None:
    pieces = [StreamChunk("a", cost=1.0), StreamChunk("b", round=1)]
    assert join(pieces, provider="lab", model="m").cost is None


def test_what_is_longer_than_the_limit_is_no_longer_kept() -> None:
    """Memory stays flat, whatever a server sends."""
    joiner = Joiner(limit=1000)
    for _ in range(200):
        joiner.add(StreamChunk("x" * 10))
    assert joiner.overflowed
    assert joiner.text == ""


@pytest.mark.parametrize(
    ("below", "above", "both"),
    [
        ({}, {"a": 1}, {"a": 1}),
        ({"a": 1}, {"a": 2}, {"a": 2}),
        ({"a": {"b": 1}}, {"a": {"c": 2}}, {"a": {"b": 1, "c": 2}}),
        ({"a": [1]}, {"a": [2]}, {"a": [1, 2]}),
        ({"a": [1]}, {"a": "x"}, {"a": "x"}),
    ],
)
def test_opaque_data_is_laid_over(below: dict[str, Any], above: dict[str, Any], both: dict[str, Any]) -> None:
    assert laid_over(below, above) == both
