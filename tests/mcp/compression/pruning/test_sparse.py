"""Zeros are where they were asked for, in the file; whatever was to be left alone is the same to the last byte."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.support.pruned import logits, perplexity, planted, windows_of, work_of
from tests.support.tiny_models import ARCHITECTURES, tiny_decoder
from tests.support.trained import teacher_folder

from agentflow.errors import CalibrationError, CompressionError, RecipeError
from agentflow.mcp.compression.artifact.manifest import StageRecord
from agentflow.mcp.compression.blocks import Block, Blocks
from agentflow.mcp.compression.checkpoint import Checkpoint, ShardWriter
from agentflow.mcp.compression.pruning import sparsify
from agentflow.mcp.compression.pruning.pattern import Pattern, wanda
from agentflow.mcp.compression.recipe import Sparsify
from agentflow.mcp.compression.work import CancelledWork

WINDOWS = torch.randint(0, 300, (5, 24), generator=torch.Generator().manual_seed(2))
METHODS = ("magnitude", "wanda", "sparsegpt")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def sparse(source: Path, stage: Sparsify, windows: torch.Tensor = WINDOWS) -> tuple[Path, StageRecord]:
    target = source.with_name(f"{source.name}-{stage.method}")
    return target, sparsify(stage, source, target, work_of(source.parent, windows))


def bytes_of(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("pattern", ["unstructured", "2:4"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_linear_layer_of_every_architecture_gets_its_zeros(
    tmp_path: Path, architecture: str, method: Any, pattern: str
) -> None:
    """Everything else (embeddings, norms, biases, the head) is byte for byte what it was; transformers loads it."""
    source = tiny_decoder(tmp_path / "model", architecture)
    folder, record = sparse(source, Sparsify(0.5, method, pattern))
    before, after = load_file(source / "model.safetensors"), load_file(folder / "model.safetensors")
    treated = {name for name in before if name.endswith("_proj.weight")}
    assert before.keys() == after.keys()
    for name, weight in after.items():
        if name in treated:
            assert Pattern.of(Sparsify(0.5, method, pattern)).shortfall(weight) == 0
            assert (weight == 0).double().mean() == 0.5
        else:
            assert bytes_of(weight) == bytes_of(before[name]), name
    assert record.facts["sparsity"] == {name.removesuffix(".weight"): 0.5 for name in treated}
    assert record.notes[0].startswith("zeros make neither the file smaller nor the model faster")
    assert (folder / "model.safetensors").stat().st_size == (source / "model.safetensors").stat().st_size
    assert logits(folder, WINDOWS).isfinite().all()


@pytest.mark.parametrize("method", METHODS)
def test_what_is_ignored_is_untouched_to_the_last_byte(tmp_path: Path, method: Any) -> None:
    """By a part's name, by a pattern, by a whole name: as in the rest of the recipe."""
    source = tiny_decoder(tmp_path / "model", dtype=torch.bfloat16)
    ignore = ("lm_head", "*.self_attn.*", "down_proj", "model.layers.1.mlp.up_proj")
    folder, record = sparse(source, Sparsify(0.5, method, ignore=ignore))
    before, after = load_file(source / "model.safetensors"), load_file(folder / "model.safetensors")
    changed = {name for name in before if bytes_of(before[name]) != bytes_of(after[name])}
    ups, gates = ({f"model.layers.{at}.mlp.{part}_proj.weight" for at in range(3)} for part in ("up", "gate"))
    assert changed == gates | ups - {"model.layers.1.mlp.up_proj.weight"}
    assert set(record.facts["sparsity"]) == {name.removesuffix(".weight") for name in changed}  # type: ignore[call-overload]


@pytest.mark.parametrize("method", METHODS)
def test_the_head_is_treated_where_it_is_not_ignored(tmp_path: Path, method: Any) -> None:
    source = tiny_decoder(tmp_path / "model")
    folder, record = sparse(source, Sparsify(0.5, method, ignore=()))
    assert (load_file(folder / "model.safetensors")["lm_head.weight"] == 0).double().mean() == 0.5
    assert record.facts["sparsity"]["lm_head"] == 0.5  # type: ignore[index]


