"""What an event says, as the name and the attributes of a span; nothing here knows OpenTelemetry.

    model_start    ──beginning──▶  "chat gpt-4o", of a client, and what a sampler may want to know
                   ──details────▶  everything else that is known when it begins
    model_success  ──outcome────▶  what is known when it ends

`details` and `outcome` are asked for spans that are recorded, and for no others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias

from agentflow.core.observability.events import ExecutionEvent, stretch_of
from agentflow.integrations.opentelemetry import semconv as names
from agentflow.integrations.opentelemetry.semconv import Conventions

__all__ = ["Attributes", "Beginning", "Value", "beginning", "details", "error_type", "outcome", "request", "server"]

Value: TypeAlias = "str | bool | int | float | Sequence[str]"
Attributes: TypeAlias = "dict[str, Value]"

_PLAIN: Final = (str, bool, int, float)  # to make a union of them for each fact takes longer than all the rest


class Beginning(NamedTuple):
    """A span when it begins. `client` says whether it waits for another system."""

    name: str
    client: bool
    attributes: Attributes


# ---- when it begins -----------------------------------------------------------------------------------------------


def beginning(what: str, event: ExecutionEvent) -> Beginning:
    """Of a flow, node, compensation, model, attempt or tool."""
    return _BEGINNINGS[what](event)


def _flow(event: ExecutionEvent) -> Beginning:
    name = event.node or event.path
    attributes: Attributes = {names.OPERATION: names.INVOKE_WORKFLOW, names.WORKFLOW_NAME: name}
    return Beginning(f"{names.INVOKE_WORKFLOW} {name}", False, attributes)


def _node(event: ExecutionEvent) -> Beginning:
    return Beginning(f"node {event.node}", False, {})


def _model(event: ExecutionEvent) -> Beginning:
    attributes = request(event.data)
    model = attributes.get(names.REQUEST_MODEL)
    operation = attributes[names.OPERATION]
    return Beginning(f"{operation} {model}" if model else str(operation), True, attributes)


def _attempt(event: ExecutionEvent) -> Beginning:
    return Beginning("attempt", True, {})  # its method is known when it ends


def _tool(event: ExecutionEvent) -> Beginning:
    name = str(event.data.get("tool", ""))
    attributes: Attributes = {names.OPERATION: names.EXECUTE_TOOL, names.TOOL_NAME: name}
    return Beginning(f"{names.EXECUTE_TOOL} {name}", False, attributes)


def _compensate(event: ExecutionEvent) -> Beginning:
    return Beginning(f"compensate {event.node}", False, {})


_BEGINNINGS: Final[Mapping[str, Callable[[ExecutionEvent], Beginning]]] = {
    "flow": _flow,
    "node": _node,
    "model": _model,
    "attempt": _attempt,
    "tool": _tool,
    "compensate": _compensate,
}


def request(data: Mapping[str, object]) -> Attributes:
    """What all telemetry of a model call says: the operation, the provider and the model that was asked."""
    provider = str(data.get("provider") or "_OTHER")
    attributes: Attributes = {
        names.OPERATION: str(data.get("operation") or names.CHAT),
        names.PROVIDER: names.PROVIDERS.get(provider, provider),
    }
    model = data.get("model_id") or data.get("model")
    if model:
        attributes[names.REQUEST_MODEL] = str(model)
    return attributes


_STARTS: Final[Mapping[str, Mapping[str, str]]] = {
    "flow": {"tenant": names.TENANT, "parent_run": names.PARENT_RUN, "batch": names.BATCH},
    "node": {"items": names.ITEMS},
    "model": {
        "model": names.MODEL,
        "provider": names.MODEL_PROVIDER,
        "streaming": names.REQUEST_STREAM,
        "temperature": names.REQUEST_TEMPERATURE,
        "max_tokens": names.REQUEST_MAX_TOKENS,
        "top_p": names.REQUEST_TOP_P,
        "tenant": names.TENANT,
        "round": names.ROUND,
    },
    "attempt": {"model": names.MODEL, "provider": names.MODEL_PROVIDER},
    "tool": {"call_id": names.TOOL_CALL_ID},
    "compensate": {},
}


def details(what: str, event: ExecutionEvent) -> Attributes:
    """What else is known when it begins."""
    attributes: Attributes = {names.RUN: event.run_id, names.PATH: event.path}
    if what == "flow" and event.parent is None and stretch_of(event):
        attributes[names.STRETCH] = stretch_of(event)
    if what in ("node", "compensate"):
        attributes[names.NODE] = event.node
        attributes[names.VISIT] = event.visit
    elif what == "attempt":
        attributes[names.ATTEMPT] = event.attempt
    elif what == "tool":
        attributes[names.TOOL_TYPE] = "function"
    _copy(event.data, _STARTS[what], attributes)
    return attributes


# ---- when it ends -------------------------------------------------------------------------------------------------

_ENDS: Final[Mapping[str, Mapping[str, str]]] = {
    "flow": {"action": names.ACTION},
    "node": {"action": names.ACTION},
    "model": {
        "response_model": names.RESPONSE_MODEL,
        "response_id": names.RESPONSE_ID,
        "request_id": names.REQUEST_ID,
        "input_tokens": names.INPUT_TOKENS,
        "output_tokens": names.OUTPUT_TOKENS,
        "cost": names.COST,
        "lost_cost": names.LOST_COST,
    },
    "attempt": {"method": names.HTTP_METHOD, "status": names.HTTP_STATUS, "request_id": names.REQUEST_ID},
    "tool": {},
    "compensate": {},
}
_UNLESS_NOTHING: Final = {
    "cached_tokens": names.CACHE_READ_TOKENS,
    "reasoning_tokens": names.REASONING_TOKENS,
    "lost_requests": names.LOST_REQUESTS,
}


def outcome(what: str, event: ExecutionEvent, versioned: Conventions) -> Attributes:
    """What is known when it ends, but for the text of an error and for content."""
    attributes: Attributes = {}
    _copy(event.data, _ENDS[what], attributes)
    if what == "model":
        _add_answer(event.data, attributes, versioned)
    elif what == "attempt":
        _add_request(event, attributes)
    breakdown = event.data.get("breakdown")
    if isinstance(breakdown, Mapping):
        for category, seconds in breakdown.items():
            attributes[f"{names.WAIT}{category}"] = float(seconds)
    failed = error_type(what, event)
    if failed is not None:
        attributes[names.ERROR_TYPE] = failed
    return attributes


def error_type(what: str, event: ExecutionEvent) -> str | None:
    """A few words' worth of classes: the error's class, and of an HTTP request its status, where that is the error."""
    if not event.kind.endswith("_error"):
        return None
    status = event.data.get("status")
    if what == "attempt" and isinstance(status, int) and status >= 400:
        return str(status)
    return str(event.data.get("error_type") or "_OTHER")


def server(data: Mapping[str, object]) -> Attributes:
    """The server of an attempt, without which there is no port either."""
    address, port, url = data.get("address"), data.get("port"), data.get("url")
    if not address:
        return {}
    if port is None:
        port = 443 if str(url or "").startswith("https:") else 80
    return {names.SERVER_ADDRESS: str(address), names.SERVER_PORT: int(str(port))}


def first_chunk(data: Mapping[str, object]) -> float | None:
    """Seconds from the request that was answered until the first piece; None for an answer that came whole."""
    timing = data.get("timing")
    if not isinstance(timing, Mapping) or not data.get("streaming", True):
        return None
    first = timing.get("first_token")
    return None if first is None else float(first) + float(timing.get("connect") or 0.0)


def _add_answer(data: Mapping[str, object], attributes: Attributes, versioned: Conventions) -> None:
    for fact, name in (*_UNLESS_NOTHING.items(), ("cache_write_tokens", versioned.cache_write_tokens)):
        value = data.get(fact)
        if isinstance(value, int) and value:
            attributes[name] = value
    reason = data.get("finish_reason")
    if reason:
        attributes[names.FINISH_REASONS] = [str(reason)]
    first = first_chunk(data)
    if first is not None:
        attributes[names.TIME_TO_FIRST_CHUNK] = first
    timing = data.get("timing")
    if isinstance(timing, Mapping) and isinstance(timing.get("attempts"), int):
        attributes[names.ATTEMPTS] = timing["attempts"]


def _add_request(event: ExecutionEvent, attributes: Attributes) -> None:
    data = event.data
    attributes.update(server(data))
    if data.get("url"):
        attributes[names.URL] = _without_secrets(str(data["url"]))
    if event.attempt > 1:
        attributes[names.HTTP_RESEND_COUNT] = event.attempt - 1
    for category in ("connect", "pool"):
        seconds = data.get(category)
        if isinstance(seconds, int | float):
            attributes[f"{names.WAIT}{category}"] = float(seconds)


def _without_secrets(url: str) -> str:
    """No query, no user, no password."""
    scheme, mark, rest = url.partition("?")[0].partition("#")[0].partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{mark}{host.rpartition('@')[2]}{slash}{path}"


def _copy(data: Mapping[str, object], wanted: Mapping[str, str], attributes: Attributes) -> None:
    for fact, name in wanted.items():
        value = data.get(fact)
        if isinstance(value, _PLAIN):
            attributes[name] = value
