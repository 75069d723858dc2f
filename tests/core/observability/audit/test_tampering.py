"""Whatever is done to a log's files is found and named: flipped bytes, moved, doubled, missing and foreign lines, cut
ends, exchanged files, an older state put back."""

from __future__ import annotations

import json
import shutil
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.audit_logs import KEY, OTHER_KEY, open_log, segments_of, small_log

from agentflow.core.observability.audit import AuditKeys, FileAnchor, Rotation, Selection, Verification, read, verify
from agentflow.core.observability.audit.statements import signed
from agentflow.errors import AuditError

Lines = list[bytes]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of several files that is as it was written. Tests work on copies."""
    return small_log(tmp_path_factory.mktemp("sound") / "log", records=24)


@pytest.fixture
def log(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "log"))


def fault_of(path: Path) -> tuple[str, str, int | None, int | None]:
    """Kind, file, line and number of the first fault."""
    found = verify(path, KEY)
    assert not found.sound
    fault = found.faults[0]
    return fault.kind, fault.file, fault.line, fault.seq


def lines_in(path: Path) -> Lines:
    return path.read_bytes().splitlines(keepends=True)


def seq_of(line: bytes) -> int:
    seq = json.loads(line)["seq"]
    assert isinstance(seq, int)
    return seq


def test_a_log_that_nobody_touched_is_sound(log: Path) -> None:
    found = verify(log, KEY)
    assert found.sound
    assert (found.records, found.segments, found.chains) == (sum(len(lines_in(p)) for p in segments_of(log)), 5, 1)
    assert found.notes == ()


# ---- bytes ---------------------------------------------------------------------------------------------------


def test_every_flipped_byte_of_a_small_log_is_found_and_its_record_named(tmp_path: Path) -> None:
    path = small_log(tmp_path / "log", records=1)
    [segment] = segments_of(path)
    data = segment.read_bytes()
    for place in range(len(data)):
        flipped = bytearray(data)
        flipped[place] ^= 1 << (place % 8)
        segment.write_bytes(flipped)
        kind, file, line, seq = fault_of(path)
        where = data[:place].count(b"\n") + 1
        assert kind in ("altered", "truncated"), place
        assert (file, line, seq) == ("chain-1/audit-00000001.jsonl", where, where), place


@pytest.mark.parametrize("name", ["chain-1/head.json", "log.json"])
def test_every_flipped_byte_beside_the_records_is_found(tmp_path: Path, name: str) -> None:
    path = small_log(tmp_path / "log", records=1)
    data = (path / name).read_bytes()
    for place in range(len(data) - 1):
        flipped = bytearray(data)
        flipped[place] ^= 1 << (place % 8)
        (path / name).write_bytes(flipped)
        kind, file, _, _ = fault_of(path)
        assert (kind, file) == ("altered", name)


@pytest.mark.parametrize(
    "change", [lambda line: line.replace(b":", b": ", 1), lambda line: line + b" ", lambda line: b" " + line]
)
def test_the_same_facts_written_otherwise_are_not_the_same_record(log: Path, change: Callable[[bytes], bytes]) -> None:
    segment = segments_of(log)[1]
    lines = lines_in(segment)
    lines[2] = change(lines[2].rstrip(b"\n")) + b"\n"
    segment.write_bytes(b"".join(lines))
    assert fault_of(log) == ("altered", "chain-1/audit-00000002.jsonl", 3, seq_of(lines_in(segment)[1]) + 1)


def test_bytes_that_are_no_text_and_lines_without_end_are_named_and_not_swallowed(log: Path) -> None:
    segment = segments_of(log)[1]
    lines = lines_in(segment)
    segment.write_bytes(b"".join([*lines[:2], b"\xff\xfe" * 3_000_000, b"\n", *lines[2:]]))
    assert fault_of(log)[:3] == ("altered", "chain-1/audit-00000002.jsonl", 3)


# ---- lines ---------------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(st.data())
def test_any_two_lines_exchanged_are_named_as_reordered(sound: Path, data: st.DataObject) -> None:
    with copied(sound) as path:
        segment = data.draw(st.sampled_from(segments_of(path)))
        lines = lines_in(segment)
        first, second = sorted(data.draw(st.lists(st.integers(0, len(lines) - 1), min_size=2, max_size=2, unique=True)))
        wanted = seq_of(lines[first])
        lines[first], lines[second] = lines[second], lines[first]
        segment.write_bytes(b"".join(lines))
        name = f"chain-1/{segment.name}"
        if first == 0:  # the first line of a file says which key sealed it; another there names none
            assert fault_of(path)[1:] == (name, 1, wanted)
        else:
            assert fault_of(path) == ("reordered", name, first + 1, wanted)


@settings(max_examples=40)
@given(st.data())
def test_any_missing_line_is_named(sound: Path, data: st.DataObject) -> None:
    with copied(sound) as path:
        segment = data.draw(st.sampled_from(segments_of(path)))
        lines = lines_in(segment)
        gone = data.draw(st.integers(1, len(lines) - 1))
        wanted = seq_of(lines.pop(gone))
        segment.write_bytes(b"".join(lines))
        kind, file, line, seq = fault_of(path)
        is_end = segment == segments_of(path)[-1] and gone == len(lines)
        assert (kind, seq) == ("truncated" if is_end else "missing", wanted)
        if gone < len(lines):
            assert (file, line) == (f"chain-1/{segment.name}", gone + 1)


@settings(max_examples=40)
@given(st.data())
def test_any_doubled_or_moved_line_is_named(sound: Path, data: st.DataObject) -> None:
    with copied(sound) as path:
        source, target = data.draw(st.sampled_from(segments_of(path))), data.draw(st.sampled_from(segments_of(path)))
        line = data.draw(st.sampled_from(lines_in(source)))
        lines = lines_in(target)
        place = data.draw(st.integers(1, len(lines)))
        lines.insert(place, line)
        target.write_bytes(b"".join(lines))
        kind, file, at, _ = fault_of(path)
        assert kind == "reordered"
        if seq_of(line) != seq_of(lines[place - 1]) + 1:  # else it fits, and the one that stood there is named
            assert (file, at) == (f"chain-1/{target.name}", place + 1)


@settings(max_examples=40)
@given(st.data())
def test_a_log_cut_anywhere_is_named_as_truncated(sound: Path, data: st.DataObject) -> None:
    with copied(sound) as path:
        segment = segments_of(path)[-1]
        whole = segment.read_bytes()
        kept = data.draw(st.integers(0, len(whole) - 1))
        segment.write_bytes(whole[:kept])
        before = seq_of(lines_in(segments_of(path)[-2])[-1])
        kind, _, _, seq = fault_of(path)
        assert (kind, seq) == ("truncated", before + whole[:kept].count(b"\n") + 1)


def test_a_line_of_another_log_with_the_same_key_does_not_fit(log: Path, tmp_path: Path) -> None:
    other = small_log(tmp_path / "other", records=24)
    segment, foreign = segments_of(log)[1], segments_of(other)[1]
    lines = lines_in(segment)
    lines[3] = lines_in(foreign)[3]
    segment.write_bytes(b"".join(lines))
    assert fault_of(log)[:3] == ("altered", "chain-1/audit-00000002.jsonl", 4)


def test_a_line_of_another_chain_of_the_same_log_does_not_fit(tmp_path: Path) -> None:
    with open_log(tmp_path / "log") as first, open_log(tmp_path / "log") as second:
        for log in (first, second):
            log.record("order.placed", resource="order/1")
    one, two = segments_of(tmp_path / "log", 1)[0], segments_of(tmp_path / "log", 2)[0]
    lines = lines_in(one)
    lines[2] = lines_in(two)[2]
    one.write_bytes(b"".join(lines))
    assert fault_of(tmp_path / "log") == ("altered", "chain-1/audit-00000001.jsonl", 3, 3)


# ---- files ---------------------------------------------------------------------------------------------------


def test_a_missing_file_in_the_middle_is_named_with_its_first_record(log: Path) -> None:
    gone = segments_of(log)[1]
    wanted = seq_of(lines_in(gone)[0])
    gone.unlink()
    assert fault_of(log) == ("missing", "chain-1/audit-00000002.jsonl", None, wanted)


def test_a_missing_first_file_is_missing_where_no_tombstone_says_otherwise(log: Path) -> None:
    segments_of(log)[0].unlink()
    assert fault_of(log) == ("missing", "chain-1/audit-00000001.jsonl", None, 1)


def test_a_missing_last_file_is_known_to_the_head(log: Path) -> None:
    gone = segments_of(log)[-1]
    wanted = seq_of(lines_in(gone)[0])
    gone.unlink()
    assert (fault_of(log)[0], fault_of(log)[3]) == ("truncated", wanted)


def test_two_files_exchanged_are_not_what_they_say(log: Path) -> None:
    one, two = segments_of(log)[1:3]
    wanted = seq_of(lines_in(one)[0])
    data = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(data)
    assert fault_of(log) == ("reordered", "chain-1/audit-00000002.jsonl", 1, wanted)


def test_a_missing_head_is_a_fault(log: Path) -> None:
    (log / "chain-1" / "head.json").unlink()
    assert fault_of(log)[:2] == ("missing", "chain-1/head.json")


def test_a_missing_name_is_a_fault(log: Path) -> None:
    (log / "log.json").unlink()
    assert fault_of(log)[:2] == ("missing", "log.json")


def test_a_missing_chain_is_known_to_the_others(tmp_path: Path) -> None:
    with open_log(tmp_path / "log") as first, open_log(tmp_path / "log") as second:
        second.record("order.placed", resource="order/1")
        first.record("order.placed", resource="order/2")
        second.close()
        first.tend()
    assert verify(tmp_path / "log", KEY).sound
    shutil.rmtree(tmp_path / "log" / "chain-2")
    assert fault_of(tmp_path / "log")[:2] == ("missing", "chain-2")


def test_there_is_no_log_where_there_is_no_log(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="there is no audit log"):
        verify(tmp_path / "nowhere", KEY)


def test_another_key_finds_nothing_signed_as_it_should_be(log: Path) -> None:
    assert verify(log, OTHER_KEY).faults[0].kind == "altered"


def test_whoever_has_not_the_key_cannot_seal_a_change(log: Path) -> None:
    """Changed, and sealed again with a key of the attacker's own, down to the head."""
    forged = small_log(log.parent / "forged", records=24, key=OTHER_KEY)
    (forged / "log.json").write_bytes((log / "log.json").read_bytes())
    assert not verify(forged, KEY).sound


