"""The digest of many documents, killed at random moments and resumed: the same digest, and nothing asked twice.

    a life: agentflow run examples/digest.py docs ──asks──▶ Lab, which keeps a diary
              ✗ kill -9, after so many lines of it and a moment more
    a life: agentflow runs resume last              … and so on, until one comes to its end

What was answered and kept when a process died is never asked again; what is asked again was under way then.
AGENTFLOW_DIGEST_SEEDS=200 tries so many runs instead of a few.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.support.digesting import Digest, Doom
from tests.support.lab import Lab, Line

from agentflow.core.observability.store import RunReader

SEEDS = int(os.environ.get("AGENTFLOW_DIGEST_SEEDS", "15"))
TOGETHER = 3  # runs of one test
DEATHS = 3
WIDEST = 13  # as many questions may be under way: one for the overview and each of twelve documents


@dataclass(frozen=True, slots=True)
class Undisturbed:
    """What the digest is, what was asked for it, and what that cost in USD."""

    text: str
    prompts: list[str]
    cost: float


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    async def whole() -> Undisturbed:
        async with Lab(seed=0) as lab:
            digest = Digest(tmp_path_factory.mktemp("undisturbed"), lab)
            assert await digest.lives()
            with RunReader(digest.file) as reader:
                [run] = reader.runs()
            return Undisturbed(digest.text, sorted(line.prompt for line in asked(lab.diary)), run.cost)

    return asyncio.run(whole())


def test_the_digest_asks_in_each_of_its_ways(undisturbed: Undisturbed) -> None:
    """Of every document, part by part of a long one, of the whole in a stream, again for less; and never the same."""
    beginnings = Counter(re.sub(r"(words|sentences).*", "", text, flags=re.DOTALL) for text in undisturbed.prompts)
    assert beginnings["Summarise the text below in at most four "] == 12
    assert beginnings["Summarise the text below in at most 120 "] == 3
    assert beginnings["Combine what these 12 documents say into three "] == 1
    assert sum(beginnings.values()) - 16 > 12
    assert len(undisturbed.prompts) == len(set(undisturbed.prompts))


@pytest.mark.timeout(400)
@pytest.mark.parametrize("first", range(0, SEEDS, TOGETHER))
async def test_a_digest_that_is_killed_and_resumed_asks_nothing_twice_that_was_kept(
    first: int, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    seeds = range(first, min(first + TOGETHER, SEEDS))
    await asyncio.gather(*(_trial(seed, tmp_path / str(seed), undisturbed) for seed in seeds))


async def _trial(seed: int, folder: Path, undisturbed: Undisturbed) -> None:
    folder.mkdir()
    async with Lab(seed) as lab:
        digest = Digest(folder, lab)
        for doom in dooms(seed, 2 * len(undisturbed.prompts)):
            if await digest.lives(doom):
                break
        else:
            assert await digest.lives()
        try:
            judge(lab.diary, digest, undisturbed)
            judge_the_account(digest, undisturbed)
        except AssertionError as error:
            error.add_note(f"seed {seed}: {list(dooms(seed, 2 * len(undisturbed.prompts)))}")
            raise


def dooms(seed: int, lines: int) -> Iterator[Doom]:
    """Deaths at random: some while it only begins, most in the middle of questions, some at the end."""
    dice = random.Random(seed)
    left = lines
    for _ in range(DEATHS):
        if dice.random() < 0.15:
            yield Doom(0, dice.uniform(0.2, 2.0))
            continue
        at = dice.randint(1, left)
        left = max(1, left - at)
        yield Doom(at, dice.choice((0.0, dice.uniform(0, 0.03))))


# ---- what is demanded ----------------------------------------------------------------------------------------


def asked(diary: Sequence[Line]) -> list[Line]:
    return [line for line in diary if line.what == "asked"]


def judge(diary: Sequence[Line], digest: Digest, undisturbed: Undisturbed) -> None:
    assert digest.text == undisturbed.text
    assert sorted({line.prompt for line in asked(diary)}) == undisturbed.prompts
    assert {line.key for line in asked(diary)} == digest.kept[-1]
    assert len(digest.kept[-1]) == len(undisturbed.prompts)
    under_way = 0
    for life, kept in enumerate(digest.kept[:-1]):
        before, after = _keys(diary, range(life + 1)), _keys(diary, range(life + 1, len(digest.kept)))
        assert digest.kept[life + 1] >= kept, f"life {life + 1} has lost what was kept"
        assert not kept & after, f"what was kept in life {life} is asked again"
        assert not _stages_before_the_last(diary, life) - kept, f"life {life} has gone on before it had kept an answer"
        mine = _keys(diary, [life]) - kept
        assert len(mine) <= WIDEST
        assert before & after <= before - kept
        under_way += len(mine)
    assert len(asked(diary)) <= len(undisturbed.prompts) + under_way
    assert len({(line.life, line.key) for line in asked(diary)}) == len(asked(diary)), "one life has asked twice"


def _keys(diary: Sequence[Line], lives: Iterable[int]) -> set[str]:
    return {line.key for line in asked(diary) if line.life in lives}


def _stages_before_the_last(diary: Sequence[Line], life: int) -> set[str]:
    """What must have been answered, as something was asked by then that follows from all of it."""
    stages = {line.key: _stage(line.prompt) for line in asked(diary) if line.life <= life}
    last = max(stages.values(), default=0)
    return {key for key, stage in stages.items() if stage < last}


def _stage(prompt: str) -> int:
    if prompt.startswith("Combine"):
        return 1
    return 0 if re.search(r"in at most (120 words|four sentences)", prompt[:60]) else 2


def judge_the_account(digest: Digest, undisturbed: Undisturbed) -> None:
    """The journal has paid for each answer once, however many lives it took. The trace is one run of as many stretches;
    what a killed process had not yet written may be missing in it, its end as well, and nothing is counted twice."""
    assert digest.cost == pytest.approx(undisturbed.cost)
    with RunReader(digest.file) as reader:
        [run], [spent] = reader.runs(), reader.costs(by="model")
    assert (run.id, run.stretches) == (digest.run_id, digest.stretches)
    assert run.status == "done" or (run.status == "lost" and any(digest.was_done[:-1]))
    assert 0 < run.calls <= len(undisturbed.prompts)
    assert run.cost <= undisturbed.cost + 1e-9
    assert (spent.calls, spent.cost) == (run.calls, pytest.approx(run.cost))
