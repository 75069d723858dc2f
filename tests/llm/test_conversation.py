"""A history that stays within its bound, and never parts what belongs together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.errors import ConfigurationError, ModelError
from agentflow.llm.agentflow import AgentFlow
from agentflow.llm.builder import LLMClientBuilder
from agentflow.llm.config.registry import ModelRegistry
from agentflow.llm.content import Image, Text, ToolCall, ToolResult
from agentflow.llm.conversation import Conversation
from agentflow.llm.estimate import estimated_tokens
from agentflow.llm.messages import Message, Request, Response
from agentflow.llm.providers.scripted import ScriptedAnswer, ScriptedProvider


def by_words(message: Message) -> int:
    return len(message.text.split())


@pytest.fixture
def model(tmp_path: Path) -> tuple[LLMClientBuilder, ScriptedProvider]:
    provider = ScriptedProvider(lambda request: f"you said {request.prompt}", name="toy")
    registry = ModelRegistry.load(environ={}, cwd=tmp_path, home=tmp_path)
    registry.register_provider("toy", lambda _: provider)
    return AgentFlow.model("toy/m", registry=registry), provider


async def test_question_and_answer_are_kept(model: tuple[LLMClientBuilder, ScriptedProvider]) -> None:
    builder, provider = model
    chat = Conversation(system="Be brief.")
    assert (await chat.ask(builder, "one")).text == "you said one"
    await chat.ask(builder, "two")
    assert [turn.text for turn in provider.requests[1].messages] == ["Be brief.", "one", "you said one", "two"]
    assert [turn.role for turn in chat.messages] == ["system", "user", "assistant", "user", "assistant"]


async def test_a_question_that_fails_is_not_kept(tmp_path: Path) -> None:
    answers: list[ScriptedAnswer] = [ModelError("no")]
    registry = ModelRegistry.load(environ={}, cwd=tmp_path, home=tmp_path)
    registry.register_provider("toy", lambda _: ScriptedProvider(answers))
    chat = Conversation()
    with pytest.raises(ModelError, match="no"):
        await chat.ask(AgentFlow.model("toy/m", registry=registry), "one")
    assert chat.messages == ()


async def test_a_question_may_hold_images(model: tuple[LLMClientBuilder, ScriptedProvider]) -> None:
    chat = Conversation()
    await chat.ask(model[0], "What is this?", Image("https://example.org/a.png"))
    assert isinstance(chat.messages[0].parts[1], Image)


async def test_the_turns_of_tools_are_kept_with_the_answer(tmp_path: Path) -> None:
    def now() -> str:
        """The time."""
        return "noon"

    script = [Response((ToolCall("1", "now"),), "m", "toy"), "It is noon."]
    registry = ModelRegistry.load(environ={}, cwd=tmp_path, home=tmp_path)
    registry.register_provider("toy", lambda _: ScriptedProvider(script))
    chat = Conversation()
    await chat.ask(AgentFlow.model("toy/m", registry=registry).tools(now), "What time is it?")
    assert [turn.role for turn in chat.messages] == ["user", "assistant", "tool", "assistant"]


async def test_the_oldest_exchange_goes_first_and_goes_whole() -> None:
    """A tool call is never parted from its result, and the system text stays."""
    calls = Message("assistant", (ToolCall("1", "f"),))
    result = Message("tool", (ToolResult("1", "x"),))
    chat = Conversation(system="s", max_tokens=6, count=by_words)
    await chat.add(Message("user", "a a"), calls, result, Message("assistant", "b b"))
    assert len(chat.messages) == 5
    await chat.add(Message("user", "c c"), Message("assistant", "d"))
    assert [turn.text for turn in chat.messages] == ["s", "c c", "d"]


async def test_the_newest_exchange_stays_however_long_it_is() -> None:
    chat = Conversation(max_tokens=1, count=by_words)
    await chat.add(Message("user", "a b c d e f"))
    assert chat.tokens == 6


async def test_what_no_longer_fits_can_be_summed_up() -> None:
    """The summary of before is summed up again with what is dropped next."""
    heard: list[list[str]] = []

    async def summarise(turns: Sequence[Message]) -> str:
        heard.append([turn.text for turn in turns])
        return f"S{len(heard)}"

    chat = Conversation(max_tokens=40, count=by_words, summarise=summarise)
    for number in range(12):
        await chat.add(Message("user", f"q{number} x x x x x"), Message("assistant", f"a{number} x x x"))
    assert heard[0][:2] == ["q0 x x x x x", "a0 x x x"]
    assert heard[1][0].endswith("S1")
    assert chat.messages[0].text.endswith(f"S{len(heard)}")
    assert chat.tokens <= 40


async def test_not_every_question_needs_a_summary(model: tuple[LLMClientBuilder, ScriptedProvider]) -> None:
    """One makes room for several exchanges, and is itself within the bound."""
    builder, provider = model
    summaries = 0

    async def summarise(turns: Sequence[Message]) -> str:
        nonlocal summaries
        summaries += 1
        return "so it was " * 100

    chat = Conversation(system="s", max_tokens=60, count=by_words, summarise=summarise)
    for number in range(30):
        await chat.ask(builder, f"q{number} x x")
    assert 2 <= summaries <= 10
    assert max(sum(map(by_words, request.messages)) for request in provider.requests) <= 60
    assert any("Summary" in turn.text for turn in provider.requests[-1].messages)


async def test_what_a_long_question_leaves_no_room_for_is_summed_up_after_it(
    model: tuple[LLMClientBuilder, ScriptedProvider],
) -> None:
    builder, provider = model

    async def summarise(turns: Sequence[Message]) -> str:
        return " ".join(turn.text for turn in turns if "Ada" in turn.text)

    chat = Conversation(max_tokens=40, count=by_words, summarise=summarise)
    await chat.ask(builder, "Ada is my name.")
    await chat.ask(builder, "word " * 38)
    assert [turn.text.strip() for turn in provider.requests[-1].messages] == [("word " * 38).strip()]
    await chat.ask(builder, "Who am I?")
    sent = provider.requests[-1].messages
    assert "Ada" in sent[0].text
    assert sum(map(by_words, sent)) <= 40


class Slow(ScriptedProvider):
    """Answers a step of the event loop later."""

    async def execute(self, request: Request) -> Response:
        await asyncio.sleep(0)
        return await super().execute(request)


async def test_a_question_beside_another_one_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    """Each builds on the answer before it; one of them would be lost."""
    provider = Slow(lambda request: f"you said {request.prompt}", name="toy")
    registry = ModelRegistry.load(environ={}, cwd=tmp_path, home=tmp_path)
    registry.register_provider("toy", lambda _: provider)
    builder, chat = AgentFlow.model("toy/m", registry=registry), Conversation()
    first, second = await asyncio.gather(*[chat.ask(builder, q) for q in ("one", "two")], return_exceptions=True)
    assert isinstance(first, Response)
    assert isinstance(second, ConfigurationError)
    assert [request.prompt for request in provider.requests] == ["one"]
    await chat.ask(builder, "two")
    assert [turn.text for turn in chat.messages if turn.role == "user"] == ["one", "two"]


async def test_nothing_is_added_while_a_summary_is_being_made() -> None:
    """It would be overwritten with what was there before."""

    async def summarise(turns: Sequence[Message]) -> str:
        with pytest.raises(ConfigurationError, match="await it first"):
            await chat.add(Message("user", "lost"))
        return "short"

    chat = Conversation(max_tokens=60, count=by_words, summarise=summarise)
    for number in range(3):
        await chat.add(Message("user", f"q{number} " * 25))
    assert "short" in chat.messages[0].text


async def test_no_words_of_a_question_are_dropped_in_silence(
    model: tuple[LLMClientBuilder, ScriptedProvider],
) -> None:
    builder, provider = model
    chat = Conversation()
    with pytest.raises(ConfigurationError, match="has a prompt already"):
        await chat.ask(builder.prompt("keep me"), "two")
    with pytest.raises(ConfigurationError, match="nothing to ask"):
        await chat.ask(builder, "")
    assert not provider.requests


async def test_a_summary_is_not_longer_than_what_it_stands_for() -> None:
    async def summarise(turns: Sequence[Message]) -> str:
        return "word " * 1000

    chat = Conversation(max_tokens=30, count=by_words, summarise=summarise)
    await chat.add(Message("user", "a " * 12))
    await chat.add(Message("user", "b " * 20))
    assert [by_words(turn) for turn in chat.messages] == [7, 20]
    await chat.add(Message("user", "c " * 29))
    assert [by_words(turn) for turn in chat.messages] == [29]


async def test_a_question_that_fails_costs_no_history(tmp_path: Path) -> None:
    """What would have been dropped for it is still there."""
    answers: list[ScriptedAnswer] = ["yes", ModelError("no"), "yes", ModelError("no")]
    registry = ModelRegistry.load(environ={}, cwd=tmp_path, home=tmp_path)
    registry.register_provider("toy", lambda _: ScriptedProvider(answers))
    builder = AgentFlow.model("toy/m", registry=registry)

    async def summarise(turns: Sequence[Message]) -> str:
        return "short"

    for how in (None, summarise):
        chat = Conversation(max_tokens=12, count=by_words, summarise=how)
        await chat.ask(builder, "one two three four five")
        before = chat.messages
        with pytest.raises(ModelError, match="no"):
            await chat.ask(builder, "a long question that leaves little room for more")
        assert chat.messages == before


async def test_a_summary_that_fails_costs_neither_history_nor_answer(
    model: tuple[LLMClientBuilder, ScriptedProvider],
) -> None:
    """It is made before the question is asked, so no answer that was paid for is lost."""
    builder, provider = model
    works = False

    async def summarise(turns: Sequence[Message]) -> str:
        if not works:
            raise ModelError("no summary")
        return "short"

    chat = Conversation(max_tokens=40, count=by_words, summarise=summarise)
    assert (await chat.ask(builder, "x " * 20)).text.startswith("you said")
    before = chat.messages
    with pytest.raises(ModelError, match="no summary"):
        await chat.ask(builder, "more")
    assert (chat.messages, len(provider.requests)) == (before, 1)
    with pytest.raises(ModelError, match="no summary"):
        await chat.add(Message("user", "kept"))
    assert chat.messages[-1].text == "kept"
    works = True
    await chat.ask(builder, "more")
    assert chat.messages[0].text.endswith("short")


async def test_without_a_question_there_is_nothing_to_ask(model: tuple[LLMClientBuilder, ScriptedProvider]) -> None:
    with pytest.raises(ConfigurationError, match="takes the question"):
        await Conversation().ask(model[0].prompt("here?"))


async def test_a_models_own_turns_come_before_the_history_and_are_not_kept(
    model: tuple[LLMClientBuilder, ScriptedProvider],
) -> None:
    """Examples belong to the model, and are sent once with each question; its system text, too."""
    builder, provider = model
    shown = builder.system("Be brief.").messages([Message("user", "2+2"), Message("assistant", "4")])
    chat = Conversation()
    await chat.ask(shown, "one")
    await chat.ask(shown, "two")
    sent = [turn.text for turn in provider.requests[1].messages]
    assert sent == ["Be brief.", "2+2", "4", "one", "you said one", "two"]
    assert [turn.text for turn in chat.messages] == ["one", "you said one", "two", "you said two"]


async def test_a_models_own_turns_count(model: tuple[LLMClientBuilder, ScriptedProvider]) -> None:
    """The bound holds for what is sent."""
    builder, provider = model
    shown = builder.system("s s").messages([Message("user", "a b c"), Message("assistant", "d e f")])
    chat = Conversation(max_tokens=12, count=by_words)
    for question in ("one", "two", "three"):
        await chat.ask(shown, question)
    assert max(sum(map(by_words, request.messages)) for request in provider.requests) <= 12


async def test_there_is_one_system_text(model: tuple[LLMClientBuilder, ScriptedProvider]) -> None:
    """Two would be sent, or one be dropped, and nobody would have asked for that."""
    builder, _ = model
    with pytest.raises(ConfigurationError, match="both the conversation and the model"):
        await Conversation(system="a").ask(builder.system("b"), "hi")
    with pytest.raises(ConfigurationError, match="both the conversation and the model"):
        await Conversation(system="a").ask(builder.messages([Message("system", "b")]), "hi")
    with pytest.raises(ConfigurationError, match="begin with a system turn"):
        Conversation(system="a", messages=[Message("system", "b")])


async def test_a_system_turn_at_the_head_is_the_system_text() -> None:
    """It is never dropped; its cache mark stays."""
    system = Message("system", (Text("Be brief.", cache="5m"),))
    chat = Conversation(messages=[system, Message("user", "a a")], max_tokens=5, count=by_words)
    await chat.add(Message("user", "b b b b"))
    assert chat.messages == (system, Message("user", "b b b b"))


async def test_the_room_for_the_question_is_kept_free(model: tuple[LLMClientBuilder, ScriptedProvider]) -> None:
    """The bound holds for what is sent, not only for what is kept."""
    builder, provider = model
    chat = Conversation(max_tokens=8, count=by_words)
    await chat.ask(builder, "one two")
    await chat.ask(builder, "three four five six")
    assert [turn.text for turn in provider.requests[1].messages] == ["three four five six"]


turns = st.lists(st.tuples(st.sampled_from(["user", "assistant", "tool"]), st.integers(1, 9)), max_size=30)


@given(turns, st.integers(1, 40))
async def test_the_bound_holds_or_one_exchange_is_left(history: list[tuple[str, int]], most: int) -> None:
    chat = Conversation(max_tokens=most, count=by_words)
    for role, size in history:
        await chat.add(Message(role, " ".join(["w"] * size)))
        kept = chat.messages
        users = sum(turn.role == "user" for turn in kept)
        assert chat.tokens <= most or users <= 1
        assert kept == () or kept[-1].role == role


def test_a_bound_is_a_number_of_tokens() -> None:
    with pytest.raises(ConfigurationError, match="at least 1"):
        Conversation(max_tokens=0)


def test_tokens_are_estimated_from_the_length() -> None:
    assert estimated_tokens(Message("user", "x" * 400)) == 104
    assert estimated_tokens(Message("user", (Image("https://example.org/a.png"),))) > 500
