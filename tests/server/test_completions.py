"""OpenAI's own client asks for completions, vectors and the list of models."""

from __future__ import annotations

import math
from pathlib import Path

import openai
import pytest
from tests.support.served import registry_of, running

from agentflow.llm.messages import Response, TokenLogprob
from agentflow.llm.providers.scripted import ScriptedProvider


async def test_a_completion_goes_on_with_a_text(tmp_path: Path) -> None:
    """The text goes to the model as it stands, and 16 tokens are the most unless something else is said."""
    toy = ScriptedProvider([" a time"])
    async with running(registry_of(tmp_path, toy=toy), "toy/m") as server, server.client() as client:
        reply = await client.completions.create(model="toy/m", prompt="Once upon", stop="\n", temperature=0)
    assert (reply.object, reply.choices[0].text, reply.choices[0].finish_reason) == (
        "text_completion",
        " a time",
        "stop",
    )
    assert reply.usage is not None
    assert reply.usage.total_tokens == 4
    assert (toy.requests[0].prompt, toy.requests[0].max_tokens, toy.requests[0].stop) == ("Once upon", 16, ("\n",))


async def test_several_texts_are_answered_in_their_order(tmp_path: Path) -> None:
    """Each has a choice of its own, usage is that of all of them, and `echo` puts the text before its answer."""
    toy = ScriptedProvider(lambda request: f"{request.prompt.upper()}!")
    async with running(registry_of(tmp_path, toy=toy), "toy/m") as server, server.client() as client:
        reply = await client.completions.create(model="toy/m", prompt=["a", "b c"], max_tokens=5, echo=True)
    assert [(choice.index, choice.text) for choice in reply.choices] == [(0, "aA!"), (1, "b cB C!")]
    assert reply.usage is not None
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (3, 3)


async def test_streamed_completions_bear_their_number(tmp_path: Path) -> None:
    """One stream has the answers to all prompts, and one usage at the end."""
    toy = ScriptedProvider(lambda request: f"{request.prompt} one two")
    async with running(registry_of(tmp_path, toy=toy), "toy/m") as server, server.client() as client:
        stream = await client.completions.create(
            model="toy/m", prompt=["a", "b"], stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    texts = ["", ""]
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] += choice.text
    assert texts == ["a one two", "b one two"]
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason] == [
        "stop"
    ] * 2
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 6


async def test_log_probabilities_stand_side_by_side(tmp_path: Path) -> None:
    """As lists, with the place of each token in the text."""
    logprobs = (TokenLogprob("Ye", -0.5, (("Ye", -0.5), ("N", -1.0))), TokenLogprob("s", 0.0))
    toy = ScriptedProvider([Response("Yes", "m", "toy", logprobs=logprobs)])
    async with running(registry_of(tmp_path, toy=toy), "toy/m") as server, server.client() as client:
        reply = await client.completions.create(model="toy/m", prompt="?", logprobs=2)
    found = reply.choices[0].logprobs
    assert found is not None
    assert (found.tokens, found.token_logprobs, found.text_offset) == (["Ye", "s"], [-0.5, 0.0], [0, 2])
    assert found.top_logprobs == [{"Ye": -0.5, "N": -1.0}, {}]


@pytest.mark.parametrize("encoding", [None, "float", "base64"])
async def test_texts_become_vectors(tmp_path: Path, encoding: str | None) -> None:
    """In the order of the texts, packed or not, cut to the dimensions that were asked for."""
    toy = ScriptedProvider([], vector=lambda text: (len(text), 0.1, -1.0))
    async with running(registry_of(tmp_path, toy=toy), "toy/e") as server, server.client() as client:
        wanted = {} if encoding is None else {"encoding_format": encoding}
        reply = await client.embeddings.create(model="toy/e", input=["a", "bb"], dimensions=2, **wanted)  # type: ignore[arg-type]
    vectors = [each.embedding for each in reply.data]
    if encoding == "base64":
        assert all(isinstance(vector, str) for vector in vectors)
        return
    assert [len(vector) for vector in vectors] == [2, 2]
    assert [vector[0] for vector in vectors] == [1.0, 2.0]
    assert math.isclose(vectors[0][1], 0.1, rel_tol=1e-6)
    assert reply.usage.prompt_tokens == 2


async def test_the_models_are_those_that_are_served(tmp_path: Path) -> None:
    """Not all that the registry has; a name may have a slash in it."""
    toy = ScriptedProvider([])
    async with running(registry_of(tmp_path, toy=toy), "toy/m", "toy/n") as server, server.client() as client:
        listed = await client.models.list()
        one = await client.models.retrieve("toy/n")
        with pytest.raises(openai.NotFoundError) as refused:
            await client.models.retrieve("gpt-4o")
    assert [model.id for model in listed.data] == ["toy/m", "toy/n"]
    assert (one.id, one.object, one.owned_by) == ("toy/n", "model", "toy")
    assert refused.value.code == "model_not_found"
