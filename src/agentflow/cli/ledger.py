"""Events → what stands where: for every node how often it ran, how long, and whether it is at work. No I/O.

    node_start outer/each#1 (5 items), node_success outer/each#1/0, …/1   →   each: running, 2 of 5 items done

One row a node, whatever the number of its visits; the items of an `Each` are counted on its row.
"""

from __future__ import annotations

from dataclasses import dataclass

from agentflow.cli.tracing.amounts import count_of
from agentflow.core.observability.events import ExecutionEvent

__all__ = ["Ledger", "Row", "span"]

_TAIL = 4000


@dataclass(slots=True)
class Row:
    """One node. `seconds` adds up finished visits, by the events' own clock; `since` and `began` are when the running
    ones began, on the caller's clock and on that one: a reader that came late must not count as the node's time. Where
    the run `goes_on`, items that were done before are not begun again, and nothing is told of them."""

    name: str
    depth: int
    visits: int = 0
    running: int = 0
    seconds: float = 0.0
    since: float = 0.0
    began: float = 0.0
    items: int = 0
    expected: int = 0
    begun: int = 0
    goes_on: bool = False
    failed: bool = False
    parked: bool = False

    @property
    def finished(self) -> bool:
        return self.visits > 0 and not self.running and not self.failed and not self.parked

    def elapsed(self, now: float) -> float:
        return self.seconds + (max(0.0, now - self.since) if self.running else 0.0)

    @property
    def label(self) -> str:
        """The name with what is worth knowing beside it: `write ×3`, `summarise (12 of 31 items)`."""
        times = f" ×{self.visits}" if self.visits > 1 else ""
        items = self._items_left() if self.goes_on and self.begun < self.expected else self._items_done()
        return f"{self.name}{times}{f' ({items})' if items else ''}"

    def _items_done(self) -> str:
        count = max(self.items, self.expected)
        return f"{f'{self.items} of ' * (self.items < count)}{count_of(count, 'item')}" if count else ""

    def _items_left(self) -> str:
        """Those that the journal has are known when all others have begun."""
        if not self.finished:
            return f"{count_of(self.items, 'item')} so far" if self.items else ""
        from_journal = self.expected - self.begun
        return (
            f"{count_of(self.expected, 'item')}, {from_journal:,} from the journal"
            if self.begun
            else (f"{count_of(from_journal, 'item')} from the journal")
        )


class Ledger:
    """Takes the events of one run in order. `now` is any monotonic clock's time in seconds."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, ...], Row] = {}
        self._said: dict[str, str] = {}
        self._goes_on = False
        self.node_visits = 0
        self.items = 0
        self.model_calls = 0
        self.output_tokens = 0
        self.undone = 0

    @property
    def said(self) -> str:
        """The end of what a model is saying, until its node has finished; of several the one that began first."""
        return next(iter(self._said.copy().values()), "")

    @property
    def rows(self) -> list[Row]:
        """In the order in which the nodes first ran, nested ones below their flow."""
        return [row for _, row in sorted(self._rows.items(), key=lambda entry: self._order(entry[0]))]

    def see(self, event: ExecutionEvent, now: float) -> Row | None:
        """Take one event; the row it changed, if any."""
        match event.kind:
            case "node_start" | "flow_start":
                self._count(event, 1)
                return self._started(event, now)
            case "node_success" | "flow_success" | "node_error" | "flow_error":
                return self._ended(event, now, failed=event.kind.endswith("error"))
            case "node_interrupted" | "flow_interrupted":
                self._count(event, -1)  # it is done when it has been gone on with
                return self._ended(event, now, parked=True)
            case "resume":
                self._goes_on = True
            case "compensate_success":
                self.undone += 1
            case "chunk":
                self._heard(event)
            case "model_success":
                self.model_calls += 1
                tokens = event.data.get("output_tokens")
                self.output_tokens += tokens if isinstance(tokens, int) else 0
        return None

    def begin_stretch(self) -> None:
        """The run goes on: what has been done is counted, and stands in no row any more."""
        self._rows.clear()
        self._said.clear()
        self._goes_on = False

    def summary(self) -> str:
        """What was done, in a few words, and counted as `agentflow trace` counts it."""
        parts = [count_of(self.node_visits, "node visit")]
        if self.items:
            parts.append(count_of(self.items, "item"))
        if self.model_calls:
            parts.append(count_of(self.model_calls, "model call"))
        if self.output_tokens:
            parts.append(f"{self.output_tokens:,} tokens written")
        return ", ".join(parts)

    def standing(self) -> str:
        """Which nodes had finished and which had not, for a run that was interrupted."""
        finished = [row.label for row in self.rows if row.finished]
        under_way = [row.label for row in self.rows if row.running]
        return f"finished: {', '.join(finished) or 'nothing'}; under way: {', '.join(under_way) or 'nothing'}"

    def _count(self, event: ExecutionEvent, by: int) -> None:
        """A flow in a flow is no visit of its own: its nodes are."""
        if event.kind.startswith("node"):
            is_item = event.path.rpartition("/")[2].isdigit()
            self.items += by * is_item
            self.node_visits += by * (not is_item)

    def _started(self, event: ExecutionEvent, now: float) -> Row | None:
        names, beyond = _places(event.path)
        if beyond:
            self._begun(names, beyond)
            return None
        if not names:
            return None
        row = self._rows.setdefault(names, Row(names[-1], len(names) - 1, goes_on=self._goes_on))
        if not row.running:
            row.since, row.began = now, event.at
        row.visits += 1
        row.running += 1
        items = event.data.get("items")
        row.expected += items if isinstance(items, int) else 0
        row.failed = row.parked = False
        return row

    def _begun(self, names: tuple[str, ...], beyond: int) -> None:
        row = self._rows.get(names)
        if row is not None:
            row.begun += beyond == 1

    def _ended(self, event: ExecutionEvent, now: float, *, failed: bool = False, parked: bool = False) -> Row | None:
        self._said.pop(event.path, None)
        names, beyond = _places(event.path)
        row = self._rows.get(names)
        if row is None:
            return None
        if beyond:
            row.items += beyond == 1 and not failed and not parked
            return row
        row.running -= 1
        row.failed, row.parked = failed, parked
        if not row.running:
            row.seconds += event.at - row.began
        return row

    def _heard(self, event: ExecutionEvent) -> None:
        before = "" if event.data.get("restart") else self._said.get(event.path, "")
        said = before + str(event.data.get("content", ""))
        self._said[event.path] = said[-_TAIL:]

    def _order(self, names: tuple[str, ...]) -> tuple[int, ...]:
        """A row follows its flow's row, among its siblings in order of appearance."""
        seen = list(self._rows)
        return tuple(
            seen.index(names[:depth]) if names[:depth] in self._rows else -1 for depth in range(1, len(names) + 1)
        )


def _places(path: str) -> tuple[tuple[str, ...], int]:
    """The names from the flow down to a node, and how it stands to an item of an `Each`.

    0: no item. 1: it is the whole work of an item, whose `Each` the names then lead to. 2: it is a part of that work.
    """
    names: list[str] = []
    segments = path.split("/")[1:]
    for at, segment in enumerate(segments):
        name, mark, _ = segment.rpartition("#")
        if not mark:
            return tuple(names), 1 if len(segments) - at <= 2 else 2
        names.append(name)
    return tuple(names), 0


def span(seconds: float) -> str:
    """A duration as people read it."""
    if seconds < 0.95:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"
