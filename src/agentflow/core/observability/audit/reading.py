"""Reads a log's records, in the order of their times over all chains, and picks some of them.

    for entry in read(".agentflow/audit", Selection(action="model.", tenant="acme", since=time_of("2026-11-30"))):
        entry.record.actor, entry.file, entry.line

Reading needs no key and checks no seal: `verify` does. A line that is no record is passed over, and `verify` names it.
"""

from __future__ import annotations

import heapq
import json
import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agentflow.core.observability.audit.folder import Chain, Folder, lines_of
from agentflow.core.observability.audit.record import FIELDS, AuditRecord
from agentflow.errors import AuditError

__all__ = ["Entry", "Selection", "read"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A record and its place."""

    record: AuditRecord
    chain: str
    file: str
    line: int


@dataclass(frozen=True, slots=True)
class Selection:
    """Which records are wanted; None asks for nothing. An `action` that ends in a dot is the beginning of one.

    `since` and `until` are seconds since 1970, the second one not included. `last` is the number of the newest ones.
    """

    action: str | None = None
    actor: str | None = None
    tenant: str | None = None
    resource: str | None = None
    outcome: str | None = None
    run: str | None = None
    trace: str | None = None
    key: str | None = None
    since: float | None = None
    until: float | None = None
    last: int | None = None

    def takes(self, record: AuditRecord) -> bool:
        """Whether the record is one of them, but for `last`."""
        if self.action is not None and not _is_action(record.action, self.action):
            return False
        for name in ("actor", "tenant", "resource", "outcome", "run", "trace", "key"):
            wanted = getattr(self, name)
            if wanted is not None and getattr(record, name) != wanted:
                return False
        if self.since is None and self.until is None:
            return True
        seconds = record.seconds
        return (self.since is None or seconds >= self.since) and (self.until is None or seconds < self.until)


def _is_action(action: str, wanted: str) -> bool:
    return action == wanted or (wanted.endswith(".") and action.startswith(wanted))


_ALL = Selection()


def read(path: str | os.PathLike[str], selection: Selection = _ALL) -> Iterator[Entry]:
    """The records wanted, the oldest first. Raises AuditError where there is no log, OSError."""
    folder = Folder(Path(path))
    if not folder.chains():
        raise AuditError(f"there is no audit log in {folder.path}")
    merged = heapq.merge(*map(_chain, folder.chains()), key=lambda entry: entry.record.time)
    wanted = (entry for entry in merged if selection.takes(entry.record))
    return wanted if selection.last is None else iter(deque(wanted, maxlen=selection.last))


def _chain(chain: Chain) -> Iterator[Entry]:
    for _, path in chain.segments():
        for number, line, whole in lines_of(path):
            record = _record(line) if whole else None
            if record is not None:
                yield Entry(record, chain.name, path.name, number)


def _record(line: bytes) -> AuditRecord | None:
    try:
        fields = json.loads(line)
        if not isinstance(fields, dict) or fields.keys() != FIELDS:
            return None
        record = AuditRecord(**fields)
        record.seconds  # noqa: B018 - a time that is none raises here, and not in the middle of a selection
    except (ValueError, TypeError, RecursionError):
        return None
    return record
