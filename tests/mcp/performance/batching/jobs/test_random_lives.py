"""Whatever goes wrong, in whatever order: deaths at random edges, lost calls, failures, mangled answers."""

from __future__ import annotations

import asyncio
import random
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.batch_api_server import Trouble
from tests.support.batch_bench import BatchBench

PASSING = st.sampled_from(
    [Trouble.LOST_BEFORE, Trouble.LOST_AFTER, Trouble.FAILS_BEFORE, Trouble.FAILS_AFTER, Trouble.BUSY, Trouble.LATE]
)
CALLS = ("upload", "find_upload", "create", "find", "check", "results")
TROUBLES = st.dictionaries(st.sampled_from(CALLS), st.lists(PASSING, max_size=3), max_size=4)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    model=st.sampled_from(["openai", "anthropic", "google", "google-file", "moonshot"]),
    requests=st.integers(1, 7),
    part=st.integers(1, 4),
    deaths=st.lists(st.integers(0, 60), max_size=4),
    troubles=TROUBLES,
    failing=st.dictionaries(st.integers(0, 6), st.integers(1, 2), max_size=3),
    seed=st.integers(0, 999),
)
def test_nothing_is_billed_twice_and_nothing_is_lost(
    model: str,
    requests: int,
    part: int,
    deaths: list[int],
    troubles: dict[str, list[Trouble]],
    failing: dict[int, int],
    seed: int,
) -> None:
    """The first tries of some requests fail in passing; each call may fail up to three times in a row."""
    asked = [f"question {number}" for number in range(requests)]
    tries = {f"question {number}": times for number, times in failing.items()}

    async def live(folder: Path) -> tuple[list[Any], BatchBench]:
        kind, _, in_file = model.partition("-")
        options: Any = {"google": {"batch_inline": 0}} if in_file else {}
        async with BatchBench(folder, seed=seed, **options) as bench:
            bench.server.trouble.update({call: list(each) for call, each in troubles.items()})
            bench.server.fails = lambda prompt, time: 500 if time < tries.get(prompt, 0) else None
            dice = random.Random(seed)
            bench.server.mangle = lambda lines: dice.sample([*lines, *lines[:1]], len(lines) + len(lines[:1]))
            policy = replace(bench.policy, part_requests=part, attempts=5, poll_first=120.0, poll_most=300.0)
            results, _ = await bench.through_lives(asked, model=kind, deaths=deaths, policy=policy)
            return results, bench

    with tempfile.TemporaryDirectory() as folder:
        results, bench = asyncio.run(live(Path(folder)))
    assert sorted(result.index for result in results) == list(range(requests))
    assert {result.index: result.text for result in results} == {n: f"re: {each}" for n, each in enumerate(asked)}
    assert bench.server.billed == dict.fromkeys(asked, 1)
