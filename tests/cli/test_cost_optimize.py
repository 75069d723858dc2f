"""`agentflow cost optimize`: from a log to proposals, files and JSON; and the bare command as it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.support.cost_traffic import Traffic
from tests.support.run_events import busy_run

from agentflow.core.observability.store import RunStore
from agentflow.llm.config.loader import read_layer

FILE = ".agentflow/runs.db"


def record(place: Path) -> None:
    """A run with fourteen model calls."""
    with RunStore(place / FILE) as store:
        for event in busy_run(14).events:
            store.observe(event)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("log") / "calls.jsonl"
    Traffic.drawn(seed=2, runs=150).log.write(file)
    return file


def test_a_log_is_replayed_and_what_it_comes_to_is_written(invoke, place: Path, log: Path) -> None:
    words = ("--runs", str(log), "--report", "out.html", "--patch", "patch.yml", "--picture", "out.png")
    shown = invoke("cost", "optimize", *words)
    assert shown.exit_code == 0, shown.stderr
    assert "Cache answers for 1 h" in shown.stdout
    assert "together, counting no dollar twice" in shown.stdout
    assert shown.stdout.endswith("wrote out.html, out.png, patch.yml\n")
    assert (place / "out.html").read_text().startswith("<!doctype html>")
    assert (place / "out.png").read_bytes().startswith(b"\x89PNG")
    assert read_layer("patch.yml", (place / "patch.yml").read_text()).document.models


def test_its_json_has_bounds_assumptions_and_the_prices_hash(invoke, place: Path, log: Path) -> None:
    found = json.loads(invoke("cost", "optimize", "--runs", str(log), "--json", "--patient", "support").stdout)
    assert {"cache", "batch"} <= {each["kind"] for each in found["proposals"]}
    for each in found["proposals"]:
        assert each["saves"]["low"] <= each["saves"]["value"] <= each["saves"]["high"]
        assert each["assumptions"]
    assert len(found["prices"]["sha256"]) == 64


def test_recorded_runs_are_read_where_no_log_is_named(invoke, place: Path) -> None:
    record(place)
    shown = invoke("cost", "optimize")
    assert shown.exit_code == 0, shown.stderr
    assert "calls have cost" in shown.stdout
    assert "note: " in shown.stderr
    assert invoke("cost", "optimize", "--since", "2100-01-01").stderr.startswith("note: there are no calls in this log")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--runs", "none.jsonl"), "cannot be read"),
        (("--report", "nowhere/out.html"), "mkdir -p nowhere"),
        (("--quality-floor", "2"), "2"),
        (("--runs", "a", "--file", "b"), "give one of them"),
    ],
)
def test_what_cannot_be_is_said_beforehand(invoke, place: Path, words: tuple[str, ...], said: str) -> None:
    shown = invoke("cost", "optimize", *words)
    assert shown.exit_code != 0
    assert said in shown.stderr


def test_the_bare_command_adds_up_as_before_and_names_the_other(invoke, place: Path) -> None:
    record(place)
    assert (place / FILE).exists()
    assert json.loads(invoke("cost", "--json").stdout)
    assert "optimize" in invoke("cost", "--help").stdout
    wrong = invoke("cost", "optimise")
    assert wrong.exit_code == 2