# ---- an older state put back ---------------------------------------------------------------------------------


def test_an_older_state_of_everything_is_found_by_an_anchor_alone(tmp_path: Path) -> None:
    path, anchor = tmp_path / "log", tmp_path / "elsewhere" / "heads.jsonl"
    with open_log(path, anchors=[FileAnchor(anchor)]) as log:
        log.record("order.placed", resource="order/1")
    shutil.copytree(path, tmp_path / "older")
    with open_log(path, anchors=[FileAnchor(anchor)]) as log:
        log.record("order.cancelled", resource="order/1")
    assert verify(path, KEY, anchors=[anchor]).sound
    shutil.rmtree(path)
    shutil.move(tmp_path / "older", path)
    assert verify(path, KEY).sound
    [fault] = verify(path, KEY, anchors=[anchor]).faults
    assert (fault.kind, fault.seq) == ("truncated", 5)
    assert "an anchor of" in fault.message


def test_an_older_state_that_was_written_on_is_named_where_it_parts(tmp_path: Path) -> None:
    path, anchor = tmp_path / "log", tmp_path / "heads.jsonl"
    with open_log(path) as log:
        log.record("order.placed", resource="order/1")
    shutil.copytree(path, tmp_path / "older")
    with open_log(path, anchors=[FileAnchor(anchor)]) as log:
        log.record("order.cancelled", resource="order/1")
    shutil.rmtree(path)
    shutil.move(tmp_path / "older", path)
    with open_log(path) as log:
        for _ in range(8):
            log.record("order.shipped", resource="order/1")
    assert verify(path, KEY).sound
    [fault] = verify(path, KEY, anchors=[anchor]).faults
    assert (fault.kind, fault.seq) == ("replaced", 8)


