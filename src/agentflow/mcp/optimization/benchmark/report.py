"""What a benchmark found, to be read, judged and written down.

report = await Benchmark("gpt-4o", "fast", …).run()
report["fast"].times["ttft"].percentiles["p99"]       Estimate(value=0.81, low=0.78, high=0.86)
report.doubts                                         why the measurement is not valid; empty where it is
report.judged(["p99.ttft>2"])                         a Verdict a gate and model
report.write(json_file="bench.json", html_file="bench.html")
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentflow.mcp.optimization.benchmark.as_json import document
from agentflow.mcp.optimization.benchmark.findings import Findings
from agentflow.mcp.optimization.benchmark.gates import Gate, Verdict
from agentflow.mcp.optimization.benchmark.page import page_of

__all__ = ["BenchmarkReport"]


@dataclass(frozen=True)
class BenchmarkReport(Findings):
    """Findings that can be judged by gates and written to files."""

    def judged(self, gates: Sequence[str | Gate]) -> list[Verdict]:
        """A verdict for each gate and model that it is meant for. Raises ConfigurationError for what is no gate, and
        for a model that was not measured."""
        names = [run.name for run in self.runs]
        read = [Gate.parse(gate, names) if isinstance(gate, str) else gate for gate in gates]
        return [gate.judge(run.measures) for gate in read for run in self.runs if gate.model in (None, run.name)]

    # ---- written down ----------------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """Plain data; see docs/benchmark_guide.md for its fields."""
        return document(self)

    def to_html(self) -> str:
        """One page that needs no network and no script."""
        return page_of(self)

    def write(self, *, json_file: str | Path | None = None, html_file: str | Path | None = None) -> None:
        """Write either or both."""
        if json_file is not None:
            Path(json_file).write_text(json.dumps(self.to_json(), indent=1, allow_nan=False) + "\n", "utf-8")
        if html_file is not None:
            Path(html_file).write_text(self.to_html(), "utf-8")
