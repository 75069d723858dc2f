"""Storms, outages and crowds, simulated: goodput, fairness and overshoot of the real guards.

python benchmarks/simulate.py --requests 1000000            build/benchmarks/simulation.json, and the tables
python benchmarks/simulate.py --requests 1000000 --write    docs/simulations.md and docs/images/, too (needs matplotlib)

Each variant is played several times, each time from another seed; as many as it takes to make that many requests in
all. The same seeds give the same numbers, on any machine, except for the CPU time.
"""

from __future__ import annotations

import os
import re
import statistics
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from results import ROOT, Report, note, number, options
from simulation.measures import Outcome, merged, percentile
from simulation.scenarios import SCENARIOS
from simulation.world import Scenario, play

PAGE = ROOT / "docs" / "simulations.md"
IMAGES = ROOT / "docs" / "images"
BEGIN, END = "<!-- begin: benchmarks/simulate.py --write -->", "<!-- end -->"
ONCE = sum(scenario.requests * len(scenario.variants) for scenario in SCENARIOS)
COLUMNS = [
    "calls made with",
    "answered",
    "of the ideal",
    "attempts a call",
    "in vain",
    "p50, s",
    "p95, s",
    "p99, s",
    "busiest minute",
    "back after, s",
    "failures",
]


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--requests", type=int, default=ONCE, help="in all, about (%(default)s is each variant once)")
    parser.add_argument("--seed", type=int, default=1, help="the first one (%(default)s)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (%(default)s)")
    parser.add_argument("--write", action="store_true", help=f"also {PAGE.relative_to(ROOT)} and its pictures")
    arguments = parser.parse_args()
    rounds = 1 if arguments.tiny else max(1, round(arguments.requests / ONCE))
    outcomes = played([arguments.seed + number for number in range(rounds)], arguments.jobs, arguments.tiny)
    report = reported(outcomes, rounds)
    report.finish(arguments.output)
    if arguments.write:
        from simulation.plots import draw  # here, since it needs matplotlib

        draw(outcomes, IMAGES)
        write(report, PAGE)
        note(f"simulate: wrote {PAGE} and {IMAGES}")


def played(seeds: Sequence[int], jobs: int, tiny: bool) -> list[Outcome]:
    """Every variant with every seed, merged by variant."""
    plans = [
        (index, number, seed, tiny)
        for index, scenario in enumerate(SCENARIOS)
        for number in range(len(scenario.variants))
        for seed in seeds
    ]
    with ProcessPoolExecutor(jobs) as pool:
        outcomes = list(pool.map(_play, plans))
    return [merged(outcomes[start : start + len(seeds)]) for start in range(0, len(plans), len(seeds))]


def _play(plan: tuple[int, int, int, bool]) -> Outcome:
    index, number, seed, tiny = plan
    scenario = SCENARIOS[index]
    return play(_shortened(scenario) if tiny else scenario, scenario.variants[number], seed)


def _shortened(scenario: Scenario) -> Scenario:
    return replace(scenario, seconds=10.0, spell="")


def reported(outcomes: Sequence[Outcome], rounds: int) -> Report:
    total = sum(outcome.offered for outcome in outcomes)
    cpu = sum(outcome.cpu for outcome in outcomes)
    virtual = sum(outcome.seconds for outcome in outcomes) / 3600
    report = Report(
        "simulation",
        "Simulated storms",
        f"{total:,} requests, each variant {rounds} × with other seeds: {number(virtual)} hours of virtual time in "
        f"{number(cpu)} s of CPU, {number(cpu / total * 1e5)} s for 100,000 requests.",
    )
    for name, group in groupby(outcomes, lambda outcome: outcome.scenario):
        found = list(group)
        story = next(scenario.story for scenario in SCENARIOS if scenario.name == name)
        _table(report, name, story, found)
        if len(found[0].tenants) > 1 and len(found[0].priorities) == 1:
            _tenants(report, found)
        if len(found[0].priorities) > 1:
            _priorities(report, found)
    report.raw = {
        f"{outcome.scenario}: {outcome.variant}": {
            name: getattr(outcome, name)
            for name in Outcome.__slots__
            if name not in ("series", "latencies", "priority_latencies")
        }
        for outcome in outcomes
    }
    return report


def _table(report: Report, name: str, story: str, outcomes: Sequence[Outcome]) -> None:
    """Columns that say nothing in this scenario are left out."""
    rows = [_row(outcome) for outcome in outcomes]
    kept = [index for index in range(len(COLUMNS)) if any(row[index] not in ("–", "") for row in rows)]
    report.table(
        name[0].upper() + name[1:], [COLUMNS[i] for i in kept], [[row[i] for i in kept] for row in rows], story
    )


def _row(outcome: Outcome) -> list[str]:
    failures = sorted(outcome.failures.items(), key=lambda item: -item[1])
    back = outcome.recovery
    return [
        outcome.variant,
        f"{outcome.good / outcome.offered:.0%}",
        f"{outcome.goodput:.0%}",
        f"{outcome.amplification:.2f}",
        f"{outcome.wasted:.0%}",
        *(f"{outcome.latency(share):.1f}" for share in (0.5, 0.95, 0.99)),
        f"{outcome.busiest_requests:.2f} ×" if outcome.busiest_requests else "–",
        f"{statistics.fmean(back):.0f} (up to {max(back):.0f})" if back else "–",
        ", ".join(
            f"{kind} {count / outcome.offered:.0%}" for kind, count in failures if count / outcome.offered > 0.005
        ),
    ]


def _tenants(report: Report, outcomes: Sequence[Outcome]) -> None:
    rows = []
    for outcome in outcomes:
        greedy = outcome.tenants["greedy"]
        modest = [group[1] / group[0] for name, group in outcome.tenants.items() if name != "greedy"]
        rows.append(
            [
                outcome.variant,
                f"{greedy[1] / greedy[0]:.0%}",
                f"{statistics.fmean(modest):.0%}",
                f"{min(modest):.0%}",
                f"{outcome.fairness:.3f}",
            ]
        )
    columns = ["", "greedy: answered", "modest: answered", "the worst of them", "Jain's index"]
    report.table("Greedy tenant: who is answered", columns, rows)


def _priorities(report: Report, outcomes: Sequence[Outcome]) -> None:
    order = ["critical", "high", "normal", "low"]
    rows = []
    for outcome in outcomes:
        cells = [outcome.variant]
        for name in order:
            offered, good, _ = outcome.priorities[name]
            median = percentile(outcome.priority_latencies[name], 0.5)
            cells.append(f"{good / offered:.0%}, {median:.1f} s")
        rows.append(cells)
    report.table("Priorities: answered, and the median time", ["", *order], rows)


def write(report: Report, page: Path) -> None:
    """Put the tables between the page's markers, each followed by its picture if there is one."""
    parts = [report.intro]
    for table in report.tables:
        parts.append(table.markdown())
        picture = re.sub(r"\W+", "-", table.title.lower())
        if (IMAGES / f"simulation-{picture}.png").exists():
            parts.append(f"![{table.title}](images/simulation-{picture}.png)")
    parts.append(f"Played on {report.date} on {report.machine}.")
    text = page.read_text("utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    page.write_text(f"{before}{BEGIN}\n\n" + "\n\n".join(parts) + f"\n\n{END}{after}", "utf-8")


if __name__ == "__main__":
    main()
