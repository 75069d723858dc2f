"""Load on models that does not wait for them: arrivals, questions, checks, and what was found.

arrivals, trace, dataset, synthetic    what is asked, and when
generator, worker, crew                who asks, in one process or several
objective, checking                    what counts as good
measures, percentiles                  records to numbers, with their intervals
gates, comparison                      what fails, and what differs
report, as_json, page                  how it is told
"""

from agentflow.mcp.optimization.benchmark.arrivals import Arrivals, Constant, Gamma, Poisson
from agentflow.mcp.optimization.benchmark.as_json import Baseline, baseline
from agentflow.mcp.optimization.benchmark.benchmark import Benchmark, Progress
from agentflow.mcp.optimization.benchmark.checking import (
    Checker,
    Contains,
    Exact,
    Matches,
    ValidJson,
    checker_named,
)
from agentflow.mcp.optimization.benchmark.dataset import Case, Dataset
from agentflow.mcp.optimization.benchmark.objective import Objective
from agentflow.mcp.optimization.benchmark.report import BenchmarkReport
from agentflow.mcp.optimization.benchmark.synthetic import Synthetic
from agentflow.mcp.optimization.benchmark.trace import Trace

__all__ = [
    "Arrivals",
    "Baseline",
    "Benchmark",
    "BenchmarkReport",
    "Case",
    "Checker",
    "Constant",
    "Contains",
    "Dataset",
    "Exact",
    "Gamma",
    "Matches",
    "Objective",
    "Poisson",
    "Progress",
    "Synthetic",
    "Trace",
    "ValidJson",
    "baseline",
    "checker_named",
]
