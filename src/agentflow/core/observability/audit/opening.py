"""A process takes a chain and says so: what it found, who writes from now on, by which settings.

    open_chain(…)  ──▶  the first chain that nobody writes, with audit.segment, audit.recovered, audit.opened,
                        audit.settings as they are needed, and its head

No record of an act is written before there is a head.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from agentflow.core.observability.audit.actions import AuditAction, Outcome
from agentflow.core.observability.audit.canonical import canonical
from agentflow.core.observability.audit.chain_writer import ChainWriter
from agentflow.core.observability.audit.drafting import Drafter
from agentflow.core.observability.audit.folder import Folder
from agentflow.core.observability.audit.keys import AuditKeys
from agentflow.core.observability.audit.naming import log_name
from agentflow.core.observability.audit.policies import Rotation
from agentflow.core.observability.plain import Plain
from agentflow.errors import AuditLockedError

__all__ = ["Terms", "open_chain"]

_MOST_CHAINS: Final = 1_000


@dataclass(frozen=True, slots=True)
class Terms:
    """How a chain is taken. `durable`: what is said beside the records is synced. `forgiving`: a changed end is left
    behind instead of refused. `visiting`: one act by hand, whose settings are not the log's. `settings` are told."""

    rotation: Rotation
    durable: bool
    exclusive: bool
    forgiving: bool
    visiting: bool
    settings: Mapping[str, Plain]


def open_chain(folder: Folder, keys: AuditKeys, drafter: Drafter, terms: Terms, now: float) -> ChainWriter:
    """Raises AuditError where the log is not as it was left or another's, AuditLockedError, OSError."""
    writer = _taken(folder, keys, terms, now)
    try:
        _introduce(writer, drafter, terms, now)
        writer.write_head(writer.head(now).signed(keys.current))
    except BaseException:
        writer.close()
        raise
    return writer


def _taken(folder: Folder, keys: AuditKeys, terms: Terms, now: float) -> ChainWriter:
    name = log_name(folder, keys, now)
    for number in range(1, 2 if terms.exclusive else _MOST_CHAINS + 1):
        writer = ChainWriter.take(
            folder, number, name, keys, terms.rotation, durable=terms.durable, forgiving=terms.forgiving
        )
        if writer is not None:
            return writer
    raise AuditLockedError(f"another process writes the audit log in {folder.path}")


def _introduce(writer: ChainWriter, drafter: Drafter, terms: Terms, now: float) -> None:
    found = writer.found
    writer.begin(now)
    if found.torn or found.lost or found.damage is not None:
        outcome = Outcome.ERROR if found.lost or found.damage is not None else Outcome.OK
        facts: dict[str, Plain] = {"damage": found.damage, "lost": found.lost, "torn_bytes": found.torn}
        writer.append(drafter.own(AuditAction.AUDIT_RECOVERED, facts, outcome), now)
    settings = dict(terms.settings)
    opened: dict[str, Plain] = {"chains": writer.chains(), "process": os.getpid(), "settings": settings}
    writer.append(drafter.own(AuditAction.AUDIT_OPENED, opened), now)
    if terms.visiting:
        return
    digest = hashlib.sha256(canonical(settings)).hexdigest()
    if found.settings and found.settings != digest:
        changed: dict[str, Plain] = {"after": digest, "before": found.settings, "settings": settings}
        writer.append(drafter.own(AuditAction.AUDIT_SETTINGS, changed), now)
    writer.settings = digest
