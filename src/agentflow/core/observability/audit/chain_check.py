"""Reads one chain from its first record to its last, and stops at the first that is not what must stand there.

    expected: number 117, behind the hash 41ab…
      line does not bear its seal                    ──▶  altered
      number 118, and 117 stands further on          ──▶  reordered;  and 117 is nowhere  ──▶  missing
      number 116 (again)                             ──▶  reordered
      number 117, but behind another hash            ──▶  replaced
      the end, and a head or an anchor knows of 120  ──▶  truncated

A line at a time is in memory, whatever the size of the files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from agentflow.core.observability.audit.actions import AuditAction
from agentflow.core.observability.audit.findings import Fault, FaultKind
from agentflow.core.observability.audit.folder import Chain, lines_of
from agentflow.core.observability.audit.keys import AuditKey, AuditKeys
from agentflow.core.observability.audit.record import LONGEST_LINE, NO_HASH, AuditRecord, digest_of, read_line
from agentflow.core.observability.audit.recovery import first_line, key_id_of, place_of
from agentflow.core.observability.audit.retention import tombstones_of
from agentflow.core.observability.audit.statements import Head, Tombstone

__all__ = ["ChainCheck"]


class _Found(Exception):
    def __init__(self, fault: Fault) -> None:
        self.fault = fault


class ChainCheck:
    """`run()` once; then `fault`, `records`, `segments`, `removed`, `gaps`, `chains` and `notes` say what was found."""

    def __init__(self, chain: Chain, log: str, keys: AuditKeys, anchored: Iterable[Head] = ()) -> None:
        self.fault: Fault | None = None
        self.records = self.segments = self.gaps = 0
        self.chains = 1
        self.removed: list[Tombstone] = []
        self.notes: list[str] = []
        self._chain = chain
        self._log = log
        self._keys = keys
        self._place = place_of(log, chain.name)
        self._seq, self._hash = 0, NO_HASH
        self._known = _Known(anchored)
        self._file, self._line = "", 0
        self._used = False  # whether there are records that are only written once there is a head

    def run(self) -> None:
        try:
            self._tombstones()
            head = self._head()
            if head is not None:
                self._known.add(head)
                self.chains = max(self.chains, head.chains)
            self._segments()
            self._end(head)
            if head is None and self._used:
                self._wrong("missing", f"{self._chain.name}/{self._chain.head.name}", None, None, "the head is gone")
        except _Found as found:
            self.fault = found.fault

    # ---- beside the records ----------------------------------------------------------------------------------

    def _tombstones(self) -> None:
        name = f"{self._chain.name}/{self._chain.removed.name}"
        for number, stone in enumerate(tombstones_of(self._chain, self._keys), start=1):
            if stone is None or (stone.log, stone.chain) != (self._log, self._chain.name):
                self._wrong("altered", name, number, None, "a tombstone is not signed as it should be")
            elif stone.segment != len(self.removed) + 1 or stone.first != self._seq + 1:
                self._wrong(
                    "missing", name, number, self._seq + 1, f"no tombstone says what record {self._seq + 1} was"
                )
            else:
                self.removed.append(stone)
                self._seq, self._hash = stone.last, stone.last_hash
                self.chains = max(self.chains, stone.chains)

    def _head(self) -> Head | None:
        name = f"{self._chain.name}/{self._chain.head.name}"
        try:
            line = self._chain.head.read_bytes().removesuffix(b"\n")
        except FileNotFoundError:
            self.notes.append(
                f"{name} is not there: only an anchor could tell that the end of {self._chain.name} is gone"
            )
            return None
        head = Head.read(line, self._keys)
        if head is None or (head.log, head.chain) != (self._log, self._chain.name):
            self._wrong("altered", name, None, None, "the head is not signed as it should be")
        return head

    # ---- the records -----------------------------------------------------------------------------------------

    def _segments(self) -> None:
        expected = len(self.removed) + 1
        for number, path in self._chain.segments():
            if number < expected:
                if number <= len(self.removed):
                    self.notes.append(f"{self._name(path)} was to be removed, and still is there")
                continue
            if number > expected:
                self._absent(path, expected)
            self._segment(path, number)
            expected = number + 1
            self.segments += 1

    def _absent(self, path: Path, expected: int) -> None:
        missing = f"{self._chain.name}/{self._chain.segment(expected).name}"
        self._wrong(
            "missing",
            missing,
            None,
            self._seq + 1,
            f"record {self._seq + 1} is missing with its file; next is {path.name}",
        )

    def _segment(self, path: Path, number: int) -> None:
        self._file, self._line = self._name(path), 0
        first = first_line(path)
        key = self._keys.find(key_id_of(first))
        is_last = self._chain.segments()[-1][0] == number
        for line_number, line, whole in lines_of(path):
            self._line = line_number
            if (
                not whole and is_last and len(line) < LONGEST_LINE
            ):  # what a killed process leaves, if no head knows more
                self.notes.append(f"{self._file} ends in {len(line)} bytes of a line that was never finished")
                self._line -= 1
                return
            record = None if key is None or not whole else read_line(line, key, self._place)
            if record is None:
                self._altered(key, key_id_of(first))
            else:
                self._accept(record, line, number)

    def _altered(self, key: AuditKey | None, key_id: str) -> None:
        reason = "does not bear its seal" if key is not None else f"names a key that was not given ({key_id or 'none'})"
        self._wrong("altered", self._file, self._line, self._seq + 1, f"record {self._seq + 1} {reason}")

    def _accept(self, record: AuditRecord, line: bytes, number: int) -> None:
        expected = self._seq + 1
        if record.seq > expected:
            self._skipped(record, number)
        if record.seq < expected:
            self._wrong(
                "reordered",
                self._file,
                self._line,
                record.seq,
                f"record {record.seq} stands here where {expected} belongs",
            )
        if record.prev != self._hash:
            self._wrong(
                "replaced", self._file, self._line, expected, f"record {expected} does not follow the one before it"
            )
        self._seq, self._hash = record.seq, digest_of(line)
        if not self._known.agrees(self._seq, self._hash):
            self._wrong(
                "replaced", self._file, self._line, self._seq, f"record {self._seq} is not the one that a head knows"
            )
        self.records += 1
        self._take_note(record, number)

    def _skipped(self, record: AuditRecord, segment: int) -> None:
        expected = self._seq + 1
        place = self._standing_later(expected, segment)
        if place is not None:
            self._wrong(
                "reordered",
                self._file,
                self._line,
                expected,
                f"record {record.seq} stands here, and {expected} in {place}",
            )
        self._wrong(
            "missing",
            self._file,
            self._line,
            expected,
            f"record {expected} is missing: {record.seq} stands in its place",
        )

    def _standing_later(self, seq: int, segment: int) -> str | None:
        """Where else a record of that number is; read once, as the check ends here."""
        for later in [path for number, path in self._chain.segments() if number >= segment]:
            key = self._keys.find(key_id_of(first_line(later)))
            for number, line, whole in lines_of(later):
                record = read_line(line, key, self._place) if whole and key is not None else None
                if record is not None and record.seq == seq:
                    return f"{self._name(later)} line {number}"
        return None

    def _take_note(self, record: AuditRecord, number: int) -> None:
        self._used = self._used or not record.action.startswith("audit.")
        match record.action:
            case AuditAction.AUDIT_SEGMENT:
                if self._line == 1 and record.data.get("segment") != number:
                    self._wrong("reordered", self._file, 1, record.seq, f"the file says it is {record.resource}")
                self._count_chains(record)
            case AuditAction.AUDIT_OPENED:
                self._count_chains(record)
            case AuditAction.AUDIT_GAP:
                lost = record.data.get("lost")
                self.gaps += lost if isinstance(lost, int) else 0
                self.notes.append(
                    f"{self._file} line {self._line}: {lost} acts could not be recorded before {record.time}"
                )
            case AuditAction.AUDIT_RECOVERED:
                torn = record.data.get("torn_bytes")
                self.notes.append(
                    f"{self._file} line {self._line}: {torn} bytes were cut off that a killed process left"
                )
            case AuditAction.AUDIT_CLOCK:
                self.notes.append(
                    f"{self._file} line {self._line}: the clock was set back by {record.data.get('seconds')} s"
                )
            case AuditAction.AUDIT_DAMAGED:
                self.notes.append(
                    f"{self._file} line {self._line}: {record.data.get('segment')} was changed while in use"
                )

    def _count_chains(self, record: AuditRecord) -> None:
        chains = record.data.get("chains")
        self.chains = max(self.chains, chains if isinstance(chains, int) else 1)

    def _end(self, head: Head | None) -> None:
        further = self._known.beyond(self._seq)
        if further is None:
            return
        first = self._seq + 1
        missing = f"records {first} to {further.seq} are" if further.seq > first else f"record {first} is"
        said = "the head" if further is head else "an anchor"
        message = f"{missing} gone from the end: {said} of {further.time} knows {further.seq}"
        self._wrong("truncated", self._file or self._chain.name, self._line + 1, first, message)

    def _name(self, path: Path) -> str:
        return f"{self._chain.name}/{path.name}"

    def _wrong(self, kind: FaultKind, file: str, line: int | None, seq: int | None, message: str) -> None:
        raise _Found(Fault(kind, file, line, seq, message))


class _Known:
    """Heads of one chain, in their order: what must stand where, and how far the chain must reach.

    Anchored heads come as they stand in their file, one after the other; `add` puts the log's own head beside them.
    """

    def __init__(self, anchored: Iterable[Head]) -> None:
        self._rest: Iterator[Head] = iter(anchored)
        self._next: Head | None = next(self._rest, None)
        self._own: Head | None = None

    def add(self, head: Head) -> None:
        self._own = head

    def agrees(self, seq: int, hash_: str) -> bool:
        """Whether no head says of that number that another record bears it. Asked in the order of the numbers."""
        while self._next is not None and self._next.seq <= seq:
            if self._next.seq == seq and self._next.hash != hash_:
                return False
            self._next = next(self._rest, None)
        return self._own is None or self._own.seq != seq or self._own.hash == hash_

    def beyond(self, seq: int) -> Head | None:
        """The furthest head that is further than `seq`. The anchors are read to their end for it."""
        furthest = self._own if self._own is not None and self._own.seq > seq else None
        while self._next is not None:
            if self._next.seq > seq and (furthest is None or self._next.seq > furthest.seq):
                furthest = self._next
            self._next = next(self._rest, None)
        return furthest
