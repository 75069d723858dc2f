"""Logs that the tests of this folder have in common, drawn once."""

from __future__ import annotations

import pytest
from tests.support.cost_traffic import Traffic

from agentflow.mcp.optimization.cost import CostOptimizer
from agentflow.mcp.optimization.cost.findings import Findings


@pytest.fixture(scope="session")
def traffic() -> Traffic:
    return Traffic.drawn(seed=11, runs=900)


@pytest.fixture(scope="session")
def findings(traffic: Traffic) -> Findings:
    return CostOptimizer(traffic.log, prices=traffic.prices).propose()
