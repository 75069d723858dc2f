"""From answers to an artifact: measured against the teacher, held to a gate, with an account of what it learnt from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tests.support.tiny_sorter import answers, student_at

from agentflow.errors import CompressionError, ConfigurationError, QualityGateError
from agentflow.llm.messages import Message, Request
from agentflow.mcp.compression.artifact import Artifact, Gate
from agentflow.mcp.compression.distillation.from_runs import sorter_of
from agentflow.mcp.compression.distillation.recorded import Prepared, Report
from agentflow.mcp.compression.distillation.teaching import Teaching
from agentflow.mcp.compression.measurement.speed import SpeedPlan
from agentflow.mcp.performance.edge.deployment import EdgeDeployment

LONGER = Teaching(steps=100, learning_rate=5e-3, batch=24, length=12, warmup=10, evaluate_every=50)
BRIEF = SpeedPlan(output_tokens=2, repeats=1, starts=1, threads=1)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def prepared(count: int = 150, *, held: int = 30, terms: str | None = "ours") -> Prepared:
    every = answers(count)
    report = Report(
        source="runs.db", selection={}, consent={}, teacher_terms=terms, runs=count, calls=count + 2,
        dropped={"the answer is empty": 2}, train=count - held, held_out=held, models={"large": count},
    )  # fmt: skip
    return Prepared(tuple(every[: count - held]), tuple(every[count - held :]), report)


async def test_an_artifact_that_answers_with_labels_and_says_where_it_learnt_them(tmp_path: Path) -> None:
    student = student_at(tmp_path / "student")
    gate = Gate(agreement=0.9)
    artifact = sorter_of(prepared(), student, tmp_path / "own", LONGER, gate=gate, plan=BRIEF)
    manifest = Artifact.open(tmp_path / "own").manifest
    assert manifest == artifact.manifest
    assert manifest.labels == ("games", "Mail", "sound")
    assert [stage.kind for stage in manifest.recipe] == ["distill-labels", "export"]
    assert manifest.after[0].agreement == 1.0
    assert manifest.after[0].texts == 30
    assert "the teacher's terms: ours" in manifest.source.notes
    assert "of 152 calls were left out 2: the answer is empty" in manifest.source.notes
    assert sorted(path.name for path in tmp_path.iterdir()) == ["own", "student"]
    provider = EdgeDeployment(artifact, threads=1).provider()
    asked = Request("own", (Message("system", "Name the section."), Message("user", "box reader card")))
    assert (await provider.execute(asked)).text == "games"
    await provider.aclose()


def test_what_is_below_its_floor_is_refused_and_can_be_looked_at(tmp_path: Path) -> None:
    student = student_at(tmp_path / "student")
    brief = Teaching(steps=1, learning_rate=1e-6, length=12, evaluate_every=1)
    with pytest.raises(QualityGateError, match="agreement"):
        sorter_of(prepared(60), student, tmp_path / "own", brief, gate=Gate(agreement=0.99), plan=BRIEF)
    with pytest.raises(QualityGateError, match="agreement"):
        EdgeDeployment(tmp_path / "own")


def test_everything_is_refused_before_the_training(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    with pytest.raises(ConfigurationError, match="teacher_terms"):
        sorter_of(prepared(terms=None), nowhere, tmp_path / "own", LONGER)
    with pytest.raises(CompressionError, match="held out"):
        sorter_of(prepared(held=0), nowhere, tmp_path / "own", LONGER)
    with pytest.raises(CompressionError, match="exists already"):
        sorter_of(prepared(), nowhere, tmp_path, LONGER)
    assert list(tmp_path.iterdir()) == []
