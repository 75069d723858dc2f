"""Outcomes out of the run store: what a router chose, and what was said of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentflow.core.observability import ExecutionEvent
from agentflow.core.observability.store import RunReader, RunStore
from agentflow.errors import ConfigurationError
from agentflow.mcp.optimization.router.learning.recorded import recorded_table


class Log:
    """Writes runs into a store, event by event."""

    def __init__(self, store: RunStore) -> None:
        self.store = store
        self.time = 1_700_000_000.0

    def tell(self, kind: str, run: str, sequence: int, path: str, span: int = 0, **data: object) -> None:
        self.time += 1
        ends = None if kind in ("feedback", "route") or kind.endswith("start") else 0.5
        node = path.rpartition("/")[2].partition("#")[0]
        self.store.observe(ExecutionEvent(kind, run, path, node, 1, sequence, self.time, ends, data=data, span=span))

    def call(self, run: str, first: int, path: str, model: str, prompt: str, chance: float | None) -> None:
        if chance is not None:
            self.tell("route", run, first, path, to=model, reason="?", propensity=chance, **{"from": "auto"})
        asked = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": prompt}]
        self.tell("model_start", run, first + 1, path, first + 1, model=model, provider="p", messages=asked)
        facts = {"model": model, "provider": "p", "cost": 0.01, "input_tokens": 12, "output_tokens": 34}
        self.tell("model_success", run, first + 2, path, first + 1, **facts)

    def run(self, run: str, *calls: tuple[str, str, str, float | None]) -> None:
        self.tell("flow_start", run, 1, "f")
        for place, (path, model, prompt, chance) in enumerate(calls):
            self.call(run, 2 + 3 * place, path, model, prompt, chance)
        self.tell("flow_success", run, 99, "f", 1, breakdown={})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "runs.db"
    with RunStore(path, capture="content", max_age=None) as store:
        log = Log(store)
        log.run("one", ("f/ask#1", "small", "How far is the moon?", 0.9))
        log.run("two", ("f/ask#1", "large", "Prove it.", 0.1), ("f/sum#1", "small", "Sum up.", None))
        log.run("silent", ("f/ask#1", "small", "Never judged.", 0.9))
        log.tell("feedback", "one", 0, "", score=1.0, source="user")
        log.tell("feedback", "one", 0, "", score=0.5, source="checker")
        log.tell("feedback", "two", 0, "f/ask#1", score=0.0, source="user")
    return path


def test_each_judged_choice_is_a_row(file: Path) -> None:
    with RunReader(file) as reader:
        table = recorded_table(reader, router="auto")
    assert table.texts == ("How far is the moon?", "Prove it.")
    assert table.models == ("small", "large")
    assert table.quality[0, 0] == 0.75
    assert table.quality[1, 1] == 0.0
    assert (table.propensity[0, 0], table.propensity[1, 1]) == (0.9, 0.1)
    assert (table.cost[0, 0], table.output_tokens[0, 0], table.input_tokens[0]) == (0.01, 34, 12)


def test_a_judgement_of_a_node_is_not_of_its_neighbour(file: Path) -> None:
    with RunReader(file) as reader:
        assert "Sum up." not in recorded_table(reader).texts


def test_nothing_to_learn_from_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with RunStore(path, max_age=None) as store:  # without contents
        log = Log(store)
        log.run("one", ("f/ask#1", "small", "How far?", 0.9))
        log.tell("feedback", "one", 0, "", score=1.0, source="user")
    with RunReader(path) as reader, pytest.raises(ConfigurationError, match="capture: content"):
        recorded_table(reader)
