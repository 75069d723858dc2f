"""What a log records, how it goes on from where it stopped, and what it does when it cannot write."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import pickle
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.support.audit_logs import KEY, OTHER_KEY, open_log, segments_of, small_log

from agentflow.clock import SystemClock, VirtualClock
from agentflow.core.observability.audit import (
    AuditAction,
    AuditKeys,
    AuditLog,
    AuditRecord,
    Deed,
    FileAnchor,
    Outcome,
    Rotation,
    Selection,
    acting_as,
    read,
    verify,
)
from agentflow.core.observability.audit.segment import Segment
from agentflow.core.observability.redaction.redactor import Redactor
from agentflow.errors import AuditError, AuditLockedError, ConfigurationError

SENTINEL = "sk-sentinel-0123456789abcdefghijklmn"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log"


def records(path: Path, action: str | None = None) -> list[AuditRecord]:
    return [entry.record for entry in read(path, Selection(action=action))]


def actions(path: Path) -> list[str]:
    return [record.action for record in records(path)]


def everything_on_disk(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in path.rglob("*") if file.is_file())


# ---- what a record says --------------------------------------------------------------------------------------


def test_a_record_says_who_what_to_what_for_whom_when_and_with_what_outcome(path: Path) -> None:
    with open_log(path) as log:
        seq = log.record(
            AuditAction.MODEL_CALL,
            actor="ada@example.org",
            tenant="acme",
            resource="openai/gpt-4o",
            outcome=Outcome.OK,
            run="r1",
            trace="4bf92f",
            key=log.fingerprint(SENTINEL),
            data={"input_tokens": 12, "cost": 0.25},
        )
    [record] = records(path, "model.call")
    assert record.seq == seq == 3
    assert record.time == "2023-11-14T22:13:20.000000Z"
    assert record.seconds == 1_700_000_000.0
    assert (record.actor, record.tenant, record.resource) == ("ada@example.org", "acme", "openai/gpt-4o")
    assert (record.outcome, record.run, record.trace) == ("ok", "r1", "4bf92f")
    assert record.data == {"input_tokens": 12, "cost": 0.25}
    assert record.key is not None
    assert len(record.key) == 16


def test_the_log_itself_is_recorded_with_its_settings(path: Path) -> None:
    open_log(path, actor="service").close()
    assert actions(path) == ["audit.segment", "audit.opened", "audit.closed"]
    opened = records(path)[1]
    assert opened.actor == "service"
    assert opened.data["settings"]["on_failure"] == "closed"  # type: ignore[index, call-overload]


def test_changed_settings_are_a_record_of_their_own(path: Path) -> None:
    open_log(path).close()
    open_log(path).close()
    open_log(path, on_failure="open").close()
    assert actions(path).count("audit.settings") == 1
    assert records(path, "audit.settings")[0].data["settings"]["on_failure"] == "open"  # type: ignore[index, call-overload]


def test_the_actor_is_whom_the_code_acts_for_else_the_logs_else_the_systems_user(path: Path) -> None:
    with open_log(path) as log:
        log.record("order.placed")
        with acting_as("alice"):
            log.record("order.placed")
            log.record("order.placed", actor="bob")
    with open_log(path, actor="service") as log:
        log.record("order.placed")
    system, *named = [record.actor for record in records(path, "order.placed")]
    assert named == ["alice", "bob", "service"]
    assert system


@pytest.mark.parametrize(
    ("action", "fields", "lacks"),
    [
        (AuditAction.KEY_USED, {"resource": "openai"}, "key"),
        (AuditAction.MODEL_CALL, {}, "resource"),
        (AuditAction.RUN_STARTED, {"resource": "flow"}, "run"),
        (AuditAction.RUN_FORKED, {"run": "r2"}, "data.from"),
        (AuditAction.ARTIFACT_REGISTERED, {"resource": "edge/x"}, "data.digest"),
    ],
)
def test_a_record_that_lacks_what_its_action_must_say_is_refused(
    path: Path, action: str, fields: Any, lacks: str
) -> None:
    with open_log(path) as log, pytest.raises(ValueError, match=lacks):
        log.record(action, **fields)


@pytest.mark.parametrize("action", ["", "order", "Order.placed", "audit.opened", "audit.mine", "a b.c", "order."])
def test_actions_are_words_joined_by_dots_and_not_the_logs_own(path: Path, action: str) -> None:
    with open_log(path) as log, pytest.raises(ValueError, match="an action is"):
        log.record(action)


def test_every_action_of_the_engine_can_be_recorded(path: Path) -> None:
    with open_log(path) as log:
        for action in AuditAction:
            if not action.startswith("audit."):
                log.record(action, resource="x", run="r", key="f", data={"from": "r0", "digest": "d"})
    assert verify(path, KEY).sound
    assert {record.action for record in records(path)} >= {action for action in AuditAction if action[:6] != "audit."}


# ---- nothing that should not be there ------------------------------------------------------------------------


def test_no_key_and_nobodys_address_or_card_reaches_the_disk(path: Path) -> None:
    with open_log(path, actor=f"bot {SENTINEL}") as log:
        log.record(
            "order.placed",
            resource=f"mail/grace@example.org?{SENTINEL}",
            run=SENTINEL,
            tenant=f"t {SENTINEL}",
            data={"error": f"401 for {SENTINEL}", SENTINEL: 1, "card": 4111111111111111, "to": ["grace@example.org"]},
            content=f"key {SENTINEL} of grace@example.org, 4111 1111 1111 1111",
        )
    written = everything_on_disk(path)
    for secret in (SENTINEL.encode(), b"grace@example", b"4111111111111111", KEY.encode()):
        assert secret not in written
    [record] = records(path, "order.placed")
    assert record.data["error"] == "401 for [redacted:key]"


def test_redaction_comes_before_the_digest_so_the_digest_is_of_what_may_be_known(path: Path) -> None:
    with open_log(path) as log:
        log.record("order.placed", content=f"key {SENTINEL}")
        [record] = records(path, "order.placed")
        assert record.content is not None
        assert log.contents.matches(record.content, "key [redacted:key]") is True
        assert log.contents.matches(record.content, f"key {SENTINEL}") is False


def test_the_users_own_patterns_are_redacted_too(path: Path) -> None:
    with open_log(path, redactor=Redactor(patterns={"order": r"ORD-\d+"})) as log:
        log.record("order.placed", resource="ORD-17")
    assert records(path, "order.placed")[0].resource == "[redacted:order]"


def test_large_data_and_long_names_are_bounded(path: Path) -> None:
    with open_log(path) as log:
        log.record("order.placed", resource="r" * 10_000, data={"blob": "x" * 10_000_000})
    [record] = records(path, "order.placed")
    assert record.data["left_out"] == "too large"
    assert 65_536 < int(str(record.data["bytes"])) < 66_000
    assert len(record.resource or "") == 513
    assert verify(path, KEY).sound


def test_odd_values_are_written_and_read_back_as_json(path: Path) -> None:
    with open_log(path) as log:
        log.record(
            "order.placed", actor="\ud800x\n\u2028", data={"nan": float("nan"), "big": 2**70, 3: {1}, "é\udfff": b"x"}
        )
    [record] = records(path, "order.placed")
    assert record.actor == "?x\n\u2028"
    assert record.data == {"nan": "nan", "big": str(2**70), "3": [1], "é?": "<1 bytes>"}
    assert verify(path, KEY).sound


def test_keys_are_neither_printed_nor_pickled() -> None:
    keys = AuditKeys(KEY)
    assert KEY not in repr(keys) + repr(keys.current)
    for each in (keys, keys.current):
        with pytest.raises(TypeError, match="not pickled"):
            pickle.dumps(each)


async def test_a_large_content_is_gone_over_in_a_thread(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[str] = []
    real = Redactor.redact_json

    def redact(self: Redactor, value: object, **options: Any) -> Any:
        threads.append(threading.current_thread().name)
        return real(self, value, **options)

    with open_log(path) as log:
        monkeypatch.setattr(Redactor, "redact_json", redact)
        await log.write_async(Deed("order.placed", content=[{"text": "x" * 60_000}, ("y" * 60_000,)]))
        await log.write_async(Deed("order.placed", content={"text": "x" * 60_000}))
    assert threads[0] != "MainThread"
    assert threads[1] == "MainThread"


@pytest.mark.parametrize("key", ["", "short", " " * 40, b"x" * 31])
def test_a_short_key_is_refused_with_the_command_that_makes_a_good_one(path: Path, key: str | bytes) -> None:
    with pytest.raises(ConfigurationError, match="token_hex"):
        AuditLog(path, key)
    assert not path.exists()


def test_only_the_owner_may_read_a_log(path: Path) -> None:
    with open_log(path) as log:
        log.record("order.placed", content="x")
    for file in path.rglob("*"):
        assert file.stat().st_mode & 0o077 == 0, file


# ---- going on ------------------------------------------------------------------------------------------------


def test_a_new_process_goes_on_in_the_same_chain(path: Path) -> None:
    for _ in range(3):
        with open_log(path) as log:
            log.record("order.placed")
    assert [record.seq for record in records(path)] == list(range(1, 11))
    found = verify(path, KEY)
    assert (found.sound, found.chains, found.segments) == (True, 1, 1)


def test_a_file_that_has_its_size_is_followed_by_another_that_carries_the_head(path: Path) -> None:
    small_log(path, records=30)
    files = segments_of(path)
    assert len(files) > 4
    assert all(file.stat().st_size <= 4096 for file in files)
    firsts = [json.loads(file.read_bytes().splitlines()[0]) for file in files]
    lasts = [json.loads(file.read_bytes().splitlines()[-1]) for file in files]
    for last, first in zip(lasts, firsts[1:], strict=False):
        assert first["data"]["head"]["seq"] == last["seq"]
        assert first["data"]["reason"] == "size"
    assert verify(path, KEY).sound


def test_a_file_that_has_its_age_is_followed_by_another(path: Path) -> None:
    clock = VirtualClock()
    with open_log(path, clock, rotation=Rotation(size=None, age=3600.0)) as log:
        log.record("order.placed")
        clock.advance(3599)
        log.record("order.placed")
        clock.advance(1)
        log.record("order.placed")
    assert len(segments_of(path)) == 2


def test_a_clock_that_is_set_back_is_recorded_and_changes_nothing_else(path: Path) -> None:
    class Back(VirtualClock):
        offset = 0.0

        def time(self) -> float:
            return super().time() + self.offset

    clock = Back()
    with open_log(path, clock) as log:
        log.record("order.placed")
        clock.offset = -3600.0
        log.record("order.placed")
        log.record("order.placed")
        clock.offset = -3600.5
        log.record("order.placed")
    assert actions(path).count("audit.clock") == 1
    assert records(path, "audit.clock")[0].data["seconds"] == 3600.0
    found = verify(path, KEY)
    assert found.sound
    assert any("set back by 3600" in note for note in found.notes)


def test_a_new_key_begins_a_new_file_and_the_old_one_still_checks_the_old(path: Path) -> None:
    with open_log(path) as log:
        log.record("order.placed")
    both = AuditKeys(OTHER_KEY, KEY)
    with open_log(path, key=both) as log:
        log.record("order.placed")
    assert len(segments_of(path)) == 2
    assert verify(path, both).sound
    assert not verify(path, KEY).sound


def test_a_log_does_not_open_with_another_key(path: Path) -> None:
    small_log(path)
    for on_failure in ("closed", "open"):
        with pytest.raises(AuditError, match="key"):
            open_log(path, key=OTHER_KEY, on_failure=on_failure)


def test_a_closed_log_records_nothing(path: Path) -> None:
    log = open_log(path)
    log.close()
    log.close()
    with pytest.raises(AuditError, match="closed"):
        log.record("order.placed")


def test_threads_record_without_losing_or_mixing(path: Path) -> None:
    with open_log(path, rotation=Rotation(size=20_000, age=None)) as log:

        def work(name: int) -> None:
            for number in range(100):
                log.record("order.placed", data={"thread": name, "number": number})

        threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    written = records(path, "order.placed")
    assert len(written) == 800
    for name in range(8):
        numbers = [record.data["number"] for record in written if record.data["thread"] == name]
        assert numbers == list(range(100))
    assert verify(path, KEY).sound


# ---- the disk, the head, the anchors -------------------------------------------------------------------------


def test_with_always_a_record_is_on_the_disk_before_record_returns(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (synced.append(handle), real(handle))[1])
    with open_log(path, fsync="always") as log:
        before = len(synced)
        log.record("order.placed")
        assert len(synced) == before + 1
        log.record("order.placed", after=True)
        assert len(synced) == before + 1
        log.tend()
        assert len(synced) > before + 1


def test_with_never_nothing_is_synced(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_log(path).close()

    def fsync(handle: int) -> None:
        raise AssertionError("nobody asked for this")

    monkeypatch.setattr(os, "fsync", fsync)
    with open_log(path) as log:
        log.record("order.placed")
        log.tend()


async def test_async_code_waits_for_the_disk_in_a_thread(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[str] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (threads.append(threading.current_thread().name), real(handle))[1])
    with open_log(path, fsync="always") as log:
        threads.clear()
        await asyncio.gather(*[log.write_async(Deed("order.placed")) for _ in range(20)])
        assert threads
        assert "MainThread" not in threads
        assert len(threads) <= 20


def test_the_background_writes_the_head_and_anchors_without_being_asked(path: Path) -> None:
    anchored = threading.Event()
    log = open_log(
        path, SystemClock(), background=True, fsync=0.01, anchor_seconds=0.01, anchors=[lambda head: anchored.set()]
    )
    log.record("order.placed")
    assert anchored.wait(10)
    log.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "agentflow-audit"]


def test_heads_are_anchored_after_so_many_records_or_seconds_and_at_the_end(path: Path) -> None:
    clock = VirtualClock()
    heads: list[int] = []
    log = open_log(
        path,
        clock,
        anchors=[lambda line: heads.append(json.loads(line)["seq"])],
        anchor_records=10,
        anchor_seconds=60.0,
    )
    assert log.tend() == 60.0
    for _ in range(10):
        log.record("order.placed")
    log.tend()
    assert heads == [12]
    log.record("order.placed")
    clock.advance(59)
    assert log.tend() == 1.0
    clock.advance(1)
    assert log.tend() is None
    assert heads == [12, 13]
    log.close()
    assert heads == [12, 13, 14]


def test_an_anchor_that_fails_is_counted_said_and_tried_again(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    failing = True
    heads: list[bytes] = []

    def anchor(line: bytes) -> None:
        if failing:
            raise ConnectionError("the other machine is away")
        heads.append(line)

    with open_log(path, anchors=[anchor], anchor_records=1) as log, caplog.at_level(logging.ERROR, "agentflow.audit"):
        for _ in range(300):  # the head's turn comes, and with it the anchor's
            log.record("order.placed")
        assert log.status().late > 0
        assert log.status().last_error == "ConnectionError"
        failing = False
        log.tend()
        assert len(heads) == 1
    assert [line for line in caplog.messages if "the audit log in" in line] == []
    assert "an anchor of the audit log, test_an_anchor_that_fails_is_counted_said_and_tried_again" in caplog.text


def test_an_anchor_file_that_cannot_be_written_is_named_and_the_log_goes_on(
    path: Path, tmp_path: Path, disk: _Full, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    anchor = tmp_path / "file" / "heads.jsonl"
    with open_log(path, anchors=[FileAnchor(anchor)], on_failure="closed", background=False) as log:
        log.record("order.placed")
        log._tend_safely(everything=True)
        assert log.record("order.shipped") is not None
        assert log.status().late == 1
        disk.left = 0
        with pytest.raises(AuditError):
            log.record("order.paid")
        disk.left = None
    said = [line for line in caplog.messages if "cannot be written" in line]
    assert said[0].startswith(f"an anchor of the audit log, {anchor}, cannot be written (")
    assert str(path) in said[0]
    assert "nothing is missing" in said[0]
    assert said[1].startswith(f"the audit log in {path} cannot be written (")  # not hidden by the anchor


def test_an_anchor_file_is_shared_by_processes(path: Path, tmp_path: Path) -> None:
    anchor = tmp_path / "heads.jsonl"
    with open_log(path, anchors=[FileAnchor(anchor)]) as one, open_log(path, anchors=[FileAnchor(anchor)]) as two:
        one.record("order.placed")
        two.record("order.placed")
    assert len(anchor.read_text().splitlines()) == 2
    assert verify(path, KEY, anchors=[anchor]).sound


# ---- what cannot be written ----------------------------------------------------------------------------------


class _Full:
    """A disk that is full after so many bytes more; half a line may still fit."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left: int | None = None
        self._write = os.write
        monkeypatch.setattr(os, "write", self.write)

    def write(self, handle: int, data: bytes) -> int:
        if self.left is None or len(data) <= self.left:
            self.left = None if self.left is None else self.left - len(data)
            return self._write(handle, data)
        part, self.left = data[: self.left], 0
        if not part:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self._write(handle, part)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> _Full:
    return _Full(monkeypatch)


