"""The three questions that everyone asks of a run, answered in sentences: what did it do, why was it slow, what did it
cost.

    digest ran to its end in 2.53 s: 4 node visits, 6 model calls.
    1.00 s of it (40%) went into waiting for the rate limit of lab, most of it in summarise[5]; …
    $0.0369 for 6 calls, 5.4k tokens read and 720 written; nobody knows the price of fast (3 calls).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Final

from agentflow.cli.tracing.amounts import count_of, dollars, duration, per_cent, tokens
from agentflow.cli.tracing.categories import Category, category, in_order
from agentflow.cli.tracing.rows import label
from agentflow.core.observability.trace.critical_path import Stretch, stretches
from agentflow.core.observability.trace.totals import Totals, by_model, by_node, totals, totals_by
from agentflow.core.observability.trace.tree import Span, Trace

__all__ = ["Answers", "answers_to", "failure_of"]


_NOTICEABLE: Final = 0.5
"""Seconds. Nobody wants advice on a run that was shorter."""

_PENDING: Final = replace(
    category("unattributed"),
    name="pending",
    meaning="what has not ended yet, and tells then what it waited for",
    remedy="",
)


@dataclass(frozen=True, slots=True)
class Answers:
    """Plain text, one or two sentences each."""

    did: str
    slow: str
    cost: str


def answers_to(trace: Trace) -> Answers:
    total = totals(trace.walk())
    return Answers(_did(trace, total), _slow(trace), _cost(trace, total))


def failure_of(trace: Trace) -> Span | None:
    """The innermost span that failed first of those that made the run fail; None where the run did not fail."""
    found = trace.root
    if found is None or found.status != "failed":
        return None
    while inner := [child for child in found.children if child.status == "failed" and child.what != "attempt"]:
        found = min(inner, key=lambda child: child.end)
    return found


# ---- what did it do ------------------------------------------------------------------------------------------


def _did(trace: Trace, total: Totals) -> str:
    root = trace.root
    if root is None:
        return "Nothing is known of this run."
    took, made = _took(trace), _made(trace, total)
    match root.status:
        case "done":
            ended = "answered" if root.what in ("model", "question") else "ran to its end"
            return f"{root.name} {ended} in {took}{made}."
        case "failed":
            failed = failure_of(trace)
            place = f" in {label(failed)}" if failed is not None and failed is not root else ""
            said = (failed and failed.error) or root.error or "nobody said why"
            return f"{root.name} failed after {took}{place}: {said.rstrip('.')}. Until then{made or ': nothing else'}."
        case "cancelled":
            return f"{root.name} was cancelled after {took}{made}."
        case "running":
            return f"{root.name} has been running for {took}{made}. At work: {_at_work(root)}."
        case "waiting":
            return f"{root.name} is parked, {took} after it began{made}. It waits in {_waits_in(root)}."
    return f"{root.name} was cut off, last heard of after {took}{made}. Last at work: {_at_work(root)}."


def _took(trace: Trace) -> str:
    took = duration(trace.duration)
    return f"{took} ({duration(trace.duration - trace.parked)} of it at work)" if trace.parked else took


def _waits_in(root: Span) -> str:
    """The innermost things that are parked, and what they ask where that was recorded."""
    found = [
        span
        for span in root.walk()
        if span.status == "waiting" and span.what != "pause" and not any(c.status == "waiting" for c in span.children)
    ]
    asked = [f"{label(span)}{_question(span)}" for span in found if span is not root]
    more = f" and {len(asked) - 3} more" if len(asked) > 3 else ""
    return ", ".join(asked[:3]) + more or root.name


def _question(span: Span) -> str:
    said = [mark.data["question"] for mark in span.marks if mark.kind == "interrupt" and mark.data.get("question")]
    return f" (“{said[-1]}”)" if said else ""


def _made(trace: Trace, total: Totals) -> str:
    visits = [span for span in trace.walk() if span.what == "node" and not span.is_cut_short]
    nodes, items = sum(span.item is None for span in visits), sum(span.item is not None for span in visits)
    tools = sum(span.what == "tool" for span in trace.walk())
    retries = sum(mark.kind == "retry" for span in trace.walk() for mark in span.marks)
    parts = [
        count_of(nodes, "node visit") if nodes else "",
        count_of(items, "item") if items else "",
        count_of(total.calls, "model call") if total.calls else "",
        count_of(tools, "tool call") if tools else "",
        f"{retries:,} {'retry' if retries == 1 else 'retries'}" if retries else "",
    ]
    said = ", ".join(part for part in parts if part)
    return f": {said}" if said else ""


def _at_work(root: Span) -> str:
    """The innermost things that have not ended."""
    names = Counter(
        label(span)
        for span in root.walk()
        if span.is_open and span.what != "attempt" and not any(c.is_open and c.what != "attempt" for c in span.children)
    )
    shown = [name if times == 1 else f"{times} × {name}" for name, times in names.most_common(3)]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(shown) + more or "nothing"


# ---- why was it slow -----------------------------------------------------------------------------------------


def _slow(trace: Trace) -> str:
    root = trace.root
    if root is None or trace.duration <= 0.0:
        return "It took no time."
    path = tuple(map(_as_far_as_known, stretches(root)))
    spent: dict[str, float] = {}
    for stretch in path:
        spent[stretch.category] = spent.get(stretch.category, 0.0) + stretch.duration
    parts = sorted(_parts(spent), key=lambda part: -part[1])
    first, seconds = parts[0]
    most = "Most" if seconds > trace.duration / 2 else "The largest part"
    sentence = (
        f"{most} of the {duration(trace.duration)} went into {first.meaning}"
        f"{_guard(first.name, path)}: {duration(seconds)} ({per_cent(seconds, trace.duration)})"
        f"{_longest(first.name, path, root)}."
    )
    rest = [(each, took) for each, took in parts[1:4] if took >= 0.01 * trace.duration]
    if rest:
        said = ", ".join(f"{each.meaning} {duration(took)} ({per_cent(took, trace.duration)})" for each, took in rest)
        sentence += f" Then {said}."
    remedies = [each.remedy for each, took in parts[:2] if took > trace.duration / 4 and _helps(each, trace)]
    if remedies and trace.duration >= _NOTICEABLE:
        sentence += f" What helps: {'; '.join(remedies)}."
    return sentence


def _helps(spent: Category, trace: Trace) -> bool:
    """Whether there is something to be done about it: nobody can answer a timer."""
    if spent.name == "waiting":
        return any(mark.kind == "interrupt" for span in trace.walk() for mark in span.marks)
    return bool(spent.remedy)


def _as_far_as_known(stretch: Stretch) -> Stretch:
    """What has not ended tells only then whether it waited or worked: until then nobody's event loop is to blame."""
    unknown = stretch.category == "unattributed" and stretch.span.is_open
    return replace(stretch, category=_PENDING.name) if unknown else stretch


