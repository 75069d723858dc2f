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
from agentflow.llm.providers.efforts import effort_of

__all__ = ["DIALECTS", "Dialect", "dialect_of", "thinking_fields"]


class Dialect(Struct, frozen=True, kw_only=True):
    """What one kind of server understands, and how it says what the others say differently.

    - `max_tokens_field`: its name for `max_tokens`.
    - `reasoning_field`: the field of an assistant's turn in which thoughts are sent back that came from elsewhere;
      None where only its own thoughts are, in the field they came in.
    - `thinking`: how thinking is asked for, see `thinking_fields`; `efforts` are its words for ours.
    - `schema`: the strictest output it can be held to. Where that is not json_schema, a schema is refused, and the
      caller does better to ask for a tool call.
    - `stream_options`: whether a stream may be asked for usage; others send it unasked.
    - `seed_field`: its name for `seed`.
    - `reasoning_required`: while it thinks, it refuses a turn with tool calls that has no thoughts, as turns of other
      models have none; they get a blank in `reasoning_field`.
    - `tool_ids`: which ids of tool calls it takes, where it is not any.
    - `returned`: the fields of its answers, beyond those that are modelled, that it takes back; None is for all.
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
    seed_field: str = "seed"
    reasoning_required: bool = False
    tool_ids: Literal["any", "nine_letters"] = "any"
    returned: tuple[str, ...] | None = None
    empty_content: Literal["null", "omit", "empty"] = "null"
    developer: bool = False
    allowed_tools: bool = False
    forced_tools: bool = True
    tool_names: bool = False
    media_in_results: bool = False
    show_field: str | None = None
    cache_key: bool = False
    cache_retention: bool = False
    cache_marks: bool = False
    top_k: bool = False
    seed: bool = True
    n: bool = True
    logprobs: bool = True
    metadata: bool = True
    metadata_needs_store: bool = False
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
            metadata_needs_store=True,
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
        # is text, image_url and video_url. How thinking is asked for depends on the model: see `moonshot`. "Thinking is
        # enabled but reasoning_content is missing in assistant tool call message": CherryHQ/cherry-studio#12619.
        _row(
            name="moonshot",
            max_tokens_field="max_completion_tokens",
            reasoning_field="reasoning_content",
            reasoning_required=True,
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
        # reasoning_content of turns with tools must come back, 400 otherwise, also where it was empty, and a blank is
        # enough: NousResearch/hermes-agent#17341; thinking is on unless it is turned off), guides/json_mode.
        _row(
            name="deepseek",
            reasoning_field="reasoning_content",
            reasoning_required=True,
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
        # assistant's turn may hold (ChatCompletionAssistantMessageParam), but not the executed_tools and annotations
        # of an answer: a property that is not listed there is refused (SimonSchubert/Kai#265).
        _row(
            name="groq",
            max_tokens_field="max_completion_tokens",
            reasoning_field="reasoning",
            show_field="include_reasoning",
            returned=(),
            n=False,
            logprobs=False,
            metadata=False,
            audio=False,
            files=False,
        ),
        # SDK types mistralai 3.7.0 (ChatCompletionStreamRequest, AssistantMessage, ToolMessage): random_seed, and no
        # stream_options; a field that is not listed is refused ("extra_forbidden", mistralai/platform-docs-public#7);
        # audio and files go in other shapes, pictures also in results. Ids of tool calls: nearai/ironclaw#1241.
        _row(
            name="mistral",
            seed_field="random_seed",
            stream_options=False,
            tool_ids="nine_letters",
            returned=(),
            tool_names=True,
            media_in_results=True,
            cache_key=True,
            top_k=True,
            audio=False,
            files=False,
        ),
        # SDK types xai-sdk 1.21.0 (GetCompletionsRequest) know no top_k and no metadata; hexdocs.pm/req_llm, xAI:
        # max_completion_tokens is what newer models take, and of media it takes pictures alone.
        _row(
            name="xai",
            max_tokens_field="max_completion_tokens",
            metadata=False,
            audio=False,
            files=False,
        ),
        # SDK types together 3.1.1 (CompletionCreateParams, ChatCompletionAssistantMessageParam): `logprobs` is a number
        # there, not a switch; no metadata; input_audio is known, files are not.
        _row(
            name="together",
            reasoning_field="reasoning",
            top_k=True,
            logprobs=False,
            metadata=False,
            files=False,
        ),
        # SDK types fireworks-ai 1.2.30 (CompletionCreateParams, ChatMessage): content is text, image_url, video_url.
        _row(
            name="fireworks",
            reasoning_field="reasoning_content",
            cache_key=True,
            top_k=True,
            audio=False,
            files=False,
        ),
        # SDK types cerebras_cloud_sdk 1.91.0 (CompletionCreateParams): max_tokens is deprecated, efforts are none, low,
        # medium and high, a developer's turns are known, content is text and pictures.
        _row(
            name="cerebras",
            max_tokens_field="max_completion_tokens",
            reasoning_field="reasoning",
            efforts={"minimal": "low", "xhigh": "high", "max": "high"},
            developer=True,
            cache_key=True,
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
    "api.mistral.ai": "mistral",
    "api.x.ai": "xai",
    "api.together.xyz": "together",
    "api.together.ai": "together",
    "api.fireworks.ai": "fireworks",
    "api.cerebras.ai": "cerebras",
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
    for field in ("max_tokens_field", "seed_field"):
        if not getattr(made, field):
            raise ConfigurationError(f"provider {settings.name!r}: {field} is a text, not {''!r}")
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