def test_a_head_that_is_the_embedding_is_left_and_that_is_said(tmp_path: Path) -> None:
    folder, record = sparse(tiny_decoder(tmp_path / "model", tied=True), Sparsify(0.5, ignore=()))
    assert record.notes[-1] == "lm_head is the embedding, and was left as it is"
    assert "lm_head" not in record.facts["sparsity"]  # type: ignore[operator]
    assert logits(folder, WINDOWS).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("method", METHODS)
def test_halves_stay_halves(tmp_path: Path, method: Any, dtype: torch.dtype) -> None:
    """And what Wanda and magnitude keep is not rounded: they choose, and change nothing."""
    source = tiny_decoder(tmp_path / "model", dtype=dtype)
    folder, _ = sparse(source, Sparsify(0.5, method))
    before, after = load_file(source / "model.safetensors"), load_file(folder / "model.safetensors")
    assert {weight.dtype for weight in after.values()} == {dtype}
    if method != "sparsegpt":
        assert all(((after[name] == before[name]) | (after[name] == 0)).all() for name in before)


def test_each_layer_is_shown_what_the_treated_layers_before_it_say(tmp_path: Path) -> None:
    """The masks of the whole stage are Wanda's masks on the inputs of the model that was written."""
    source = tiny_decoder(tmp_path / "model")
    folder, _ = sparse(source, Sparsify(0.5))
    dense, written = load_file(source / "model.safetensors"), load_file(folder / "model.safetensors")
    differences = 0

    def visit(block: Block) -> None:
        # The inputs in a layer are those of the layer as it was, after treated ones: put it back, and look.
        treated = {name: linear.weight.clone() for name, linear in block.linears().items()}
        norms: dict[str, torch.Tensor] = {}
        for name, linear in block.linears().items():
            linear.weight.copy_(dense[f"{name}.weight"])
        with block.inputs_of(lambda name, x: norms.update({name: norms.get(name, 0) + x.double().square().sum(0)})):
            block.run()
        for name, linear in block.linears().items():
            nonlocal differences
            mask = wanda(dense[f"{name}.weight"], norms[name].sqrt(), Pattern(0.5))
            differences += int((mask != (written[f"{name}.weight"] != 0)).sum())
            linear.weight.copy_(treated[name])

    Blocks(Checkpoint.open(folder)).walk(WINDOWS, visit)
    assert differences == 0


def test_on_the_trained_model_sparsegpt_keeps_the_outputs_of_layers_best(tmp_path: Path) -> None:
    """As the record says itself, of every layer; and its perplexity is the lowest of the three."""
    windows, held_out = windows_of("calibration", 8), windows_of("held_out", 16)
    found = {"dense": perplexity(teacher_folder(), held_out)}
    errors = {}
    for method in METHODS:
        target = tmp_path / method
        record = sparsify(Sparsify(0.5, method, "2:4"), teacher_folder(), target, work_of(tmp_path, windows))
        found[method], errors[method] = perplexity(target, held_out), record.facts.get("layer_errors")
    print({method: round(value, 2) for method, value in found.items()}, errors)
    assert all(a < b for a, b in zip(errors["sparsegpt"], errors["wanda"], strict=True))  # type: ignore[arg-type]
    assert found["dense"] < found["sparsegpt"] < found["wanda"]
    assert found["sparsegpt"] < found["magnitude"]


def test_the_same_windows_make_the_same_file(tmp_path: Path) -> None:
    source = tiny_decoder(tmp_path / "model")
    one, _ = sparse(source, Sparsify(0.5, "sparsegpt"))
    sparsify(Sparsify(0.5, "sparsegpt"), source, tmp_path / "again", work_of(tmp_path, WINDOWS))
    assert (one / "model.safetensors").read_bytes() == (tmp_path / "again" / "model.safetensors").read_bytes()


# ---- what is verified, and what is refused -------------------------------------------------------------------


