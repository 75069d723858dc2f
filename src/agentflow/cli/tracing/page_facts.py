"""What a page knows of one line: shown beside the waterfall when its name is chosen, without a script.

Texts are cut, each and all together, so that a run with megabytes of prompts is still a page; `agentflow trace --json`
cuts nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Final

from agentflow.cli.tracing.amounts import count_of, dollars, duration, per_cent, tokens
from agentflow.cli.tracing.categories import in_order
from agentflow.cli.tracing.markup import Html, element, joined
from agentflow.cli.tracing.notes import note_of
from agentflow.cli.tracing.page_bars import colour_class, share_bar
from agentflow.cli.tracing.page_waterfall import anchor
from agentflow.cli.tracing.rows import Group, Row, label
from agentflow.core.observability.trace.tree import Span

__all__ = ["Facts"]

_LONGEST: Final = 20_000
_ALL_TEXT: Final = 4_000_000
_SHORT: Final = 300
_MOST_MARKS: Final = 50
_SLOWEST: Final = 20
_ELSEWHERE: Final = frozenset(
    {"graph", "messages", "answer", "tool_calls", "arguments", "error", "error_type", "timing"}
)
"""What has a place of its own, or stands in the breakdown already."""
_WORDS: Final = {"messages": "prompt", "answer": "answer", "tool_calls": "tools called", "arguments": "arguments"}


class Facts:
    """Writes the details of lines, and counts how much text a page has had."""

    def __init__(self) -> None:
        self._room = _ALL_TEXT

    def of(self, row: Row) -> Html:
        """A drawer. Its close button leads back to its line."""
        thing = row.thing
        name = anchor(thing)
        inside = self._group(thing) if isinstance(thing, Group) else joined(*(self._span(each) for each in row.spans))
        return element(
            "aside",
            element("a", "×", href=f"#r-{name}", class_="close", aria_label="close the details", title="close (Esc)"),
            inside,
            id=name,
            class_="facts",
            tabindex=-1,
            aria_label=f"details of {row.label}",
        )

    def _span(self, span: Span) -> Html:
        return joined(
            element("h3", label(span), " ", element("small", f"{span.what}, {span.status}")),
            element("p", self._text(span.path, _SHORT), class_="path"),
            self._error(span),
            self._times(span),
            element("dl", self._attributes(span)) if span.data else None,
            self._marks(span),
            self._attempts(span),
            *self._contents(span),
        )

    def _error(self, span: Span) -> Html | None:
        if span.error is None:
            return None
        kind = span.data.get("error_type")
        return element("pre", f"{kind}: " if kind else "", self._text(span.error), class_="error")

    def _times(self, span: Span) -> Html:
        took = f"{duration(span.duration)}, from {duration(span.start)} to {duration(span.end)}"
        whole = sum(span.breakdown.values())
        rows = [
            element(
                "tr",
                element("td", element("i", class_=f"dot {colour_class(each.name)}"), each.word),
                element("td", duration(seconds), class_="number"),
                element("td", per_cent(seconds, whole), class_="number"),
            )
            for each, seconds in in_order(span.breakdown)
        ]
        return joined(
            element("p", took, class_="took"),
            share_bar(span.breakdown) if rows else None,
            element("table", element("tbody", rows), class_="parts") if rows else None,
        )

    def _attributes(self, span: Span) -> Iterator[Html]:
        for name, value in span.data.items():
            if name in _ELSEWHERE or value is None:
                continue
            said = dollars(value) if name == "cost" and isinstance(value, float) else self._text(_plain(value), 2000)
            yield element("dt", self._text(name, _SHORT))
            yield element("dd", said)

    def _marks(self, span: Span) -> Html | None:
        notes = [(mark.at, note) for mark in span.marks[:_MOST_MARKS] if (note := note_of(mark)) is not None]
        if not notes:
            return None
        more = len(span.marks) - _MOST_MARKS
        lines = [
            element(
                "li",
                element("time", f"at {duration(at)}"),
                self._text(note.text, 1000),
                class_="bad" if note.bad else None,
            )
            for at, note in notes
        ]
        return joined(
            element("h4", "what happened in it"),
            element("ul", lines, class_="marks"),
            element("p", f"and {count_of(more, 'event')} more") if more > 0 else None,
        )

    def _attempts(self, span: Span) -> Html | None:
        attempts = [child for child in span.children if child.what == "attempt"]
        if not attempts:
            return None
        rows = [
            element(
                "tr",
                element("td", child.name),
                element("td", child.status if child.data.get("status") is None else str(child.data["status"])),
                element("td", duration(child.duration), class_="number"),
                element("td", self._text(child.error or str(child.data.get("url") or ""), 500)),
            )
            for child in attempts[:_MOST_MARKS]
        ]
        head = element("tr", *(element("th", word, scope="col") for word in ("attempt", "status", "time", "said")))
        return joined(
            element("h4", "attempts"), element("table", element("thead", head), element("tbody", rows), class_="parts")
        )

    def _contents(self, span: Span) -> Iterator[Html]:
        for name, word in _WORDS.items():
            value = span.data.get(name)
            if value is None or value == []:
                continue
            yield element("h4", word)
            if name == "messages" and isinstance(value, list):
                for message in value:
                    role, content = _message(message)
                    yield element("p", self._text(role, _SHORT), class_="role")
                    yield element("pre", self._text(content))
            else:
                yield element("pre", self._text(_plain(value)))

    def _group(self, group: Group) -> Html:
        total = group.totals()
        said = f"{duration(group.usual)} each in the middle, {duration(group.longest)} at most"
        used = (
            f"{count_of(total.calls, 'model call')}, {tokens(total.input_tokens)} tokens read and "
            f"{tokens(total.output_tokens)} written, {dollars(total.known_cost)}"
        )
        slowest = sorted(group.spans, key=lambda span: -span.duration)[:_SLOWEST]
        rows = [
            element(
                "tr",
                element("td", self._text(label(span), _SHORT)),
                element("td", duration(span.start), class_="number"),
                element("td", duration(span.duration), class_="number"),
                element("td", span.status),
            )
            for span in slowest
        ]
        head = element("tr", *(element("th", word, scope="col") for word in ("which", "began", "took", "status")))
        return joined(
            element("h3", f"{len(group.spans):,} × {group.name}", " ", element("small", group.what)),
            element("p", said + (f", {group.failed} failed" if group.failed else ""), class_="took"),
            element("p", used) if total.calls else None,
            element("h4", "the slowest of them"),
            element("table", element("thead", head), element("tbody", rows), class_="parts"),
        )

    def _text(self, words: str, longest: int = _LONGEST) -> str:
        most = longest if self._room > 0 else _SHORT
        self._room -= min(len(words), most)
        return words if len(words) <= most else f"{words[:most]} … and {len(words) - most:,} more signs"


def _message(message: object) -> tuple[str, str]:
    if not isinstance(message, Mapping):
        return "", _plain(message)
    return str(message.get("role", "")), _plain(message.get("content", ""))


def _plain(value: object) -> str:
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False, indent=1 if isinstance(value, list) else None, default=str)
    except (ValueError, TypeError, RecursionError):
        return str(value)
