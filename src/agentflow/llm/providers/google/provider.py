"""Google's Gemini API, and the same on Vertex: how a request is written, and what else the service can do.

    Request ──GoogleApi.write──▶ POST /models/{id}:generateContent                ──▶ answers ──▶ Response
                               └▶ POST /models/{id}:streamGenerateContent?alt=sse ──▶ answers ──▶ StreamChunk, …

Written from Google's API reference, the types of its Python SDK (google-genai 3.4) and recorded traffic. Names on the
wire are in camelCase; what stands in `params` goes as it is, laid over the body field by field. Tools and the answer's
shape are sent as JSON Schema (`parametersJsonSchema`, `responseJsonSchema`), never in the API's older dialect.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Final
from urllib.parse import quote, urlsplit, urlunsplit

import msgspec
from msgspec import Struct

from agentflow.errors import BadRequestError, ConfigurationError, UnsupportedError
from agentflow.llm.content import Json, Raw
from agentflow.llm.messages import (
    EmbeddingRequest,
    Embeddings,
    ModelInfo,
    Request,
    Response,
    Thinking,
    Tool,
)
from agentflow.llm.providers.api import Auth, HTTPProvider, Wire, decoded, merged
from agentflow.llm.providers.base import ProviderSettings
from agentflow.llm.providers.batches.endpoint import BatchEndpoint
from agentflow.llm.providers.efforts import budget_of
from agentflow.llm.providers.failures import Source, no_answer
from agentflow.llm.providers.google.answers import GoogleReading, read_answer
from agentflow.llm.providers.google.embeddings import embedding_body, read_embeddings
from agentflow.llm.providers.google.parts import NAME, is_third_generation, turns_to_wire
from agentflow.llm.providers.http import AiohttpTransport, Transport
from agentflow.llm.providers.lenient import count

__all__ = ["DEFAULT_BASE_URL", "GoogleApi", "GoogleProvider"]

DEFAULT_BASE_URL: Final = "https://generativelanguage.googleapis.com/v1beta"


class GoogleApi:
    """How Gemini is spoken to. `place` is what stands between the version and the models in Vertex's addresses:
    `/projects/P/locations/L/publishers/google`; empty for the Gemini API.

    Thinking goes as it was asked for: an effort as a level, a budget as a budget. Models before Gemini 3 know no
    levels, so for them an effort becomes the budget that Google's own table gives it. A tool that is `strict` asks for
    the mode VALIDATED, unless a call is required, which always keeps to the schema.
    """

    name = NAME

    def __init__(self, place: str = "") -> None:
        self.place = place

    def write(self, request: Request, *, stream: bool) -> Wire:
        """Raises BadRequestError for what the API cannot say: a media part without a type, no parallel calls."""
        method = "streamGenerateContent?alt=sse" if stream else "generateContent"
        return Wire(self.path(request.model, method), body_of(request))

    def read(self, body: bytes, source: Source) -> Response:
        return read_answer(body, source)

    def reading(self, source: Source) -> GoogleReading:
        return GoogleReading(source)

    def path(self, model: str, method: str) -> str:
        """The path of a method of a model: of `x`, `models/x` or `tunedModels/x`, and on Vertex also of
        `publishers/meta/models/x`, `endpoints/7` and `projects/…`. No name leads out of the folder that it stands in.
        """
        name = _resource(model)
        if name.startswith("projects/"):
            return f"/{name}:{method}"
        publisher = self.place.find("/publishers/")
        if publisher >= 0 and name.startswith(("publishers/", "endpoints/")):
            return f"{self.place[:publisher]}/{name}:{method}"
        return f"{self.place}/{name}:{method}"


_FOLDERS: Final = ("models", "tunedModels", "publishers", "endpoints", "projects")


def _resource(model: str) -> str:
    """The model's resource name, fit for a path."""
    segments = model.split("/")
    if any(segment in ("", ".", "..") for segment in segments):
        raise BadRequestError(f"Gemini: {model!r} is no model id", provider=None, model=model)
    name = "/".join([quote(segment, safe="@") for segment in segments])
    return name if segments[0] in _FOLDERS and len(segments) > 1 else f"models/{name}"


# ---- request -------------------------------------------------------------------------------------------------

_SETTINGS: Final = (
    ("temperature", "temperature"),
    ("top_p", "topP"),
    ("top_k", "topK"),
    ("max_tokens", "maxOutputTokens"),
    ("n", "candidateCount"),
    ("seed", "seed"),
)

_LEVELS: Final = {"none": "MINIMAL", "max": "HIGH"}
"""Efforts for which there is no level of that name get the nearest one: the models with levels always think."""

