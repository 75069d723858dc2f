"""Shows a run as it happens: a live table on a terminal, plain lines elsewhere, nothing when quiet.

    progress_on(sys.stderr)  ──▶  Live    ✓ read      3 ms
                                          ⠹ summarise (12 of 31 items)  1.4 s
                                          the tokens of the model that speaks
                             ──▶  Plain   read: 3 ms

It writes to stderr alone, so that stdout holds the run's output and nothing else.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Final, Protocol, TextIO

from agentflow.cli.failures import keyless
from agentflow.cli.ledger import Ledger, Row, span
from agentflow.core.observability.events import ExecutionEvent

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

__all__ = ["LiveProgress", "PlainProgress", "Progress", "QuietProgress", "progress_on"]

_FULL_DETAIL: Final = 3
"""So many visits of one node get a line each; then a line every `_PAUSE` seconds at most."""
_PAUSE: Final = 2.0
_SAID_LINES: Final = 4


class Progress(Protocol):
    """Entered before each stretch of a run and left after it; `ledger` knows what was done in all of them."""

    ledger: Ledger

    def __enter__(self) -> Progress: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def see(self, event: ExecutionEvent) -> None: ...

    def note(self, line: str) -> None:
        """Say something that is no event."""
        ...


def progress_on(stream: TextIO, *, quiet: bool) -> Progress:
    """The progress that suits a stream: live on a terminal that can move its cursor."""
    if quiet:
        return QuietProgress()
    if stream.isatty():
        from rich.console import Console

        console = Console(file=stream)
        if console.is_terminal and not console.is_dumb_terminal:
            return LiveProgress(console)
    return PlainProgress(stream)


class QuietProgress:
    """Keeps the ledger and says nothing."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self._retried: set[str] = set()

    def __enter__(self) -> QuietProgress:
        self.ledger.begin_stretch()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def see(self, event: ExecutionEvent) -> None:
        self.ledger.see(event, time.monotonic())

    def note(self, line: str) -> None:
        pass

    def _note_retry(self, event: ExecutionEvent) -> None:
        """Once for each reason: eight calls to a server that is down say the same eight times."""
        line = keyless(f"{event.node}: trying again: {event.data.get('message') or event.data.get('error', '')}")
        if line not in self._retried:
            self._retried.add(line)
            self.note(line)


class PlainProgress(QuietProgress):
    """A line for every node that ends, for logs and pipes. Nodes that run again and again are thinned out."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._stream = stream
        self._clock = clock
        self._spoke: dict[str, float] = {}

    def __enter__(self) -> PlainProgress:
        super().__enter__()
        return self

    def see(self, event: ExecutionEvent) -> None:
        now = self._clock()
        row = self.ledger.see(event, now)
        if event.kind == "retry":
            self._note_retry(event)
        elif row is not None and not event.kind.endswith("start") and self._worth_a_line(row, now):
            self._spoke[row.name] = now
            word = "failed after " if row.failed else "is parked after " if row.parked else ""
            self.note(f"{'  ' * row.depth}{row.label}: {word}{span(row.elapsed(now))}{' …' * bool(row.running)}")

    def note(self, line: str) -> None:
        print(line, file=self._stream, flush=True)

    def _worth_a_line(self, row: Row, now: float) -> bool:
        if row.failed:
            return True
        if row.running or row.visits > _FULL_DETAIL:
            return now - self._spoke.setdefault(row.name, row.since) >= _PAUSE
        return True


class LiveProgress(QuietProgress):
    """A table of nodes that is redrawn in place, with the last words of the model that speaks; the table stays."""

    def __init__(self, console: Console) -> None:
        from rich.spinner import Spinner

        super().__init__()
        self._console = console
        self._over = False
        self._spinner = Spinner("dots", style="cyan")
        self._live = self._table()

    def _table(self) -> Live:
        from rich.live import Live

        # What a node prints is moved above the table, unless stdout goes elsewhere: then it must arrive there.
        return Live(
            console=self._console,
            get_renderable=self._picture,
            refresh_per_second=10,
            redirect_stdout=sys.stdout.isatty(),
        )

    def __enter__(self) -> LiveProgress:
        super().__enter__()
        self._over = False
        self._live = self._table()  # that of an earlier stretch stays where it is
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over = True
        self._live.stop()

    def see(self, event: ExecutionEvent) -> None:
        super().see(event)
        if event.kind == "retry":
            self._note_retry(event)

    def note(self, line: str) -> None:
        from rich.text import Text

        self._console.print(Text(line, style="yellow"), soft_wrap=True)

    def _picture(self) -> RenderableType:
        """Called by the thread that redraws, also while rows are added."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        now = time.monotonic()
        table = Table.grid(padding=(0, 1))
        for row in self._fitting(self.ledger.rows):
            table.add_row(self._sign(row), _indented(row), Text(span(row.elapsed(now)), style="dim"))
        said = "" if self._over else _last_lines(self.ledger.said, self._console.width)
        return Group(table, Text(said, style="italic", no_wrap=True, overflow="crop")) if said else table

    def _fitting(self, rows: list[Row]) -> list[Row]:
        """As many rows as the screen has room for: all that run, and of the others the last."""
        room = max(3, self._console.height - _SAID_LINES - 2)
        spare = room - sum(1 for row in rows if row.running)
        resting = [row for row in rows if not row.running]
        shown = {id(row) for row in resting[max(0, len(resting) - spare) :]} if spare > 0 else set()
        return [row for row in rows if row.running or id(row) in shown][-room:]

    def _sign(self, row: Row) -> RenderableType:
        if row.running:
            return "[yellow]■[/yellow]" if self._over else self._spinner
        if row.parked:
            return "[magenta]◷[/magenta]"
        return "[red]✗[/red]" if row.failed else "[green]✓[/green]"


def _indented(row: Row) -> RenderableType:
    from rich.text import Text

    return Text("  " * row.depth + row.label, style="bold" if row.running else "")


def _last_lines(said: str, width: int) -> str:
    """The end of a text, cut into at most `_SAID_LINES` lines; signs that would move the cursor are blanked."""
    lines = []
    for line in said.splitlines():
        clean = "".join(sign if sign.isprintable() else " " for sign in line)
        lines += [clean[at : at + width - 1] for at in range(0, len(clean), max(1, width - 1))]
    return "\n".join(lines[-_SAID_LINES:])
