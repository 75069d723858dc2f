"""A graph as plain data: what is in an outline, and what keeps it small."""

from __future__ import annotations

import gc
import json
import weakref
from typing import Literal

from agentflow.core import END, AsyncFlow, Dataflow, Each, Parallel, node
from agentflow.core.graph import Graph
from agentflow.core.outline import MOST_NODES, outline


@node
async def plan(state) -> None: ...


@node
async def judge(state) -> Literal["again", "fine"]:
    return "fine"


def test_nodes_and_edges_are_named_and_none_is_the_end() -> None:
    flow = AsyncFlow(plan >> judge, judge.on("again") >> plan, judge.on("fine") >> END)
    assert outline(flow.graph) == {
        "start": "plan",
        "nodes": [{"name": "plan"}, {"name": "judge"}],
        "edges": [["plan", "default", "judge"], ["judge", "again", "plan"], ["judge", "fine", None]],
    }


def test_branches_stand_inside_their_section() -> None:
    flow = AsyncFlow(plan >> Parallel(judge, plan.named("b") >> plan.named("c"), name="both"))
    [_, section] = outline(flow.graph)["nodes"]
    assert (section["name"], section["kind"]) == ("both", "parallel")
    assert [branch["start"] for branch in section["inside"]] == ["judge", "b"]
    assert section["inside"][1]["edges"] == [["b", "default", "c"]]


def test_the_edges_of_a_dataflow_are_keys() -> None:
    @node(writes="text")
    async def fetch() -> str:
        return ""

    @node(reads="text", writes="length")
    async def measure(text: str) -> int:
        return len(text)

    [section] = outline(AsyncFlow(Dataflow(fetch, measure)).graph)["nodes"]
    assert section["kind"] == "dataflow"
    assert section["inside"][0]["edges"] == [["fetch", "text", "measure"]]


def test_nested_flows_and_the_flows_of_items_stand_inside() -> None:
    inner = AsyncFlow(plan, name="inner")
    flow = AsyncFlow(
        inner >> Each(inner, over="list", name="each") >> Each(str, over="list", name="plain"), name="outer"
    )
    nodes = {found["name"]: found for found in outline(flow.graph)["nodes"]}
    assert nodes["inner"]["kind"] == "flow"
    assert nodes["inner"]["inside"][0]["nodes"] == [{"name": "plan"}]
    assert nodes["each"]["inside"][0]["name"] == "inner"
    assert nodes["plain"] == {"name": "plain", "kind": "each", "inside": []}


def test_it_is_json_made_once_and_forgotten_with_the_graph() -> None:
    graph = Graph("flow", [plan >> judge])
    assert outline(graph) is outline(graph)
    assert json.loads(json.dumps(outline(graph))) == outline(graph)
    gone = weakref.ref(graph)
    del graph
    gc.collect()
    assert gone() is None


def test_a_huge_graph_is_cut_and_says_so() -> None:
    chain = plan.named("n0")
    for number in range(1, MOST_NODES + 7):
        chain = chain >> plan.named(f"n{number}")
    found = outline(AsyncFlow(chain).graph)
    assert len(found["nodes"]) == MOST_NODES
    assert found["left_out"] == 7
    names = {each["name"] for each in found["nodes"]}
    assert {target for _, _, target in found["edges"]} <= names
