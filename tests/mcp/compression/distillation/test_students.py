"""A student begins as a whole model folder that transformers loads, with the teacher's own tensors in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support.tiny_models import ARCHITECTURES, tiny_decoder

from agentflow.errors import CompressionError, RecipeError
from agentflow.mcp.compression.checkpoint import Checkpoint
from agentflow.mcp.compression.distillation.students import Choice, copied, fresh, narrowed, which_layers

torch.set_num_threads(1)


def loaded(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    found: Any = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    model, facts = found
    assert not facts["missing_keys"]
    assert not facts["unexpected_keys"]
    return model


def tiny_bert(folder: Path, prefix: str = "") -> Path:
    from transformers import BertConfig, BertForMaskedLM, BertModel

    torch.manual_seed(0)
    config = BertConfig(vocab_size=60, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32)
    (BertForMaskedLM if prefix else BertModel)(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("total", "keep", "choice", "layers"),
    [
        (12, 6, "even", (0, 2, 4, 7, 9, 11)),
        (4, 2, "even", (0, 3)),
        (6, 1, "even", (0,)),
        (3, 3, "even", (0, 1, 2)),
        (6, 2, "first", (0, 1)),
        (6, 2, "last", (4, 5)),
    ],
)
def test_layers_are_chosen(total: int, keep: int, choice: Choice, layers: tuple[int, ...]) -> None:
    assert which_layers(total, keep, choice) == layers


def test_evenly_chosen_layers_are_all_different() -> None:
    for total in range(1, 40):
        for keep in range(1, total + 1):
            layers = which_layers(total, keep)
            assert len(set(layers)) == keep
            assert max(layers) < total


@pytest.mark.parametrize("keep", [0, 5, -1])
def test_no_or_too_many_layers_are_refused(keep: int) -> None:
    with pytest.raises(RecipeError, match="of 4 layers, 1 to 4 can be kept"):
        which_layers(4, keep)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("tied", [False, True])
def test_a_copied_student_is_the_teacher_without_the_other_layers(
    tmp_path: Path, architecture: str, tied: bool
) -> None:
    teacher = tiny_decoder(tmp_path / "teacher", architecture, tied=tied)
    copied(teacher, tmp_path / "student", (0, 2))
    model, whole = loaded(tmp_path / "student"), loaded(teacher)
    whole.model.layers = torch.nn.ModuleList([whole.model.layers[0], whole.model.layers[2]])
    for at, layer in enumerate(whole.model.layers):
        layer.self_attn.layer_idx = at
    ids = torch.tensor([[5, 9, 40, 7]])
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, whole(ids).logits)
    assert Checkpoint.open(tmp_path / "student").layers == 2
    assert Checkpoint.open(tmp_path / "student").tokenizer("the tide").input_ids


def test_lists_of_a_kind_a_layer_shrink_with_them(tmp_path: Path) -> None:
    teacher = tiny_decoder(
        tmp_path / "teacher", "Qwen3ForCausalLM", layer_types=["full_attention", "sliding_attention", "full_attention"],
        use_sliding_window=True, sliding_window=16, max_window_layers=3,
    )  # fmt: skip
    copied(teacher, tmp_path / "student", (1, 2))
    config = json.loads((tmp_path / "student" / "config.json").read_text())
    assert config["layer_types"] == ["sliding_attention", "full_attention"]
    assert config["max_window_layers"] == 2
    loaded(tmp_path / "student")


@pytest.mark.parametrize("prefix", ["", "bert."])
def test_encoders_are_copied_and_narrowed_too(tmp_path: Path, prefix: str) -> None:
    teacher = tiny_bert(tmp_path / "teacher", prefix)
    copied(teacher, tmp_path / "copied", (2, 0))
    one, other = Checkpoint.open(tmp_path / "copied"), Checkpoint.open(teacher)
    for mine, theirs in ((0, 2), (1, 0)):
        name = f"{prefix}encoder.layer.{{}}.attention.self.query.weight"
        assert torch.equal(one.load(name.format(mine)), other.load(name.format(theirs)))
    narrowed(teacher, tmp_path / "narrow", channels=8)
    small = Checkpoint.open(tmp_path / "narrow")
    assert small.tensors[f"{prefix}encoder.layer.1.intermediate.dense.bias"].shape == (8,)
    assert small.tensors[f"{prefix}encoder.layer.1.output.dense.weight"].shape == (16, 8)
    assert small.tensors[f"{prefix}encoder.layer.1.attention.output.dense.weight"].shape == (16, 16)


def test_a_narrowed_student_keeps_the_channels_of_the_largest_weights(tmp_path: Path) -> None:
    """Dead channels change nothing when they go."""
    from safetensors.torch import load_file, save_file

    teacher = tiny_decoder(tmp_path / "teacher", mlp_bias=True)
    state = load_file(teacher / "model.safetensors")
    dead = torch.arange(128) % 4 == 0
    for layer in range(3):
        state[f"model.layers.{layer}.mlp.down_proj.weight"][:, dead] = 0
    save_file(state, teacher / "model.safetensors", metadata={"format": "pt"})
    narrowed(teacher, tmp_path / "student", channels=96)
    ids = torch.tensor([[5, 9, 40, 7]])
    with torch.no_grad():
        torch.testing.assert_close(loaded(tmp_path / "student")(ids).logits, loaded(teacher)(ids).logits)


def test_a_fresh_student_has_the_shape_and_nothing_that_was_learnt(tmp_path: Path) -> None:
    teacher = tiny_decoder(tmp_path / "teacher", dtype=torch.bfloat16)
    before = torch.random.get_rng_state()
    fresh(teacher, tmp_path / "one", seed=1)
    fresh(teacher, tmp_path / "again", seed=1)
    fresh(teacher, tmp_path / "other", seed=2)
    assert torch.equal(torch.random.get_rng_state(), before)
    one, again, other, whole = (Checkpoint.open(tmp_path / name) for name in ("one", "again", "other", "teacher"))
    assert {name: (each.dtype, each.shape) for name, each in one.tensors.items()} == {
        name: (each.dtype, each.shape) for name, each in whole.tensors.items()
    }
    name = "model.layers.0.mlp.up_proj.weight"
    assert torch.equal(one.load(name), again.load(name))
    assert not torch.equal(one.load(name), other.load(name))
    assert not torch.equal(one.load(name), whole.load(name))


@pytest.mark.parametrize("layers", [(), (0, 0), (0, 3), (-1,)])
def test_layers_that_it_does_not_have_are_refused(tmp_path: Path, layers: tuple[int, ...]) -> None:
    teacher = tiny_decoder(tmp_path / "teacher")
    with pytest.raises(RecipeError, match="are no layers of"):
        copied(teacher, tmp_path / "student", layers)
    assert not (tmp_path / "student").exists()


def test_a_student_is_not_written_over_anything(tmp_path: Path) -> None:
    teacher = tiny_decoder(tmp_path / "teacher")
    with pytest.raises(CompressionError, match="exists already"):
        copied(teacher, teacher, (0,))
    with pytest.raises(RecipeError, match="fewer can be kept"):
        narrowed(teacher, tmp_path / "student", channels=128)


def test_what_is_quantised_makes_no_student(tmp_path: Path) -> None:
    teacher = tiny_decoder(tmp_path / "teacher")
    config = json.loads((teacher / "config.json").read_text())
    (teacher / "config.json").write_text(json.dumps({**config, "quantization_config": {"bits": 4}}))
    with pytest.raises(RecipeError, match="quantised already"):
        copied(teacher, tmp_path / "student", (0,))
