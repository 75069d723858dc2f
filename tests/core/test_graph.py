"""Paths, sections and the checks that run when a flow is built; and what an action without an edge does at run time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.core import (
    END,
    AsyncFlow,
    AsyncNode,
    BaseNode,
    Dataflow,
    Each,
    FunctionNode,
    Key,
    Parallel,
    Path,
    SharedState,
    node,
)
from agentflow.core.graph import Graph
from agentflow.errors import GraphError, NodeError, UnknownTransition

TRAIL = Key[list[str]]("trail", reduce=lambda so_far, new: so_far + new, initial=list)


def step(name: str, *actions: str) -> BaseNode:
    """A node that leaves its name in TRAIL and returns its actions in turn, the last of them for ever."""

    @node(name=name)
    async def leave(state: SharedState) -> str | None:
        state.add(TRAIL, [name])
        seen = state[TRAIL].count(name)
        return actions[min(seen, len(actions)) - 1] if actions else None

    return leave


def judge(name: str = "judge") -> FunctionNode[[SharedState], Any]:
    """A node that declares what it returns: accept, or rewrite."""

    @node(name=name)
    async def decide(state: SharedState) -> Literal["accept", "rewrite"]:
        return "accept"

    return decide


async def trail(flow: AsyncFlow) -> list[str]:
    return (await flow.run()).state[TRAIL]


# ---- paths


async def test_a_path_is_walked_from_its_head() -> None:
    a, b, c = step("a"), step("b"), step("c")
    assert await trail(AsyncFlow(a >> b >> c)) == ["a", "b", "c"]


async def test_the_start_is_the_head_of_the_first_statement() -> None:
    a, b, c = step("a"), step("b"), step("c")
    assert await trail(AsyncFlow(b >> c, a >> b, b.on("back") >> a)) == ["b", "c"]


async def test_an_action_leads_along_its_edge() -> None:
    write, check, publish = step("write"), step("check", "rewrite", "accept"), step("publish")
    flow = AsyncFlow(write >> check, check.on("rewrite") >> write, check.on("accept") >> publish >> END)
    assert await trail(flow) == ["write", "check", "write", "check", "publish"]


async def test_on_may_stand_in_the_middle_of_a_path() -> None:
    a, b, c = step("a", "left"), step("b", "right"), step("c")
    assert await trail(AsyncFlow((a.on("left") >> b).on("right") >> c)) == ["a", "b", "c"]


def test_a_path_is_immutable_and_may_be_used_again() -> None:
    a, b, c, d = step("a"), step("b"), step("c"), step("d")
    start = a >> b
    longer, other = start >> c, start >> d

    assert start.parts() == [a, b]
    assert longer.parts() == [a, b, c]
    assert other.parts() == [a, b, d]
    assert repr(other) == "<Path a >> b >> d>"
    assert repr(a.on("x") >> b) == "<Path a.on('x') >> b>"


async def test_one_node_serves_many_flows_at_once() -> None:
    shared, a, b = step("shared"), step("a"), step("b")
    one, other = AsyncFlow(shared >> a), AsyncFlow(b >> shared)

    assert await trail(one) == ["shared", "a"]
    assert await trail(other) == ["b", "shared"]


async def test_the_same_node_twice_needs_a_second_name() -> None:
    a, b = step("a"), step("b")
    assert await trail(AsyncFlow(a >> b >> a.named("again"))) == ["a", "b", "a"]

    with pytest.raises(GraphError, match="two nodes of flow 'f' are named 'a'"):
        AsyncFlow(a >> b >> a.named("a"), name="f")


Nested = Any


def bracketed(count: int) -> st.SearchStrategy[Nested]:
    """The numbers below `count` in order, bracketed in any way: ((0, 1), (2, (3, 4)))."""

    def split(low: int, high: int) -> st.SearchStrategy[Nested]:
        if high - low == 1:
            return st.just(low)
        return st.integers(low + 1, high - 1).flatmap(lambda cut: st.tuples(split(low, cut), split(cut, high)))

    return split(0, count)


@given(st.integers(2, 9).flatmap(bracketed))
def test_a_path_is_the_same_however_it_is_bracketed(shape: Nested) -> None:
    nodes: dict[int, BaseNode] = {}

    def build(part: Nested) -> Any:
        if isinstance(part, int):
            return nodes.setdefault(part, step(f"n{part}"))
        return build(part[0]) >> build(part[1])

    path = build(shape)
    assert isinstance(path, Path)
    assert path.parts() == [nodes[index] for index in range(len(nodes))]


def test_a_path_of_a_hundred_thousand_nodes_is_built_without_recursion() -> None:
    a, b = step("a"), step("b")
    path: Any = a
    for _ in range(50_000):
        path = path >> b >> a
    graph = Graph("long", [path])

    assert graph.edges[a] == {"default": b}


def test_two_targets_of_one_action_are_refused() -> None:
    a, b, c = step("a"), step("b"), step("c")
    with pytest.raises(GraphError, match="a on 'default' leads to b and to c"):
        AsyncFlow(a >> b, a >> c)
    with pytest.raises(GraphError, match="a on 'go' leads to b and to END"):
        AsyncFlow(a.on("go") >> b, a.on("go") >> END)


def test_the_same_edge_twice_is_one_edge() -> None:
    a, b = step("a"), step("b")
    assert Graph("f", [a >> b, a >> b]).edges[a] == {"default": b}


def test_a_dangling_on_is_refused() -> None:
    a, b = step("a"), step("b")
    with pytest.raises(GraphError, match=r"\.on\('go'\) of b leads nowhere"):
        AsyncFlow(a >> b.on("go"))
    with pytest.raises(GraphError, match=r"\.on\('x'\) is followed by \.on\('y'\)"):
        AsyncFlow(a.on("x").on("y") >> b)


def test_nothing_follows_end() -> None:
    a, b = step("a"), step("b")
    for path in (a >> END >> b, a >> END >> b >> END, a >> END >> END, (a >> END).on("x") >> b):
        with pytest.raises(GraphError, match="nothing follows END"):
            AsyncFlow(path)
    with pytest.raises(GraphError, match="starts with a node, not with END"):
        AsyncFlow(END >> a)  # type: ignore[operator]  # END has no >>


def test_an_action_is_a_word() -> None:
    for wrong in ("", 5, None):
        with pytest.raises(GraphError, match=r"\.on\(\) takes the action as a str"):
            step("a").on(wrong)  # type: ignore[arg-type]  # on purpose


class Write(AsyncNode[str, str]):
    pass


@pytest.mark.parametrize(
    "make",
    [
        lambda a: a >> Write,
        lambda a: Write >> a,
        lambda a: (a >> a) >> Write,
        lambda a: a.on("x") >> Write,
        lambda a: a >> (a, Write),
        lambda a: Parallel(Write),
        lambda a: Dataflow(Write),
        lambda a: AsyncFlow(Write),
        lambda a: Each(Write, over="items"),
    ],
)
def test_a_class_where_an_instance_is_meant_gets_a_helpful_error(make: Any) -> None:
    with pytest.raises(GraphError, match=r"Write is a class: write Write\(\)"):
        make(step("a"))


def test_a_plain_function_in_a_path_gets_a_helpful_error() -> None:
    def work() -> None: ...

    for make in (lambda a: a >> work, lambda a: work >> a, lambda a: AsyncFlow(work)):
        with pytest.raises(GraphError, match="work is a plain function: decorate it with @node"):
            make(step("a"))
    with pytest.raises(GraphError, match="not int 5"):
        step("a") >> 5  # type: ignore[operator]  # on purpose


def test_two_tuples_in_a_row_are_pythons_own_error_and_parallel_serves() -> None:
    a, b, c, d = step("a"), step("b"), step("c"), step("d")
    with pytest.raises(TypeError):
        _ = (a, b) >> (c, d)  # type: ignore[operator]  # Python's own
    AsyncFlow(Parallel(a, b) >> (c, d))


def test_a_node_that_compares_by_value_is_refused() -> None:
    @dataclass
    class Fetch(AsyncNode[str, str]):
        url: str

    with pytest.raises(GraphError, match=r"fetch compares by value.*eq=False"):
        AsyncFlow(Fetch("a") >> Fetch("b"))


async def test_a_dataclass_without_equality_is_a_fine_node() -> None:
    @dataclass(eq=False)
    class Put(AsyncNode[None, None]):
        key: str

        async def post(self, state: SharedState, item: None, result: None) -> None:
            state[self.key] = self.key

    result = await AsyncFlow(Put("a") >> Put("b").named("second")).run()
    assert result.state == {"a": "a", "b": "b"}


# ---- names


def test_names_are_unique_in_a_flow() -> None:
    with pytest.raises(GraphError, match="two nodes of flow 'f' are named 'a'"):
        AsyncFlow(step("a") >> step("a"), name="f")
    with pytest.raises(GraphError, match="are named 'a'"):
        AsyncFlow(step("start") >> (step("a"), step("b") >> step("a")))


def test_a_section_has_a_name_in_the_flow_only_when_it_is_given_one() -> None:
    a, b = step("a"), step("b")
    AsyncFlow(step("start") >> Parallel(a, name="p") >> Parallel(b))
    with pytest.raises(GraphError, match="are named 'p'"):
        AsyncFlow(Parallel(a, name="p") >> Parallel(b, name="p"))
    with pytest.raises(GraphError, match="are named 'p'"):
        AsyncFlow(Parallel(a, name="p") >> Parallel(b).named("p"))


@pytest.mark.parametrize("name", ["a/b", "a#1", "a!undo", ""])
def test_names_hold_nothing_that_paths_are_made_of(name: str) -> None:
    with pytest.raises(GraphError, match="is no name for a node"):
        AsyncFlow(step("start") >> step("x").named(name))


@pytest.mark.parametrize("name", ["a/b", "a#1", "a!undo"])
def test_nor_do_those_of_flows_and_of_what_an_each_runs(name: str) -> None:
    with pytest.raises(GraphError, match="is no name for a flow"):
        AsyncFlow(step("x"), name=name)
    with pytest.raises(GraphError, match="is no name for a node"):
        Each(AsyncNode[str, str](name=name), over="items")


def test_a_class_gives_its_nodes_its_own_name_in_snake_case() -> None:
    class HTTPFetchAll(AsyncNode[str, str]):
        pass

    class Named(AsyncNode[str, str]):
        name = "custom"

    assert (HTTPFetchAll().name, Named().name, Write(name="w").name) == ("http_fetch_all", "custom", "w")


# ---- checked when built


def test_an_empty_flow_is_refused() -> None:
    with pytest.raises(GraphError, match="flow 'f' is empty"):
        AsyncFlow(name="f")


def test_unreachable_nodes_are_refused() -> None:
    a, b, c = step("a"), step("b"), step("c")
    with pytest.raises(GraphError, match=r"nothing leads to c in flow 'flow' \(it starts at a\)"):
        AsyncFlow(a >> b, c >> b)


def test_an_action_that_a_node_does_not_declare_is_refused() -> None:
    decide = judge()
    with pytest.raises(GraphError, match=r"judge never returns 'acept': it declares 'accept', 'rewrite'; did you mean"):
        AsyncFlow(decide.on("acept") >> step("a"))
    with pytest.raises(GraphError, match="judge never returns 'default'"):
        AsyncFlow(judge() >> step("a"))
    AsyncFlow(decide.on("accept") >> END, decide.on("rewrite") >> decide)


def test_a_node_without_literal_actions_may_return_any() -> None:
    AsyncFlow(step("a").on("whatever") >> step("b"))


def test_a_node_that_writes_returns_default_alone() -> None:
    @node(writes="x")
    async def write() -> int:
        return 1

    with pytest.raises(GraphError, match="write never returns 'again': it declares 'default'"):
        AsyncFlow(write.on("again") >> step("b"))


def test_a_nested_flow_declares_the_actions_it_can_end_with() -> None:
    decide, a = judge(), step("a")
    inner = AsyncFlow(decide, decide.on("accept") >> END, decide.on("rewrite") >> decide, name="inner")

    AsyncFlow(inner.on("accept") >> a)
    with pytest.raises(GraphError, match="inner never returns 'rewrite': it declares 'accept'"):
        AsyncFlow(inner.on("rewrite") >> a)
    with pytest.raises(GraphError, match="inner never returns 'x': it declares 'accept', 'rewrite'"):
        AsyncFlow(AsyncFlow(judge(), name="inner").on("x") >> a)
    AsyncFlow(AsyncFlow(step("b"), name="free").on("x") >> a)


def test_a_join_that_cannot_fire_is_refused() -> None:
    a, b, c = step("a"), step("b"), step("c")
    endless = a >> b >> a
    with pytest.raises(GraphError, match="can never fire: the branch of a has no way to its end"):
        AsyncFlow((endless, c))
    AsyncFlow(Parallel(endless, c, need=1))
    AsyncFlow((endless, c), b.on("stop") >> END)


async def test_loops_are_legal() -> None:
    a = step("a", "again", "again", "done")
    assert await trail(AsyncFlow(a.on("again") >> a, a.on("done") >> END)) == ["a"] * 3


# ---- parallel sections


async def test_a_tuple_is_a_parallel_section_entered_and_left_whole() -> None:
    flow = AsyncFlow(step("a") >> (step("b") >> step("c"), step("d")) >> step("e"))
    assert await trail(flow) == ["a", "b", "c", "d", "e"]


async def test_a_path_may_start_with_a_tuple() -> None:
    assert await trail(AsyncFlow((step("a"), step("b")) >> step("c"))) == ["a", "b", "c"]
    assert await trail(AsyncFlow((step("a"), step("b")))) == ["a", "b"]


async def test_branches_nest() -> None:
    flow = AsyncFlow((step("a") >> (step("b"), (step("c"), step("d")) >> step("e")), step("f")) >> step("g"))
    assert await trail(flow) == ["a", "b", "c", "d", "e", "f", "g"]


async def test_a_branch_may_loop_inside_itself_by_statements_of_its_own() -> None:
    a, check = step("a"), step("check", "again", "default")
    flow = AsyncFlow((a >> check, step("b")) >> step("c"), check.on("again") >> a)
    assert await trail(flow) == ["a", "check", "a", "check", "b", "c"]


async def test_end_completes_the_innermost_branch() -> None:
    a = step("a", "stop")
    flow = AsyncFlow((a >> step("never"), step("b")) >> step("c"), a.on("stop") >> END)
    assert await trail(flow) == ["a", "b", "c"]


async def test_end_completes_the_nested_flow_and_not_its_parent() -> None:
    inner = AsyncFlow(step("a") >> END, name="inner")
    assert await trail(AsyncFlow(inner >> step("b"))) == ["a", "b"]


def test_jumping_into_a_section_is_refused() -> None:
    a, b, c, d = step("a"), step("b"), step("c"), step("d")
    with pytest.raises(GraphError, match=r"a >> c jumps into the section \(b, d\)"):
        AsyncFlow(a >> (b >> c, d), a.on("x") >> c)
    with pytest.raises(GraphError, match=r"b >> c leads into another branch of \(b, c\)"):
        AsyncFlow((b, c >> d), b.on("x") >> c)


def test_escaping_past_the_join_is_refused() -> None:
    a, b, c, d, e, f = (step(name) for name in "abcdef")
    with pytest.raises(GraphError, match=r"b >> a escapes from the section \(b, c\)"):
        AsyncFlow(a >> (b, c) >> d, b.on("x") >> a)
    with pytest.raises(GraphError, match=r"c >> d escapes from the section \(c, e\)"):
        AsyncFlow(a >> (b >> (c, e) >> d, f), c.on("x") >> d)


def test_one_node_in_two_sections_or_branches_is_refused() -> None:
    a, b, c = step("a"), step("b"), step("c")
    for make in (
        lambda: AsyncFlow((a, b) >> Parallel(a, c)),
        lambda: AsyncFlow((a, a)),
        lambda: AsyncFlow((a, (a, b))),
        lambda: AsyncFlow((a >> (a, b), c)),
    ):
        with pytest.raises(GraphError, match=r"a stands in two sections or branches: use a\.named\(…\)"):
            make()
    AsyncFlow((a, b) >> Parallel(a.named("a2"), c))


def test_one_section_may_be_entered_from_two_places() -> None:
    a, again, both = step("a"), step("again"), Parallel(step("b"), step("c"))
    AsyncFlow(a >> both >> again, again.on("more") >> both)


@pytest.mark.parametrize("need", [0, 3, -1, "most", True, 1.5])
def test_need_is_all_any_or_a_number_of_branches(need: Any) -> None:
    with pytest.raises(GraphError, match='need is "all", "any" or a number from 1 to the 2 branches'):
        Parallel(step("a"), step("b"), need=need)


def test_a_section_needs_branches_and_a_known_on_error() -> None:
    with pytest.raises(GraphError, match="at least one branch"):
        Parallel()
    with pytest.raises(GraphError, match="at least one branch"):
        step("a") >> ()
    with pytest.raises(GraphError, match="on_error is 'raise' or 'collect', not 'ignore'"):
        Parallel(step("a"), on_error="ignore")  # type: ignore[arg-type]  # on purpose
    with pytest.raises(GraphError, match="a branch needs a node before its END"):
        step("a") >> (step("b"), END)


def test_a_section_returns_default_alone() -> None:
    with pytest.raises(GraphError, match="never returns 'x'"):
        AsyncFlow(Parallel(step("a"), step("b")).on("x") >> step("c"))


# ---- dataflow sections


def part(name: str, reads: tuple[str, ...] = (), writes: tuple[str, ...] = ()) -> AsyncNode[None, None]:
    class Part(AsyncNode[None, None]):
        async def post(self, state: SharedState, item: None, result: None) -> None:
            for key in writes:
                state[key] = name

    made = Part(name=name)
    made.reads, made.writes = reads, writes  # type: ignore[misc]  # class variables, here one a node
    return made


def test_a_dataflow_knows_its_inputs_its_outputs_and_who_waits_for_whom() -> None:
    fetch, parse, rank = (
        part("fetch", ("url",), ("page",)),
        part("parse", ("page",), ("tree",)),
        part("rank", ("page",)),
    )
    section = Dataflow(rank, fetch, parse)

    assert section.keys_read() == ("url",)
    assert set(section.keys_written()) == {"page", "tree"}
    assert section.needs == {rank: (fetch,), fetch: (), parse: (fetch,)}


def test_a_cycle_is_refused_and_its_nodes_named() -> None:
    with pytest.raises(GraphError, match=r"wait for each other: a, b$"):
        Dataflow(part("free", (), ("z",)), part("a", ("y",), ("x",)), part("b", ("x",), ("y",)))
    with pytest.raises(GraphError, match=r"wait for each other: a$"):
        Dataflow(part("a", ("x",), ("x",)))


def test_two_writers_of_one_key_are_refused() -> None:
    with pytest.raises(GraphError, match="a and b both write 'x'"):
        Dataflow(part("a", (), ("x",)), part("b", (), ("x",)))


def test_a_dataflow_places_only_what_declares_something() -> None:
    with pytest.raises(GraphError, match="a declares neither reads nor writes"):
        Dataflow(part("a"))
    with pytest.raises(GraphError, match="at least one node"):
        Dataflow()


@pytest.mark.parametrize("wrong", ["path", "tuple", "parallel", "dataflow", "end"])
def test_a_dataflow_is_made_of_single_nodes(wrong: str) -> None:
    a, b = part("a", (), ("x",)), part("b", (), ("y",))
    other: Any = {"path": a >> b, "tuple": (a, b), "parallel": Parallel(a), "dataflow": Dataflow(a), "end": END}[wrong]
    with pytest.raises(GraphError, match="a dataflow section is made of single nodes"):
        Dataflow(other)


def test_a_dataflows_nodes_have_no_other_edges() -> None:
    a, b, c = part("a", (), ("x",)), part("b", ("x",)), step("c")
    with pytest.raises(GraphError, match="where reads and writes are the only edges"):
        AsyncFlow(Dataflow(a, b) >> c, a >> b)
    with pytest.raises(GraphError, match="c >> a jumps into the section"):
        AsyncFlow(Dataflow(a, b) >> c, c.on("x") >> a)
    with pytest.raises(GraphError, match="stands in two sections"):
        AsyncFlow(Dataflow(a, b) >> Parallel(a))
    with pytest.raises(GraphError, match="stands in two sections"):
        AsyncFlow(Dataflow(b, b))


# ---- an action without an edge


async def test_an_action_without_an_edge_names_the_known_ones() -> None:
    check = step("check", "maybe")
    flow = AsyncFlow(check.on("yes") >> step("a"), check.on("no") >> step("b"), name="f")

    with pytest.raises(UnknownTransition) as caught:
        await flow.run()
    assert (caught.value.node, caught.value.action, caught.value.known) == ("f/check#1", "maybe", ("no", "yes"))


async def test_none_is_the_action_default() -> None:
    check = step("check")
    with pytest.raises(UnknownTransition) as caught:
        await AsyncFlow(check.on("yes") >> step("a")).run()
    assert caught.value.action == "default"


async def test_the_empty_action_is_not_default() -> None:
    with pytest.raises(UnknownTransition, match="returned ''"):
        await AsyncFlow(step("check", "") >> step("a")).run()


async def test_at_a_branchs_end_default_leads_to_the_join_and_nothing_else_does() -> None:
    with pytest.raises(UnknownTransition) as caught:
        await AsyncFlow((step("a") >> step("check", "maybe"), step("b")) >> step("c"), name="f").run()
    assert (caught.value.node, caught.value.known) == ("f/check#1", ("default",))


async def test_a_node_with_no_edges_at_all_ends_with_any_action() -> None:
    assert (await AsyncFlow(step("a") >> step("check", "whatever")).run()).action == "whatever"
    assert (await AsyncFlow(step("a")).run()).action == "default"


async def test_a_flow_ends_with_the_action_that_led_to_end() -> None:
    check = step("check", "accept")
    assert (await AsyncFlow(check.on("accept") >> END).run()).action == "accept"


@pytest.mark.parametrize("wrong", [5, ["x"], {"a": 1}, True])
async def test_what_is_no_action_is_a_node_error_that_says_what_to_do(wrong: Any) -> None:
    @node
    async def odd(state: SharedState) -> Any:
        return wrong

    with pytest.raises(NodeError, match=r"an action is a str or None .*declare writes=") as caught:
        await AsyncFlow(odd >> step("a"), name="f").run()
    assert (caught.value.node, caught.value.phase) == ("f/odd#1", "post")
    assert isinstance(caught.value.__cause__, TypeError)
