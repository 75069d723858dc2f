"""The stage as a recipe runs it: a student's folder in, a taught one out, or a clear error before hours are spent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support.tiny_models import tiny_decoder
from tests.support.trained import teacher_folder, texts

from agentflow.errors import (
    ArtifactError,
    CalibrationError,
    CompressionError,
    MissingExtraError,
    ModelFolderError,
    RecipeError,
)
from agentflow.mcp.compression.checkpoint import Checkpoint
from agentflow.mcp.compression.distillation import curves
from agentflow.mcp.compression.distillation.compute import Cost
from agentflow.mcp.compression.distillation.logits import LogitLesson
from agentflow.mcp.compression.distillation.stage import decoder, distill, schedule_of
from agentflow.mcp.compression.distillation.students import copied, fresh, which_layers
from agentflow.mcp.compression.distillation.training import train
from agentflow.mcp.compression.recipe import Distill
from agentflow.mcp.compression.work import CancelledWork, Work

ROOT = Path(__file__).resolve().parents[4]
torch.set_num_threads(1)
STAGE = Distill(steps=6, batch=2, length=8, warmup=2, evaluate_every=2, on_policy=0.5)


def windows(rows: int = 6, length: int = 8, seed: int = 0) -> torch.Tensor:
    return torch.randint(2, 300, (rows, length), generator=torch.Generator().manual_seed(seed))


def work_of(tmp_path: Path, **changes: Any) -> Work:
    """A teacher of three layers, its student of two in tmp_path/student."""
    if not (tmp_path / "teacher").exists():
        tiny_decoder(tmp_path / "teacher", initializer_range=0.1)
        copied(tmp_path / "teacher", tmp_path / "student", (0, 2))
    work = Work(
        calibration=windows(),
        training=windows(),
        evaluation=windows(3, seed=1),
        scratch=tmp_path / "scratch",
        teacher=tmp_path / "teacher",
    )
    return replace(work, **changes)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(one: Path, other: Path) -> bool:
    return all(torch.equal(tensor, weights(other)[name]) for name, tensor in weights(one).items())


def test_what_comes_out_is_a_whole_model_folder_and_its_record(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    told: list[tuple[str, int, int]] = []
    work = work_of(tmp_path, progress=lambda *each: told.append(each))
    record = distill(STAGE, tmp_path / "student", tmp_path / "target", work)
    loaded: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "target", output_loading_info=True)
    assert not loaded[1]["missing_keys"]
    assert AutoTokenizer.from_pretrained(tmp_path / "target")("the tide").input_ids
    assert not same(tmp_path / "student", tmp_path / "target")
    assert told[-1] == ("distilling", 6, 6)
    assert (record.kind, record.settings["steps"], record.facts["steps"]) == ("distill", 6, 6)
    assert record.parameters == Checkpoint.open(tmp_path / "student").parameters
    assert record.facts["tokens"] == 6 * 2 * 8
    json.dumps(dict(record.facts))  # what a manifest can hold
    curve = curves.read(tmp_path / "target")
    assert len(curve.losses) == 6
    assert sorted(curve.evaluations) == [0, 2, 4, 6]
    assert curve.evaluations[6]["kl"] == record.facts["after"]["kl"]  # type: ignore[index]


def test_weights_stay_in_the_types_they_had(tmp_path: Path) -> None:
    tiny_decoder(tmp_path / "teacher", dtype=torch.bfloat16, tied=True)
    copied(tmp_path / "teacher", tmp_path / "student", (0,))
    distill(STAGE, tmp_path / "student", tmp_path / "target", work_of(tmp_path))
    before, after = Checkpoint.open(tmp_path / "student").tensors, Checkpoint.open(tmp_path / "target").tensors
    assert {name: (each.dtype, each.shape) for name, each in before.items()} == {
        name: (each.dtype, each.shape) for name, each in after.items()
    }
    assert "lm_head.weight" not in after


PROGRAM = """
import os, signal, sys
from dataclasses import replace
from pathlib import Path
import torch
from tests.mcp.compression.distillation.test_stage import STAGE, work_of
from agentflow.mcp.compression.distillation.stage import distill
import agentflow.mcp.compression.distillation.outcome as outcome

def life(at):
    def told(what, done, of):
        if done == at:
            os.kill(os.getpid(), signal.SIGKILL)
    folder = Path(sys.argv[1])
    if at == 99:  # while the target is being written
        outcome.copy_companions = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    record = distill(STAGE, folder / "student", folder / "target", replace(work_of(folder), progress=told))
    print(record.facts["resumed"], flush=True)

work_of(Path(sys.argv[1]))
for at in (3, 5, 99, -1):
    child = os.fork()
    if child == 0:
        life(at)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), (Path(sys.argv[1]) / "target").exists(), flush=True)
"""


def test_killed_three_times_it_gives_the_weights_of_one_left_alone(tmp_path: Path) -> None:
    """SIGKILL twice in training, on text of its own too, and once while the result is written: bit for bit."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    killed = f"{-signal.SIGKILL} False"
    assert done.stdout.splitlines() == [killed, killed, killed, "[2, 4, 6]", "0 True"], done.stderr
    distill(STAGE, tmp_path / "student", tmp_path / "alone", work_of(tmp_path, scratch=tmp_path / "other"))
    assert same(tmp_path / "target", tmp_path / "alone")


