"""Answers questions that were asked before in other words, and keeps what it promises about being wrong.

    tier = VerifiedTier(embedding=Path("all-MiniLM-L6-v2"), delta=0.02)
    cached = ResponseCache(OpenAIProvider(…), ttl=3600, semantic=tier)

    question ──frame──▶ the most similar one that no veto speaks against ──▶ how likely is its answer right?
        too unlikely ──▶ "exploring": the model answers, and the comparison is a label
        likely       ──▶ "similar": the cached answer; one in twenty is an "audit": the model answers, and is compared
        too many audits wrong ──▶ "switched_off"

1. `frame.py`: only the words of the last user turn may differ; tenant, model, history and parameters may not.
2. `vetoes.py`: numbers, names, negations and the like must be the same.
3. `likelihood.py`, `decision.py`: vCache's decision with the user's bound δ.
4. `watch.py`: a sequential test of audited hits, which switches the tier off for the tenant.

Off means that nothing is given any more, what was learned is forgotten, and learning goes on: every would-be hit is
compared. It is on again when `switch_on` is called, or, with `recovers`, when a second test has shown of the would-be
hits that fewer than δ of them are wrong. Both are `cache_state` events, and lines of the logger `agentflow.cache`.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from agentflow.clock import Clock, SystemClock
from agentflow.errors import ConfigurationError, SerializationError, describe
from agentflow.llm.caller import current_caller
from agentflow.llm.messages import Response
from agentflow.mcp.performance.caching.semantic.decision import Per
from agentflow.mcp.performance.caching.semantic.embedding import Embedder, Embedding, as_embedder
from agentflow.mcp.performance.caching.semantic.entries import MOST_WORDINGS, Entries, Entry, Wording
from agentflow.mcp.performance.caching.semantic.frame import framed
from agentflow.mcp.performance.caching.semantic.index import unit
from agentflow.mcp.performance.caching.semantic.marks import Marks, marks_of
from agentflow.mcp.performance.caching.semantic.realm import Decision, Promise, Realm, SemanticStatistics
from agentflow.mcp.performance.caching.semantic.sameness import Judge, Same, SameBy, SameText
from agentflow.mcp.performance.caching.semantic.tables import Learned, Tables
from agentflow.mcp.performance.caching.semantic.vetoes import VETOES, veto
from agentflow.mcp.performance.caching.semantic.watch import State
from agentflow.mcp.performance.caching.semantic_tier import Asked, Verdict

__all__ = ["VerifiedTier"]

_NEIGHBOURS: Final = 8  # that are looked at, until one is found that no veto speaks against
_SAME: Final = 0.99  # a cosine above which another wording would find nothing that this one does not
_WAITING: Final = 1024  # questions whose answer has not come yet
_CLOCK: Final = SystemClock()
_log: Final = logging.getLogger("agentflow.cache")


class _Waiting(Struct, frozen=True):
    """A question that was looked for: what its answer will be kept with, and compared to."""

    frame: bytes
    marks: Marks
    vector: NDArray[np.float32]
    candidate: Entry | None = None
    similarity: float = 0.0
    decision: Decision | None = None


class VerifiedTier:
    """A `SemanticTier`. Raises ConfigurationError for numbers that make no sense.

    `embedding` is a function (text to numbers, sync or async), an `Embedder`, or the folder of a model. `delta` is the
    share that may be wrong: of the answers given (`per="hit"`), or of all questions (`per="request"`, as in the paper).
    `same` compares a cached answer with a fresh one: a `Judge`, or a function of both texts; without it, texts must be
    equal but for case, spacing and punctuation, which prose hardly ever is.

    `audit` is the share of hits that the model answers all the same. `alpha` is the probability of ever switching off
    for nothing. `caution` is κ of `likelihood.py`, and `pooled` False learns each answer for itself, as in the paper.
    `vetoes` are the checks that hold; `floor` is the cosine below which nothing is compared, `longest` the characters
    of a question above which it is not for this tier, because embedding models read no further. `entries` bounds the
    questions that are remembered; `path` is a SQLite file, which may be that of the exact tier.
    """

    def __init__(
        self,
        *,
        embedding: Embedder | Embedding | Path,
        delta: float = 0.02,
        per: Per = "hit",
        same: Judge | Same | None = None,
        audit: float = 0.05,
        alpha: float = 0.05,
        caution: float = 0.5,
        pooled: bool = True,
        recovers: bool = False,
        vetoes: Iterable[str] = VETOES,
        floor: float = 0.4,
        longest: int = 1000,
        entries: int = 5000,
        path: Path | None = None,
        clock: Clock = _CLOCK,
    ) -> None:
        self._promise = Promise(delta, per, audit, alpha, caution, pooled, recovers)
        self._embedder = as_embedder(embedding)
        self._judge = same if isinstance(same, Judge) else SameText() if same is None else SameBy(same)
        self._vetoes = _known(vetoes)
        self._floor = floor
        self._longest = longest
        self._most = entries
        self._entries = Entries(entries)
        self._realms: dict[str, Realm] = {}
        self._waiting: OrderedDict[bytes, _Waiting] = OrderedDict()
        self._tables = None if path is None else Tables(path, self._embedder.name)
        self._loaded = path is None
        self._ids = itertools.count(1)
        self._clock = clock

    # ---- the protocol ----------------------------------------------------------------------------------------

    async def find(self, asked: Asked) -> Verdict:
        await self._load()
        try:
            question = framed(asked)
        except SerializationError:
            return Verdict(None, "not_comparable")
        if question is None or len(question.text) > self._longest:
            return Verdict(None, "no_question" if question is None else "too_long")
        vector = await self._embedded(question.text)
        if vector is None:
            return Verdict(None, "embedding_failed")
        waiting, reason = self._looked(question.frame, marks_of(question.text), vector)
        if waiting.candidate is not None:
            waiting, reason = await self._decided(waiting, self._realm(asked.tenant))
        self._wait(_name(question.frame, question.text), waiting)
        facts = {"similarity": round(waiting.similarity, 4)} if waiting.similarity else {}
        key = waiting.candidate.key if waiting.candidate is not None and waiting.decision == "similar" else None
        return Verdict(key, reason, facts)

    async def keep(self, asked: Asked, key: str, answer: Response) -> None:
        await self._load()
        question = framed(asked)
        if question is None:
            return
        waiting = self._waiting.pop(_name(question.frame, question.text), None)
        try:
            if waiting is None:
                await self._renewed(key, answer)
            elif await self._compared(waiting, self._realm(asked.tenant), key, answer):
                await self._remember(waiting, self._realm(asked.tenant), key, answer)
        except Exception as error:  # noqa: BLE001 - a judge or an embedding of somebody else's
            _log.warning("an answer could not be compared with a similar one: %s", describe(error))

    # ---- by hand ---------------------------------------------------------------------------------------------

    async def switch_on(self, tenant: str | None = None, *, reason: str = "by hand") -> None:
        """Let it answer again. It begins without labels, and with a new test."""
        await self._switch("on", tenant, reason)

    async def switch_off(self, tenant: str | None = None, *, reason: str = "by hand") -> None:
        await self._switch("off", tenant, reason)

    def statistics(self, tenant: str | None = None) -> SemanticStatistics:
        return self._realm(tenant).statistics()

    def __len__(self) -> int:
        """How many wordings are remembered."""
        return len(self._entries)

    async def aclose(self) -> None:
        if self._tables is not None:
            await self._tables.aclose()

    # ---- finding ---------------------------------------------------------------------------------------------

    def _looked(self, frame: bytes, marks: Marks, vector: NDArray[np.float32]) -> tuple[_Waiting, str]:
        """The most similar question that no veto speaks against; else, why there is none."""
        reason, seen = "nothing_similar", 0.0
        for wording, cosine in self._nearest(frame, vector):
            if cosine < self._floor:
                break
            changed = veto(marks, wording.marks, self._vetoes)
            if changed is None:
                return _Waiting(frame, marks, vector, wording.entry, min(cosine, 1.0)), ""
            if not seen:
                reason, seen = changed, min(cosine, 1.0)
        return _Waiting(frame, marks, vector, similarity=seen), reason

    def _nearest(self, frame: bytes, vector: NDArray[np.float32]) -> list[tuple[Wording, float]]:
        try:
            return self._entries.nearest(frame, vector, _NEIGHBOURS)
        except ValueError:  # the embedding has changed its length: what was written with the old one is of no use
            for entry in [each for each in self._entries if each.frame == frame]:
                self._entries.remove(entry)
            return []

    async def _decided(self, waiting: _Waiting, realm: Realm) -> tuple[_Waiting, str]:
        entry = waiting.candidate
        assert entry is not None
        chance, lot = self._clock.random(), self._clock.random()
        decision = realm.decide(entry, waiting.similarity, chance=chance, lot=lot)
        self._entries.use(entry)
        if self._promise.per == "request" and decision == "similar":
            await self._judged(realm, decision, True)
        made = _Waiting(waiting.frame, waiting.marks, waiting.vector, entry, waiting.similarity, decision)
        return made, decision

    async def _embedded(self, text: str) -> NDArray[np.float32] | None:
        try:
            return unit(await self._embedder.embed(text))
        except Exception as error:  # noqa: BLE001 - an embedding of somebody else's; the question is asked all the same
            _log.warning("no embedding from %s: %s", self._embedder.name, describe(error))
            return None

    def _wait(self, name: bytes, waiting: _Waiting) -> None:
        self._waiting[name] = waiting
        if len(self._waiting) > _WAITING:
            self._waiting.popitem(last=False)

    # ---- learning --------------------------------------------------------------------------------------------

    async def _compared(self, waiting: _Waiting, realm: Realm, key: str, answer: Response) -> bool:
        """Make a label of the answer. Whether the question is to be remembered by itself."""
        entry, decision = waiting.candidate, waiting.decision
        if entry is None or decision is None or entry not in self._entries:
            return True
        right = await self._judge.same(entry.kept, answer)
        if entry not in self._entries:  # it has left while the judge was thinking
            return True
        if realm.learn(entry, waiting.similarity, right):
            realm.fit(entry, self._entries.of_realm(realm.name))
        if decision != "similar":  # else it was to be given, and had gone: nobody has audited that
            await self._judged(realm, decision, right)
        if right:
            self._entries.rename(entry, key)
            if len(entry.wordings) < MOST_WORDINGS and waiting.similarity < _SAME:
                await self._reworded(entry, waiting)
                return False
        elif decision == "similar":
            self._entries.remove(entry)
            if self._tables is not None:
                await self._tables.remove(entry)
            return True
        if self._tables is not None:
            await self._tables.change(entry)
        return not right

    async def _judged(self, realm: Realm, decision: Decision, right: bool) -> None:
        if realm.judged(decision, right):
            await self._turned(realm)
        elif self._tables is not None and decision in ("audit", "switched_off"):
            await self._tables.watch(realm.name, realm.watch)

    async def _remember(self, waiting: _Waiting, realm: Realm, key: str, answer: Response) -> None:
        kept = await self._judge.digest(answer)
        entry = Entry(next(self._ids), realm.name, waiting.frame, key, kept, waiting.marks.anchored)
        await self._reworded(entry, waiting)

    async def _reworded(self, entry: Entry, waiting: _Waiting) -> None:
        """The question is one more wording of the entry."""
        wording = Wording(next(self._ids), entry, waiting.marks)
        gone = self._entries.add(wording, waiting.vector)
        if self._tables is not None:
            await self._tables.add(wording, waiting.vector, gone)

    async def _renewed(self, key: str, answer: Response) -> None:
        """What is kept under a name was replaced: labels were about another answer."""
        entry = self._entries.of_key(key)
        if entry is None or await self._judge.same(entry.kept, answer):
            return
        entry.kept = await self._judge.digest(answer)
        entry.evidence = None
        if self._tables is not None:
            await self._tables.change(entry)

    # ---- on and off ------------------------------------------------------------------------------------------

    async def _switch(self, state: State, tenant: str | None, reason: str) -> None:
        await self._load()
        realm = self._realm(tenant)
        if realm.watch.switch(state, reason):
            await self._turned(realm)

    async def _turned(self, realm: Realm) -> None:
        """Forget what was learned where it was wrong; tell everybody."""
        state, since = realm.watch.state, realm.watch.since
        if state == "off":
            realm.forget(self._entries.of_realm(realm.name))
        if self._tables is not None:
            await self._tables.watch(realm.name, realm.watch)
            if state == "off":
                await self._tables.forget(realm.name)
        _log.warning("the semantic tier is %s: %s", state, since)
        before = "on" if state == "off" else "off"
        await current_caller().tell("cache_state", {"tier": "semantic", "from": before, "to": state, "reason": since})

    def _realm(self, tenant: str | None) -> Realm:
        name = _realm_name(tenant)
        if name not in self._realms:
            self._realms[name] = Realm(name, self._promise)
        return self._realms[name]

    async def _load(self) -> None:
        if self._loaded or self._tables is None:
            return
        learned = await self._tables.read(self._most)
        self._take(learned)

    def _take(self, learned: Learned) -> None:
        if self._loaded:  # another question was quicker
            return
        self._loaded = True
        newest = 0
        for wording, vector in learned.wordings:
            self._entries.add(wording, vector)
            newest = max(newest, wording.id, wording.entry.id)
        self._ids = itertools.count(newest + 1)
        for name, watch in learned.watches.items():
            self._realms[name] = Realm(name, self._promise, watch)
        for entry in self._entries:
            realm = self._realms.setdefault(entry.realm, Realm(entry.realm, self._promise))
            if entry.evidence is not None:
                realm.population(entry).note(len(entry.evidence.labels))
        for realm in self._realms.values():
            realm.refit(self._entries.of_realm(realm.name))


def _name(frame: bytes, text: str) -> bytes:
    return frame + hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _realm_name(tenant: str | None) -> str:
    """A hash: whoever reads the file learns no tenants' names."""
    said = b"nobody" if tenant is None else b"tenant:" + tenant.encode("utf-8", "surrogatepass")
    return hashlib.sha256(said).hexdigest()[:32]


def _known(vetoes: Iterable[str]) -> tuple[str, ...]:
    wanted = tuple(vetoes)
    for name in wanted:
        if name not in VETOES:
            raise ConfigurationError(f"there is no veto {name!r}; there are {', '.join(VETOES)}")
    return wanted
