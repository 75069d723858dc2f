"""Who cancels a run that nobody is running says so in its place."""

from __future__ import annotations

from pathlib import Path

from tests.support.run_events import START, RunEvents

from agentflow.core import ExecutionEvent
from agentflow.core.observability.ending import told_cancelled
from agentflow.core.observability.observers import observe
from agentflow.core.observability.store import RunReader, RunStore


class Seen:
    inline = True

    def __init__(self) -> None:
        self.events: list[ExecutionEvent] = []

    def observe(self, event: ExecutionEvent) -> None:
        self.events.append(event)


def test_all_who_watch_hear_of_it() -> None:
    seen = Seen()
    with observe(seen):
        told_cancelled("order", "run1", reason="the customer is gone", at=START)
    [event] = seen.events
    assert (event.kind, event.run_id, event.path, event.sequence, event.time) == ("cancel", "run1", "order", 0, START)
    assert event.data == {"reason": "the customer is gone"}


def test_with_nobody_watching_nothing_happens() -> None:
    told_cancelled("order", "run1")


def test_the_store_knows_that_the_run_has_ended(tmp_path: Path) -> None:
    run = RunEvents()
    run.end(run.begin("flow", "order"), "interrupted", breakdown={})
    with RunStore(tmp_path / "runs.db", max_age=None) as store:
        for event in run.events:
            store.observe(event)
        with observe(store):
            told_cancelled("order", run.run_id, at=START + 60.0)
    with RunReader(tmp_path / "runs.db") as reader:
        found = reader.find("run1")
    assert (found.status, found.duration) == ("cancelled", 60.0)
