"""What the run store has recorded, as a log: its model calls, each with where it was made and how good it was.

    RunReader(…)  ──recorded_log(reader)──▶  UsageLog
      model_start  ── what was asked: limits, temperature, words where contents are kept ──┐
      model_success ── tokens, cost, reason it ended, seconds ────────────────────────────┼──▶ Call
      route ── how likely it was that this model would be chosen ───────────────────────────┤
      feedback, checkers ── a score of that span, or of the whole run ─────────────────────┘

Where contents were recorded, a request is identified by the fingerprint beside them, which counts all that may change
the answer; in files of earlier releases by its words and its sampling, which the log's notes then say. Where nothing
was recorded, none is guessed.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from agentflow.core.observability.events import ExecutionEvent
from agentflow.core.observability.store import RunReader, RunRecord
from agentflow.mcp.optimization.cost.call import Call
from agentflow.mcp.optimization.cost.usage_log import UsageLog

__all__ = ["recorded_log"]

_ENDS: Final = {"model_success": False, "model_error": True, "model_cancelled": True}
_SAMPLING: Final = ("temperature", "max_tokens", "top_p", "top_k", "seed")
_VISIT: Final = re.compile(r"#\d+$")
_NO_WORDS: Final = (
    "requests are not identified: contents were not recorded (`capture: content`), so repeats can only be bounded"
)
_WORDS_ALONE: Final = (
    "requests are told apart by their words and their sampling: differences in tools, files or schemas are not seen"
)


def recorded_log(reader: RunReader, *, since: float | None = None) -> UsageLog:
    """The calls of all runs that began since then. Raises RunStoreError."""
    runs = {run.id: run for run in reader.runs(since=since, limit=None)}
    gatherer = _Gatherer(runs)
    following = reader.follow()
    while events := following.poll():
        for event in events:
            if event.run_id in runs:
                gatherer.see(event)
    return UsageLog(gatherer.calls(), source=str(reader.path), notes=gatherer.notes())


@dataclass(slots=True)
class _Run:
    """What is known of one run: requests that have begun, calls that have ended, and who is around whom."""

    begun: dict[int, Mapping[str, object]] = field(default_factory=dict)
    ended: dict[int, Call] = field(default_factory=dict)
    parents: dict[int, int | None] = field(default_factory=dict)
    scores: list[tuple[int, float]] = field(default_factory=list)
    routes: dict[tuple[int, object], object] = field(default_factory=dict)

    def begin(self, event: ExecutionEvent) -> None:
        """A request begins; if a router has just chosen its model, how likely that was belongs to it."""
        asked = dict(event.data)
        propensity = self.routes.pop((event.parent or 0, asked.get("model")), None)
        if propensity is not None:
            asked["propensity"] = propensity
        self.begun[event.span or event.sequence] = asked

    def judged(self) -> Iterator[Call]:
        """Each call with the latest word on it; one about its own span outdoes one about what is around it."""
        for span, call in self.ended.items():
            known = dict(self.scores)
            around: int | None = span
            while around is not None and around not in known:
                around = self.parents.get(around)
            score = known.get(0 if around is None else around)
            yield call if score is None else msgspec.structs.replace(call, score=score)


class _Gatherer:
    def __init__(self, runs: Mapping[str, RunRecord]) -> None:
        self._records = runs
        self._runs: dict[str, _Run] = defaultdict(_Run)
        self._batched: set[str] = set()
        self._identified = self._by_words = False

    def see(self, event: ExecutionEvent) -> None:
        run = self._runs[event.run_id]
        if event.kind == "model_start":
            run.begin(event)
        if event.kind.endswith("_start"):
            run.parents[event.span or event.sequence] = event.parent
        if event.kind in _ENDS and _tokens(event.data, "input_tokens") is not None:
            run.ended[event.span] = self._call(event, run.begun.pop(event.span, {}))
        elif event.kind == "feedback" and _number(event.data.get("score")) is not None:
            run.scores.append((_about(event, run), float(str(event.data["score"]))))
        elif event.kind == "route" and _number(event.data.get("propensity")) is not None:
            run.routes[event.span, event.data.get("to")] = event.data["propensity"]
        elif event.kind == "flow_start" and event.data.get("batch"):
            self._batched.add(self._records[event.run_id].name)

    def calls(self) -> Iterator[Call]:
        for run in self._runs.values():
            yield from run.judged()

    def notes(self) -> Iterator[str]:
        if self._by_words:
            yield _WORDS_ALONE
        elif not self._identified:
            yield _NO_WORDS
        if self._batched:
            names = ", ".join(sorted(self._batched))
            yield f"these flows were run in batches: {names}; if nobody waits for them, say so (`--patient NAME`)"

    def _call(self, event: ExecutionEvent, asked: Mapping[str, object]) -> Call:
        record, data = self._records[event.run_id], {**asked, **event.data}
        words = data.get("messages")
        said = _words(words) if isinstance(words, list) else None
        stated = data.get("fingerprint")
        self._by_words = self._by_words or (said is not None and not isinstance(stated, str))
        self._identified = self._identified or isinstance(stated, str)
        prefix, share = _beginning(said) if said else (None, 0.0)
        tokens = _tokens(data, "input_tokens") or 0
        return Call(
            at=event.time - (event.duration or 0.0),
            run=event.run_id,
            model=str(data.get("model", "?")),
            provider=str(data.get("provider", "")),
            model_id=str(data.get("response_model") or data.get("model_id") or ""),
            tenant=str(data.get("tenant") or record.tenant or ""),
            flow=record.name if record.kind == "flow" else "",
            step=_step(event.path) if record.kind == "flow" else "",
            duration=event.duration,
            input_tokens=tokens,
            output_tokens=_tokens(data, "output_tokens") or 0,
            cached_tokens=_tokens(data, "cached_tokens") or 0,
            cache_write_tokens=_tokens(data, "cache_write_tokens") or 0,
            reasoning_tokens=_tokens(data, "reasoning_tokens") or 0,
            cost=_number(data.get("cost")),
            failed=_ENDS[event.kind],
            finish_reason=_text(data.get("finish_reason")),
            temperature=_number(data.get("temperature")),
            max_tokens=_tokens(data, "max_tokens"),
            fingerprint=stated if isinstance(stated, str) else _print(said, data) if said else None,
            propensity=_number(data.get("propensity")),
            prefix=prefix,
            prefix_tokens=int(share * tokens),
        )


def _about(event: ExecutionEvent, run: _Run) -> int:
    """The span that a judgement is about; 0 for the whole run."""
    return event.span if event.span in run.parents else 0


def _words(messages: list[Any]) -> list[tuple[str, str]]:
    return [(str(each.get("role")), str(each.get("content"))) for each in messages if isinstance(each, dict)]


def _print(said: list[tuple[str, str]], data: Mapping[str, object]) -> str:
    facts = [data.get("model"), data.get("operation"), said, [data.get(name) for name in _SAMPLING]]
    return _hash(facts)


def _beginning(said: list[tuple[str, str]]) -> tuple[str | None, float]:
    """The instructions that a prompt begins with, and how much of its letters they are."""
    system = []
    for role, text in said:
        if role not in ("system", "developer"):
            break
        system.append(text)
    letters = sum(len(text) for _, text in said)
    return (_hash(system), sum(map(len, system)) / letters) if system and letters else (None, 0.0)


def _hash(facts: object) -> str:
    return hashlib.sha256(msgspec.json.encode(facts)).hexdigest()[:32]


def _step(path: str) -> str:
    """`outer/inner#2/each#1/7/write#1` → `inner/each/write`: which node, not which visit or item."""
    names = [_VISIT.sub("", part) for part in path.split("/")[1:]]
    return "/".join(name for name in names if not name.isdigit())


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _tokens(data: Mapping[str, object], name: str) -> int | None:
    value = data.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
