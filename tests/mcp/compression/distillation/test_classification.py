"""A classifier that learns its teacher's labels: what it learns, what it writes, and that a crash costs it nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support.tiny_sorter import answers, student_at

from agentflow.errors import CompressionError, RecipeError
from agentflow.mcp.compression.checkpoint import Checkpoint
from agentflow.mcp.compression.distillation.classification import distil_labels
from agentflow.mcp.compression.distillation.teaching import Teaching, padded, parted

TEACHING = Teaching(steps=24, learning_rate=5e-3, batch=8, length=12, warmup=2, evaluate_every=8)
LONGER = Teaching(steps=100, learning_rate=5e-3, batch=24, length=12, warmup=10, evaluate_every=50)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return student_at(tmp_path_factory.mktemp("student"))


def test_it_learns_what_the_teacher_says(student: Path, tmp_path: Path) -> None:
    every = answers(150)
    record = distil_labels(
        student, every[:120], tmp_path / "taught", LONGER, scratch=tmp_path / "scratch", held_out=every[120:]
    )
    assert record.facts["labels"] == ["games", "Mail", "sound"]
    assert record.facts["agreement"] == 1.0
    assert (record.facts["learnt"], record.facts["tried"], record.facts["held_out"]) == (108, 12, 30)
    taught = Checkpoint.open(tmp_path / "taught")
    assert taught.architecture == "BertForSequenceClassification"
    assert taught.config["id2label"] == {"0": "games", "1": "Mail", "2": "sound"}
    names = {path.name for path in taught.files()}
    assert {"LICENSE", "tokenizer.json", "distillation.json"} <= names
    assert "modules.json" not in names


def test_the_folder_says_the_same_when_it_is_loaded_again(student: Path, tmp_path: Path) -> None:
    from transformers import pipeline

    distil_labels(student, answers(120), tmp_path / "taught", LONGER, scratch=tmp_path / "scratch")
    sort = pipeline("text-classification", model=str(tmp_path / "taught"), device=-1)
    assert [found["label"] for found in sort(["box reader card", "song mail box"])] == ["games", "Mail"]


def test_killed_and_run_again_it_comes_out_the_same(student: Path, tmp_path: Path) -> None:
    seen: list[int] = []

    def kill() -> None:
        seen.append(1)
        if len(seen) == 14:
            raise KeyboardInterrupt

    every = answers(60)
    with pytest.raises(KeyboardInterrupt):
        distil_labels(student, every, tmp_path / "a", TEACHING, scratch=tmp_path / "scratch", check=kill)
    assert not (tmp_path / "a").exists()
    again = distil_labels(student, every, tmp_path / "a", TEACHING, scratch=tmp_path / "scratch")
    whole = distil_labels(student, every, tmp_path / "b", TEACHING, scratch=tmp_path / "other")
    assert again.facts["resumed"] == [8]
    assert again.facts["after"] == whole.facts["after"]
    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()


def test_frozen_layers_stay_as_they_are(student: Path, tmp_path: Path) -> None:
    frozen = Teaching(steps=4, learning_rate=1e-2, batch=8, frozen=0.5)
    distil_labels(student, answers(60), tmp_path / "taught", frozen, scratch=tmp_path / "scratch")
    before, after = Checkpoint.open(student), Checkpoint.open(tmp_path / "taught")
    same = {name for name in before.tensors if torch.equal(before.load(name), after.load(f"bert.{name}"))}
    assert {name for name in before.tensors if name.startswith(("embeddings.", "encoder.layer.0."))} == same


def test_answers_that_are_no_labels_are_refused_and_rare_ones_are_told(student: Path, tmp_path: Path) -> None:
    story = answers(40, label=lambda number: f"a story of {number}")
    with pytest.raises(CompressionError, match="no labels"):
        distil_labels(student, story, tmp_path / "taught", TEACHING, scratch=tmp_path / "scratch")
    some = answers(60, label=lambda number: "I cannot say" if number == 3 else ["a", "b"][number % 2])
    brief = Teaching(steps=2, evaluate_every=2)
    odd = answers(4, label=lambda number: "what?" if number == 0 else "a")
    record = distil_labels(student, some, tmp_path / "taught", brief, scratch=tmp_path / "scratch", held_out=odd)
    assert record.facts["rare"] == 1
    assert any("came but once" in note for note in record.notes)
    assert any("none of the labels" in note for note in record.notes)
    assert isinstance(record.facts["agreement"], float)
    assert record.facts["agreement"] <= 0.75


def test_a_curve_lies_beside_the_weights(student: Path, tmp_path: Path) -> None:
    distil_labels(student, answers(60), tmp_path / "taught", TEACHING, scratch=tmp_path / "scratch")
    curve = json.loads((tmp_path / "taught/distillation.json").read_text())
    assert len(curve["losses"]) == TEACHING.steps
    assert [each["step"] for each in curve["evaluations"]] == [0, 8, 16, 24]


def test_the_newest_are_tried_on() -> None:
    learnt, tried = parted(answers(20)[::-1], 0.1)
    assert [answer.at for answer in tried] == [18.0, 19.0]
    assert len(learnt) == 18
    assert [len(part) for part in parted(answers(2), 0.1)] == [1, 1]
    with pytest.raises(CompressionError, match="too few"):
        parted(answers(1), 0.5)


def test_rows_are_filled_up_on_the_right() -> None:
    ids, mask = padded([[5, 6, 7], [8]], 0)
    assert ids.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"learning_rate": 0.0}, {"validation": 1.0}, {"frozen": 1.0}, {"length": 2}]
)
def test_teaching_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="Teaching"):
        Teaching(**{"steps": 1, **wrong})
