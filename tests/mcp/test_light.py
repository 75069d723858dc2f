"""Nothing heavy is loaded unused: caches, budgets, batches and routers that are told what to do need no numpy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

MODELS_YML = """
providers:
  toy: {kind: scripted, options: {answers: [Hello., There., Again.]}}
models:
  small: {provider: toy, price: {input: 1, output: 2}, max_output: 100, cache: {ttl: 60, temperature: any}}
  large: {provider: toy, price: {input: 10, output: 20}, max_output: 100, budget: {per_day: 5}, batch: {max_size: 4}}
  auto:
    router:
      candidates: [small, large]
      rules: [{longer: 1000, use: large}]
"""

PROGRAM = """
import sys


class Forbidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"numpy", "scipy", "sklearn", "matplotlib", "torch", "transformers"}:
            raise ImportError(f"{name} was asked for")


sys.meta_path.insert(0, Forbidden())

from agentflow import AgentFlow
import agentflow.mcp

for name in agentflow.mcp.__all__:
    getattr(agentflow.mcp, name)
AgentFlow.init("models.yml")
print([AgentFlow.model(name).prompt("Hi").execute_sync() for name in ("auto", "auto", "large")])
"""


def test_models_are_cached_budgeted_batched_and_routed_without_numpy(tmp_path: Path) -> None:
    (tmp_path / "models.yml").write_text(MODELS_YML)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False
    )
    assert (done.stdout, done.stderr) == ("['Hello.', 'Hello.', 'There.']\n", "")


def test_importing_the_package_loads_none_of_its_rooms() -> None:
    program = (
        "import sys, agentflow.mcp; print(sorted(name for name in sys.modules if name.startswith('agentflow.mcp.')))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=True)
    assert done.stdout == "[]\n"
