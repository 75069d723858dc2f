"""The event with a model call's prompt and answer: gen_ai.client.inference.operation.details, a log record.

It carries what the call's span does and belongs to it, and content in its own structure, not as JSON. Whoever keeps
prompts out of a trace's store may send it elsewhere.
"""

from __future__ import annotations

import time

from opentelemetry._logs import Logger, SeverityNumber

from agentflow.core.observability.events import ExecutionEvent
from agentflow.integrations.opentelemetry import semconv as names
from agentflow.integrations.opentelemetry.content import Scribe
from agentflow.integrations.opentelemetry.facts import outcome, request
from agentflow.integrations.opentelemetry.open_spans import OpenSpan
from agentflow.integrations.opentelemetry.semconv import Conventions

__all__ = ["Details"]


class Details:
    """Emits one event for each model call that has ended and that was sampled."""

    def __init__(self, logger: Logger, versioned: Conventions, scribe: Scribe) -> None:
        self._logger = logger
        self._versioned = versioned
        self._scribe = scribe

    def ended(self, event: ExecutionEvent, entry: OpenSpan) -> None:
        content = {
            names.INPUT_MESSAGES: self._scribe.input_messages(entry.data),
            names.OUTPUT_MESSAGES: self._scribe.output_messages(event.data),
        }
        self._logger.emit(
            timestamp=time.time_ns(),
            context=entry.context,
            severity_number=SeverityNumber.INFO,
            event_name=names.DETAILS_EVENT,
            attributes={
                **request(entry.data),
                **outcome("model", event, self._versioned),
                **(entry.server or {}),
                **{name: value for name, value in content.items() if value is not None},
            },
        )
