"""The page of a run as text: whole, without addresses, bounded, and honest about what it leaves out."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

from tests.support.run_events import RunEvents, busy_run

from agentflow.cli.tracing.page import page_of
from agentflow.core.observability.trace.tree import trace_of


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.names: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            self.names.add(name)
            if name == "id":
                self.ids.append(value or "")
            if name in ("href", "src"):
                self.links.append(value or "")


def read(page: str) -> _Reader:
    reader = _Reader()
    reader.feed(page)
    reader.close()
    return reader


def test_every_link_leads_within_the_page_and_nothing_is_asked_of_anybody() -> None:
    found = read(page_of(trace_of(busy_run(14, failing=2, content=True).events)))
    assert len(found.ids) == len(set(found.ids))
    assert {link.removeprefix("#") for link in found.links if link.startswith("#")} <= set(found.ids)
    assert [link for link in found.links if not link.startswith("#")] == ["data:,"]
    assert found.tags.isdisjoint({"img", "iframe", "object", "form", "base"})
    assert not any(name.startswith("on") or name == "style" for name in found.names)


def test_the_policy_allows_the_page_s_own_style_and_script_and_no_other() -> None:
    page = page_of(trace_of(busy_run(2).events))
    [policy] = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy.startswith("default-src &#x27;none&#x27;;")
    for tag in ("style", "script"):
        [text] = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src &#x27;sha256-{digest}&#x27;" in policy


def test_it_says_the_three_answers_and_shows_what_was_captured() -> None:
    page = page_of(trace_of(busy_run(4, content=True).events))
    assert "digest ran to its end in" in page
    assert "Why did it take so long?" in page
    assert "Summarise: &lt;b&gt;tides&lt;/b&gt; &amp; moons" in page
    assert "The moon pulls." in page


def test_megabytes_of_prompts_are_cut_and_the_page_says_so() -> None:
    run = RunEvents()
    flow = run.begin("flow", "f")
    for number in range(30):
        call = run.begin(
            "model", f"f/n#{number}", flow, model="m", messages=[{"role": "user", "content": "x" * 3_000_000}]
        )
        run.at += 1.0
        run.end(call, answer="y" * 1_000_000)
    run.end(flow)
    page = page_of(trace_of(run.events))
    assert len(page) < 8_000_000
    assert "more signs" in page


def test_a_run_that_is_unfinished_empty_or_strange_is_a_page_too() -> None:
    assert "still running" in page_of(trace_of(busy_run(2, ends=False).events, now=5.0))
    assert "cut off" in page_of(trace_of(busy_run(2, ends=False).events, over=True))
    assert "Nothing is known of this run." in page_of(trace_of([]))
    run = RunEvents(started=1e18)
    flow = run.begin("flow", "f", graph={"nodes": "x", "edges": 7}, tenant=3)
    run.end(flow, breakdown={"own": "much", "tea": 2.0}, cost="free")
    assert "<!doctype html>" in page_of(trace_of(run.events))
    odd = {
        "nodes": [{"name": "a", "inside": [{"nodes": [{}]}]}, 5],
        "edges": [["a", "b"], ["a", "x", "nowhere"], "abc"],
    }
    run = RunEvents()
    run.end(run.begin("flow", "f", graph=odd))
    assert "not visited" in page_of(trace_of(run.events))


def test_the_graph_says_which_ways_the_run_took_and_how_often() -> None:
    run = RunEvents()
    graph = {
        "start": "judge",
        "nodes": [{"name": "judge"}, {"name": "write"}, {"name": "stop"}],
        "edges": [
            ["judge", "rewrite", "write"],
            ["write", "default", "judge"],
            ["judge", "accept", None],
            ["judge", "reject", "stop"],
        ],
    }
    flow = run.begin("flow", "f", graph=graph)
    for visit, action in enumerate(("rewrite", "rewrite", "accept"), start=1):
        run.end(run.begin("node", f"f/judge#{visit}", parent=flow), action=action)
        if action == "rewrite":
            run.end(run.begin("node", f"f/write#{visit}", parent=flow))
    run.end(flow)
    page = page_of(trace_of(run.events))
    for said in ("rewrite: taken 2 times", "default: taken 2 times", "accept: taken once", "reject: not taken"):
        assert said in page
    assert page.count("edge idle") == 1


def test_the_graph_shows_nested_flows_sections_and_what_was_not_visited() -> None:
    inner = {"name": "inner", "start": "x", "nodes": [{"name": "x"}], "edges": [["x", "default", None]]}
    branch = [{"start": name, "nodes": [{"name": name}], "edges": []} for name in ("left", "right")]
    graph = {
        "start": "inner",
        "nodes": [
            {"name": "inner", "kind": "flow", "inside": [inner]},
            {"name": "(left, right)", "kind": "parallel", "inside": branch},
            {"name": "each", "kind": "each", "inside": [inner]},
        ],
        "edges": [["inner", "default", "(left, right)"], ["(left, right)", "default", "each"]],
    }
    run = RunEvents()
    flow = run.begin("flow", "f", graph=graph)
    for path in ("f/inner#1/x#1", "f/left#1", "f/each#1/0/inner#1/x#1"):
        run.at += 1.0
        run.end(run.begin("node", path, flow))
    run.end(flow)
    page = page_of(trace_of(run.events))
    shown = re.findall(r'class="node (\w+)[^"]*"[^>]*><title>([^:<]*)', page)
    assert shown == [
        ("unvisited", "inner"), ("visited", "x"), ("visited", "(left, right)"), ("visited", "left"),
        ("unvisited", "right"), ("unvisited", "each"), ("visited", "x"),
    ]  # fmt: skip
