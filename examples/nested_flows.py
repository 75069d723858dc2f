"""Flows within flows: a flow is a node, with the state of its parent or one of its own.

    agentflow run examples/nested_flows.py notes.txt page.html
    agentflow graph examples/nested_flows.py

    read ─▶ for each document [ shrink ─▶ polish ] ─▶ [ headline ] ─▶ lay out

`brief` runs once for each document. `headline` is written for a state of its own, with its own names: `using` says
which of the parent's values it gets, and under which name its result comes back.
"""

from __future__ import annotations

from agentflow import ITEM, AsyncFlow, Each, Key, LLMNode, SharedState, node
from documents import Document, gather

ARGS, OUTPUT = Key[list[str]]("args"), Key[str]("output")
DOCUMENTS, BRIEFS = Key[list[Document]]("documents"), Key[list[str]]("briefs")
TEXT, SUMMARY, BRIEF = Key[str]("text"), Key[str]("summary"), Key[str]("brief")
JOINED, TITLE = Key[str]("joined"), Key[str]("title")


@node(reads=ARGS, writes=DOCUMENTS)
def read(args: list[str]) -> list[Document]:
    return gather(args).documents


# ---- one document: a flow over the item that Each gives it ------------------------------------------------------


@node
async def take(state: SharedState) -> None:
    document = state[ITEM]
    assert isinstance(document, Document)
    state["name"], state[TEXT] = document.name, document.text


shrink = LLMNode(prompt="Summarise the text below in one sentence:\n\n{text}", writes=SUMMARY, name="shrink")


@node(reads=("name", "summary"), writes=BRIEF)
async def polish(name: str, summary: str) -> str:
    return f"- {name}: {' '.join(summary.split())}"


brief = AsyncFlow(take >> shrink >> polish, name="brief")


# ---- a headline for any text: a flow that knows nothing of its parent -----------------------------------------

headline = AsyncFlow(
    LLMNode(prompt="Summarise the text below in at most 12 words:\n\n{body}", writes="line", name="condense"),
    name="headline",
)


# ---- the whole ------------------------------------------------------------------------------------------------


@node(reads=BRIEFS, writes=JOINED)
async def join(briefs: list[str]) -> str:
    return "\n".join(briefs)


@node(reads=(TITLE, JOINED), writes=OUTPUT)
async def lay_out(title: str, joined: str) -> str:
    return f"{title}\n\n{joined}"


flow = AsyncFlow(
    read
    >> Each(brief, over=DOCUMENTS, into=BRIEFS, collect=BRIEF, name="each_document")
    >> join
    >> headline.using(inputs={"body": JOINED}, outputs={TITLE: "line"})
    >> lay_out,
    name="newsletter",
)
