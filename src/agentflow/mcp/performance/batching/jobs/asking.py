"""What a job is asked to ask: prompts, requests or builders, as the bodies that a direct call would send.

"Hello"  ──▶  Request(model, (user: Hello,))  ──▶  NewRequest(custom id, path, body)
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from typing import Final, TypeAlias

from msgspec.structs import replace

from agentflow.errors import ConfigurationError
from agentflow.llm.attempts import ready
from agentflow.llm.builder import LLMClientBuilder
from agentflow.llm.client import Call
from agentflow.llm.config.capabilities import check
from agentflow.llm.config.model import ModelConfig
from agentflow.llm.config.registry import ModelRegistry
from agentflow.llm.messages import Request
from agentflow.llm.providers.batches.endpoint import BatchEndpoint
from agentflow.mcp.performance.batching.jobs.ids import custom_id
from agentflow.mcp.performance.batching.jobs.outcomes import request_text
from agentflow.mcp.performance.batching.jobs.rows import NewRequest

__all__ = ["Asked", "digest_of", "written"]

_AT_ONCE: Final = 256

Asked: TypeAlias = "str | Request | LLMClientBuilder[str]"
"""A prompt, a request whose model is left to the job, or a builder without tools and typed answers, which take more
than one request."""


async def written(
    asked: Sequence[Asked], job: str, config: ModelConfig, endpoint: BatchEndpoint, registry: ModelRegistry
) -> list[NewRequest]:
    """Raises ConfigurationError, UnsupportedError and BadRequestError for what cannot be asked, before anything is
    stored or sent."""
    made: list[NewRequest] = []
    for seq, each in enumerate(asked):
        if seq % _AT_ONCE == 0:
            await asyncio.sleep(0)  # a job may be long, and others want to go on
        request = await ready(_request(each, config))
        check(request, config, registry.models_with)
        item = endpoint.write(request)
        made.append(NewRequest(custom_id(job, seq, item.path, item.body), item.path, item.body, request_text(request)))
    if len({new.path for new in made}) > 1:
        raise ConfigurationError("the requests of one batch job go to one endpoint: make a job for each")
    return made


def digest_of(requests: Sequence[NewRequest]) -> str:
    """What tells whether two jobs ask the same."""
    digest = hashlib.sha256()
    for new in requests:
        digest.update(f"{new.path}\n{len(new.body)}\n".encode() + new.body)
    return digest.hexdigest()


def _request(asked: Asked, config: ModelConfig) -> Request:
    if isinstance(asked, str):
        return Call(prompt=asked).request(config)
    if isinstance(asked, LLMClientBuilder):
        call = asked.call
        if call.toolbox is not None or call.output is not None:
            raise ConfigurationError(
                "a request of a batch is one request: leave .tools and .output to calls that may ask several times"
            )
        return call.request(config)
    return _filled(asked, config)


def _filled(request: Request, config: ModelConfig) -> Request:
    """The request with what models.yml says where it says nothing."""
    return replace(
        request,
        model=config.model_id,
        temperature=config.temperature if request.temperature is None else request.temperature,
        top_p=config.top_p if request.top_p is None else request.top_p,
        top_k=config.top_k if request.top_k is None else request.top_k,
        max_tokens=config.max_tokens if request.max_tokens is None else request.max_tokens,
        stop=request.stop or config.stop,
        seed=config.seed if request.seed is None else request.seed,
        params={**config.params, **request.params} if config.params else request.params,
        thinking=config.thinking if request.thinking is None else request.thinking,
    )
