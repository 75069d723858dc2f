"""Several processes behind one `/metrics`: what each has counted is added up, and nothing goes back when one ends."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentflow.clock import VirtualClock
from agentflow.core.observability.metrics.collector import MetricsCollector
from agentflow.core.observability.metrics.snapshot import MetricsSnapshot
from agentflow.core.observability.observers import Observation
from agentflow.errors import ConfigurationError
from agentflow.integrations.prometheus import Losses, PrometheusCollector, SnapshotFolder
from agentflow.integrations.prometheus.exposition import text

SELDOM = 3600.0  # seconds: in these tests a snapshot is written when the test says so


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert [thread.name for thread in threading.enumerate() if "metrics" in thread.name] == []


def worker(folder: Path, rows: float, **options: object) -> SnapshotFolder:
    """A process that has counted so many rows, and has one thing under way."""
    metrics = MetricsCollector()
    metrics.count("rows", rows)
    metrics.gauge("under_way", 1.0)
    metrics.record("size_bytes", rows)
    return SnapshotFolder(folder, metrics, every=SELDOM, losses=Losses(lambda: ()), **options)  # type: ignore[arg-type]


def test_all_processes_are_added_up(tmp_path: Path) -> None:
    """Counters, gauges and histograms; each process tells the same."""
    with worker(tmp_path, 2.0) as one, worker(tmp_path, 3.0) as two, worker(tmp_path, 5.0) as three:
        for each in (one, two, three):
            assert each.write()
        for each in (one, two, three):
            all_of_them = each.snapshot()
            assert all_of_them.value("rows") == 10.0
            assert all_of_them.value("under_way") == 3.0
            assert all_of_them.value("size_bytes", "count") == 3.0


def test_its_own_are_as_they_are_now(tmp_path: Path) -> None:
    """What this process counted since its file was written counts, once."""
    metrics = MetricsCollector()
    with SnapshotFolder(tmp_path, metrics, every=SELDOM) as folder:
        metrics.count("rows")
        folder.write()
        metrics.count("rows")
        assert folder.snapshot().value("rows") == 2.0


def test_what_a_process_counted_stays_when_it_ends(tmp_path: Path) -> None:
    """A counter that went back would read as a restart. What it had under way is over."""
    with worker(tmp_path, 2.0) as one:
        worker(tmp_path, 3.0).close()
        assert one.snapshot().value("rows") == 5.0
        assert one.snapshot().value("under_way") == 1.0


def test_a_process_that_died_has_nothing_under_way(tmp_path: Path) -> None:
    """Its file is not written any more; after ten times that long its gauges are taken for gone."""
    clock = VirtualClock()
    metrics = MetricsCollector()
    metrics.count("rows", 4.0)
    metrics.gauge("under_way", 1.0)
    dead = MetricsSnapshot(clock.time(), metrics.snapshot().series)
    (tmp_path / "4711-dead.json").write_text(dead.to_json(), encoding="utf-8")
    with SnapshotFolder(tmp_path, MetricsCollector(), every=SELDOM, clock=clock) as folder:
        assert folder.snapshot().value("under_way") == 1.0

        async def later() -> None:
            await clock.sleep(11 * SELDOM)

        clock.run(later())
        assert folder.snapshot().value("under_way") is None
        assert folder.snapshot().value("rows") == 4.0


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"version": 99}', b"\xff\xfe", b'{"version":1,"time":"x"}'])
def test_a_file_that_cannot_be_read_is_passed_over_and_counted(tmp_path: Path, content: bytes) -> None:
    """The others' numbers are shown all the same."""
    (tmp_path / "1-a.json").write_bytes(content)
    with worker(tmp_path, 2.0) as one:
        assert one.snapshot().value("rows") == 2.0
        assert one.snapshot().value("telemetry_lost", labels={"reason": "not read"}) == 1.0


def test_a_folder_that_is_gone_costs_nobody_anything(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What could not be written is counted and logged; this process is still shown."""
    folder = tmp_path / "metrics"
    with worker(folder, 2.0) as one:
        assert one.write()
        shutil.rmtree(folder)
        assert not one.write()
        assert one.snapshot().value("rows") == 2.0
        assert (one.snapshot().value("telemetry_lost", labels={"reason": "not written"}) or 0.0) >= 1.0
    assert caplog.messages == ["snapshots of metrics cannot be written: No such file or directory"]


def test_a_folder_that_cannot_be_is_refused(tmp_path: Path) -> None:
    """Before a thread begins."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="cannot be kept in"):
        SnapshotFolder(tmp_path / "file", MetricsCollector())
    with pytest.raises(ConfigurationError, match="every"):
        SnapshotFolder(tmp_path, MetricsCollector(), every=0)


def test_it_is_written_without_being_asked(tmp_path: Path) -> None:
    """At the beginning, and every so often; closing twice does it once."""
    with worker(tmp_path, 2.0) as one:
        pass
    one.close()
    [file] = tmp_path.iterdir()
    assert MetricsSnapshot.from_json(file.read_bytes()).value("rows") == 2.0


def test_other_processes_losses_are_shown(tmp_path: Path) -> None:
    """Each file holds what its process's observers lost; a collector adds those of its own, once."""

    def lossy(raised: int) -> Losses:
        observation = Observation(MetricsCollector())
        observation.failed = raised
        return Losses(lambda: [observation])

    ours = lossy(1)
    with (
        SnapshotFolder(tmp_path, MetricsCollector(), every=SELDOM, losses=ours) as one,
        SnapshotFolder(tmp_path, MetricsCollector(), every=SELDOM, losses=lossy(10)) as two,
    ):
        one.write()
        two.write()
        written = text(PrometheusCollector(one, losses=ours)).decode()
    assert 'agentflow_telemetry_lost_total{observer="MetricsCollector",reason="raised"} 11.0' in written
    assert 'agentflow_telemetry_lost_total{observer="SnapshotFolder",reason="not read"} 0.0' in written


PROGRAM = """
import sys
from agentflow.core.observability.metrics.collector import MetricsCollector
from agentflow.integrations.prometheus import SnapshotFolder
metrics = MetricsCollector()
with SnapshotFolder(sys.argv[1], metrics, every=0.01):
    for _ in range(1000):
        metrics.count("rows")
        metrics.record("size_bytes", 3.0)
"""


def test_real_processes_lose_nothing(tmp_path: Path) -> None:
    """Three that write while a fourth reads: whatever is read is whole, and in the end it is all there."""
    others = [subprocess.Popen([sys.executable, "-c", PROGRAM, str(tmp_path)]) for _ in range(3)]
    with SnapshotFolder(tmp_path, MetricsCollector(), every=SELDOM) as folder:
        seen = [0.0]
        while any(other.poll() is None for other in others):
            seen.append(folder.snapshot().value("rows") or 0.0)
        assert [other.returncode for other in others] == [0, 0, 0]
        last = folder.snapshot()
    assert seen == sorted(seen)
    assert (last.value("rows"), last.value("size_bytes", "sum")) == (3000.0, 9000.0)
    assert last.value("telemetry_lost", labels={"reason": "not read"}) == 0.0
