"""Flows as nodes of flows: the parent's state or their own, their actions, and what a run carries into them."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from agentflow.core import END, AsyncFlow, Dataflow, Each, Flow, FlowResult, Key, SharedState, node
from agentflow.errors import ContextError, GraphError, InputError, NodeError, StateError, StepLimitError

TITLE, TOPIC, SUMMARY, DRAFT = Key[str]("title"), Key[str]("topic"), Key[str]("summary"), Key[str]("draft")


@node(reads=TOPIC, writes=SUMMARY)
async def summarise(topic: str) -> str:
    return f"about {topic}"


@node
async def note(state: SharedState) -> None:
    state["noted"] = sorted(state)


# ---- whose state


async def test_a_nested_flow_sees_and_writes_its_parents_state() -> None:
    inner = AsyncFlow(summarise >> note, name="inner")
    state = (await AsyncFlow(inner).run({"topic": "tides", "other": 1})).state
    assert state == {"topic": "tides", "other": 1, "summary": "about tides", "noted": ["other", "summary", "topic"]}


async def test_using_gives_it_a_state_of_its_own_with_the_receiving_name_first() -> None:
    inner = AsyncFlow(summarise >> note, name="inner").using(inputs={TOPIC: "title"}, outputs={"draft": SUMMARY})
    state = (await AsyncFlow(inner).run({"title": "tides", "other": 1})).state
    assert state == {"title": "tides", "other": 1, "draft": "about tides"}


async def test_using_without_outputs_gives_nothing_back() -> None:
    inner = AsyncFlow(summarise, name="inner").using(inputs={"topic": "title"})
    assert (await AsyncFlow(inner).run({"title": "tides"})).state == {"title": "tides"}


async def test_using_makes_a_second_flow_and_leaves_the_first() -> None:
    inner = AsyncFlow(summarise, name="inner")
    apart = inner.using(inputs={"topic": "title"}, outputs={"draft": "summary"}).named("apart")
    state = (await AsyncFlow(inner >> apart).run({"topic": "tides", "title": "waves"})).state
    assert (state[SUMMARY], state[DRAFT]) == ("about tides", "about waves")


async def test_an_input_that_the_parent_lacks_is_an_input_error() -> None:
    inner = AsyncFlow(summarise, name="inner").using(inputs={"topic": "title"})
    with pytest.raises(InputError, match="outer/inner#1 takes 'title', which the state lacks") as caught:
        await AsyncFlow(inner, name="outer").run()
    assert caught.value.field == "title"


async def test_an_output_that_it_did_not_write_is_an_error() -> None:
    inner = AsyncFlow(note, name="inner").using(outputs={"draft": "summary"})
    with pytest.raises(StateError, match="outer/inner#1 gives 'summary' to 'draft', but did not write it"):
        await AsyncFlow(inner, name="outer").run()


async def test_a_flow_run_by_itself_uses_its_own_names() -> None:
    flow = AsyncFlow(summarise).using(inputs={"topic": "title"}, outputs={"draft": "summary"})
    assert (await flow.run({"topic": "tides"})).state == {"topic": "tides", "summary": "about tides"}


async def test_using_declares_what_is_read_and_written_so_a_dataflow_can_place_it() -> None:
    @node(reads="draft", writes="shout")
    async def shout(draft: str) -> str:
        return draft.upper()

    inner = AsyncFlow(summarise, name="inner").using(inputs={"topic": "title"}, outputs={"draft": "summary"})
    assert (await AsyncFlow(Dataflow(shout, inner)).run({"title": "tides"})).state["shout"] == "ABOUT TIDES"
    with pytest.raises(GraphError, match="declares neither reads nor writes"):
        Dataflow(AsyncFlow(summarise, name="inner"))


# ---- actions, visits, steps


async def test_its_last_action_is_its_action() -> None:
    @node
    async def judge(state: SharedState) -> str:
        return "again" if state.setdefault("round", 0) == 0 else "enough"

    @node
    async def count(state: SharedState) -> None:
        state["round"] = 1

    inner = AsyncFlow(judge.on("again") >> END, judge.on("enough") >> END, name="inner")
    result = await AsyncFlow(inner.on("again") >> count >> inner, inner.on("enough") >> END).run()
    assert (result.action, result.state["round"]) == ("enough", 1)


async def test_visits_are_counted_at_every_level() -> None:
    paths: list[str] = []

    @node
    async def loop(state: SharedState) -> str:
        return "again" if len(paths) < 20 else "done"

    step = AsyncFlow(note, name="inner")
    async with AsyncFlow(step >> loop, loop.on("again") >> step, loop.on("done") >> END, name="f").stream() as events:
        async for event in events:
            paths.append(event.path)
    assert {"f/inner#1/note#1", "f/inner#2/note#1", "f/loop#2"} <= set(paths)


async def test_a_nested_flow_has_a_step_limit_of_its_own() -> None:
    @node
    async def again(state: SharedState) -> str:
        return "again"

    inner = AsyncFlow(again.on("again") >> again, name="inner", max_steps=10)
    with pytest.raises(StepLimitError) as caught:
        await AsyncFlow(inner, name="outer").run()
    assert caught.value.max_steps == 10


async def test_depth_is_no_matter() -> None:
    flow = AsyncFlow(summarise, name="f0")
    for level in range(1, 20):
        flow = AsyncFlow(flow, name=f"f{level}")
    assert (await flow.run({"topic": "tides"})).state[SUMMARY] == "about tides"


async def test_a_sync_flow_nests_in_an_async_one_and_the_other_way() -> None:
    inner, outer = Flow(summarise, name="inner"), AsyncFlow(note)
    assert (await AsyncFlow(inner).run({"topic": "a"})).state[SUMMARY] == "about a"
    assert Flow(outer).run({"topic": "a"}).state["noted"] == ["topic"]


async def test_one_flow_may_be_nested_twice_under_two_names() -> None:
    inner = AsyncFlow(summarise, name="inner")
    with pytest.raises(GraphError, match="are named 'inner'"):
        AsyncFlow(inner >> inner.named("inner"))
    left = inner.using(inputs={"topic": "a"}, outputs={"left": "summary"}).named("left_flow")
    right = inner.using(inputs={"topic": "b"}, outputs={"right": "summary"}).named("right_flow")
    state = (await AsyncFlow((left, right)).run({"a": "x", "b": "y"})).state
    assert (state["left"], state["right"]) == ("about x", "about y")


# ---- context


@dataclass
class Deps:
    name: str


async def test_the_context_reaches_every_level_and_item() -> None:
    found: list[str] = []

    @node
    async def ask(state: SharedState) -> None:
        found.append(state.context(Deps).name)

    apart = AsyncFlow(ask, name="apart").using(inputs={})
    shared = AsyncFlow(ask, name="shared")
    mapped = Each(AsyncFlow(ask, name="item_flow"), over="items")
    flow = AsyncFlow(ask >> (apart, shared) >> mapped)

    result = await flow.run({"items": [1, 2]}, context=Deps("db"))
    assert found == ["db"] * 5
    assert "db" not in result.state.to_json()


async def test_a_context_that_is_absent_or_another_is_an_error_of_the_node() -> None:
    @node
    async def ask(state: SharedState) -> None:
        state.context(Deps)

    with pytest.raises(NodeError, match="no context; start it with") as caught:
        await AsyncFlow(ask).run()
    assert isinstance(caught.value.__cause__, ContextError)
    with pytest.raises(NodeError, match="a str; start it with"):
        await AsyncFlow(ask).run(context="wrong")


async def test_a_states_own_context_serves_unless_the_run_brings_one() -> None:
    @node
    async def ask(state: SharedState) -> None:
        state["found"] = state.context(Deps).name

    state = SharedState(context=Deps("states"))
    await AsyncFlow(ask).run(state)
    assert state["found"] == "states"
    await AsyncFlow(ask).run(state, context=Deps("runs"))
    assert (state["found"], state.context(Deps).name) == ("runs", "states")


# ---- the result


async def test_a_flow_result_says_how_the_run_ended() -> None:
    state = SharedState({"topic": "tides"})
    result = await AsyncFlow(summarise).run(state, run_id="r1")

    assert isinstance(result, FlowResult)
    assert result.state is state
    assert (result.action, result.status, result.error, result.run_id, result.interrupts) == (
        "default",
        "done",
        None,
        "r1",
        (),
    )
    assert result.duration >= 0


async def test_every_run_has_an_id_of_its_own_that_sorts_by_time() -> None:
    flow = AsyncFlow(summarise)
    ids = [(await flow.run({"topic": "x"})).run_id for _ in range(20)]
    assert len(set(ids)) == 20
    assert [name[:11] for name in ids] == sorted(name[:11] for name in ids)


async def test_a_mapping_is_copied_into_a_new_state_and_a_state_is_used_as_it_is() -> None:
    given = {"topic": "tides"}
    await AsyncFlow(summarise).run(given)
    assert given == {"topic": "tides"}

    state = SharedState(given)
    await AsyncFlow(summarise).run(state)
    assert state[SUMMARY] == "about tides"
