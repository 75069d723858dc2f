"""What is audited, what became of it, and what each record must say.

    AuditAction.MODEL_CALL    "model.call"     needs a resource (the model)
    AuditAction.KEY_USED      "key.used"       needs a resource (the provider) and the key's fingerprint
    "order.approved"                           an action of the user's own: any name with a dot, not `audit.…`

Actions that a later version of the engine will record are here already, so that a reader of today knows them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Final

__all__ = ["DESCRIPTIONS", "REQUIRED", "AuditAction", "Outcome", "check"]


class AuditAction(StrEnum):
    """The engine's own actions. Each is a text, and is written as one."""

    CONFIG_LOADED = "config.loaded"
    CONFIG_CHANGED = "config.changed"
    KEY_USED = "key.used"
    MODEL_CALL = "model.call"
    TOOL_CALL = "tool.call"
    CACHE_HIT = "cache.hit"
    ROUTE_TAKEN = "route.taken"
    BUDGET_REFUSED = "budget.refused"
    RUN_STARTED = "run.started"
    RUN_ENDED = "run.ended"
    RUN_RESUMED = "run.resumed"
    RUN_PARKED = "run.parked"
    RUN_FORKED = "run.forked"
    RUN_ANSWERED = "run.answered"
    RUN_CANCELLED = "run.cancelled"
    ARTIFACT_REGISTERED = "artifact.registered"
    AUDIT_SEGMENT = "audit.segment"
    AUDIT_OPENED = "audit.opened"
    AUDIT_SETTINGS = "audit.settings"
    AUDIT_CLOSED = "audit.closed"
    AUDIT_RECOVERED = "audit.recovered"
    AUDIT_GAP = "audit.gap"
    AUDIT_CLOCK = "audit.clock"
    AUDIT_DAMAGED = "audit.damaged"
    AUDIT_REMOVED = "audit.removed"
    AUDIT_ERASED = "audit.erased"


class Outcome(StrEnum):
    """What became of it. `started` is written before an act, one of the others after it."""

    STARTED = "started"
    OK = "ok"
    ERROR = "error"
    REFUSED = "refused"
    CANCELLED = "cancelled"


DESCRIPTIONS: Final[Mapping[AuditAction, str]] = {
    AuditAction.CONFIG_LOADED: "a configuration was read: the resource is its source, the content its digest",
    AuditAction.CONFIG_CHANGED: "what is configured became something else while the process ran",
    AuditAction.KEY_USED: "a provider's key was used, for the first time by this process or after a change",
    AuditAction.MODEL_CALL: "a model was asked; the resource is provider/model",
    AuditAction.TOOL_CALL: "a tool that a model asked for was called, or refused",
    AuditAction.CACHE_HIT: "an answer came from a cache instead of a model",
    AuditAction.ROUTE_TAKEN: "a router chose a model",
    AuditAction.BUDGET_REFUSED: "a budget or limit was used up, so a call was not made",
    AuditAction.RUN_STARTED: "a flow began to run; the resource is the flow",
    AuditAction.RUN_ENDED: "a run came to its end",
    AuditAction.RUN_RESUMED: "a run that was parked or crashed goes on",
    AuditAction.RUN_PARKED: "a run waits for an answer or a timer, and nobody runs it meanwhile",
    AuditAction.RUN_FORKED: "a new run begins in the middle of an old one",
    AuditAction.RUN_ANSWERED: "a person answered what a run had asked",
    AuditAction.RUN_CANCELLED: "somebody stopped a run",
    AuditAction.ARTIFACT_REGISTERED: "a model that was made here can be used from now on",
    AuditAction.AUDIT_SEGMENT: "a segment of the log begins: the first record of every file",
    AuditAction.AUDIT_OPENED: "a process writes here from now on",
    AuditAction.AUDIT_SETTINGS: "the log's settings are others than before",
    AuditAction.AUDIT_CLOSED: "a process has ended its writing in good order",
    AuditAction.AUDIT_RECOVERED: "the process before was killed: a line was cut off, or records are gone",
    AuditAction.AUDIT_GAP: "records could not be written, and are lost: how many, of what, and why",
    AuditAction.AUDIT_CLOCK: "the machine's clock was set back",
    AuditAction.AUDIT_DAMAGED: "the file was changed or removed while it was being written",
    AuditAction.AUDIT_REMOVED: "segments older than the retention wants were removed",
    AuditAction.AUDIT_ERASED: "a content key was dropped, so what it kept means nothing any more",
}

_RUN: Final = frozenset({"run", "resource"})
REQUIRED: Final[Mapping[str, frozenset[str]]] = {
    AuditAction.CONFIG_LOADED: frozenset({"resource"}),
    AuditAction.CONFIG_CHANGED: frozenset({"resource"}),
    AuditAction.KEY_USED: frozenset({"resource", "key"}),
    AuditAction.MODEL_CALL: frozenset({"resource"}),
    AuditAction.TOOL_CALL: frozenset({"resource"}),
    AuditAction.CACHE_HIT: frozenset({"resource"}),
    AuditAction.ROUTE_TAKEN: frozenset({"resource"}),
    AuditAction.BUDGET_REFUSED: frozenset({"resource"}),
    AuditAction.RUN_STARTED: _RUN,
    AuditAction.RUN_ENDED: _RUN,
    AuditAction.RUN_RESUMED: frozenset({"run"}),
    AuditAction.RUN_PARKED: frozenset({"run"}),
    AuditAction.RUN_FORKED: frozenset({"run", "data.from"}),
    AuditAction.RUN_ANSWERED: frozenset({"run"}),
    AuditAction.RUN_CANCELLED: frozenset({"run"}),
    AuditAction.ARTIFACT_REGISTERED: frozenset({"resource", "data.digest"}),
}
"""By action: the fields that its record must have; `data.x` is the entry x of its data."""

_OWN: Final = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)+")
_RESERVED: Final = "audit."


def check(action: str, fields: Mapping[str, object], data: Mapping[str, object]) -> None:
    """Raises ValueError for an action of no such name, and for a record that lacks what its action must say."""
    if not isinstance(action, AuditAction) and (not _OWN.fullmatch(action) or action.startswith(_RESERVED)):
        raise ValueError(
            f"an action is small words joined by dots, and none of the log's own `audit.…`: not {action!r}"
        )
    for name in REQUIRED.get(action, ()):
        scope, _, entry = name.partition(".")
        if (data.get(entry) if entry else fields[scope]) in (None, ""):
            raise ValueError(f"a record of {action} must say its {name}")
