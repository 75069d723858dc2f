"""An audit log as a configuration describes it.

    audit:                                  AuditSettings(path=".agentflow/audit", key_env="AGENTFLOW_AUDIT_KEY", …)
      path: .agentflow/audit                open_audit(settings, os.environ)  ──▶  AuditLog
      key_env: AGENTFLOW_AUDIT_KEY

The key itself stands in the environment and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Final, TypeVar

from agentflow.clock import Clock
from agentflow.core.observability.audit.anchors import Anchor, FileAnchor
from agentflow.core.observability.audit.content import ContentCipher, ContentMode
from agentflow.core.observability.audit.keys import AuditKeys
from agentflow.core.observability.audit.log import AuditLog
from agentflow.core.observability.audit.policies import Fsync, OnFailure, Retention, Rotation, checked_fsync
from agentflow.core.observability.redaction.redactor import Redactor
from agentflow.errors import ConfigurationError

__all__ = ["DEFAULT_KEY_ENV", "DEFAULT_PATH", "AuditSettings", "RedactSettings", "open_audit", "read_settings"]

C = TypeVar("C", bound=str)

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


def read_settings(said: Mapping[str, object]) -> AuditSettings:
    """The settings of a mapping, as it stands under `audit:`; what it does not name is as usual.

        path, key_env, actor: text · on_failure: closed | open · content: none | digest | encrypted · exclusive: bool
        fsync: always | never | seconds · rotate: {size, age} · retain: {age, size, at_least} · bytes and seconds
        anchor: file, or {path, records, seconds} · redact: {keys, emails, cards, patterns: {name: expression}}

    Raises ConfigurationError, which names the setting and repeats no value.
    """
    given = dict(said)
    anchor = given.pop("anchor", None)
    where = _Section(anchor if isinstance(anchor, Mapping) else {"path": anchor}, "audit.anchor")
    rotate, retain, redact = (_Section(given.pop(name, {}), f"audit.{name}") for name in ("rotate", "retain", "redact"))
    usual, whole = AuditSettings(), _Section(given, "audit")
    settings = AuditSettings(
        path=whole.text("path") or usual.path,
        key_env=whole.text("key_env") or usual.key_env,
        on_failure=whole.choice("on_failure", usual.on_failure, ("closed", "open")),
        fsync=whole.fsync(usual.fsync),
        rotate=Rotation(size=rotate.size("size", usual.rotate.size), age=rotate.seconds("age", usual.rotate.age)),
        retain=Retention(
            age=retain.seconds("age", None),
            size=retain.size("size", None),
            at_least=retain.seconds("at_least", 0.0) or 0.0,
        ),
        anchor=where.text("path"),
        anchor_records=where.size("records", usual.anchor_records) or usual.anchor_records,
        anchor_seconds=where.seconds("seconds", usual.anchor_seconds) or usual.anchor_seconds,
        redact=RedactSettings(
            keys=redact.flag("keys", True),
            emails=redact.flag("emails", True),
            cards=redact.flag("cards", True),
            patterns=redact.texts("patterns"),
        ),
        content=whole.choice("content", usual.content, ("none", "digest", "encrypted")),
        actor=whole.text("actor"),
        exclusive=whole.flag("exclusive", False),
    )
    for section in (whole, where, rotate, retain, redact):
        section.done()
    settings.redact.redactor()  # a pattern that is none is told now
    return settings


class _Section:
    """A mapping of the file: each entry is taken with its type, and what is left over is a mistake."""

    def __init__(self, said: object, name: str) -> None:
        if said is not None and not isinstance(said, Mapping):
            raise ConfigurationError(f"{name} must be a mapping, not {type(said).__name__}")
        self._said = dict(said or {})
        self._name = name

    def text(self, name: str) -> str | None:
        value = self._said.pop(name, None)
        if value is None or (isinstance(value, str) and value.strip()):
            return value
        raise self._wrong(name, "text")

    def flag(self, name: str, usual: bool) -> bool:
        value = self._said.pop(name, usual)
        if isinstance(value, bool):
            return value
        raise self._wrong(name, "true or false")

    def size(self, name: str, usual: int | None) -> int | None:
        value = self._said.pop(name, usual)
        if value is None or (isinstance(value, int) and not isinstance(value, bool) and value > 0):
            return value
        raise self._wrong(name, "a whole number above 0, or null")

    def seconds(self, name: str, usual: float | None) -> float | None:
        value = self._said.pop(name, usual)
        if value is None or (isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < inf):
            return value
        raise self._wrong(name, "seconds, or null")

    def choice(self, name: str, usual: C, known: tuple[C, ...]) -> C:
        value = self._said.pop(name, usual)
        found = [each for each in known if each == value]
        if found:
            return found[0]
        raise self._wrong(name, f"one of {', '.join(known)}")

    def fsync(self, usual: Fsync) -> Fsync:
        value = self._said.pop("fsync", usual)
        if value == "always":
            return "always"
        if value == "never":
            return "never"
        if isinstance(value, int | float) and not isinstance(value, bool):
            return checked_fsync(value)
        raise self._wrong("fsync", "always, never or seconds")

    def texts(self, name: str) -> dict[str, str]:
        value = self._said.pop(name, None) or {}
        if isinstance(value, Mapping) and all(isinstance(each, str) for pair in value.items() for each in pair):
            return dict(value)
        raise self._wrong(name, "a mapping of texts")

    def done(self) -> None:
        if self._said:
            raise ConfigurationError(f"{self._name} has no setting named {next(iter(self._said))!r}")

    def _wrong(self, name: str, wanted: str) -> ConfigurationError:
        return ConfigurationError(f"{self._name}.{name} must be {wanted}")


def open_audit(
    settings: AuditSettings,
    environ: Mapping[str, str],
    *,
    cipher: ContentCipher | None = None,
    anchors: Sequence[Anchor] = (),
    clock: Clock | None = None,
    visiting: bool = False,
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
        visiting=visiting,
        clock=clock,
    )
