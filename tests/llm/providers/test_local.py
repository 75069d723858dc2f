"""The local provider: a real answer from the prompt's own text, whole or sentence by sentence."""

from __future__ import annotations

import asyncio

import pytest

from agentflow.errors import BadRequestError, NotFoundError
from agentflow.llm.messages import Json, Message, Request, StreamChunk
from agentflow.llm.providers.base import LLMProvider, ProviderSettings
from agentflow.llm.providers.local import LocalProvider

TEXT = (
    "Tides are the rise and fall of the sea, caused by the pull of the moon. The sun pulls the sea as well, but less. "
    "Most harbours see two high tides a day. Sailors plan their departure by the tables of the harbour master. "
    "A spring tide comes when sun and moon pull in one line."
)


@pytest.fixture
def provider() -> LocalProvider:
    return LocalProvider(ProviderSettings(name="local", kind="local"))


def request(
    prompt: str = TEXT,
    *,
    system: str = "",
    params: dict[str, Json] | None = None,
    max_tokens: int | None = None,
    stop: tuple[str, ...] = (),
) -> Request:
    messages = (Message("system", system),) if system else ()
    asked = (*messages, Message("user", prompt))
    return Request("extractive", asked, params=params or {}, max_tokens=max_tokens, stop=stop)


async def chunks(provider: LocalProvider, asked: Request) -> list[StreamChunk]:
    return [chunk async for chunk in provider.execute_streaming(asked)]


def test_it_is_a_provider(provider: LocalProvider) -> None:
    assert isinstance(provider, LLMProvider)
    assert provider.name == "local"


@pytest.mark.parametrize("count", [1, 2, 4])
async def test_it_gives_the_sentences_asked_for_in_words_or_as_a_parameter(provider: LocalProvider, count: int) -> None:
    in_words = await provider.execute(request(f"Summarise in {count} sentences:\n\n{TEXT}"))
    as_parameter = await provider.execute(request(params={"sentences": count}))
    assert in_words.text == as_parameter.text
    assert in_words.text.count(".") == count
    assert in_words.finish_reason == "stop"


async def test_usage_is_counted_and_costs_nothing(provider: LocalProvider) -> None:
    asked = request(system="Be brief.")
    answer = await provider.execute(asked)
    assert answer.usage is not None
    assert answer.usage.input_tokens == -(-len(TEXT) // 4) + -(-len("Be brief.") // 4)
    assert answer.usage.output_tokens == -(-len(answer.text) // 4)
    assert answer.cost == 0
    assert (answer.model, answer.provider) == ("extractive", "local")


async def test_a_stream_has_a_chunk_a_sentence_and_ends_with_the_facts(provider: LocalProvider) -> None:
    whole = await provider.execute(request())
    *pieces, last = await chunks(provider, request())
    assert len(pieces) == 3
    assert "".join(piece.content for piece in pieces) == whole.text
    assert (last.content, last.finish_reason, last.usage) == ("", "stop", whole.usage)
    assert last.cost == whole.cost == 0.0


async def test_other_tasks_run_between_two_chunks(provider: LocalProvider) -> None:
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counter = asyncio.create_task(count_turns())
    seen = [turns async for _ in provider.execute_streaming(request())]
    counter.cancel()
    assert seen == sorted(set(seen))


async def test_the_loop_turns_while_a_long_text_is_ranked(provider: LocalProvider) -> None:
    """The work is in a thread: the loop never waits for it in one piece."""
    long = "\n\n".join(f"Fact {number} is about topic {number % 97} and about {number % 89}." for number in range(3000))
    work = asyncio.create_task(provider.execute(request(long)))
    turns = 0
    while not work.done():
        turns += 1
        await asyncio.sleep(0)
    assert turns > 10
    assert (await work).text.startswith("Fact")


async def test_max_tokens_is_a_ceiling_and_says_so(provider: LocalProvider) -> None:
    answer = await provider.execute(request(max_tokens=12))
    assert answer.usage is not None
    assert answer.usage.output_tokens <= 12
    assert answer.finish_reason == "length"
    roomy = await provider.execute(request(max_tokens=10_000))
    assert roomy.finish_reason == "stop"


async def test_a_word_limit_in_the_instruction_is_kept(provider: LocalProvider) -> None:
    answer = await provider.execute(request(f"Summarise in under 25 words:\n\n{TEXT}"))
    assert 10 < len(answer.text.split()) < 25
    assert answer.finish_reason == "stop"


async def test_a_question_is_answered_with_the_sentence_about_it(provider: LocalProvider) -> None:
    answer = await provider.execute(request(f"Who plans by tables?\n\n{TEXT}", params={"sentences": 1}))
    assert answer.text.startswith("Sailors plan")


async def test_only_the_last_user_turn_is_read(provider: LocalProvider) -> None:
    turns = (Message("user", "Bread is baked."), Message("assistant", "Yes."), Message("user", TEXT))
    answer = await provider.execute(Request("extractive", turns))
    assert "Bread" not in answer.text


async def test_stop_sequences_end_the_answer(provider: LocalProvider) -> None:
    answer = await provider.execute(request(stop=("fall of", "nowhere")))
    assert answer.text == "Tides are the rise and "
    *pieces, _ = await chunks(provider, request(stop=("fall of",)))
    assert "".join(piece.content for piece in pieces) == answer.text


@pytest.mark.parametrize("prompt", ["", "  \n\t\n", "Summarise in 2 sentences:\n\n", "```\n```"])
async def test_a_prompt_without_text_is_refused_with_the_remedy(provider: LocalProvider, prompt: str) -> None:
    with pytest.raises(BadRequestError, match="no text to summarise: put it after the instruction"):
        await provider.execute(request(prompt))
    with pytest.raises(BadRequestError, match="no text to summarise"):
        await chunks(provider, request(prompt))


async def test_a_request_without_messages_is_refused(provider: LocalProvider) -> None:
    with pytest.raises(BadRequestError, match="no text"):
        await provider.execute(Request("extractive", ()))


@pytest.mark.parametrize(
    ("params", "complaint"),
    [
        ({"sentences": 0}, "sentences is 0; it must be a whole number, 1 or more"),
        ({"sentences": "3"}, "sentences is '3'"),
        ({"words": True}, "words is True"),
        ({"words": 2.5}, "words is 2.5"),
        ({"query": 3}, "query is 3; it must be a string"),
        ({"sentence": 3}, "unknown parameter 'sentence'; it takes query, sentences, words"),
    ],
)
async def test_a_wrong_parameter_is_named(provider: LocalProvider, params: dict[str, Json], complaint: str) -> None:
    with pytest.raises(BadRequestError, match=complaint):
        await provider.execute(request(params=params))


async def test_a_ceiling_below_one_token_is_refused(provider: LocalProvider) -> None:
    with pytest.raises(BadRequestError, match="max_tokens is 0"):
        await provider.execute(request(max_tokens=0))


async def test_another_model_is_not_found(provider: LocalProvider) -> None:
    with pytest.raises(NotFoundError, match="use 'extractive'") as caught:
        await provider.execute(request().replace_model("gpt-4o"))
    assert (caught.value.provider, caught.value.model) == ("local", "gpt-4o")


async def test_closing_twice_is_safe(provider: LocalProvider) -> None:
    await provider.aclose()
    await provider.aclose()
