"""Outcomes out of the run store: what was asked, which model answered, how good somebody said it was.

    run  ─ route(to "small", propensity 0.9) ─ model_start(messages) ─ model_success(cost, tokens) ─ feedback(score 1.0)
         ──▶  text, "small", quality 1.0, cost, output tokens, propensity 0.9

    with RunReader() as reader:
        table = recorded_table(reader, router="auto")

Prompts must have been kept (`observability: {runs: {capture: content}}` in models.yml); runs without one teach nothing.
A judgement counts for all model calls of its run that lie at its path; several judgements of one call are averaged. A
call that no router decided has no propensity: how often each model was asked is taken for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from agentflow.core.observability.events import ExecutionEvent
from agentflow.core.observability.store.records import Feedback, RunRecord
from agentflow.core.observability.store.run_reader import RunReader
from agentflow.errors import ConfigurationError
from agentflow.mcp.optimization.router.learning.table import OutcomeTable, token_estimate

__all__ = ["recorded_table"]


@dataclass(slots=True)
class _Call:
    text: str
    model: str
    path: str
    propensity: float
    group: str
    cost: float = math.nan
    input_tokens: float = math.nan
    output_tokens: float = math.nan
    answered: bool = False
    scores: list[float] = field(default_factory=list)


def recorded_table(
    reader: RunReader, *, router: str | None = None, name: str | None = None, since: float | None = None
) -> OutcomeTable:
    """`router` keeps to the choices of the router of that name; `name` to flows (with * and ?), `since` to runs that
    began after it. Rows of one flow and tenant are a group. Raises ConfigurationError where nothing can be learned."""
    calls: list[_Call] = []
    judged, silent = 0, 0
    for run, said in _judged_runs(reader, name, since):
        judged += 1
        found = _calls(run, reader.events(run.id), router)
        silent += not found
        for call in found:
            call.scores = [each.score for each in said if each.score is not None and _about(each, call)]
        calls += [call for call in found if call.scores]
    if not calls:
        raise ConfigurationError(
            f"{reader.path} holds nothing to learn from: {judged} runs were judged, and of {silent} of these no prompt "
            "was kept: set `observability: {runs: {capture: content}}`, and give feedback(run_id, score=…)"
        )
    return _table(calls)


def _judged_runs(
    reader: RunReader, name: str | None, since: float | None
) -> Iterable[tuple[RunRecord, list[Feedback]]]:
    runs: dict[str, tuple[RunRecord, list[Feedback]]] = {}
    for outcome in reader.outcomes(name=name, since=since):
        if outcome.feedback.score is not None:
            runs.setdefault(outcome.run.id, (outcome.run, []))[1].append(outcome.feedback)
    return runs.values()


def _about(feedback: Feedback, call: _Call) -> bool:
    """A judgement without a path is of the whole run; with one, of what lies at it or below."""
    return not feedback.path or call.path == feedback.path or call.path.startswith(f"{feedback.path}/")


def _calls(run: RunRecord, events: Iterable[ExecutionEvent], router: str | None) -> list[_Call]:
    """Those that were answered, in order. A router's last word before a call is what decided it."""
    routes: dict[str, Mapping[str, object]] = {}
    open_calls: dict[int, _Call] = {}
    done: list[_Call] = []
    for event in events:
        facts = event.data or {}
        if event.kind == "route" and (router is None or facts.get("from") == router):
            routes[event.path] = facts
        elif event.kind == "model_start" and facts.get("operation", "chat") == "chat":
            call = _begun(run, event, facts, routes.pop(event.path, None), router)
            if call is not None:
                open_calls[event.sequence] = call
        elif event.kind == "model_success" and event.span in open_calls:
            done.append(_ended(open_calls.pop(event.span), facts))
    return done


def _begun(
    run: RunRecord,
    event: ExecutionEvent,
    facts: Mapping[str, object],
    route: Mapping[str, object] | None,
    router: str | None,
) -> _Call | None:
    text, model = _asked(facts.get("messages")), facts.get("model")
    if not text or not isinstance(model, str) or (route is None and router is not None):
        return None
    chance = math.nan if route is None or route.get("to") != model else _number(route.get("propensity"))
    return _Call(text, model, event.path, chance, f"{run.name}/{run.tenant or ''}")


def _ended(call: _Call, facts: Mapping[str, object]) -> _Call:
    call.cost, call.answered = _number(facts.get("cost")), True
    call.input_tokens, call.output_tokens = _number(facts.get("input_tokens")), _number(facts.get("output_tokens"))
    return call


def _asked(messages: object) -> str:
    """The last words of the user, as a router reads them."""
    for message in reversed(messages) if isinstance(messages, list) else ():
        if isinstance(message, dict) and message.get("role") == "user":
            content = message.get("content")
            parts = [content] if isinstance(content, str) else content if isinstance(content, list) else []
            words = [part if isinstance(part, str) else _words(part) for part in parts]
            return "\n".join(word for word in words if word)
    return ""


def _words(part: object) -> str:
    found = part.get("text") if isinstance(part, dict) else None
    return found if isinstance(found, str) else ""


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else math.nan


def _table(calls: list[_Call]) -> OutcomeTable:
    models = tuple(dict.fromkeys(call.model for call in calls))
    shape = (len(calls), len(models))
    quality, cost, tokens, chance = (np.full(shape, np.nan) for _ in range(4))
    for row, call in enumerate(calls):
        place = models.index(call.model)
        quality[row, place] = sum(call.scores) / len(call.scores)
        cost[row, place], tokens[row, place], chance[row, place] = call.cost, call.output_tokens, call.propensity
    asked = [token_estimate(call.text) if math.isnan(call.input_tokens) else call.input_tokens for call in calls]
    groups = tuple(call.group for call in calls)
    return OutcomeTable(
        tuple(call.text for call in calls), models, quality, cost, tokens, np.array(asked, float), chance, groups
    )
