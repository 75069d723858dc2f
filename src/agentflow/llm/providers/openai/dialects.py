"""How servers that speak OpenAI's Chat Completions differ, as one table of plain values.

    base_url, options ──dialect_of──▶ Dialect(name="groq", max_tokens_field="max_completion_tokens", n=False, …)

The option `dialect` chooses a row, else the host does, else it is `compatible`, which takes a server at its word: it
gets whatever was asked. Every field of a row can be set as an option of the provider too, for the one server that
differs. Only what is documented or was recorded stands here, with its source. `name` is the key of opaque data, so
nothing that belongs to one server is ever sent to another.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from agentflow.errors import BadRequestError, ConfigurationError
from agentflow.llm.content import Json
from agentflow.llm.messages import Request, Thinking
from agentflow.llm.providers.base import ProviderSettings

__all__ = ["ANSWER", "BUDGETS", "DIALECTS", "Dialect", "dialect_of", "effort_of", "thinking_fields"]


ANSWER: Final = "answer"
"""Where a turn's opaque data holds what belongs to the answer and not to the turn."""


class Dialect(Struct, frozen=True, kw_only=True):
    """What one kind of server understands, and how it says what the others say differently.

    - `max_tokens_field`: its name for `max_tokens`.
    - `reasoning_field`: the field of an assistant's turn in which thoughts are sent back that came from elsewhere;
      None where only its own thoughts are, in the field they came in.
    - `thinking`: how thinking is asked for, see `thinking_fields`; `efforts` are its words for ours.
    - `schema`: the strictest output it can be held to. Where that is not json_schema, a schema is refused, and the
      caller does better to ask for a tool call.
    - `stream_options`: whether a stream may be asked for usage; others send it unasked.
    - `empty_content`: how a turn of tool calls alone says that it has no words; "omit" is for every turn without.
    - the rest: whether it knows the thing. What it does not know is refused, or left out where it is but a hint.
    """

    name: str
    max_tokens_field: str = "max_tokens"
    reasoning_field: str | None = None
    thinking: Literal["effort", "switch", "both", "object", "template", "none"] = "effort"
    efforts: Mapping[str, str] = {}
    schema: Literal["json_schema", "json_object", "none"] = "json_schema"
    stream_options: bool = True
    empty_content: Literal["null", "omit", "empty"] = "null"
    developer: bool = False
    allowed_tools: bool = False
    forced_tools: bool = True
    tool_names: bool = False
    show_field: str | None = None
    cache_key: bool = False
    cache_retention: bool = False
    cache_marks: bool = False
    top_k: bool = False
    seed: bool = True
    n: bool = True
    logprobs: bool = True
    metadata: bool = True
    images: bool = True
    audio: bool = True
    files: bool = True
    cost: bool = False


def _row(**fields: object) -> Dialect:
    return msgspec.convert(fields, Dialect)


_THREE: Final = {"minimal": "low", "medium": "high", "xhigh": "max"}

DIALECTS: Final[Mapping[str, Dialect]] = {
    row.name: row
    for row in (
        # SDK types openai 3.57.0 (CompletionCreateParams): `max_tokens` is deprecated, and an error with reasoning
        # models; `allowed_tools`, `prompt_cache_key` and `prompt_cache_retention` stand there.
        _row(
            name="openai",
            max_tokens_field="max_completion_tokens",
            developer=True,
            allowed_tools=True,
            cache_key=True,
            cache_retention=True,
        ),
        # The same API under a customer's own host (learn.microsoft.com, Azure OpenAI v1).
        _row(
            name="azure",
            max_tokens_field="max_completion_tokens",
            developer=True,
            allowed_tools=True,
            cache_key=True,
            cache_retention=True,
        ),
        # platform.kimi.ai/docs/api/chat: max_tokens is deprecated, json_schema and prompt_cache_key are known, content
        # is text, image_url and video_url. How thinking is asked for depends on the model: see `moonshot`.
        _row(
            name="moonshot",
            max_tokens_field="max_completion_tokens",
            reasoning_field="reasoning_content",
            thinking="none",
            tool_names=True,
            cache_key=True,
            seed=False,
            logprobs=False,
            metadata=False,
            audio=False,
            files=False,
        ),
        # api-docs.deepseek.com: guides/thinking_mode (thinking.type and reasoning_effort low, high, max; the
        # reasoning_content of turns with tools must come back, 400 otherwise), guides/json_mode.
        _row(
            name="deepseek",
            reasoning_field="reasoning_content",
            thinking="both",
            efforts=_THREE,
            schema="json_object",
            seed=False,
            n=False,
            metadata=False,
            images=False,
            audio=False,
            files=False,
        ),
        # docs.z.ai: guides/capabilities/thinking-mode (thinking.type; reasoning_content goes back with tool results),
        # api-reference (tool_choice is auto alone, response_format text or json_object, usage comes unasked);
        # recorded: reasoning_effort beside thinking with glm-5.2, and reasoning_content that was sent back.
        _row(
            name="zai",
            reasoning_field="reasoning_content",
            thinking="both",
            schema="json_object",
            stream_options=False,
            forced_tools=False,
            seed=False,
            n=False,
            logprobs=False,
            metadata=False,
            audio=False,
            files=False,
        ),
        # openrouter.ai/docs: use-cases/reasoning-tokens (reasoning.effort, .max_tokens, .exclude; reasoning and
        # reasoning_details go back), features/prompt-caching (cache_control on parts and at the top),
        # use-cases/usage-accounting (usage.cost in dollars), features/multimodal (image_url, input_audio, file).
        _row(
            name="openrouter",
            reasoning_field="reasoning",
            thinking="object",
            cache_marks=True,
            top_k=True,
            cost=True,
        ),
        # SDK types groq (CompletionCreateParams): max_tokens is deprecated; n other than 1, logprobs and metadata are
        # not supported; include_reasoning; console.groq.com/docs/reasoning: reasoning comes in `reasoning`, which an
        # assistant's turn may hold (ChatCompletionAssistantMessageParam).
        _row(
            name="groq",
            max_tokens_field="max_completion_tokens",
            reasoning_field="reasoning",
            show_field="include_reasoning",
            n=False,
            logprobs=False,
            metadata=False,
            audio=False,
            files=False,
        ),
        # docs.ollama.com/api/openai-compatibility lists the fields it reads: reasoning_effort is among them, n and
        # top_k are not, and what it does not read it ignores without a word.
        _row(name="ollama", n=False, metadata=False, audio=False, files=False),
        # docs.vllm.ai: features/reasoning_outputs (`reasoning`, once `reasoning_content`; chat templates take
        # enable_thinking), serving/openai_compatible_server (top_k as an extra parameter).
        _row(name="vllm", thinking="template", top_k=True, files=False),
        _row(name="compatible", top_k=True),
    )
}

