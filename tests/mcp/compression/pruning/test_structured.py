"""What is taken out is gone from the file and from the work; what was nothing before it went is not missed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from tests.support.pruned import logits, perplexity, planted, windows_of, work_of
from tests.support.tiny_models import ARCHITECTURES, tiny_decoder
from tests.support.trained import teacher_folder
from torch.utils.flop_counter import FlopCounterMode

from agentflow.errors import CalibrationError, ModelFolderError, RecipeError
from agentflow.mcp.compression.artifact.manifest import StageRecord
from agentflow.mcp.compression.checkpoint import Checkpoint
from agentflow.mcp.compression.pruning import prune
from agentflow.mcp.compression.recipe import Prune
from agentflow.mcp.compression.work import CancelledWork

WINDOWS = torch.randint(0, 300, (5, 24), generator=torch.Generator().manual_seed(2))


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def pruned(source: Path, windows: torch.Tensor = WINDOWS, **shares: float) -> tuple[Path, StageRecord]:
    target = source.with_name(source.name + "-" + "-".join(shares))
    return target, prune(Prune(**shares), source, target, work_of(source.parent, windows))


def config(folder: Path) -> Mapping[str, Any]:
    return dict(json.loads((folder / "config.json").read_text(encoding="utf-8")))


def shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


# ---- smaller, and loaded by others ---------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_is_cut_in_depth_width_and_heads_and_still_writes(
    tmp_path: Path, architecture: str, tied: bool
) -> None:
    """transformers finds every weight in its place, no other, and generates."""
    from transformers import AutoModelForCausalLM

    source = tiny_decoder(tmp_path / "model", architecture, tied=tied, num_attention_heads=8, num_key_value_heads=4)
    folder, record = pruned(source, depth=0.67, width=0.5, heads=0.5)
    assert logits(folder, WINDOWS).isfinite().all()
    assert ("lm_head.weight" in shapes(folder)) is not tied
    assert {
        name: config(folder)[name] for name in config(source) if config(folder).get(name) != config(source)[name]
    } == {
        "num_hidden_layers": 2,
        "intermediate_size": 64,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    } | ({"layer_types": ["full_attention"] * 2, "max_window_layers": 2} if "Qwen" in architecture else {})
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.generate(WINDOWS[:1], max_new_tokens=5, do_sample=False, eos_token_id=None).shape == (1, 29)
    assert record.parameters == model.num_parameters() == sum(torch.Size(s).numel() for s in shapes(folder).values())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_is_left_computes_what_it_computed_with_the_rest_switched_off(tmp_path: Path, architecture: str) -> None:
    """The cut model is the whole one whose other channels and heads were made silent: no row is in a wrong place."""
    heads = {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 8}
    source = tiny_decoder(tmp_path / "model", architecture, **heads)
    folder, record = pruned(source, width=0.5, heads=0.5)
    silenced: dict[str, torch.Tensor] = {}
    files = [safe_open(each / "model.safetensors", framework="pt") for each in (source, folder)]
    with files[0] as file, files[1] as cut:
        for layer, groups in enumerate(record.facts["groups_kept"]):  # type: ignore[arg-type]
            name = f"model.layers.{layer}.self_attn.o_proj.weight"
            kept = torch.zeros(4, 16)
            kept[groups] = 1
            silenced[name] = file.get_tensor(name) * kept.flatten()
            name = f"model.layers.{layer}.mlp.down_proj.weight"
            whole, part = file.get_tensor(name), cut.get_tensor(name)
            there = (whole.T[:, None] == part.T[None]).all(-1).any(1)
            assert there.sum() == 64
            silenced[name] = whole * there
    before = logits(planted(source, silenced), WINDOWS)
    torch.testing.assert_close(logits(folder, WINDOWS), before, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("shares", "least"), [({"depth": 0.5}, 0.4), ({"width": 0.5}, 0.2), ({"heads": 0.5}, 0.1)])
def test_the_trained_model_has_less_to_multiply(tmp_path: Path, shares: dict[str, float], least: float) -> None:
    """As PyTorch counts the operations of the loaded model, and as the record says; embeddings stay what they were."""
    source, folder = teacher_folder(), tmp_path / "pruned"
    windows = windows_of("calibration", 2)
    record = prune(Prune(**shares), source, folder, work_of(tmp_path, windows))
    operations = []
    for each in (source, folder):
        with FlopCounterMode(display=False) as counter:
            logits(each, windows)
        operations.append(counter.get_total_flops())
    assert operations[1] < (1 - least) * operations[0]
    before, after = record.facts["multiplications"]  # type: ignore[misc]
    assert before - after == pytest.approx((operations[0] - operations[1]) / 2 / windows.numel(), rel=0.15)
    sizes = [(each / "model.safetensors").stat().st_size for each in (source, folder)]
    was, left = record.facts["parameters"]  # type: ignore[misc]
    assert sizes[0] - sizes[1] == pytest.approx(4 * (was - left), rel=0.01)
    assert {path.name for path in source.iterdir()} - {path.name for path in folder.iterdir()} == {"training.json"}


def test_a_model_of_halves_in_shards_is_cut_as_it_is_stored(tmp_path: Path) -> None:
    """The type of every tensor stays; the shards of the source are read where they lie."""
    from transformers import AutoModelForCausalLM

    source = tiny_decoder(tmp_path / "whole", dtype=torch.bfloat16)
    AutoModelForCausalLM.from_pretrained(source).save_pretrained(tmp_path / "shards", max_shard_size="60KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    folder, _ = pruned(tmp_path / "shards", depth=0.67, width=0.5)
    alike, _ = pruned(source, depth=0.67, width=0.5)
    assert {t.dtype for t in Checkpoint.open(folder).tensors.values()} == {"BF16"}
    assert torch.equal(logits(folder, WINDOWS), logits(alike, WINDOWS))


# ---- what is not missed --------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_layer_that_does_nothing_goes_first_and_is_not_missed(tmp_path: Path, architecture: str) -> None:
    """The one in the middle adds zero to what it is given."""
    source = tiny_decoder(tmp_path / "model", architecture)
    parts = ("self_attn.o_proj", "mlp.down_proj")
    names = [f"model.layers.1.{part}.{kind}" for part in parts for kind in ("weight", "bias")]
    there = shapes(source)
    before = logits(planted(source, {name: torch.zeros(there[name]) for name in names if name in there}), WINDOWS)
    folder, record = pruned(source, depth=0.67)
    assert record.facts["layers_kept"] == [0, 2]
    assert record.facts["layer_importance"][1] == pytest.approx(0, abs=1e-6)  # type: ignore[index]
    torch.testing.assert_close(logits(folder, WINDOWS), before, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("silent", ["mlp.up_proj", "mlp.down_proj"])
def test_channels_that_say_nothing_or_are_not_heard_are_not_missed(tmp_path: Path, silent: str) -> None:
    """Half of them, in other places in every layer."""
    source = tiny_decoder(tmp_path / "model")
    zeros: dict[str, torch.Tensor] = {}
    with safe_open(source / "model.safetensors", framework="pt") as file:
        for layer in range(3):
            name = f"model.layers.{layer}.{silent}.weight"
            gone = torch.randperm(128, generator=torch.Generator().manual_seed(layer))[:64]
            zeros[name] = file.get_tensor(name).index_fill(int(silent == "mlp.down_proj"), gone, 0.0)
    before = logits(planted(source, zeros), WINDOWS)
    folder, record = pruned(source, width=0.5)
    assert record.facts["channels_kept"] == [64, 128]
    assert record.facts["channel_importance_kept"] == [1.0, 1.0, 1.0]
    torch.testing.assert_close(logits(folder, WINDOWS), before, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dead", ["v_proj", "o_proj"])
def test_heads_that_say_nothing_or_are_not_heard_are_not_missed(tmp_path: Path, architecture: str, dead: str) -> None:
    """One group of two queries: another one in every layer. With biases, as Qwen2 has them."""
    source = tiny_decoder(tmp_path / "model", architecture, num_attention_heads=4, num_key_value_heads=2, head_dim=16)
    zeros: dict[str, torch.Tensor] = {}
    with safe_open(source / "model.safetensors", framework="pt") as file:
        for layer, group in enumerate((0, 1, 0)):
            prefix = f"model.layers.{layer}.self_attn.{dead}"
            weight = file.get_tensor(f"{prefix}.weight")
            (weight if dead == "v_proj" else weight.T).view(2, -1, 64)[group] = 0
            zeros[f"{prefix}.weight"] = weight
            if dead == "v_proj" and f"{prefix}.bias" in file.keys():  # noqa: SIM118
                bias = file.get_tensor(f"{prefix}.bias")
                bias.view(2, -1)[group] = 0
                zeros[f"{prefix}.bias"] = bias
    before = logits(planted(source, zeros), WINDOWS)
    folder, record = pruned(source, heads=0.5)
    assert record.facts["groups_kept"] == [[1], [0], [1]]
    assert config(folder)["head_dim"] == 16
    torch.testing.assert_close(logits(folder, WINDOWS), before, atol=1e-5, rtol=1e-4)


def test_attention_that_slides_keeps_to_its_layer(tmp_path: Path) -> None:
    """Of a Qwen2 whose last two layers see a window alone, the first of these is cut out: the other still slides."""
    changes = {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}
    source = tiny_decoder(tmp_path / "model", "Qwen2ForCausalLM", **changes)
    parts = {"self_attn.o_proj": 64, "mlp.down_proj": 128}
    zeros = {f"model.layers.1.{part}.weight": torch.zeros(64, size) for part, size in parts.items()}
    before = logits(planted(source, zeros), WINDOWS)
    folder, record = pruned(source, depth=0.67)
    assert record.facts["layers_kept"] == [0, 2]
    assert config(folder)["layer_types"] == ["full_attention", "sliding_attention"]
    assert config(folder)["max_window_layers"] == 1
    torch.testing.assert_close(logits(folder, WINDOWS), before, atol=1e-5, rtol=1e-4)


def test_biases_of_a_llama_are_cut_with_their_rows(tmp_path: Path) -> None:
    """Those of o_proj and down_proj belong to no head and no channel, and stay whole."""
    source = tiny_decoder(tmp_path / "model", attention_bias=True, mlp_bias=True)
    folder, _ = pruned(source, width=0.5, heads=0.5)
    found = shapes(folder)
    ends = {"q_proj": 32, "k_proj": 16, "v_proj": 16, "o_proj": 64}
    assert {part: found[f"model.layers.2.self_attn.{part}.bias"][0] for part in ends} == ends
    ends = {"gate_proj": 64, "up_proj": 64, "down_proj": 64}
    assert {part: found[f"model.layers.2.mlp.{part}.bias"][0] for part in ends} == ends
    assert logits(folder, WINDOWS).isfinite().all()


# ---- what is chosen on the trained model ---------------------------------------------------------------------


def test_importance_beats_chance_on_the_trained_model(tmp_path: Path) -> None:
    """Depth keeps the best two of its four layers there are; a width of a half costs a few percent."""
    held_out = windows_of("held_out", 16)
    work = work_of(tmp_path, windows_of("calibration", 8))
    dense = perplexity(teacher_folder(), held_out)
    found = {}
    for shares in ({"depth": 0.75}, {"depth": 0.5}, {"width": 0.75}, {"width": 0.5}, {"heads": 0.5}):
        name = "-".join(f"{part}{share}" for part, share in shares.items())
        prune(Prune(**shares), teacher_folder(), tmp_path / name, work)
        found[name] = perplexity(tmp_path / name, held_out) / dense
    print({name: round(ratio, 4) for name, ratio in found.items()}, "of", round(dense, 2))
    assert found["depth0.75"] < 1.2
    assert found["depth0.5"] < 1.45
    assert found["width0.75"] < 1.02
    assert found["width0.5"] < 1.06
    assert found["heads0.5"] < 1.75


def test_the_same_windows_choose_the_same_parts(tmp_path: Path) -> None:
    source = tiny_decoder(tmp_path / "model")
    one, first = pruned(source, depth=0.67, width=0.5)
    other = tmp_path / "again"
    again = prune(Prune(depth=0.67, width=0.5), source, other, work_of(tmp_path, WINDOWS))
    assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
    assert all_but_seconds(first) == all_but_seconds(again)


def all_but_seconds(record: StageRecord) -> Mapping[str, object]:
    return {name: getattr(record, name) for name in record.__struct_fields__ if name != "seconds"}


# ---- encoders ------------------------------------------------------------------------------------------------


def tiny_encoder(folder: Path, architecture: str, layers: int = 4) -> Path:
    import transformers

    torch.manual_seed(3)
    config = transformers.BertConfig(
        vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=layers, num_attention_heads=4,
        max_position_embeddings=64,
    )  # fmt: skip
    getattr(transformers, architecture)(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("architecture", ["BertModel", "BertForMaskedLM", "BertForSequenceClassification"])
def test_an_encoder_is_cut_in_depth(tmp_path: Path, architecture: str) -> None:
    """The layer that is planted as doing nothing goes, and the hidden states stay."""
    import transformers

    source = tiny_encoder(tmp_path / "model", architecture)
    stem = next(name for name in shapes(source) if ".layer.1." in name).partition("layer.1.")[0]
    there = shapes(source)
    zero = {
        f"{stem}layer.1.{part}.{kind}": torch.zeros(there[f"{stem}layer.1.{part}.{kind}"])
        for part in ("attention.output.dense", "output.dense")
        for kind in ("weight", "bias")
    }
    planted(source, zero)
    kind = getattr(transformers, architecture)
    folder, record = pruned(source, depth=0.75)
    assert record.facts["layers_kept"] == [0, 2, 3]
    with torch.no_grad():
        before = kind.from_pretrained(source).eval()(WINDOWS)[0]
        model, told = kind.from_pretrained(folder, output_loading_info=True)
        after = model.eval()(WINDOWS)[0]
    assert not any(told.values()), told
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-3)


def test_an_encoder_is_cut_in_depth_alone(tmp_path: Path) -> None:
    source = tiny_encoder(tmp_path / "model", "BertModel")
    with pytest.raises(RecipeError, match="BertModel is an encoder, which is pruned in depth alone"):
        pruned(source, depth=0.5, width=0.5)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        ({"num_hidden_layers": 6}, r"it has no tensor encoder\.layer\.4\..* which its config\.json asks for"),
        ({"intermediate_size": 32}, r"its weights do not fit its config\.json"),
    ],
)
def test_an_encoder_is_not_measured_with_weights_that_it_does_not_have(
    tmp_path: Path, number: dict[str, int], words: str
) -> None:
    """transformers would make up what is missing."""
    source = tiny_encoder(tmp_path / "model", "BertModel")
    (source / "config.json").write_text(json.dumps({**config(source), **number}), encoding="utf-8")
    with pytest.raises(ModelFolderError, match=words):
        pruned(source, depth=0.5)


# ---- what is refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        ({"depth": 0.1}, r"Prune\(depth=0\.1\) keeps 0 of the 3 layers of this model: give between 0\.333 and 0\.667"),
        ({"depth": 0.9}, r"Prune\(depth=0\.9\) keeps 3 of the 3 layers"),
        ({"heads": 0.2}, r"keeps 0 of the 2 groups of attention heads of this model: give between 0\.5 and 0\.5"),
        ({"width": 0.01}, r"keeps 0 of the 8 times 16 channels of this model: give between 0\.125 and 0\.875"),
    ],
)
def test_a_share_that_leaves_nothing_or_everything_is_refused(
    tmp_path: Path, shares: dict[str, float], words: str
) -> None:
    with pytest.raises(RecipeError, match=words):
        pruned(tiny_decoder(tmp_path / "model"), **shares)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_heads_that_transformers_would_not_load_of_a_llama_are_refused(tmp_path: Path) -> None:
    """It wants the hidden size to be a multiple of the heads, of this architecture alone."""
    heads = {"num_attention_heads": 8, "num_key_value_heads": 4}
    with pytest.raises(RecipeError, match=r"6 heads, and a Llama's hidden size \(64\) .*: give heads=0\.25 or 0\.5"):
        pruned(tiny_decoder(tmp_path / "llama", **heads), heads=0.75)
    folder, _ = pruned(tiny_decoder(tmp_path / "mistral", "MistralForCausalLM", **heads), heads=0.75)
    assert logits(folder, WINDOWS).isfinite().all()


def test_what_is_quantised_is_refused(tmp_path: Path) -> None:
    source = tiny_decoder(tmp_path / "model")
    changed = {**config(source), "quantization_config": {"quant_method": "compressed-tensors"}}
    (source / "config.json").write_text(json.dumps(changed), encoding="utf-8")
    with pytest.raises(RecipeError, match="quantised already; prune the model in full precision"):
        pruned(source, depth=0.5)


def test_no_windows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="needs at least 1 tokens"):
        pruned(tiny_decoder(tmp_path / "model"), torch.zeros(0, 24, dtype=torch.int64), depth=0.67)


def test_a_damaged_weight_leaves_nothing_behind(tmp_path: Path) -> None:
    source = tiny_decoder(tmp_path / "modèle 🌊")
    planted(source, {"lm_head.weight": torch.full((300, 64), torch.nan)})
    with pytest.raises(ModelFolderError, match=r"lm_head\.weight holds NaN"):
        pruned(source, depth=0.67)
    assert [path.name for path in tmp_path.iterdir()] == ["modèle 🌊"]


def test_who_cancels_finds_nothing_left(tmp_path: Path) -> None:
    """In the middle of writing, as in the middle of measuring."""
    source = tiny_decoder(tmp_path / "model")
    for moment in ("prune: measuring layers", "prune: writing tensors"):
        work = work_of(tmp_path, WINDOWS)

        def progress(what: str, done: int, of: int, moment: str = moment, work: Any = work) -> None:
            if what == moment and done == 2:
                work.cancelled.set()

        with pytest.raises(CancelledWork):
            prune(Prune(depth=0.67), source, tmp_path / "target", replace(work, progress=progress))
        assert [path.name for path in tmp_path.iterdir()] == ["model"]