def test_cancelled_it_leaves_no_target_and_can_go_on(tmp_path: Path) -> None:
    cancelled = Event()

    def told(what: str, done: int, of: int) -> None:
        if done == 5:
            cancelled.set()

    work = work_of(tmp_path, progress=told, cancelled=cancelled)
    with pytest.raises(CancelledWork):
        distill(STAGE, tmp_path / "student", tmp_path / "target", work)
    assert not (tmp_path / "target").exists()
    assert not list(tmp_path.glob(".target*"))
    record = distill(STAGE, tmp_path / "student", tmp_path / "target", work_of(tmp_path))
    assert record.facts["resumed"] == [4]
    distill(STAGE, tmp_path / "student", tmp_path / "alone", work_of(tmp_path, scratch=tmp_path / "other"))
    assert same(tmp_path / "target", tmp_path / "alone")


def test_another_stage_in_the_same_scratch_begins_anew(tmp_path: Path) -> None:
    distill(STAGE, tmp_path / "student", tmp_path / "one", work_of(tmp_path))
    other = distill(replace(STAGE, mix=0.5), tmp_path / "student", tmp_path / "two", work_of(tmp_path))
    texts_changed = distill(STAGE, tmp_path / "student", tmp_path / "three", work_of(tmp_path, training=windows(7)))
    assert other.facts["resumed"] == texts_changed.facts["resumed"] == []


def test_a_student_that_only_gets_worse_keeps_the_weights_it_came_with(tmp_path: Path) -> None:
    stage = replace(STAGE, steps=40, learning_rate=3.0, patience=2)
    record = distill(stage, tmp_path / "student", tmp_path / "target", work_of(tmp_path))
    assert (record.facts["steps"], record.facts["taken"], record.facts["stopped_early"]) == (4, 0, True)
    assert same(tmp_path / "student", tmp_path / "target")
    assert record.notes == (
        "no step made it better on held-out text: these are the weights it came with",
        "stopped after 4 of 40 steps, the best was 0",
    )


def test_longer_windows_are_cut_and_shorter_ones_noted(tmp_path: Path) -> None:
    whole = distill(STAGE, tmp_path / "student", tmp_path / "cut", work_of(tmp_path, training=windows(3, 17)))
    assert whole.facts["tokens"] == 6 * 2 * 8
    short = distill(replace(STAGE, length=32), tmp_path / "student", tmp_path / "short", work_of(tmp_path))
    assert short.notes[-1] == "the texts come in windows of 8 tokens, so it was not trained on 32"


# ---- what is refused -----------------------------------------------------------------------------------------


def refused(tmp_path: Path, stage: Distill = STAGE, **changes: Any) -> None:
    distill(stage, tmp_path / "student", tmp_path / "target", work_of(tmp_path, **changes))


@pytest.mark.parametrize("training", [windows(1), windows(0), torch.zeros(0, 0, dtype=torch.int64), windows(4, 1)])
def test_too_little_text_is_refused(tmp_path: Path, training: torch.Tensor) -> None:
    with pytest.raises(CalibrationError, match="distillation needs at least"):
        refused(tmp_path, training=training)
    with pytest.raises(CalibrationError, match="the evaluation of a distillation needs"):
        refused(tmp_path, evaluation=windows(0))
    assert not (tmp_path / "target").exists()


def test_a_teacher_of_another_vocabulary_is_refused(tmp_path: Path) -> None:
    tiny_decoder(tmp_path / "larger", vocab_size=310)
    with pytest.raises(ModelFolderError, match=r"vocabulary of 300 is not the teacher's of 310.*recorded answers"):
        refused(tmp_path, teacher=tmp_path / "larger")


def test_a_vocabulary_of_the_same_size_and_other_pieces_is_refused(tmp_path: Path) -> None:
    tiny_decoder(tmp_path / "other")
    path = tmp_path / "other" / "tokenizer.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"</s>"', '"</S>"'), encoding="utf-8")
    settings = tmp_path / "other" / "tokenizer_config.json"
    settings.write_text(settings.read_text(encoding="utf-8").replace('"</s>"', '"</S>"'), encoding="utf-8")
    with pytest.raises(ModelFolderError, match="piece by piece"):
        refused(tmp_path, teacher=tmp_path / "other")


def test_texts_of_another_tokenizer_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="not in the model's vocabulary"):
        refused(tmp_path, training=windows() + 100)


def test_a_length_above_the_context_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"length=129\).*reads 128 tokens at most"):
        refused(tmp_path, replace(STAGE, length=129))


def test_other_encoders_are_refused(tmp_path: Path) -> None:
    work = work_of(tmp_path)
    path = tmp_path / "teacher" / "config.json"
    path.write_text(path.read_text().replace("LlamaForCausalLM", "BertForMaskedLM"))
    with pytest.raises(RecipeError, match="is a BertForMaskedLM: logits are learnt from decoders"):
        distill(STAGE, tmp_path / "student", tmp_path / "target", work)


