"""One run as it happens: who it is, how far it got, and the walk from step to step.

Run                 one call of flow.run: its id, clock and watcher
 └─ Frame           one visit of one flow within it: path, visit counts, steps left
     └─ walk        step ─action─▶ step ─action─▶ … until END
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeAlias

from agentflow.clock import Clock
from agentflow.core.graph import DEFAULT
from agentflow.core.limits import Ledger
from agentflow.core.observability.scope import Channel
from agentflow.core.saga import Deed, Saga
from agentflow.core.state import SharedState
from agentflow.errors import NodeError, StepLimitError, UnknownTransition

__all__ = ["Frame", "Join", "Keeper", "Redo", "Run", "Step", "current_run", "new_run_id", "walk"]

_TURN: Final = 255
"""A walker yields to the event loop whenever its step count's low bits are zero: every 256 steps."""


@dataclass(frozen=True, slots=True)
class Join:
    """How a section that chooses was joined: the branches that counted, by position, and why others did not."""

    winners: Sequence[int]
    failures: Sequence[Exception]
    visits: Mapping[str, int]
    """How often each node in it had been visited by then, also in branches that did not count."""


Redo: TypeAlias = Callable[[object, object], None]
"""Takes what exec took and returned, which an earlier stretch of the run has done and this one may have to undo."""


class Keeper(Protocol):
    """What keeps a durable run's steps, and finds them again where the run goes on."""

    async def visit(self, step: Step, state: SharedState, frame: Frame, number: int, /) -> str | None:
        """The visit as it was, or as it happens now."""
        ...

    async def result(self, item: object, work: Callable[[], Awaitable[Any]], /, *, undoable: bool) -> Any:
        """What exec of the current step has returned for `item`, or returns now: kept before post runs."""
        ...

    async def item(self, path: str, work: Callable[[], Awaitable[object]], view: SharedState | None, /) -> object:
        """What an item of an `Each` came to, or comes to now; what it adds to the state stands in its `view`."""
        ...

    def updated(self, path: str, /) -> Collection[str]:
        """The names of what a fork has changed before the step there."""
        ...

    def failed(self, path: str, /) -> Exception | None:
        """Why an item failed, where its failure was collected."""
        ...

    async def fail(self, path: str, error: Exception, /) -> None:
        """The failure of an item is collected."""
        ...

    def joined(self, path: str, /) -> Join | None: ...

    async def join(self, path: str, join: Join, /) -> None: ...

    @property
    def key(self) -> str | None:
        """The idempotency key of the current step."""
        ...

    @property
    def undoing(self) -> Exception | None:
        """The error for which the run is being undone: nothing new begins, and walkers are parked where it ended."""
        ...

    async def give_up(self, error: Exception, /) -> None:
        """The run has failed for good, and is undone from now on."""
        ...

    def deeds(self) -> Mapping[str, tuple[object, object]]:
        """What exec took and returned in all steps that can be undone, by their paths, in the order of their ends."""
        ...

    async def undo(self, deed: Deed, /) -> None:
        """Undo something, unless that has been done."""
        ...

    def news(self) -> tuple[str, Mapping[str, object]] | None:
        """Kind and facts of what is told when the run goes on, or begins in the middle of another."""
        ...

    def trying(self) -> None:
        """Exec of the current step is tried, perhaps once more."""
        ...

    def tried(self, attempts: int, /) -> None:
        """So often was exec of the current step tried."""
        ...


@dataclass(slots=True)
class Run:
    """What all parts of one run share. `channel` is None when nobody watches, `ledger` when nothing is limited,
    `keeper` when nothing is kept."""

    run_id: str
    clock: Clock
    channel: Channel | None = None
    tenant: str | None = None
    ledger: Ledger | None = None
    keeper: Keeper | None = None
    saga: Saga | None = None
    """None where it has done nothing yet that can be undone."""
    origin: Mapping[str, object] = field(default_factory=dict)
    """What its first event says of it."""
    flow: str = ""
    """The name of the outermost flow."""
    steps: int = 0
    """Steps of nested flows since the run last yielded for them: many short ones count like a long one."""

    def did(self, deed: Deed) -> None:
        """It has done something that can be undone."""
        if self.saga is None:
            self.saga = Saga()
        self.saga.add(deed)

    async def count(self, steps: int) -> None:
        self.steps += steps
        if self.steps > _TURN:
            self.steps = 0
            await asyncio.sleep(0)


