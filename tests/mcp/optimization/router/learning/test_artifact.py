"""A policy on disk: the same forecasts to the bit, no pickle, and nothing that was tampered with."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.support.planted_outcomes import planted

from agentflow.errors import ConfigurationError
from agentflow.mcp.optimization.router.learning.artifact import load_policy, read_manifest, save_policy
from agentflow.mcp.optimization.router.learning.learned import LearnedPolicy
from agentflow.mcp.optimization.router.learning.policy import Objective
from agentflow.mcp.optimization.router.learning.training import Training, train

TEXTS = ["derive the matrix equation", "what colour is the garden", "", "Ξ", "証明"]


@pytest.fixture(scope="module")
def policy() -> LearnedPolicy:
    return train(planted(300, groups=10), Training(objective=Objective(quality_floor=0.85)))


@pytest.fixture(scope="module")
def folder(policy: LearnedPolicy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_policy(policy, tmp_path_factory.mktemp("policies") / "support", evaluation={"apgr": 0.7})


def test_what_is_loaded_decides_like_what_was_saved(policy: LearnedPolicy, folder: Path) -> None:
    loaded = load_policy(folder)
    assert loaded.digest == policy.digest
    assert (loaded.objective, loaded.aim, loaded.verdict) == (policy.objective, policy.aim, policy.verdict)
    for text in TEXTS:
        assert loaded.forecast(text, loaded.models, {}) == policy.forecast(text, policy.models, {})
        choices = [each.choose(text, each.models, {}, random.Random(3)) for each in (loaded, policy)]
        assert choices[0] == choices[1]


def test_what_is_loaded_can_aim_anew(policy: LearnedPolicy, folder: Path) -> None:
    objective = Objective(budget_usd=0.006)
    loaded, kept = load_policy(folder).aimed(objective, {}), policy.aimed(objective, {})
    assert (loaded.aim, loaded.verdict, loaded.digest) == (kept.aim, kept.verdict, kept.digest)
    assert loaded.digest != policy.digest


def test_the_manifest_says_what_it_is(folder: Path, policy: LearnedPolicy) -> None:
    facts = read_manifest(folder)
    assert facts["models"] == list(policy.models)
    assert facts["evaluation"] == {"apgr": 0.7}
    assert facts["source"] == planted(300, groups=10).digest()
    assert facts["rows"] == 300


def test_no_array_needs_pickle_and_no_text_is_kept(folder: Path) -> None:
    with np.load(folder / "arrays.npz", allow_pickle=False) as arrays:
        assert all(arrays[name].dtype.kind in "fiu" for name in arrays)
    assert "matrix" not in (folder / "manifest.json").read_text()


def test_a_policy_decides_without_scipy(folder: Path) -> None:
    """numpy alone is at hand where decisions are made."""
    program = (
        "import random, sys\n"
        "from agentflow.mcp.optimization.router.learning.artifact import load_policy\n"
        f"policy = load_policy({str(folder)!r})\n"
        "policy.choose('derive it', policy.models, {}, random.Random(0))\n"
        "print([name for name in ('scipy', 'sklearn', 'aiohttp') if name in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"version": 99}, "train the policy anew"),
        ({"format": "other"}, "no manifest of a router policy"),
        ({"arrays": "0" * 64}, "not those of its manifest"),
        ({"embedded": True}, "the embedder it was trained with"),
        ({"aim": {}}, "lacks something"),
        ({"calibrations": [{}]}, "lacks something"),
    ],
)
def test_what_does_not_fit_is_refused(folder: Path, tmp_path: Path, change: dict[str, object], complaint: str) -> None:
    facts = json.loads((folder / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps(facts | change))
    (tmp_path / "arrays.npz").write_bytes((folder / "arrays.npz").read_bytes())
    with pytest.raises(ConfigurationError, match=complaint):
        load_policy(tmp_path)


def test_a_folder_without_a_policy_says_how_to_make_one(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="agentflow router train"):
        load_policy(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ConfigurationError, match="no manifest"):
        load_policy(tmp_path)
    with pytest.raises(ConfigurationError, match="no embedder"):
        load_policy(folder, embed=lambda texts: [[1.0]])
