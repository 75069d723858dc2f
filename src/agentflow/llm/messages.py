"""What goes to a model and what comes back: values alone, no behaviour that needs a network.

    Request(model, messages, …)  →  provider  →  Response(content, usage, …)   or   StreamChunk, StreamChunk, …

All are frozen Structs, which cost a tenth of what a frozen dataclass does and are written to JSON and read back as they
are (`to_json`, `from_json`). What content is made of stands in `content`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Final, TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import force_setattr, replace

from agentflow.core.robustness.timing import Timing
from agentflow.errors import SerializationError
from agentflow.llm.content import (
    Audio,
    Content,
    Document,
    Image,
    Json,
    Media,
    Part,
    Raw,
    Reasoning,
    Text,
    ToolCall,
    ToolResult,
    parts_of,
    plain,
    settled,
)
from agentflow.llm.storing import stored

__all__ = [
    "RESIDENCY",
    "Alternative",
    "EmbeddingRequest",
    "Embeddings",
    "Message",
    "ModelInfo",
    "OutputFormat",
    "PromptCache",
    "Request",
    "Response",
    "StreamChunk",
    "Thinking",
    "TokenLogprob",
    "Tool",
    "ToolCallDelta",
    "Usage",
]

S = TypeVar("S", bound="_Value")

RESIDENCY: Final = "residency"
"""The key of a request's metadata by which a call demands places: `.metadata(residency="eu,ch")`."""
_OURS: Final = (RESIDENCY, "agentflow_")


class _Value(Struct, frozen=True, omit_defaults=True):
    """A value that JSON can hold."""

    def to_json(self) -> dict[str, Json]:
        """Plain data for JSON, opaque provider data included; `from_json` gives an equal value back.

        Raises SerializationError for what JSON cannot hold.
        """
        try:
            made: dict[str, Json] = msgspec.json.decode(msgspec.json.encode(self, enc_hook=plain))
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise SerializationError(type(self).__name__, f"JSON cannot hold it: {error}") from error
        return made

    @classmethod
    def from_json(cls: type[S], data: Mapping[str, Json], *, allow_paths: bool = False) -> S:
        """The value that `to_json` wrote. Raises SerializationError.

        A file that is named by its path would be read, and sent to the provider, as soon as a request is made with it:
        so a path in the data is an error, unless `allow_paths` says that whoever wrote the data may read this machine's
        files.
        """
        try:
            made = msgspec.convert(data, cls)
        except (msgspec.ValidationError, RecursionError) as error:
            raise SerializationError(cls.__name__, f"this is not what to_json wrote: {error}") from error
        if not allow_paths:
            for media in _media(made):
                if media.path is not None:
                    raise SerializationError(
                        cls.__name__,
                        f"it names the file {media.path[:80]!r}, which a request would read: store bytes, an address, "
                        "or an id, or pass allow_paths=True where you trust the data",
                    )
        return made


def _media(value: object) -> Iterator[Media]:
    """All media in a value, however deep; opaque data has none."""
    if isinstance(value, Media):
        yield value
    elif isinstance(value, Struct):
        for name in value.__struct_fields__:
            yield from _media(getattr(value, name))
    elif isinstance(value, tuple):
        for inner in value:
            yield from _media(inner)


# ---- what is asked -------------------------------------------------------------------------------------------


class Message(_Value, frozen=True):
    """One turn. `role` is an open string: system, user, assistant, tool, or what a provider adds. A list of texts and
    parts is as good a content as a tuple of parts; all else is a ConfigurationError.

    `opaque` holds what an API sent with the turn that is not modelled, by the API's name.
    """

    role: str
    content: str | tuple[Text | Image | Document | Audio | Reasoning | ToolCall | ToolResult | Raw, ...] = ""
    name: str | None = None
    opaque: Mapping[str, Json] = {}

    def __post_init__(self) -> None:
        if type(self.content) is not str:
            force_setattr(self, "content", settled("Message", self.content))

    @property
    def parts(self) -> tuple[Part, ...]:
        """The content as parts; an empty text has none."""
        return parts_of(self.content)

    @property
    def text(self) -> str:
        """The words of the content, without reasoning."""
        return _text(self.content)


class Tool(_Value, frozen=True, tag_field="type", tag="tool"):
    """A function the model may call. `parameters` is a JSON Schema of type object; `strict` asks the provider to keep
    to it. `cache` as in `Text`."""

    name: str
    description: str = ""
    parameters: Mapping[str, Json] = {}
    strict: bool | None = None
    cache: str | None = None


class OutputFormat(_Value, frozen=True):
    """The shape the answer must have: a JSON Schema, or None for any JSON object."""

    name: str
    schema: Mapping[str, Json] | None = None
    strict: bool | None = None
    description: str | None = None


