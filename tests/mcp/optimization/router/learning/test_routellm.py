"""The proof on real outcomes, small: GSM8K and a part of MMLU of two models. benchmarks/router_quality.py is the whole.

Both rivals see the same rows and vectors. With few rows only large differences show, so it asks for what must hold in
any case: what is deployed beats the hull on average, and what was learned is not behind the rivals.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[5]

pytestmark = pytest.mark.shared


@pytest.fixture(scope="module")
def quality() -> ModuleType:
    """benchmarks/router_quality.py, which finds its neighbours by the path."""
    before = list(sys.path)
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        spec = importlib.util.spec_from_file_location("router_quality", ROOT / "benchmarks" / "router_quality.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["router_quality"] = module
        spec.loader.exec_module(module)
    finally:
        sys.path[:] = before
    return module


def test_on_real_outcomes_it_beats_the_hull_and_keeps_up_with_its_rivals(shared: Path, quality: ModuleType) -> None:
    folder = shared / "routellm"
    if not folder.is_dir():
        folder = shared / "data" / "routellm"
    tables = quality.domains(folder, quality.Columns(), {}, 1_100)
    found, _ = quality.run(tables, 2, 1, lambda line: None)
    assert set(found) == {
        "gsm8k, in-domain", "gsm8k → mmlu", "mmlu, in-domain", "mmlu, leave groups out", "mmlu → gsm8k",
    }  # fmt: skip

    def apgr(router: str, *judged: str) -> float:
        return float(np.mean([scores[router]["APGR"] for name in judged for scores in found[name]]))

    inside = ("gsm8k, in-domain", "mmlu, in-domain")
    assert apgr("learned", *inside) > 0.6
    assert apgr("learned", *inside) > apgr("kNN", *inside) - 0.02
    assert apgr("learned", *inside) > apgr("MF", *inside) - 0.02
    assert apgr("deployed", *found) > apgr("hull", *found) + 0.02
    for scores in (each for seeds in found.values() for each in seeds):
        chosen = "learned" if scores["deployed"]["trusted"] else "hull"
        assert scores["deployed"]["APGR"] == scores[chosen]["APGR"]
