"""Streamed answers as OpenAI writes them: our chunks in, its chunks out, as plain data for JSON.

    chunks = ChatChunks(id="chatcmpl-1", created=0, model="m", usage=True)
    for chunk in stream: for data in chunks.write(chunk): send(data)
    for data in chunks.end(): send(data)          # how it ended, where nobody has said so, and what it took

The first chunk of each choice names the role, as clients expect. Usage comes once, last, in a chunk without choices.
"""

from __future__ import annotations

from agentflow.llm.content import Image, Json, Part, Reasoning, Text, ToolCall
from agentflow.llm.messages import StreamChunk, ToolCallDelta, Usage
from agentflow.server.wire.answers import (
    drawn,
    finish_reason,
    token_logprobs,
    usage_fields,
)
from agentflow.server.wire.refusal import Refusal

__all__ = ["ChatChunks", "fewer"]


class _Choice:
    """One of the answers, as far as it was written."""

    __slots__ = ("calls", "finished")

    def __init__(self) -> None:
        self.calls = 0  # the number of the next tool call
        self.finished = False


class ChatChunks:
    """One stream of a chat. `count` is how many answers were asked for."""

    def __init__(self, *, id: str, created: int, model: str, usage: bool, count: int = 1) -> None:
        self._head: dict[str, Json] = {
            "id": id,
            "object": "chat.completion.chunk",
            "created": created,
            "model": model,
        }
        self._wants_usage = usage
        self._count = count
        self._usage: Usage | None = None
        self._choices: dict[int, _Choice] = {}

    def write(self, chunk: StreamChunk) -> list[dict[str, Json]]:
        """None, one, or, where a choice begins, two. Raises Refusal for a stream that has begun anew: what was sent
        cannot be taken back."""
        if chunk.restart:
            raise Refusal(502, "the model's answer broke off and began anew", code="stream_interrupted")
        self._usage = chunk.usage or self._usage
        choice = self._choices.get(chunk.index) or _Choice()
        delta = _delta(chunk, choice)
        if not delta and chunk.finish_reason is None and not chunk.logprobs:
            return []
        made = []
        if chunk.index not in self._choices:
            self._choices[chunk.index] = choice
            made = [self._chunk(chunk.index, {"role": "assistant", "content": "", "refusal": None})]
        finish = None
        if chunk.finish_reason is not None:
            finish, choice.finished = finish_reason(chunk.finish_reason, calls=bool(choice.calls)), True
        logprobs = token_logprobs(chunk.logprobs) if chunk.logprobs else None
        return [*made, self._chunk(chunk.index, delta, finish, logprobs)]

    def end(self) -> list[dict[str, Json]]:
        """Raises Refusal where there are fewer answers than were asked for."""
        if len(self._choices) < self._count and self._count > 1:
            raise fewer(len(self._choices), self._count)
        self._choices.setdefault(0, _Choice())
        made = [
            self._chunk(index, {}, finish_reason(None, calls=bool(choice.calls)))
            for index, choice in sorted(self._choices.items())
            if not choice.finished
        ]
        if self._wants_usage:
            made.append({**self._head, "choices": [], "usage": usage_fields(self._usage)})
        return made

    def _chunk(
        self, index: int, delta: dict[str, Json], finish: str | None = None, logprobs: Json = None
    ) -> dict[str, Json]:
        choice: dict[str, Json] = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        made = {**self._head, "choices": [choice]}
        return {**made, "usage": None} if self._wants_usage else made


def fewer(found: int, wanted: int) -> Refusal:
    """What is said where a model takes no notice of `n`."""
    return Refusal(
        400,
        f"n: this model gives {found} answer{'s' * (found != 1)} to a question, not {wanted}; ask it several times",
        param="n",
        code="unsupported_value",
    )


def _call(call: ToolCallDelta) -> dict[str, Json]:
    function: dict[str, Json] = {"arguments": call.arguments}
    if call.name:
        function = {"name": call.name, **function}
    wire: dict[str, Json] = {"index": call.index}
    if call.id:
        wire |= {"id": call.id, "type": "function"}
    return {**wire, "function": function}


def _delta(chunk: StreamChunk, choice: _Choice) -> dict[str, Json]:
    delta: dict[str, Json] = {}
    if chunk.content:
        delta["content"] = chunk.content
    if chunk.reasoning:
        delta["reasoning_content"] = chunk.reasoning
    if chunk.tool_calls:
        choice.calls = max(choice.calls, *(call.index + 1 for call in chunk.tool_calls))
        delta["tool_calls"] = [_call(call) for call in chunk.tool_calls]
    return delta if chunk.part is None else {**delta, **_whole(chunk.part, choice)}


def _whole(part: Part, choice: _Choice) -> dict[str, Json]:
    """What comes in one piece."""
    match part:
        case Text(text=words) if words:
            return {"content": words}
        case Reasoning(text=words) if words:
            return {"reasoning_content": words}
        case ToolCall():
            choice.calls += 1
            return {"tool_calls": [_call(ToolCallDelta(choice.calls - 1, part.id, part.name, part.json))]}
        case Image() if part.path is None:
            return {"images": [drawn(part)]}
    return {}