def test_lines_of_two_histories_do_not_follow_each_other(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with open_log(path) as log:
        log.record("order.placed", resource="order/1")
    shutil.copytree(path, tmp_path / "older")
    for place, word in ((path, "shipped"), (tmp_path / "older", "cancelled")):
        with open_log(place) as log:
            log.record(f"order.{word}", resource="order/1")
            log.record("order.paid", resource="order/1")
    mine, theirs = lines_in(segments_of(path)[0]), lines_in(segments_of(tmp_path / "older")[0])
    segments_of(path)[0].write_bytes(b"".join([*mine[:5], theirs[5], *mine[6:]]))
    kind, _, line, seq = fault_of(path)
    assert (kind, line, seq) == ("replaced", 7, 7) or (kind, line, seq) == ("replaced", 6, 6)


def test_a_forged_or_foreign_anchor_is_named(log: Path) -> None:
    anchor = log.parent / "heads.jsonl"
    anchor.write_bytes(signed("head", {"seq": 99}, AuditKeys(OTHER_KEY).current) + b"\n")
    [fault] = verify(log, KEY, anchors=[anchor]).faults
    assert (fault.kind, fault.file, fault.line) == ("altered", "heads.jsonl", 1)


def test_checking_takes_the_memory_of_a_line_and_not_of_the_file(tmp_path: Path) -> None:
    path = small_log(tmp_path / "log", records=2_000, rotation=Rotation(size=None, age=None))
    assert segments_of(path)[0].stat().st_size > 1_000_000
    verify(path, KEY)
    tracemalloc.start()
    try:
        assert verify(path, KEY).sound
        assert len(list(read(path, Selection(last=1)))) == 1
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 300_000


# ---- support -------------------------------------------------------------------------------------------------


@contextmanager
def copied(sound: Path) -> Iterator[Path]:
    """A copy of a log for one example."""
    with tempfile.TemporaryDirectory() as place:
        yield Path(shutil.copytree(sound, Path(place) / "log"))


def test_a_verification_says_it_all_as_json(log: Path) -> None:
    segments_of(log)[1].unlink()
    found: Verification = verify(log, KEY)
    told = found.plain()
    assert (told["sound"], told["faults"]) == (
        False,
        [
            {
                "kind": "missing",
                "file": "chain-1/audit-00000002.jsonl",
                "line": None,
                "seq": found.faults[0].seq,
                "message": found.faults[0].message,
            }
        ],
    )
    assert str(found.faults[0]).startswith("chain-1/audit-00000002.jsonl: record")
