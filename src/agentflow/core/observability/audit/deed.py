"""What is to be recorded, before it is: one value for call sites to fill in.

Deed(AuditAction.MODEL_CALL, resource="openai/gpt-4o", run=run_id, data={"round": 1})
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from agentflow.core.observability.audit.actions import Outcome

__all__ = ["Deed"]


@dataclass(frozen=True, slots=True)
class Deed:
    """`actor` is whoever `acting_as` names, else the log's actor, else the user of the system. `key` is a fingerprint,
    never a key. `subject` names whom the content is about, for its erasure; the tenant, if not given. `data` and
    `content` may be anything that can be written as JSON."""

    action: str
    outcome: str = Outcome.OK
    actor: str | None = None
    resource: str | None = None
    tenant: str | None = None
    run: str | None = None
    trace: str | None = None
    key: str | None = None
    content: object = None
    subject: str | None = None
    data: Mapping[str, object] | None = None
