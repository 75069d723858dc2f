"""What goes to a model and what comes back: values alone, no behaviour that needs a network.

    Request(model, messages, …)  →  provider  →  Response(text, usage, …)   or   StreamChunk, StreamChunk, …

All are frozen. `opaque` fields hold what a provider sent that AgentFlow does not model; they go back unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

__all__ = ["Json", "Message", "Request", "Response", "StreamChunk", "Usage"]

Json = None | bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. `role` is an open string: system, user, assistant, tool, or what a provider adds."""

    role: str
    content: str
    name: str | None = None
    opaque: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens, normalised: `input_tokens` includes cached ones, `output_tokens` includes reasoning."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_tokens + other.cached_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
        )


@dataclass(frozen=True, slots=True)
class Request:
    """One model call, as a provider gets it: `model` is the provider's own id, every limit is resolved.

    `temperature`, `top_p`, `max_tokens`, `stop` and `seed` are None where nobody set them; `params` goes to the
    wire as it stands and wins over them. `timeout` is the whole call's limit in seconds.
    """

    model: str
    messages: tuple[Message, ...]
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    params: Mapping[str, Json] = field(default_factory=dict)
    timeout: float | None = None

    @property
    def prompt(self) -> str:
        """The last user turn, for providers that take plain text."""
        return next((m.content for m in reversed(self.messages) if m.role == "user"), "")

    def replace_model(self, model: str) -> Request:
        return replace(self, model=model)


@dataclass(frozen=True, slots=True)
class Response:
    """A whole answer. `finish_reason` is normalised (stop, length, content_filter, tool_calls, error) but open;
    `raw_finish_reason` is the provider's own word. `cost` is in USD, None where the price is unknown."""

    text: str
    model: str
    provider: str
    usage: Usage | None = None
    finish_reason: str | None = None
    raw_finish_reason: str | None = None
    request_id: str | None = None
    cost: float | None = None
    reasoning: str = ""
    opaque: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StreamChunk:
    """A piece of a streamed answer. `content` is never None; usage and the final reason come when they come."""

    content: str = ""
    reasoning: str = ""
    finish_reason: str | None = None
    raw_finish_reason: str | None = None
    usage: Usage | None = None
    model: str | None = None
    request_id: str | None = None
