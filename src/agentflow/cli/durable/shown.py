"""A durable run and its steps as rows and lines: what `agentflow runs show` prints.

article 1a21…: waiting, began 14:03:20, last moved 14:03:22
from    /work/article.py:flow
input   {"args": [], "topic": "tides"}

step        status   took   tries  calls  tokens  cost   wrote
plan#1      done     3 ms   1      2      1.2k    $0.01  outline = "…"
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from agentflow.cli.durable.questions import moment
from agentflow.cli.durable.readable import as_plain, clean, in_one_line
from agentflow.cli.tracing.amounts import dollars, duration, tokens
from agentflow.core.durability.history import StepHistory
from agentflow.core.durability.records import Interrupt, RunInfo
from agentflow.errors import describe

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["heading", "info_json", "step_json", "steps_table", "wrote"]

_STYLES: Final = {"failed": "red", "waiting": "magenta", "undone": "yellow", "changed": "cyan", "begun": "yellow"}
_MIDDLING, _WIDE = 90, 120


def heading(info: RunInfo, inputs: object) -> Iterator[str]:
    """What it began with, and how it stands."""
    yield f"{clean(info.spec.flow)} {info.run_id}: {_standing(info)}"
    if info.error:
        yield f"error   {clean(info.error)}"
    if info.spec.source:
        yield f"from    {info.spec.source}"
    if info.spec.forked_from:
        yield f"forked  from {info.spec.forked_from}, at {info.spec.forked_at}"
    if info.spec.tenant:
        yield f"tenant  {info.spec.tenant}"
    yield f"input   {in_one_line(inputs)}"


def _standing(info: RunInfo) -> str:
    by = f" by {info.owner}" if info.owner else ""
    moved = f", last moved {moment(info.updated)}" if moment(info.updated) != moment(info.created) else ""
    return f"{info.status}{by}, began {moment(info.created)}{moved}"


def steps_table(steps: list[StepHistory], flow: str, width: int) -> Table:
    """As many columns as there is room for; what a step wrote has the rest."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Column, Table
    from rich.text import Text

    wide, middling = width >= _WIDE, width >= _MIDDLING
    table = Table(
        Column("step", overflow="fold", max_width=max(16, width // 3)),
        Column("status", no_wrap=True),
        Column("took", justify="right", no_wrap=True),
        *([Column("tries", justify="right")] if wide else []),
        *([Column("calls", justify="right"), Column("tokens", justify="right", no_wrap=True)] if middling else []),
        Column("cost", justify="right", no_wrap=True),
        Column("wrote", ratio=1, no_wrap=True, overflow="ellipsis"),
        box=SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        padding=(0, 1, 0, 0),
        expand=True,
    )
    for step in steps:
        calls = len(step.calls)
        table.add_row(
            Text(clean(_within(step.id, flow))),
            Text(step.status, style=_STYLES.get(step.status, "")),
            duration(step.seconds),
            *([str(step.attempts) if step.attempts > 1 else ""] if wide else []),
            *([str(calls or ""), tokens(step.tokens) if step.tokens else ""] if middling else []),
            dollars(step.cost) if step.cost != 0.0 or calls else "",
            Text(wrote(step)),
        )
    return table


def _within(id: str, flow: str) -> str:
    """A step's id without its flow's name, which all have."""
    return id.removeprefix(f"{flow}/").partition("!wait:")[0]


def wrote(step: StepHistory) -> str:
    """What came of it, in one line."""
    if step.interrupt is not None:
        answer = f" ← {in_one_line(step.answer)}" if step.status == "answered" else ""
        return f"? {clean(step.interrupt.prompt)}{answer}"
    if step.error is not None:
        return clean(describe(step.error))
    parts = [f"{name} = {in_one_line(value)}" for name, value in step.changed.items()]
    parts += [f"{name} += {in_one_line(list(values))}" for name, values in step.added.items()]
    parts += [f"without {name}" for name in step.removed]
    parts += [f"→ {in_one_line(step.result)}"] if step.result is not None else []
    parts += [f"({step.action})"] if step.action not in (None, "default") else []
    return ", ".join(parts)


# ---- as JSON -------------------------------------------------------------------------------------------------


def info_json(info: RunInfo, inputs: object, steps: list[StepHistory]) -> dict[str, object]:
    return {
        "run_id": info.run_id,
        "flow": info.spec.flow,
        "status": info.status,
        "source": info.spec.source,
        "tenant": info.spec.tenant,
        "forked_from": info.spec.forked_from,
        "forked_at": info.spec.forked_at,
        "created": info.created,
        "updated": info.updated,
        "due": info.due,
        "owner": info.owner,
        "action": info.action,
        "error": info.error,
        "cost": info.cost,
        "inputs": as_plain(inputs, "inputs"),
        "interrupts": [_question_json(each) for each in info.interrupts],
        "steps": [step_json(step) for step in steps],
    }


def step_json(step: StepHistory) -> dict[str, object]:
    return {
        "id": step.id,
        "node": step.node,
        "status": step.status,
        "at": step.at,
        "seconds": step.seconds,
        "attempts": step.attempts,
        "cost": step.cost,
        "tokens": step.tokens,
        "action": step.action,
        "changed": as_plain(dict(step.changed), "changed"),
        "removed": list(step.removed),
        "added": as_plain({name: list(values) for name, values in step.added.items()}, "added"),
        "result": as_plain(step.result, "result"),
        "error": None if step.error is None else describe(step.error),
        "interrupt": None if step.interrupt is None else _question_json(step.interrupt),
        "answer": as_plain(step.answer, "answer"),
        "calls": [
            {"id": call.id, "at": call.at, "seconds": call.seconds, "cost": call.cost, "tokens": call.tokens}
            for call in step.calls
        ],
    }


def _question_json(question: Interrupt) -> Mapping[str, object]:
    return {
        "id": question.id,
        "path": question.path,
        "kind": question.kind,
        "prompt": question.prompt,
        "payload": as_plain(question.payload, "payload"),
        "schema": question.schema,
        "asked": question.asked,
        "due": question.due,
        "problem": question.problem,
    }
