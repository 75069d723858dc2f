"""Flows of every shape on a real PostgreSQL: killed in the middle, and carried on by another process.

What a run comes to, its history, and what may happen twice are judged as in the crash matrix on SQLite, against the
same undisturbed run: the engines keep the same promises.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import ROOT, Tell
from tests.core.durability.crash.harness import Lives, Trial, zygote
from tests.core.durability.crash.points import Doom
from tests.core.durability.crash.shapes import SHAPES
from tests.support.postgres_server import PostgresServer, running
from tests.support.programs import surroundings

pytestmark = [pytest.mark.service, pytest.mark.timeout(600)]

LOSERS = {"any": "any/slow#"}
AT_ONCE = 2  # processes
PATIENCE = 120.0


class PostgresLives(Lives):
    """Each life is a process of its own: what DBOS starts does not survive a fork."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.kills = 0

    def live(self, job: dict[str, object]) -> dict[str, Any]:
        words = [sys.executable, "-m", "tests.support.dbos_life", json.dumps({**job, "url": self._url})]
        path = os.pathsep.join([str(ROOT), str(ROOT / "src")])
        ran = subprocess.run(
            words,
            cwd=ROOT,
            env=surroundings() | {"PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        if ran.returncode == -9:
            self.kills += 1
            return {"signal": 9}
        assert ran.returncode == 0, ran.stderr
        told: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
        return told


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with running() as server:
        server.create("runs")
        yield server


def test_a_run_of_every_shape_is_carried_on_by_another_process(
    server: PostgresServer, tmp_path: Path, tell: Tell
) -> None:
    with zygote() as undisturbed:
        trials = []
        for shape in SHAPES:
            (folder := tmp_path / shape).mkdir()
            trials.append(Trial(undisturbed, folder, shape, loser=LOSERS.get(shape, "\0")))

    def killed(trial: Trial) -> int:
        where = random.Random(trial.shape).randrange(len(trial.points) // 4, 3 * len(trial.points) // 4)
        return trial.carried_by(PostgresLives(server.url("runs"))).killed(Doom(at=where), named=trial.shape)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        kills = sum(pool.map(killed, trials))

    tell([f"on PostgreSQL: {kills} kills of {len(trials)} shapes"])
    assert kills >= len(trials) - 1, "a branch that is cut off may not come by its point"
