"""Text → summary: read, rank, choose, and put the chosen sentences back in their order.

    summarise(text, budget=Budget(sentences=2))  →  Summary(pieces=("The moon …", " Spring tides …"))

Every sentence of the summary is one of the text, with inline markup taken off and a full stop added where a list item
had none. The same text and budget give the same summary.
"""

from __future__ import annotations

import heapq
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from agentflow.llm.extractive.blocks import Kind
from agentflow.llm.extractive.choose import Candidate, choose
from agentflow.llm.extractive.measure import count_words, cut_to_tokens, cut_to_words
from agentflow.llm.extractive.prior import dangles, is_quotable, quality
from agentflow.llm.extractive.rank import centrality, edges, vectors
from agentflow.llm.extractive.sentences import Sentence, read
from agentflow.llm.extractive.terms import UNSPACED, terms

__all__ = ["DEFAULT_SENTENCES", "Budget", "Summary", "quotable", "summarise"]

DEFAULT_SENTENCES = 3

DAMPING = 0.4
"""How often the reader of the graph follows an edge; chosen, like the weights of `prior`, on the development half of
`benchmarks/extractive.py`."""
LARGEST = 20_000
"""Sentences that enter the graph at most; about 2 MB of prose."""
QUERY = 30.0
"""How much more a sentence counts that has all the question's terms."""

_ENDED = re.compile(r"[.!?…:;。！？｡．।॥؟۔։።။៕][\"'”’»)\]*_`」』】）]*\Z")
_UNSPACED_END = re.compile(rf"[{UNSPACED}。！？｡．」』】）、]\Z")


@dataclass(frozen=True, slots=True)
class Budget:
    """How long a summary may be; None is no such limit.

    With `words` alone it is filled with as many sentences as fit, else it has `sentences`, by default 3. `tokens` is a
    ceiling on either.
    """

    sentences: int | None = None
    words: int | None = None
    tokens: int | None = None

    @property
    def count(self) -> float:
        """How many sentences to choose; infinity is as many as fit."""
        if self.sentences is not None:
            return self.sentences
        return DEFAULT_SENTENCES if self.words is None else math.inf


@dataclass(frozen=True, slots=True)
class Summary:
    """`pieces` joined are the text: a sentence each, with the space before it. `cut` if `tokens` left something out."""

    pieces: tuple[str, ...]
    cut: bool = False

    @property
    def text(self) -> str:
        return "".join(self.pieces)


def summarise(text: str, *, budget: Budget | None = None, query: str = "") -> Summary:
    """Choose from `text`, leaning towards sentences that share terms with `query`.

    Where not one sentence fits `words` or `tokens`, the best one is cut. A text without words has no summary.
    """
    limits = budget or Budget()
    looks = _looks(quotable(read(text)), query)
    if not looks:
        return Summary(())
    ranked = _ranked(looks)
    octets = math.inf if limits.tokens is None else limits.tokens * 4
    choice = choose(ranked, count=limits.count, words=limits.words or math.inf, octets=octets)
    if choice.numbers:
        return Summary(_pieces([looks[number].sentence for number in choice.numbers]), choice.cut)
    best = max(range(len(ranked)), key=lambda number: ranked[number].score)
    return _shortened(looks[best].sentence.text, limits)


def quotable(sentences: Sequence[Sentence]) -> list[Sentence]:
    """Prose and list items, each wording once; without any, everything else but code; without that, code."""
    kept = (
        [_finished(sentence) for sentence in sentences if is_quotable(sentence)]
        or [_finished(sentence) for sentence in sentences if sentence.kind is not Kind.CODE]
        or sentences
    )
    return list({sentence.text: sentence for sentence in reversed(kept)}.values())[::-1]


def _finished(sentence: Sentence) -> Sentence:
    if sentence.kind is Kind.CODE or _ENDED.search(sentence.text):
        return sentence
    stop = "。" if _UNSPACED_END.search(sentence.text) else "."
    return replace(sentence, text=sentence.text.rstrip(",，、") + stop)


@dataclass(frozen=True, slots=True)
class _Look:
    """A sentence as it looks by itself."""

    sentence: Sentence
    said: list[str]
    words: int
    value: float


def _looks(sentences: Sequence[Sentence], query: str) -> list[_Look]:
    """In reading order; of more than `LARGEST` sentences the best-looking."""
    asked = frozenset(terms(query))
    found: list[_Look] = []
    for sentence in sentences:
        said, words = terms(sentence.text), count_words(sentence.text)
        value = quality(sentence, words, len(sentences)) * (1 + QUERY * _share(said, asked))
        found.append(_Look(sentence, said, words, value))
    if len(found) <= LARGEST:
        return found
    best = heapq.nlargest(LARGEST, range(len(found)), key=lambda number: found[number].value)
    return [found[number] for number in sorted(best)]


def _ranked(looks: Sequence[_Look]) -> list[Candidate]:
    """Score each sentence: how central it is among all, times how good it looks."""
    weights = vectors([look.said for look in looks])
    central = centrality(edges(weights), [look.value for look in looks], damping=DAMPING)
    before: Sequence[_Look | None] = [None, *looks]
    return [
        Candidate(
            score=share * look.value,
            vector=vector,
            words=look.words,
            octets=len(look.sentence.text.encode("utf-8", "surrogatepass")) + 2,  # and the space between
            dangling=dangles(look.sentence),
            follows=number - 1 if previous and _adjoin(previous.sentence, look.sentence) else None,
        )
        for number, (share, look, vector, previous) in enumerate(zip(central, looks, weights, before, strict=False))
    ]


def _adjoin(before: Sentence, sentence: Sentence) -> bool:
    return before.document == sentence.document and before.number + 1 == sentence.number


def _share(words: Sequence[str], wanted: frozenset[str]) -> float:
    """How much of what is wanted a sentence says, from 0 to 1."""
    return len(wanted.intersection(words)) / len(wanted) if wanted else 0.0


def _pieces(chosen: Sequence[Sentence]) -> tuple[str, ...]:
    """The sentences with what stands between them: a blank line where another document begins."""
    pieces = [chosen[0].text]
    pieces += [_space(before, sentence) + sentence.text for before, sentence in pairwise(chosen)]
    return tuple(pieces)


def _space(before: Sentence, sentence: Sentence) -> str:
    if before.document != sentence.document:
        return "\n\n"
    return "" if _UNSPACED_END.search(before.text) else " "


def _shortened(text: str, limits: Budget) -> Summary:
    kept = text if limits.words is None else cut_to_words(text, limits.words)
    fitting = kept if limits.tokens is None else cut_to_tokens(kept, limits.tokens)
    return Summary((fitting,), cut=fitting != kept)
