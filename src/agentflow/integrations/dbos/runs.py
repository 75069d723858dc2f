"""Runs as rows of DBOS: what is read of them, and each change of how one stands. Blocking: called in threads.

Changes look and act while they hold the run's lock, so that of two processes that go on with a run, answer or cancel
it, one comes first and the other sees what that one did.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from agentflow.core.durability.records import Record, RunInfo, RunSpec, RunStatus
from agentflow.errors import AnswerError, DurabilityError, RunEndedError, RunExistsError, RunHeldError, UnknownRunError
from agentflow.integrations.dbos.journal import REPLACED
from agentflow.integrations.dbos.leases import Leases
from agentflow.integrations.dbos.standing import ANSWER, PARKED, Standing, totals_of
from agentflow.integrations.dbos.wire import Json, record_from, record_to, spec_to
from agentflow.integrations.dbos.workflows import RUN, workflows

if TYPE_CHECKING:
    from dbos import StepInfo

__all__ = ["TIMERS", "Kept", "Runs", "queue_of"]

TIMERS: Final = "agentflow-timers"
"""The queue of what is due at some time; all workers listen to it."""

_PAST_ALL: Final = 2**31 - 1  # a step that no run has: going back to it takes nothing away
_MOST: Final = 10  # runs that an UnknownRunError names


def queue_of(engine: str) -> str:
    """The queue that this engine alone listens to."""
    return f"agentflow-of-{engine}"


@dataclass(frozen=True, slots=True)
class Kept:
    """Of one run: how it stands, its records, and the number of its last step in DBOS."""

    standing: Standing
    records: Sequence[Record]
    last_step: int


class Runs:
    """`queue` is the one to run in, None for this process."""

    def __init__(self, leases: Leases, engine: str, queue: str | None, where: str) -> None:
        self._leases = leases
        self._engine = engine
        self._queue = queue
        self._where = where

    # ---- reading ---------------------------------------------------------------------------------------------

    def look(self, run_id: str) -> Standing | None:
        from dbos import DBOS

        rows = DBOS.list_workflows(workflow_ids=[run_id], name=RUN)
        return Standing(rows[0]) if rows else None

    def known(self, begin: str) -> Standing:
        """The run of that id, or the only one whose id begins so. Raises UnknownRunError."""
        from dbos import DBOS

        if (exact := self.look(begin)) is not None:
            return exact
        rows = DBOS.list_workflows(workflow_id_prefix=begin, name=RUN, limit=_MOST) if begin else []
        if len(rows) != 1:
            raise UnknownRunError(begin, [row.workflow_id for row in rows], path=self._where)
        return Standing(rows[0])

    def kept(self, run_id: str) -> Kept:
        """Raises UnknownRunError."""
        from dbos import DBOS

        standing = self.known(run_id)
        steps = DBOS.list_workflow_steps(standing.id)
        records = _records_of(standing.seed, steps)
        records |= {answer.id: answer for answer in standing.answers}
        return Kept(standing, list(records.values()), max((step["function_id"] for step in steps), default=0))

    def is_under_way(self, run_id: str) -> bool:
        """Whether more may come of it just now. Raises UnknownRunError."""
        standing = self.known(run_id)
        return standing.is_executed or standing.is_queued

    def due(self, flow: str | None, moment: float, limit: int) -> list[RunInfo]:
        """Those that have been answered, or are due by then, the earliest first. All that wait are looked at."""
        waiting = self._standings(flow, "waiting", None)
        dues = {one.id: 0.0 if one.answers else one.due for one in waiting}
        wanted = [one for one in waiting if (due := dues[one.id]) is not None and due <= moment]
        infos = [info for info in self.infos(wanted) if info.status == "waiting"]
        return sorted(infos, key=lambda info: dues[info.run_id] or 0.0)[:limit]

    def infos(self, standings: Sequence[Standing]) -> list[RunInfo]:
        owners = {one.row.executor_id for one in standings if one.is_executed and one.row.executor_id}
        alive = self._leases.alive(owners)
        return [
            one.info(one.row.executor_id in alive, self.kept(one.id).records if one.is_executed else None)
            for one in standings
        ]

    def listed(self, flow: str | None, status: RunStatus | None, limit: int | None) -> list[RunInfo]:
        """The newest first."""
        infos = [info for info in self.infos(self._standings(flow, status, limit)) if status in (None, info.status)]
        return sorted(infos, key=lambda info: info.created, reverse=True)[:limit]

    def _standings(self, flow: str | None, status: RunStatus | None, limit: int | None) -> list[Standing]:
        from dbos import DBOS

        found: dict[str, Standing] = {}
        for chosen in _choices(status):
            attributes = {**chosen.pop("attributes", {}), **({"flow": flow} if flow is not None else {})}
            rows = DBOS.list_workflows(name=RUN, attributes=attributes or None, sort_desc=True, limit=limit, **chosen)
            found |= {row.workflow_id: Standing(row) for row in rows}
        return list(found.values())

    # ---- changing --------------------------------------------------------------------------------------------

    def enqueue(self, spec: RunSpec, queue: str, seed: Sequence[Record] = ()) -> bool:
        """A new run that waits in that queue: false where its id is taken."""
        from dbos import DBOS, SetWorkflowAttributes, SetWorkflowID, error

        given = {"spec": spec_to(spec), "seed": [record_to(record) for record in seed]}
        attributes = {"flow": spec.flow, "queue": None if queue == PARKED else queue, **totals_of(seed)}
        try:
            with (
                SetWorkflowID(spec.run_id, workflow_id_reuse_policy="reject"),
                SetWorkflowAttributes(attributes),
            ):
                DBOS.enqueue_workflow(queue, workflows().run, given)
        except error.DBOSWorkflowIDInUseError:
            return False
        return True

    def submit(self, spec: RunSpec) -> None:
        if self._queue is None:
            raise DurabilityError("an engine without a queue has none to put runs into: give it queue=")
        if not self.enqueue(spec, self._queue):
            self.checked(spec, self.known(spec.run_id))
            self.go_on(spec.run_id, self._queue)

    def checked(self, spec: RunSpec, standing: Standing) -> None:
        """Raises RunExistsError where the run began with something else."""
        if (standing.spec.flow, standing.spec.inputs) != (spec.flow, spec.inputs):
            text = f"there is a run {spec.run_id} already, which began with another flow or other inputs"
            raise RunExistsError(text, run_id=spec.run_id)

    def fork(self, spec: RunSpec, update: Record | None) -> None:
        assert spec.forked_from is not None
        records = list(self.kept(spec.forked_from).records)
        if spec.forked_at is not None:
            ids = [record.id for record in records]
            if spec.forked_at not in ids:
                text = f"run {spec.forked_from} has kept nothing of the id {spec.forked_at!r}"
                raise DurabilityError(text, run_id=spec.forked_from)
            records = records[: ids.index(spec.forked_at)]
        records += [update] if update is not None else []
        if not self.enqueue(spec, PARKED, records):
            raise RunExistsError(f"there is a run {spec.run_id} already", run_id=spec.run_id)

    def go_on(self, run_id: str, queue: str | None) -> None:
        """Have it executed again, here or by a worker. Raises RunHeldError where a living process of another kind has
        it; one that waits for a worker, or is with one, is left there."""
        own = queue_of(self._engine)
        with self._leases.on_run(run_id):
            standing = self.known(run_id)
            if standing.status(alive=True) == "done":
                return
            if standing.is_cancelled_for_good:
                raise RunEndedError(run_id, "cancelled", "was cancelled for good: begin another, or fork it")
            owner = _owner(standing)
            if owner is not None and not self._leases.is_dead(owner):
                if queue is not None and standing.queue == queue:
                    return
                raise RunHeldError(run_id, owner)
            if standing.is_queued and standing.row.queue_name == queue:
                return
            self._note(run_id, {"queue": queue, "adopted": 0})
            self._requeue(standing, queue or own)

    def _requeue(self, standing: Standing, queue: str) -> None:
        from dbos import DBOS

        if standing.row.status in ("SUCCESS", "ERROR"):
            DBOS.rewind_workflow(standing.id, start_step=_PAST_ALL, queue_name=queue)
        else:
            DBOS.resume_workflow(standing.id, queue_name=queue)

    def take_over(self, run_id: str, dead: str, most: int) -> bool:
        """Have a run that a dead engine had executed by the living. False where it was taken over `most` times without
        getting to an end: perhaps it is what kills them."""
        with self._leases.on_run(run_id):
            standing = self.look(run_id)
            if standing is None or _owner(standing) != dead:
                return True
            times = standing.attributes.get("adopted", 0)
            if times >= most:
                return False
            self._note(run_id, {"adopted": times + 1})
            self._requeue(standing, standing.queue or queue_of(self._engine))
            return True

    def set_alarm(self, run_id: str, due: float) -> None:
        from dbos import DBOS, SetEnqueueOptions, SetWorkflowID

        delay = max(0.0, due - time.time())
        with SetWorkflowID(f"{run_id}!due:{due:.3f}"), SetEnqueueOptions(delay_seconds=delay):
            DBOS.enqueue_workflow(TIMERS, workflows().wake, run_id)

    def wake(self, run_id: str, now: float) -> None:
        """Go on with a parked run of a queue that is due."""
        with self._leases.on_run(run_id):
            standing = self.look(run_id)
            if standing is None or standing.queue is None or standing.status(alive=True) != "waiting":
                return
            if standing.due is not None and standing.due <= now:
                self._requeue(standing, standing.queue)

    def answer(self, run_id: str, answers: Mapping[str, str]) -> None:
        run_id = self.known(run_id).id
        with self._leases.on_run(run_id):
            kept = self.kept(run_id)
            over = kept.standing.is_cancelled_for_good or kept.standing.status(alive=True) == "done"
            known = {record.id for record in kept.records if record.kind in ("wait", "answer")}
            known |= {one.id for one in kept.standing.interrupts}
            for interrupt in answers:
                answered = f"{interrupt}!answer" in known
                if over or answered or interrupt not in known:
                    text = f"run {run_id} does not wait for an answer to {interrupt}{': it has one' * answered}"
                    raise AnswerError(text, run_id=run_id, interrupt=interrupt)
            now = time.time()
            records = {name: Record(f"{name}!answer", "answer", body, now) for name, body in answers.items()}
            self._note(run_id, {f"{ANSWER}{name}": record_to(record) for name, record in records.items()})

    def cancel(self, run_id: str) -> bool:
        """For good. False where it has ended."""
        from dbos import DBOS

        with self._leases.on_run(run_id):
            standing = self.known(run_id)
            if standing.is_cancelled_for_good or standing.status(alive=True) in ("done", "failed"):
                return False
            self._note(run_id, {"cancelled": True})
            DBOS.cancel_workflow(run_id)
            return True

    def stop(self, run_id: str) -> None:
        """Its caller was cancelled: it may be resumed."""
        from dbos import DBOS

        DBOS.cancel_workflow(run_id)

    def delete(self, run_id: str) -> None:
        from dbos import DBOS

        run_id = self.known(run_id).id
        with self._leases.on_run(run_id):
            owner = _owner(self.known(run_id))
            if owner is not None and not self._leases.is_dead(owner):
                raise RunHeldError(run_id, owner)
            DBOS.delete_workflow(run_id)

    def respecify(self, run_id: str, graph: str) -> None:
        self._note(run_id, {"graph": graph})

    def end_stretch(self, run_id: str, told: Json) -> None:
        """What is to be known of a run without reading all of it, as of now."""
        self._note(run_id, told)

    def _note(self, run_id: str, attributes: Json) -> None:
        from dbos import DBOS

        DBOS.update_workflow_attributes(run_id, attributes, merge=True)

    # ---- schedules -------------------------------------------------------------------------------------------

    def schedule(self, name: str, cron: str, spec: RunSpec, timezone: str | None) -> None:
        from dbos import DBOS, ScheduleInput

        if self._queue is None:
            raise DurabilityError("a schedule puts its runs into a queue: give the engine queue=")
        given = {"name": name, "spec": spec_to(spec), "queue": self._queue}
        wanted = ScheduleInput(
            schedule_name=name,
            workflow_fn=workflows().fire,
            schedule=cron,
            context=given,
            cron_timezone=timezone,
            queue_name=TIMERS,
        )
        DBOS.apply_schedules([wanted])

    def trigger(self, name: str) -> None:
        from dbos import DBOS

        DBOS.trigger_schedule(name)

    def unschedule(self, name: str) -> None:
        from dbos import DBOS

        DBOS.delete_schedule(name)


def _owner(standing: Standing) -> str | None:
    """The engine that has it: it runs there, or is about to."""
    if standing.is_executed:
        return standing.row.executor_id
    queue = standing.row.queue_name or ""
    prefix = queue_of("")
    return queue.removeprefix(prefix) if standing.is_queued and queue.startswith(prefix) else None


def _records_of(seed: Iterable[Record], steps: Iterable[StepInfo]) -> dict[str, Record]:
    """By their ids, in the order in which they were first saved. Other steps are DBOS's own, or pieces."""
    records = {record.id: record for record in seed}
    for step in steps:
        held = step["output"]
        if step["function_name"] == REPLACED and isinstance(held, list):
            records = {record.id: record for record in map(record_from, held)}
        elif isinstance(held, Mapping) and step["function_name"] == f"{held.get('kind')} {held.get('id')}":
            records[held["id"]] = record_from(held)
    return records


def _choices(status: RunStatus | None) -> list[dict[str, Any]]:
    """What to ask DBOS for so that no run of that status is missing."""
    match status:
        case None:
            return [{}]
        case "running" | "lost":
            return [{"status": ["PENDING", "ENQUEUED", "DELAYED"]}]
        case "waiting":
            return [{"attributes": {"standing": "waiting"}}, {"queue_name": PARKED, "status": "ENQUEUED"}]
        case "cancelled":
            return [{"status": "CANCELLED"}, {"attributes": {"cancelled": True}}]
        case "failed":
            return [{"attributes": {"standing": "failed"}}, {"status": ["ERROR", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]}]
        case _:
            return [{"attributes": {"standing": status}}]