_CHOICES: Final = {"auto": "AUTO", "none": "NONE", "required": "ANY"}


def body_of(request: Request) -> dict[str, Json]:
    """The body of a request. `cache` and a turn's `name` have no word here and are left out."""
    if request.parallel_tool_calls is False:
        raise BadRequestError(
            "Gemini: it cannot be kept from calling several tools at once: leave parallel_tool_calls out",
            provider=None,
            model=request.model,
        )
    system, contents = turns_to_wire(request.messages, request.model)
    body: dict[str, Json] = {"contents": contents}
    if system:
        body["systemInstruction"] = {"parts": system}
    if tools := _tools(request):
        body["tools"] = tools
    if choice := _choice(request):
        body["toolConfig"] = {"functionCallingConfig": choice}
    if settings := _settings(request):
        body["generationConfig"] = settings
    if request.labels:
        body["labels"] = request.labels
    return merged(body, request.params)


def _settings(request: Request) -> dict[str, Json]:
    settings: dict[str, Json] = {
        wire: value for name, wire in _SETTINGS if (value := getattr(request, name)) is not None
    }
    if request.stop:
        settings["stopSequences"] = request.stop
    if request.logprobs is not None:
        settings["responseLogprobs"] = True
        if request.logprobs:
            settings["logprobs"] = request.logprobs
    if request.output is not None:
        settings["responseMimeType"] = "application/json"
        if request.output.schema is not None:
            settings["responseJsonSchema"] = request.output.schema
    if request.thinking is not None and (thinking := _thinking(request.thinking, request.model)):
        settings["thinkingConfig"] = thinking
    return settings


def _thinking(thinking: Thinking, model: str) -> dict[str, Json]:
    config: dict[str, Json] = {}
    effort, budget = thinking.effort, thinking.budget
    if effort is not None and is_third_generation(model):
        config["thinkingLevel"] = _LEVELS.get(effort, effort.upper())
    else:
        budget = budget_of(thinking, model)
    if budget is not None:
        config["thinkingBudget"] = budget
    if thinking.show is not None:
        config["includeThoughts"] = thinking.show
    return config


def _tools(request: Request) -> list[Json]:
    """All functions in one entry, where the first of them stood; the provider's own tools as they are."""
    functions: list[Json] = [_declaration(tool) for tool in request.tools if isinstance(tool, Tool)]
    found: list[Json] = []
    for tool in request.tools:
        if isinstance(tool, Raw):
            if tool.api == NAME:
                found.append(tool.data)
        elif functions:
            found.append({"functionDeclarations": functions})
            functions = []
    return found


def _declaration(tool: Tool) -> dict[str, Json]:
    declaration: dict[str, Json] = {"name": tool.name, "description": tool.description}
    if tool.parameters:
        declaration["parametersJsonSchema"] = tool.parameters
    return declaration


def _choice(request: Request) -> dict[str, Json] | None:
    choice = request.tool_choice
    if choice is None or choice == "auto":
        strict = any(isinstance(tool, Tool) and tool.strict for tool in request.tools)
        return {"mode": "VALIDATED"} if strict else None if choice is None else {"mode": "AUTO"}
    if isinstance(choice, str):
        return {"mode": _CHOICES[choice]} if choice in _CHOICES else _one_of((choice,))
    return _one_of(choice)


def _one_of(names: tuple[str, ...]) -> dict[str, Json]:
    return {"mode": "ANY", "allowedFunctionNames": names}


# ---- provider ------------------------------------------------------------------------------------------------


