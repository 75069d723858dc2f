"""A thread that looks after runs: whether those here are still ours, and what the dead have left.

every beat    of the runs executed here: one that was cancelled, or taken over, is ended here
              while this process works: engines without their lock for `grace` seconds are dead, and their runs go
              back into their queues, or on here where this process serves their flow
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from agentflow.integrations.dbos.bodies import Stretch
from agentflow.integrations.dbos.leases import Lease, Leases
from agentflow.integrations.dbos.runs import Runs, queue_of
from agentflow.integrations.dbos.workflows import RUN

__all__ = ["Keeper"]

_LOG: Final = logging.getLogger("agentflow.durability")


class Keeper:
    """`serves` says whether a flow can be run here."""

    def __init__(
        self,
        runs: Runs,
        leases: Leases,
        lease: Lease,
        engine: str,
        *,
        beat: float,
        most: int,
        serves: Callable[[str], bool],
    ) -> None:
        self._runs = runs
        self._leases = leases
        self._lease = lease
        self._engine = engine
        self._beat = beat
        self._most = most
        self._serves = serves
        self._here: dict[str, Stretch] = {}
        self._lock = threading.Lock()
        self._missing: dict[str, float] = {}
        self._given_up: set[str] = set()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="agentflow-keeper", daemon=True)
        self.works = False

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._end.set()
        if self._thread.ident is not None:
            self._thread.join(5)

    def add(self, run_id: str, stretch: Stretch) -> None:
        with self._lock:
            self._here[run_id] = stretch

    def remove(self, run_id: str, stretch: Stretch) -> None:
        with self._lock:
            if self._here.get(run_id) is stretch:
                del self._here[run_id]

    def here(self, run_id: str) -> Stretch | None:
        with self._lock:
            return self._here.get(run_id)

    def _keep(self) -> None:
        while not self._end.wait(self._beat):
            try:
                self._look_after_ours()
                if self.works and self._lease.held_for() >= self._leases.grace:
                    self._look_for_the_dead()
            except Exception as error:  # noqa: BLE001 - a server that is away must not end what waits for it
                if not self._end.is_set():
                    _LOG.warning("cannot look after runs just now: %s", type(error).__name__)

    def _look_after_ours(self) -> None:
        from dbos import DBOS

        with self._lock:
            here = dict(self._here)
        if not here:
            return
        rows = DBOS.list_workflows(workflow_ids=list(here), load_input=False, load_output=False)
        ours = {row.workflow_id for row in rows if row.status == "PENDING" and row.executor_id == self._engine}
        cancelled = {row.workflow_id for row in rows if row.status == "CANCELLED"}
        for run_id, stretch in here.items():
            if run_id not in ours and self.here(run_id) is stretch:
                stretch.end("cancelled" if run_id in cancelled else "fenced")

    def _look_for_the_dead(self) -> None:
        from dbos import DBOS

        # What waits in the queue of one engine alone is lost with it, too.
        pending = DBOS.list_workflows(name=RUN, status="PENDING", load_input=False, load_output=False)
        queued = DBOS.list_workflows(name=RUN, status="ENQUEUED", load_input=False, load_output=False)
        mine = queue_of("")
        owned = [(row, row.executor_id) for row in pending if row.executor_id]
        waiting = [(row, row.queue_name or "") for row in queued]
        owned += [(row, queue.removeprefix(mine)) for row, queue in waiting if queue.startswith(mine)]
        engines = {engine for _, engine in owned} - {self._engine}
        alive = self._leases.alive(engines)
        now = time.monotonic()
        self._missing = {engine: self._missing.get(engine, now) for engine in engines - alive}
        for engine, since in self._missing.items():
            if now - since >= self._leases.grace:
                self._take_over(
                    engine, [(row.workflow_id, row.attributes or {}) for row, one in owned if one == engine]
                )

    def _take_over(self, dead: str, runs: list[tuple[str, dict[str, object]]]) -> None:
        with self._leases.in_place_of(dead) as dead_indeed:
            if not dead_indeed:
                return
            for run_id, attributes in runs:
                can = attributes.get("queue") or self._serves(str(attributes.get("flow")))
                if can and not self._runs.take_over(run_id, dead, self._most) and run_id not in self._given_up:
                    self._given_up.add(run_id)
                    _LOG.warning("run %s is left alone: %d processes died with it", run_id, self._most)