def _parts(spent: dict[str, float]) -> list[tuple[Category, float]]:
    return [(_PENDING if each.name == _PENDING.name else each, took) for each, took in in_order(spent)]


def _guard(name: str, path: tuple[Stretch, ...]) -> str:
    """Whose wait it was, where it was always the same guard's."""
    kind = {"queue": "shedder_wait", "limiter": "limiter_wait", "pool": "pool_wait"}.get(name)
    spans = {each.span.number: each.span for each in path if each.category == name}
    names = {str(mark.data.get("guard", "")) for span in spans.values() for mark in span.marks if mark.kind == kind}
    return f" of {names.pop()}" if len(names) == 1 and names != {""} else ""


def _longest(name: str, path: tuple[Stretch, ...], root: Span) -> str:
    """Where the most of it was, where that is not the run itself."""
    found: dict[int, float] = {}
    for each in path:
        if each.category == name:
            found[each.span.number] = found.get(each.span.number, 0.0) + each.duration
    number = max(found, key=lambda each: found[each])
    span = next(each.span for each in path if each.span.number == number)
    if span is root or span.what == "pause":
        return ""
    place = f"{label(span)} of {_place(span)}" if span.what in ("model", "tool") and "/" in span.path else label(span)
    return f", {duration(found[number])} of it in {place}" if len(found) > 1 else f", in {place}"


def _place(span: Span) -> str:
    """The last level of a path, readable: `digest/summarise#1/7` → summarise[7]."""
    parts = span.path.split("/")
    if parts[-1].isdigit() and len(parts) > 1:
        return f"{parts[-2].partition('#')[0]}[{parts[-1]}]"
    name, _, visit = parts[-1].partition("#")
    return f"{name} #{visit}" if visit not in ("", "1") else name


# ---- what did it cost ----------------------------------------------------------------------------------------


def _cost(trace: Trace, total: Totals) -> str:
    if not total.calls:
        return "Nothing: no model was asked."
    used = f"{tokens(total.input_tokens)} tokens read and {tokens(total.output_tokens)} written"
    models = totals_by(trace, by_model)
    unknown = [f"{name} ({count_of(each.unpriced, 'call')})" for name, each in models.items() if each.unpriced]
    calls = count_of(total.calls, "model call")
    if total.known_cost is None:
        return f"Nobody knows: the price of {_listed(unknown)} is not in the table. {calls}, {used}."
    sentence = f"{dollars(total.cost)} for {calls}, {used}."
    if unknown:
        sentence += f" On top comes what {_listed(unknown)} cost: nobody knows the price."
    if total.cost:
        sentence += _dearest(trace, models)
    if total.lost:
        sentence += f" {count_of(total.lost, 'request')} of it {'was' if total.lost == 1 else 'were'} sent in vain."
    return sentence


def _dearest(trace: Trace, models: dict[str, Totals]) -> str:
    nodes = totals_by(trace, by_node)
    node, most = next(iter(nodes.items()))
    model = next(iter(models))
    parts = []
    if len(nodes) > 1:
        parts.append(f"{node.rpartition('/')[2]} with {dollars(most.cost)}")
    if len(models) > 1:
        parts.append(f"the model {model} with {dollars(models[model].cost)}")
    return f" Dearest: {', '.join(parts)}." if parts else ""


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if names[3:] else "")
