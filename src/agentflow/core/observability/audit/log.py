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
`verify` and `show` read along; with `exclusive` it gets an AuditLockedError. A forked child writes a chain of its own.
"""

from __future__ import annotations

import asyncio
import atexit
import hashlib
import logging
import os
import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

from agentflow.clock import Clock, SystemClock
from agentflow.core.observability.audit.actions import AuditAction, Outcome, check
from agentflow.core.observability.audit.actors import current_actor, system_user
from agentflow.core.observability.audit.anchors import Anchor
from agentflow.core.observability.audit.canonical import canonical, exact
from agentflow.core.observability.audit.chain_writer import ChainWriter
from agentflow.core.observability.audit.content import ContentCipher, ContentKeys, ContentMode, ContentSealer
from agentflow.core.observability.audit.folder import Folder
from agentflow.core.observability.audit.gap import Gap, reason_of
from agentflow.core.observability.audit.keeper import Keeper
from agentflow.core.observability.audit.keys import AuditKeys
from agentflow.core.observability.audit.naming import log_name
from agentflow.core.observability.audit.policies import Fsync, OnFailure, Retention, Rotation, checked_fsync
from agentflow.core.observability.audit.record import Draft
from agentflow.core.observability.audit.retention import remove_due
from agentflow.core.observability.audit.statements import Head
from agentflow.core.observability.plain import Plain
from agentflow.core.observability.redaction import Redactor
from agentflow.errors import AuditError, AuditLockedError, ConfigurationError

__all__ = ["AuditLog", "AuditStatus"]

_MOST_CHAINS: Final = 1_000
_MOST_USES: Final = 10_000
_HEAD_RECORDS: Final = 256  # after so many records the head is written, whatever the time
_HEAD_SECONDS: Final = 1.0
_HURRY: Final = 0.05  # seconds until an outcome is on the disk, with fsync "always"
_RETRY: Final = 1.0  # seconds between attempts to open a log that could not be opened
_LONGEST_NAME: Final = 512  # characters of an actor, a resource, an id
_LARGEST_DATA: Final = 64 * 1024  # bytes of canonical JSON
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
    `redactor` goes over resource, data and content; actor, tenant and ids are names, in which only keys are redacted.
    `visiting` says that this is one act by hand, whose settings are not the log's.
    `content` says what is kept of contents (see `content.py`); "encrypted" needs a `cipher`. With `background=False` no
    thread is started, and `tend()` is the caller's to call.
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
        self._rotation, self._retention = rotation, retention
        self._anchors = tuple(anchors)
        self._anchor_records, self._anchor_seconds = anchor_records, anchor_seconds
        self._redactor = redactor or Redactor()
        self._names = Redactor(emails=False, cards=False)
        self._actor = actor
        self._exclusive = exclusive
        self._visiting = visiting
        self._clock = clock or SystemClock()
        self._background = background
        self._settings = self._described(content, redactor)
        self._renew()
        _open_logs.add(self)
        with self._lock:
            try:
                self._start()
            except OSError as error:
                self._note_failure(error)
                if not self._open:
                    _open_logs.discard(self)
                    raise self._unwritable(error) from error
            except BaseException:
                _open_logs.discard(self)
                raise
        if self._writer is not None:
            self._after(self._writer.seq)

    def _renew(self) -> None:
        """What a process has for itself."""
        self._lock = threading.Lock()
        self._sync_lock = threading.Lock()
        self._tend_lock = threading.Lock()
        self._keeper = Keeper(self._tend_safely, "agentflow-audit") if self._background else None
        self._writer: ChainWriter | None = None
        self._gap = Gap()
        self._used: set[tuple[str, str]] = set()
        self._closed = False
        self._written = self._lost = self._refused = self._late = 0
        self._last_error: str | None = None
        self._synced = self._head_seq = self._anchor_seq = self._kept_number = 0
        self._anchored_at = self._clock.monotonic()
        self._again_at = -1.0

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
        data: Mapping[str, object] = {},
        after: bool = False,
    ) -> int | None:
        """Write one record; its number, or None where it could not be written and the log is open.

        `actor` is whoever `acting_as` names, else the log's actor, else the user of the system. `key` is a fingerprint
        (`log.fingerprint(…)`). `subject` names whom the content is about, for its erasure; the tenant, if not given.
        `after` says that the act is over: then nothing is raised for what cannot be written, which is recorded as a gap
        later, and it is not waited for that it is on the disk. Raises AuditError, and ValueError for a record that
        lacks what its action must say.
        """
        seq = self._record(action, outcome, actor, resource, tenant, run, trace, key, content, subject, data, after)
        if seq is not None and self._fsync == "always" and not after:
            self._wait_for_disk(seq, action)
        return seq

    async def arecord(
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
        data: Mapping[str, object] = {},
        after: bool = False,
    ) -> int | None:
        """`record` for async code: the disk is waited for in a thread."""
        seq = self._record(action, outcome, actor, resource, tenant, run, trace, key, content, subject, data, after)
        if seq is not None and self._fsync == "always" and not after:
            await asyncio.to_thread(self._wait_for_disk, seq, action)
        return seq

    def _record(
        self,
        action: str,
        outcome: str,
        actor: str | None,
        resource: str | None,
        tenant: str | None,
        run: str | None,
        trace: str | None,
        key: str | None,
        content: object,
        subject: str | None,
        data: Mapping[str, object],
        after: bool,
    ) -> int | None:
        check(action, {"resource": resource, "run": run, "key": key}, data)
        if self._closed:
            raise AuditError("the audit log is closed")
        try:
            draft = Draft.of(
                action,
                outcome,
                actor=self._name(actor or current_actor() or self._actor or system_user()),
                tenant=self._name(tenant),
                resource=self._cleaned(resource),
                run=self._name(run),
                trace=self._name(trace),
                key=self._name(key),
                content="null" if content is None else self._sealed(content, subject or tenant or "-"),
                data=self._facts(data) if data else "{}",
            )
            with self._lock:
                seq = self._append(draft)
        except (OSError, AuditError) as error:
            self._failed(error, action, after)
            return None
        self._after(seq)
        if action == AuditAction.KEY_USED and resource is not None and key is not None:
            if len(self._used) >= _MOST_USES:  # tokens that are fetched anew must not fill the memory
                self._used.clear()
            self._used.add((resource, key))
        return seq

    def fingerprint(self, secret: str) -> str:
        """Sixteen digits that stand for a key: the same key, the same digits, and no way back."""
        return self.keys.current.fingerprint(secret)

    def first_use(self, resource: str, fingerprint: str) -> bool:
        """Whether no use of this key for this resource has been recorded yet by this process."""
        return (resource, fingerprint) not in self._used

    def erase(self, subject: str, *, actor: str | None = None) -> bool:
        """Drop the content key of a subject: what was kept of it means nothing from now on. Whether there was a key."""
        found = False
        for key in self.keys.all():
            found = self.contents.keys.drop(key.subject(subject)) or found
        name = self.keys.current.subject(subject)
        self.record(
            AuditAction.AUDIT_ERASED, actor=actor, resource=name, outcome=Outcome.OK if found else Outcome.ERROR
        )
        return found

    def status(self) -> AuditStatus:
        writer = self._writer
        return AuditStatus(
            chain=None if writer is None else writer.chain.name,
            seq=0 if writer is None else writer.seq,
            written=self._written,
            lost=self._lost,
            refused=self._refused,
            late=self._late,
            last_error=self._last_error,
        )

    # ---- texts -----------------------------------------------------------------------------------------------

    def _name(self, text: str | None) -> str | None:
        return None if text is None else _bounded(self._names.redact(text))

    def _cleaned(self, text: str | None) -> str | None:
        return None if text is None else _bounded(self._redactor.redact(text))

    def _facts(self, data: Mapping[str, object]) -> str:
        facts = canonical(exact(self._redactor.redact_json(data)))
        if len(facts) > _LARGEST_DATA:
            digest = self.keys.current.sign("data", facts)
            facts = canonical({"bytes": len(facts), "digest": digest, "left_out": "too large"})
        return facts.decode()

    def _sealed(self, content: object, subject: str) -> str:
        cleaned = exact(self._redactor.redact_json(content))
        sealed = self.contents.seal(cleaned, self.keys.current.subject(subject))
        return "null" if sealed is None else canonical(sealed).decode()

    def _described(self, content: ContentMode, redactor: Redactor | None) -> dict[str, Plain]:
        return {
            "anchors": len(self._anchors),
            "content": content,
            "fsync": self._fsync,
            "key_id": self.keys.current.id,
            "on_failure": "open" if self._open else "closed",
            "redaction": "usual" if redactor is None else redactor.describe(),
            "retention": exact(asdict(self._retention)),
            "rotation": exact(asdict(self._rotation)),
        }

    # ---- writing, under the lock -----------------------------------------------------------------------------

    def _append(self, draft: Draft) -> int:
        writer = self._start()
        if self._gap:
            writer.append(self._own(AuditAction.AUDIT_GAP, self._gap.facts(), Outcome.ERROR), self._clock.time())
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
        writer = self._take()
        try:
            self._introduce(writer)
        except BaseException:
            writer.close()
            raise
        self._again_at = -1.0
        self._writer = writer
        self._synced = self._anchor_seq = writer.found.seq
        self._head_seq = writer.seq
        return writer

    def _take(self) -> ChainWriter:
        name = log_name(self.folder, self.keys, self._clock.time())
        durable = self._fsync != "never"
        for number in range(1, _MOST_CHAINS + 1):
            writer = ChainWriter.take(
                self.folder, number, name, self.keys, self._rotation, durable=durable, forgiving=self._open
            )
            if writer is not None:
                return writer
            if self._exclusive:
                break
        raise AuditLockedError(f"another process writes the audit log in {self.folder.path}")

    def _introduce(self, writer: ChainWriter) -> None:
        """Say what was found, who writes from now on, and by which settings."""
        now, found = self._clock.time(), writer.found
        writer.begin(now)
        if found.torn or found.lost or found.damage is not None:
            facts: dict[str, Plain] = {"damage": found.damage, "lost": found.lost, "torn_bytes": found.torn}
            outcome = Outcome.ERROR if found.lost or found.damage is not None else Outcome.OK
            writer.append(self._own(AuditAction.AUDIT_RECOVERED, facts, outcome), now)
        settings = hashlib.sha256(canonical(self._settings)).hexdigest()
        opened: dict[str, Plain] = {"chains": writer.chains(), "process": os.getpid(), "settings": self._settings}
        writer.append(self._own(AuditAction.AUDIT_OPENED, opened), now)
        if found.settings and found.settings != settings and not self._visiting:
            changed: dict[str, Plain] = {"after": settings, "before": found.settings, "settings": self._settings}
            writer.append(self._own(AuditAction.AUDIT_SETTINGS, changed), now)
        writer.settings = found.settings if self._visiting else settings
        head = writer.head(now).signed(self.keys.current)
        writer.write_head(head, sync=self._fsync != "never")  # no record of an act is without a head

    def _own(self, action: AuditAction, facts: Mapping[str, Plain], outcome: Outcome = Outcome.OK) -> Draft:
        actor = self._name(self._actor or system_user())
        return Draft.of(action, outcome, actor=actor, data=canonical(dict(facts)).decode())

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
        if failures <= 1 or failures == 10 ** (len(str(failures)) - 1):
            _log.error(
                "the audit log in %s cannot be written (%s): %d lost, %d refused, %d late",
                self.folder.path, self._last_error, self._lost, self._refused, self._late,
            )  # fmt: skip

    # ---- the disk, the head, the anchors ---------------------------------------------------------------------

    def _after(self, seq: int) -> None:
        """See to it that what was written is synced, and known of elsewhere, in due time."""
        many = seq - self._head_seq >= _HEAD_RECORDS
        if self._keeper is None:
            if many:
                self._tend_safely()
            return
        usual = self._fsync if isinstance(self._fsync, float) else _HURRY if self._fsync == "always" else _HEAD_SECONDS
        self._keeper.poke(0.0 if many else usual)

    def _wait_for_disk(self, seq: int, action: str) -> None:
        try:
            self._sync(seq)
        except OSError as error:
            self._failed(error, action, after=False)

    def _sync(self, seq: int) -> None:
        """Whoever comes first syncs for all who wait: what was written meanwhile goes with it."""
        with self._sync_lock:
            if self._synced >= seq:
                return
            with self._lock:
                if self._writer is None:
                    return
                handle, reached = self._writer.twin(), self._writer.seq
            if handle is not None:
                try:
                    os.fsync(handle)
                finally:
                    os.close(handle)
            self._synced = reached

    def tend(self, *, everything: bool = False) -> float | None:
        """Sync, write the head, anchor it if that is due, remove what retention wants removed.

        Returns the seconds after which it should be called again; None while nothing is left to do. With `everything`,
        what is not due yet is done too. Raises OSError, and whatever an anchor raises.
        """
        with self._tend_lock:
            with self._lock:
                writer = self._writer
                if writer is None:
                    return None
                head = writer.head(self._clock.time())
            if self._fsync != "never":
                self._sync(head.seq)
            if head.seq > self._head_seq:
                line = head.signed(self.keys.current)
                writer.write_head(line, sync=self._fsync != "never")
                self._head_seq = head.seq
            if head.segment != self._kept_number:
                self._retain(writer)
                self._kept_number = head.segment
            again = self._anchor(head, everything)
            return again if writer.seq == head.seq else min(again or _HEAD_SECONDS, _HEAD_SECONDS)

    def _anchor(self, head: Head, everything: bool) -> float | None:
        if not self._anchors or head.seq <= self._anchor_seq:
            return None
        left = self._anchored_at + self._anchor_seconds - self._clock.monotonic()
        if not everything and left > 0 and head.seq - self._anchor_seq < self._anchor_records:
            return left
        line = head.signed(self.keys.current)
        for anchor in self._anchors:
            anchor(line)
        self._anchor_seq = head.seq
        self._anchored_at = self._clock.monotonic()
        return None

    def _tend_safely(self, *, everything: bool = False) -> float | None:
        try:
            return self.tend(everything=everything)
        except Exception as error:  # noqa: BLE001 - an anchor is the user's; nothing is above a thread
            self._late += 1
            self._note_failure(error)
            return _HEAD_SECONDS

    def _retain(self, writer: ChainWriter) -> None:
        def record(facts: dict[str, Plain]) -> None:
            with self._lock:
                writer.append(self._own(AuditAction.AUDIT_REMOVED, facts), self._clock.time())
            self._sync(writer.seq)

        remove_due(writer.chain, writer.log, writer.number, self.keys, self._retention, self._clock.time(), record)

    # ---- the end ---------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Record the end, and put the head in its places. What fails here is logged."""
        _open_logs.discard(self)
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if self._writer is not None:
                try:
                    facts: dict[str, Plain] = {"written": self._written, "lost": self._lost, "refused": self._refused}
                    self._writer.append(self._own(AuditAction.AUDIT_CLOSED, facts), self._clock.time())
                except OSError as error:
                    self._note_failure(error)
        if self._keeper is not None:
            self._keeper.stop()
        self._tend_safely(everything=True)
        if self._writer is not None:
            self._writer.close()

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


def _bounded(text: str) -> str:
    text = text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
    return text if len(text) <= _LONGEST_NAME else f"{text[:_LONGEST_NAME]}…"


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
