"""A digest of many documents: each is summarised, the whole is combined and shortened until it is short enough.

    agentflow run examples/digest.py FOLDER… --output digest.md
    agentflow run examples/digest.py notes.md page.html --input words=150
    cat notes.md | agentflow run examples/digest.py -

    read ─▶ summarise (8 at a time) ─▶ combine ─▶ judge ─accept─▶ write
                                                  ▲  └─shorten─▶ shorten
                                                  └─────────────────┘

It asks the default model, or the one given with --model. With no key that is local/extractive, which quotes the
sentences that matter; a chat model writes its own.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Literal

from agentflow import END, AgentFlow, AsyncFlow, Each, Key, SharedState, node, storable
from agentflow.errors import BadRequestError, DocumentError, InputError
from documents import Document, Skipped, gather

ARGS, OUTPUT = Key[list[str]]("args"), Key[str]("output")
WORDS = Key[int]("words")  # the digest is at most so long; headings and file names do not count
DOCUMENTS, SKIPPED = Key[list[Document]]("documents"), Key[list[Skipped]]("skipped")
OVERVIEW, ROUNDS = Key[str]("overview"), Key[int]("rounds")
SOURCES = Key[dict[str, str]]("sources")  # sentence → the document it stands in

PART = 24_000  # characters: what every model can read at once, about 6,000 tokens
PATIENCE = 3  # rounds of asking for less; then the digest is cut
LISTED = 20  # names of skipped files for each reason


@storable
@dataclass(frozen=True, slots=True)
class Entry:
    """What the digest says of one document."""

    name: str
    title: str
    text: str


SUMMARIES = Key[list[Entry | Skipped]]("summaries")
ENTRIES = Key[list[Entry]]("entries")


# ---- the nodes -----------------------------------------------------------------------------------------------


@node
def read(state: SharedState) -> None:
    found = gather(state[ARGS])
    state[DOCUMENTS], state[SKIPPED] = found.documents, found.skipped
    words = state.get("words", max(400, 50 * len(found.documents)))
    if not isinstance(words, int) or words < 1:
        raise InputError(f"words is {words!r}: give a whole number above 0, as in --input words=300", field="words")
    state[WORDS] = words


async def summarise(document: Document) -> Entry | Skipped:
    """One document. What the model refuses to read does not stop the others."""
    try:
        return Entry(document.name, document.title, await summary(document.text))
    except BadRequestError as error:
        return Skipped(document.name, f"refused by the model ({error.message.split(':')[0]})")


@node
async def combine(state: SharedState) -> None:
    entries = [found for found in state[SUMMARIES] if isinstance(found, Entry)]
    state[SKIPPED] = [*state[SKIPPED], *(found for found in state[SUMMARIES] if isinstance(found, Skipped))]
    if not entries:
        raise DocumentError(
            f"no document could be summarised: {state[SKIPPED][-1].name} was {state[SKIPPED][-1].reason}"
        )
    state[ENTRIES] = entries
    state[ROUNDS], state[OVERVIEW], state[SOURCES] = 0, "", {}
    if len(entries) < 3:
        return
    together = "\n\n".join(f"# {entry.title or entry.name}\n\n{sentences(entry.text)[0]}" for entry in entries)
    while len(together) > PART:
        together = "\n\n".join([await ask("in at most 300 words", part) for part in split(together)])
    overview = (
        await AgentFlow.model()
        .prompt(
            f"Combine what these {len(entries)} documents say into three sentences of at most 80 words, "
            f"as plain prose without a heading:\n\n{together}"
        )
        .streaming()
        .execute()
    )  # streamed, so that a terminal shows it grow
    state[OVERVIEW] = overview
    state[SOURCES] = {sentence: entry.name for entry in entries for sentence in sentences(entry.text)}
    state[ENTRIES] = [unrepeated(entry, overview) for entry in entries]


@node(inline=True)
def judge(state: SharedState) -> Literal["accept", "shorten"]:
    return "accept" if length(state) <= state[WORDS] else "shorten"


@node
async def shorten(state: SharedState) -> None:
    """Ask for less of what takes more than its share; when asking does not help, cut."""
    state[ROUNDS] = round_ = state.modify(ROUNDS, lambda done: done + 1)
    cut = round_ > PATIENCE
    state[OVERVIEW] = overview = await shortened(state[OVERVIEW], state[WORDS] // 4, cut=cut)
    texts = [entry.text for entry in state[ENTRIES]]
    share = fair_share([count_words(text) for text in texts], state[WORDS] - count_words(overview))
    shorter = await asyncio.gather(*(shortened(text, share, cut=cut) for text in texts))
    state[ENTRIES] = [replace(entry, text=text) for entry, text in zip(state[ENTRIES], shorter, strict=True)]


@node
def write(state: SharedState) -> None:
    entries, documents, overview = state[ENTRIES], state[DOCUMENTS], state[OVERVIEW]
    count = f"{len(entries)} document{'s' * (len(entries) != 1)}"
    read_words = sum(count_words(document.text) for document in documents)
    kept = count_words(overview) + sum(count_words(entry.text) for entry in entries)
    model = AgentFlow.registry.default_model().name
    parts = [
        f"# Digest of {count}",
        attributed(overview, state[SOURCES]),
        "\n".join(line(entry) for entry in entries),
        *(f"Skipped, {reason}: {names(list(items))}." for reason, items in by_reason(state[SKIPPED])),
        f"*{read_words:,} word{'s' * (read_words != 1)} in, {kept:,} out, by {model}.*",
    ]
    state[OUTPUT] = "\n\n".join(part for part in parts if part) + "\n"


flow = AsyncFlow(
    read >> Each(summarise, over=DOCUMENTS, into=SUMMARIES, concurrency=8, name="summarise") >> combine >> judge,
    judge.on("shorten") >> shorten >> judge,
    judge.on("accept") >> write >> END,
    name="digest",
)


# ---- asking --------------------------------------------------------------------------------------------------


async def summary(text: str) -> str:
    """A long text is summarised part by part, and then the summaries are."""
    while len(text) > PART:
        text = "\n\n".join([await ask("in at most 120 words", part) for part in split(text)])
    return await ask("in at most four sentences and 80 words", text)


async def ask(how: str, text: str) -> str:
    """A summary as one paragraph of plain prose."""
    prompt = f"Summarise the text below {how}, as plain prose without a heading or preamble:\n\n{text}"
    return " ".join((await AgentFlow.model().prompt(prompt).execute()).split())


async def shortened(text: str, words: int, *, cut: bool) -> str:
    if count_words(text) <= words:
        return text
    if cut:
        return " ".join(text.split()[:words]) + "…"
    return await ask(f"in at most {words} words", text)


# ---- text ----------------------------------------------------------------------------------------------------


def split(text: str) -> list[str]:
    """Pieces of at most PART characters, cut between paragraphs where there are any, else where it must be."""
    pieces = [""]
    for paragraph in re.split(r"\n\s*\n", text):
        for start in range(0, len(paragraph), PART):
            chunk = paragraph[start : start + PART]
            if len(pieces[-1]) + len(chunk) + 2 > PART:
                pieces.append("")
            pieces[-1] += f"\n\n{chunk}" if pieces[-1] else chunk
    return pieces


def unrepeated(entry: Entry, overview: str) -> Entry:
    """Without the sentences that the overview quotes, as long as two others are left."""
    kept = [sentence for sentence in sentences(entry.text) if sentence not in overview]
    return replace(entry, text=" ".join(kept)) if len(kept) > 1 else entry


def attributed(overview: str, sources: dict[str, str]) -> str:
    """With the source behind each sentence that is quoted from one; a model that writes its own words has none."""
    said = sentences(overview)
    return " ".join(f"{sentence} ({code(sources[sentence])})" if sentence in sources else sentence for sentence in said)


def sentences(text: str) -> list[str]:
    return re.split(r"(?<=[.!?…])\s+", text)


def fair_share(lengths: Sequence[int], total: int) -> int:
    """The most that each may have so that all fit: what the short ones leave is for the long ones. At least 1."""
    left = total
    for place, length in enumerate(sorted(lengths)):
        waiting = len(lengths) - place
        if length * waiting > left:
            return max(1, left // waiting)
        left -= length
    return max(lengths)


def count_words(text: str) -> int:
    return len(text.split())


def length(state: SharedState) -> int:
    return count_words(state[OVERVIEW]) + sum(count_words(entry.text) for entry in state[ENTRIES])


def line(entry: Entry) -> str:
    """With the title, unless the file's name says the same."""
    title = f" ({entry.title})" if letters(entry.title) not in letters(entry.name) else ""
    return f"- **{code(entry.name)}**{title}: {entry.text}"


def letters(text: str) -> str:
    """`2.6 Closure Example` and `Closure-Example.html` both begin `closureexample`."""
    return re.sub(r"[\W\d_]+", "", text).lower()


def code(name: str) -> str:
    """A file name as Markdown code, whatever it contains."""
    clean = re.sub(r"\s", " ", name)
    return f"`` {clean} ``" if "`" in clean else f"`{clean}`"


def by_reason(skipped: Sequence[Skipped]) -> list[tuple[str, list[Skipped]]]:
    ordered = sorted(skipped, key=lambda item: item.reason)
    return [(reason, list(items)) for reason, items in groupby(ordered, key=lambda item: item.reason)]


def names(skipped: Sequence[Skipped]) -> str:
    more = f" and {len(skipped) - LISTED} more" if len(skipped) > LISTED else ""
    return ", ".join(code(item.name) for item in skipped[:LISTED]) + more