class GoogleProvider(HTTPProvider):
    """A provider for Gemini.

        provider = GoogleProvider(ProviderSettings(name="google", kind="google", api_key=Secret("…")))
        response = await provider.execute(Request("gemini-2.5-flash", (Message("user", "Hello"),)))

    On Vertex, `base_url` is `https://LOCATION-aiplatform.googleapis.com/v1/projects/P/locations/L/publishers/google`
    (Google's own publisher may be left out) and `settings.token` gives an OAuth token for each call; everywhere else a
    key goes into `x-goog-api-key`. Option: `batch_inline`, how many bytes of requests go as a batch without a file.
    """

    def __init__(self, settings: ProviderSettings, transport: Transport | None = None) -> None:
        root, place = _split(settings.base_url or DEFAULT_BASE_URL)
        self._google = GoogleApi(place=place)
        self._vertex = bool(place)
        auth = Auth("x-goog-api-key", "")
        self._uploads: Transport | None = transport
        self._open_uploads = partial(
            AiohttpTransport, settings, base_url=_upload_root(root), headers=auth.headers(settings)
        )
        super().__init__(settings, self._google, base_url=root, auth=auth, transport=transport)

    async def count_tokens(self, request: Request) -> int:
        """The input tokens of a request, system instruction and tools included, as the model counts them."""
        body = body_of(request)
        if self._vertex:
            body = {name: body[name] for name in _COUNTED if name in body}
        elif body.keys() != {"contents"}:
            body = {"generateContentRequest": {"model": _resource(request.model), **body}}
        wire = Wire(self._google.path(request.model, "countTokens"), body)
        answer, source = await self._post(wire, request.model, request.timeout)
        total = decoded(_COUNT, answer.body, source).totalTokens
        if total is None:
            raise no_answer("it has no totalTokens", answer.body, source)
        return count(total)

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        """One vector for each text. `params`, such as `taskType`, belong to every text of the call."""
        method, body = embedding_body(request, _resource(request.model), vertex=self._vertex)
        answer, source = await self._post(
            Wire(self._google.path(request.model, method), body), request.model, request.timeout
        )
        return read_embeddings(answer.body, source, wanted=len(request.inputs))

    def batches(self) -> BatchEndpoint:
        """Many requests as one, answered within a day or two. Raises UnsupportedError on Vertex."""
        from agentflow.llm.providers.batches.google import INLINE, GeminiBatches  # few calls need it

        if self._vertex:
            raise UnsupportedError(
                f"provider {self.name!r}: batches on Vertex go by buckets, which is not supported; the Gemini API has "
                "batches without them"
            )
        inline = self._settings.options.get("batch_inline", INLINE)
        if not isinstance(inline, int) or isinstance(inline, bool) or inline < 0:
            raise ConfigurationError(f"provider {self.name!r}: batch_inline is a number of bytes, not {inline!r}")
        if self._uploads is None:
            self._uploads = self._open_uploads()
        return GeminiBatches(self, self._uploads, inline=inline)

    async def aclose(self) -> None:
        await super().aclose()
        if self._uploads is not None:
            await self._uploads.aclose()

    async def list_models(self) -> tuple[ModelInfo, ...]:
        """Every model that the service lists, page by page."""
        path = f"{self._google.place[self._google.place.find('/publishers/') :] if self._vertex else ''}/models"
        found: list[ModelInfo] = []
        page, seen = "", set[str]()
        while True:
            more = f"&pageToken={quote(page, safe='')}" if page else ""
            answer, source = await self._get(f"{path}?pageSize={_PAGE}{more}")
            models = decoded(_MODELS, answer.body, source)
            found += [_info(model) for model in models.models or models.publisherModels or [] if model.name]
            page = models.nextPageToken or ""
            if not page or page in seen:
                return tuple(found)
            seen.add(page)


_PAGE: Final = 1000
_VERTEX: Final = re.compile(
    r"(?=/projects/|/publishers/)(?P<parent>(?:/projects/[^/]+/locations/[^/]+)?)(?P<publisher>/publishers/[^/]+)?/?$"
)
_COUNTED: Final = ("contents", "systemInstruction", "tools", "generationConfig")  # all that Vertex counts


def _split(base_url: str) -> tuple[str, str]:
    """The address up to the version, and the rest, which only Vertex has: project, location and publisher."""
    address, mark, query = base_url.partition("?")
    match = _VERTEX.search(address)
    if match is None:
        return base_url, ""
    return address[: match.start()] + mark + query, match["parent"] + (match["publisher"] or "/publishers/google")


def _upload_root(root: str) -> str:
    """Where files go: the same host and version, behind `/upload`."""
    parts = urlsplit(root)
    return urlunsplit(parts._replace(path=f"/upload{parts.path}"))


class _Count(Struct):
    totalTokens: float | None = None  # noqa: N815


class _Model(Struct):
    name: str | None = None
    displayName: str | None = None  # noqa: N815
    inputTokenLimit: float | None = None  # noqa: N815
    outputTokenLimit: float | None = None  # noqa: N815


class _Models(Struct):
    models: list[_Model] | None = None
    publisherModels: list[_Model] | None = None  # noqa: N815
    nextPageToken: str | None = None  # noqa: N815


_COUNT: Final = msgspec.json.Decoder(_Count)
_MODELS: Final = msgspec.json.Decoder(_Models)


def _info(model: _Model) -> ModelInfo:
    name = model.name or ""
    bare = name.rpartition("models/")[2] if name.startswith(("models/", "publishers/google/")) else name
    return ModelInfo(
        bare, model.displayName, count(model.inputTokenLimit) or None, count(model.outputTokenLimit) or None
    )
