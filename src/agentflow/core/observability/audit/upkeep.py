"""What a log does beside recording: sync the file, write the head, anchor it, remove what retention wants removed.

    upkeep.tend(writer)  ──▶  seconds until it should be called again, or None while nothing is left to do

Nothing here holds the log's lock while it waits for a disk or an anchor.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import Final

from agentflow.clock import Clock
from agentflow.core.observability.audit.actions import AuditAction
from agentflow.core.observability.audit.anchors import Anchor
from agentflow.core.observability.audit.chain_writer import ChainWriter
from agentflow.core.observability.audit.drafting import Drafter
from agentflow.core.observability.audit.folder import Folder, settle
from agentflow.core.observability.audit.keys import AuditKeys
from agentflow.core.observability.audit.policies import Retention, Rotation
from agentflow.core.observability.audit.retention import remove_due
from agentflow.core.observability.audit.statements import Head
from agentflow.core.observability.plain import Plain
from agentflow.errors import AuditError

__all__ = ["HEAD_SECONDS", "Upkeep"]

HEAD_SECONDS: Final = 1.0


class Upkeep:
    """For one chain while one process writes it. `lock` is the log's own."""

    def __init__(
        self,
        writer: ChainWriter,
        lock: threading.Lock,
        drafter: Drafter,
        keys: AuditKeys,
        clock: Clock,
        *,
        durable: bool,
        retention: Retention,
        anchors: Sequence[Anchor],
        anchor_records: int,
        anchor_seconds: float,
    ) -> None:
        self._writer, self._lock, self._drafter, self._keys, self._clock = writer, lock, drafter, keys, clock
        self._durable, self._retention = durable, retention
        self._anchors, self._anchor_records, self._anchor_seconds = anchors, anchor_records, anchor_seconds
        self._syncing = threading.Lock()
        self._tending = threading.Lock()
        self._synced = self._anchored = writer.found.seq
        self._anchored_at = clock.monotonic()
        self._retained: int | None = None
        self.head_seq = writer.seq
        self.anchoring: Anchor | None = None  # the one that is at work, or raised at the last attempt

    def sync(self, seq: int) -> None:
        """Return once record `seq` is on the disk. Whoever comes first syncs for all who wait. Raises OSError."""
        with self._syncing:
            if self._synced >= seq:
                return
            with self._lock:
                handles, reached = self._writer.handles(), self._writer.seq
            _sync_all(handles)
            if len(handles) > 1:  # a new file was begun
                settle(self._writer.chain.path)
            self._synced = reached

    def tend(self, *, everything: bool = False) -> float | None:
        """What is due; with `everything` also what is not due yet. Raises OSError, and whatever an anchor raises."""
        with self._tending:
            self.anchoring = None
            with self._lock:
                head = self._writer.head(self._clock.time())
            if self._durable:
                self.sync(head.seq)
            if head.seq > self.head_seq:
                self._writer.write_head(head.signed(self._keys.current))
                self.head_seq = head.seq
            if head.segment != self._retained:
                self._retain(self._writer)
                self._retain_idle()
                self._retained = head.segment
            again = self._anchor(head, everything)
            return again if self._writer.seq == head.seq else HEAD_SECONDS

    def _anchor(self, head: Head, everything: bool) -> float | None:
        if not self._anchors or head.seq <= self._anchored:
            return None
        left = self._anchored_at + self._anchor_seconds - self._clock.monotonic()
        if not everything and left > 0 and head.seq - self._anchored < self._anchor_records:
            return left
        line = head.signed(self._keys.current)
        for anchor in self._anchors:
            self.anchoring = anchor
            anchor(line)
        self.anchoring = None
        self._anchored = head.seq
        self._anchored_at = self._clock.monotonic()
        return None

    # ---- retention -------------------------------------------------------------------------------------------

    def _retain(self, writer: ChainWriter) -> None:
        def record(facts: dict[str, Plain]) -> None:
            with self._lock:
                writer.append(self._drafter.own(AuditAction.AUDIT_REMOVED, facts), self._clock.time())
                handles = writer.handles() if self._durable else []
            _sync_all(handles)

        remove_due(writer.chain, writer.log, writer.number, self._keys, self._retention, self._clock.time(), record)

    def _retain_idle(self) -> None:
        """Chains of processes that are gone would keep their last file for ever: nobody writes them on."""
        age = self._retention.age
        if age is None:
            return
        now = self._clock.time()
        for chain in self._writer.folder.chains():
            if chain.number == self._writer.chain.number:
                continue
            idle = self._idle(self._writer.folder, chain.number)
            if idle is not None:
                try:
                    self._renew(idle, now, age)
                finally:
                    idle.close()

    def _idle(self, folder: Folder, number: int) -> ChainWriter | None:
        """The chain, if nobody writes it and it is sound at its end; else it stays as it is."""
        try:
            return ChainWriter.take(folder, number, self._writer.log, self._keys, Rotation(), durable=self._durable)
        except AuditError:
            return None

    def _renew(self, idle: ChainWriter, now: float, age: float) -> None:
        if idle.found.seq == 0 or now - idle.found.last < max(age, self._retention.at_least):
            return
        idle.begin(now)
        idle.next_segment("retention", now)
        self._retain(idle)
        idle.write_head(idle.head(now).signed(self._keys.current))


def _sync_all(handles: Sequence[int]) -> None:
    """Close them all, whatever happens to one."""
    try:
        for handle in handles:
            os.fsync(handle)
    finally:
        for handle in handles:
            os.close(handle)
