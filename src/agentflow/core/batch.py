"""One node over many items: `Each(search, over=QUERIES, into=FINDINGS, concurrency=8)`.

QUERIES  [a, b, c, d]  ──▶ search ×8 at a time ──▶  FINDINGS  [A, B, C, D]      in input order
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence, Sized
from functools import partial
from typing import Any, Literal, TypeAlias, TypeVar

from agentflow.core.graph import DEFAULT, Graph, Vertex, check_name, operand
from agentflow.core.lifecycle import Executable, Lifecycle, Place, blame, collected, watched
from agentflow.core.node import BaseNode, Elsewhere, FunctionNode, awaited, in_process
from agentflow.core.parking import Parked
from agentflow.core.robustness.pipeline import Pipeline
from agentflow.core.robustness.retry import RetryPolicy
from agentflow.core.run import Frame, Keeper, Redo
from agentflow.core.state import ITEM, Key, SharedState, key_name
from agentflow.core.tasks import raise_first, run_together
from agentflow.errors import AgentFlowError, DurabilityError, FlowError, GraphError, NodeError, StateError

__all__ = ["Each"]

T = TypeVar("T")
R = TypeVar("R")

ItemFunction: TypeAlias = Callable[[Any], Awaitable[Any]] | Callable[[Any], Any]


class Each(BaseNode):
    """Runs a node, a flow or a plain function for every item of a list in the state.

    A plain function, or a node without `prep`, gets the item itself. A node with `prep`, and a flow, find it in their
    own view of the state under `item`. What is collected into the key `into`, in input order, is what exec returned; of
    a flow, what it left under the key `collect`. Other writes of an item are dropped; what it adds with `state.add`
    is merged, in input order.

    At most `concurrency` items run at once. `on_error="raise"` cancels the others at the first failure; "collect" puts
    the NodeError at the item's index. `retry`, `timeout`, `guard` and `on` are for plain functions: a node has its own.

    Raises GraphError for a whole-lifecycle function node, which has no result to collect. A visit fails (NodeError)
    when `over` holds no list.
    """

    maps_items = True

    def __init__(
        self,
        work: Vertex | ItemFunction,
        *,
        over: Key[Any] | str,
        into: Key[Any] | str | None = None,
        item: Key[Any] | str = ITEM,
        collect: Key[Any] | str | None = None,
        concurrency: int = 64,
        on_error: Literal["raise", "collect"] = "raise",
        name: str | None = None,
        retry: RetryPolicy | None = None,
        timeout: float | None = None,
        guard: Pipeline | None = None,
        durable: bool | None = None,
        on: Elsewhere | None = None,
    ) -> None:
        super().__init__(name=name, retry=retry, timeout=timeout, guard=guard, durable=durable, on=on)
        if concurrency < 1:
            raise GraphError(f"{self.name}: concurrency is at least 1, not {concurrency}")
        if on_error not in ("raise", "collect"):
            raise GraphError(f'{self.name}: on_error is "raise" or "collect", not {on_error!r}')
        self.work = work
        self.over = key_name(over)
        self.into = None if into is None else key_name(into)
        self.item = key_name(item)
        self.collect = None if collect is None else key_name(collect)
        self.concurrency = concurrency
        self.on_error = on_error
        self._check_work()

    def _check_work(self) -> None:
        work = self.work
        if isinstance(work, BaseNode):
            self._check_node(work)
        elif isinstance(work, Vertex):
            raise GraphError(f"{self.name}: Each runs a node, a flow or a function, not the section {work.name}")
        elif not callable(work) or (isinstance(work, type) and issubclass(work, Vertex)):
            operand(work)  # says what is wrong with it
        elif self.collect is not None:
            raise GraphError(f"{self.name}: collect= is for flows; of a function, what it returned is collected")

    def _check_node(self, work: BaseNode) -> None:
        check_name(work.name, "node")
        if isinstance(work, FunctionNode) and work.whole:
            raise GraphError(
                f"{self.name}: {work.name} is a whole-lifecycle function, so it has no result to collect; "
                f"give it reads= or writes=, or hand its plain function to Each"
            )
        is_flow = work.inner_graph() is not None
        if is_flow and self.into is not None and self.collect is None:
            raise GraphError(f"{self.name}: a flow has no single result; say which key to collect with collect=KEY")
        if not is_flow and self.collect is not None:
            raise GraphError(f"{self.name}: collect= is for flows; of a node, what exec returned is collected")
        if any(each is not None for each in (self.retry, self.timeout, self.guard, self.runs_on)):
            raise GraphError(
                f"{self.name}: retry=, timeout=, guard= and on= are for plain functions; {work.name} has its own"
            )

    def keys_read(self) -> tuple[str, ...]:
        return (self.over,)

    def keys_written(self) -> tuple[str, ...]:
        return () if self.into is None else (self.into,)

    def actions(self) -> frozenset[str]:
        return frozenset({DEFAULT})

    def item_graph(self) -> Graph | None:
        """The graph that each item runs through, where it is a flow's."""
        return self.work.inner_graph() if isinstance(self.work, Vertex) else None

    def executable(self) -> Executable:
        if isinstance(self.work, BaseNode):
            return EachRun(self, self.work.name, self.work.executable())
        assert callable(self.work)
        work = awaited(self.work) if self.runs_on is None else in_process(self.work, self)
        return EachRun(
            self,
            "",
            Lifecycle(
                self.name,
                prep=None,
                exec=work,
                post=None,
                retry=self.retry,
                timeout=self._checked_timeout(),
                guard=self.guard,
            ),
        )


