"""Several processes behind one `/metrics`: each writes its snapshot into a folder, and whoever is asked adds them up.

    worker 1 ──every 2 s──▶ folder/4711-9f….json ─┐
    worker 2 ──every 2 s──▶ folder/4712-03….json ─┼──▶ snapshot(): its own as it is now, the others' as written
    worker 3 ──at its end─▶ folder/4713-77….json ─┘

    metrics = MetricsCollector()
    with observe(metrics), SnapshotFolder("/run/myapp/metrics", metrics) as all_of_us:
        app = wsgi_app(PrometheusCollector(all_of_us))

What a process counted stays when it ends, so that counters never go back; what it had under way does not. Empty the
folder when the whole program starts, not when one process of it does. A file that cannot be written or read is counted
and passed over: the others' are shown.
"""

from __future__ import annotations

import logging
import os
import threading
import uuid
from dataclasses import replace
from functools import reduce
from pathlib import Path
from types import TracebackType
from typing import Final

from agentflow.clock import Clock, SystemClock
from agentflow.core.observability.metrics.snapshot import MetricsSnapshot, Series
from agentflow.errors import ConfigurationError
from agentflow.integrations.prometheus.exposition import Snapshots
from agentflow.integrations.prometheus.losses import Losses

__all__ = ["SnapshotFolder"]

_log: Final = logging.getLogger("agentflow.prometheus")
_CLOCK: Final = SystemClock()
_GONE: Final = 10  # times `every`: a file that old is of a process that died


class SnapshotFolder:
    """`every` is after how many seconds it is written again. Made in each process, after a fork.

    Raises ConfigurationError for a folder that cannot be.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        metrics: Snapshots,
        *,
        every: float = 2.0,
        losses: Losses | None = None,
        clock: Clock = _CLOCK,
    ) -> None:
        if not every > 0:
            raise ConfigurationError(f"every must be more than 0 seconds, not {every!r}")
        self._folder = _made(Path(folder))
        self._own = self._folder / f"{os.getpid()}-{uuid.uuid4().hex[:12]}.json"
        self._metrics = metrics
        self._every = every
        self._losses = losses or Losses()
        self._clock = clock
        self._lost = {"not written": 0, "not read": 0}
        self._failing = False
        self._writing = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._go_on, name="agentflow metrics folder", daemon=True)
        self._thread.start()

    def snapshot(self) -> MetricsSnapshot:
        """Of all processes together. The observers' losses of this one are for its collector to tell."""
        own = self._metrics.snapshot()
        mine = replace(own, series=(*own.series, *self._shortcomings()))
        return reduce(MetricsSnapshot.merged, self._others(), mine)

    def write(self) -> bool:
        """Write this process's now. Whether that could be done."""
        return self._write(self._snapshot_with_losses())

    def close(self) -> None:
        """Write it for the last time, without what was under way."""
        if self._over.is_set():
            return
        self._over.set()
        self._thread.join()
        self._write(_at_rest(self._snapshot_with_losses()))

    def __enter__(self) -> SnapshotFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _go_on(self) -> None:
        while True:
            self.write()
            if self._over.wait(self._every):
                return

    def _snapshot_with_losses(self) -> MetricsSnapshot:
        own = self._metrics.snapshot()
        return replace(own, series=(*own.series, *self._losses.series(), *self._shortcomings()))

    def _write(self, snapshot: MetricsSnapshot) -> bool:
        beside = self._own.with_suffix(".new")
        with self._writing:
            try:
                beside.write_text(snapshot.to_json(), encoding="utf-8")
                beside.replace(self._own)
            except (OSError, ValueError) as error:  # ValueError: a sum that is no number any more
                if not self._failing:
                    reason = getattr(error, "strerror", None) or type(error).__name__
                    _log.warning("snapshots of metrics cannot be written: %s", reason)
                self._failing = True
                self._lost["not written"] += 1
            else:
                self._failing = False
            return not self._failing

    def _others(self) -> list[MetricsSnapshot]:
        found = []
        for path in sorted(self._folder.glob("*.json")):
            if path != self._own:
                try:
                    snapshot = MetricsSnapshot.from_json(path.read_bytes())
                except (OSError, ConfigurationError):
                    self._lost["not read"] += 1
                else:
                    gone = self._clock.time() - snapshot.time > _GONE * self._every
                    found.append(_at_rest(snapshot) if gone else snapshot)
        return found

    def _shortcomings(self) -> list[Series]:
        labels = [{"observer": "SnapshotFolder", "reason": reason} for reason in self._lost]
        return [Series("telemetry_lost", "counter", each, float(self._lost[each["reason"]])) for each in labels]


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"metrics cannot be kept in {folder}: {error.strerror}") from None
    return folder


def _at_rest(snapshot: MetricsSnapshot) -> MetricsSnapshot:
    """Without its gauges: they were about a process that is no more."""
    return replace(snapshot, series=tuple([each for each in snapshot.series if each.kind != "gauge"]))