def test_a_layer_that_lacks_its_zeros_in_the_file_is_not_let_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What counts is the file, whatever the method thinks that it did."""
    add = ShardWriter.add

    def forgetful(self: ShardWriter, name: str, tensor: torch.Tensor) -> None:
        add(self, name, torch.ones_like(tensor) if name == "model.layers.1.mlp.up_proj.weight" else tensor)

    monkeypatch.setattr(ShardWriter, "add", forgetful)
    with pytest.raises(CompressionError, match=r"layers\.1\.mlp\.up_proj\.weight lacks 4,096 of the zeros asked for"):
        sparse(tiny_decoder(tmp_path / "model"), Sparsify(0.5))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_what_was_touched_though_ignored_is_not_let_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add = ShardWriter.add

    def careless(self: ShardWriter, name: str, tensor: torch.Tensor) -> None:
        add(self, name, tensor * 0 if name == "lm_head.weight" else tensor)

    monkeypatch.setattr(ShardWriter, "add", careless)
    with pytest.raises(CompressionError, match=r"lm_head\.weight was not to be touched"):
        sparse(tiny_decoder(tmp_path / "model"), Sparsify(0.5))


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        (Sparsify(0.5, ignore=("lm_haed",)), "'lm_haed' matches no linear layer of this model"),
        (Sparsify(0.5, ignore=("*",)), "matches every linear layer"),
        (Sparsify(0.2, pattern="1:5"), r"model\.layers\.0\..* has (64|128) inputs, which do not divide"),
    ],
)
def test_a_stage_that_does_not_fit_the_model_is_refused(tmp_path: Path, stage: Sparsify, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        sparse(tiny_decoder(tmp_path / "model"), stage)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_what_is_quantised_is_refused(tmp_path: Path) -> None:
    source = tiny_decoder(tmp_path / "model")
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "gptq"}}))
    with pytest.raises(RecipeError, match="quantised already"):
        sparse(source, Sparsify(0.5))


def test_an_encoder_is_refused(tmp_path: Path) -> None:
    import transformers

    sizes = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    transformers.BertModel(transformers.BertConfig(**sizes, num_attention_heads=2)).save_pretrained(tmp_path / "bert")
    with pytest.raises(RecipeError, match="Sparsify is for decoders; BertModel is none"):
        sparse(tmp_path / "bert", Sparsify(0.5, "magnitude"))


def test_text_is_needed_by_those_that_look_at_it(tmp_path: Path) -> None:
    source, nothing = tiny_decoder(tmp_path / "model"), torch.zeros(0, 24, dtype=torch.int64)
    with pytest.raises(CalibrationError, match="wanda needs"):
        sparse(source, Sparsify(0.5), nothing)
    _, record = sparse(source, Sparsify(0.5, "magnitude"), nothing)
    assert len(record.notes) == 1


def test_little_text_is_said(tmp_path: Path) -> None:
    _, record = sparse(tiny_decoder(tmp_path / "model"), Sparsify(0.5), WINDOWS[:1])
    assert record.notes[-1].startswith("24 calibration tokens for layers of 128 inputs")


def test_a_model_whose_layers_are_damaged_leaves_nothing(tmp_path: Path) -> None:
    source = tiny_decoder(tmp_path / "model")
    planted(source, {"model.layers.2.mlp.up_proj.weight": torch.full((128, 64), torch.inf)})
    for method in METHODS:
        with pytest.raises(CompressionError, match="holds NaN or infinity"):
            sparse(source, Sparsify(0.5, method))  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("method", METHODS)
def test_who_cancels_finds_nothing_left(tmp_path: Path, method: Any) -> None:
    source = tiny_decoder(tmp_path / "model")
    work = work_of(tmp_path, WINDOWS)

    def progress(what: str, done: int, of: int) -> None:
        if done == 2:
            work.cancelled.set()

    with pytest.raises(CancelledWork):
        sparsify(Sparsify(0.5, method), source, tmp_path / "target", replace(work, progress=progress))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
