"""What an editor and a type checker know of durable runs. Checked by mypy --strict and pyright, never run.

An `ignore` here is a proof, too: both checkers report one that is not needed, so what stands beside it is an error.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import TypedDict, assert_type

from agentflow import (
    AsyncFlow,
    AsyncNode,
    Each,
    Flow,
    FlowResult,
    Key,
    SharedState,
    SqliteDurability,
    interrupt,
    interrupt_blocking,
    node,
    sleep,
    storable,
)
from agentflow.core.durability import Durability, Interrupt, RunSpec, StepHistory

TOPIC, DRAFT = Key[str]("topic"), Key[str]("draft")


@dataclass
class Verdict:
    grade: int


class Colour(Enum):
    RED = 1


class Place(TypedDict):
    town: str


async def an_answer_is_what_the_schema_says() -> None:
    assert_type(await interrupt("?", schema=bool), bool)
    assert_type(await interrupt("?", "payload", schema=Verdict, timeout=60.0), Verdict)
    assert_type(await interrupt("?", schema=Colour), Colour)
    assert_type(await interrupt("?", schema=Place), Place)
    assert_type(await interrupt("?", schema=bool, timeout=1.0, default=False), bool)
    assert_type(await interrupt("?", schema=bool, timeout=1.0, default=None), bool | None)
    assert_type(await interrupt("?", schema=Verdict, timeout=1.0, default="nobody"), Verdict | str)
    assert_type(interrupt_blocking("?", schema=bool), bool)
    assert_type(interrupt_blocking("?", schema=int, default=None), int | None)
    text: str = await interrupt("?")  # nothing is known of it, nor of one of a list of choices
    text = await interrupt("?", schema=["yes", "no"])
    number = await interrupt("?", schema=int)
    text = number  # type: ignore[assignment]
    assert_type(text, str)

    await interrupt(1)  # type: ignore[call-overload]
    await interrupt("?", schema=bool, timeout="1s")  # type: ignore[call-overload]


async def a_sleep_gives_nothing() -> None:
    assert_type(await sleep(1.0, park=True), None)

    await sleep("1s")  # type: ignore[arg-type]


async def an_async_flow_is_gone_on_with_by_await(flow: AsyncFlow) -> None:
    engine: Durability = SqliteDurability("runs.db", sync="full")
    assert_type(await flow.run({TOPIC: "tides"}, run_id="r", durability=engine), FlowResult)
    assert_type(await flow.resume("r", True, context=object(), durability=engine), FlowResult)
    assert_type(await flow.resume("r", {"id": None}, migrate={"old": "new", "gone": None}), FlowResult)
    assert_type(await flow.fork("r", at="write#2", update={DRAFT: "other"}, new_run_id="f"), FlowResult)
    assert_type(await flow.recover(concurrency=4), list[FlowResult])
    assert_type(await flow.history("r"), list[StepHistory])
    assert_type(await flow.cancel("r"), bool)
    assert_type((await flow.run()).interrupts, tuple[Interrupt, ...])
    assert_type(flow.spec({"topic": "tides"}), RunSpec)
    AsyncFlow(flow, durability=engine)

    SqliteDurability("runs.db", sync="sometimes")  # type: ignore[arg-type]
    AsyncFlow(flow, durability="runs.db")  # type: ignore[arg-type]
    await flow.run(durability="runs.db")  # type: ignore[arg-type]
    await flow.resume()  # type: ignore[call-arg]
    await flow.fork("r")  # type: ignore[call-arg]
    await flow.resume("r", migrate={"old": 1})  # type: ignore[dict-item]


def a_flow_without_it(flow: Flow) -> None:
    assert_type(flow.resume("r", True), FlowResult)
    assert_type(flow.fork("r", at="write"), FlowResult)
    assert_type(flow.recover(), list[FlowResult])
    assert_type(flow.history("r"), list[StepHistory])
    assert_type(flow.cancel("r"), bool)


def what_is_made_storable_stays_what_it_is() -> None:
    assert_type(storable(Verdict), type[Verdict])
    assert_type(storable("verdict/2")(Verdict), type[Verdict])
    assert_type(storable("verdict/3", Verdict), type[Verdict])
    assert_type(storable("money", Decimal, to=str, back=Decimal), type[Decimal])

    storable(Verdict(1))  # type: ignore[call-overload]


@storable
@dataclass
class Finding:
    title: str


assert_type(Finding("tides").title, str)


@node(reads=TOPIC, writes=DRAFT, compensate=lambda topic, draft: None, durable=False)
def write(topic: str) -> str:
    return topic


@node(reads=TOPIC, writes=DRAFT, on="process")
def count(topic: str) -> str:
    return topic


@node(reads=TOPIC, on="thread")  # type: ignore[call-overload, untyped-decorator]
def elsewhere(topic: str) -> None: ...


@node(on="process")  # type: ignore[call-overload, untyped-decorator]
def whole(state: SharedState) -> None: ...


class Book(AsyncNode[str, int]):
    durable = False

    async def compensate(self, item: str, result: int) -> None:
        assert_type(item, str)


class Wrong(AsyncNode[str, int]):
    async def compensate(self, item: str, result: str) -> None:  # type: ignore[override]
        """Exec returns a number."""


Each(len, over="items", durable=False, on="process")
