"""What every command does that runs a flow: it is recorded, kept and watched, and how it ends is said and handed out.

errand = Errand(Handing.of(output, wants_json, quiet), asks=can_ask())
errand.carry_out(flow, lambda course: course.resuming(run_id))

done in 3 ms: 2 node visits (agentflow trace ID)
failed after 3 ms (agentflow trace ID; agentflow runs resume ID)
parked after 3 ms (agentflow trace ID)
it asks: Publish this? (yes/no)
  agentflow answer ID ANSWER
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypeAlias

import click

from agentflow.cli.durable.course import Course, Start
from agentflow.cli.durable.keeping import Keeping
from agentflow.cli.durable.questions import waits_for
from agentflow.cli.failures import PARKED
from agentflow.cli.handing import Handing
from agentflow.cli.interrupt import leave_interrupted
from agentflow.cli.ledger import Ledger, span
from agentflow.cli.load import AnyFlow
from agentflow.cli.outcome import output_key
from agentflow.cli.progress import progress_on
from agentflow.cli.recording import Recording
from agentflow.cli.tracing.amounts import count_of
from agentflow.core import FlowResult
from agentflow.errors import InputError

__all__ = ["Errand"]

Begin: TypeAlias = Callable[[Course], Start]


@dataclass(frozen=True, slots=True)
class Errand:
    """`asks` says whether questions are asked here and now, `records` and `keeps` whether the run is recorded, and kept
    so that it can go on. `file` is another file of runs than the usual one."""

    handing: Handing
    asks: bool
    records: bool = True
    keeps: bool = True
    file: str | Path | None = None

    def carry_out(self, flow: AnyFlow, begin: Begin) -> None:
        """Raises what made the run fail, and click's Exit where it is parked."""
        handing = self.handing
        progress = progress_on(sys.stderr, quiet=handing.quiet)
        recording = Recording(wanted=self.records, file=self.file)
        with handing.alone(), recording, Keeping(self._kept_in(recording), wanted=self.keeps) as keeping:
            course = Course(flow, keeping.engine, progress)
            try:
                result = course.to_its_end(begin(course), asks=self.asks)
            except KeyboardInterrupt:
                self._leave(course, progress.ledger.standing())
            path = course.last_step(done=result.status == "done")
            key = None if result.status == "interrupted" else output_key(flow.graph, result, path)
            goes_on = result.error is not None and course.can_go_on() and not isinstance(result.error, InputError)
        handing.print_json(result, key)
        self._note_troubles(recording, keeping)
        self._tell(result, recording, goes_on, progress.ledger)
        handing.give(result, key)

    def _kept_in(self, recording: Recording) -> str | Path | None:
        """What goes on is kept where it was, whether it is recorded or not."""
        return self.file or recording.kept_in

    def _leave(self, course: Course, standing: str) -> NoReturn:
        """After Ctrl-C."""
        after = "" if course.engine is None else f"; to go on: agentflow runs resume {course.run_id}"
        if course.is_asking:
            leave_interrupted(f"\ninterrupted; the run waits{self.handing.unwritten}{after}")
        leave_interrupted(f"interrupted; {standing}{self.handing.unwritten}{after}")

    def _note_troubles(self, recording: Recording, keeping: Keeping) -> None:
        """What is wrong with the file is said once: recording and keeping have the same."""
        if recording.trouble is not None:
            self.handing.say(f"note: {recording.trouble}")
        elif keeping.trouble is not None:
            self.handing.say(f"note: this run cannot be resumed as it is not, or not wholly, kept: {keeping.trouble}")

    def _tell(self, result: FlowResult, recording: Recording, goes_on: bool, did: Ledger) -> None:
        trace = f"agentflow trace {result.run_id}" if recording.recorded else ""
        took = span(result.duration)
        if result.error is not None:
            resume = f"agentflow runs resume {result.run_id}" if goes_on else ""
            undone = f"; {count_of(did.undone, 'step')} undone" if did.undone else ""
            if trace or resume or undone:
                self.handing.say(f"failed after {took}{undone}{_in_brackets(trace, resume)}")
            raise result.error
        if result.status == "interrupted":
            self.handing.say(f"parked after {took}{_in_brackets(trace)}")
            for line in waits_for(result.interrupts, result.run_id):
                self.handing.say(line)
            raise click.exceptions.Exit(PARKED)
        self.handing.say(f"done in {took}: {did.summary()}{_in_brackets(trace)}")


def _in_brackets(*commands: str) -> str:
    said = [command for command in commands if command]
    return f" ({'; '.join(said)})" if said else ""
