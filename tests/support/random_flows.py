"""Flows drawn at random, whose every value tells of all that was seen before it, so that nothing can go amiss unseen.

    plan = draw(plans())                          pure data: what is built of it is the same each time
    flow = built(plan, World(clock))              as a new process would build it
    result = await carried_on(flow, world, …)     to its end: questions answered, failures tried again

A leaf writes a key of its own, and into it a digest of the whole state that it sees. In a race the first branch wins by
virtual time: the others do something, and then wait for ever.
"""

from __future__ import annotations

import asyncio
import hashlib
import operator
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from hypothesis import strategies as st

from agentflow.clock import VirtualClock
from agentflow.core import AsyncFlow, AsyncNode, Dataflow, Each, FlowResult, Key, Parallel, SharedState, node
from agentflow.core.durability.interrupts import interrupt
from agentflow.core.durability.step import current_step
from agentflow.core.durability.timers import sleep
from agentflow.errors import NodeError

__all__ = ["Plan", "World", "built", "carried_on", "plans", "shown"]

SEEN = Key[list[str]]("seen", reduce=operator.add, initial=list)
INPUTS: Mapping[str, object] = {"seed": "s", "items": [0, 1, 2]}
_KEPT = ("exec", "step", "item")


@dataclass(frozen=True, slots=True)
class Plan:
    """`kind` says what it is, `parts` what it is made of."""

    kind: str
    parts: tuple[Plan, ...] = ()
    flag: bool = False


_QUIET = ("plain", "class", "add", "delete", "undurable", "undurable-class", "nap", "call")
_LOUD = ("ask", "ask-behind", "flaky", "park")


def plans(*, loud: bool = True, depth: int = 2) -> st.SearchStrategy[Plan]:
    """A sequence. One that is not `loud` neither fails, nor asks, nor parks."""
    return _sequences(loud, depth)


def _sequences(loud: bool, depth: int) -> st.SearchStrategy[Plan]:
    part = _leaves(loud) if depth == 0 else st.one_of(_leaves(loud), _containers(loud, depth - 1))
    return st.lists(part, min_size=1, max_size=3).map(lambda parts: Plan("seq", tuple(parts)))


def _leaves(loud: bool) -> st.SearchStrategy[Plan]:
    return st.sampled_from(_QUIET + (_LOUD if loud else ())).map(Plan)


def _containers(loud: bool, depth: int) -> st.SearchStrategy[Plan]:
    one, quiet = _sequences(loud, depth), _sequences(False, depth)
    several, quiets = (st.lists(each, min_size=2, max_size=3).map(tuple) for each in (one, quiet))
    alone = st.tuples(one)
    return st.one_of(
        st.builds(Plan, st.just("all"), several),
        st.builds(Plan, st.just("race"), quiets),
        st.builds(Plan, st.just("collect"), quiets, st.booleans()),
        st.builds(Plan, st.sampled_from(["nested", "using", "loop", "each-flow"]), alone),
        st.builds(Plan, st.just("branch"), st.tuples(one, one)),
        st.builds(Plan, st.sampled_from(["each", "each-class", "each-failing", "dataflow"])),
    )


# ---- the world around a run ----------------------------------------------------------------------------------


@dataclass(eq=False)
class World:
    """What outlives every process of a run: its clock, who has failed already, and how often what was done when."""

    clock: VirtualClock
    failed: set[str] = field(default_factory=set)
    stretch: int = 0
    done: Counter[tuple[int, str]] = field(default_factory=Counter)
    losers: set[str] = field(default_factory=set)

    def does(self) -> str:
        """The work of a step happens; it must not have been kept already."""
        step = current_step.get()
        if step is None:
            return "nowhere"
        kept = step.journal.find(step.path)
        assert kept is None or kept.kind not in _KEPT, f"{step.path} happens again, though it was kept"
        self.done[self.stretch, step.path] += 1
        assert self.done[self.stretch, step.path] == 1, f"{step.path} happens twice in one stretch"
        return step.path


def shown(value: object) -> object:
    """To compare by: errors are equal where they say the same, and those of a section stand in the order of time."""
    if isinstance(value, Exception):
        return f"{type(value).__name__}: {value}"
    if isinstance(value, list | tuple):
        found = [shown(each) for each in value]
        return sorted(map(str, found)) if all(isinstance(each, Exception) for each in value) else found
    return value