_HOSTS: Final = {
    "api.openai.com": "openai",
    ".openai.azure.com": "azure",
    ".services.ai.azure.com": "azure",
    ".cognitiveservices.azure.com": "azure",
    "api.moonshot.ai": "moonshot",
    "api.moonshot.cn": "moonshot",
    "api.deepseek.com": "deepseek",
    "api.z.ai": "zai",
    "open.bigmodel.cn": "zai",
    "openrouter.ai": "openrouter",
    "api.groq.com": "groq",
}
_OLLAMA_PORT: Final = 11434


def dialect_of(settings: ProviderSettings, base_url: str, *, usual: str | None = None) -> Dialect:
    """The row for a provider, with the options laid over it; without the option `dialect` it is the `usual` one, or
    what the host says. Raises ConfigurationError for what is no such option."""
    name = settings.options.get("dialect") or usual or _by_host(base_url)
    row = DIALECTS.get(name) if isinstance(name, str) else None
    if row is None:
        raise ConfigurationError(f"provider {settings.name!r}: dialect is one of {', '.join(DIALECTS)}, not {name!r}")
    own = {field: settings.options[field] for field in _OPTIONS if field in settings.options}
    if not own:
        return row
    try:
        made = msgspec.convert({**msgspec.structs.asdict(row), **own}, Dialect)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"provider {settings.name!r}: {', '.join(own)}: {error}") from error
    if not made.max_tokens_field:
        raise ConfigurationError(f"provider {settings.name!r}: max_tokens_field is a text, not {''!r}")
    return made


_OPTIONS: Final = tuple([field for field in Dialect.__struct_fields__ if field != "name"])


def _by_host(base_url: str) -> str:
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    for known, name in _HOSTS.items():
        if host == known or (known.startswith(".") and host.endswith(known)):
            return name
    try:
        return "ollama" if parts.port == _OLLAMA_PORT else "compatible"
    except ValueError:  # no port at all; the transport says so
        return "compatible"


# ---- thinking ------------------------------------------------------------------------------------------------

BUDGETS: Final = {"none": 0, "minimal": 1024, "low": 1024, "medium": 8192, "high": 24576}
"""Efforts as tokens, for APIs that know only one of the two (Google documents these numbers for its OpenAI-compatible
face, ai.google.dev/gemini-api/docs/openai)."""


def effort_of(thinking: Thinking) -> str | None:
    """The effort asked for, or the one nearest above the budget asked for."""
    if thinking.effort is not None or thinking.budget is None:
        return thinking.effort
    return next((effort for effort in ("none", "low", "medium") if thinking.budget <= BUDGETS[effort]), "high")


def thinking_fields(request: Request, thinking: Thinking, dialect: Dialect) -> dict[str, Json]:
    """What a request says of thinking.

    effort    {"reasoning_effort": "low"}
    switch    {"thinking": {"type": "enabled"}}
    both      the switch, and the effort where it is on
    object    {"reasoning": {"effort": "low"}} or {"reasoning": {"max_tokens": 2000}}
    template  {"chat_template_kwargs": {"enable_thinking": true}}, and the effort where it is on
    """
    if dialect.thinking == "object":
        return _reasoning_object(thinking)
    effort = effort_of(thinking)
    shown = {} if dialect.show_field is None or thinking.show is None else {dialect.show_field: thinking.show}
    if effort is None:
        return dict(shown)
    on, word = effort != "none", dialect.efforts.get(effort, effort)
    if dialect.thinking == "effort":
        return {**shown, "reasoning_effort": word}
    if dialect.thinking == "none":
        raise BadRequestError(
            "this model does not say how it is told to think; leave thinking out, or use params", model=request.model
        )
    if dialect.thinking == "template":
        switch: dict[str, Json] = {"chat_template_kwargs": {"enable_thinking": on}}
    else:
        switch = {"thinking": {"type": "enabled" if on else "disabled"}}
    return {**switch, "reasoning_effort": word} if on and dialect.thinking != "switch" else switch


def _reasoning_object(thinking: Thinking) -> dict[str, Json]:
    said: dict[str, Json] = {}
    if thinking.effort is not None:
        said["effort"] = thinking.effort
    elif thinking.budget is not None:
        said.update({"max_tokens": thinking.budget} if thinking.budget else {"effort": "none"})
    if thinking.show is not None:
        said["exclude"] = not thinking.show
    return {"reasoning": said} if said else {}
