"""The audit log: who did what, when, with what outcome, in a chain that nobody can change unseen.

log = AuditLog(".agentflow/audit", key)        write           verify(path, key)      check
use_audit(log)                                 let the engine  read(path, Selection)  look
log.erase(subject)                             forget content  export(path, file, …)  hand on

Names alone: each is resolved when first used, because a process without an audit log needs none of it.
"""

from importlib import import_module

TYPE_CHECKING = False  # as in the face of the package
if TYPE_CHECKING:
    from agentflow.core.observability.audit.actions import AuditAction, Outcome
    from agentflow.core.observability.audit.actors import acting_as, current_actor
    from agentflow.core.observability.audit.anchors import Anchor, FileAnchor
    from agentflow.core.observability.audit.content import ContentCipher, ContentKeys
    from agentflow.core.observability.audit.deed import Deed
    from agentflow.core.observability.audit.exporting import export, verify_export
    from agentflow.core.observability.audit.findings import Fault, Verification
    from agentflow.core.observability.audit.keys import AuditKeys
    from agentflow.core.observability.audit.log import AuditLog, AuditStatus
    from agentflow.core.observability.audit.policies import Retention, Rotation
    from agentflow.core.observability.audit.reading import Entry, Selection, read
    from agentflow.core.observability.audit.record import AuditRecord
    from agentflow.core.observability.audit.seat import current_audit, use_audit
    from agentflow.core.observability.audit.settings import AuditSettings, RedactSettings, open_audit, read_settings
    from agentflow.core.observability.audit.verifying import verify

__all__ = [
    "Anchor",
    "AuditAction",
    "AuditKeys",
    "AuditLog",
    "AuditRecord",
    "AuditSettings",
    "AuditStatus",
    "ContentCipher",
    "ContentKeys",
    "Deed",
    "Entry",
    "Fault",
    "FileAnchor",
    "Outcome",
    "RedactSettings",
    "Retention",
    "Rotation",
    "Selection",
    "Verification",
    "acting_as",
    "current_actor",
    "current_audit",
    "export",
    "open_audit",
    "read",
    "read_settings",
    "use_audit",
    "verify",
    "verify_export",
]

_HOMES = {
    "actions": "AuditAction Outcome",
    "actors": "acting_as current_actor",
    "anchors": "Anchor FileAnchor",
    "content": "ContentCipher ContentKeys",
    "deed": "Deed",
    "exporting": "export verify_export",
    "findings": "Fault Verification",
    "keys": "AuditKeys",
    "log": "AuditLog AuditStatus",
    "policies": "Retention Rotation",
    "reading": "Entry Selection read",
    "record": "AuditRecord",
    "seat": "current_audit use_audit",
    "settings": "AuditSettings RedactSettings open_audit read_settings",
    "verifying": "verify",
}
_HOME_OF = {name: f"{__name__}.{home}" for home, names in _HOMES.items() for name in names.split()}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in _HOME_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(_HOME_OF[name]), name)
        globals()[name] = value
        return value
