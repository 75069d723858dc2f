"""The flows that are killed: one of each shape, small enough to be killed everywhere.

    SHAPES["loop"]       flow, inputs, what a person answers, and which branches may lose

All nodes note what they do outside, so that it can be counted there.
"""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.core.durability.crash.points import effect, here, note, point

from agentflow.core import END, AsyncFlow, AsyncNode, Dataflow, Each, Key, Node, Parallel, SharedState, node
from agentflow.core.durability.interrupts import interrupt
from agentflow.core.durability.records import Interrupt
from agentflow.core.durability.step import current_step
from agentflow.core.durability.timers import sleep

__all__ = ["HUNDRED", "SHAPES", "Shape"]

SEEN = Key[list[str]]("seen", reduce=operator.add, initial=list)
HUNDRED = 100


@dataclass(frozen=True, slots=True)
class Shape:
    """`alone` answers one question at a time. `loser` is the beginning of paths in branches that may be cut off."""

    flow: AsyncFlow
    inputs: Mapping[str, object] = field(default_factory=lambda: {"topic": "tides"})
    answer: Callable[[Interrupt], object] = lambda question: True
    alone: bool = False
    loser: str = "\0"


# ---- nodes ---------------------------------------------------------------------------------------------------


class Work(AsyncNode[Any, Any]):
    """Reads keys, and writes what it makes of them into another: all three phases are there, and can be died in."""

    def __init__(self, name: str, *reads: str, into: str, action: Callable[[Any], str | None] = lambda _: None) -> None:
        super().__init__(name=name)
        self.wants, self.into, self.action = reads, into, action

    def keys_read(self) -> tuple[str, ...]:
        return self.wants

    def keys_written(self) -> tuple[str, ...]:
        return (self.into,)

    async def prep(self, state: SharedState) -> Any:
        point(f"before prep {here()}")
        values = [state.get(name) for name in self.wants]
        point(f"after prep {here()}")
        return values

    async def exec(self, item: Any) -> Any:
        async with effect("exec"):
            made = f"{self.name}({', '.join(map(str, item))})"
        return made

    async def post(self, state: SharedState, item: Any, result: Any) -> str | None:
        point(f"before post {here()}")
        state[self.into] = result
        point(f"after post {here()}")
        return self.action(result)


class Threaded(Node[Any, Any]):
    """The same in a thread."""

    def prep(self, state: SharedState) -> Any:
        point(f"before prep {here()}")
        return state["b"]

    def exec(self, item: Any) -> Any:
        path = here()
        point(f"before exec {path}")
        note(f"exec+ {path}")
        point(f"in exec {path}")
        note(f"exec- {path}")
        point(f"after exec {path}")
        return {"of": item, "pair": (1, 2)}

    def post(self, state: SharedState, item: Any, result: Any) -> None:
        point(f"before post {here()}")
        state["threaded"] = result
        point(f"after post {here()}")


def made(name: str, *reads: str, into: str) -> Any:
    """A function node."""

    @node(name=name, reads=reads or "topic", writes=into)
    async def make(*values: object) -> str:
        async with effect("exec"):
            text = f"{name}({', '.join(map(str, values))})"
        return text

    return make


def adding(name: str, *, key: str = "topic") -> Any:
    """A whole function node, which adds to what others add to, and takes away what is nobody else's."""

    @node(name=name)
    async def add(state: SharedState) -> None:
        async with effect("exec"):
            state.add(SEEN, [f"{name} saw {state[key]}"])

    return add


def failing(name: str) -> Any:
    @node(name=name, reads="topic", writes=name)
    async def fail(topic: str) -> str:
        async with effect("exec"):
            pass
        raise ValueError(f"{name} cannot work on {topic}")

    return fail


# ---- one of each ---------------------------------------------------------------------------------------------


def chain() -> Shape:
    @node
    async def forget(state: SharedState) -> None:
        async with effect("exec"):
            del state["a"]
            state.add(SEEN, ["forgot"])

    first = Work("first", "topic", into="a")
    return Shape(AsyncFlow(first >> made("second", "a", into="b") >> Threaded(name="third") >> forget, name="chain"))


def loop() -> Shape:
    write = Work("write", "draft", into="draft")

    @node
    async def judge(state: SharedState) -> str:
        async with effect("exec"):
            state["rounds"] = rounds = int(str(state.get("rounds", 0))) + 1
        return "again" if rounds < 3 else "done"

    flow = AsyncFlow(write >> judge, judge.on("again") >> write, judge.on("done") >> adding("end"), name="loop")
    return Shape(flow, {"draft": "", "topic": "tides"})


