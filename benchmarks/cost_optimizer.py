"""Whether proposals save what they say: on halves of logs that they have not seen, and with companies made anew.

    python benchmarks/cost_optimizer.py            about three minutes on a free core

1. fifty random splits of one log into two halves of runs: is the realised saving within the stated interval?
2. many companies: is the mix of models that is proposed really good enough, as often as it says?
3. how long an analysis takes, and how much of a cache's hits the replay finds.

The truth is not estimated: the made-up company (`tests/support/cost_traffic.py`) knows what every model would have cost
and how good it would have been, and the realised savings are computed by code of their own (`cost_proof.py`).
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np

from results import Report, note, number, options

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.support.cost_proof import Coverage, proved  # noqa: E402 - the path is known only now
from tests.support.cost_traffic import QUALITY, Traffic  # noqa: E402

from agentflow.mcp.optimization.cost import CostOptimizer  # noqa: E402
from agentflow.mcp.optimization.cost.cells import Cells, cells_of  # noqa: E402
from agentflow.mcp.optimization.cost.mixing import Goal, cheapest, present_mix, solved  # noqa: E402
from agentflow.mcp.optimization.cost.table import table_of  # noqa: E402

NAMES = {
    "cache": "exact cache",
    "route": "mix of models",
    "swap": "another model",
    "prompt_cache": "prompts kept at the provider",
    "batch": "batches",
    "max_tokens": "limits on answers (what is reserved)",
    "together": "together",
}


@dataclass(frozen=True, slots=True)
class Plan:
    runs: int = 1_400
    splits: int = 50
    companies: int = 60
    company_runs: int = 600
    large: int = 6_000


TINY = Plan(runs=200, splits=2, companies=2, company_runs=150, large=150)


def splits(made: Report, plan: Plan) -> None:
    traffic = Traffic.drawn(seed=1, runs=plan.runs)
    proof = proved(traffic, range(plan.splits))
    found = proof.coverage
    rows = [[NAMES[kind], *_told(found[kind])] for kind in NAMES if kind in found]
    made.table(
        "Held-out halves",
        ["proposal", "splits", "inside", "mean width", "mean of truth ÷ amount"],
        rows,
        f"{plan.splits} random splits of {len(traffic.log):,} calls in {plan.runs:,} runs; stated at 95%. The width is "
        "from bound to bound, relative to the amount.",
    )
    for kind, each in found.items():
        if len(each.inside) >= plan.splits // 2:
            made.promise(
                f"{NAMES[kind]}: realised saving inside", limit=90, measured=100 * each.share, unit="% of splits",
                at_least=True, beside=f"width {each.width:.2f}",
            )  # fmt: skip
    made.raw["splits"] = {kind: [each.inside, each.widths, each.off] for kind, each in found.items()}


def _told(each: Coverage) -> list[str]:
    return [
        str(len(each.inside)),
        f"{each.share:.0%}",
        f"{each.width:.2f}",
        f"{1.0 + each.bias:.3f}",
    ]


def companies(made: Report, plan: Plan) -> None:
    """Each company is drawn anew, so the chances of what is proposed there are independent."""
    tolerances = (0.02, 0.04)
    rows = []
    for tolerance in tolerances:
        honest, naive, broken, proposed = [], [], 0, 0
        for seed in range(plan.companies):
            drawn = Traffic.drawn(seed=5_000 + seed, runs=plan.company_runs)
            cells = cells_of(table_of(drawn.log, drawn.prices))
            now = present_mix(cells)
            if now is None:
                continue
            today = _true(cells, now.shares)
            mix = cheapest(cells, Goal(now.quality - tolerance, today=now.shares))
            plain = solved(cells, now.quality - tolerance, Goal(0.0))
            if plain is not None:
                naive.append(plain.quality - _true(cells, plain.shares))
            if mix is not None:
                proposed += 1
                honest.append((mix.quality - now.quality) - (_true(cells, mix.shares) - today))
                broken += _true(cells, mix.shares) < today - tolerance
        told = number(100 * fmean(honest)) if honest else "–"
        plain_told = number(100 * fmean(naive)) if naive else "–"
        rows.append([f"{tolerance:g}", str(plan.companies), str(proposed), str(broken), told, plain_told])
        made.promise(
            f"mixes that fall by more than {tolerance:g}", limit=10, measured=100 * broken / plan.companies,
            unit="% of companies", beside=f"{proposed} were proposed; stated at 95%",
        )  # fmt: skip
    made.table(
        "Quality that was promised",
        [
            "tolerance",
            "companies",
            "mix proposed",
            "worse than promised",
            "told – true, points",
            "without cross-fitting",
        ],
        rows,
        f"{plan.company_runs} runs each. The last column is of mixes that are judged by what they were chosen by.",
    )


def _true(cells: Cells, shares: np.ndarray) -> float:
    names = [segment.partition("/")[2] for segment in cells.table.segments]
    table = np.array([[QUALITY[name][model] for model in cells.table.models] for name in names])
    return float((cells.share[:, None] * shares * table).sum())


def speed(made: Report, plan: Plan) -> None:
    traffic = Traffic.drawn(seed=3, runs=plan.large)
    begun = time.process_time()
    CostOptimizer(traffic.log, prices=traffic.prices).propose()
    took = time.process_time() - begun
    per = 100_000 / len(traffic.log)
    made.table(
        "An analysis",
        ["calls", "seconds of CPU", "for 100,000"],
        [[f"{len(traffic.log):,}", number(took), number(took * per)]],
    )
    made.raw["speed"] = {"calls": len(traffic.log), "seconds": took}


def report(plan: Plan) -> Report:
    made = Report("cost_optimizer", "Cost optimiser", "Whether what is proposed saves what it says.")
    splits(made, plan)
    companies(made, plan)
    speed(made, plan)
    return made


def main() -> None:
    arguments = options(__doc__).parse_args()
    begun = time.perf_counter()
    report(TINY if arguments.tiny else Plan()).finish(arguments.output)
    note(f"cost_optimizer: {time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    main()
