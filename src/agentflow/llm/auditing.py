"""What the client records in the audit log of this process: each request to a model, each call of a tool.

    Guards, Request ──call_begun──▶ Act ──call_ended──▶ its outcome, tokens and cost

It is loaded where there is a log, and only there. What cannot be recorded and must be is an AuditError, before anything
is sent or called.
"""

from __future__ import annotations

from collections.abc import Mapping

from agentflow.core.observability.audit.actions import AuditAction, Outcome
from agentflow.core.observability.audit.deed import Deed
from agentflow.core.observability.audit.recording import Act, began, ended, noted
from agentflow.core.observability.scope import Scope
from agentflow.llm.bill import usage_facts
from agentflow.llm.content import ToolCall
from agentflow.llm.guards import Guards
from agentflow.llm.messages import EmbeddingRequest, Embeddings, Request, Response
from agentflow.llm.words import words_of

__all__ = ["call_begun", "call_ended", "tool_begun", "tool_refused"]


async def call_begun(guards: Guards, request: Request | EmbeddingRequest, scope: Scope | None) -> Act | None:
    """A request is about to be made. Raises AuditError where that must be recorded and cannot be."""
    config = guards.config
    return await began(
        Deed(
            AuditAction.MODEL_CALL,
            resource=f"{config.provider}/{request.model}",
            tenant=guards.tenant,
            run=guards.run_id,
            trace=_trace(scope),
            key=guards.fingerprint(),
            content={"messages": words_of(request)},
            data={"model": config.name, "operation": "chat" if isinstance(request, Request) else "embeddings"},
        )
    )


def call_ended(act: Act | None, answer: Response | Embeddings) -> None:
    """It was answered. A failure is told by `ended`."""
    facts = {**usage_facts(answer.usage), "cost": answer.cost, "request_id": answer.request_id}
    content = {"answer": answer.text} if isinstance(answer, Response) else None
    ended(act, content=content, data={name: value for name, value in facts.items() if value is not None})


async def tool_begun(call: ToolCall, scope: Scope | None) -> Act | None:
    """A tool is about to be called."""
    return await began(_tool(call, scope))


async def tool_refused(call: ToolCall, reason: str, scope: Scope | None) -> None:
    """A tool was not called, because it could not be or was not allowed."""
    await noted(_tool(call, scope, outcome=Outcome.REFUSED, data={"reason": reason}))


def _tool(
    call: ToolCall, scope: Scope | None, *, outcome: str = Outcome.OK, data: Mapping[str, object] | None = None
) -> Deed:
    return Deed(
        AuditAction.TOOL_CALL,
        outcome,
        resource=call.name,
        run=None if scope is None else scope.channel.run_id,
        trace=_trace(scope),
        content={"arguments": call.arguments},
        data={"call_id": call.id, **(data or {})},
    )


def _trace(scope: Scope | None) -> str | None:
    """The id of the trace that a span belongs to, where somebody keeps traces."""
    if scope is None:
        return None
    parts = scope.channel.headers(scope.span).get("traceparent", "").split("-")
    return parts[1] if len(parts) == 4 else None
