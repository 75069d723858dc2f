"""What one provider said is told to another in a way it takes."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.llm.content import Audio, Image, Raw, Reasoning, Text, ToolCall, ToolResult
from agentflow.llm.messages import Message
from agentflow.llm.providers.history import NINE_LETTERS, WORD, Rules, ToolIds, fitted

CAT = Image("https://example.org/cat.png")


def calling(name: str) -> tuple[Message, ...]:
    return (
        Message("user", "?"),
        Message("assistant", (ToolCall(name, "f"),)),
        Message("tool", (ToolResult(name, "ok", "f"),)),
    )


def test_a_history_of_plain_texts_is_handed_back_as_it_is() -> None:
    messages = (Message("system", "s"), Message("user", "q"), Message("assistant", "a"))
    assert fitted(messages, Rules("anthropic", WORD)) is messages


@pytest.mark.parametrize("ids", [WORD, NINE_LETTERS])
@pytest.mark.parametrize("name", ["functions.get_weather:0", "R-1.0", "ü", "x" * 200, "", "a b"])
def test_an_id_that_an_api_refuses_is_replaced_in_call_and_result(ids: ToolIds, name: str) -> None:
    _, call, result = fitted(calling(name), Rules("anthropic", ids))
    [made], [told] = call.parts, result.parts
    assert isinstance(made, ToolCall)
    assert isinstance(told, ToolResult)
    assert made.id == told.id
    assert re.fullmatch(ids.pattern, made.id)


@pytest.mark.parametrize(("ids", "name"), [(WORD, "call_abc-1"), (NINE_LETTERS, "abcDEF123")])
def test_an_id_that_an_api_takes_stays(ids: ToolIds, name: str) -> None:
    messages = calling(name)
    assert fitted(messages, Rules("anthropic", ids)) == messages


@given(st.lists(st.text(max_size=30), min_size=2, unique=True))
def test_different_ids_stay_different(names: list[str]) -> None:
    for ids in (WORD, NINE_LETTERS):
        assert len({ids.fit(name) for name in names}) == len(names)


def test_texts_without_words_and_turns_with_nothing_are_left_out() -> None:
    """Gemini ends a stream with a signed empty text, which others refuse."""
    signed = Text("", opaque={"google": {"thoughtSignature": "s"}})
    messages = (Message("user", "q"), Message("assistant", (Text("hi"), signed)), Message("assistant", (Text(" "),)))
    assert fitted(messages, Rules("anthropic")) == (Message("user", "q"), Message("assistant", "hi"))


def test_what_an_api_itself_sent_stays_also_when_it_is_empty() -> None:
    signed = Text("", opaque={"google": {"thoughtSignature": "s"}})
    messages = (Message("assistant", (Text("hi"), signed)),)
    assert fitted(messages, Rules("google")) == messages


def test_raw_parts_of_another_api_are_left_out() -> None:
    messages = (Message("assistant", (Raw("google", {"x": 1}), Text("hi"), Raw("anthropic", {"y": 1}))),)
    assert fitted(messages, Rules("anthropic")) == (Message("assistant", (Text("hi"), Raw("anthropic", {"y": 1}))),)


def test_reasoning_stays_for_the_adapter_to_decide() -> None:
    messages = (Message("assistant", (Reasoning("hm"), Text("hi"))),)
    assert fitted(messages, Rules("anthropic")) == messages


def test_pictures_in_results_follow_the_last_result_where_an_api_takes_none() -> None:
    """All results of one answer come first: nothing may stand between a call and its results."""
    messages = (
        Message("assistant", (ToolCall("a", "look"), ToolCall("b", "look"))),
        Message("tool", (ToolResult("a", (Text("seen"), CAT), "look"),)),
        Message("tool", (ToolResult("b", (CAT,), "look"),)),
        Message("assistant", "a cat"),
    )
    made = fitted(messages, Rules("openai", media_in_results=False))
    assert [turn.role for turn in made] == ["assistant", "tool", "tool", "user", "assistant"]
    assert made[1].parts == (ToolResult("a", "seen", "look"),)
    assert made[2].parts == (ToolResult("b", "The result follows.", "look"),)
    assert made[3].parts == (Text("Result of look (a):"), CAT, Text("Result of look (b):"), CAT)
    assert fitted(messages, Rules("openai")) == messages


def test_pictures_of_the_last_turn_follow_it_too() -> None:
    messages = (Message("tool", (ToolResult("a", (CAT,), "look"),)),)
    assert [turn.role for turn in fitted(messages, Rules("openai", media_in_results=False))] == ["tool", "user"]


@pytest.mark.parametrize("blank", ["", " ", "\n\t", (Text(" "),)])
def test_turns_without_words_are_left_out_whoever_said_them(blank: str | tuple[Text, ...]) -> None:
    """An empty text is an error to some APIs, and says nothing to any."""
    messages = (Message("system", blank), Message("user", blank), Message("user", "q"), Message("assistant", blank))
    assert fitted(messages, Rules("anthropic")) == (Message("user", "q"),)


def test_a_turn_of_a_tool_is_never_left_out() -> None:
    """It answers a call; an adapter says what is wrong with it."""
    messages = (Message("tool", ""), Message("tool", (ToolResult("a", ""),)))
    assert fitted(messages, Rules("anthropic")) == messages


def test_a_turn_in_which_nothing_is_to_be_done_stays_what_it_is() -> None:
    """A list of one text is not the text to every API, and recorded requests have both."""
    messages = (Message("user", (Text("q"),)), Message("user", " "), *calling("call_1"))
    assert fitted(messages, Rules("anthropic", WORD)) == (messages[0], *messages[2:])


def test_what_a_model_drew_is_shown_by_the_user_after_the_results_of_its_calls() -> None:
    """Where an API takes no pictures of others in an assistant's turn; its own stay where they are."""
    own = Image("https://example.org/own.png", opaque={"openrouter": {"index": 0}})
    messages = (
        Message("assistant", (Text("Here:"), CAT, own, ToolCall("a", "f"))),
        Message("user", (ToolResult("a", "ok", "f"), Text("And?"))),
        Message("user", "More!"),
    )
    rules = Rules("openrouter", media_in_answers=False)
    answer, told, shown, more = fitted(messages, rules)
    assert answer.parts == (Text("Here:"), own, ToolCall("a", "f"))
    assert (told, more) == messages[1:]
    assert (shown.role, shown.parts[1:]) == ("user", (CAT,))
    assert fitted(messages, Rules("openrouter")) == messages


def test_a_voice_is_left_out_where_the_words_say_the_same() -> None:
    sound = Audio("data:audio/wav;base64,AAAA")
    rules = Rules("openai", media_in_answers=False)
    assert fitted((Message("assistant", (Text("Hi"), sound)),), rules) == (Message("assistant", "Hi"),)
    (shown,) = fitted((Message("assistant", (sound,)),), rules)
    assert (shown.role, shown.parts[1:]) == ("user", (sound,))


def test_blanks_are_words_to_an_api_that_says_so() -> None:
    messages = (Message("assistant", " "), Message("user", (Text("\n"),)), Message("user", ""))
    assert fitted(messages, Rules("openai", blanks=True)) == messages[:2]
    assert fitted(messages, Rules("anthropic")) == ()