def test_closed_to_failure_what_cannot_be_recorded_is_not_done(path: Path, disk: _Full) -> None:
    with open_log(path) as log:
        log.record("order.placed")
        disk.left = 100
        for _ in range(3):
            with pytest.raises(AuditError, match=r"No space left on device\), so order.paid was not done"):
                log.record("order.paid")
        assert (log.status().refused, log.status().lost) == (3, 0)
        disk.left = None
        log.record("order.shipped")
    assert [action for action in actions(path) if action[:5] != "audit"] == ["order.placed", "order.shipped"]
    [gap] = records(path, "audit.gap")
    assert (gap.data["refused"], gap.data["lost"]) == (3, 0)
    found = verify(path, KEY)
    assert (found.sound, found.gaps) == (True, 0)


def test_an_outcome_that_cannot_be_recorded_raises_nothing_and_is_a_gap(path: Path, disk: _Full) -> None:
    with open_log(path) as log:
        disk.left = 10
        assert log.record("order.paid", after=True) is None
        disk.left = None
        log.record("order.shipped")
    [gap] = records(path, "audit.gap")
    assert (gap.data["lost"], gap.data["actions"], gap.data["error"]) == (
        1,
        {"order.paid": 1},
        "No space left on device",
    )
    assert verify(path, KEY).gaps == 1


