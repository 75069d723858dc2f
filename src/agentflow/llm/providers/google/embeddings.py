"""Texts as vectors, in the three shapes that Google has for it: pure functions each way.

Gemini API              :batchEmbedContents  {"requests": [{"model", "content", "outputDimensionality"}]}
Vertex, Gemini models   :embedContent        {"content", "embedContentConfig": {"outputDimensionality"}}
                        :batchEmbedContents  the same in {"requests": […]}, for several texts
Vertex, earlier models  :predict             {"instances": [{"content"}], "parameters": {"outputDimensionality"}}
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Struct

from agentflow.llm.content import Json
from agentflow.llm.messages import EmbeddingRequest, Embeddings, Usage
from agentflow.llm.providers.api import decoded, merged
from agentflow.llm.providers.failures import Source, no_answer, wire_error
from agentflow.llm.providers.lenient import count

__all__ = ["embedding_body", "read_embeddings"]


def embedding_body(request: EmbeddingRequest, resource: str, *, vertex: bool) -> tuple[str, dict[str, Json]]:
    """The method and its body; `params` are laid over what stands for each text. `resource` names the model in full."""
    if not vertex:
        size: dict[str, Json] = {} if request.dimensions is None else {"outputDimensionality": request.dimensions}
        requests = [
            merged({"model": resource, "content": _content(text), **size}, request.params) for text in request.inputs
        ]
        return "batchEmbedContents", {"requests": requests}
    name = request.model.rpartition("/")[2]
    if "gemini" not in name and "maas" not in name:
        return "predict", _prediction(request)
    config = {} if request.dimensions is None else {"embedContentConfig": {"outputDimensionality": request.dimensions}}
    items = [merged({"content": _content(text), **config}, request.params) for text in request.inputs]
    return ("embedContent", items[0]) if len(items) == 1 else ("batchEmbedContents", {"requests": items})


def _prediction(request: EmbeddingRequest) -> dict[str, Json]:
    body: dict[str, Json] = {"instances": [merged({"content": text}, request.params) for text in request.inputs]}
    if request.dimensions is not None:
        body["parameters"] = {"outputDimensionality": request.dimensions}
    return body


def _content(text: str) -> dict[str, Json]:
    return {"parts": [{"text": text}]}


class _Statistics(Struct):
    token_count: float | None = None


class _Vector(Struct):
    values: list[float] | None = None
    statistics: _Statistics | None = None


class _Prediction(Struct):
    embeddings: _Vector | None = None


class _Spent(Struct):
    promptTokenCount: float | None = None  # noqa: N815


class _Answer(Struct):
    embeddings: list[_Vector] | None = None
    embedding: _Vector | None = None
    predictions: list[_Prediction] | None = None
    usageMetadata: _Spent | None = None  # noqa: N815
    error: object = None


_ANSWER: Final = msgspec.json.Decoder(_Answer)


def read_embeddings(body: bytes, source: Source, *, wanted: int) -> Embeddings:
    """The vectors, in the order of the texts. Raises ProtocolError where they are not as many."""
    wire = decoded(_ANSWER, body, source)
    if wire.error:
        raise wire_error(wire.error, source)
    vectors = _vectors(wire)
    found = [tuple(vector.values) for vector in vectors if vector.values]
    if len(found) != wanted:
        raise no_answer(f"it has {len(found)} vectors for {wanted} texts", body, source)
    return Embeddings(tuple(found), source.model, source.provider, _usage(wire, vectors), source.request_id)


def _vectors(wire: _Answer) -> list[_Vector]:
    if wire.embeddings is not None:
        return wire.embeddings
    if wire.embedding is not None:
        return [wire.embedding]
    return [prediction.embeddings for prediction in wire.predictions or [] if prediction.embeddings is not None]


def _usage(wire: _Answer, vectors: list[_Vector]) -> Usage | None:
    if wire.usageMetadata is not None and wire.usageMetadata.promptTokenCount is not None:
        return Usage(count(wire.usageMetadata.promptTokenCount))
    counts = [vector.statistics.token_count for vector in vectors if vector.statistics is not None]
    return Usage(sum([count(each) for each in counts])) if counts else None
