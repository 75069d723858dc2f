"""Does the learned router beat nearest neighbours, matrix factorisation, and the best mixture of single models?

    python benchmarks/router_quality.py --data FOLDER                     outcome tables: CSV, JSON Lines, JSON
    python benchmarks/router_quality.py --data FOLDER --seeds 5 --rows 3000 --text-column q --group-column subject
    python -m benchmarks.router_quality --data FOLDER --write docs/router_quality.md

A subfolder is a domain; in it, each file is a group of rows that belong together (a subject), or the values of
`--group-column` are. For each seed and domain:

    in-domain      80 % of the prompts to learn from, 20 % to be judged by; the same prompt is never on both sides
    leave-out      a quarter of the groups (at least one) to be judged by; validation leaves whole groups out, too
    transfer       what was learned in one domain, judged by another one

All routers see the same rows. Intervals are of paired differences over the seeds, with the variance corrected for
splits that overlap (Nadeau and Bengio, 2003). `deployed` is what users get: the learned router where the gate lets it
decide, the hull of single models where not.
"""

from __future__ import annotations

import json
import math
import os
import random
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy; threads wait for each other on a busy machine
sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
from numpy.typing import NDArray

from agentflow.errors import ConfigurationError
from agentflow.mcp.optimization.router.learning.calibration import calibration_error
from agentflow.mcp.optimization.router.learning.curve import Curve, curve_of, hull_quality
from agentflow.mcp.optimization.router.learning.evaluation import Measures, forecasts_of, measures_of
from agentflow.mcp.optimization.router.learning.experts import Read
from agentflow.mcp.optimization.router.learning.learned import LearnedPolicy
from agentflow.mcp.optimization.router.learning.reading import Columns, read_table
from agentflow.mcp.optimization.router.learning.table import OutcomeTable, prompt_key
from agentflow.mcp.optimization.router.learning.training import Training, train
from results import ROOT, Report, note, options
from router_baselines import Matrix, factorised, nearest

# What RouteLLM's authors reckon with, in USD per thousand tokens; a call is taken for a thousand tokens.
KNOWN_COSTS = {"mistralai/Mixtral-8x7B-Instruct-v0.1": 0.00024, "gpt-4-1106-preview": 0.0247}
ROUTERS = ("deployed", "learned", "kNN", "MF", "hull")
MEASURES = ("APGR", "CPT50", "CPT80", "near-best cost", "ECE", "over hull")
MOST_JUDGED = 2_500

Scores = dict[str, dict[str, float]]  # router → measure → value


@dataclass(frozen=True, slots=True)
class Split:
    """Rows of a table to learn from, and rows (of this or another table) to be judged by, by the split's name."""

    kind: str
    learn: OutcomeTable
    judged: dict[str, OutcomeTable]
    traffic: str


@cache
def read(text: str) -> Read:
    return Read.of(text)


# ---- tables and splits -------------------------------------------------------------------------------------------


def recorded_outcomes() -> Path | None:
    """Where tests look for recorded outcomes, too."""
    shared = Path(os.environ.get("AGENTFLOW_SHARED", ROOT.parent / "shared"))
    return next((path for path in (shared / "data" / "routellm", shared / "routellm") if path.is_dir()), None)


def domains(folder: Path, columns: Columns, costs: dict[str, float], rows: int | None) -> dict[str, OutcomeTable]:
    """A table for each subfolder that holds one, or one for the folder itself."""
    inner = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    found = {path.name: read_table(path, columns) for path in inner} or {folder.stem: read_table(folder, columns)}
    return {name: prepared(table, costs, rows) for name, table in found.items()}


def prepared(table: OutcomeTable, costs: dict[str, float], rows: int | None) -> OutcomeTable:
    """Rows of which everything is known, thinned out to `rows`, with costs."""
    known = table.judged()
    kept = np.flatnonzero(~np.isnan(known.quality).any(axis=1))
    if rows is not None and len(kept) > rows:
        kept = np.sort(np.random.default_rng(0).permutation(kept)[:rows])
    known = known.rows(kept)
    means = np.array([costs.get(model, KNOWN_COSTS.get(model, math.nan)) for model in known.models])
    cost = np.where(np.isnan(known.cost), means, known.cost)
    if np.isnan(cost).any():
        lacking = [model for model, column in zip(known.models, cost.T, strict=True) if np.isnan(column).any()]
        raise ConfigurationError(f"what does a call cost? --cost {lacking[0]}=USD, and so on for {', '.join(lacking)}")
    return OutcomeTable(
        known.texts, known.models, known.quality, cost, known.output_tokens, known.input_tokens,
        known.propensity, known.groups,
    )  # fmt: skip