def nested() -> Shape:
    deepest = AsyncFlow(Work("low", "title", into="summary") >> adding("lower", key="summary"), name="deepest")
    middle = AsyncFlow(made("in", into="b") >> deepest.using(inputs={"title": "b"}, outputs={"c": "summary"}), name="m")

    @node
    async def judge(state: SharedState) -> str:
        async with effect("exec"):
            state["rounds"] = rounds = int(str(state.get("rounds", 0))) + 1
        return "again" if rounds < 2 else "done"

    plain = AsyncFlow(Work("own", "c", into="d"), name="plain")
    last = Work("last", "d", into="e")
    flow = AsyncFlow(middle >> plain >> judge, judge.on("again") >> middle, judge.on("done") >> last, name="nested")
    return Shape(flow)


def join_all() -> Shape:
    """Unequal branches with a section inside, twice over."""
    inner = (made("e", "b", into="e"), Work("f", "b", into="f"))
    left = made("a", into="a") >> adding("g", key="a")
    right = Work("b", "topic", into="b") >> inner >> adding("h", key="f")

    @node
    async def judge(state: SharedState) -> str:
        async with effect("exec"):
            state["rounds"] = rounds = int(str(state.get("rounds", 0))) + 1
        return "again" if rounds < 2 else "done"

    start = made("start", into="s")
    flow = AsyncFlow(
        start >> (left, right) >> judge, judge.on("again") >> start, judge.on("done") >> adding("end"), name="all"
    )
    return Shape(flow)


def join_any() -> Shape:
    """The slow branch does something, and never ends of its own accord."""

    @node(reads="x", writes="y")
    async def never(x: str) -> str:
        await asyncio.Event().wait()
        return x

    quick = made("quick", into="a") >> Work("quicker", "a", into="b")
    slow = made("slow", into="x") >> never
    flow = AsyncFlow(Parallel(quick, slow, need=1, name="race") >> Work("end", "b", into="c"), name="any")
    return Shape(flow, loser="any/slow#")


def join_collect() -> Shape:
    bad = made("ok", into="o") >> failing("bad")
    section = Parallel(bad, Work("good", "topic", into="g"), adding("fine"), on_error="collect", errors="errors")
    return Shape(AsyncFlow(section >> Work("end", "g", into="e"), name="collect"))


def dataflow() -> Shape:
    section = Dataflow(
        made("fetch", into="page"),
        Work("parse", "page", into="words"),
        made("rank", "page", "words", into="rank"),
        Work("report", "rank", "words", into="report"),
    )
    return Shape(AsyncFlow(section >> adding("end", key="report"), name="dataflow"))


def each_function() -> Shape:
    async def search(item: object) -> str:
        async with effect("exec"):
            found = f"found {item}"
        return found

    flow = AsyncFlow(Each(search, over="items", into="found", concurrency=8) >> adding("end"), name="each")
    return Shape(flow, {"items": list(range(HUNDRED)), "topic": "tides"})


def each_node() -> Shape:
    """Each item adds to what all add to, and some of them fail."""

    class Search(Work):
        async def exec(self, item: Any) -> Any:
            async with effect("exec"):
                pass
            if item[0] % 10 == 3:
                raise ValueError(f"nothing is found for {item[0]}")
            return f"found {item[0]}"

        async def post(self, state: SharedState, item: Any, result: Any) -> str | None:
            state.add(SEEN, [result])
            return await super().post(state, item, result)

    search = Search("search", "item", into="own")
    each = Each(search, over="items", into="found", concurrency=8, on_error="collect", name="each")
    return Shape(AsyncFlow(each >> adding("end"), name="each"), {"items": list(range(HUNDRED)), "topic": "tides"})


def each_flow() -> Shape:
    per_item = AsyncFlow(made("look", "item", into="l") >> Work("read", "l", into="r") >> adding("tell"), name="per")
    each = Each(per_item, over="items", into="found", collect="r", concurrency=8, name="each")
    return Shape(AsyncFlow(each >> adding("end"), name="each"), {"items": list(range(HUNDRED)), "topic": "tides"})


async def _called(fingerprint: str) -> str:
    """What a model client does in a step."""
    step = current_step.get()
    assert step is not None
    call = step.call(fingerprint)
    if call.found is None:
        async with effect("call", call.id):
            pass
        await call.save(f'"{fingerprint} said"', cost=0.25, tokens=3)
        return f'"{fingerprint} said"'
    return call.found


