"""A recipe is judged when it is written down: what cannot work together is refused before any weight is read."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.errors import RecipeError
from agentflow.mcp.compression.recipe import EXPORTS, Distill, Export, Prune, Quantize, Recipe, Sparsify, Stage
from agentflow.mcp.compression.recipe_file import read_recipe, recipe_of, settings_of

WHOLE = Recipe(
    Prune(depth=0.5, heads=0.75),
    Distill(steps=2000, patience=3),
    Quantize("w4g64", method="gptq", ignore=("lm_head", "*.0.*")),
    Export("onnx"),
)


def test_a_recipe_is_a_value() -> None:
    assert Recipe(Quantize("w8"), Export("onnx")) == Recipe(Quantize("w8"), Export("onnx"))
    assert hash(Recipe(Quantize("w8"))) == hash(Recipe(Quantize("w8")))
    assert Recipe(Quantize("w8")) != Recipe(Quantize("w4g64"))
    assert repr(Recipe(Export("onnx"))) == "Recipe(Export(target='onnx'))"


@pytest.mark.parametrize(
    ("stages", "reason"),
    [
        ((), "without stages"),
        ((Export("onnx"), Prune(depth=0.5)), "stage 2: prune comes after export"),
        ((Export("onnx"), Export("gguf:q8_0")), "stage 2: export comes after export"),
        ((Quantize("w4g64"), Quantize("w8")), "stage 2: .*quantised once"),
        ((Quantize("w4g64"), Prune(depth=0.5)), "stage 2: .*cannot prune weights that are codes"),
        ((Quantize("w4g64"), Distill(steps=1)), "stage 2: .*cannot distill"),
        ((Sparsify(0.5), Distill(steps=1)), "stage 2: distill after sparsify would fill the zeros"),
        ((Quantize("w8a8"), Export("onnx")), "stage 2: onnx has no w8a8"),
        ((Quantize("w8a8"), Export("gguf:q8_0")), "gguf has no w8a8"),
        ((Quantize("w4g64"), Export("onnx:int4")), "are w4g64 already"),
        ((Quantize("w4g64"), Export("hf")), "hf is full precision"),
    ],
)
def test_stages_that_contradict_each_other_are_refused(stages: tuple[Stage, ...], reason: str) -> None:
    with pytest.raises(RecipeError, match=reason):
        Recipe(*stages)


def test_what_is_no_stage_is_refused() -> None:
    with pytest.raises(RecipeError, match="'w4g64' is no stage"):
        Recipe("w4g64")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (lambda: Prune(), "keeps everything"),
        (lambda: Prune(depth=0), "no share"),
        (lambda: Prune(depth=1.5), "no share"),
        (lambda: Prune(width=float("nan")), "no share"),
        (lambda: Sparsify(1.0), "no share"),
        (lambda: Sparsify(0.5, method="random"), "is none of"),  # type: ignore[arg-type]
        (lambda: Sparsify(0.5, pattern="2-4"), "N:M as in 2:4"),
        (lambda: Sparsify(0.5, pattern="4:4"), "N:M as in 2:4"),
        (lambda: Sparsify(0.6, pattern="2:4"), "2:4 is a sparsity of 0.5"),
        (lambda: Distill(steps=0), "at least 1"),
        (lambda: Distill(steps=1, temperature=0), "above 0"),
        (lambda: Distill(steps=1, mix=1.2), "shares"),
        (lambda: Distill(steps=1, divergence="l2"), "is none of"),  # type: ignore[arg-type]
        (lambda: Quantize("w4g64", method="magic"), "is none of"),  # type: ignore[arg-type]
        (lambda: Quantize("w4g64", method="smoothquant"), "for activations"),
        (lambda: Quantize("w8a8", method="awq"), "weights alone"),
        (lambda: Quantize("w4g64", budget="small"), "write '3.5 bits'"),
        (lambda: Quantize("w4g64", budget="1 bits"), "write '3.5 bits'"),
        (lambda: Quantize("w8a8", budget="4 bits"), "weights alone"),
        (lambda: Export("tflite"), "targets are hf"),
        (lambda: Export("onnx:int3"), "targets are hf"),
    ],
)
def test_a_stage_says_what_is_wrong_with_it(made: object, reason: str) -> None:
    assert callable(made)
    with pytest.raises(RecipeError, match=reason):
        made()


def test_a_budget_is_bits_or_divergence() -> None:
    assert Quantize("w4g64", budget="3.5 bits").limit() == ("bits", 3.5)
    assert Quantize("w4g64", budget="kl 0.02").limit() == ("kl", 0.02)


# ---- as a file ------------------------------------------------------------------------------------------------


def test_a_file_says_the_same(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yml"
    path.write_text("""
stages:
  - prune: {depth: 0.5, heads: 0.75}
  - distill: {steps: 2000, patience: 3}
  - quantize: {scheme: w4g64, method: gptq, ignore: [lm_head, "*.0.*"]}
  - export: onnx
""")
    assert read_recipe(path) == WHOLE


shares = st.floats(0.1, 0.9)
prunes = st.builds(Prune, depth=shares, width=shares)
distills = st.builds(
    Distill, steps=st.integers(1, 9), mix=shares, divergence=st.sampled_from(["forward_kl", "reverse_kl", "jsd"]),
    patience=st.none() | st.integers(1, 3),
)  # fmt: skip
quantizes = st.builds(Quantize, st.sampled_from(["w4g64", "w3g32-asym", "w8"]), budget=st.none() | st.just("3.5 bits"))
exports = st.builds(Export, st.sampled_from(["onnx", *(f"gguf:{kind}" for kind in EXPORTS["gguf"])]))


@given(st.lists(st.one_of(prunes, distills), max_size=3), quantizes, exports)
def test_every_recipe_can_be_written_as_plain_data_and_read(
    before: list[Stage], quantized: Quantize, exported: Export
) -> None:
    recipe = Recipe(*before, quantized, exported)
    plain = [{stage.kind: settings_of(stage)} for stage in recipe.stages]
    assert recipe_of(plain) == recipe  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "a recipe is a list of stages"),
        ("stages: []", "a recipe is a list of stages"),
        ("stage: [export: onnx]", "`stages` and nothing else"),
        ("stages: [quantise: {scheme: w4g64}]", "stage 1: 'quantise' is no stage"),
        ("stages: [quantize: {scheme: w4g64, metod: gptq}]", "stage 1: quantize has no setting 'metod': did you mean"),
        ("stages: [quantize: {method: gptq}]", "stage 1: .*missing required field `scheme`"),
        ("stages: [distill: {steps: many}]", "stage 1: Expected `int`, got `str` - at `distill.steps`"),
        ("stages: [distill: {steps: 1.5}]", "stage 1: Expected `int`, got `float` - at `distill.steps`"),
        ("stages: [distill: {steps: true}]", "stage 1: Expected `int`, got `bool` - at `distill.steps`"),
        ("stages: [{prune: {depth: 0.5}, export: onnx}]", "stage 1: a stage is one name"),
        ("stages: [", "is no YAML"),
    ],
)
def test_a_file_that_is_no_recipe_says_where(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "recipe.yml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=reason):
        read_recipe(path)


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot be read"):
        read_recipe(tmp_path / "none.yml")
