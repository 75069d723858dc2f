"""Map-reduce over files: each is read and counted beside the others, then one table says which words they share.

    agentflow run examples/map_reduce.py FOLDER… [--input top=20]

    read ─▶ count words in each (8 at a time) ─▶ reduce

No model is asked. A file that cannot be counted does not stop the others: its error is collected and reported.
"""

from __future__ import annotations

import re
from collections import Counter

from agentflow import AsyncFlow, Each, Key, SharedState, node
from agentflow.errors import InputError, NodeError
from documents import Document, gather

ARGS, OUTPUT = Key[list[str]]("args"), Key[str]("output")
DOCUMENTS = Key[list[Document]]("documents")
COUNTS = Key[list[dict[str, int] | NodeError]]("counts")

SHORTEST = 5  # letters: shorter words say little


@node(reads=ARGS, writes=DOCUMENTS)
def read(args: list[str]) -> list[Document]:
    return gather(args).documents


def count(document: Document) -> dict[str, int]:
    """A plain function: Each gives it one item, in a thread of its own."""
    words = re.findall(r"[^\W\d_]+", document.text.lower())
    if not words:
        raise ValueError(f"{document.name} holds no words")
    return dict(Counter(word for word in words if len(word) >= SHORTEST))


@node
def reduce(state: SharedState) -> None:
    counted = [Counter(found) for found in state[COUNTS] if isinstance(found, dict)]
    failed = [found for found in state[COUNTS] if isinstance(found, NodeError)]
    total = sum(counted, Counter[str]())
    shared = {word: sum(word in found for found in counted) for word in total}
    top = sorted(total, key=lambda word: (-shared[word], -total[word], word))[: how_many(state)]
    rows = [f"{word:<20} {shared[word]:>5} {total[word]:>7}" for word in top]
    lost = [f"not counted: {error.__cause__}" for error in failed]
    state[OUTPUT] = "\n".join([f"{'word':<20} {'files':>5} {'times':>7}", *rows, *lost])


def how_many(state: SharedState) -> int:
    top = state.get("top", 10)
    if not isinstance(top, int) or top < 1:
        raise InputError(f"top is {top!r}: give a whole number above 0, as in --input top=20", field="top")
    return top


flow = AsyncFlow(
    read >> Each(count, over=DOCUMENTS, into=COUNTS, concurrency=8, on_error="collect", name="count") >> reduce,
    name="map_reduce",
)
