"""`agentflow router`: from a table to a policy, and what it says of itself."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.support.planted_outcomes import COST, planted

from agentflow.cli.main import commands


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("tables") / "outcomes.csv"
    outcomes = planted(300)
    with file.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["frage", "klein", "gross", "klein_cost", "gross_cost"])
        for text, quality in zip(outcomes.texts, outcomes.quality, strict=True):
            writer.writerow([text, *(bool(each) for each in quality), COST["small"], COST["large"]])
    return file


@pytest.fixture(scope="module")
def columns() -> list[str]:
    return ["--text-column", "frage", "--model", "small=klein", "--model", "large=gross"]


@pytest.fixture(scope="module")
def policy(table: Path, columns: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("policies") / "p"
    said = run("train", str(table), "--out", str(folder), "--quality-floor", "0.85", *columns)
    assert "decides: what was learned" in said
    assert "aim: quality_floor 0.85" in said
    return folder


def run(*words: str, code: int = 0) -> str:
    result = CliRunner().invoke(commands, ["router", *words])
    assert result.exit_code == code, result.output
    return result.output


def test_a_policy_is_shown(policy: Path) -> None:
    assert "small: quality 0.7" in run("show", str(policy))
    facts = json.loads(run("show", str(policy), "--json"))
    assert facts["models"] == ["small", "large"]
    assert facts["verdict"]["deployed"] is True


def test_a_policy_is_evaluated(policy: Path, table: Path, columns: list[str]) -> None:
    said = run("evaluate", str(policy), str(table), *columns)
    assert "300 rows; what was learned decides" in said
    assert "APGR" in said
    found = json.loads(run("evaluate", str(policy), str(table), "--json", *columns))
    assert found["learned"]["apgr"] > found["hull"]["apgr"]


def test_what_cannot_be_done_is_said(table: Path, policy: Path, columns: list[str], tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "x")]
    assert "give tables" in run("train", *out, code=2)
    assert "which column is the text" in run("train", str(table), *out, code=3)
    asked = ["evaluate", str(policy), str(table), *columns, "--price", "x=1,2,3,4"]
    assert "a price is MODEL=IN,OUT" in run(*asked, code=3)
    assert "holds no router policy" in run("show", str(tmp_path), code=3)
