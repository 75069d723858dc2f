"""Answers from a folder of documents, with numbered sources: search first, then ask about what was found.

    agentflow run examples/ask_folder.py FOLDER… "When is the water highest?"
    agentflow run examples/ask_folder.py FOLDER… "…" --model gpt-4o-mini --input embeddings=text-embedding-3-small

    read ─▶ search ─found───▶ answer ─▶ END
               └────nothing─▶ say_so ─▶ END

Without `embeddings` the search is by words (BM25). With a model's name it is by meaning, also across languages; each
run sends all documents to that model, so keep the vectors where the folder is large. With no key local/extractive
answers, by quoting.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agentflow import END, AgentFlow, AsyncFlow, Key, SharedState, node, storable
from agentflow.errors import InputError
from documents import Document, gather

ARGS, OUTPUT = Key[list[str]]("args"), Key[str]("output")
QUESTION = Key[str]("question")

PASSAGE = 1_200  # characters, about 300 tokens: long enough to make sense alone, short enough to be about one thing
SHOWN = 6  # passages that the model gets to read
AT_ONCE = 256  # passages in one call for vectors


@storable
@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a document: whole paragraphs where they fit."""

    name: str
    text: str


PASSAGES, FOUND = Key[list[Passage]]("passages"), Key[list[Passage]]("found")


# ---- the nodes -----------------------------------------------------------------------------------------------


@node
def read(state: SharedState) -> None:
    *places, question = state[ARGS] or [""]
    if not places or Path(question).exists():
        raise InputError('name a folder or files, and then ask, as in docs "When is the water highest?"')
    state[QUESTION] = " ".join(question.split()).rstrip("?") + "?"
    state[PASSAGES] = [passage for document in gather(places).documents for passage in cut(document)]


@node
async def search(state: SharedState) -> Literal["found", "nothing"]:
    passages, question, model = state[PASSAGES], state[QUESTION], state.get("embeddings")
    if model is None:
        state[FOUND] = WordIndex(passages).search(question)
    elif isinstance(model, str):
        state[FOUND] = await by_meaning(model, passages, question)
    else:
        raise InputError(f"embeddings is {model!r}: give the name of a model that has them", field="embeddings")
    return "found" if state[FOUND] else "nothing"


@node
async def answer(state: SharedState) -> None:
    found = state[FOUND]
    texts = "\n\n".join(f"## [{number}] {passage.name}\n\n{passage.text}" for number, passage in numbered(found))
    prompt = (
        f"Answer in at most four sentences, from the passages below alone. Behind each sentence put the number of the "
        f"passage that says so, as in [1]. If they do not answer it, reply with {NOTHING} and no more. "
        f"The question is: {state[QUESTION]} These are the passages:\n\n{texts}"
    )
    said = await AgentFlow.model().prompt(prompt).streaming().execute()
    state[OUTPUT] = NOT_THERE if said.strip().startswith(NOTHING) else with_sources(said, found)


@node(inline=True)
def say_so(state: SharedState) -> None:
    state[OUTPUT] = NOT_THERE


NOTHING = "NOTHING"
NOT_THERE = "The documents say nothing about that."

flow = AsyncFlow(
    read >> search,
    search.on("found") >> answer >> END,
    search.on("nothing") >> say_so >> END,
    name="ask_folder",
)


# ---- passages and sources ------------------------------------------------------------------------------------


def cut(document: Document) -> list[Passage]:
    """Paragraphs, put together while they fit into a passage; a longer one is cut between words."""
    pieces: list[str] = []
    for paragraph in re.split(r"\n\s*\n", document.text):
        for piece in re.findall(rf"\S.{{0,{PASSAGE - 1}}}(?=\s|\Z)|\S{{{PASSAGE}}}", paragraph, re.DOTALL):
            if pieces and len(pieces[-1]) + len(piece) + 2 <= PASSAGE:
                pieces[-1] += f"\n\n{piece}"
            else:
                pieces.append(piece)
    return [Passage(document.name, piece) for piece in pieces]


def numbered(found: Sequence[Passage]) -> list[tuple[int, Passage]]:
    return list(enumerate(found, 1))