class Publish(Work):
    """Asks behind its exec, which does not run again for that."""

    async def post(self, state: SharedState, item: Any, result: Any) -> str | None:
        state["asked"] = await interrupt("Publish?", result, schema=bool)
        return await super().post(state, item, result)


def asks() -> Shape:
    """A function that calls, asks, calls again and asks again; and a class that asks behind its exec."""

    @node
    async def review(state: SharedState) -> str:
        note(f"top {here()}")
        first = await _called("one")
        point(f"before interrupt {here()}")
        good = await interrupt("Good?", first, schema=int)
        point(f"between interrupts {here()}")
        second = await _called("two")
        name = await interrupt("Whose?", second, schema=str)
        state["review"] = [first, second, good, name]
        return "on"

    answers = {"Good?": 7, "Whose?": "Ada", "Publish?": True}
    flow = AsyncFlow(
        made("draft", into="d") >> review, review.on("on") >> Publish("publish", "d", into="p"), name="asks"
    )
    return Shape(flow, answer=lambda question: answers[question.prompt])


def asks_in_parallel(*, alone: bool) -> Shape:
    @node(reads="topic", writes="said")
    async def ask(topic: str) -> str:
        point(f"before interrupt {here()}")
        said = str(await interrupt("What?", topic, schema=str))
        async with effect("exec"):
            pass
        return said

    section = (made("a", into="a") >> ask, Publish("publish", "topic", into="p") >> adding("g"), Work("w", into="w"))
    flow = AsyncFlow(section >> Work("end", "said", "p", into="e"), name="asks")
    answers = {"What?": "this", "Publish?": False}
    return Shape(flow, answer=lambda question: answers[question.prompt], alone=alone)


def sleeps() -> Shape:
    @node
    async def rest(state: SharedState) -> None:
        await sleep(0.002)
        await sleep(0.002, park=True)
        async with effect("exec"):
            state["rested"] = True

    return Shape(AsyncFlow(made("a", into="a") >> rest >> Work("end", "a", into="e"), name="sleeps"))


def _bookable(name: str) -> Any:
    async def undo(item: object, result: object) -> None:
        async with effect("undo"):
            note(f"undid {name} {item} {result}")

    @node(name=name, reads="topic", writes=name, compensate=undo)
    async def book(topic: str) -> str:
        async with effect("exec"):
            pass
        return f"{name} for {topic}"

    return book


class Booking(Work):
    async def compensate(self, item: Any, result: Any) -> None:
        async with effect("undo"):
            note(f"undid {self.name} {item} {result}")


def saga() -> Shape:
    """What it books, one by one, in an inner flow, beside each other and for each item, is undone: it cannot pay."""
    inner = AsyncFlow(_bookable("train") >> Booking("seat", "train", into="seat"), name="inner")
    each = Each(Booking("bed", "item", into="own"), over="beds", into="slept", concurrency=1, name="each")
    flow = AsyncFlow(_bookable("flight") >> inner >> each >> Booking("car", "topic", into="car") >> failing("pay"))
    return Shape(flow, {"topic": "tides", "beds": [1, 2]})


def not_durable() -> Shape:
    @node(reads="a", writes="b", durable=False)
    async def again(a: str) -> str:
        note(f"again {here()}")
        point("in again")
        return a.upper()

    class Again(AsyncNode[Any, Any]):
        async def prep(self, state: SharedState) -> Any:
            return state["b"]

        async def exec(self, item: Any) -> Any:
            point("in Again")
            return [item]

        async def post(self, state: SharedState, item: Any, result: Any) -> None:
            state["c"] = result
            state.add(SEEN, ["again"])

    inner = AsyncFlow(again >> Again(name="Again", durable=False), name="inner")
    section = (inner >> Work("w", "c", into="w"), made("x", into="x"))
    return Shape(AsyncFlow(made("a", into="a") >> section >> Work("end", "w", into="e") >> END, name="not_durable"))


SHAPES: Mapping[str, Callable[[], Shape]] = {
    "chain": chain,
    "loop": loop,
    "nested": nested,
    "all": join_all,
    "any": join_any,
    "collect": join_collect,
    "dataflow": dataflow,
    "asks": asks,
    "asks-at-once": lambda: asks_in_parallel(alone=False),
    "asks-one-by-one": lambda: asks_in_parallel(alone=True),
    "sleeps": sleeps,
    "saga": saga,
    "not-durable": not_durable,
    "each-function": each_function,
    "each-node": each_node,
    "each-flow": each_flow,
}
