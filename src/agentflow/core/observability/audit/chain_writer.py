"""One chain, written by one process: records that bear each other's hashes, in files that follow each other.

    writer = ChainWriter.take(folder, 1, log, keys, rotation)     None: another process writes chain-1
    writer.begin(now)
    writer.append(draft, now)         OSError: nothing was written, and the chain is as it was
    writer.head(now)                  how far it has come, to be signed and put in places that others cannot change

Every file begins with a record that names it and carries the hash of the last record of the file before. Methods are
called under the log's lock; `now` is wall time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from agentflow.core.file_lock import FileLock
from agentflow.core.observability.audit.actions import AuditAction, Outcome
from agentflow.core.observability.audit.canonical import canonical
from agentflow.core.observability.audit.folder import Chain, Folder, replace_file
from agentflow.core.observability.audit.keys import AuditKeys
from agentflow.core.observability.audit.policies import Rotation
from agentflow.core.observability.audit.record import Draft, digest_of, time_text
from agentflow.core.observability.audit.recovery import State, place_of, recover
from agentflow.core.observability.audit.segment import Segment
from agentflow.core.observability.audit.statements import Head
from agentflow.core.observability.plain import Plain
from agentflow.errors import AuditError

__all__ = ["ChainWriter"]

_CLOCK_JITTER: Final = 1.0  # seconds by which a clock is set back without a word, as time services do


class ChainWriter:
    """`seq` and `hash` are the last record's; `found` is what the files said when it was opened."""

    def __init__(
        self,
        folder: Folder,
        chain: Chain,
        lock: FileLock,
        log: str,
        keys: AuditKeys,
        rotation: Rotation,
        durable: bool,
        found: State,
    ) -> None:
        self.chain = chain
        self.log = log
        self.found = found
        self.seq, self.hash = found.seq, found.hash
        self.settings = found.settings
        self.folder = folder
        self._lock = lock
        self._key = keys.current
        self._rotation = rotation
        self._durable = durable
        self._place = place_of(log, chain.name)
        self._number = found.segment
        self._begun = found.begun
        self._last = found.last
        self._segment: Segment | None = None
        self._full: list[Segment] = []  # files that have their length, and may not be on the disk yet

    @classmethod
    def take(
        cls,
        folder: Folder,
        number: int,
        log: str,
        keys: AuditKeys,
        rotation: Rotation,
        *,
        durable: bool = True,
        forgiving: bool = False,
    ) -> ChainWriter | None:
        """The chain of that number, as its files are; None where another process writes it. Nothing is written yet.

        Raises AuditError where the chain's end was changed (unless `forgiving`: then it goes on in a new file that says
        so) or was sealed with a key that is not there, and OSError.
        """
        chain = folder.chain(number)
        chain.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = FileLock(chain.lock)
        if not lock.take():
            return None
        try:
            found = recover(chain, log, keys)
            if found.damage is not None and not forgiving:
                raise AuditError(f"{found.damage}: see `agentflow audit verify {folder.path}`")
        except BaseException:
            lock.give_up()
            raise
        return cls(folder, chain, lock, log, keys, rotation, durable, found)

    # ---- records ---------------------------------------------------------------------------------------------

    def begin(self, now: float) -> None:
        """Open the last file, or a new one, and record what was found there. To be called again after an OSError."""
        if self._segment is not None:
            return
        reason = self._new_file_because()
        if (
            reason == "recovery"
        ):  # nothing whole stands in the last file: what does is dropped, and its number used again
            self.chain.segment(self._number).unlink(missing_ok=True)
            self._number = self.found.segment - 1
        if reason is not None:
            self.next_segment(reason, now)
            return
        segment = Segment(self.chain.segment(self._number))
        try:
            if self.found.torn:
                segment.cut(self.found.whole)
        except OSError:
            segment.close()
            raise
        self._segment = segment

    def _new_file_because(self) -> str | None:
        if self._number == 0:
            return "first"
        if self.found.damage is not None:
            return "damage"
        if self.found.whole == 0:
            return "recovery"
        return "key" if self.found.key_id != self._key.id else None

    def append(self, draft: Draft, now: float) -> int:
        """Write it at the end; returns its number. Begins a new file first, where the old one has its length."""
        assert self._segment is not None
        if not self._segment.intact():
            self._replace_damaged(now)
        if now < self._last - _CLOCK_JITTER:
            self._note(AuditAction.AUDIT_CLOCK, now, before=time_text(self._last), seconds=round(self._last - now, 3))
            self._last = now
        coming = len(draft.before_mac) + len(draft.after_prev) + 400
        reason = self._rotation.due(size=self._segment.size, coming=coming, begun=self._begun, now=now)
        if reason is not None:
            self.next_segment(reason, now)
        return self._write(draft, now)

    def _write(self, draft: Draft, now: float) -> int:
        assert self._segment is not None
        line = draft.line(self.seq + 1, time_text(now), self.hash, self._key, self._place)
        self._segment.append(line)
        self.seq += 1
        self.hash = digest_of(line[:-1])
        self._last = max(self._last, now)
        return self.seq

    def next_segment(self, reason: str, now: float) -> None:
        """The new file exists once its first record stands in it; until then the old one goes on."""
        number = self._number + 1
        path = self.chain.segment(number)
        if _is_empty(path):  # an attempt before this one came no further
            path.unlink()
        segment = Segment(path, new=True)
        data: dict[str, Plain] = {
            "chain": self.chain.name,
            "chains": self.chains(),
            "head": {"hash": self.hash, "segment": self._number, "seq": self.seq} if self.seq else None,
            "key_id": self._key.id,
            "log": self.log,
            "reason": reason,
            "segment": number,
            "version": 1,
        }
        draft = Draft.of(AuditAction.AUDIT_SEGMENT, Outcome.OK, resource=path.name, data=canonical(data).decode())
        line = draft.line(self.seq + 1, time_text(now), self.hash, self._key, self._place)
        try:
            segment.append(line)
        except OSError:
            segment.close()
            path.unlink(missing_ok=True)
            raise
        before, self._segment = self._segment, segment
        self._number, self._begun = number, now
        self.seq += 1
        self.hash = digest_of(line[:-1])
        self._last = max(self._last, now)
        if before is not None and self._durable:
            self._full.append(before)  # nobody who records waits for a whole file to reach the disk
        elif before is not None:
            before.close()

    def _replace_damaged(self, now: float) -> None:
        assert self._segment is not None
        damaged, size = self._segment.path.name, self._segment.size
        self.next_segment("damage", now)
        self._note(AuditAction.AUDIT_DAMAGED, now, segment=damaged, size=size)

    def _note(self, action: AuditAction, now: float, **facts: Plain) -> None:
        self._write(Draft.of(action, Outcome.OK, data=canonical(facts).decode()), now)

    # ---- beside the records ----------------------------------------------------------------------------------

    def chains(self) -> int:
        """The highest number of a chain that is there, or was known to be."""
        return max(self.found.chains, self.chain.number, *(chain.number for chain in self.folder.chains()))

    def head(self, now: float) -> Head:
        return Head(
            self.log, self.chain.name, self.chains(), self._number, self.seq, self.hash, time_text(now), self.settings
        )

    def write_head(self, line: bytes) -> None:
        replace_file(self.chain.head, line + b"\n", sync=self._durable)

    @property
    def number(self) -> int:
        """Of the file that is being written; 0 before there is one."""
        return self._number

    def handles(self) -> list[int]:
        """What must be synced for all records to be on the disk; the handles are the caller's, to be closed."""
        full, self._full = self._full, []
        handles = [segment.handle for segment in full]
        if self._segment is not None:
            handles.append(self._segment.twin())
        return handles

    def close(self) -> None:
        """Give the chain up. In a forked child this closes the child's handles alone."""
        for segment in (*self._full, *([self._segment] if self._segment is not None else [])):
            segment.close()
        self._segment, self._full = None, []
        self._lock.give_up()


def _is_empty(path: Path) -> bool:
    try:
        return path.stat().st_size == 0
    except FileNotFoundError:
        return False