def with_sources(said: str, found: Sequence[Passage]) -> str:
    """The answer, and below it the passages that it names. A sentence that is quoted without its number gets it."""
    texts = [(number, bare(passage.text)) for number, passage in numbered(found)]
    sentences = []
    for sentence in re.split(r"(?<=[.!?…])\s+(?!\[)", said.strip()):
        quoted = next((number for number, text in texts if bare(sentence) in text), None)
        sentences.append(sentence if quoted is None else f"{sentence} [{quoted}]")
    text = " ".join(sentences)
    named = {int(number) for number in re.findall(r"\[(\d+)\]", text)}
    sources = [(number, passage) for number, passage in numbered(found) if number in named]
    unnamed = "" if sources else "It names no source; these are the passages it was given:\n"
    lines = [f"[{number}] {passage.name}: {opening(passage.text)}" for number, passage in sources or numbered(found)]
    return f"{text}\n\n{unnamed}" + "\n".join(lines)


def bare(text: str) -> str:
    """The words alone, without the marks and addresses of Markdown, which a quotation leaves out."""
    return " ".join(re.findall(r"\w+", re.sub(r"\]\([^)]*\)", "]", text)))


def opening(text: str) -> str:
    line = " ".join(re.sub(r"#+ |[=~`*-]{3,}", "", text).split())
    return line if len(line) <= 70 else f"{line[:70].rsplit(' ', 1)[0]} …"


# ---- search by meaning ---------------------------------------------------------------------------------------


async def by_meaning(model: str, passages: Sequence[Passage], question: str) -> list[Passage]:
    """The passages whose vectors point where the question's does. Something always is the nearest: whether it answers
    the question is for the model to say."""
    embedder = AgentFlow.model(model)
    texts = [question, *(passage.text for passage in passages)]
    vectors: list[list[float]] = []
    for start in range(0, len(texts), AT_ONCE):
        vectors += await embedder.embed(texts[start : start + AT_ONCE])
    wanted, *offered = vectors
    near = sorted(zip(offered, passages, strict=True), key=lambda pair: -cosine(wanted, pair[0]))
    return [passage for _, passage in near[:SHOWN]]


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(x * y for x, y in zip(one, other, strict=True)) / (math.hypot(*one) * math.hypot(*other) or 1.0)


# ---- search by words -----------------------------------------------------------------------------------------

COMMON = frozenset(  # in a question these say nothing about its subject
    "a an and any are as at be been by can could did do does for from had has have how i in is it its me my of on or "
    "our say should so some tell than that the their them then there these they this those to us was we were what when "
    "where which who whom whose why will with would you your about "
    "das dem den der des die ein eine einem einen einer es für im ist mit sind und von wann warum was welche wer wie "
    "wo zu au aux ce ces comment dans de des du elle en est et il la le les où par pour pourquoi quand que quel quelle "
    "qui sont sur un une".split()
)
ENOUGH = 0.3  # of what a question asks for must stand in a passage, or it is not about that


class WordIndex:
    """BM25, the classic score of word search: rare words count for more, repeated ones for less each time, and long
    passages are not better for being long (Robertson and Zaragoza, 2009, doi:10.1561/1500000019)."""

    K, B = 1.5, 0.75  # how soon repetition stops to count; how much length matters

    def __init__(self, passages: Sequence[Passage]) -> None:
        self.passages = passages
        self.counts = [Counter(words(passage.text)) for passage in passages]
        self.lengths = [count.total() for count in self.counts]
        self.usual = sum(self.lengths) / max(1, len(self.lengths))
        self.in_passages = Counter(word for count in self.counts for word in count)

    def search(self, question: str) -> list[Passage]:
        """The best first; none where no passage is about the question."""
        asked = list(dict.fromkeys(words(question)))
        enough = ENOUGH * sum(map(self.weight, asked))
        scored = [
            (self.score(index, asked), index)
            for index, count in enumerate(self.counts)
            if 0 < enough <= sum(self.weight(word) for word in asked if word in count)
        ]
        return [self.passages[index] for _, index in sorted(scored, key=lambda pair: -pair[0])[:SHOWN]]

    def score(self, index: int, asked: Sequence[str]) -> float:
        count = self.counts[index]
        norm = self.K * (1 - self.B + self.B * self.lengths[index] / self.usual)
        return sum(self.weight(word) * count[word] * (self.K + 1) / (count[word] + norm) for word in asked)

    def weight(self, word: str) -> float:
        """How much a word tells: more than 0, and the more the fewer passages hold it."""
        holding = self.in_passages[word]
        return math.log(1 + (len(self.passages) - holding + 0.5) / (holding + 0.5))


def words(text: str) -> list[str]:
    """The words that say something, without the endings that change nothing: tides, tide → tid."""
    found = re.findall(r"\w+", text.casefold())
    return [re.sub(r"(?<=\w{3})(?:ing|ed|es|s|e)$", "", word) for word in found if word not in COMMON]
