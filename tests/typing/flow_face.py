"""What an editor and a type checker know of the flow face. Checked by mypy --strict and pyright, never run.

An `ignore` here is a proof, too: both checkers report one that is not needed, so what stands beside it is an error.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from collections.abc import Awaitable
from typing import Literal, TypedDict, assert_type

from agentflow import (
    END,
    ITEM,
    AsyncFlow,
    AsyncNode,
    Dataflow,
    Each,
    EventStream,
    ExecutionEvent,
    Flow,
    FlowResult,
    Key,
    Node,
    Parallel,
    RetryPolicy,
    SharedState,
    node,
)
from agentflow.core import FunctionNode, Path, StateDiff

TOPIC, DRAFT, COUNT = Key[str]("topic"), Key[str]("draft"), Key[int]("count")
QUERIES, FINDINGS = Key[list[str]]("queries"), Key[list[str]]("findings")


class Deps:
    name: str = "db"


def the_state_is_typed_by_its_keys(state: SharedState) -> None:
    assert_type(state[TOPIC], str)
    assert_type(state[QUERIES], list[str])
    assert_type(state["topic"], object)
    assert_type(state.get(TOPIC), str | None)
    assert_type(state.get(TOPIC, "none"), str)
    assert_type(state.get(COUNT, "none"), int | str)
    assert_type(state.modify(COUNT, lambda count: count + 1), int)
    assert_type(state.context(Deps), Deps)
    assert_type(state.context(Deps).name, str)
    assert_type(state.snapshot(), dict[str, object])
    assert_type(state.diff({}), StateDiff)
    assert_type(SharedState.from_json("{}"), SharedState)
    state[TOPIC] = "tides"
    state["anything"] = object()
    state.add(FINDINGS, ["one"])

    state[TOPIC] = 5  # type: ignore[misc]
    state.add(COUNT, "one")  # type: ignore[misc]
    state.modify(TOPIC, lambda topic: 5)  # type: ignore[arg-type, return-value]
    state[5]  # type: ignore[call-overload]


def a_key_checks_its_reducer() -> None:
    assert_type(Key[int]("count", reduce=lambda a, b: a + b, initial=int), Key[int])
    Key[int]("count", initial=str)  # type: ignore[arg-type]
    Key[int]("count", reduce=lambda a, b: "no")  # type: ignore[arg-type, return-value]


class Write(AsyncNode[str, str]):
    retry = RetryPolicy(max_attempts=3)
    timeout = 30.0

    async def prep(self, state: SharedState) -> str:
        return state[TOPIC]

    async def exec(self, topic: str) -> str:
        return topic

    async def post(self, state: SharedState, topic: str, draft: str) -> Literal["written"] | None:
        state[DRAFT] = draft
        return None

    async def fallback(self, topic: str, error: Exception) -> str:
        raise error


class Count(Node[str, int]):
    reads = TOPIC
    writes = (COUNT, "other")

    def exec(self, topic: str) -> int:
        return len(topic)


class Wrong(AsyncNode[str, int]):
    async def exec(self, topic: str) -> str:  # type: ignore[override]
        return topic


@node
async def judge(state: SharedState) -> Literal["accept", "rewrite"]:
    return "accept" if len(state[DRAFT]) > 100 else "rewrite"


@node(reads=TOPIC, writes=QUERIES)
async def plan(topic: str) -> list[str]:
    return [topic]


@node(reads=TOPIC, writes=COUNT, retry=RetryPolicy(), timeout=5.0, name="measure")
def count(topic: str) -> int:
    return len(topic)


@node(reads=(TOPIC, "count"), writes=(DRAFT, "other"))
async def several(topic: str, number: int) -> tuple[str, int]:
    return topic, number


@node(writes=TOPIC, inline=True)
def choose() -> str:
    return "tides"


@node(reads=COUNT)
async def route(number: int) -> Literal["small", "large"]:
    return "small" if number < 10 else "large"


def function_nodes_keep_their_signature() -> None:
    assert_type(judge.name, str)
    assert_type(count("tides"), Awaitable[int] | int)
    assert_type(plan.named("again"), FunctionNode[[str], Awaitable[list[str]] | list[str]])


def wrongly_typed_functions_are_rejected() -> None:
    async def number(number: int) -> int:
        return number

    def text(topic: str) -> str:
        return topic

    async def nothing() -> str:
        return ""

    node(reads=TOPIC, writes=COUNT)(number)  # type: ignore[arg-type]
    node(reads=TOPIC, writes=COUNT)(text)  # type: ignore[arg-type]
    node(reads=COUNT)(text)  # type: ignore[arg-type]
    node(writes=COUNT)(nothing)  # type: ignore[arg-type]
    node(writes=TOPIC)(text)  # type: ignore[arg-type]


async def search(query: str) -> str:
    return query


write = Write(name="write")
each = Each(search, over=QUERIES, into=FINDINGS, concurrency=8, item=TOPIC)


def paths_are_built_of_nodes() -> None:
    assert_type(plan >> write, Path)
    assert_type(plan >> each >> write >> judge, Path)
    assert_type(judge.on("accept") >> (write, count) >> END, Path)
    assert_type((write, plan >> count) >> judge, Path)
    assert_type(Parallel(write, count, need="any", on_error="collect", errors="errors") >> END, Path)
    assert_type(Dataflow(plan, count) >> END, Path)

    write >> 5  # type: ignore[operator]
    write >> Write  # type: ignore[operator]
    Parallel(write, need="most")  # type: ignore[arg-type]
    Each(search, over=QUERIES, on_error="ignore")  # type: ignore[arg-type]
    Each(search, over=5)  # type: ignore[arg-type]


class Article(TypedDict):
    topic: str


async def an_async_flow_is_awaited() -> None:
    flow = AsyncFlow(plan >> write >> judge, judge.on("rewrite") >> write, name="article", inputs=Article)
    article: Article = {"topic": "tides"}
    result = await flow.run({"topic": "tides"}, context=Deps())
    await flow.run(article)
    await flow.run(SharedState({TOPIC: "tides"}))
    assert_type(result, FlowResult)
    assert_type(result.state[DRAFT], str)
    assert_type(result.status, Literal["done", "interrupted", "failed", "cancelled"])
    assert_type(result.error, Exception | None)
    assert_type(result.action, str | None)
    assert_type(await flow.run_batch([{"topic": "a"}, {"topic": "b"}], concurrency=2), list[FlowResult])
    async with flow.stream({"topic": "tides"}) as events:
        assert_type(events, EventStream[FlowResult])
        async for event in events:
            assert_type(event, ExecutionEvent)
    assert_type(events.result, FlowResult)
    assert_type(flow.using(inputs={"topic": TOPIC}, outputs={DRAFT: "draft"}), AsyncFlow)
    assert_type(flow.named("other"), AsyncFlow)

    await flow.run(5)  # type: ignore[arg-type]
    flow.run_batch([], on_error="ignore")  # type: ignore[arg-type, unused-coroutine]


def a_flow_is_the_same_without_await() -> None:
    flow = Flow(plan >> write)
    assert_type(flow.run({"topic": "tides"}), FlowResult)
    assert_type(flow.run_batch([{"topic": "a"}]), list[FlowResult])
    with flow.stream() as events:
        for event in events:
            assert_type(event, ExecutionEvent)
    assert_type(events.result, FlowResult)
    assert_type(flow.using(inputs={"topic": ITEM}), Flow)
    assert_type(AsyncFlow(flow >> count).mermaid(), str)