current_run: ContextVar[Run | None] = ContextVar("agentflow_run", default=None)


def new_run_id() -> str:
    """A name for a run: sorts by start time, unique without coordination."""
    return f"{int(time.time() * 1000):011x}{os.urandom(5).hex()}"


class Frame:
    """One visit of one flow: where it stands in the run, and what its walkers count together."""

    __slots__ = ("flow", "keeper", "max_steps", "path", "run", "steps", "visits", "watched")

    def __init__(self, run: Run, flow: str, path: str, size: int, max_steps: int) -> None:
        self.run = run
        self.flow = flow
        self.path = path
        self.visits = [0] * size
        self.steps = 0
        self.max_steps = max_steps
        self.watched = run.channel is not None
        self.keeper = run.keeper


class Visit(Protocol):
    """What the walker calls at each step: it does the work and returns the action."""

    def __call__(self, state: SharedState, frame: Frame, number: int, /) -> Awaitable[str | None]: ...


class Step:
    """A vertex of one flow, ready to be walked: what to call, and where each action leads (None ends).

    `kept` says whether a durable run keeps a visit as one step; else what is inside it is kept, or nothing.
    """

    __slots__ = ("edges", "index", "kept", "name", "visit")

    visit: Visit
    kept: bool

    def __init__(self, index: int, name: str) -> None:
        self.index = index
        self.name = name
        self.edges: dict[str | None, Step | None] = {}

    def connect(self, edges: Mapping[str, Step | None]) -> None:
        self.edges.update(edges)
        if DEFAULT in edges:
            self.edges[None] = edges[DEFAULT]  # a node that returns None has said "default"


async def walk(step: Step, state: SharedState, frame: Frame) -> str:
    """Visit steps from `step` on until one leads to END, and return the last action.

    A cancellation that a node swallowed takes effect after that node. Raises what a node raises, UnknownTransition,
    and StepLimitError.
    """
    visits = frame.visits
    limit = frame.max_steps
    keeper = frame.keeper
    cancelling = asyncio.current_task().cancelling  # type: ignore[union-attr]  # a coroutine runs in a task
    before = cancelling()  # above 0 where a flow does the cleaning up of something cancelled
    while True:
        frame.steps = steps = frame.steps + 1
        if steps > limit:
            raise StepLimitError(frame.path, limit, step.name)
        if not steps & _TURN:
            await asyncio.sleep(0)
        index = step.index
        visits[index] = number = visits[index] + 1
        if keeper is None:
            action = await step.visit(state, frame, number)
        else:
            action = await keeper.visit(step, state, frame, number)
        if cancelling() > before:
            raise asyncio.CancelledError
        try:
            following = step.edges[action]
        except (KeyError, TypeError):  # a TypeError: an action that is not even hashable
            return _last_action(step, action, frame, number)
        if following is None:
            return action or DEFAULT
        step = following


def _last_action(step: Step, action: object, frame: Frame, number: int) -> str:
    """A node without edges ends the flow with any action; one with edges must use one of them."""
    path = f"{frame.path}/{step.name}#{number}"
    if action is not None and not isinstance(action, str):
        hint = "an action is a str or None (did you mean to return it from exec, or to declare writes=?)"
        cause = TypeError(f"it returned {type(action).__name__} as its action; {hint}")
        raise NodeError(path, "post", 1, cause) from cause
    last = DEFAULT if action is None else action
    if step.edges:
        raise UnknownTransition(path, last, sorted(name for name in step.edges if name))
    return last
