"""Whether prompts and answers are written down, and how: off by default, redacted, and never at any length.

    OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=SPAN_ONLY  ──▶  Capture(on_spans=True, on_events=False)

    [{"role": "user", "content": "Hello"}]
        ──▶  '[{"role": "user", "parts": [{"type": "text", "content": "Hello"}]}]'     gen_ai.input.messages

A text is cut before it is redacted, and at white space, so that no half of a key stands at its end.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from agentflow.core.observability.plain import Plain, plain
from agentflow.core.observability.redaction.redactor import Redactor
from agentflow.errors import ConfigurationError
from agentflow.integrations.opentelemetry.semconv import CONTENT_VARIABLE

__all__ = ["Capture", "Scribe", "capture", "capture_from"]

_LONGEST: Final = 16_384  # characters of one text of a prompt or an answer
_ALL: Final = 8 * _LONGEST  # characters of all texts of one of them
_ANY: Final = 2**40
_SHORT: Final = 1_024  # characters of an error's text, or of a fact of an event
_WORD: Final = 4_096  # how far back from a cut white space is looked for
_FINISHED: Final = {"tool_calls": "tool_call"}  # what the conventions call it in a message
_log = logging.getLogger("agentflow.opentelemetry")

_Part: TypeAlias = "dict[str, object]"


@dataclass(frozen=True, slots=True)
class Capture:
    """Where content goes: attributes of spans, events of their own (log records), both, or nowhere."""

    on_spans: bool = False
    on_events: bool = False

    def __bool__(self) -> bool:
        return self.on_spans or self.on_events


_MODES: Final[Mapping[str, Capture]] = {
    "NO_CONTENT": Capture(),
    "SPAN_ONLY": Capture(on_spans=True),
    "EVENT_ONLY": Capture(on_events=True),
    "SPAN_AND_EVENT": Capture(on_spans=True, on_events=True),
}


def capture(word: str) -> Capture:
    """The mode of that name, in any case. Raises ConfigurationError."""
    found = _MODES.get(word.strip().upper())
    if found is None:
        raise ConfigurationError(f"opentelemetry: content must be one of {', '.join(_MODES)}, not {word!r}")
    return found


def capture_from(environ: Mapping[str, str]) -> Capture:
    """What the environment says. A word that means nothing captures nothing, and is warned about."""
    word = environ.get(CONTENT_VARIABLE, "").strip()
    if word and word.upper() not in _MODES:
        _log.warning("%s=%s means nothing, so no content is captured", CONTENT_VARIABLE, word[:40])
    return _MODES.get(word.upper(), Capture())


class Scribe:
    """Writes down what may be seen of texts, messages and facts. Serves any number of threads."""

    __slots__ = ("_finish_reasons", "_redactor")

    def __init__(self, redactor: Redactor, *, finish_reasons: bool) -> None:
        self._redactor = redactor
        self._finish_reasons = finish_reasons

    def text(self, value: object, longest: int = _SHORT) -> str:
        """Redacted, and at most about so long."""
        if type(value) is str and len(value) <= longest:
            return self._redactor.redact(value)
        return self._redactor.redact(_shortened(str(value), longest))

    def input_messages(self, data: Mapping[str, object]) -> Plain:
        """The prompt; None where nothing is known of it."""
        messages = data.get("messages")
        if not isinstance(messages, list | tuple):
            return None
        return self.structured([_message(message) for message in messages if isinstance(message, Mapping)])

    def output_messages(self, data: Mapping[str, object]) -> Plain:
        """The answer, as the one message that it is; None where nothing is known of it."""
        parts = [*_parts(data.get("answer") or ()), *_calls(data.get("tool_calls"))]
        if not parts:
            return None
        message: dict[str, object] = {"role": "assistant", "parts": parts}
        if self._finish_reasons:
            reason = str(data.get("finish_reason") or "stop")
            message["finish_reason"] = _FINISHED.get(reason, reason)
        return self.structured([message])

    def structured(self, value: object) -> Plain:
        """What JSON can hold of it, each text redacted and of bounded length."""
        return self._redactor.redact_json(_Shortening().of(plain(value, longest=_ANY)))

    def fact(self, value: object) -> str | bool | int | float | None:
        """A fact of an event as the value of an attribute: what is nested becomes JSON."""
        if value is None or isinstance(value, bool | float):
            return value
        if isinstance(value, int):
            return value if -(2**63) <= value < 2**63 else f"an integer of {value.bit_length()} bits"
        if isinstance(value, str):
            return self.text(value)
        return self.text(json.dumps(self.structured(value), ensure_ascii=False))


def _shortened(text: str, longest: int) -> str:
    if len(text) <= longest:
        return text
    end = max((text.rfind(space, max(0, longest - _WORD), longest) for space in (" ", "\n", "\t")), default=-1)
    return f"{text[: end if end > 0 else max(0, longest - _WORD)]}… ({len(text):,} characters)"


class _Shortening:
    """Cuts the texts of one value: each of them, and all of them together."""

    def __init__(self) -> None:
        self._left = _ALL

    def of(self, value: Plain) -> Plain:
        if isinstance(value, str):
            text = _shortened(value, min(_LONGEST, self._left))
            self._left = max(0, self._left - len(text))
            return text
        if isinstance(value, dict):
            return {name: self.of(item) for name, item in value.items()}
        return [self.of(item) for item in value] if isinstance(value, list) else value


def _message(message: Mapping[object, object]) -> _Part:
    return {"role": str(message.get("role", "user")), "parts": list(_parts(message.get("content")))}


def _parts(content: object) -> Iterator[_Part]:
    """A text is one part; of a list each item is one. What is no text keeps its own type, as a part of that type."""
    items = content if isinstance(content, list | tuple) else [] if content is None else [content]
    for item in items:
        if isinstance(item, Mapping) and "type" in item and item["type"] != "text":
            yield {str(name): value for name, value in item.items()}
        elif isinstance(item, Mapping):
            yield {"type": "text", "content": item.get("content", item.get("text", ""))}
        else:
            yield {"type": "text", "content": item if isinstance(item, str) else str(item)}


def _calls(calls: object) -> Iterator[_Part]:
    for call in calls if isinstance(calls, list | tuple) else ():
        if isinstance(call, Mapping):
            known = {"id": call.get("id", call.get("call_id")), "name": call.get("name", call.get("tool"))}
            yield {"type": "tool_call", **known, "arguments": call.get("arguments")}
