"""What a run has done so far, step by step, read from its journal.

for step in await flow.history(run_id):
    print(step.id, step.action, step.changed, step.attempts, step.cost)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from agentflow.core.durability.bodies import answered, error_in, result_in, step_in, writes_in
from agentflow.core.durability.interrupts import answer_id, interrupt_in
from agentflow.core.durability.records import Interrupt, Record
from agentflow.core.state import Writes

__all__ = ["CallHistory", "StepHistory", "history_of"]

_STEPS: Final = ("step", "item", "exec", "undo", "update")


@dataclass(frozen=True, slots=True)
class CallHistory:
    """One call of a model or a tool in a step. `cost` is in US dollars, None where nobody knows."""

    id: str
    at: float
    seconds: float
    cost: float | None
    tokens: int


@dataclass(frozen=True, slots=True)
class StepHistory:
    """One step: a visit of a node, an item of an `Each`, the undoing of a step, a change that a fork made, a question.

    `status` is "begun" while exec has returned and post has not, or where calls are all there is yet. `at` is wall time
    when it was over, `seconds` how long it took. `changed` is what it wrote, `added` what it contributed through
    reducers, `result` what an item came to. `cost` is in US dollars, None where nobody knows.
    """

    id: str
    status: Literal["done", "begun", "failed", "undone", "changed", "waiting", "answered"]
    at: float
    seconds: float = 0.0
    action: str | None = None
    changed: Mapping[str, object] = field(default_factory=dict)
    removed: Sequence[str] = ()
    added: Mapping[str, Sequence[object]] = field(default_factory=dict)
    result: object = None
    error: Exception | None = None
    attempts: int = 1
    cost: float | None = 0.0
    tokens: int = 0
    calls: tuple[CallHistory, ...] = ()
    interrupt: Interrupt | None = None
    answer: object = None

    @property
    def node(self) -> str:
        """The name of the node."""
        last = self.id.partition("!")[0].rpartition("/")[2]
        return last.partition("#")[0]


def history_of(records: Sequence[Record]) -> list[StepHistory]:
    """The steps in the order in which they were first kept."""
    by_id = {record.id: record for record in records}
    calls = _calls(records)
    known = {record.id for record in records if record.kind in _STEPS}
    found = [step for record in records if (step := _step(record, by_id, calls)) is not None]
    begun = [_begun(path, made) for path, made in calls.items() if path not in known]
    return sorted([*found, *begun], key=lambda step: step.at) if begun else found


def _calls(records: Iterable[Record]) -> Mapping[str, tuple[CallHistory, ...]]:
    """The calls by the step they were made in."""
    found: dict[str, tuple[CallHistory, ...]] = {}
    for record in records:
        if record.kind == "call":
            call = CallHistory(record.id, record.at, record.seconds, record.cost, record.tokens)
            path = record.id.partition("!call:")[0]
            found[path] = (*found.get(path, ()), call)
    return found


def _begun(path: str, calls: tuple[CallHistory, ...]) -> StepHistory:
    """A step of which there is nothing yet but its calls."""
    costs = [call.cost for call in calls]
    known = [cost for cost in costs if cost is not None]
    cost = sum(known) if len(known) == len(costs) else None
    return StepHistory(path, "begun", calls[-1].at, cost=cost, tokens=sum(call.tokens for call in calls), calls=calls)


def _step(
    record: Record, by_id: Mapping[str, Record], calls: Mapping[str, tuple[CallHistory, ...]]
) -> StepHistory | None:
    id = record.id
    match record.kind:
        case "step":
            action, writes = step_in(record)
            return _with_calls(
                StepHistory(id, "done", record.at, record.seconds, action, *_written(writes)), record, calls
            )
        case "item" if id.endswith("!error"):
            return StepHistory(id.removesuffix("!error"), "failed", record.at, error=error_in(record))
        case "item":
            done = StepHistory(id, "done", record.at, record.seconds, None, *_written(writes_in(record)))
            return _with_calls(replace(done, result=result_in(record)), record, calls)
        case "exec":
            begun = StepHistory(id, "begun", record.at, record.seconds, result=result_in(record))
            return _with_calls(begun, record, calls)
        case "undo":
            return StepHistory(id.removesuffix("!undo"), "undone", record.at, record.seconds)
        case "update":
            return StepHistory(
                id.removesuffix("!update"), "changed", record.at, 0.0, None, *_written(writes_in(record))
            )
        case "wait":
            return _question(record, by_id.get(answer_id(id)))
    return None


def _with_calls(step: StepHistory, record: Record, calls: Mapping[str, tuple[CallHistory, ...]]) -> StepHistory:
    made = calls.get(record.id, ())
    return replace(step, attempts=record.attempts, cost=record.cost, tokens=record.tokens, calls=made)


def _written(writes: Writes) -> tuple[Mapping[str, object], Sequence[str], Mapping[str, Sequence[object]]]:
    return writes.assigned, writes.removed, {name: values for name, (_, values) in writes.added.items()}


def _question(record: Record, answer: Record | None) -> StepHistory:
    question = interrupt_in(record)
    if answer is None:
        return StepHistory(record.id, "waiting", record.at, interrupt=question)
    _, value = answered(answer)
    return StepHistory(record.id, "answered", answer.at, answer.at - record.at, interrupt=question, answer=value)
