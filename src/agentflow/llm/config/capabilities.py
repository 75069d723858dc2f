"""Whether a model can do what is asked of it, before a byte is sent.

    Request with an Image  ──check──▶  ModelConfig(capabilities={"tools"})  →  UnsupportedError: … can do it: gpt-4o

A model whose capabilities nobody wrote down is asked anything: the provider refuses by itself. A request of words alone
costs half a microsecond.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from agentflow.errors import UnsupportedError
from agentflow.llm.config.model import ModelConfig
from agentflow.llm.config.schema import Capability
from agentflow.llm.content import Audio, Content, Document, Image, ToolResult
from agentflow.llm.messages import RESIDENCY, EmbeddingRequest, Request, Thinking

__all__ = ["Able", "check", "places"]

Able = Callable[[Capability], Sequence[str]]
"""The names of the models that can do something: `ModelRegistry.models_with`."""

_OF_PART: Final[dict[type, Capability]] = {Image: "image", Document: "document", Audio: "audio"}
_ASKED: Final[dict[Capability, str]] = {
    "image": "to look at an image",
    "document": "to read a document",
    "audio": "to listen to sound",
    "tools": "to call tools",
    "schema": "to answer in the shape of a schema",
    "thinking": "to think before it answers",
    "embed": "for embeddings",
}
_MOST_NAMES: Final = 5


def check(request: Request | EmbeddingRequest, config: ModelConfig, able: Able | None = None) -> None:
    """Raises UnsupportedError for what the model is known not to do; with `able`, it says which models do.

    Looked at are images, documents and sound (also in the results of tools), tools, a schema for the answer, thinking,
    embeddings, `max_tokens` beyond the model's limit, and places where the request may be worked on, where it says so
    (`RESIDENCY`).
    """
    can = config.capabilities
    if isinstance(request, EmbeddingRequest):
        if can is not None and "embed" not in can:
            raise _cannot(config, "embed", able)
        return
    if can is not None:
        _check_abilities(request, config, can, able)
    if request.metadata and RESIDENCY in request.metadata and not config.routed:
        _check_places(places(request.metadata[RESIDENCY]), config)
    if request.max_tokens is not None and config.max_output is not None and request.max_tokens > config.max_output:
        raise UnsupportedError(
            f"{config.name} answers with at most {config.max_output:,} tokens, and max_tokens is "
            f"{request.max_tokens:,}: lower it, or correct max_output in models.yml"
        )


def places(demand: str) -> frozenset[str]:
    """The places that a request names: `"eu, ch"`."""
    return frozenset(filter(None, map(str.strip, demand.split(","))))


def _check_places(allowed: frozenset[str], config: ModelConfig) -> None:
    if config.regions and allowed.issuperset(config.regions):
        return
    where = f"works in {', '.join(config.regions)}" if config.regions else "works nobody knows where"
    raise UnsupportedError(
        f"the request may only be worked on in {', '.join(sorted(allowed)) or 'no place at all'} (its metadata's "
        f"`{RESIDENCY}`), and {config.name} {where}: ask another model, or correct `regions` of its entry in models.yml"
    )


def _check_abilities(request: Request, config: ModelConfig, can: frozenset[Capability], able: Able | None) -> None:
    if "embed" in can:
        raise UnsupportedError(
            f"{config.name} is a model for embeddings and answers no prompt: ask it with embed(), or ask another model"
        )
    for message in request.messages:
        if type(message.content) is not str:
            _check_parts(message.content, config, can, able)
    if request.tools and "tools" not in can:
        raise _cannot(config, "tools", able)
    if request.output is not None and request.output.schema is not None and "schema" not in can:
        raise _cannot(config, "schema", able)
    if request.thinking is not None and "thinking" not in can and _wants_thought(request.thinking):
        raise _cannot(config, "thinking", able)


def _check_parts(content: Content, config: ModelConfig, can: frozenset[Capability], able: Able | None) -> None:
    for part in content:
        needed = _OF_PART.get(type(part))
        if needed is not None and needed not in can:
            raise _cannot(config, needed, able)
        if isinstance(part, ToolResult):
            _check_parts(part.content, config, can, able)


def _wants_thought(thinking: Thinking) -> bool:
    """Whoever asks for no thinking at all asks for what every model can do."""
    return thinking.effort != "none" if thinking.effort is not None else bool(thinking.budget or thinking.show)


def _cannot(config: ModelConfig, needed: Capability, able: Able | None) -> UnsupportedError:
    others = [] if able is None else [name for name in able(needed) if name != config.name]
    more = "…" if others[_MOST_NAMES:] else ""
    names = f"; models that can: {', '.join(others[:_MOST_NAMES])}{more}" if others else "; ask another model"
    return UnsupportedError(
        f"{config.name} is asked {_ASKED[needed]}, which it cannot{names} "
        f"(if it can, add {needed} to its capabilities in models.yml)"
    )
