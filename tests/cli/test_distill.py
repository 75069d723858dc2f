"""`agentflow distill --from-runs`: what it counts, what it asks for before it begins, what it makes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from agentflow import AsyncFlow, ModelRegistry, SharedState, node
from agentflow.cli.main import commands
from agentflow.core.observability import emit, observe
from agentflow.core.observability.store import RunStore
from agentflow.llm.builder import LLMClientBuilder
from agentflow.llm.client import Call

YML = """
providers:
  lab: {kind: scripted, options: {answers: [mail, games, mail, games, mail, games]}}
models:
  large: {provider: lab, price: {input: 5.0, output: 25.0}}
"""


@pytest.fixture
async def runs(tmp_path: Path) -> Path:
    """Five runs that agree and one that says nothing."""
    (tmp_path / "models.yml").write_text(YML)
    registry = ModelRegistry.load(tmp_path / "models.yml", environ={}, cwd=tmp_path, home=tmp_path)

    @node
    async def sort(state: SharedState) -> None:
        if state["text"] != "http server":
            await emit("consent", {"training": True})
        await LLMClientBuilder(lambda: registry, Call("large")).prompt(str(state["text"])).execute()

    flow = AsyncFlow(sort, name="sorting")
    with RunStore(tmp_path / "runs.db", capture="content") as store, observe(store):
        for text in ("mail reader", "chess board", "mailing lists", "card tricks", "http server", "inbox search"):
            await flow.run({"text": text})
    await registry.aclose()
    return tmp_path / "runs.db"


def distill(*words: str | Path) -> Result:
    return CliRunner().invoke(commands, ["distill", "--from-runs", *map(str, words)])


async def test_a_dry_run_counts_and_writes_nothing(runs: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    said = distill("--file", runs, "--flow", "sorting", "--dry-run")
    assert said.exit_code == 0
    assert "6 calls of 6 runs" in said.stderr
    assert "1 left out: consent was not given" in said.stderr
    assert "4 to learn from, 1 held out" in said.stderr
    assert sorted(tmp_path.iterdir()) == before


async def test_the_account_comes_as_json(runs: Path) -> None:
    said = distill("--file", runs, "--without-consent", "--held-out", "0.5", "--dry-run", "--json")
    report = json.loads(said.stdout)
    assert (report["train"], report["held_out"], report["dropped"]) == (3, 3, {})
    assert report["models"] == {"large": 6}
    assert report["teacher_terms"] is None


async def test_it_asks_for_the_ground_before_anything_else(runs: Path, tmp_path: Path) -> None:
    said = distill("--file", runs, "--student", tmp_path, "--output", tmp_path / "own")
    assert said.exit_code == 2
    assert "--yes-i-may" in said.stderr


async def test_what_cannot_be_is_said_in_a_line(runs: Path, tmp_path: Path) -> None:
    words = ("--file", runs, "--yes-i-may", "ours", "--student", tmp_path / "none")
    said = distill(*words, "--output", tmp_path / "own")
    assert said.exit_code == 2
    assert "there is no such folder" in said.stderr
    said = distill(*words, "--output", tmp_path)
    assert "exists already" in said.stderr
    said = distill(*words, "--flow", "another", "--output", tmp_path / "own")
    assert "no answer is left to learn from, of 0 calls" in said.stderr


async def test_answers_are_kept_where_that_is_wanted(runs: Path, tmp_path: Path) -> None:
    words = ("--file", runs, "--yes-i-may", "ours", "--student", tmp_path / "none", "--output", tmp_path / "own")
    distill(*words, "--keep-answers", tmp_path / "answers")
    assert {path.name for path in (tmp_path / "answers").iterdir()} == {"train.jsonl", "held_out.jsonl", "report.json"}
    assert json.loads((tmp_path / "answers/report.json").read_text())["teacher_terms"] == "ours"


def test_from_runs_must_be_said() -> None:
    assert CliRunner().invoke(commands, ["distill", "--dry-run"]).exit_code == 2
