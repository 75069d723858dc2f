"""An observer that writes what happens in runs as records of standard logging.

    with observe(RunLog()), configure_logging(json=True):
        await flow.run({"topic": "tides"})

    INFO     agentflow.runs: flow_success article in 3.21 s
    WARNING  agentflow.runs: retry article/write#1, 429 from the provider: …

Each record bears the event's time, run, node, path and span, and as extras `event` (the kind), `seconds`, `attempt` and
`data`. Prompts and answers are not in it, also where another observer wants them, so that events bear them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

from agentflow.core.observability.events import ExecutionEvent
from agentflow.core.observability.kinds import CONTENT, KINDS

__all__ = ["RunLog", "level_of"]

_INFO: Final = frozenset(
    "flow_start flow_success flow_cancelled model_success model_cancelled tool_success retry hedge output_retry "
    "feedback flow_interrupted interrupt timer resume fork cancel compensate_success compensate_cancelled".split()
)
_WARNING: Final = frozenset("node_error model_error tool_error tool_refused rejected fallback compensate_error".split())
_TELLING: Final = (
    "from",
    "to",
    "state",
    "seconds",
    "delay",
    "status",
    "cost",
    "score",
    "label",
    "interrupt",
    "stretch",
    "steps",
    "forked_from",
)


class RunLog:
    """Writes events to `logger`. What begins and ends well within a flow is said at DEBUG, trouble from WARNING on."""

    def __init__(self, logger: logging.Logger | str = "agentflow.runs") -> None:
        self._logger = logging.getLogger(logger) if isinstance(logger, str) else logger

    def observe(self, event: ExecutionEvent) -> None:
        level = level_of(event)
        if event.kind == "chunk" or not self._logger.isEnabledFor(level):
            return  # a piece of an answer is content
        record = self._logger.makeRecord(
            self._logger.name, level, __file__, 0, _sentence(event), (), None, extra=_extras(event)
        )
        record.created = event.time
        self._logger.handle(record)


def level_of(event: ExecutionEvent) -> int:
    """How much an event matters."""
    kind = event.kind
    if kind in _INFO:
        return logging.INFO
    if kind in _WARNING:
        return logging.WARNING
    if kind == "flow_error":
        return logging.ERROR
    if kind == "breaker_state":
        return logging.INFO if event.data.get("to") == "closed" else logging.WARNING
    if kind == "alert":
        return _alert_level(event.data)
    return logging.DEBUG if kind in KINDS else logging.INFO


def _alert_level(data: Mapping[str, object]) -> int:
    if data.get("state") != "firing":
        return logging.INFO
    return logging.ERROR if data.get("severity") == "critical" else logging.WARNING


def _extras(event: ExecutionEvent) -> dict[str, object]:
    extras: dict[str, object] = {
        "run_id": event.run_id,
        "node": event.node,
        "path": event.path,
        "span": event.span,
        "tenant": event.data.get("tenant") or "",
        "event": event.kind,
        "data": {name: value for name, value in event.data.items() if name not in CONTENT},
    }
    if event.duration is not None:
        extras["seconds"] = event.duration
    if event.attempt != 1:
        extras["attempt"] = event.attempt
    return extras


def _sentence(event: ExecutionEvent) -> str:
    """What happened, where, how long it took, and what mattered."""
    data = event.data
    about = [str(data[name]) for name in ("model", "tool", "guard", "rule") if name in data]
    words = [event.kind, event.path, *(word for word in about if word != event.path)]
    if event.duration is not None:
        words.append(f"in {event.duration:.2f} s")
    words += [f"{name}={data[name]}" for name in _TELLING if data.get(name) is not None]
    sentence = " ".join(word for word in words if word)
    error = data.get("error") or data.get("problem") or data.get("reason")
    return f"{sentence}: {error}" if error else sentence