class Thinking(_Value, frozen=True):
    """How much the model thinks before it answers: by `effort` (an open string: none, minimal, low, medium, high, max),
    or by a `budget` in tokens (0 for none). `show` asks for a summary of the thoughts; None is the provider's habit.
    A provider that knows only one of the two gets the nearest of it."""

    effort: str | None = None
    budget: int | None = None
    show: bool | None = None


class PromptCache(_Value, frozen=True):
    """The prompt will be asked again: keep it. `ttl` is "5m", "1h" or "24h"; `key` groups requests that share a
    beginning. Providers that cache by themselves need neither."""

    ttl: str | None = None
    key: str | None = None


class Request(_Value, frozen=True):
    """One model call, as a provider gets it: `model` is the provider's own id, every limit is resolved.

    What is None or empty nobody has set; `params` goes to the wire as it stands and wins over the rest. `timeout` is
    the whole call's limit in seconds. `tool_choice` is "auto", "none", "required", the name of the tool to call, or a
    tuple of names of which one is to be called. A `Raw` among `tools` is a tool of the provider's own. `logprobs` is
    how many alternatives to each token are wanted; 0 asks for the chosen tokens alone.
    """

    model: str
    messages: tuple[Message, ...]
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    params: Mapping[str, Json] = {}
    timeout: float | None = None
    top_k: int | None = None
    tools: tuple[Tool | Raw, ...] = ()
    tool_choice: str | tuple[str, ...] | None = None
    parallel_tool_calls: bool | None = None
    output: OutputFormat | None = None
    thinking: Thinking | None = None
    cache: PromptCache | None = None
    n: int | None = None
    logprobs: int | None = None
    metadata: Mapping[str, str] = {}

    @property
    def prompt(self) -> str:
        """The last user turn's words, for providers that take plain text."""
        return next((m.text for m in reversed(self.messages) if m.role == "user"), "")

    @property
    def labels(self) -> Mapping[str, str]:
        """What of the metadata the provider gets: a demand for places is obeyed here, and so is whatever begins with
        `agentflow_`."""
        if not self.metadata:
            return self.metadata
        return {name: value for name, value in self.metadata.items() if not name.startswith(_OURS)}

    def replace_model(self, model: str) -> Request:
        return replace(self, model=model)


class EmbeddingRequest(_Value, frozen=True):
    """Texts to turn into vectors, all in one call. `dimensions` shortens the vectors where the model can."""

    model: str
    inputs: tuple[str, ...]
    dimensions: int | None = None
    params: Mapping[str, Json] = {}
    timeout: float | None = None


# ---- what comes back -----------------------------------------------------------------------------------------


class Usage(_Value, frozen=True):
    """Tokens, normalised so that nothing is counted twice.

    `input_tokens` includes those read from a cache (`cached_tokens`), written to one (`cache_write_tokens`, of which
    `cache_write_1h_tokens` for an hour) and those of sound (`input_audio_tokens`); `output_tokens` includes reasoning
    and sound.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    input_audio_tokens: int = 0
    output_audio_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(getattr(self, name) + getattr(other, name) for name in self.__struct_fields__))


class TokenLogprob(_Value, frozen=True):
    """A token that was chosen, its natural log probability, and the likeliest `alternatives`. What is impossible has
    -9999.0, as OpenAI says it, because JSON has no infinity."""

    token: str
    logprob: float
    alternatives: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        if self.logprob == -math.inf:
            force_setattr(self, "logprob", _IMPOSSIBLE)
        if self.alternatives and any(logprob == -math.inf for _, logprob in self.alternatives):
            told = tuple([(token, max(logprob, _IMPOSSIBLE)) for token, logprob in self.alternatives])
            force_setattr(self, "alternatives", told)


_IMPOSSIBLE: Final = -9999.0


class Alternative(_Value, frozen=True):
    """Another answer to the same request, where `n` asked for more than one."""

    content: Content
    finish_reason: str | None = None
    raw_finish_reason: str | None = None
    logprobs: tuple[TokenLogprob, ...] = ()
    opaque: Mapping[str, Json] = {}

    def __post_init__(self) -> None:
        if type(self.content) is not str:
            force_setattr(self, "content", settled("Alternative", self.content))

    @property
    def text(self) -> str:
        return _text(self.content)


class Response(_Value, frozen=True):
    """A whole answer.

    `finish_reason` is normalised (stop, length, content_filter, tool_calls, paused, error) but open;
    `raw_finish_reason` is the provider's own word. `cost` is in USD, None where the price is unknown. `id` is the
    provider's name for the answer, `request_id` its name for the HTTP request. `service_tier` is what the provider says
    it used. The first of several answers is the response itself, the others are `alternatives`. `opaque` belongs to the
    whole turn, by the API's name. `turns` are those between the question and this answer: what the model asked of tools
    and what they returned; usage and cost are then those of all the requests that it took. `timing` says where the time
    went, attempts that failed and waits included. `run_id` names the run that it is part of; a call outside of any flow
    is a run of its own where somebody watches, and else has none. `cache_hit` names the tier of the cache that the
    answer came from (exact, semantic): its usage is then what it once took, its cost 0.
    """

    content: Content
    model: str
    provider: str
    usage: Usage | None = None
    finish_reason: str | None = None
    raw_finish_reason: str | None = None
    request_id: str | None = None
    cost: float | None = None
    opaque: Mapping[str, Json] = {}
    id: str | None = None
    service_tier: str | None = None
    logprobs: tuple[TokenLogprob, ...] = ()
    alternatives: tuple[Alternative, ...] = ()
    turns: tuple[Message, ...] = ()
    timing: Timing | None = None
    run_id: str | None = None
    cache_hit: str | None = None

    def __post_init__(self) -> None:
        if type(self.content) is not str:
            force_setattr(self, "content", settled("Response", self.content))

    @property
    def text(self) -> str:
        """The words of the answer, without reasoning."""
        return _text(self.content)

    @property
    def reasoning(self) -> str:
        """What the model thought, as far as it was shown."""
        if isinstance(self.content, str):
            return ""
        return "".join([part.text for part in self.content if isinstance(part, Reasoning)])

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The functions the model asks for."""
        return tuple([part for part in self.parts if isinstance(part, ToolCall)])

    @property
    def parts(self) -> tuple[Part, ...]:
        return parts_of(self.content)

    @property
    def message(self) -> Message:
        """The answer as a turn."""
        return Message("assistant", self.content, opaque=self.opaque)

    @property
    def messages(self) -> tuple[Message, ...]:
        """Everything that followed the question, to go on with: `.messages([*history, *reply.messages])`."""
        return (*self.turns, self.message)


