"""Every shape of flow, killed with `kill -9` at every boundary of every phase, and carried on by another process.

Set AGENTFLOW_CRASH_MATRIX=full to kill `Each` with 100 items everywhere, and not at a sample of places.
"""

from __future__ import annotations

import os
import random
import re
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from tests.conftest import Tell
from tests.core.durability.crash.harness import Lives, Trial, zygote
from tests.core.durability.crash.points import Doom
from tests.core.durability.crash.shapes import SHAPES

pytestmark = [pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked"), pytest.mark.timeout(600)]

LOSERS = {"any": "any/slow#"}
FULL = os.environ.get("AGENTFLOW_CRASH_MATRIX") == "full"
HUNDREDS = [name for name in SHAPES if name.startswith("each")]
SMALL = [name for name in SHAPES if name not in HUNDREDS]
SAMPLE = 3  # places of each sort


@pytest.fixture(scope="module")
def lives() -> Iterator[Lives]:
    with zygote() as lives:
        yield lives


@pytest.fixture
def trial(lives: Lives, tmp_path: Path, request: pytest.FixtureRequest) -> Trial:
    return Trial(lives, tmp_path, request.param, loser=LOSERS.get(request.param, "\0"))


@pytest.mark.parametrize("trial", SMALL, indirect=True)
def test_a_run_killed_anywhere_is_carried_on_as_if_nothing_had_happened(trial: Trial, tell: Tell) -> None:
    begun = time.monotonic()
    kills = sum(trial.killed(Doom(at=number + 1)) for number in range(len(trial.points)))
    assert kills >= len(trial.points) * 0.9, "most of the places are come by again"
    took = time.monotonic() - begun
    tell([f"crash matrix: {trial.shape}: {kills} kills at {len(trial.points)} places, {took:.1f} s"])


@pytest.mark.parametrize("trial", HUNDREDS, indirect=True)
def test_a_run_over_a_hundred_items_killed_anywhere_loses_none_of_them(trial: Trial, tell: Tell) -> None:
    begun = time.monotonic()
    places = range(len(trial.points)) if FULL else sampled(trial.points)
    kills = sum(trial.killed(Doom(at=number + 1)) for number in places)
    assert kills == len(places)
    took = time.monotonic() - begun
    tell([f"crash matrix: {trial.shape}: {kills} kills at {len(places)} of {len(trial.points)} places, {took:.1f} s"])


@pytest.mark.parametrize("trial", SHAPES, indirect=True)
def test_a_run_killed_again_and_again_gets_to_its_end(trial: Trial, tell: Tell) -> None:
    begun = time.monotonic()
    stride = (1 if FULL else 5) if trial.shape in SMALL else 97 if FULL else len(trial.points) // 4
    kills = trial.killed_again_and_again(stride)
    tell([f"crash matrix: {trial.shape}: one run killed {kills} times, {time.monotonic() - begun:.1f} s"])


def sampled(points: Sequence[str]) -> list[int]:
    """Some of each sort: places that differ in numbers alone are of one sort."""
    sorts = defaultdict(list)
    for index, name in enumerate(points):
        sorts[re.sub(r"\d+", "0", name)].append(index)
    chance = random.Random(6)
    return sorted(place for places in sorts.values() for place in chance.sample(places, min(SAMPLE, len(places))))