def in_domain(name: str, tables: dict[str, OutcomeTable], seed: int) -> Split:
    table = tables[name]
    keys = [prompt_key(text) for text in table.texts]
    unique = sorted(set(keys))
    order = np.random.default_rng(seed).permutation(len(unique))
    held = {unique[place] for place in order[: max(1, len(unique) // 5)]}
    out = np.array([key in held for key in keys])
    learn = table.rows(np.flatnonzero(~out))
    return Split("in-domain", learn, {f"{name}, in-domain": table.rows(np.flatnonzero(out))}, "seen")


def leave_out(name: str, tables: dict[str, OutcomeTable], seed: int) -> Split | None:
    """None where there are too few groups to leave some out. A prompt of both sides is not learned from."""
    table = tables[name]
    groups = sorted(set(table.groups))
    if len(groups) < 4:
        return None
    order = np.random.default_rng(seed).permutation(len(groups))
    held = {groups[place] for place in order[: len(groups) // 4]}
    out = np.array([group in held for group in table.groups])
    asked = {prompt_key(table.texts[row]) for row in np.flatnonzero(out)}
    learned = [row for row in np.flatnonzero(~out) if prompt_key(table.texts[row]) not in asked]
    judged = {f"{name}, leave groups out": table.rows(np.flatnonzero(out))}
    return Split("leave-out", table.rows(np.array(learned)), judged, "unseen")


def with_transfers(split: Split, name: str, tables: dict[str, OutcomeTable], seed: int) -> Split:
    """Judged by the other domains too, of which too large ones are thinned out."""
    judged = dict(split.judged)
    for other, table in tables.items():
        if other != name and set(table.models) == set(split.learn.models):
            order = np.random.default_rng(seed).permutation(len(table))[:MOST_JUDGED]
            judged[f"{name} → {other}"] = table.picked(split.learn.models).rows(order)
    return Split(split.kind, split.learn, judged, split.traffic)


def splits_of(name: str, tables: dict[str, OutcomeTable], seed: int) -> list[Split]:
    """Transfers are judged with what was learned to meet unseen groups, where there are groups."""
    inside, outside = in_domain(name, tables, seed), leave_out(name, tables, seed)
    if outside is None:
        return [with_transfers(inside, name, tables, seed)]
    return [inside, with_transfers(outside, name, tables, seed)]


# ---- routers -------------------------------------------------------------------------------------------------------


def scores_of(split: Split, seed: int) -> dict[str, Scores]:
    """Every router's measures, by what it was judged by."""
    training = Training(traffic="unseen" if split.traffic == "unseen" else "seen", seed=seed)
    policy = train(split.learn, training, read=read)
    held = held_rows(split, seed)
    own = vectors_of(policy, split.learn.texts)
    asked = np.concatenate([vectors_of(policy, table.texts) for table in split.judged.values()])
    ends = np.cumsum([len(table) for table in split.judged.values()])[:-1]
    rivals = {
        "kNN": np.split(nearest(own, split.learn.quality, held, asked), ends),
        "MF": np.split(factorised(own, split.learn.quality, held, asked, seed), ends),
    }
    found = {}
    for place, (name, table) in enumerate(split.judged.items()):
        forecast, expected = forecasts_of(policy, table.texts, {})
        mean = np.tile(split.learn.cost.mean(axis=0), (len(table), 1))
        scores = {"learned": measured(forecast, expected, table)}
        scores |= {rival: measured(said[place], mean, table) for rival, said in rivals.items()}
        scores["hull"] = of_hull(split.learn, table)
        scores["deployed"] = scores["learned"] if policy.verdict.deployed else scores["hull"]
        scores["deployed"] = {**scores["deployed"], "trusted": float(policy.verdict.deployed)}
        found[name] = scores
    return found


def held_rows(split: Split, seed: int) -> NDArray[np.bool_]:
    """A fifth of the rows, whole prompts or whole groups, for rivals to choose their settings by."""
    table = split.learn
    names = list(table.groups) if split.traffic == "unseen" else [prompt_key(text) for text in table.texts]
    unique = sorted(set(names))
    order = np.random.default_rng(seed + 1_000).permutation(len(unique))
    held = {unique[place] for place in order[: max(1, len(unique) // 5)]}
    return np.array([name in held for name in names])


def vectors_of(policy: LearnedPolicy, texts: Sequence[str]) -> NDArray[np.float32]:
    space = policy.knowledge.space
    found = np.stack([space.project(*space.weigh(read(text).buckets)) for text in texts])
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)


def measured(forecast: Matrix, expected: Matrix, table: OutcomeTable) -> dict[str, float]:
    curve = curve_of(forecast, expected, table.quality, table.cost)
    errors = [calibration_error(forecast[:, place], table.quality[:, place]) for place in range(len(table.models))]
    return {
        **listed(measures_of(curve, table.quality, table.cost)),
        "ECE": float(np.mean(errors)),
        "over hull": area(curve, table),
    }


def of_hull(learn: OutcomeTable, table: OutcomeTable) -> dict[str, float]:
    """The best mixture on the judged rows themselves, which knows more than anybody could have: a strict rival."""
    errors = np.abs(learn.quality.mean(axis=0) - table.quality.mean(axis=0))
    return {**listed(measures_of(None, table.quality, table.cost)), "ECE": float(errors.mean()), "over hull": 0.0}


def listed(found: Measures) -> dict[str, float]:
    return {"APGR": found.apgr, "CPT50": found.cpt50, "CPT80": found.cpt80, "near-best cost": found.near_best_cost}


def area(curve: Curve, table: OutcomeTable) -> float:
    """Points of quality over the hull at the same cost, the mean over all costs between the cheapest and the best."""
    mean, paid = table.quality.mean(axis=0), table.cost.mean(axis=0)
    at = np.linspace(paid.min(), max(paid[mean.argmax()], paid.min() * (1 + 1e-6)), 101)
    order = np.argsort(curve.cost, kind="stable")
    got = np.interp(at, curve.cost[order], curve.quality[order])
    hull = hull_quality(np.tile(mean, (101, 1)), np.tile(paid, (101, 1)), at)
    return 100 * float(np.mean(got - hull))


# ---- the tables that are printed -----------------------------------------------------------------------------------


def interval(differences: NDArray[np.float64], ratio: float) -> tuple[float, float]:
    """95 %, of a mean over splits that overlap; `ratio` is judged to learned rows."""
    from scipy.stats import t

    many = len(differences)
    if many < 2:
        return math.nan, math.nan
    error = math.sqrt(differences.var(ddof=1) * (1 / many + ratio))
    return differences.mean() - t.ppf(0.975, many - 1) * error, differences.mean() + t.ppf(0.975, many - 1) * error


def report_of(found: dict[str, list[Scores]], ratios: dict[str, float], report: Report) -> None:
    for name, seeds in found.items():
        rows = [row_of(router, seeds) for router in ROUTERS]
        trusted = np.mean([each["deployed"].get("trusted", 0.0) for each in seeds])
        note_ = f"{len(seeds)} seeds; the gate let the learned router decide in {trusted:.0%} of them."
        report.table(name, ["router", *MEASURES], rows, note_)
        report.table(
            f"{name}: the deployed router against each other one",
            ["against", *(f"Δ {measure}" for measure in MEASURES[:5]), "verdict (APGR)"],
            [against(rival, seeds, ratios[name]) for rival in ("hull", "kNN", "MF")],
            "Mean paired difference with its 95 % interval; better is more APGR, and less of all else.",
        )
        report.table(
            f"{name}: the learned router, without the gate, against each other one",
            ["against", *(f"Δ {measure}" for measure in MEASURES[:5]), "verdict (APGR)"],
            [against(rival, seeds, ratios[name], "learned") for rival in ("hull", "kNN", "MF")],
            "The rivals have no gate either.",
        )


def row_of(router: str, seeds: Sequence[Scores]) -> list[str]:
    values = {measure: np.array([each[router][measure] for each in seeds]) for measure in MEASURES}
    return [router, *(f"{np.nanmean(value):.3f}" if np.isfinite(value).any() else "–" for value in values.values())]


def against(rival: str, seeds: Sequence[Scores], ratio: float, ours: str = "deployed") -> list[str]:
    cells, verdict = [], "–"
    for measure in MEASURES[:5]:
        differences = np.array([each[ours][measure] - each[rival][measure] for each in seeds])
        differences = differences[np.isfinite(differences)]
        if not differences.size:
            cells.append("–")
            continue
        low, high = interval(differences, ratio)
        cells.append(f"{differences.mean():+.3f} [{low:+.3f}, {high:+.3f}]")
        if measure == "APGR":
            verdict = "won" if low > 0 else "**lost**" if high < 0 else "no difference shown"
    return [rival, *cells, verdict]


Found = tuple[str, Scores, float]  # what it was judged by, its scores, judged to learned rows


def of_seed(tables: dict[str, OutcomeTable], seed: int) -> list[Found]:
    found = []
    for name in tables:
        for split in splits_of(name, tables, seed):
            for judged, scores in scores_of(split, seed).items():
                ratio = 0.0 if "→" in judged else len(split.judged[judged]) / len(split.learn)
                found.append((judged, scores, ratio))
    return found


def run(
    tables: dict[str, OutcomeTable], seeds: int, workers: int, tell: Callable[[str], None]
) -> tuple[dict[str, list[Scores]], dict[str, float]]:
    found: dict[str, list[Scores]] = defaultdict(list)
    ratios: dict[str, float] = {}
    for seed, results in enumerate(all_seeds(tables, seeds, workers)):
        for judged, scores, ratio in results:
            found[judged].append(scores)
            ratios[judged] = ratio
            tell(f"seed {seed}: {judged}: APGR { {router: round(scores[router]['APGR'], 3) for router in ROUTERS} }")
    return dict(found), ratios


def all_seeds(tables: dict[str, OutcomeTable], seeds: int, workers: int) -> Iterator[list[Found]]:
    if workers == 1:
        yield from (of_seed(tables, seed) for seed in range(seeds))
        return
    for text in {text for table in tables.values() for text in table.texts}:
        read(text)  # once, before there are several processes
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(of_seed, [tables] * seeds, range(seeds))


def speed(table: OutcomeTable, report: Report) -> None:
    """Microseconds of a whole decision: read the text, forecast, choose, say why."""
    policy = train(table, read=read)
    rng = random.Random(0)
    texts = table.texts[:2_000]
    long = ["\n".join(table.texts[start : start + 40]) for start in range(0, min(len(table), 4_000), 40)]
    rows = []
    for name, asked in (("prompts of the table", texts), ("prompts of over 4,096 characters", long)):
        wall, cpu = [], []
        for text in asked:
            start, used = time.perf_counter(), time.thread_time()
            policy.choose(text, policy.models, {}, rng)
            wall.append(1e6 * (time.perf_counter() - start))
            cpu.append(1e6 * (time.thread_time() - used))
        rows.append([name, *(f"{np.percentile(times, part):.0f}" for times in (wall, cpu) for part in (50, 99))])
        if name == "prompts of the table":
            report.promise(
                "a learned router's decision, CPU time at the median", limit=1_000, measured=float(np.median(cpu)),
                unit="µs", beside=f"p99 {np.percentile(cpu, 99):.0f} µs; wall p50 {np.median(wall):.0f} µs",
            )  # fmt: skip
    columns = ["µs a decision", "p50", "p99", "p50, CPU", "p99, CPU"]
    report.table("Time of a decision", columns, rows, f"{len(table):,} rows learned from; one thread, numpy alone.")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options(__doc__)
    parser.add_argument("--data", type=Path, help="a folder of outcome tables, or one file (RouteLLM's, if at hand)")
    parser.add_argument("--seeds", type=int, default=20, help="random splits (%(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="processes at once (%(default)s)")
    parser.add_argument("--rows", type=int, help="at most so many rows of each domain")
    parser.add_argument("--text-column", help="the column of the prompts, where it cannot be guessed")
    parser.add_argument("--group-column", help="rows that belong together, instead of by file")
    parser.add_argument("--models", help="columns of the models, commas between them, where they cannot be guessed")
    parser.add_argument("--scale", type=float, default=1.0, help="the best quality there is (%(default)s)")
    parser.add_argument("--cost", action="append", default=[], metavar="MODEL=USD", help="what a call costs")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the Markdown there, too")
    said = parser.parse_args(arguments)
    columns = Columns(
        text=said.text_column,
        group=said.group_column,
        models=said.models.split(",") if said.models else None,
        scale=said.scale,
    )
    data = said.data or recorded_outcomes()
    if data is None:
        note("router_quality: there are no outcome tables at hand; name a folder with --data")
        return
    costs = {name: float(cost) for name, _, cost in (each.rpartition("=") for each in said.cost)}
    tables = domains(data, columns, costs, 600 if said.tiny else said.rows)
    found, ratios = run(tables, 2 if said.tiny else said.seeds, said.workers, note)
    facts = ", ".join(
        f"{name}: {len(table):,} rows, {len(set(table.groups))} groups, {len(table.models)} models"
        for name, table in tables.items()
    )
    report = Report(
        "router_quality", "Router: quality", f"What a learned router is worth, in held-out outcomes. {facts}."
    )
    report_of(found, ratios, report)
    speed(max(tables.values(), key=len), report)
    report.raw = {"scores": json.loads(json.dumps(found))}
    report.finish(said.output)
    if said.write:
        said.write.write_text(report.markdown() + "\n", "utf-8")


if __name__ == "__main__":
    main()
