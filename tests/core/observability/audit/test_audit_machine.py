"""Whatever happens to a log in whatever order, it is sound, and holds what `record` said it had written."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.support.audit_logs import KEY, open_log, segments_of

from agentflow.clock import VirtualClock
from agentflow.core.observability.audit import AuditLog, Entry, FileAnchor, Rotation, Selection, read, verify
from agentflow.errors import AuditError


class Wall(VirtualClock):
    """A wall clock that can be set."""

    offset = 0.0

    def time(self) -> float:
        return super().time() + self.offset


class LogMachine(RuleBasedStateMachine):
    """One log, its disk, its clock and its process; `written` is what was recorded and not refused."""

    @initialize(on_failure=st.sampled_from(["closed", "open"]))
    def begin(self, on_failure: str) -> None:
        self.place = Path(tempfile.mkdtemp())
        self.clock = Wall()
        self.on_failure = on_failure
        self.written: list[int] = []
        self.number = self.lost = 0
        self.room: int | None = None
        self.real_write = os.write
        os.write = self.write
        self.log = self.opened()

    def opened(self) -> AuditLog:
        return open_log(
            self.place / "log",
            self.clock,
            on_failure=self.on_failure,
            rotation=Rotation(size=4096, age=3600.0),
            anchors=[FileAnchor(self.place / "heads.jsonl")],
            anchor_records=3,
        )

    def write(self, handle: int, data: bytes) -> int:
        """A disk with so much room left."""
        if self.room is None:
            return self.real_write(handle, data)
        part = data[: self.room]
        self.room -= len(part)
        if not part:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.real_write(handle, part)

    @rule(size=st.integers(0, 3000), after=st.booleans())
    def record(self, size: int, after: bool) -> None:
        self.number += 1
        try:
            seq = self.log.record("order.placed", data={"number": self.number, "filler": "x" * size}, after=after)
        except AuditError:
            assert self.on_failure == "closed"
            assert not after
            return
        if seq is None:
            assert self.on_failure == "open" or after
            self.lost += 1
        else:
            self.written.append(self.number)

    @rule()
    def tend(self) -> None:
        try:
            self.log.tend()
        except OSError:
            assert self.room is not None

    @rule(seconds=st.floats(0, 10_000))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(seconds=st.floats(-10_000, 10_000))
    def set_clock(self, seconds: float) -> None:
        self.clock.offset += seconds

    @rule(room=st.integers(0, 1500))
    def fill_disk(self, room: int) -> None:
        self.room = room

    @rule()
    def free_disk(self) -> None:
        self.room = None

    @rule()
    def restart(self) -> None:
        self.room = None
        self.log.close()
        self.log = self.opened()

    @rule(torn=st.integers(0, 60))
    def kill(self, torn: int) -> None:
        """The process ends in the middle: its handles are gone, and a line may be half written."""
        self.room = None
        self.log._leave_to_parent()
        with segments_of(self.place / "log")[-1].open("ab") as file:
            file.write(b'{"action":"order.placed","actor":"root","content":null,"data":'[:torn])
        self.log = self.opened()

    @invariant()
    def is_sound_and_complete(self) -> None:
        if not hasattr(self, "log"):
            return
        anchors = [each for each in [self.place / "heads.jsonl"] if each.exists()]
        found = verify(self.place / "log", KEY, anchors=anchors)
        assert found.sound, found.faults
        numbers = [e.record.data["number"] for e in _in_order(self.place / "log")]
        assert numbers == self.written

    def teardown(self) -> None:
        if hasattr(self, "log"):
            self.room = None
            lost = self.lost
            self.log.record("order.ended")
            self.log.close()
            os.write = self.real_write
            killed = verify(self.place / "log", KEY)
            assert killed.gaps <= lost  # what a killed process had not said yet, it took with it
            shutil.rmtree(self.place)


def _in_order(path: Path) -> list[Entry]:
    """Of one chain, so that a clock that was set back does not mix the order."""
    found = list(read(path, Selection(action="order.placed")))
    return sorted(found, key=lambda entry: entry.record.seq)


TestLog = LogMachine.TestCase
TestLog.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