class EachRun:
    """Runs an `Each`: workers take items in order until none is left."""

    kept = False  # the items are kept, each for itself

    def __init__(self, each: Each, work_name: str, work: Executable) -> None:
        self._each = each
        self._work_name = work_name
        self._work = work
        self._durable = each.durable and (not isinstance(each.work, BaseNode) or each.work.durable)
        self._keeps = work.kept
        self._needs_view = not (isinstance(work, Lifecycle) and work.stateless)

    async def visit(self, state: SharedState, frame: Frame, number: int) -> str | None:
        await self.collect(None, state, Place(frame, self._each.name, number))
        return None

    async def collect(self, item: object, state: SharedState, place: Place) -> object:
        """An Each within an Each finds its own list in the outer item's view."""
        if not self._durable and place.frame.keeper is not None:
            place = place.unkept()
        if place.frame.watched:
            return await watched(place, lambda: self._blamed(state, place), _count(self._each, state))
        return await self._blamed(state, place)

    async def _blamed(self, state: SharedState, place: Place) -> list[object]:
        phase = "prep"
        try:
            progress = _Progress(_items(self._each, state), self._each.concurrency)
            phase = "exec"
            crew = [self._worker(progress, state, place) for _ in range(progress.workers)]
            outcome = await run_together(crew)
            if outcome.failures:
                raise_first(outcome.failures)
            if progress.parked:
                raise Parked.together(progress.parked)
            phase = "post"
            self._merge(progress, state)
            return progress.results
        except FlowError:
            raise  # it names the item
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - blame raises
            blame(error, phase, place)

    def _merge(self, progress: _Progress, state: SharedState) -> None:
        for view in progress.views:
            if view is not None:
                state.apply_additions(view)
        if self._each.into is not None:
            state[self._each.into] = progress.results

    async def _worker(self, progress: _Progress, state: SharedState, place: Place) -> None:
        each, keeper = self._each, place.frame.keeper
        for done, index in enumerate(progress.todo):
            if done and not done % progress.stride:
                await asyncio.sleep(0)
            here = Place(place.frame, "", index, place)
            try:
                view = state.view({each.item: progress.items[index]}) if self._needs_view else state
                if keeper is not None:
                    await self._kept(progress, index, view, here, keeper)
                else:  # in place: a coroutine more would be a tenth of a small item
                    result = await self._work.collect(progress.items[index], view, self._inner(here))
                    self._note(progress, index, result, view)
            except Parked as parked:
                progress.parked.append(parked.with_traceback(None))  # which knows this frame
            except DurabilityError:
                raise  # that the run cannot be kept is no failure of the item
            except AgentFlowError as error:
                if each.on_error == "collect":
                    progress.results[index] = await self._collected(error, here)
                elif isinstance(error, FlowError):
                    raise
                else:
                    raise collected(error, here) from error

    async def _kept(self, progress: _Progress, index: int, view: SharedState, here: Place, keeper: Keeper) -> None:
        """The work for one item in a durable run, or what it came to earlier."""
        if self._each.on_error == "collect" and (failure := keeper.failed(here.path)) is not None:
            progress.results[index] = failure
            return
        inner = self._inner(here)
        work = partial(self._work.collect, progress.items[index], view, inner)
        if self._keeps:
            result = await keeper.item(inner.path, work, view if self._needs_view else None)
        else:
            result = await work()
        self._note(progress, index, result, view)

    def _note(self, progress: _Progress, index: int, result: object, view: SharedState) -> None:
        progress.results[index] = result if self._each.collect is None else view[self._each.collect]
        progress.views[index] = view if self._needs_view else None

    async def _collected(self, error: AgentFlowError, here: Place) -> NodeError:
        keeper, failure = here.frame.keeper, collected(error, here)
        if keeper is not None:
            await keeper.fail(here.path, failure)
        return failure

    def redo_at(self, place: Place, below: Sequence[str]) -> Redo | None:
        if not below or not below[0].isdecimal():
            return None
        here = Place(place.frame, "", int(below[0]), place)
        return self._work.redo_at(self._inner(here), below[2:] if self._work_name else below[1:])

    def _inner(self, here: Place) -> Place:
        return Place(here.frame, self._work_name, 1, here) if self._work_name else here


class _Progress:
    """One visit of an `Each`: the items, those still to do, and what came of the others."""

    __slots__ = ("items", "parked", "results", "stride", "todo", "views", "workers")

    def __init__(self, items: list[object], concurrency: int) -> None:
        self.items = items
        self.workers = min(concurrency, len(items))
        # Items that never wait must not keep the event loop from others: all workers yield every 256 items together.
        self.stride = max(1, 256 // max(1, self.workers))
        self.todo = iter(range(len(items)))
        self.results: list[object] = [None] * len(items)
        self.views: list[SharedState | None] = [None] * len(items)
        self.parked: list[Parked] = []


def _count(each: Each, state: SharedState) -> Mapping[str, int]:
    """What the start event says, so that a watcher can tell how far the items are; nothing for what has no length."""
    value = state.get(each.over)
    return {"items": len(value)} if isinstance(value, Sized) else {}


def _items(each: Each, state: SharedState) -> list[object]:
    value = state[each.over]
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise StateError(f"{each.name} goes over {each.over!r}, which holds a {type(value).__name__}, not a list")
    return list(value)
