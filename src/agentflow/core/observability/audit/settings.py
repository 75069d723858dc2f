"""An audit log as a configuration describes it.

    audit:                                  AuditSettings(path=".agentflow/audit", key_env="AGENTFLOW_AUDIT_KEY", …)
      path: .agentflow/audit                open_audit(settings, os.environ)  ──▶  AuditLog
      key_env: AGENTFLOW_AUDIT_KEY

The key itself stands in the environment and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from agentflow.clock import Clock
from agentflow.core.observability.audit.anchors import Anchor, FileAnchor
from agentflow.core.observability.audit.content import ContentCipher, ContentMode
from agentflow.core.observability.audit.keys import AuditKeys
from agentflow.core.observability.audit.log import AuditLog
from agentflow.core.observability.audit.policies import Fsync, OnFailure, Retention, Rotation
from agentflow.core.observability.redaction import Redactor

__all__ = ["DEFAULT_KEY_ENV", "DEFAULT_PATH", "AuditSettings", "RedactSettings", "open_audit"]

DEFAULT_PATH: Final = ".agentflow/audit"
DEFAULT_KEY_ENV: Final = "AGENTFLOW_AUDIT_KEY"


@dataclass(frozen=True, slots=True)
class RedactSettings:
    """What is taken out of records beside known secrets. `patterns` are regular expressions by name."""

    keys: bool = True
    emails: bool = True
    cards: bool = True
    patterns: Mapping[str, str] = field(default_factory=dict)

    def redactor(self) -> Redactor:
        return Redactor(keys=self.keys, emails=self.emails, cards=self.cards, patterns=self.patterns)


@dataclass(frozen=True, slots=True)
class AuditSettings:
    """Everything under `audit:`. `anchor` is a file for signed heads, `actor` who acts where nobody says it."""

    path: str = DEFAULT_PATH
    key_env: str = DEFAULT_KEY_ENV
    on_failure: OnFailure = "closed"
    fsync: Fsync = 1.0
    rotate: Rotation = field(default_factory=Rotation)
    retain: Retention = field(default_factory=Retention)
    anchor: str | None = None
    anchor_records: int = 1_000
    anchor_seconds: float = 60.0
    redact: RedactSettings = field(default_factory=RedactSettings)
    content: ContentMode = "digest"
    actor: str | None = None
    exclusive: bool = False


def open_audit(
    settings: AuditSettings,
    environ: Mapping[str, str],
    *,
    cipher: ContentCipher | None = None,
    anchors: Sequence[Anchor] = (),
    clock: Clock | None = None,
) -> AuditLog:
    """The log, open. `anchors` are beside the file that the settings name. Raises ConfigurationError, AuditError."""
    named = () if settings.anchor is None else (FileAnchor(Path(settings.anchor).expanduser()),)
    return AuditLog(
        Path(settings.path).expanduser(),
        AuditKeys.from_environment(settings.key_env, environ),
        on_failure=settings.on_failure,
        fsync=settings.fsync,
        rotation=settings.rotate,
        retention=settings.retain,
        anchors=(*named, *anchors),
        anchor_records=settings.anchor_records,
        anchor_seconds=settings.anchor_seconds,
        redactor=settings.redact.redactor(),
        content=settings.content,
        cipher=cipher,
        actor=settings.actor,
        exclusive=settings.exclusive,
        clock=clock,
    )
