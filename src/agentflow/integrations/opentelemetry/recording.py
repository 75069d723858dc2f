"""What a recorded span is told: attributes when it begins and ends, its status, and what happens in it.

Nothing here is asked of a span that is not recorded, so what is not sampled builds nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from opentelemetry.trace import Span, StatusCode

from agentflow.core.observability.events import ExecutionEvent
from agentflow.integrations.opentelemetry import semconv as names
from agentflow.integrations.opentelemetry.content import Capture, Scribe
from agentflow.integrations.opentelemetry.facts import Attributes, details, outcome
from agentflow.integrations.opentelemetry.semconv import Conventions

__all__ = ["Recorder"]


class Recorder:
    """Writes on spans by the conventions of one version, and content where it is wanted."""

    __slots__ = ("_content", "_scribe", "_versioned")

    def __init__(self, versioned: Conventions, scribe: Scribe, capture: Capture) -> None:
        self._versioned = versioned
        self._scribe = scribe
        self._content = capture.on_spans

    def begun(self, span: Span, what: str, event: ExecutionEvent) -> None:
        attributes = self._cleaned(details(what, event))
        if self._content:
            if what == "model":
                _add_json(attributes, names.INPUT_MESSAGES, self._scribe.input_messages(event.data))
            elif what == "tool" and "arguments" in event.data:
                _add_json(attributes, names.TOOL_ARGUMENTS, self._scribe.structured(event.data["arguments"]))
        span.set_attributes(attributes)

    def ended(self, span: Span, what: str, event: ExecutionEvent, server: Attributes | None) -> None:
        attributes = self._cleaned(outcome(what, event, self._versioned))
        if what == "attempt" and names.HTTP_METHOD in attributes:
            span.update_name(str(attributes[names.HTTP_METHOD]))
        elif what == "model":
            attributes.update(server or {})
            if self._content:
                _add_json(attributes, names.OUTPUT_MESSAGES, self._scribe.output_messages(event.data))
        if event.kind.endswith("_error"):
            span.set_status(StatusCode.ERROR, self._scribe.text(event.data.get("error", "")))
        elif event.kind.endswith("_cancelled"):
            attributes[names.CANCELLED] = True
        elif event.kind.endswith("_interrupted"):
            attributes[names.INTERRUPTED] = True
        span.set_attributes(attributes)

    def happened(self, span: Span, event: ExecutionEvent, when: int) -> None:
        """An event of the span. `when` is nanoseconds since 1970."""
        told = {self._name(fact): value for fact, value in event.data.items()}
        span.add_event(self._name(event.kind), self._facts(told), when)

    def judged(self, span: Span, event: ExecutionEvent) -> None:
        """Feedback."""
        data = event.data
        facts = {
            names.EVALUATION_NAME: "feedback",
            names.EVALUATION_SCORE: data.get("score"),
            names.EVALUATION_LABEL: data.get("label"),
            names.EVALUATION_EXPLANATION: data.get("comment"),
            names.FEEDBACK_SOURCE: data.get("source"),
            names.RUN: event.run_id,
        }
        span.set_attributes(self._facts(facts))

    def _cleaned(self, attributes: Attributes) -> Attributes:
        """Tenants, actions and what servers call their answers are texts of others, and may hold anything."""
        for name, value in attributes.items():
            if isinstance(value, str):
                attributes[name] = self._scribe.text(value)
        return attributes

    def _name(self, name: object) -> str:
        return f"{names.EVENT}{self._scribe.text(name)}"

    def _facts(self, facts: Mapping[str, object]) -> dict[str, str | bool | int | float]:
        written = {name: self._scribe.fact(value) for name, value in facts.items()}
        return {name: value for name, value in written.items() if value is not None}


def _add_json(attributes: Attributes, name: str, value: object) -> None:
    if value is not None:
        attributes[name] = json.dumps(value, ensure_ascii=False)
