"""A recorded workload is served twice, and comes to the cost and the quality that the report predicted.

What it is and how it is run stands in benchmarks/workload.py, which does the same at length.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from benchmarks.workload import Comparison, compare
from tests.conftest import Tell

from agentflow.mcp.optimization.benchmark.trace import Arrival, Trace

pytest.importorskip("scipy")


def invented(requests: int) -> Trace:
    """Arrivals in bursts, with lengths as conversations have them."""
    dice = random.Random(3)
    at, arrivals = 0.0, []
    for _ in range(requests):
        arrivals.append(Arrival(at, int(dice.lognormvariate(6.3, 0.9)), int(dice.lognormvariate(5.0, 0.7))))
        at += dice.gammavariate(0.5, 2.0)
    return Trace(tuple(arrivals), "invented")


def hold(found: Comparison, folder: Path) -> None:
    assert found.saved in found.predicted, found.lines()
    assert found.changed.quality in found.quality, found.lines()
    assert found.changed.budgeted == pytest.approx(found.changed.spent, abs=1e-6)
    assert found.changed.calls < found.unchanged.calls  # repeats came from the cache
    assert found.saved > 0.3
    assert (folder / "front.png").read_bytes().startswith(b"\x89PNG")
    assert "<html" in (folder / "report.html").read_text()


def test_the_patch_saves_what_the_report_said_and_the_answers_are_as_good_as_it_said(tmp_path: Path) -> None:
    hold(compare(tmp_path, invented(700), 700), tmp_path)


def test_on_a_recorded_conversation_trace_too(tmp_path: Path, shared: Path, tell: Tell) -> None:
    file = shared / "data" / "traces" / "AzureLLMInferenceTrace_conv.csv"
    if not file.is_file():
        pytest.skip("the recorded traces are not here (data/traces)")
    found = compare(tmp_path, Trace.read(file), 1_200)
    hold(found, tmp_path)
    tell(found.lines())
