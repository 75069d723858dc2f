"""What a model folder must be, and how it is told that it is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support.tiny_models import ARCHITECTURES, tiny_decoder

from agentflow.errors import ModelFolderError, UnsupportedArchitectureError
from agentflow.mcp.compression.checkpoint import Checkpoint, matches


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_decoder(tmp_path / "model")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("tied", [False, True])
def test_names_shapes_and_sizes_are_known_without_reading_a_weight(
    tmp_path: Path, architecture: str, tied: bool
) -> None:
    folder = tiny_decoder(tmp_path / "model", architecture, tied=tied)
    checkpoint = Checkpoint.open(folder)
    weights = load_file(folder / "model.safetensors")
    assert {name: facts.shape for name, facts in checkpoint.tensors.items()} == {
        name: tuple(weight.shape) for name, weight in weights.items()
    }
    assert checkpoint.parameters == sum(weight.numel() for weight in weights.values())
    assert checkpoint.bytes == checkpoint.parameters * 4
    assert (checkpoint.layers, checkpoint.context_length, checkpoint.is_decoder) == (3, 128, True)
    assert ("lm_head.weight" in checkpoint.tensors) is not tied
    assert torch.equal(checkpoint.load("model.norm.weight"), weights["model.norm.weight"])


def test_shards_are_read_by_their_index(tmp_path: Path, model: Path) -> None:
    from transformers import AutoModelForCausalLM

    sharded = tmp_path / "sharded"
    AutoModelForCausalLM.from_pretrained(model).save_pretrained(sharded, max_shard_size="100KB")
    assert len(list(sharded.glob("model-*.safetensors"))) > 1
    one, many = Checkpoint.open(model), Checkpoint.open(sharded)
    assert set(one.tensors) == set(many.tensors)
    assert all(torch.equal(one.load(name), many.load(name)) for name in one.tensors)
    next(sharded.glob("model-00002*")).unlink()
    with pytest.raises(ModelFolderError, match=r"model-00002.* is missing, which model.safetensors.index.json names"):
        Checkpoint.open(sharded)


def test_the_tokenizer_comes_from_the_folder(model: Path) -> None:
    tokenizer = Checkpoint.open(model).tokenizer
    assert tokenizer.decode(tokenizer("the tide")["input_ids"]) == "the tide"


def test_a_folder_without_a_tokenizer_says_so(model: Path) -> None:
    for path in model.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(ModelFolderError, match=r"it has no tokenizer \(tokenizer.json\): save one beside"):
        _ = Checkpoint.open(model).tokenizer


def test_what_is_no_model_folder_says_what_is_missing(tmp_path: Path, model: Path) -> None:
    with pytest.raises(ModelFolderError, match="there is no such folder"):
        Checkpoint.open(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelFolderError, match=r"it has no config.json"):
        Checkpoint.open(tmp_path / "empty")
    weights = model / "model.safetensors"
    weights.rename(model / "pytorch_model.bin")
    with pytest.raises(ModelFolderError, match=r"are pickled \(.bin\), which may run code"):
        Checkpoint.open(model)
    (model / "pytorch_model.bin").unlink()
    with pytest.raises(ModelFolderError, match="it has no weights"):
        Checkpoint.open(model)


@pytest.mark.parametrize(("text", "reason"), [("{", "cannot be read"), ("[]", "is no object")])
def test_a_config_that_cannot_be_read_is_an_error(model: Path, text: str, reason: str) -> None:
    (model / "config.json").write_text(text)
    with pytest.raises(ModelFolderError, match=reason):
        Checkpoint.open(model)


def test_another_architecture_is_named_beside_those_that_are_supported(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "architectures": ["MambaForCausalLM"]}))
    with pytest.raises(
        UnsupportedArchitectureError, match=r"MambaForCausalLM; supported are LlamaForCausalLM, "
    ) as told:
        Checkpoint.open(model)
    assert told.value.architecture == "MambaForCausalLM"


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_weight_that_is_no_number_is_named(model: Path, bad: float) -> None:
    weights = load_file(model / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][3, 5] = bad
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelFolderError, match=r"model.layers.1.mlp.up_proj.weight holds NaN or infinity"):
        Checkpoint.open(model).load("model.layers.1.mlp.up_proj.weight")


@pytest.mark.parametrize("kept", [4, 200, -1])
def test_a_file_that_was_cut_off_is_damaged(model: Path, kept: int) -> None:
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ModelFolderError, match=r"model.safetensors is damaged"):
        Checkpoint.open(model)


def test_a_tensor_that_is_not_there_is_an_error(model: Path) -> None:
    with pytest.raises(ModelFolderError, match="it has no tensor lm_tail"):
        Checkpoint.open(model).load("lm_tail")


def test_the_hash_is_of_every_file(model: Path) -> None:
    before = Checkpoint.open(model).sha256()
    assert Checkpoint.open(model).sha256() == before
    (model / "generation_config.json").write_text("{}")
    assert Checkpoint.open(model).sha256() != before


def test_modules_are_matched_by_their_whole_name_or_its_end() -> None:
    assert matches("model.layers.0.mlp.up_proj", ("up_proj",))
    assert matches("model.layers.0.mlp.up_proj", ("*.0.*",))
    assert matches("lm_head", ("lm_head",))
    assert not matches("model.layers.10.mlp.up_proj", ("*.0.*", "lm_head", "up"))


@pytest.mark.parametrize("name", ["num_hidden_layers", "max_position_embeddings"])
def test_a_config_that_lacks_a_number_says_which(model: Path, name: str) -> None:
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    (model / "config.json").write_text(json.dumps({**config, name: None}), encoding="utf-8")
    checkpoint = Checkpoint.open(model)
    with pytest.raises(ModelFolderError, match=f"its config.json has no number {name}"):
        checkpoint.layers if name == "num_hidden_layers" else checkpoint.context_length  # noqa: B018
