"""What whoever watches hears of one request to a model: its beginning, its pieces, what guards decided, and its end.

model_start ─ attempt_start … attempt_error ─ retry ─ attempt_start … chunk, chunk, attempt_success ─ model_success
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from agentflow.core.observability.scope import Scope
from agentflow.core.robustness.timing import Timing
from agentflow.errors import ModelError, SerializationError, describe
from agentflow.llm.bill import usage_facts
from agentflow.llm.config.model import ModelConfig
from agentflow.llm.messages import EmbeddingRequest, Embeddings, Request, Response, StreamChunk
from agentflow.llm.words import words_of

__all__ = ["Telling"]

_SAMPLING = ("temperature", "max_tokens", "top_p", "top_k", "seed")


class Telling:
    """Tells of one request. `scope` is the request's own, within whatever asks."""

    __slots__ = ("_config", "_facts", "_tenant", "scope")

    def __init__(self, config: ModelConfig, tenant: str | None, outer: Scope) -> None:
        self.scope = scope = outer.inside(own="unattributed")
        scope.common = {"model": config.name, "provider": config.provider}
        self._config = config
        self._tenant = tenant
        self._facts: dict[str, object] = {}

    async def start(self, request: Request | EmbeddingRequest, number: int = 0, *, streaming: bool = False) -> None:
        """The request, the `number`-th that its question takes, begins."""
        self._facts = facts = {**self.scope.common, "model_id": request.model}
        if self._tenant is not None:
            facts["tenant"] = self._tenant
        if number:
            facts["round"] = number
        if isinstance(request, EmbeddingRequest):
            begin: dict[str, object] = {"operation": "embeddings", "inputs": len(request.inputs)}
        else:
            begin = {"operation": "chat", "streaming": streaming}
            for name in _SAMPLING:
                value = getattr(request, name)
                if value is not None:
                    begin[name] = value
        if self.scope.channel.content:
            from agentflow.llm.journal.fingerprint import request_print  # most who watch want no contents

            begin["messages"] = words_of(request)
            with suppress(SerializationError):  # what has no fingerprint is asked all the same
                begin["fingerprint"] = request_print(request, self._config.provider)
        await self.scope.begin("model_start", {**facts, **begin})

    async def decision(self, kind: str, facts: Mapping[str, object], attempt: int) -> None:
        """A decision of a guard, with the model that it is about."""
        await self.scope.send(kind, {**self.scope.common, "attempt": attempt, **facts}, attempt=attempt)

    def remark(self, kind: str, facts: Mapping[str, object], attempt: int) -> None:
        """The same for what may not wait."""
        self.scope.remark(kind, {**self.scope.common, "attempt": attempt, **facts}, attempt=attempt)

    async def chunk(self, chunk: StreamChunk) -> None:
        if self.scope.channel.chunks and (chunk.content or chunk.restart):
            restart = {"restart": True} if chunk.restart else {}
            await self.scope.send("chunk", {"content": chunk.content, **restart})

    async def success(self, answer: Response | Embeddings, timing: Timing, more: Mapping[str, object]) -> None:
        end: dict[str, object] = {
            **self._facts,
            **usage_facts(answer.usage),
            "response_model": answer.model,
            "request_id": answer.request_id,
            "cost": answer.cost,
            "timing": timing.as_dict(),
            **more,
        }
        if isinstance(answer, Response):
            end["finish_reason"] = answer.finish_reason
            if answer.id is not None:
                end["response_id"] = answer.id
            if self.scope.channel.content:
                end["answer"] = answer.text
                end["tool_calls"] = [{"name": call.name, "arguments": call.json} for call in answer.tool_calls]
        await self.scope.end("model_success", end, parts=timing.parts)

    async def failed(self, error: Exception, timing: Timing, more: Mapping[str, object]) -> None:
        if self.scope.span and not self.scope.over:  # who did not hear that it began does not hear that it failed
            end = {**self._facts, **_failure(error), "timing": timing.as_dict(), **more}
            await self.scope.end("model_error", end, parts=timing.parts)

    def left(self, timing: Timing, more: Mapping[str, object]) -> None:
        """It was cancelled, or its reader has left: that waits for nobody."""
        end = {**self._facts, "timing": timing.as_dict(), **more}
        self.scope.leave("model_cancelled", end, parts=timing.parts)


def _failure(error: Exception) -> dict[str, object]:
    facts: dict[str, object] = {"error": describe(error), "error_type": type(error).__name__}
    if isinstance(error, ModelError):
        known = {"status": error.status, "request_id": error.request_id}
        facts |= {name: value for name, value in known.items() if value is not None}
    return facts
