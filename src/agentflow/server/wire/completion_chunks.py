"""Streamed completions as OpenAI writes them: our chunks in, its chunks out, as plain data for JSON.

    chunks = CompletionChunks(id="cmpl-1", created=0, model="m", usage=True)
    for at, prompt in …: chunks.begin(at, ""); for chunk in stream: for data in chunks.write(at, chunk): send(data)
    for data in chunks.end(): send(data)

The pieces of each prompt's answer bear its number. Usage comes once, last, in a chunk without choices.
"""

from __future__ import annotations

from agentflow.llm.content import Json, Text
from agentflow.llm.messages import StreamChunk, Usage
from agentflow.server.wire.answers import finish_reason, old_logprobs, summed, usage_fields
from agentflow.server.wire.refusal import Refusal

__all__ = ["CompletionChunks"]


class _Choice:
    """The answer to one prompt, as far as it was written."""

    __slots__ = ("finished", "length", "usage")

    def __init__(self, length: int) -> None:
        self.finished = False
        self.length = length  # characters
        self.usage: Usage | None = None


class CompletionChunks:
    """One stream, of the answers to all prompts of a request."""

    def __init__(self, *, id: str, created: int, model: str, usage: bool) -> None:
        self._head: dict[str, Json] = {"id": id, "object": "text_completion", "created": created, "model": model}
        self._wants_usage = usage
        self._choices: dict[int, _Choice] = {}

    def begin(self, index: int, echo: str) -> list[dict[str, Json]]:
        """The answer of that number begins, with its prompt where that is wanted."""
        self._choices[index] = _Choice(len(echo))
        return [self._chunk(index, echo)] if echo else []

    def write(self, index: int, chunk: StreamChunk) -> list[dict[str, Json]]:
        """None, or one. Raises Refusal, see ChatChunks."""
        if chunk.restart:
            raise Refusal(502, "the model's answer broke off and began anew", code="stream_interrupted")
        choice = self._choices[index]
        choice.usage = chunk.usage or choice.usage
        text = chunk.content + (chunk.part.text if isinstance(chunk.part, Text) else "")
        if not text and chunk.finish_reason is None and not chunk.logprobs:
            return []
        logprobs = old_logprobs(chunk.logprobs, choice.length) if chunk.logprobs else None
        choice.length += len(text)
        finish = None
        if chunk.finish_reason is not None:
            finish, choice.finished = finish_reason(chunk.finish_reason, calls=False), True
        return [self._chunk(index, text, finish, logprobs)]

    def end(self) -> list[dict[str, Json]]:
        choices = sorted(self._choices.items())
        made = [self._chunk(at, "", "stop") for at, choice in choices if not choice.finished]
        if self._wants_usage:
            usage = summed([choice.usage for _, choice in choices])
            made.append({**self._head, "choices": [], "usage": usage_fields(usage)})
        return made

    def _chunk(self, index: int, text: str, finish: str | None = None, logprobs: Json = None) -> dict[str, Json]:
        choice: dict[str, Json] = {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}
        made = {**self._head, "choices": [choice]}
        return {**made, "usage": None} if self._wants_usage else made