def test_half_a_head_in_an_anchor_file_is_no_fault_and_the_next_one_begins_anew(
    path: Path, tmp_path: Path, disk: _Full
) -> None:
    anchor = tmp_path / "heads.jsonl"
    with open_log(path, anchors=[FileAnchor(anchor)], anchor_records=1, fsync="never") as log:
        log.tend()
        disk.left = 500  # the head fits beside the log, and not here
        with pytest.raises(OSError, match="No space left"):
            log.record("order.paid", after=True)
            log.tend()
        disk.left = None
        log.tend()
    assert [line[-1:] for line in anchor.read_text().splitlines()].count("}") >= 2
    found = verify(path, KEY, anchors=[anchor])
    assert found.sound
    FileAnchor(anchor)(b'{"of":"nobody"}')
    assert not verify(path, KEY, anchors=[anchor]).sound


def test_an_anchor_file_that_may_not_be_read_is_written_all_the_same(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    anchor = tmp_path / "heads.jsonl"
    real = os.open

    def write_only(name: Any, flags: int, *rest: int) -> int:
        if str(name) == str(anchor) and flags & os.O_RDWR:
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(name, flags, *rest)

    monkeypatch.setattr(os, "open", write_only)
    for _ in range(2):
        open_log(path, anchors=[FileAnchor(anchor)]).close()
    monkeypatch.undo()
    assert len([line for line in anchor.read_text().splitlines() if line]) == 2
    assert verify(path, KEY, anchors=[anchor]).sound


def test_open_to_failure_the_act_goes_on_and_the_loss_is_counted_said_and_recorded(
    path: Path, disk: _Full, caplog: pytest.LogCaptureFixture
) -> None:
    with open_log(path, on_failure="open") as log, caplog.at_level(logging.ERROR, "agentflow.audit"):
        disk.left = 100
        assert [log.record("order.paid") for _ in range(12)] == [None] * 12
        assert log.status().lost == 12
        disk.left = None
        assert log.record("order.shipped") is not None
    [gap] = records(path, "audit.gap")
    assert gap.data["lost"] == 12
    assert len([line for line in caplog.messages if "cannot be written" in line]) == 2  # the first and the tenth
    assert verify(path, KEY).sound


def test_half_a_line_is_taken_back_at_once_or_as_soon_as_it_can_be(
    path: Path, disk: _Full, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.ftruncate

    def refuse(handle: int, size: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with open_log(path, on_failure="open") as log:
        size = segments_of(path)[0].stat().st_size
        disk.left = 100
        log.record("order.paid")
        assert segments_of(path)[0].stat().st_size == size
        disk.left = 100
        monkeypatch.setattr(os, "ftruncate", refuse)
        log.record("order.paid")
        assert segments_of(path)[0].stat().st_size == size + 100
        disk.left = None
        log.record("order.paid")
        monkeypatch.setattr(os, "ftruncate", real)
        log.record("order.shipped")
    assert verify(path, KEY).sound
    assert records(path, "audit.gap")[0].data["lost"] == 3


def test_a_disk_that_is_full_when_the_log_is_made(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = VirtualClock()
    real = Segment.append

    def full(self: Segment, line: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Segment, "append", full)
    with pytest.raises(AuditError, match="No space left"):
        open_log(path)
    with open_log(path, clock, on_failure="open") as log:
        assert log.record("order.paid") is None
        monkeypatch.setattr(Segment, "append", real)
        assert log.record("order.paid") is None  # it is not tried again at once
        clock.advance(1)
        assert log.record("order.paid") is not None
    assert verify(path, KEY).sound
    assert records(path, "audit.gap")[0].data["lost"] == 2


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(AuditError, match="cannot be written"):
        open_log(tmp_path / "file" / "log")
    with open_log(tmp_path / "file" / "log", on_failure="open") as log:
        assert log.record("order.paid") is None
        assert log.status().lost == 1


def test_a_failing_disk_at_rotation_leaves_the_old_file_and_no_new_one(path: Path, disk: _Full) -> None:
    with open_log(path, rotation=Rotation(size=4096, age=None)) as log:
        while segments_of(path)[0].stat().st_size < 3600:
            log.record("order.placed")
        disk.left = 0
        with pytest.raises(AuditError):
            log.record("order.placed", data={"filler": "x" * 1000})
        assert len(segments_of(path)) == 1
        disk.left = None
        log.record("order.placed", data={"filler": "x" * 1000})
    assert len(segments_of(path)) == 2
    assert verify(path, KEY).sound


def test_a_file_that_is_changed_beneath_the_log_is_left_and_said(path: Path) -> None:
    with open_log(path) as log:
        log.record("order.placed")
        with segments_of(path)[0].open("ab") as file:
            file.write(b"{}\n")
        log.record("order.placed")
        segments_of(path)[1].unlink()
        log.record("order.placed")
    assert actions(path).count("audit.damaged") == 1  # the other one went with its file
    assert verify(path, KEY).faults[0].kind == "altered"


def test_an_fsync_that_fails_stops_the_act(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_log(path, fsync="always") as log:
        with monkeypatch.context() as broken:

            def fsync(handle: int) -> None:
                raise OSError(errno.EIO, "Input/output error")

            broken.setattr(os, "fsync", fsync)
            with pytest.raises(AuditError, match="Input/output error"):
                log.record("order.paid")
        log.record("order.shipped")
    assert verify(path, KEY).sound


# ---- two writers ---------------------------------------------------------------------------------------------


def test_a_second_writer_has_a_chain_of_its_own(path: Path) -> None:
    with open_log(path) as one, open_log(path) as two:
        assert (one.status().chain, two.status().chain) == ("chain-1", "chain-2")
        one.record("order.placed")
        two.record("order.placed")
    with open_log(path) as again:
        assert again.status().chain == "chain-1"
    found = verify(path, KEY)
    assert (found.sound, found.chains) == (True, 2)
    assert len(records(path, "order.placed")) == 2


def test_an_exclusive_log_has_one_writer(path: Path) -> None:
    with open_log(path):
        with pytest.raises(AuditLockedError, match="another process"):
            open_log(path, exclusive=True)
    open_log(path, exclusive=True).close()


def test_a_changed_end_is_refused_by_a_closed_log_and_left_behind_by_an_open_one(path: Path) -> None:
    small_log(path, records=2)
    file = segments_of(path)[-1]
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*lines[:-1], lines[-1].replace(b'"ok"', b'"OK"')]))
    with pytest.raises(AuditError, match="does not bear its seal"):
        open_log(path)
    with open_log(path, on_failure="open") as log:
        log.record("order.placed")
    assert len(segments_of(path)) == 2
    [recovered] = records(path, "audit.recovered")
    assert "does not bear its seal" in str(recovered.data["damage"])
    [fault] = verify(path, KEY).faults
    assert (fault.kind, fault.line) == ("altered", len(lines))
