"""The picture of a flow: every shape as a Mermaid flowchart, the same text each time.

The texts below were parsed by Mermaid itself (11.x, `mermaid.parse`) when they were written.
"""

from __future__ import annotations

import re
from textwrap import dedent

import pytest

from agentflow.core import END, AsyncFlow, BaseNode, Dataflow, Each, Flow, FunctionNode, Parallel, SharedState, node


def step(name: str) -> FunctionNode[[SharedState], object]:
    @node(name=name)
    async def nothing(state: SharedState) -> str | None: ...

    return nothing


def picture(flow: AsyncFlow | Flow) -> str:
    text = flow.mermaid()
    assert text == flow.mermaid(), "the same graph always gives the same text"
    return text


def drawn(text: str) -> str:
    return dedent(text).lstrip("\n")


def test_a_chain_starts_at_a_circle_and_ends_where_its_edges_end() -> None:
    assert picture(AsyncFlow(step("a") >> step("b") >> END)) == drawn("""
        flowchart TD
            n3(( )) --> n1
            n1["a"]
            n2["b"]
            n1 --> n2
            n4([END])
            n2 --> n4
    """)


def test_actions_stand_on_their_edges_and_loops_go_back() -> None:
    write, judge = step("write"), step("judge")
    flow = AsyncFlow(write >> judge, judge.on("rewrite") >> write, judge.on("accept") >> END)
    assert picture(flow) == drawn("""
        flowchart TD
            n3(( )) --> n1
            n1["write"]
            n2["judge"]
            n1 --> n2
            n2 -- "rewrite" --> n1
            n4([END])
            n2 -- "accept" --> n4
    """)


def test_a_parallel_section_is_a_subgraph_and_leaving_it_is_the_join() -> None:
    stop = step("e")
    flow = AsyncFlow(step("a") >> (step("b"), step("c") >> (step("d"), stop)) >> step("f"), stop.on("x") >> END)
    assert picture(flow) == drawn("""
        flowchart TD
            n9(( )) --> n6
            n6["a"]
            subgraph n7["parallel"]
                n1["b"]
                n2["c"]
                subgraph n3["parallel"]
                    n4["d"]
                    n5["e"]
                    n10([END])
                    n5 -- "x" --> n10
                end
                n2 --> n3
            end
            n8["f"]
            n6 --> n7
            n7 --> n8
    """)


def test_a_section_says_its_name_and_how_many_branches_it_needs() -> None:
    a, b, c = step("a"), step("b"), step("c")
    assert '["race: first 1 of 2"]' in picture(AsyncFlow(Parallel(a, b, need="any", name="race")))
    assert '["parallel: first 2 of 3"]' in picture(AsyncFlow(Parallel(a, b, c, need=2)))
    assert '["vote"]' in picture(AsyncFlow(Parallel(a, b).named("vote")))


def test_a_dataflow_shows_which_key_goes_from_whom_to_whom() -> None:
    @node(reads="url", writes="page")
    async def fetch(url: str) -> str:
        return url

    @node(reads="page", writes="tree")
    async def parse(page: str) -> str:
        return page

    @node(reads=("page", "tree"))
    async def report(page: str, tree: str) -> None: ...

    assert picture(AsyncFlow(Dataflow(report, parse, fetch))) == drawn("""
        flowchart TD
            n5(( )) --> n4
            subgraph n4["dataflow"]
                n1["report"]
                n2["parse"]
                n3["fetch"]
                n3 -. "page" .-> n1
                n2 -. "tree" .-> n1
                n3 -. "page" .-> n2
            end
    """)


def test_nested_flows_are_subgraphs_whose_ids_do_not_collide() -> None:
    inner = AsyncFlow(step("a") >> step("b"), name="inner")
    text = picture(Flow(inner >> inner.named("other") >> step("a")))
    assert text == drawn("""
        flowchart TD
            n4(( )) --> n1
            subgraph n1["inner"]
                n5["a"]
                n6["b"]
                n5 --> n6
            end
            subgraph n2["other"]
                n7["a"]
                n8["b"]
                n7 --> n8
            end
            n3["a"]
            n1 --> n2
            n2 --> n3
    """)


def test_an_each_has_a_double_frame_and_shows_the_flow_its_items_run_through() -> None:
    inner = AsyncFlow(step("a"), name="inner")
    text = picture(AsyncFlow(Each(len, over="x", name="sizes") >> Each(inner, over="x", name="runs")))
    assert text == drawn("""
        flowchart TD
            n3(( )) --> n1
            n1[["sizes"]]
            subgraph n2["runs, for each item"]
                n4["a"]
            end
            n1 --> n2
    """)


@pytest.mark.parametrize(
    ("word", "escaped"),
    [
        ('say "hi"', "say #34;hi#34;"),
        ("`code`", "#96;code#96;"),
        ("<b>&amp;", "#60;b#62;#38;amp;"),
        ("#35;", "#35;35;"),
        ("two\nlines", "two#10;lines"),
        ("end", "end"),
        ("日本語 100%", "日本語 100%"),
    ],
)
def test_what_mermaid_would_misread_is_escaped(word: str, escaped: str) -> None:
    assert f'-- "{escaped}" -->' in picture(AsyncFlow(step("a").on(word) >> step("b")))


def test_every_id_is_declared_once() -> None:
    inner: BaseNode = AsyncFlow(step("x") >> (step("y"), step("z")), name="inner")
    text = picture(AsyncFlow(step("a") >> (inner, step("b") >> END) >> Each(inner, over="i", collect="x") >> END))
    declared = re.findall(r"^\s*(?:subgraph )?(n\d+)[\[(]", text, re.MULTILINE)
    assert len(declared) == len(set(declared))
    assert set(re.findall(r"\bn\d+\b", text)) == set(declared)
