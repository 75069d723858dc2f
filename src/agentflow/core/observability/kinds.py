"""Every kind of event, what it means, and what its data says: one table, of which a JSON Schema and a page are made.

    KINDS["retry"]       ──▶  Kind: meaning, names of its facts
    FACTS["delay"]       ──▶  Fact: meaning, JSON Schema of the value
    event_schema()       ──▶  docs/events.schema.json (draft 2020-12)
    kinds_table()        ──▶  the table in docs/observability.md

`python scripts/event_kinds.py` writes both; a test holds them to this file. Kinds are open: whoever emits one of their
own may say in `data` what they like. A fact that is not known is absent: only those in `always` are sure to be there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from agentflow.core.observability.attribution import ORDER
from agentflow.core.observability.events import CONTENT

__all__ = ["CONTENT", "FACTS", "FIELDS", "KINDS", "Fact", "Kind", "Schema", "event_schema", "kinds_table"]

Schema: TypeAlias = Mapping[str, object]
"""A JSON Schema, or a part of one."""


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that an event says: what it means, and the shape of its value."""

    meaning: str
    schema: Schema


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of event. `always` are facts that are sure to be in its data, `maybe` those that may be.

    `ends` says whether it ends a span, so that it has a duration; `later` that no release emits it yet.
    """

    meaning: str
    always: tuple[str, ...] = ()
    maybe: tuple[str, ...] = ()
    ends: bool = False
    later: bool = False

    @property
    def facts(self) -> tuple[str, ...]:
        return (*self.always, *self.maybe)


# ---- shapes --------------------------------------------------------------------------------------------------

_TEXT: Final[Schema] = {"type": "string"}
_MAYBE_TEXT: Final[Schema] = {"type": ["string", "null"]}
_FLAG: Final[Schema] = {"type": "boolean"}
_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
_MAYBE_COUNT: Final[Schema] = {"type": ["integer", "null"], "minimum": 0}
_NUMBER: Final[Schema] = {"type": "number"}
_SECONDS: Final[Schema] = {"type": "number", "minimum": 0}
_MAYBE_SECONDS: Final[Schema] = {"type": ["number", "null"], "minimum": 0}
_MAYBE_MOMENT: Final[Schema] = {"type": ["number", "null"]}
_MAYBE_DOLLARS: Final[Schema] = {"type": ["number", "null"], "minimum": 0}
_SCORE: Final[Schema] = {"type": "number", "minimum": 0, "maximum": 1}
_BREAKDOWN: Final[Schema] = {
    "type": "object",
    "propertyNames": {"enum": list(ORDER)},
    "additionalProperties": _SECONDS,
}
_GRAPH: Final[Schema] = {
    "type": "object",
    "required": ["nodes", "edges"],
    "properties": {
        "nodes": {"type": "array"},
        "edges": {
            "type": "array",
            "items": {"type": "array", "minItems": 3, "maxItems": 3, "items": {"type": ["string", "null"]}},
        },
    },
}
_TIMING: Final[Schema] = {
    "type": "object",
    "additionalProperties": {"type": ["number", "null"], "minimum": 0},
}
_MESSAGES: Final[Schema] = {"type": "array", "items": {"type": "object", "required": ["role", "content"]}}
_OBJECT: Final[Schema] = {"type": "object"}
_ANYTHING: Final[Schema] = {}

FIELDS: Final[Mapping[str, Fact]] = {
    "kind": Fact("what happened", {"type": "string", "minLength": 1}),
    "run_id": Fact("the run it happened in", {"type": "string", "minLength": 1}),
    "path": Fact("every level with its visit: `article/inner#2/write#1`", _TEXT),
    "node": Fact("the last level of `path`; empty for a model call outside of any flow", _TEXT),
    "visit": Fact("which visit of the node, from 1; of an item of `Each`, its index", _COUNT),
    "sequence": Fact(
        "its number in the run, from 1, and from 1,000,000,001 where the run went on later, and so forth; "
        "0 for what was said beside the run",
        _COUNT,
    ),
    "time": Fact("wall time, seconds since 1970", _NUMBER),
    "duration": Fact("monotonic seconds since the matching start; null where nothing ended", _MAYBE_SECONDS),
    "attempt": Fact("which attempt, from 1", {"type": "integer", "minimum": 1}),
    "data": Fact("what else is known; its facts depend on `kind`", _OBJECT),
    "span": Fact("the `sequence` of the event that began what this is about", _COUNT),
    "parent": Fact("the span around it; null where there is none", {"type": ["integer", "null"], "minimum": 0}),
    "at": Fact("seconds since the run first began; monotonic, but where the run went on later", _SECONDS),
}
"""What every event has."""

FACTS: Final[Mapping[str, Fact]] = {
    # flows and nodes
    "tenant": Fact("for whom it runs", _MAYBE_TEXT),
    "parent_run": Fact("the run in which this one was started", _MAYBE_TEXT),
    "batch": Fact("what the runs of one `run_batch` have in common", _MAYBE_TEXT),
    "traceparent": Fact(
        "where the run first began in a trace of another system (W3C Trace Context), in a run that goes on later", _TEXT
    ),
    "graph": Fact("`nodes` and `edges` (from, action, to) of the outermost flow", _GRAPH),
    "action": Fact("the action it ended with", _MAYBE_TEXT),
    "items": Fact("how many items an `Each` goes over", _COUNT),
    "breakdown": Fact("seconds by what they were spent on, without zeros", _BREAKDOWN),
    "error": Fact("what went wrong, in words", _TEXT),
    "error_type": Fact("the class of the error", _TEXT),
    # runs that are parked, and go on
    "interrupt": Fact("the id of what is asked, by which it is answered", _TEXT),
    "question": Fact("what a person is asked (only where content is wanted)", _TEXT),
    "due": Fact("wall time when it is waited for no longer, seconds since 1970; null: for ever", _MAYBE_MOMENT),
    "step": Fact("the path of the step", _TEXT),
    "stretch": Fact("how often the run has gone on by now", _COUNT),
    "steps": Fact("how many steps are taken from the journal, and do not run again", _COUNT),
    "calls": Fact("how many calls of models and tools are", _COUNT),
    "forked_from": Fact("the run whose beginning it shares", _TEXT),
    "forked_at": Fact("the first step of that run which it does not share", _MAYBE_TEXT),
    # models
    "model": Fact("the model's configured name", _TEXT),
    "provider": Fact("the provider's configured name", _TEXT),
    "model_id": Fact("what the provider calls the model", _TEXT),
    "operation": Fact("what is asked for: `chat` or `embeddings`", {"enum": ["chat", "embeddings"]}),
    "streaming": Fact("whether the answer comes in pieces", _FLAG),
    "round": Fact("which request of one question, from 1: tools and misfits make further ones", _COUNT),
    "temperature": Fact("as it was asked for", _NUMBER),
    "max_tokens": Fact("as it was asked for", _COUNT),
    "top_p": Fact("as it was asked for", _NUMBER),
    "top_k": Fact("as it was asked for", _COUNT),
    "seed": Fact("as it was asked for", {"type": "integer"}),
    "inputs": Fact("how many texts are embedded", _COUNT),
    "messages": Fact("the prompt: `role` and `content` of each message (only where content is wanted)", _MESSAGES),
    "fingerprint": Fact(
        "a hash of all that may change the answer: equal for equal requests (only where content is wanted)", _TEXT
    ),
    "answer": Fact("the answer's text (only where content is wanted)", _MAYBE_TEXT),
    "tool_calls": Fact("the tools that the answer calls (only where content is wanted)", {"type": "array"}),
    "response_model": Fact("the model that the provider says has answered", _MAYBE_TEXT),
    "response_id": Fact("the provider's id of the answer", _MAYBE_TEXT),
    "request_id": Fact("the provider's id of the request", _MAYBE_TEXT),
    "input_tokens": Fact("tokens of the prompt; null where nobody has counted", _MAYBE_COUNT),
    "output_tokens": Fact("tokens of the answer; null where nobody has counted", _MAYBE_COUNT),
    "cached_tokens": Fact("tokens of the prompt that the provider had in its cache", _COUNT),
    "cache_write_tokens": Fact("tokens of the prompt that the provider put into its cache", _COUNT),
    "reasoning_tokens": Fact("tokens of the answer that were thought, not said", _COUNT),
    "finish_reason": Fact("why the answer ended", _MAYBE_TEXT),
    "cost": Fact("US dollars; null where nobody knows the price", _MAYBE_DOLLARS),
    "estimated": Fact("whether tokens and cost are estimates, as of a stream that was left", _FLAG),
    "timing": Fact("`reply.timing`: seconds by phase, and the number of attempts", _TIMING),
    "lost_requests": Fact("requests of hedges that lost, which may be billed all the same", _COUNT),
    "lost_cost": Fact("what they may cost, US dollars; null where nobody knows", _MAYBE_DOLLARS),
    "status": Fact("the HTTP status", {"type": ["integer", "null"]}),
    # attempts
    "method": Fact("the HTTP method", _TEXT),
    "url": Fact("where the request went, without its query", _TEXT),
    "address": Fact("the server's host", _TEXT),
    "port": Fact("the server's port", _COUNT),
    "connect": Fact("seconds until there was a connection", _MAYBE_SECONDS),
    "pool": Fact("seconds until there was room for another connection", _MAYBE_SECONDS),
    # tools
    "tool": Fact("the tool's name", _TEXT),
    "call_id": Fact("the model's id of the call", _MAYBE_TEXT),
    "arguments": Fact("what the model gave the tool (only where content is wanted)", _ANYTHING),
    "reason": Fact("why", _MAYBE_TEXT),
    # streams
    "content": Fact("the piece's text", _TEXT),
    "restart": Fact("whether what came before it is void", _FLAG),
    # guards
    "attempt": Fact("which attempt, from 1", {"type": "integer", "minimum": 1}),
    "guard": Fact("the guard's name", _TEXT),
    "delay": Fact("seconds until the next attempt", _SECONDS),
    "seconds": Fact("how long it waited", _SECONDS),
    "retry_after": Fact("seconds until it makes sense to come back", _MAYBE_SECONDS),
    "from": Fact("what it was: a state, a model", _TEXT),
    "to": Fact("what it is now", _TEXT),
    "number": Fact("which further request, from 1", _COUNT),
    "problem": Fact("what does not fit, in words", _TEXT),
    "quote": Fact("the same with the answer's own words (only where content is wanted)", _TEXT),
    # caches, routers, budgets, batches
    "tier": Fact("which part of the cache: `exact`, or `semantic` for a question that means the same", _TEXT),
    "age": Fact("how old the answer is, in seconds", _SECONDS),
    "stale": Fact("whether the answer was too old, and is being asked for anew meanwhile", _FLAG),
    "saved": Fact("what the answer cost when it was asked for, US dollars; null where nobody knows", _MAYBE_DOLLARS),
    "similarity": Fact("cosine between the question and the one that the answer was given to", _NUMBER),
    "candidates": Fact(
        "the models that could be chosen, each with what the choice was made by: `quality`, `cost`, `propensity`",
        {"type": "object", "additionalProperties": _OBJECT},
    ),
    "excluded": Fact("the models that could not be chosen, and why", {"type": "object", "additionalProperties": _TEXT}),
    "policy": Fact("what the choice was made by: its name, and the hash of what it has learned", _TEXT),
    "propensity": Fact("how likely it was that this one would be chosen", _SCORE),
    "shadow": Fact("what a policy on trial would have chosen", _TEXT),
    "stage": Fact("which model of a cascade it is, from 0", _COUNT),
    "choice": Fact("the choice's id, by which feedback may name it", _TEXT),
    "arm": Fact("whether the policy in force chose (`incumbent`) or one on trial (`canary`)", _TEXT),
    "account": Fact("the budget's account: `day`, `tenant:acme`, …", _TEXT),
    "reserved": Fact("what a call may cost at most, US dollars", _MAYBE_DOLLARS),
    "spent": Fact("what the account has spent by now, what is reserved included, US dollars", _MAYBE_DOLLARS),
    "limit": Fact("what it may spend, US dollars", _MAYBE_DOLLARS),
    "decision": Fact("what was decided, in a word", _TEXT),
    "call": Fact("the id of what is reserved for a call, by which its cost is put right", _TEXT),
    "size": Fact("how many requests", _COUNT),
    "tokens": Fact("how many tokens, as far as anybody knows", _MAYBE_COUNT),
    "waited": Fact("seconds that the first of them has waited", _SECONDS),
    "job": Fact("the batch job's id", _TEXT),
    "part": Fact("which of the batches that the job was split into", _TEXT),
    "chance": Fact("how likely it is that the batch is done in time", _SCORE),
    "at_risk": Fact("how many requests may be billed twice", _COUNT),
    # alerts and feedback
    "rule": Fact("the rule's name", _TEXT),
    "state": Fact("the rule's state", _TEXT),
    "previous": Fact("the rule's state before", _TEXT),
    "severity": Fact("how bad it is", _TEXT),
    "value": Fact("the value that the rule looked at; null where there was none", {"type": ["number", "null"]}),
    "labels": Fact("the rule's labels", {"type": "object", "additionalProperties": _TEXT}),
    "score": Fact("how good it was, from 0 to 1", _SCORE),
    "label": Fact("how good it was, in a word", _TEXT),
    "comment": Fact("what there is to say about it", _TEXT),
    "source": Fact("who says so", {"enum": ["user", "checker"]}),
}
"""What data may say. A name means the same in every kind."""

_ASKED: Final = ("model", "provider")
_REQUEST: Final = (
    "model_id", "operation", "streaming", "tenant", "round", "temperature", "max_tokens", "top_p", "top_k", "seed",
    "inputs",
)  # fmt: skip
_TOKENS: Final = ("input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens")
_BILL: Final = (*_TOKENS, "cost", "estimated", "lost_requests", "lost_cost", "timing", "breakdown")
_ANSWER: Final = ("response_model", "response_id", "request_id", "finish_reason", "answer", "tool_calls")
_FAILURE: Final = ("error", "error_type")
_DECIDED: Final = (*_ASKED, "attempt")
_HTTP: Final = ("method", "url", "address", "port", "status", "request_id", "connect", "pool")

KINDS: Final[Mapping[str, Kind]] = {
    "flow_start": Kind("a flow begins", (), ("tenant", "parent_run", "batch", "graph", "traceparent")),
    "flow_success": Kind("a flow has ended well", ("breakdown",), ("action",), ends=True),
    "flow_error": Kind("a flow has failed", (*_FAILURE, "breakdown"), ends=True),
    "flow_cancelled": Kind("a flow was cancelled", (), ("breakdown",), ends=True),
    "flow_interrupted": Kind("a flow is parked, and waits", (), ("breakdown",), ends=True),
    "node_start": Kind("a visit of a node begins", (), ("items",)),
    "node_success": Kind("a visit of a node has ended well", ("breakdown",), ("action",), ends=True),
    "node_error": Kind("a visit of a node has failed for good", (*_FAILURE, "breakdown"), ends=True),
    "node_cancelled": Kind("a visit of a node was cancelled", (), ("breakdown",), ends=True),
    "node_interrupted": Kind("a visit of a node is parked, and runs again", (), ("breakdown",), ends=True),
    "interrupt": Kind("a node asks a person, and waits for the answer", ("interrupt",), ("question", "due")),
    "timer": Kind("a node sleeps until then", ("due",)),
    "resume": Kind(
        "a run that was parked, or whose process died, goes on", ("stretch", "steps"), ("calls", "cost", "reason")
    ),
    "fork": Kind("a run begins in the middle of another", ("forked_from",), ("forked_at", "steps", "calls", "cost")),
    "not_kept": Kind(
        "what a step has done cannot be stored: it is done again where the run goes on later", ("step", *_FAILURE)
    ),
    "cancel": Kind("a run that nobody was running was ended for good", (), ("reason",)),
    "compensate_start": Kind("what a node had done begins to be undone"),
    "compensate_success": Kind("what a node had done is undone", ("breakdown",), ends=True),
    "compensate_error": Kind("what a node had done could not be undone", (*_FAILURE, "breakdown"), ends=True),
    "compensate_cancelled": Kind("undoing what a node had done was cancelled", (), ("breakdown",), ends=True),
    "model_start": Kind(
        "a request to a model begins, attempts and waits included", _ASKED, (*_REQUEST, "messages", "fingerprint")
    ),
    "model_success": Kind("a model has answered", _ASKED, (*_REQUEST, *_ANSWER, *_BILL), ends=True),
    "model_error": Kind(
        "a request to a model has failed for good",
        (*_ASKED, *_FAILURE),
        (*_REQUEST, "status", "request_id", "retry_after", *_BILL),
        ends=True,
    ),
    "model_cancelled": Kind("whoever asked no longer wants the answer", _ASKED, (*_REQUEST, *_BILL), ends=True),
    "model_replayed": Kind(
        "a model's answer was on record from an earlier stretch of the run: nothing was sent or paid",
        (*_ASKED, "operation", "cost"),
        ("round", *_TOKENS),
    ),
    "attempt_start": Kind("one attempt of a request begins (told to observers only)", _ASKED),
    "attempt_success": Kind("an attempt was answered", _ASKED, _HTTP, ends=True),
    "attempt_error": Kind("an attempt has failed", (*_ASKED, *_FAILURE), _HTTP, ends=True),
    "attempt_cancelled": Kind("an attempt was given up", _ASKED, _HTTP, ends=True),
    "tool_start": Kind("a tool begins to work", ("tool",), ("call_id", "arguments")),
    "tool_success": Kind("a tool has done its work", ("tool",), ("call_id", "arguments", "breakdown"), ends=True),
    "tool_error": Kind("a tool has failed", ("tool", *_FAILURE), ("call_id", "arguments", "breakdown"), ends=True),
    "tool_cancelled": Kind("a tool was cancelled", ("tool",), ("call_id", "arguments", "breakdown"), ends=True),
    "tool_interrupted": Kind(
        "a tool asks a person, is parked, and runs again", ("tool",), ("call_id", "arguments", "breakdown"), ends=True
    ),
    "tool_refused": Kind(
        "a tool's call was not approved, or not possible",
        ("tool",),
        ("call_id", "arguments", "reason", *_FAILURE),
    ),
    "tool_replayed": Kind("what a tool returned was on record: it was not called", ("tool",), ("call_id",)),
    "chunk": Kind("a piece of an answer (told to observers with `chunks`)", ("content",), ("restart", "model")),
    "retry": Kind("an attempt has failed, another follows", (*_FAILURE, "delay"), _DECIDED),
    "shedder_wait": Kind("a call waited to be admitted", ("guard", "seconds"), _DECIDED),
    "limiter_wait": Kind("a call waited for the rate limit", ("guard", "seconds"), _DECIDED),
    "pool_wait": Kind("a call waited for a free resource", ("guard", "seconds"), _DECIDED),
    "breaker_state": Kind(
        "a circuit breaker has changed its state", ("guard", "from", "to"), ("retry_after", *_DECIDED)
    ),
    "rejected": Kind("a guard refused a call; nothing was sent", ("guard", *_FAILURE), ("retry_after", *_DECIDED)),
    "hedge": Kind("a second request was sent beside a slow one", ("guard",), ("number", *_DECIDED)),
    "fallback": Kind("another model stands in", ("from", "to"), _FAILURE),
    "output_retry": Kind(
        "an answer does not fit the type asked for, and is asked for again", ("model", "problem"), ("quote",)
    ),
    "alert": Kind("a rule has changed its state", ("rule", "state"), ("previous", "severity", "value", "labels")),
    "feedback": Kind(
        "somebody says how good it was, or a checker failed", ("source",), ("score", "label", "comment", *_FAILURE)
    ),
    "cache_hit": Kind(
        "an answer came from a cache; nothing was sent or paid",
        ("model", "tier"),
        ("age", "saved", "stale", "similarity", "tenant", "reason", *_TOKENS),
    ),
    "cache_miss": Kind(
        "a cache had no answer, or was not asked", ("model", "reason"), ("tier", "similarity", "tenant")
    ),
    "cache_state": Kind("a tier of a cache was switched off, or on again", ("tier", "from", "to", "reason")),
    "route": Kind(
        "a router chose a model",
        ("from", "to", "reason"),
        ("choice", "candidates", "excluded", "policy", "propensity", "arm", "shadow", "stage", "tenant"),
    ),
    "budget": Kind(
        "a budget has let a call through, warned, or refused it",
        ("model", "account", "decision"),
        ("reserved", "cost", "spent", "limit", "call", "reason", "tenant"),
    ),
    "batch": Kind("requests were sent as one", ("model", "size", "reason"), ("tokens", "waited")),
    "batch_job": Kind(
        "a part of a batch job has changed its state",
        ("job", "model", "from", "to", "size", "reason"),
        ("part", "provider", "chance", "at_risk", "cost", "tenant"),
    ),
}
"""Every kind that AgentFlow itself emits, and those whose names are taken for what is to come."""


# ---- what is made of it --------------------------------------------------------------------------------------


def event_schema(*, strict: bool = False) -> dict[str, object]:
    """The JSON Schema of an event as it is stored and exported: an object with the fields of `ExecutionEvent`.

    With `strict` data may say nothing but what stands here. Without it, as it is published, a reader puts up with what
    later releases add.
    """
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "ExecutionEvent",
        "description": "Something that happened in a run of AgentFlow. Kinds that have no name here are users' own.",
        "type": "object",
        "required": list(FIELDS),
        "properties": {name: _described(fact) for name, fact in FIELDS.items()},
        "additionalProperties": False,
        "allOf": [_if_kind(name, kind, strict) for name, kind in KINDS.items()],
        "$defs": {name: _described(fact) for name, fact in FACTS.items()},
    }


def _if_kind(name: str, kind: Kind, strict: bool) -> dict[str, object]:
    properties: dict[str, object] = {"data": _data_schema(kind, strict)}
    if not kind.later:
        properties["duration"] = _SECONDS if kind.ends else {"type": "null"}
    return {
        "if": {"properties": {"kind": {"const": name}}, "required": ["kind"]},
        "then": {"description": kind.meaning, "properties": properties},
    }


def _data_schema(kind: Kind, strict: bool) -> dict[str, object]:
    schema: dict[str, object] = {"type": "object"}
    if kind.always:
        schema["required"] = list(kind.always)
    if kind.facts:
        schema["properties"] = {name: {"$ref": f"#/$defs/{name}"} for name in kind.facts}
    if strict and not kind.later:
        schema["additionalProperties"] = False
    return schema


def _described(fact: Fact) -> dict[str, object]:
    return {"description": fact.meaning.replace("`", ""), **fact.schema}


def kinds_table() -> str:
    """The kinds as a Markdown table, then the facts; those in bold are always there."""
    now = [_row(name, kind) for name, kind in KINDS.items() if not kind.later]
    later = ", ".join(f"`{name}`" for name, kind in KINDS.items() if kind.later)
    return "\n".join(
        [
            *_table(("kind", "when", "data"), now),
            "",
            f"Taken for later releases: {later}.",
            "",
            *_table(("in data", "says"), ((f"`{name}`", fact.meaning) for name, fact in FACTS.items())),
        ]
    )


def _row(name: str, kind: Kind) -> tuple[str, str, str]:
    facts = [*(f"**{fact}**" for fact in kind.always), *kind.maybe]
    return f"`{name}`", kind.meaning, ", ".join(facts) or "–"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows)]