class ToolCallDelta(_Value, frozen=True):
    """A piece of a tool call. `index` tells the calls of one answer apart; `arguments` is the next piece of JSON text;
    id and name come once. `opaque` as in `ToolCall`."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""
    opaque: Mapping[str, Json] = {}


class StreamChunk(_Value, frozen=True):
    """A piece of a streamed answer. `content` is never None; usage and the final reason come when they come.

    `index` is the answer it belongs to, where `n` asked for several. `slot` is the part of the answer it belongs to: a
    chunk's text goes to the part of the same slot, chunks without one go to the one text (or reasoning) of the answer.
    `part` is a whole part, which comes in one piece. `opaque` is laid over the opaque data of the part in `slot`, or
    of the whole answer where `slot` is None. Where tools are run or an answer is asked for again, `round` counts the
    requests from 0, and `turn` is a turn that was added before the next one: an answer with tool calls, the results.
    `restart` is True where the answer of this round broke and is begun anew (`RetryPolicy(after_first_chunk=True)`):
    what came of it before counts for nothing. `provider` is who answers, where that may be another than who was asked,
    and `cache_hit` as in `Response`.
    """

    content: str = ""
    reasoning: str = ""
    finish_reason: str | None = None
    raw_finish_reason: str | None = None
    usage: Usage | None = None
    model: str | None = None
    request_id: str | None = None
    tool_calls: tuple[ToolCallDelta, ...] = ()
    index: int = 0
    slot: int | None = None
    part: Text | Image | Document | Audio | Reasoning | ToolCall | ToolResult | Raw | None = None
    opaque: Mapping[str, Json] = {}
    logprobs: tuple[TokenLogprob, ...] = ()
    id: str | None = None
    service_tier: str | None = None
    cost: float | None = None
    round: int = 0
    turn: Message | None = None
    restart: bool = False
    provider: str | None = None
    cache_hit: str | None = None


class Embeddings(_Value, frozen=True):
    """One vector for each input, in their order."""

    vectors: tuple[tuple[float, ...], ...]
    model: str
    provider: str
    usage: Usage | None = None
    request_id: str | None = None
    cost: float | None = None


class ModelInfo(_Value, frozen=True):
    """What a provider's list says of a model; None where it says nothing."""

    id: str
    name: str | None = None
    context: int | None = None
    max_output: int | None = None
    created: int | None = None


def _text(content: Content) -> str:
    if isinstance(content, str):
        return content
    return "".join([part.text for part in content if isinstance(part, Text)])


stored(
    *(Message, Request, Response, Usage, Alternative, TokenLogprob, Embeddings, StreamChunk, ToolCallDelta, ModelInfo),
    *(Tool, OutputFormat, Thinking, PromptCache, EmbeddingRequest, Timing),
    plain=plain,
)