def _digest(state: Mapping[str, object]) -> str:
    text = repr(sorted((name, repr(shown(value))) for name, value in state.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


async def carried_on(begin: Callable[[], Awaitable[FlowResult]], world: World) -> FlowResult:
    """To its end. `begin` begins it, or goes on with it, in what is a new process every time."""
    for _ in range(200):
        world.stretch += 1
        try:
            result = await begin()
        except NodeError as error:
            if "but once" not in str(error):
                raise
            continue
        if result.status == "done":
            return result
        due = [each.due for each in result.interrupts if each.due is not None]
        if due:
            await world.clock.sleep(max(0.0, min(due) - world.clock.time()))
    raise AssertionError("it does not come to its end")


# ---- building ------------------------------------------------------------------------------------------------


def built(plan: Plan, world: World, durability: Any) -> AsyncFlow:
    builder = _Builder(world)
    return AsyncFlow(builder.path(plan), name="random", clock=world.clock, durability=durability)


class _Builder:
    """Numbers what it builds, so that two builds of one plan are alike."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.numbers = count()
        self.last = ""
        """The key that the leaf built last writes."""

    def path(self, plan: Plan, *, ends_in_leaf: bool = False) -> Any:
        parts = [self._part(part) for part in plan.parts]
        if ends_in_leaf:
            parts.append(self._leaf("plain"))
        path = parts[0]
        for part in parts[1:]:
            path = path >> part
        return path

    def _part(self, plan: Plan) -> Any:
        build = getattr(self, f"_{plan.kind.replace('-', '_')}", None)
        return self._leaf(plan.kind) if build is None else build(plan, f"{plan.kind}{next(self.numbers)}")

    # ---- containers

    def _all(self, plan: Plan, name: str) -> Any:
        return Parallel(*[self.path(part) for part in plan.parts], name=name)

    def _race(self, plan: Plan, name: str) -> Any:
        first, *others = plan.parts
        winner = self.path(first)
        before = next(self.numbers)
        losers = [self.path(part) >> self._never() for part in others]
        self.world.losers |= {f"{number}" for number in range(before, next(self.numbers))}
        return Parallel(winner, *losers, need=1, name=name)

    def _collect(self, plan: Plan, name: str) -> Any:
        first, *others = plan.parts
        branches = [self.path(first), *(self.path(part) >> self._fails() for part in others)]
        return Parallel(*branches, on_error="collect", errors=f"errors-{name}" if plan.flag else None, name=name)

    def _nested(self, plan: Plan, name: str) -> Any:
        return AsyncFlow(self.path(plan.parts[0]), name=name)

    def _using(self, plan: Plan, name: str) -> Any:
        inner = AsyncFlow(self.path(plan.parts[0], ends_in_leaf=True), name=name)
        key = self.last
        return inner.using(inputs={"seed": "seed", "items": "items"}, outputs={f"of-{name}": key})

    def _loop(self, plan: Plan, name: str) -> Any:
        first = self._leaf("plain")

        @node(name=f"judge-{name}")
        async def judge(state: SharedState) -> str:
            self.world.does()
            state[f"rounds-{name}"] = rounds = int(str(state.get(f"rounds-{name}", 0))) + 1
            return "again" if rounds % 3 else "done"

        body = first >> self.path(plan.parts[0]) >> judge
        return AsyncFlow(body, judge.on("again") >> first, judge.on("done") >> self._leaf("add"), name=name)

    def _branch(self, plan: Plan, name: str) -> Any:
        @node(name=f"switch-{name}")
        async def switch(state: SharedState) -> str:
            self.world.does()
            return "left" if _digest(state)[0] in "01234567" else "right"

        left, right = (self.path(part) for part in plan.parts)
        end = self._leaf("plain")
        return AsyncFlow(switch, switch.on("left") >> left >> end, switch.on("right") >> right >> end, name=name)

    def _each(self, plan: Plan, name: str) -> Any:
        async def work(item: int) -> str:
            self.world.does()
            await asyncio.sleep(3 - item)
            return f"{name} of {item}"

        return Each(work, over="items", into=f"k-{name}", name=name)

    def _each_class(self, plan: Plan, name: str) -> Any:
        return Each(self._leaf("class"), over="items", into=f"k-{name}", name=name, concurrency=2)

    def _each_failing(self, plan: Plan, name: str) -> Any:
        async def work(item: int) -> int:
            self.world.does()
            if item == 1:
                raise ValueError(f"{name} has nothing for {item}")
            return item

        return Each(work, over="items", into=f"k-{name}", name=name, on_error="collect")

    def _each_flow(self, plan: Plan, name: str) -> Any:
        inner = AsyncFlow(self.path(plan.parts[0], ends_in_leaf=True), name=f"item-{name}")
        return Each(inner, over="items", into=f"k-{name}", collect=self.last, name=name, concurrency=2)

    def _dataflow(self, plan: Plan, name: str) -> Any:
        def step(key: str, *reads: str) -> Any:
            @node(name=f"{name}-{key}", reads=reads, writes=f"{name}-{key}")
            async def work(*values: object) -> str:
                self.world.does()
                await asyncio.sleep(len(reads))
                return f"{key}({', '.join(map(str, values))})"

            return work

        a, b = f"{name}-a", f"{name}-b"
        return Dataflow(step("a", "seed"), step("b", "seed"), step("c", a), step("d", a, b), name=name)

    # ---- leaves

    def _leaf(self, kind: str) -> Any:
        number = next(self.numbers)
        name, key = f"{kind}-{number}", f"k{number}"
        self.last = key
        if kind in ("class", "ask-behind", "undurable-class"):
            return _Leaf(name, key, self.world, durable=kind != "undurable-class", asks=kind == "ask-behind")
        does = getattr(_Does(self.world, key), kind.replace("-", "_"))
        return node(name=name, durable=kind != "undurable")(does)

    def _never(self) -> Any:
        @node(name=f"never-{next(self.numbers)}")
        async def never(state: SharedState) -> None:
            await asyncio.Event().wait()

        return never

    def _fails(self) -> Any:
        number = next(self.numbers)

        @node(name=f"fails-{number}")
        async def fails(state: SharedState) -> None:
            self.world.does()
            raise ValueError(f"{number} always fails, at {_digest(state)}")

        return fails


class _Leaf(AsyncNode[str, str]):
    def __init__(self, name: str, key: str, world: World, *, durable: bool, asks: bool) -> None:
        super().__init__(name=name, durable=durable)
        self.key, self.world, self.asks = key, world, asks

    async def prep(self, state: SharedState) -> str:
        return _digest(state)

    async def exec(self, item: str) -> str:
        if self.durable:
            self.world.does()
        await asyncio.sleep(1)
        return f"{self.name} of {item}"

    async def post(self, state: SharedState, item: str, result: str) -> None:
        said = await interrupt("And?", result) if self.asks else None
        state[self.key] = [result, said]
        state.add(SEEN, [self.name])


class _Does:
    """What whole functions do, by their kind."""

    def __init__(self, world: World, key: str) -> None:
        self.world, self.key = world, key

    async def plain(self, state: SharedState) -> None:
        self.world.does()
        state[self.key] = _digest(state)

    async def undurable(self, state: SharedState) -> None:
        state[self.key] = _digest(state)

    async def add(self, state: SharedState) -> None:
        self.world.does()
        state.add(SEEN, [f"{self.key} {_digest(state)}"])

    async def delete(self, state: SharedState) -> None:
        self.world.does()
        state[self.key] = "gone at once"
        del state[self.key]

    async def nap(self, state: SharedState) -> None:
        await sleep(10)
        self.world.does()
        state[self.key] = _digest(state)

    async def park(self, state: SharedState) -> None:
        await sleep(100, park=True)
        self.world.does()
        state[self.key] = _digest(state)

    async def call(self, state: SharedState) -> None:
        step = current_step.get()
        if step is None:
            return
        call = step.call("question")
        if call.found is None:
            self.world.done[0, call.id] += 1
            await asyncio.sleep(1)
            await call.save(f'"{_digest(state)}"', cost=1.0)
        self.world.does()
        state[self.key] = _digest(state)

    async def ask(self, state: SharedState) -> None:
        first = await interrupt("First?", _digest(state))
        second = await interrupt("Second?", first)
        self.world.does()
        state[self.key] = [_digest(state), first, second]

    async def flaky(self, state: SharedState) -> None:
        self.world.does()
        step = current_step.get()
        assert step is not None
        if step.path not in self.world.failed:
            self.world.failed.add(step.path)
            raise ValueError("it fails, but once")
        state[self.key] = _digest(state)