@pytest.mark.parametrize("harm", ["nan", "missing", "shape"])
def test_a_damaged_teacher_is_refused(tmp_path: Path, harm: str) -> None:
    work = work_of(tmp_path)
    path, name = tmp_path / "teacher" / "model.safetensors", "model.layers.1.mlp.up_proj.weight"
    state = load_file(path)
    state[name][3, 3] = float("nan")
    match harm:
        case "missing":
            del state[name]
        case "shape":
            state[name] = state[name][:5].nan_to_num()
    save_file(state, path, metadata={"format": "pt"})
    with pytest.raises(ModelFolderError, match="up_proj"):
        distill(STAGE, tmp_path / "student", tmp_path / "target", work)


def test_a_training_that_comes_apart_says_where_and_writes_no_target(tmp_path: Path) -> None:
    """Weights that grow beyond all numbers make the next loss none."""
    with pytest.raises(CompressionError, match=r"at step \d+ of 40.*learning rate below 1e\+30"):
        refused(tmp_path, replace(STAGE, steps=40, evaluate_every=40, learning_rate=1e30))
    assert not (tmp_path / "target").exists()


# ---- curves --------------------------------------------------------------------------------------------------


def test_a_curve_is_drawn(tmp_path: Path) -> None:
    distill(STAGE, tmp_path / "student", tmp_path / "target", work_of(tmp_path))
    curves.draw(curves.read(tmp_path / "target"), tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_a_missing_or_damaged_curve_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ArtifactError, match=r"distillation\.json cannot be read"):
        curves.read(tmp_path)
    (tmp_path / "distillation.json").write_text('{"settings": {}}')
    with pytest.raises(ArtifactError, match="losses"):
        curves.read(tmp_path)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"agentflow-engine\[report\]"):
        curves.draw(curves.Curve({}, (1.0,), {}), tmp_path / "curve.png")


# ---- whether it is of any use --------------------------------------------------------------------------------


def test_costs_are_counted_a_weight(tmp_path: Path) -> None:
    """The embedding is looked up; the head counts, whether it is tied to it or not."""
    untied, tied = (Checkpoint.open(tiny_decoder(tmp_path / str(each), tied=each)) for each in (False, True))
    body = untied.parameters - 300 * 64
    assert Cost.of(untied, 16).forward == 2 * body + 2 * 3 * 16 * 64
    assert Cost.of(tied, 16) == Cost.of(untied, 16)
    assert Cost.of(tied, 16).distilling(Cost(10.0), on_policy=0.5) == 3.5 * Cost.of(tied, 16).forward + 10


def test_copied_and_distilled_beats_the_same_student_trained_alone(tmp_path: Path) -> None:
    """On held-out text, at equal steps and at equal compute, where the teacher's reading is counted to the student."""
    teacher = teacher_folder()
    tokenizer = Checkpoint.open(teacher).tokenizer

    def cut(part: str, characters: int) -> torch.Tensor:
        ids = [i for text in texts(part) for i in tokenizer(text[:characters], truncation=True).input_ids]
        return torch.tensor(ids[: len(ids) // 48 * 48]).view(-1, 48)

    stage = Distill(steps=40, batch=8, length=48, warmup=8, evaluate_every=40, learning_rate=2e-3)
    training, evaluation = cut("train", 2000), cut("held_out", 600)[:24]
    copied(teacher, tmp_path / "student", which_layers(4, 2))
    work = Work(
        calibration=training, training=training, evaluation=evaluation, scratch=tmp_path / "scratch", teacher=teacher
    )
    record = distill(stage, tmp_path / "student", tmp_path / "target", work)
    before, after = record.facts["before"], record.facts["after"]
    assert isinstance(before, dict)
    assert isinstance(after, dict)
    assert after["kl"] < 0.7 * before["kl"]
    assert after["top1"] > before["top1"] + 0.05
    assert after["cross_entropy"] < before["cross_entropy"]

    student = Checkpoint.open(tmp_path / "student")
    alone = Cost.of(student, 48).training
    together = Cost.of(student, 48).distilling(Cost.of(Checkpoint.open(teacher), 48))
    steps = round(stage.steps * together / alone)
    assert steps > stage.steps * 1.5
    fresh(tmp_path / "student", tmp_path / "fresh")
    model = decoder(Checkpoint.open(tmp_path / "fresh"))
    schedule = schedule_of(replace(stage, steps=steps))
    lesson = LogitLesson(replace(stage, steps=steps), None, training, evaluation)
    course = train(model, lesson, schedule, scratch=tmp_path / "alone", key="alone")
    equal_steps, equal_compute = course.evaluations[1], course.evaluations[-1]
    assert (equal_steps.step, equal_compute.step) == (40, steps)
    assert after["cross_entropy"] < equal_steps.values["cross_entropy"] - 0.5
    assert after["cross_entropy"] < equal_compute.values["cross_entropy"] - 0.5
