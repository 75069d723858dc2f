"""Retention removes whole segments, says so with a signed tombstone, and never opens a way to remove more."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.audit_logs import KEY, open_log, segments_of

from agentflow.clock import VirtualClock
from agentflow.core.observability.audit import Retention, Rotation, Selection, read, verify
from agentflow.core.observability.audit.policies import DAY, Span
from agentflow.errors import ConfigurationError

ROTATION = Rotation(size=None, age=DAY)


def week(path: Path, clock: VirtualClock, **retention: float) -> None:
    """A record a day, a file a day, for a week; then the process is started anew with this retention."""
    with open_log(path, clock, rotation=ROTATION) as log:
        for _ in range(7):
            log.record("order.placed")
            clock.advance(DAY)
    with open_log(path, clock, rotation=ROTATION, retention=Retention(**retention)) as log:  # type: ignore[arg-type]
        log.tend()
        log.tend()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log"


def test_without_a_policy_everything_stays(path: Path) -> None:
    week(path, VirtualClock())
    assert len(segments_of(path)) == 8


def test_old_segments_go_and_verify_says_what_was_removed(path: Path) -> None:
    week(path, VirtualClock(), age=3 * DAY)
    assert [file.name for file in segments_of(path)] == [f"audit-{n:08d}.jsonl" for n in (6, 7, 8)]
    found = verify(path, KEY)
    assert found.sound
    assert [(stone.segment, stone.reason) for stone in found.removed] == [(n, "age") for n in (1, 2, 3, 4, 5)]
    assert found.removed[0].first == 1
    removed = [entry.record.data for entry in read(path, Selection(action="audit.removed"))]
    assert [data["segment"] for data in removed] == [1, 2, 3, 4, 5]
    assert removed[0]["file_digest"] == found.removed[0].file_digest


def test_the_log_goes_on_after_a_removal(path: Path) -> None:
    clock = VirtualClock()
    week(path, clock, age=3 * DAY)
    with open_log(path, clock, rotation=ROTATION, retention=Retention(age=3 * DAY)) as log:
        for _ in range(5):
            log.record("order.placed")
            clock.advance(DAY)
            log.tend()
    found = verify(path, KEY)
    assert found.sound
    assert len(found.removed) > 5


def test_too_many_bytes_go_oldest_first_but_nothing_younger_than_the_least_age(path: Path) -> None:
    week(path, VirtualClock(), size=1, at_least=5 * DAY)
    assert len(verify(path, KEY).removed) == 3
    assert verify(path, KEY).sound


@pytest.mark.parametrize(("gone", "kind"), [(6, "missing"), (7, "missing")])
def test_a_segment_without_a_tombstone_is_still_missed(path: Path, gone: int, kind: str) -> None:
    week(path, VirtualClock(), age=3 * DAY)
    (path / "chain-1" / f"audit-{gone:08d}.jsonl").unlink()
    [fault] = verify(path, KEY).faults
    assert fault.kind == kind


def test_tombstones_cannot_be_forged_changed_or_taken_away(path: Path) -> None:
    week(path, VirtualClock(), age=3 * DAY)
    stones = path / "chain-1" / "removed.jsonl"
    whole = stones.read_bytes()
    lines = whole.splitlines(keepends=True)
    for data, kind in (
        (whole.replace(b'"segment":5', b'"segment":6'), "altered"),
        (b"".join(lines[1:]), "missing"),
        (b"".join([lines[1], lines[0], *lines[2:]]), "missing"),
        (b"".join(lines[:-1]), "missing"),
        (b"", "missing"),
    ):
        stones.write_bytes(data)
        assert verify(path, KEY).faults[0].kind == kind, data
    stones.unlink()
    assert verify(path, KEY).faults[0].kind == "missing"


def test_a_segment_whose_seals_do_not_fit_is_evidence_and_stays(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock = VirtualClock()
    week(path, clock)
    second = segments_of(path)[1]
    second.write_bytes(second.read_bytes().replace(b'"ok"', b'"OK"', 1))
    with open_log(path, clock, rotation=ROTATION, retention=Retention(age=3 * DAY)) as log:
        log.tend()
    assert segments_of(path)[0] == second
    assert "is not removed: its seals do not fit" in caplog.text
    assert verify(path, KEY).faults[0].kind == "altered"


def test_a_crash_between_tombstone_and_removal_is_finished_by_the_next_process(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = VirtualClock()
    week(path, clock)

    def crash(self: Path, missing_ok: bool = False) -> None:
        raise OSError("the power went")

    with open_log(path, clock, rotation=ROTATION, retention=Retention(age=3 * DAY)) as log:
        with monkeypatch.context() as broken:
            broken.setattr(Path, "unlink", crash)
            with pytest.raises(OSError, match="the power went"):
                log.tend()
        assert len(segments_of(path)) == 8
        found = verify(path, KEY)
        assert found.sound
        assert any("was to be removed" in note for note in found.notes)
        log.tend()
    assert len(segments_of(path)) == 3
    assert verify(path, KEY).sound
    assert [stone.segment for stone in verify(path, KEY).removed] == [1, 2, 3, 4, 5]


def test_the_age_is_that_of_the_records_and_not_of_the_file(path: Path) -> None:
    clock = VirtualClock()
    week(path, clock)
    for file in segments_of(path):
        os.utime(file, (0, 0))
    with open_log(path, clock, rotation=ROTATION, retention=Retention(age=30 * DAY)) as log:
        log.tend()
    assert len(segments_of(path)) == 8


def test_a_chain_that_nobody_writes_any_more_is_not_kept_for_ever(path: Path) -> None:
    clock = VirtualClock()
    with open_log(path, clock) as one, open_log(path, clock) as two:
        one.record("order.placed")
        two.record("order.placed", resource="of the second process")
    clock.advance(10 * DAY)
    with open_log(path, clock, retention=Retention(age=3 * DAY)) as log:
        log.tend()
    found = verify(path, KEY)
    assert found.sound
    assert [stone.chain for stone in found.removed] == ["chain-1", "chain-2"]
    assert "of the second process" not in "".join(file.read_text() for file in segments_of(path, 2))


@given(
    st.lists(st.tuples(st.integers(1, 100), st.floats(0, 100)), max_size=8),
    st.none() | st.floats(0.1, 100),
    st.none() | st.integers(0, 300),
    st.floats(0, 100),
)
def test_what_leaves_is_a_beginning_of_the_log_and_never_too_young(
    segments: list[tuple[int, float]], age: float | None, size: int | None, at_least: float
) -> None:
    spans = [Span(n, length, last) for n, (length, last) in enumerate(segments)]
    leaving = Retention(age=age, size=size, at_least=at_least).leaving(spans, 100.0)
    assert [span for span, _ in leaving] == spans[: len(leaving)]
    assert all(100.0 - span.last >= at_least for span, _ in leaving)
    if age is None and size is None:
        assert leaving == []


@pytest.mark.parametrize("wrong", [{"age": 0.0}, {"age": -1.0}, {"size": -1}])
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError):
        Retention(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [{"size": 100}, {"age": 0.0}])
def test_a_rotation_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError):
        Rotation(**wrong)  # type: ignore[arg-type]
