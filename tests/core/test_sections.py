"""Parallel and dataflow sections at run time: who waits for whom, what is kept, what is dropped."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow.clock import VirtualClock
from agentflow.core import (
    END,
    AsyncFlow,
    Dataflow,
    Each,
    FlowResult,
    FunctionNode,
    Key,
    Parallel,
    RetryPolicy,
    SharedState,
    node,
)
from agentflow.errors import (
    AgentFlowError,
    InputError,
    JoinError,
    NodeError,
    StateConflict,
    StateError,
    UnknownTransition,
)

LOG = Key[list[str]]("log", reduce=lambda a, b: a + b, initial=list)


def run(*statements: Any, **values: object) -> tuple[FlowResult, float]:
    """Run a flow on a virtual clock; the result, and the seconds it took. Nothing may be left."""
    clock = VirtualClock()

    async def main() -> FlowResult:
        try:
            return await AsyncFlow(*statements, clock=clock, name="flow").run(values)
        finally:
            assert asyncio.all_tasks() == {asyncio.current_task()}

    result = clock.run(main())
    return result, clock.monotonic()


def work(name: str, seconds: float = 0, *, fail: Exception | None = None) -> FunctionNode[..., Any]:
    """A node that takes `seconds` and then writes True under its name, or fails."""

    async def body(state: SharedState) -> None:
        state[f"{name} started"] = True
        await asyncio.sleep(seconds)
        if fail is not None:
            raise fail
        state[name] = True

    return node(name=name)(body)


def finished(result: FlowResult) -> set[str]:
    return {name for name in result.state if "started" not in name}


# ---- parallel


def test_branches_run_at_the_same_time():
    result, seconds = run((work("a", 3), work("b", 5), work("c", 4)))
    assert finished(result) == {"a", "b", "c"}
    assert seconds == 5


def test_what_follows_a_section_waits_for_all_its_branches():
    result, seconds = run((work("a", 3), work("b", 5)) >> work("c", 1))
    assert (finished(result), seconds) == ({"a", "b", "c"}, 6)


def test_a_branch_does_not_wait_for_the_steps_of_another():
    """No supersteps: a1 → a2 takes 1 + 9 and b1 → b2 takes 9 + 1, so both take 10 and not 18."""
    _, seconds = run((work("a1", 1) >> work("a2", 9), work("b1", 9) >> work("b2", 1)))
    assert seconds == 10


def test_sections_nest():
    inner = Parallel(work("b", 2), work("c", 4))
    result, seconds = run((work("a", 5), inner >> work("d", 2)))
    assert (finished(result), seconds) == ({"a", "b", "c", "d"}, 6)


def test_a_branch_is_blind_to_what_its_sibling_writes():
    @node
    async def peek(state: SharedState) -> None:
        await asyncio.sleep(2)
        state["seen"] = "a" in state

    result, _ = run((work("a", 1), peek))
    assert result.state["seen"] is False


def test_a_branch_may_loop_inside_itself():
    @node
    async def count(state: SharedState) -> str:
        state["n"] = state.get("n", 0) + 1  # type: ignore[operator]
        return "again" if state["n"] < 300 else "enough"  # type: ignore[operator]

    branch = count.on("enough") >> work("last")
    result, _ = run((branch, work("b")) >> work("after"), count.on("again") >> count)
    assert (result.state["n"], finished(result)) == (300, {"n", "last", "b", "after"})


def test_end_completes_the_innermost_branch_only():
    @node
    async def leave(state: SharedState) -> str:
        return "leave"

    result, _ = run((leave >> work("never"), work("b")) >> work("after"), leave.on("leave") >> END)
    assert finished(result) == {"b", "after"}


def test_an_unknown_action_at_the_end_of_a_branch_is_an_error():
    @node
    async def odd(state: SharedState) -> str:
        return "elsewhere"

    with pytest.raises(UnknownTransition) as caught:
        run((odd, work("b", 1)))
    assert caught.value.node == "flow/odd#1"


@pytest.mark.parametrize("need", ["any", 1])
def test_the_first_finisher_wins_and_the_losers_are_cancelled(need):
    result, seconds = run(Parallel(work("slow", 9), work("quick", 2), need=need) >> work("after"))
    assert (set(result.state), seconds) == ({"quick", "quick started", "after", "after started"}, 2)


def test_n_of_the_branches_suffice():
    result, seconds = run(Parallel(work("a", 3), work("b", 9), work("c", 1), need=2))
    assert (finished(result), seconds) == ({"a", "c"}, 3)


def test_losers_clean_up_before_the_flow_goes_on():
    order: list[str] = []

    @node
    async def loser(state: SharedState) -> None:
        try:
            await asyncio.sleep(99)
        finally:
            await asyncio.sleep(1)
            order.append("cleaned up")

    @node
    async def after(state: SharedState) -> None:
        order.append("after")

    run(Parallel(loser, work("quick", 1), need=1) >> after)
    assert order == ["cleaned up", "after"]


def test_one_failing_branch_cancels_the_others_and_the_run():
    with pytest.raises(NodeError) as caught:
        run((work("a", 9), work("b", 1, fail=ValueError("no"))) >> work("after"))
    assert (caught.value.node, type(caught.value.__cause__)) == ("flow/b#1", ValueError)
    assert caught.value.siblings == ()


def test_siblings_that_fail_too_stand_in_the_first_error():
    @node
    async def fails_to_end(state: SharedState) -> None:
        try:
            await asyncio.sleep(9)
        finally:
            raise OSError("could not close")

    with pytest.raises(NodeError) as caught:
        run((fails_to_end, work("b", 1, fail=ValueError("no"))))
    (sibling,) = caught.value.siblings
    assert isinstance(sibling, NodeError)
    assert (sibling.node, type(sibling.__cause__)) == ("flow/fails_to_end#1", OSError)


def test_siblings_of_nested_sections_are_gathered():
    @node
    async def fails_to_end(state: SharedState) -> None:
        try:
            await asyncio.sleep(9)
        finally:
            raise OSError("could not close")

    inner = Parallel(work("a", 1, fail=ValueError("a")), fails_to_end.named("b"))
    with pytest.raises(NodeError) as caught:
        run((inner, fails_to_end.named("c")))
    assert [error.node for error in (caught.value, *caught.value.siblings)] == ["flow/a#1", "flow/b#1", "flow/c#1"]


def test_collect_drops_a_failed_branch_and_keeps_its_error():
    result, seconds = run(
        Parallel(work("a", 1, fail=ValueError("no")), work("b", 3), on_error="collect", errors="errors"),
    )
    (error,) = result.state["errors"]  # type: ignore[misc]
    assert isinstance(error, NodeError)
    assert (error.node, finished(result), "a started" in result.state, seconds) == (
        "flow/a#1",
        {"b", "errors"},
        False,
        3,
    )


def test_collected_errors_are_node_errors_whatever_went_wrong():
    @node
    async def odd(state: SharedState) -> str:
        return "elsewhere"

    result, _ = run(Parallel(odd, work("b"), on_error="collect", errors="errors"))
    (error,) = result.state["errors"]  # type: ignore[misc]
    assert isinstance(error, NodeError)
    assert isinstance(error.__cause__, UnknownTransition)


def test_without_failures_the_collected_errors_are_an_empty_list():
    result, _ = run(Parallel(work("a"), on_error="collect", errors="errors"))
    assert result.state["errors"] == []


def test_collect_needs_at_least_one_branch():
    with pytest.raises(JoinError) as caught:
        run(
            Parallel(
                work("a", fail=ValueError("x")), work("b", 1, fail=ValueError("y")), on_error="collect", name="pair"
            )
        )
    assert (caught.value.section, caught.value.need, len(caught.value.failures)) == ("flow/pair#1", 1, 2)
    assert caught.value.__cause__ is caught.value.failures[0]


def test_a_join_that_can_no_longer_fire_ends_the_section_at_once():
    clock = VirtualClock()
    section = Parallel(work("a", 1, fail=ValueError()), work("b", 50), work("c", 60), need=3, on_error="collect")

    async def main() -> None:
        with pytest.raises(JoinError):
            await AsyncFlow(section, clock=clock).run()

    clock.run(main())
    assert clock.monotonic() == 1


def test_collect_goes_on_while_enough_branches_can_still_succeed():
    section = Parallel(work("a", 1, fail=ValueError()), work("b", 5), work("c", 6), need=2, on_error="collect")
    result, seconds = run(section)
    assert (finished(result), seconds) == ({"b", "c"}, 6)


def test_two_branches_that_assign_one_key_are_a_conflict_and_nothing_is_written():
    @node
    async def left(state: SharedState) -> None:
        state["first"] = state["both"] = 1

    @node
    async def right(state: SharedState) -> None:
        state["both"] = 2

    shared = SharedState()
    with pytest.raises(StateConflict) as caught:
        VirtualClock().run(AsyncFlow((left, right)).run(shared))
    assert (caught.value.key, caught.value.writers, dict(shared)) == ("both", ("left", "right"), {})


def test_contributions_are_folded_in_branch_order_whoever_finishes_first():
    def adder(name: str, seconds: float) -> FunctionNode[..., Any]:
        async def body(state: SharedState) -> None:
            await asyncio.sleep(seconds)
            state.add(LOG, [name])

        return node(name=name)(body)

    result, _ = run(adder("zero", 0) >> (adder("a", 3), adder("b", 1), adder("c", 2)))
    assert result.state[LOG] == ["zero", "a", "b", "c"]


def test_a_branch_that_cancels_itself_fails_the_section_with_a_node_error():
    @node
    async def suicidal(state: SharedState) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    with pytest.raises(NodeError, match="cancelled from within"):
        run((suicidal, work("b", 5)))


def test_a_reducer_that_fails_at_the_join_is_a_node_error():
    def refuse(a: int, b: int) -> int:
        raise ArithmeticError("cannot fold")

    total = Key[int]("total", reduce=refuse)

    def adder(name: str) -> FunctionNode[..., Any]:
        async def body(state: SharedState) -> None:
            state.add(total, 1)

        return node(name=name)(body)

    with pytest.raises(NodeError, match="cannot fold"):
        run(Parallel(adder("a"), adder("b"), name="pair"))


# ---- dataflow


def cell(name: str, reads: tuple[str, ...] = (), seconds: float = 0, **options: Any) -> FunctionNode[..., Any]:
    """A dataflow node that takes `seconds` and writes a tuple of what it read under its own name."""

    async def body(*values: object) -> object:
        await asyncio.sleep(seconds)
        if "fail" in options:
            raise options["fail"]
        return (name, *values)

    return node(name=name, reads=reads, writes=name)(body)


def test_a_dataflow_runs_an_n_shaped_graph_without_superfluous_waiting():
    """c needs a alone and d needs a and b: c starts at 1, although b takes until 5."""
    result, seconds = run(
        Dataflow(cell("d", ("a", "b"), 1), cell("c", ("a",), 5), cell("b", (), 5), cell("a", (), 1)),
    )
    assert result.state["c"] == ("c", ("a",))
    assert result.state["d"] == ("d", ("a",), ("b",))
    assert seconds == 6


def test_a_dataflow_reads_its_inputs_from_the_state_at_its_entrance():
    result, _ = run(Dataflow(cell("b", ("a", "x")), cell("a", ("x",))), x=7)
    assert result.state["b"] == ("b", ("a", 7), 7)


def test_a_missing_input_of_a_dataflow_names_node_and_key_before_anything_runs():
    ran: list[str] = []

    @node(writes="a")
    async def a() -> int:
        ran.append("a")
        return 1

    with pytest.raises(InputError, match=r"b reads 'x'") as caught:
        run(Dataflow(a, cell("b", ("a", "x"))))
    assert (caught.value.field, ran) == ("x", [])


@pytest.mark.parametrize(
    ("written", "says"), [({"a": 1, "extra": 2}, "'extra'.*does not declare"), ({}, "'a'.*declares")]
)
def test_a_dataflow_node_writes_exactly_what_it_declares(written, says):
    class Writer(FunctionNode[..., Any]):
        def keys_written(self) -> tuple[str, ...]:
            return ("a",)

    async def body(state: SharedState) -> None:
        state.update(written)

    with pytest.raises(NodeError, match=says) as caught:
        run(Dataflow(Writer(body, name="a"), cell("b", ("a",))))
    assert caught.value.node == "flow/a#1"
    assert isinstance(caught.value.__cause__, StateError)


def test_a_failing_dataflow_node_cancels_the_others():
    shared = SharedState()
    clock = VirtualClock()
    flow = AsyncFlow(
        Dataflow(cell("a"), cell("b", ("a",), 1, fail=ValueError("no")), cell("c", (), 9), cell("d", ("b",))),
        clock=clock,
    )
    with pytest.raises(NodeError, match="flow/b#1"):
        clock.run(flow.run(shared))
    assert (dict(shared), clock.monotonic()) == ({}, 1)


def test_a_dataflow_holds_flows_and_eaches_and_stands_in_a_path():
    async def double(value: int) -> int:
        await asyncio.sleep(1)
        return 2 * value

    inner = AsyncFlow(cell("x", ("given",)), name="inner").using(inputs={"given": "doubled"}, outputs={"y": "x"})
    section = Dataflow(cell("z", ("y",)), inner, Each(double, over="numbers", into="doubled"))
    result, seconds = run(work("first", 1) >> section >> work("last", 1), numbers=[1, 2])
    assert result.state["z"] == ("z", ("x", [2, 4]))
    assert seconds == 3


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_a_dataflow_takes_exactly_its_critical_path(data):
    """Any acyclic graph, given in any order: each node starts when the last of what it reads is written."""
    count = data.draw(st.integers(1, 8))
    names = [f"n{i}" for i in range(count)]
    needs = {
        name: tuple(data.draw(st.lists(st.sampled_from(names[:i]), unique=True))) if i else ()
        for i, name in enumerate(names)
    }
    seconds = {name: data.draw(st.integers(0, 5)) for name in names}
    done: dict[str, int] = {}
    for name in names:
        done[name] = seconds[name] + max((done[other] for other in needs[name]), default=0)
    nodes = [cell(name, needs[name], seconds[name]) for name in data.draw(st.permutations(names))]
    result, took = run(Dataflow(*nodes))
    assert took == max(done.values())
    assert set(result.state) == set(names)


# ---- any nesting of sections, loops, Each and nested flows, against a sequential model


class Plan:
    """A random shape: a flow to run, and a model that says what it does, in plain sequential Python.

    `outcome()` gives (seconds, contributions in order) or (seconds, the failing leaf).
    """

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.leaves = 0

    def leaf(self) -> tuple[Any, tuple[Any, ...]]:
        self.leaves += 1
        name = f"leaf{self.leaves}"
        seconds = self.draw(st.integers(0, 3)) + self.leaves / 1024  # no two end at the same moment
        fails = self.draw(st.integers(0, 9)) == 0
        attempts = self.draw(st.integers(1, 3)) if fails else 1
        retry = RetryPolicy(max_attempts=attempts, base_delay=1, jitter="none")

        async def body(state: SharedState) -> None:
            await asyncio.sleep(seconds)
            if fails:
                raise ValueError(name)
            state.add(LOG, [name])

        return node(name=name, retry=retry)(body), ("leaf", name, seconds, fails, attempts)

    def chain(self, depth: int) -> tuple[Any, tuple[Any, ...]]:
        parts = [self.shape(depth) for _ in range(self.draw(st.integers(1, 3)))]
        path = parts[0][0]
        for operand, _ in parts[1:]:
            path = path >> operand
        return path, ("chain", [model for _, model in parts])

    def shape(self, depth: int) -> tuple[Any, tuple[Any, ...]]:
        kind = self.draw(st.sampled_from(["leaf", "parallel", "flow", "each", "loop"])) if depth else "leaf"
        return getattr(self, kind)() if kind == "leaf" else getattr(self, kind)(depth - 1)

    def parallel(self, depth: int) -> tuple[Any, tuple[Any, ...]]:
        branches = [self.chain(depth) for _ in range(self.draw(st.integers(1, 3)))]
        need = self.draw(st.integers(0, len(branches)))
        on_error = self.draw(st.sampled_from(["raise", "collect"]))
        section = Parallel(*(path for path, _ in branches), need=need or "all", on_error=on_error)
        return section, ("parallel", [model for _, model in branches], need, on_error)

    def flow(self, depth: int) -> tuple[Any, tuple[Any, ...]]:
        path, model = self.chain(depth)
        self.leaves += 1
        return AsyncFlow(path, name=f"flow{self.leaves}"), model

    def each(self, depth: int) -> tuple[Any, tuple[Any, ...]]:
        flow, model = self.flow(depth)
        times = self.draw(st.integers(0, 2))
        self.leaves += 1
        return Each(flow, over=f"list{times}", concurrency=1, name=f"each{self.leaves}"), ("chain", [model] * times)

    def loop(self, depth: int) -> tuple[Any, tuple[Any, ...]]:
        """A nested flow that passes its body twice."""
        path, model = self.chain(depth)
        self.leaves += 1
        count = f"count{self.leaves}"

        async def body(state: SharedState) -> str | None:
            state[count] = int(str(state.get(count, 0))) + 1
            return "again" if state[count] < 2 else None  # type: ignore[operator]

        async def begin(state: SharedState) -> None:
            state.pop(count, None)

        start, judge = node(name=f"begin{self.leaves}")(begin), node(name=count)(body)
        first = path if not hasattr(path, "parts") else path.parts()[0]
        flow = AsyncFlow(start >> path >> judge, judge.on("again") >> first, judge >> END)
        return flow.named(f"loop{self.leaves}"), ("chain", [model, model])


def model_of(plan: tuple[Any, ...]) -> tuple[float, list[str] | None]:
    """(seconds until it ends, what it contributes; None where it fails)."""
    kind = plan[0]
    if kind == "leaf":
        _, name, seconds, fails, attempts = plan
        if not fails:
            return seconds, [name]
        return seconds * attempts + sum(2.0**n for n in range(attempts - 1)), None
    if kind == "chain":
        total, found = 0.0, []
        for part in plan[1]:
            seconds, wrote = model_of(part)
            total += seconds
            if wrote is None:
                return total, None
            found += wrote
        return total, found
    _, branches, need, on_error = plan
    outcomes = [model_of(branch) for branch in branches]
    return join_of(outcomes, need or None, tolerant=on_error == "collect")


def join_of(
    outcomes: list[tuple[float, list[str] | None]], need: int | None, *, tolerant: bool
) -> tuple[float, list[str] | None]:
    spare = 0 if not tolerant else len(outcomes) if need is None else len(outcomes) - need
    won: list[int] = []
    failed = 0
    moment = 0.0
    for index in sorted(range(len(outcomes)), key=lambda i: outcomes[i][0]):
        moment, wrote = outcomes[index]
        if wrote is None:
            failed += 1
        else:
            won.append(index)
        if failed > spare:
            return moment, None
        if need is not None and len(won) == need:
            break
    if not won:
        return moment, None
    return moment, [name for index in sorted(won) for name in outcomes[index][1] or []]


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_any_nesting_does_what_a_sequential_model_says_and_leaves_no_task(data):
    path, plan = Plan(data.draw).chain(3)
    seconds, contributions = model_of(plan)
    clock = VirtualClock()
    flow = AsyncFlow(path, clock=clock)
    inputs = {"list0": [], "list1": [0], "list2": [0, 0]}

    async def main() -> list[str] | None:
        try:
            return (await flow.run(inputs)).state.get(LOG, [])
        except AgentFlowError:
            return None
        finally:
            assert asyncio.all_tasks() == {asyncio.current_task()}

    assert clock.run(main()) == contributions
    assert clock.monotonic() == pytest.approx(seconds)
