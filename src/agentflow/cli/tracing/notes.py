"""What there is to say of a span beside its times: its error, and what happened in it, in a few words each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from agentflow.cli.tracing.amounts import count_of, dollars, duration
from agentflow.core.observability.trace.tree import Mark, Span

__all__ = ["Note", "note_of", "notes_of"]

_WAITED = {"shedder_wait": "waited {} to be admitted", "limiter_wait": "waited {} for the rate limit"}


@dataclass(frozen=True, slots=True)
class Note:
    """One line; `bad` for what went wrong."""

    text: str
    bad: bool = False


def notes_of(span: Span, *, waits: bool = False) -> list[Note]:
    """The error where it happened first, and the marks that tell a story. With `waits` those that only tell a wait,
    which the bar shows already."""
    found = [note for mark in span.marks if (note := note_of(mark, waits=waits)) is not None]
    inner = any(child.status == "failed" and child.error for child in span.children if child.what != "attempt")
    if span.error and not inner and span.what != "attempt":  # what an attempt met stands with its call
        found.append(Note(f"✗ {_typed(span.data)}", bad=True))
    return found


def note_of(mark: Mark, *, waits: bool = True) -> Note | None:
    """A mark in words; None for one that `waits` leaves out."""
    data = mark.data
    match mark.kind:
        case "shedder_wait" | "limiter_wait" | "pool_wait":
            return Note(_waited(mark.kind, data)) if waits else None
        case "retry":
            return Note(f"↻ tried again after {duration(_number(data, 'delay'))}: {_typed(data)}")
        case "fallback":
            return Note(f"⇢ {data.get('to')} stood in for {data.get('from')}: {_typed(data)}")
        case "hedge":
            return Note(f"⇉ a second request was sent beside the slow one{_by(data)}")
        case "breaker_state":
            return Note(f"⚡ the breaker{_by(data)} went from {data.get('from')} to {data.get('to')}")
        case "rejected":
            return Note(f"✗ refused{_by(data)}: {_typed(data)}", bad=True)
        case "output_retry":
            return Note(f"↻ asked again, because the answer did not fit: {data.get('problem')}")
        case "tool_refused":
            return Note(
                f"■ {data.get('tool')} was refused: {data.get('reason') or data.get('error') or 'no reason given'}"
            )
        case "interrupt":
            said = data.get("question")
            return Note(f"◷ asks{f': {said}' if said else ''} ({data.get('interrupt')}){_due(data)}")
        case "timer":
            return Note(f"◷ sleeps{_due(data)}")
        case "resume":
            return Note(f"▸ went on: {_taken(data)} taken from the journal")
        case "fork":
            at = data.get("forked_at")
            return Note(f"⑂ forked from run {data.get('forked_from')}{f', before {at}' if at else ''}")
        case "cancel":
            return Note("■ ended from outside while nobody was running it")
        case "alert":
            return Note(f"! alert {data.get('rule')} is {data.get('state')}", bad=data.get("state") == "firing")
        case "feedback":
            return Note(_rated(data))
    facts = ", ".join(f"{name}={value}" for name, value in list(data.items())[:4])
    return Note(f"· {mark.kind}{': ' if facts else ''}{facts}")


def _waited(kind: str, data: Mapping[str, object]) -> str:
    took = duration(_number(data, "seconds"))
    return _WAITED.get(kind, "waited {} for a free connection").format(took) + _by(data)


def _due(data: Mapping[str, object]) -> str:
    """Until when it waits, in local time; nothing where that is for ever, or no time."""
    due = data.get("due")
    try:
        return f" until {datetime.fromtimestamp(due):%Y-%m-%d %H:%M:%S}" if isinstance(due, int | float) else ""
    except (OverflowError, ValueError, OSError):
        return ""


def _taken(data: Mapping[str, object]) -> str:
    cost, calls = data.get("cost"), data.get("calls")
    parts = [count_of(int(_number(data, "steps")), "step")]
    parts += [count_of(int(_number(data, "calls")), "call")] if calls else []
    return " and ".join(parts) + (f" ({dollars(float(cost))})" if isinstance(cost, int | float) and cost else "")


def _rated(data: Mapping[str, object]) -> str:
    score = data.get("score")
    parts = [
        f"{score:.2f}" if isinstance(score, int | float) else "",
        str(data.get("label") or ""),
        str(data.get("comment") or ""),
    ]
    return f"★ {data.get('source') or 'somebody'} says: {', '.join(part for part in parts if part) or 'nothing'}"


def _by(data: Mapping[str, object]) -> str:
    guard = data.get("guard")
    return f" of {guard}" if guard else ""


def _typed(data: Mapping[str, object]) -> str:
    said, kind = data.get("error"), data.get("error_type")
    words = [str(kind)] if kind and str(kind) not in str(said) else []
    return ": ".join([*words, str(said if said is not None else "nobody said why")])


def _number(data: Mapping[str, object], name: str) -> float:
    found = data.get(name)
    return float(found) if isinstance(found, int | float) else 0.0
