"""OpenAI, Azure, and every server that follows them: one provider, and `base_url` makes the difference.

    OpenAIProvider ── api: chat ──▶ ChatApi(dialect)          POST /chat/completions
                   ── api: responses ──▶ ResponsesApi         POST /responses
                   ── embed, list_models                      POST /embeddings, GET /models
                   ── count_tokens                            POST /responses/input_tokens
                   ── batches                                 POST /files, /batches

What goes over the wire is in the files of the APIs; this one puts them together by the settings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct

from agentflow.errors import ConfigurationError, UnsupportedError
from agentflow.llm.messages import EmbeddingRequest, Embeddings, ModelInfo, Request
from agentflow.llm.providers.api import Auth, HTTPProvider, decoded
from agentflow.llm.providers.base import ProviderSettings
from agentflow.llm.providers.batches.endpoint import BatchEndpoint
from agentflow.llm.providers.failures import Source, no_answer
from agentflow.llm.providers.http import Transport
from agentflow.llm.providers.lenient import mapping, number, text
from agentflow.llm.providers.openai.chat import ChatApi
from agentflow.llm.providers.openai.dialects import dialect_of
from agentflow.llm.providers.openai.embeddings import read_embeddings, write_embeddings

if TYPE_CHECKING:
    from agentflow.llm.providers.openai.responses import ResponsesApi

__all__ = ["OpenAIProvider", "read_models"]

DEFAULT_BASE_URL: Final = "https://api.openai.com/v1"
_HEADERS: Final = (("organization", "openai-organization"), ("project", "openai-project"))


class OpenAIProvider(HTTPProvider):
    """A provider for OpenAI and any compatible server.

        provider = OpenAIProvider(ProviderSettings(name="lab", kind="openai", base_url="http://127.0.0.1:8000/v1"))
        response = await provider.execute(Request("llama-3", (Message("user", "Hello"),)))

    A key is sent where there is one; local servers need none. Azure gets it as `api-key`. Options in models.yml:

    - `api`: "chat" (the default, which every compatible server speaks) or "responses".
    - `dialect`: which server it is, where the host does not say so; see `dialects`. Every field of a dialect is an
      option too, such as `max_tokens_field` or `stream_options: false`.
    - `organization`, `project`: sent as the headers OpenAI has for them.
    - those of the transport, see `AiohttpTransport`.

    Raises ConfigurationError where the settings cannot work, and a ModelError where a call fails.
    """

    def __init__(self, settings: ProviderSettings, transport: Transport | None = None) -> None:
        base_url = settings.base_url or DEFAULT_BASE_URL
        dialect = dialect_of(settings, base_url)
        api = settings.options.get("api", "chat")
        self._responses = _responses(dialect.name) if _is_responses(api, settings) else None
        self._dialect = dialect
        super().__init__(
            settings,
            self._responses or ChatApi(dialect),
            base_url=base_url,
            auth=Auth("api-key", "") if dialect.name == "azure" else Auth(),
            headers=_headers(settings),
            transport=transport,
        )

    @property
    def schemas(self) -> bool:
        """Whether an answer can be held to a JSON Schema; else a caller asks for a tool call of that shape."""
        return self._responses is not None or self._dialect.schema == "json_schema"

    async def count_tokens(self, request: Request) -> int:
        """How many input tokens a request has. Raises UnsupportedError for Chat Completions, which does not count."""
        api = self._responses
        if api is None:
            raise UnsupportedError(f"provider {self.name!r} counts tokens with api: responses alone")
        answer, source = await self._post(api.write_count(request), request.model, request.timeout)
        return api.read_count(answer.body, source)

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        """One vector for each text, in their order."""
        answer, source = await self._post(write_embeddings(request), request.model, request.timeout)
        return read_embeddings(answer.body, source, len(request.inputs))

    def batches(self) -> BatchEndpoint:
        """Many requests as one file, answered within a day. A compatible server that has none answers with a 404."""
        from agentflow.llm.providers.batches.openai import FileBatches  # few calls need it

        return FileBatches(self)

    async def list_models(self) -> tuple[ModelInfo, ...]:
        """The models that this key may use now."""
        answer, source = await self._get("/models")
        return read_models(answer.body, source)


def _is_responses(api: object, settings: ProviderSettings) -> bool:
    if api not in ("chat", "responses"):
        raise ConfigurationError(f"provider {settings.name!r}: api is chat or responses, not {api!r}")
    return api == "responses"


def _responses(server: str) -> ResponsesApi:
    from agentflow.llm.providers.openai.responses import ResponsesApi  # most calls need one of the two

    return ResponsesApi(server)


def _headers(settings: ProviderSettings) -> dict[str, str]:
    headers = {}
    for option, header in _HEADERS:
        if option in settings.options:
            value = settings.options[option]
            if not isinstance(value, str) or not value:
                raise ConfigurationError(f"provider {settings.name!r}: {option} is a text, not {value!r}")
            headers[header] = value
    return headers


# ---- the list of models --------------------------------------------------------------------------------------


class _Model(Struct):
    id: str
    name: object = None
    created: object = None
    context_length: object = None  # OpenRouter, Moonshot
    context_window: object = None  # Groq
    max_model_len: object = None  # vLLM
    max_completion_tokens: object = None  # Groq
    top_provider: object = None  # OpenRouter


class _Models(Struct):
    data: list[_Model] | None = None


_MODELS: Final = msgspec.json.Decoder(_Models)


def read_models(body: bytes, source: Source) -> tuple[ModelInfo, ...]:
    """What GET /models says. Raises ProtocolError where it is no such list."""
    wire = decoded(_MODELS, body, source)
    if wire.data is None:
        raise no_answer("it has no list of models", body, source)
    return tuple([_model(model) for model in wire.data])


def _model(wire: _Model) -> ModelInfo:
    top = mapping(wire.top_provider)
    return ModelInfo(
        wire.id,
        name=text(wire.name) or None,
        context=_limit(wire.context_length, wire.context_window, wire.max_model_len),
        max_output=_limit(wire.max_completion_tokens, top.get("max_completion_tokens")),
        created=_limit(wire.created),
    )


def _limit(*found: object) -> int | None:
    """The first of the numbers that is one."""
    return next((int(value) for value in map(number, found) if value is not None and value >= 0), None)
