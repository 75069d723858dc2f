"""What the run store holds of a teacher: each question with its answer, and why others were left out.

    with RunReader() as reader:
        gathered = gather(reader, Selection(models=("large",), flows=("sorting",)), Consent())
    gathered.answers, gathered.dropped          [RecordedAnswer, …], {"contents were not recorded": 12, …}

Prompts and answers are in the store only where `observability: {runs: {capture: content}}` stands in models.yml, or
where a program records with `RunStore(capture="content")`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Final

from agentflow.core.observability.events import ExecutionEvent
from agentflow.core.observability.store import RunReader, RunRecord
from agentflow.mcp.compression.distillation.recorded.answers import RecordedAnswer, Turn
from agentflow.mcp.compression.distillation.recorded.consent import Consent, statements

__all__ = ["Gathered", "Selection", "gather"]

_VISIT: Final = re.compile(r"#\d+$")
_CUT: Final = re.compile(r"… \([\d,]+ characters\)$")  # as the run store marks what was too long for it
_MORE: Final = re.compile(r"^\[(?:image|audio|document|raw|reasoning|calls|result of)\b[^\n]*\]", re.MULTILINE)
_TALK: Final = frozenset({"system", "developer", "user", "assistant"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which answers. Empty is any. Names may hold `*` and `?`; a step is a node, or a path of nested ones.

    `since` and `until` are seconds since 1970, of when a run began. `min_score` leaves out what was judged worse; what
    nobody judged stays.
    """

    models: tuple[str, ...] = ()
    flows: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()
    since: float | None = None
    until: float | None = None
    min_score: float | None = None

    def has_run(self, run: RunRecord) -> bool:
        return not self.flows or (run.kind == "flow" and _any(run.name, self.flows))

    def has(self, answer: RecordedAnswer) -> bool:
        return (not self.models or _any(answer.model, self.models)) and (
            not self.steps or _any(answer.step, self.steps) or _any(answer.step.rpartition("/")[2], self.steps)
        )


@dataclass(slots=True)
class Gathered:
    """`calls` were selected and answered; each of them is among `answers`, or its reason among `dropped`."""

    answers: list[RecordedAnswer] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    calls: int = 0


def gather(reader: RunReader, selection: Selection, consent: Consent) -> Gathered:
    """In the order of time. Raises RunStoreError."""
    gathered = Gathered()
    for run in reader.runs(since=selection.since, until=selection.until, limit=None):
        if selection.has_run(run):
            _add_run(gathered, reader, run, selection, consent)
    gathered.answers.sort(key=lambda answer: (answer.at, answer.run))
    return gathered


def _add_run(gathered: Gathered, reader: RunReader, run: RunRecord, selection: Selection, consent: Consent) -> None:
    events = list(reader.events(run.id))
    found = [call for call in _calls(run, events) if selection.has(call.answer)]
    if not found:
        return
    gathered.runs += 1
    gathered.calls += len(found)
    verdict = consent.verdict(statements(events, reader.feedback(run.id)), run.tenant)
    for call in found:
        reason = f"consent was {verdict}" if verdict != "granted" else call.fault(run, selection.min_score)
        if reason is None:
            gathered.answers.append(call.answer)
        else:
            gathered.dropped[reason] += 1


@dataclass(frozen=True, slots=True)
class _Call:
    """A call that was answered, and what else is known of it."""

    answer: RecordedAnswer
    recorded: bool  # whether contents were
    finish: str | None
    tools: bool

    def fault(self, run: RunRecord, min_score: float | None) -> str | None:
        """Why nobody should learn from it; None where nothing speaks against it."""
        answer = self.answer
        texts = [answer.answer, *(turn.content for turn in answer.messages)]
        faults = {
            "the run did not end well": run.status != "done",
            "contents were not recorded": not self.recorded,
            "the answer calls tools": self.tools,
            "the answer was not finished": self.finish not in (None, "stop"),
            "the answer is empty": not answer.answer.strip(),
            "the text was too long for the run store": any(map(_CUT.search, texts)),
            "more than text was said": any(turn.role not in _TALK for turn in answer.messages)
            or any(map(_MORE.search, texts)),
            "it was judged too bad": min_score is not None and answer.score is not None and answer.score < min_score,
        }
        return next((reason for reason, holds in faults.items() if holds), None)


def _calls(run: RunRecord, events: list[ExecutionEvent]) -> Iterator[_Call]:
    asked: dict[int, Mapping[str, object]] = {}
    parents: dict[int, int | None] = {}
    scores: dict[int, float] = {}
    for event in events:
        span = event.span or event.sequence
        if event.kind.endswith("_start"):
            parents[span] = event.parent
        if event.kind == "model_start":
            asked[span] = event.data
        score = _number(event.data.get("score"))
        if event.kind == "feedback" and score is not None:
            scores[event.span if event.span in parents else 0] = score
    for event in events:
        if event.kind == "model_success" and asked.get(event.span, {}).get("operation", "chat") == "chat":
            yield _call(run, event, asked.get(event.span, {}), _score(event.span, parents, scores))


def _score(span: int, parents: Mapping[int, int | None], scores: Mapping[int, float]) -> float | None:
    """The latest word on the nearest thing around it; 0 is the whole run."""
    around: int | None = span
    while around is not None and around not in scores:
        around = parents.get(around)
    return scores.get(0 if around is None else around)


def _call(run: RunRecord, event: ExecutionEvent, asked: Mapping[str, object], score: float | None) -> _Call:
    data = {**asked, **event.data}
    said, words = data.get("answer"), data.get("messages")
    turns = [each for each in words if isinstance(each, dict)] if isinstance(words, list) else []
    answer = RecordedAnswer(
        messages=tuple(Turn(str(each.get("role")), str(each.get("content"))) for each in turns),
        answer=said if isinstance(said, str) else "",
        model=str(data.get("model", "?")),
        at=event.time - (event.duration or 0.0),
        run=run.id,
        provider=str(data.get("provider", "")),
        model_id=str(data.get("response_model") or data.get("model_id") or ""),
        flow=run.name if run.kind == "flow" else "",
        step=_step(event.path) if run.kind == "flow" else "",
        input_tokens=_count(data.get("input_tokens")),
        output_tokens=_count(data.get("output_tokens")),
        cost=_number(data.get("cost")),
        score=score,
    )
    finish = data.get("finish_reason")
    return _Call(
        answer, bool(turns) and isinstance(said, str), finish if isinstance(finish, str) else None,
        bool(data.get("tool_calls")),
    )  # fmt: skip


def _step(path: str) -> str:
    """`outer/inner#2/each#1/7/write#1` → `inner/each/write`: which node, not which visit or item."""
    names = [_VISIT.sub("", part) for part in path.split("/")[1:]]
    return "/".join(name for name in names if not name.isdigit())


def _any(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0
