"""What is kept of a run: who it is, and one record for everything in it that is not to happen twice.

    RunSpec ── what it began with                        RunInfo ── how it stands
    Record  ── "article/write#1"                step     the writes and the action of a visit
               "article/write#1"                exec     what exec returned, until post has run
               "article/each#1/7"               item     what one item came to
               "article/(a, b)#1!join"          join     which branches counted
               "article/write#1!call:3fa9…:1"   call     the answer of a model or a tool
               "article/judge#1!wait:1"         wait     a question to a person, and "…!answer" what they said
               "article/judge#1!timer:1"        timer    when a sleep is over
               "article/book#1!undo"            undo     that a step has been compensated
               "article/book#1!update"          update   what a fork has changed before that step
               "!failed"                        failed   why the run is being undone
               "!stretch:4f9a:0"                stretch  that the run began, or went on

Ids are the same on every replay. Bodies are JSON texts of `values.py`; an engine keeps them as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = ["Ending", "Interrupt", "Record", "RecordKind", "RunInfo", "RunSpec", "RunStatus"]

RecordKind: TypeAlias = Literal[
    "exec", "step", "item", "join", "call", "wait", "answer", "timer", "update", "failed", "undo", "stretch"
]

RunStatus: TypeAlias = Literal["running", "waiting", "done", "failed", "cancelled", "lost"]
"""`waiting` is parked at an interrupt or a timer; `lost` was running when its process died, and can be resumed."""


@dataclass(frozen=True, slots=True)
class Record:
    """One thing that happened. One with the id of an earlier one takes its place, and its place in the order.

    `at` is wall time when it was over, seconds since 1970; `seconds` how long it took; `attempts` how often it was
    tried; `cost` is in US dollars, None where nobody knows; `tokens` counts input and output together.
    """

    id: str
    kind: RecordKind
    body: str
    at: float
    seconds: float = 0.0
    attempts: int = 1
    cost: float | None = 0.0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class RunSpec:
    """What a run begins with, and needs again to go on: `inputs` and `graph` are JSON texts.

    `source` are the words that load the flow again, where the command line has loaded it: `FILE:NAME`, perhaps with
    options. `forked_from` is the run whose history it shares, up to the record `forked_at`.
    """

    run_id: str
    flow: str
    inputs: str = "{}"
    graph: str = "{}"
    tenant: str | None = None
    limits: str | None = None
    source: str | None = None
    forked_from: str | None = None
    forked_at: str | None = None


@dataclass(frozen=True, slots=True)
class Interrupt:
    """A question that a run waits for a person to answer, or the moment that it waits for.

    `id` names it in `flow.resume(run_id, {id: answer})`. `schema` is a JSON Schema of the answer, None where anything
    will do. `due` is the wall time at which `default` is taken, or the node gets an InterruptTimeoutError; None waits
    for ever. `kind` is "question", or "timer" for a sleep that parks. `problem` is why an earlier answer did not fit.
    """

    id: str
    path: str
    prompt: str
    payload: object = None
    schema: Mapping[str, object] | None = None
    asked: float = 0.0
    due: float | None = None
    kind: Literal["question", "timer"] = "question"
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class RunInfo:
    """How a run stands. Times are wall times, seconds since 1970. `owner` says which process has it."""

    spec: RunSpec
    status: RunStatus
    created: float
    updated: float
    action: str | None = None
    error: str | None = None
    owner: str | None = None
    due: float | None = None
    """When the earliest of what it waits for is due."""
    interrupts: tuple[Interrupt, ...] = ()
    steps: int = 0
    cost: float | None = 0.0

    @property
    def run_id(self) -> str:
        return self.spec.run_id


@dataclass(frozen=True, slots=True)
class Ending:
    """How one stretch of a run ended, for the engine that keeps it. `waiting` is parked; `interrupts` says at what."""

    status: Literal["done", "failed", "waiting"]
    action: str | None = None
    error: str | None = None
    interrupts: tuple[Interrupt, ...] = ()
