"""AuditLog: who did what, with what outcome, in a log that nobody can change unseen.

    log = AuditLog(".agentflow/audit", os.environ["AGENTFLOW_AUDIT_KEY"])
    log.record("order.approved", actor="alice", resource="order/17", data={"amount": 120})
    log.close()

    record ──redact──▶ draft ──▶ [ lock: number, time, hash of the one before, seal, write ] ──▶ sync, if "always"
                                    in the background: sync, signed head, anchors, retention

What cannot be written is an AuditError, before the act (`on_failure="closed"`), or is counted, logged and recorded as a
gap once writing works again ("open"). Where the log's own state is wrong (another key, a changed end), making it raises
AuditError in both, but "open" goes on behind a changed end, in a new file that says so.

Any number of threads may record. Processes do not share a chain: the second one writes a chain of its own, which
`verify` and `read` read along; with `exclusive` it gets an AuditLockedError. A forked child writes a chain of its own.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

from agentflow.clock import Clock, SystemClock
from agentflow.core.observability.audit.actions import AuditAction, Outcome
from agentflow.core.observability.audit.anchors import Anchor, name_of
from agentflow.core.observability.audit.chain_writer import ChainWriter
from agentflow.core.observability.audit.content import ContentCipher, ContentKeys, ContentMode, ContentSealer
from agentflow.core.observability.audit.deed import Deed
from agentflow.core.observability.audit.drafting import Drafter, is_heavy
from agentflow.core.observability.audit.folder import Folder
from agentflow.core.observability.audit.gap import Gap, reason_of
from agentflow.core.observability.audit.keeper import Keeper
from agentflow.core.observability.audit.keys import AuditKeys
from agentflow.core.observability.audit.opening import Terms, open_chain
from agentflow.core.observability.audit.policies import Fsync, OnFailure, Retention, Rotation, checked_fsync
from agentflow.core.observability.audit.record import Draft
from agentflow.core.observability.audit.upkeep import HEAD_SECONDS, Upkeep
from agentflow.core.observability.redaction.redactor import Redactor
from agentflow.errors import AuditError, ConfigurationError

__all__ = ["AuditLog", "AuditStatus"]

_MOST_USES: Final = 10_000
_HEAD_RECORDS: Final = 256  # after so many records the head is written, whatever the time
_HURRY: Final = 0.05  # seconds until an outcome is on the disk, with fsync "always"
_RETRY: Final = 1.0  # seconds between attempts to open a log that could not be opened
_USUAL_ROTATION: Final = Rotation()
_KEEP_ALL: Final = Retention()
_log = logging.getLogger("agentflow.audit")


@dataclass(frozen=True, slots=True)
class AuditStatus:
    """A log at one moment. `lost` acts were done and not recorded, `refused` ones not done because they could not be;
    `late` heads and anchors could not be written, and are tried again."""

    chain: str | None
    seq: int
    written: int
    lost: int
    refused: int
    late: int
    last_error: str | None


class AuditLog:
    """Open from the moment it is made until `close()`.

    `key` is a text of at least 32 characters, or AuditKeys. `fsync`: "always" before `record` returns, seconds between
    two in the background, or "never". `anchors` get the signed head every `anchor_records` records or `anchor_seconds`.
    `redactor` goes over resource, data and content; of actor, tenant and ids only keys are taken out. `content` says
    what is kept of contents (see `content.py`); "encrypted" needs a `cipher`. `visiting` says that this is one act by
    hand, whose settings are not the log's. With `background=False` no thread is started, and `tend()` is the caller's
    to call.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        key: str | bytes | AuditKeys,
        *,
        on_failure: OnFailure = "closed",
        fsync: Fsync = 1.0,
        rotation: Rotation = _USUAL_ROTATION,
        retention: Retention = _KEEP_ALL,
        anchors: Sequence[Anchor] = (),
        anchor_records: int = 1_000,
        anchor_seconds: float = 60.0,
        redactor: Redactor | None = None,
        content: ContentMode = "digest",
        cipher: ContentCipher | None = None,
        actor: str | None = None,
        exclusive: bool = False,
        visiting: bool = False,
        clock: Clock | None = None,
        background: bool = True,
    ) -> None:
        if content == "encrypted" and cipher is None:
            raise ConfigurationError("an audit log that keeps content encrypted needs a cipher, such as AesGcm()")
        if on_failure not in ("closed", "open"):
            raise ConfigurationError(f'on_failure of an audit log is "closed" or "open", not {on_failure!r}')
        self.folder = Folder(Path(path))
        self.keys = key if isinstance(key, AuditKeys) else AuditKeys(key)
        self.contents = ContentSealer(content, ContentKeys(self.folder.keys), cipher)
        self._open = on_failure == "open"
        self._fsync = checked_fsync(fsync)
        self._retention = retention
        self._anchors, self._anchor_records, self._anchor_seconds = tuple(anchors), anchor_records, anchor_seconds
        self._clock = clock or SystemClock()
        self._background = background
        usual = redactor or Redactor()
        self._drafter = Drafter(self.keys.current, usual, self.contents, actor)
        self._terms = Terms(
            rotation,
            durable=self._fsync != "never",
            exclusive=exclusive,
            forgiving=self._open,
            visiting=visiting,
            settings={
                "anchors": len(self._anchors),
                "content": content,
                "fsync": self._fsync,
                "key_id": self.keys.current.id,
                "on_failure": on_failure,
                "redaction": usual.describe(),
                "retention": asdict(retention),
                "rotation": asdict(rotation),
            },
        )
        self._renew()
        self._first()

    def _renew(self) -> None:
        """What a process has for itself."""
        self._lock = threading.Lock()
        self._keeper = Keeper(self._tend_safely, "agentflow-audit") if self._background else None
        self._writer: ChainWriter | None = None
        self._upkeep: Upkeep | None = None
        self._gap = Gap()
        self._used: set[tuple[str, str]] = set()
        self._closed = False
        self._written = self._lost = self._refused = self._late = self._unanchored = 0
        self._last_error: str | None = None
        self._again_at = -1.0

    def _first(self) -> None:
        try:
            with self._lock:
                seq = self._start().seq
        except OSError as error:
            self._note_failure(error)
            if not self._open:
                raise self._unwritable(error) from error
        else:
            self._after(seq)
        _open_logs.add(self)

    # ---- recording -------------------------------------------------------------------------------------------

    def record(
        self,
        action: str,
        *,
        outcome: str = Outcome.OK,
        actor: str | None = None,
        resource: str | None = None,
        tenant: str | None = None,
        run: str | None = None,
        trace: str | None = None,
        key: str | None = None,
        content: object = None,
        subject: str | None = None,
        data: Mapping[str, object] | None = None,
        after: bool = False,
    ) -> int | None:
        """`write` of a Deed with these fields."""
        deed = Deed(action, outcome, actor, resource, tenant, run, trace, key, content, subject, data)
        return self.write(deed, after=after)

    def write(self, deed: Deed, *, after: bool = False) -> int | None:
        """Write one record; its number, or None where it could not be written and that is allowed.

        `after` says that the act is over: then nothing is raised for what cannot be written, which is recorded as a gap
        later, and it is not waited for that it is on the disk. Raises AuditError where the log is closed to failure,
        and ValueError for a deed that lacks what its action must say.
        """
        seq = self._write(deed, after)
        if seq is not None and self._fsync == "always" and not after:
            return self._durably(seq, deed.action)
        return seq

    async def write_async(self, deed: Deed, *, after: bool = False) -> int | None:
        """`write` for async code: the disk is waited for in a thread, and a large content is gone over in one."""
        heavy = deed.content is not None and is_heavy(deed.content)
        seq = await _to_its_end(self._write, deed, after) if heavy else self._write(deed, after)
        if seq is not None and self._fsync == "always" and not after:
            return await asyncio.to_thread(self._durably, seq, deed.action)
        return seq

    def _write(self, deed: Deed, after: bool) -> int | None:
        try:
            draft = self._drafter.of(deed)
            with self._lock:
                seq = None if self._closed else self._append(draft)
        except (OSError, AuditError) as error:
            self._failed(error, deed.action, after)
            return None
        if seq is None:
            raise AuditError("the audit log is closed")
        if deed.action == AuditAction.KEY_USED and deed.resource is not None and deed.key is not None:
            self._remember_use(deed.resource, deed.key)
        self._after(seq)
        return seq

    def _append(self, draft: Draft) -> int:
        writer = self._start()
        if self._gap:
            writer.append(
                self._drafter.own(AuditAction.AUDIT_GAP, self._gap.facts(), Outcome.ERROR), self._clock.time()
            )
            self._gap = Gap()
        seq = writer.append(draft, self._clock.time())
        self._written += 1
        return seq

    def _start(self) -> ChainWriter:
        """The writer, opened where it is not: at first, after a fork, and after it could not be."""
        if self._writer is not None:
            return self._writer
        if self._clock.monotonic() < self._again_at:
            raise OSError(0, self._last_error or "cannot be opened")
        self._again_at = self._clock.monotonic() + _RETRY
        writer = open_chain(self.folder, self.keys, self._drafter, self._terms, self._clock.time())
        self._upkeep = Upkeep(
            writer,
            self._lock,
            self._drafter,
            self.keys,
            self._clock,
            durable=self._terms.durable,
            retention=self._retention,
            anchors=self._anchors,
            anchor_records=self._anchor_records,
            anchor_seconds=self._anchor_seconds,
        )
        self._writer = writer
        return writer

    # ---- keys and contents -----------------------------------------------------------------------------------

    def fingerprint(self, secret: str) -> str:
        """Sixteen digits that stand for a key: the same key, the same digits, and no way back."""
        return self.keys.current.fingerprint(secret)

    def first_use(self, resource: str, fingerprint: str) -> bool:
        """Whether no use of this key for this resource has been recorded yet by this process."""
        return (resource, fingerprint) not in self._used

    def _remember_use(self, resource: str, fingerprint: str) -> None:
        if len(self._used) >= _MOST_USES:  # tokens that are fetched anew must not fill the memory
            self._used.clear()
        self._used.add((resource, fingerprint))

    def erase(self, subject: str, *, actor: str | None = None) -> bool:
        """Drop the content key of a subject: what was kept of it means nothing from now on. Whether there was a key."""
        found = [self.contents.keys.drop(key.subject(subject)) for key in self.keys.all()]
        outcome = Outcome.OK if any(found) else Outcome.ERROR
        facts = {"subject": self.keys.current.subject(subject)}
        self.write(Deed(AuditAction.AUDIT_ERASED, outcome, actor, data=facts))
        return any(found)

    def status(self) -> AuditStatus:
        writer = self._writer
        return AuditStatus(
            chain=None if writer is None else writer.chain.name,
            seq=0 if writer is None else writer.seq,
            written=self._written,
            lost=self._lost,
            refused=self._refused,
            late=self._late + self._unanchored,
            last_error=self._last_error,
        )

    # ---- what cannot be written ------------------------------------------------------------------------------

    def _failed(self, error: OSError | AuditError, action: str, after: bool) -> None:
        refused = not self._open and not after
        with self._lock:
            self._gap.add(action, error, self._clock.time(), refused=refused)
            self._lost += not refused
            self._refused += refused
            self._note_failure(error)
        if refused:
            raise self._unwritable(error, action) from error

    def _unwritable(self, error: Exception, action: str | None = None) -> AuditError:
        if isinstance(error, AuditError):
            return error
        what = f", so {action} was not done" if action else ""
        return AuditError(f"the audit log in {self.folder.path} cannot be written ({reason_of(error)}){what}")

    def _note_failure(self, error: Exception) -> None:
        self._last_error = reason_of(error)
        failures = self._lost + self._refused + self._late
        if _worth_a_line(failures):
            _log.error(
                "the audit log in %s cannot be written (%s): %d lost, %d refused, %d late",
                self.folder.path, self._last_error, self._lost, self._refused, self._late,
            )  # fmt: skip

    def _note_unanchored(self, anchor: Anchor, error: Exception) -> None:
        """The log is written; the second place for its heads is not to be had just now."""
        self._unanchored += 1
        self._last_error = reason_of(error)
        if _worth_a_line(self._unanchored):
            _log.error(
                "an anchor of the audit log, %s, cannot be written (%s); in the log itself, in %s, nothing is missing: "
                "%d late",
                name_of(anchor), self._last_error, self.folder.path, self._unanchored,
            )  # fmt: skip

    # ---- upkeep ----------------------------------------------------------------------------------------------

    def tend(self, *, everything: bool = False) -> float | None:
        """Sync, write the head, anchor it if that is due, remove what retention wants removed.

        Returns the seconds after which it should be called again; None while nothing is left to do. With `everything`,
        what is not due yet is done too. Raises OSError, and whatever an anchor raises.
        """
        return None if self._upkeep is None else self._upkeep.tend(everything=everything)

    def _tend_safely(self, *, everything: bool = False) -> float | None:
        try:
            return self.tend(everything=everything)
        except Exception as error:  # noqa: BLE001 - an anchor is the user's; nothing is above a thread
            anchor = None if self._upkeep is None else self._upkeep.anchoring
            if anchor is not None:
                self._note_unanchored(anchor, error)
            else:
                self._late += 1
                self._note_failure(error)
            return HEAD_SECONDS

    def _after(self, seq: int) -> None:
        """See to it that what was written is synced, and known of elsewhere, in due time."""
        many = self._upkeep is not None and seq - self._upkeep.head_seq >= _HEAD_RECORDS
        if self._keeper is None:
            if many:
                self._tend_safely()
            return
        usual = self._fsync if isinstance(self._fsync, float) else _HURRY if self._fsync == "always" else HEAD_SECONDS
        self._keeper.poke(0.0 if many else usual)

    def _durably(self, seq: int, action: str) -> int | None:
        try:
            if self._upkeep is not None:
                self._upkeep.sync(seq)
        except OSError as error:
            self._failed(error, action, after=False)
            return None
        return seq

    # ---- the end ---------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Record the end, and put the head in its places. What fails here is logged."""
        _open_logs.discard(self)
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._say_closed()
        if self._keeper is not None:
            self._keeper.stop()
        self._tend_safely(everything=True)
        self._upkeep = None  # the chain may be another process's from now on
        if self._writer is not None:
            self._writer.close()

    def _say_closed(self) -> None:
        if self._writer is None:
            return
        facts = {"lost": self._lost, "refused": self._refused, "written": self._written}
        try:
            self._append(self._drafter.own(AuditAction.AUDIT_CLOSED, facts))
        except OSError as error:
            self._note_failure(error)

    def __enter__(self) -> AuditLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<AuditLog {self.folder.path}: {self._written} written, {self._lost} lost, {self._refused} refused>"

    def _leave_to_parent(self) -> None:
        """In a forked child: the chain is the parent's, and the child begins its own with its first record."""
        writer, closed = self._writer, self._closed
        self._renew()
        self._closed = closed
        if writer is not None:
            writer.close()


def _worth_a_line(count: int) -> bool:
    """The first, the tenth, the hundredth, …"""
    return count <= 1 or count == 10 ** (len(str(count)) - 1)


async def _to_its_end(write: Callable[[Deed, bool], int | None], deed: Deed, after: bool) -> int | None:
    """Write in a thread. A task that is cancelled meanwhile waits until it is written: its outcome comes behind it."""
    writing = asyncio.ensure_future(asyncio.to_thread(write, deed, after))
    try:
        return await asyncio.shield(writing)
    except asyncio.CancelledError:
        while not writing.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([writing])
        if not writing.cancelled():
            writing.exception()  # looked at: the cancellation is what is raised
        raise


_open_logs: weakref.WeakSet[AuditLog] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for log in list(_open_logs):
        log.close()


def _leave_all() -> None:
    for log in list(_open_logs):
        log._leave_to_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_all)
