"""What a batch of events says of the runs they belong to: pure sums, which are then added to the run's row.

    tally(events)  ──▶  [News("4f9a…", name="digest", status="done", usage={(472_222, "gpt-4o", "openai"): …}, …)]

What a run tells in several stretches is as many news, in their order. Nothing is remembered between batches, so it does
not matter how long runs take, or whether they ever end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from agentflow.core.observability.attribution import Parts, merged
from agentflow.core.observability.events import ExecutionEvent, stretch_of

__all__ = ["Counts", "News", "UsageKey", "tally"]

UsageKey: TypeAlias = tuple[int, str, str]
"""Hour since 1970 UTC, model, provider."""

_HOUR: Final = 3_600
_STATUS: Final = {"success": "done", "error": "failed", "cancelled": "cancelled", "interrupted": "waiting"}


@dataclass(slots=True)
class Counts:
    """Sums over model calls: `cost` is in US dollars, and `unpriced` counts calls whose cost nobody knows."""

    calls: int = 0
    failed_calls: int = 0
    unpriced: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cost: float = 0.0

    def add(self, event: ExecutionEvent, outcome: str) -> None:
        """One call that has ended."""
        data = event.data
        cost = _number(data.get("cost"))
        self.calls += 1
        self.failed_calls += outcome == "error"
        self.unpriced += cost is None and (outcome == "success" or "cost" in data)
        self.input_tokens += _count(data.get("input_tokens"))
        self.output_tokens += _count(data.get("output_tokens"))
        self.cached_tokens += _count(data.get("cached_tokens"))
        self.reasoning_tokens += _count(data.get("reasoning_tokens"))
        self.cost += (cost or 0.0) + (_number(data.get("lost_cost")) or 0.0)


@dataclass(slots=True)
class News:
    """What is new of one run. A `status` of None is the one it had; `running` means that it begins (again)."""

    run_id: str
    name: str = ""
    kind: str = "flow"
    started: float = 0.0
    seen: float = 0.0
    status: str | None = None
    told: bool = False
    """Whether an event of the run itself is among them: what comes after it, such as feedback, makes no run."""
    duration: float | None = None
    error: str | None = None
    error_type: str | None = None
    tenant: str | None = None
    parent_run: str | None = None
    breakdown: Parts | None = None
    events: int = 0
    usage: dict[UsageKey, Counts] = field(default_factory=dict)
    stretch: int = 0
    began: float | None = None
    """When a further stretch of it began, in seconds since it first began; None for the first one."""
    ended: float | None = None
    """When the stretch ended."""
    cancelled: float | None = None
    """The wall time at which it was ended from outside, when nobody ran it."""
    parked: float = 0.0
    """Seconds in which nobody ran it, until this stretch began."""


def tally(events: Iterable[ExecutionEvent]) -> list[News]:
    """The news of each stretch of each run. What was said beside a run is added to what came before it."""
    found: list[News] = []
    latest: dict[str, News] = {}
    for event in events:
        news = latest.get(event.run_id)
        if news is None or (event.sequence > 0 and news.told and stretch_of(event) != news.stretch):
            news = latest[event.run_id] = _introduced(News(event.run_id), event)
            found.append(news)
        elif event.sequence > 0 and not news.told:  # until now there was only what was said beside it
            _introduced(news, event)
        _add(news, event)
    return found


def _introduced(news: News, event: ExecutionEvent) -> News:
    """A call's path is its model's name, which may have a slash; a flow's begins with its own."""
    is_call = not event.node
    news.name = event.path if is_call else event.path.partition("/")[0]
    news.kind = "call" if is_call else "flow"
    news.started, news.seen = event.time - event.at, event.time
    news.stretch = stretch_of(event)
    return news


def _add(news: News, event: ExecutionEvent) -> None:
    news.events += 1
    news.told = news.told or event.sequence > 0
    news.seen = max(news.seen, event.time)
    what, _, outcome = event.kind.partition("_")
    if what == "model" and outcome in _STATUS:
        _add_usage(news, event, outcome)
    if event.kind == "cancel":
        news.cancelled = event.time
    if event.parent is not None or event.sequence <= 0:
        return
    if what in {"flow", "model"}:
        _add_root(news, event, outcome)
    elif event.kind == "tool_start":  # between two requests of one question
        news.status, news.duration = "running", None


def _add_usage(news: News, event: ExecutionEvent, outcome: str) -> None:
    key = (int(event.time // _HOUR), _word(event.data, "model") or "?", _word(event.data, "provider") or "?")
    counts = news.usage.get(key)
    if counts is None:
        counts = news.usage[key] = Counts()
    counts.add(event, outcome)


def _add_root(news: News, event: ExecutionEvent, outcome: str) -> None:
    """The first or the last event of the run."""
    data = event.data
    news.tenant = _word(data, "tenant") or news.tenant
    if outcome == "start":
        news.status, news.error, news.error_type, news.duration = "running", None, None, None
        news.began, news.ended = (event.at if news.stretch else None), None
        news.parent_run = _word(data, "parent_run") or news.parent_run
    elif outcome in _STATUS:
        news.status = _STATUS[outcome]
        news.error, news.error_type = _word(data, "error"), _word(data, "error_type")
        news.duration, news.breakdown = _where_time_went(news, event)
        news.ended = event.at


def _where_time_went(news: News, event: ExecutionEvent) -> tuple[float | None, Parts]:
    """A flow's end knows it. A question that takes several requests has no end of its own: each of them counts."""
    parts = event.data.get("breakdown")
    known = (
        {name: seconds for name, said in parts.items() if (seconds := _number(said))}
        if isinstance(parts, Mapping)
        else {}
    )
    if event.kind == "flow_interrupted":
        return None, known
    if event.kind.startswith("flow_"):
        return max(event.at, event.duration or 0.0) if news.stretch else event.duration, known
    return event.at, merged(news.breakdown or {}, known)


def _word(data: Mapping[str, object], name: str) -> str | None:
    said = data.get(name)
    return said if isinstance(said, str) and said else None


def _number(said: object) -> float | None:
    return float(said) if isinstance(said, int | float) and not isinstance(said, bool) else None


def _count(said: object) -> int:
    number = _number(said)
    return int(number) if number is not None and 0 < number < 2**53 else 0
