"""Runs that are killed and carried on, and what is demanded of them.

    with zygote() as lives:
        trial = Trial(lives, folder, "loop")     what comes of it undisturbed: outcome, history, points
        trial.killed(Doom(at=7))                 one run, killed, carried on, and judged

However often it is killed: the same outcome and the same history; what was kept has not happened again; what was not
kept has happened at most once in each life; and nothing was kept twice, or lost.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from tests.core.durability.crash.points import Doom

__all__ = ["Lives", "Trial", "zygote"]

_ROOT = Path(__file__).resolve().parents[4]
_MOST = 2_000  # lives of one run
_KEPT_AS = {"exec": ("exec", "step", "item"), "call": ("call",), "undo": ("undo",)}
"""What kinds of record say that an effect is not to happen again."""


class Lives:
    """Lets a process live for a while."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.kills = 0

    def live(self, job: dict[str, object]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        report: dict[str, Any] = json.loads(self._process.stdout.readline())
        assert "broken" not in report, report["broken"]
        self.kills += report.get("signal") == 9
        return report


@contextmanager
def zygote() -> Iterator[Lives]:
    path = os.pathsep.join([str(_ROOT), str(_ROOT / "src")])
    with subprocess.Popen(
        [sys.executable, "-m", "tests.core.durability.crash.zygote"],
        cwd=_ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    ) as process:
        try:
            yield Lives(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(30)


@dataclass(frozen=True, slots=True)
class Line:
    """Of a diary: which life, what, of which step."""

    life: int
    what: str
    of: str


def _lines(diary: Path) -> list[Line]:
    split = (line.split(" ", 2) for line in diary.read_text().splitlines())
    return [Line(int(life), what, of) for life, what, of in split]


class Trial:
    """One shape: first as it goes undisturbed, then as often as one likes."""

    def __init__(self, lives: Lives, folder: Path, shape: str, *, loser: str = "\0") -> None:
        self._lives = lives
        self._folder = folder
        self.shape = shape
        self._loser = loser
        self._numbers = count()
        self.undisturbed = self.live("undisturbed", Doom(), 0)
        self._judge_diary("undisturbed")
        diary = _lines(self._diary("undisturbed"))
        self.points = [line.of for line in diary if line.what == "point"]
        """All the places to die at, in the order in which they were come by."""
        self._effects = self._effects_in(diary)
        self._undoing = [line.of for line in diary if line.what == "undid"]

    def carried_by(self, lives: Lives) -> Trial:
        """The same, with what goes undisturbed as it was, and others to live: on another engine, say."""
        twin = copy(self)
        twin._lives = lives
        return twin

    def killed(self, *dooms: Doom, named: str = "run") -> int:
        """A run whose first lives end so, and whose last is not disturbed; how often it was killed."""
        run_id = f"{named}-{next(self._numbers)}"
        report = {}
        before = self._lives.kills
        for life, doom in enumerate([*dooms, Doom()]):
            report = self.live(run_id, doom, life)
            if "signal" not in report:
                break
        self._judge(run_id, report)
        return self._lives.kills - before

    def killed_again_and_again(self, each: int) -> int:
        """Killed at every `each`-th point where it was not killed before, until it ends all the same."""
        return self.killed(*[Doom(each=each)] * _MOST)

    def live(self, run_id: str, doom: Doom, life: int) -> dict[str, Any]:
        job = {
            "shape": self.shape,
            "file": str(self._folder / "runs.db"),
            "run_id": run_id,
            "diary": str(self._diary(run_id)),
            "process": life,
            "at": doom.at,
            "each": doom.each,
        }
        return self._lives.live(job)

    def _diary(self, run_id: str) -> Path:
        return self._folder / f"{run_id}.diary"

    # ---- what is demanded

    def _judge(self, run_id: str, report: dict[str, Any]) -> None:
        deaths = [line.of for line in _lines(self._diary(run_id)) if line.what == "died"]
        where = f"{self.shape}, killed at {deaths}"
        assert report.get("outcome") == self.undisturbed["outcome"], where
        assert self._won(report["history"]) == self._won(self.undisturbed["history"]), where
        try:
            self._judge_diary(run_id)
        except AssertionError as error:
            error.add_note(where)
            raise
        diary = _lines(self._diary(run_id))
        lost = self._effects - self._effects_in(diary)
        assert not lost, f"{where}: {lost} never happened"
        undone = list(dict.fromkeys(line.of for line in diary if line.what == "undid"))
        assert undone == self._undoing, f"{where}: undone in another order"

    def _won(self, history: Sequence[str]) -> list[str]:
        return [step for step in history if not step.startswith(self._loser)]

    def _effects_in(self, diary: Sequence[Line]) -> set[tuple[str, str]]:
        return {(line.what, line.of) for line in diary if line.what[-1] == "-" and not line.of.startswith(self._loser)}

    def _judge_diary(self, run_id: str) -> None:
        """In the order in which it was written."""
        kept: set[tuple[str, str]] = set()
        begun: Counter[Line] = Counter()
        for line in _lines(self._diary(run_id)):
            kind, _, id = line.of.partition(" ")
            if line.what == "had":
                kept.add((kind, id))
            elif line.what == "saved":
                assert (kind, id) not in kept, f"{line.of} was kept twice"
                kept.add((kind, id))
            elif line.what[-1] == "+":
                begun[line] += 1
                assert begun[line] == 1, f"{line.what} {line.of} happened twice in life {line.life}"
                assert not kept & {(kind, line.of) for kind in _KEPT_AS[line.what[:-1]]}, (
                    f"{line.what} {line.of} happened again in life {line.life}, though it was kept"
                )
