"""Durations and tokens as metrics: what is measured does not depend on what is sampled.

    model_success   ──▶  gen_ai.client.operation.duration, …token.usage, …time_to_first_chunk
    chunk           ──▶  …time_per_output_chunk, where chunks are wanted
    flow_success    ──▶  gen_ai.invoke_workflow.duration
    tool_success    ──▶  gen_ai.execute_tool.duration

What was cancelled is not measured: it says when somebody lost interest, and nothing of how long it takes. Nor is what
was parked, which has not ended. Each measurement is made in the context of its span, so that a sampled one becomes the
metric's exemplar.
"""

from __future__ import annotations

from typing import Final

from opentelemetry.context import Context
from opentelemetry.metrics import Histogram, Meter

from agentflow.core.observability.events import ExecutionEvent
from agentflow.integrations.opentelemetry import semconv as names
from agentflow.integrations.opentelemetry.facts import Attributes, error_type, first_chunk, request
from agentflow.integrations.opentelemetry.open_spans import OpenSpan
from agentflow.integrations.opentelemetry.semconv import SECONDS_BUCKETS, TOKEN_BUCKETS, Conventions

__all__ = ["Measures"]

_CUT_SHORT: Final = ("_cancelled", "_interrupted")
_UNMEASURED: Final = ("node", "compensate", "attempt")  # the conventions have no metric of theirs


class Measures:
    """The instruments, made once."""

    def __init__(self, meter: Meter, versioned: Conventions) -> None:
        def seconds(name: str, says: str) -> Histogram:
            return meter.create_histogram(name, "s", says, explicit_bucket_boundaries_advisory=SECONDS_BUCKETS)

        self._operation = seconds(versioned.operation_duration, "GenAI operation duration.")
        self._first_chunk = seconds(versioned.time_to_first_chunk, "Time to receive the first chunk.")
        self._per_chunk = seconds(versioned.time_per_output_chunk, "Time between one chunk and the next.")
        self._workflow = seconds(versioned.workflow_duration, "GenAI workflow duration.")
        self._tool = seconds(versioned.tool_duration, "The duration of a single tool execution.")
        self._tokens = meter.create_histogram(
            versioned.token_usage,
            "{token}",
            "Number of input and output tokens used.",
            explicit_bucket_boundaries_advisory=TOKEN_BUCKETS,
        )

    def ended(self, what: str, event: ExecutionEvent, entry: OpenSpan | None) -> None:
        if what in _UNMEASURED or event.duration is None or event.kind.endswith(_CUT_SHORT):
            return
        context = None if entry is None else entry.context
        failed = error_type(what, event)
        attributes: Attributes = {} if failed is None else {names.ERROR_TYPE: failed}
        if what == "model":
            self._model(event, attributes, entry, context)
        elif what == "flow":
            attributes[names.WORKFLOW_NAME] = event.node or event.path
            self._workflow.record(event.duration, attributes, context)
        elif what == "tool":
            attributes[names.OPERATION] = names.EXECUTE_TOOL
            attributes[names.TOOL_NAME] = str(event.data.get("tool", ""))
            attributes[names.TOOL_TYPE] = "function"
            self._tool.record(event.duration, attributes, context)

    def chunk(self, event: ExecutionEvent, entry: OpenSpan) -> None:
        """One piece of a stream; the first one, and the first after a new beginning, start the count."""
        before, entry.chunk_at = entry.chunk_at, event.at
        if before is None or event.data.get("restart"):
            return
        attributes = {**request(entry.data), **(entry.server or {})}
        self._per_chunk.record(event.at - before, attributes, entry.context)

    def _model(
        self, event: ExecutionEvent, failure: Attributes, entry: OpenSpan | None, context: Context | None
    ) -> None:
        data = event.data
        known = data if entry is None else {**entry.data, **data}
        attributes = request(known)
        if data.get("response_model"):
            attributes[names.RESPONSE_MODEL] = str(data["response_model"])
        if entry is not None and entry.server is not None:
            attributes.update(entry.server)
        self._operation.record(event.duration or 0.0, {**attributes, **failure}, context)
        first = first_chunk(data)
        if first is not None and not failure:
            self._first_chunk.record(first, attributes, context)
        for direction in ("input", "output"):
            tokens = data.get(f"{direction}_tokens")
            if isinstance(tokens, int) and tokens:
                self._tokens.record(tokens, {**attributes, names.TOKEN_TYPE: direction}, context)
