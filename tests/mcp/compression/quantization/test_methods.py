"""Each method does what its paper says, on layers small enough to be checked by hand or by brute force."""

from __future__ import annotations

import itertools

import pytest
import torch

from agentflow.errors import CompressionError, RecipeError
from agentflow.mcp.compression.quantization.awq import clipped, objective, searched
from agentflow.mcp.compression.quantization.gptq import gptq
from agentflow.mcp.compression.quantization.grid import fit, groups_of, rtn
from agentflow.mcp.compression.quantization.hqq import hqq, misfit
from agentflow.mcp.compression.quantization.inputs import Inputs
from agentflow.mcp.compression.quantization.smoothquant import input_scale, round_inputs, smoothing
from agentflow.mcp.compression.scheme import Scheme

F32 = torch.float32
SCHEMES = ("w8", "w4g32", "w4g32-asym", "w3g32", "w2g16-asym", "w2g16")


def inputs_of(seed: int, channels: int = 64, tokens: int = 512) -> tuple[torch.Tensor, Inputs]:
    """Rows whose channels are correlated and differ in size, as a network's do."""
    generator = torch.Generator().manual_seed(seed)
    fixed = torch.Generator().manual_seed(99)
    mixing = torch.randn(channels, channels, generator=fixed) / channels**0.5 + torch.eye(channels)
    sizes = torch.randn(channels, generator=fixed).exp()
    rows = torch.randn(tokens, channels, generator=generator) @ mixing * sizes
    inputs = Inputs(channels)
    for part in rows.split(100):
        inputs.see(part)
    return rows, inputs


@pytest.fixture
def weight() -> torch.Tensor:
    weight = torch.randn(24, 64, generator=torch.Generator().manual_seed(3)) * 0.1
    weight[3, 5] = 2.0  # an outlier
    return weight


# ---- the grid ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", SCHEMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_rounding_errs_by_half_a_step_at_most(weight: torch.Tensor, text: str, dtype: torch.dtype) -> None:
    """But for the highest of a symmetric group, which lies half a step beyond the last code."""
    scheme = Scheme.parse(text)
    made = rtn(weight, scheme, dtype)
    steps = made.scales.to(F32).repeat_interleave(64 // made.scales.shape[1], dim=1)
    error = (made.dequantize(F32) - weight).abs() / steps
    assert error.max() < 0.5 + {torch.float32: 1e-4, torch.float16: 0.15, torch.bfloat16: 1.1}[dtype]
    assert made.codes.amin() >= scheme.lowest
    assert made.codes.amax() <= scheme.highest


def test_zero_is_exactly_zero(weight: torch.Tensor) -> None:
    weight[:, ::3] = 0
    weight[4] = weight[4].abs()
    for text in SCHEMES:
        assert not rtn(weight, Scheme.parse(text), F32).dequantize()[:, ::3].any()


def test_scales_too_small_for_their_type_divide_nothing_by_zero() -> None:
    made = rtn(torch.full((2, 32), 1e-9), Scheme.parse("w4g16-asym"), torch.float16)
    assert made.dequantize().isfinite().all()


def test_a_group_that_does_not_fill_the_columns_is_refused() -> None:
    with pytest.raises(RecipeError, match="odd has 40 input channels, which groups of 16 do not fill: groups of 8 fit"):
        groups_of(40, Scheme.parse("w4g16"), "odd")
    with pytest.raises(RecipeError, match="no group fits"):
        groups_of(33, Scheme.parse("w4g16"))
    assert groups_of(33, Scheme.parse("w8")) == 1


# ---- inputs ------------------------------------------------------------------------------------------------------


def test_sums_say_what_the_rows_say(weight: torch.Tensor) -> None:
    """The error by Σ x xᵀ is the error of the outputs."""
    rows, inputs = inputs_of(1)
    other = weight + torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)) * 0.01
    direct = (rows @ (weight - other).T).square().sum() / (rows @ weight.T).square().sum()
    assert inputs.error(weight, other) == pytest.approx(float(direct), rel=1e-4)
    torch.testing.assert_close(inputs.mean, rows.abs().mean(0))
    torch.testing.assert_close(inputs.highest, rows.abs().amax(0))
    by = torch.linspace(0.5, 2, 64)
    divided = Inputs(64)
    divided.see(rows / by)
    torch.testing.assert_close(inputs.divided(by).gram, divided.gram, rtol=1e-3, atol=1e-2)


# ---- GPTQ --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [True, False])
@pytest.mark.parametrize("text", SCHEMES)
def test_gptq_errs_less_than_rtn_also_on_inputs_it_never_saw(weight: torch.Tensor, text: str, order: bool) -> None:
    scheme = Scheme.parse(text)
    made = gptq(weight, inputs_of(1)[1].gram, scheme, F32, order=order).dequantize()
    plain = rtn(weight, scheme, F32).dequantize()
    for seed in (1, 2):
        inputs = inputs_of(seed)[1]
        assert inputs.error(weight, made) < inputs.error(weight, plain)


def test_gptq_is_the_paper_written_out(weight: torch.Tensor) -> None:
    """Against the update by the inverse of what is left of H, column by column, in double precision (its equation 2):
    w_k ← w_k − e / [H⁻¹]_jj · [H⁻¹]_jk."""
    scheme = Scheme.parse("w4g32")
    gram = inputs_of(1)[1].gram
    grid = fit(weight, scheme, F32)
    h = gram.double() / gram.diagonal().double().mean() + 0.01 * torch.eye(64, dtype=torch.float64)
    left, codes = weight.double().clone(), torch.zeros(weight.shape)
    for j in range(64):
        inverse = torch.linalg.inv(h[j:, j:])
        scales = grid.scales[:, j // 32].double()
        codes[:, j] = (left[:, j] / scales).clamp(-8, 7).round()
        error = (left[:, j] - codes[:, j] * scales) / inverse[0, 0]
        left[:, j:] -= error.unsqueeze(1) * inverse[0]
    ours = gptq(weight, gram, scheme, F32, order=False)
    assert (ours.codes == codes).double().mean() > 0.995


def test_gptq_without_correlated_inputs_is_rtn(weight: torch.Tensor) -> None:
    """There is nothing that others could make up for."""
    scheme = Scheme.parse("w4g32-asym")
    assert torch.equal(gptq(weight, torch.eye(64), scheme, F32).codes, rtn(weight, scheme, F32).codes)


def test_gptq_rounds_channels_that_were_never_seen(weight: torch.Tensor) -> None:
    scheme = Scheme.parse("w4g32")
    rows, _ = inputs_of(1)
    rows[:, 10:20] = 0
    inputs = Inputs(64)
    inputs.see(rows)
    made, plain = gptq(weight, inputs.gram, scheme, F32), rtn(weight, scheme, F32)
    assert torch.equal(made.codes[:, 10:20], plain.codes[:, 10:20])
    assert torch.equal(gptq(weight, torch.zeros(64, 64), scheme, F32).codes, plain.codes)


def test_gptq_takes_fewer_tokens_than_channels_by_damping(weight: torch.Tensor) -> None:
    _, inputs = inputs_of(1, tokens=5)
    scheme = Scheme.parse("w4g32")
    assert inputs.error(weight, gptq(weight, inputs.gram, scheme, F32).dequantize()) < 0.1


def test_gptq_says_that_inputs_are_not_finite(weight: torch.Tensor) -> None:
    with pytest.raises(CompressionError, match="NaN or infinity"):
        gptq(weight, torch.full((64, 64), torch.nan), Scheme.parse("w4g32"), F32)


# ---- AWQ ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["w4g32", "w4g32-asym", "w3g32", "w2g16"])
def test_awqs_objective_falls_below_rtns_also_on_inputs_it_never_saw(weight: torch.Tensor, text: str) -> None:
    scheme = Scheme.parse(text)
    weights, schemes = [weight, weight.flip(0) * 0.5], [scheme, scheme]
    _, inputs = inputs_of(1)
    scales = searched(weights, inputs, schemes, F32)
    assert scales is not None
    for seed in (1, 2):
        seen = inputs_of(seed)[1]
        assert objective(weights, seen, schemes, F32, scales) < objective(weights, seen, schemes, F32, None)


def test_awqs_objective_is_the_papers(weight: torch.Tensor) -> None:
    """‖Q(W · s) (s⁻¹ · X) − W X‖², written out over the rows."""
    rows, inputs = inputs_of(1)
    scheme = Scheme.parse("w4g32")
    scales = torch.linspace(0.5, 3, 64)
    direct = (rows / scales) @ rtn(weight * scales, scheme, F32).dequantize().T - rows @ weight.T
    assert objective([weight], inputs, [scheme], F32, scales) == pytest.approx(float(direct.square().sum()), rel=1e-3)


def test_awq_takes_the_best_exponent_of_its_grid(weight: torch.Tensor) -> None:
    scheme = Scheme.parse("w3g32")
    _, inputs = inputs_of(1)
    scales = searched([weight], inputs, [scheme], F32)
    assert scales is not None
    powers = [inputs.mean.pow(step / 20) for step in range(21)]
    best = min(
        objective([weight], inputs, [scheme], F32, power / (power.max() * power.min()).sqrt()) for power in powers
    )
    assert objective([weight], inputs, [scheme], F32, scales) == pytest.approx(best)


def test_awq_scales_nothing_where_nothing_is_won() -> None:
    """Weights that lie on the grid already."""
    weight = torch.tensor([[-7.5, 7.0, 3.0, -2.0] * 16] * 4)
    _, inputs = inputs_of(1)
    assert searched([weight], inputs, [Scheme.parse("w8")], F32) is None or (
        objective([weight], inputs, [Scheme.parse("w8")], F32, None) > 0
    )


@pytest.mark.parametrize("text", ["w4g32", "w3g32-asym", "w2g16"])
def test_clipping_never_errs_more(weight: torch.Tensor, text: str) -> None:
    scheme = Scheme.parse(text)
    _, inputs = inputs_of(1)
    made = inputs.error(weight, clipped(weight, inputs, scheme, F32).dequantize())
    assert made <= inputs.error(weight, rtn(weight, scheme, F32).dequantize())


# ---- HQQ ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", SCHEMES)
def test_hqq_fits_better_by_its_own_measure_in_every_group(text: str) -> None:
    """Σ |W − Ŵ|^0.7, on weights with the heavy tails that the measure is for."""
    generator = torch.Generator().manual_seed(4)
    weight = torch.randn(24, 64, generator=generator) / torch.rand(24, 64, generator=generator).clamp(min=0.05)
    scheme = Scheme.parse(text)
    made = hqq(weight, scheme, F32)
    error = (weight - made.dequantize()).abs().reshape(*made.scales.shape, -1).pow(0.7).sum(-1)
    plain = misfit(weight, fit(weight, scheme, F32))
    assert (error <= plain * (1 + 1e-5)).all()
    assert error.sum() < 0.99 * plain.sum() or scheme.bits == 8
    if made.zeros is not None:  # storable
        assert made.zeros.dtype == torch.int8
        assert made.zeros.amin() >= scheme.lowest
        assert made.zeros.amax() <= scheme.highest


def test_rounding_a_real_zero_point_afterwards_would_lose() -> None:
    """Why z is sought among integers: the original's z, rounded when all is done, fits worse on average."""
    generator = torch.Generator().manual_seed(4)
    weight = torch.randn(64, 64, generator=generator) / torch.rand(64, 64, generator=generator).clamp(min=0.05)
    scheme = Scheme.parse("w3g32-asym")
    start = fit(weight, scheme, F32)
    assert start.zeros is not None
    scales, grouped = start.scales.unsqueeze(-1), weight.reshape(64, 2, 32)
    zeros = start.zeros.to(F32).unsqueeze(-1)
    for _ in range(20):
        codes = (grouped / scales + zeros).round().clamp(-4, 3)
        error = grouped / scales - (codes - zeros)
        size = error.abs().clamp(min=1e-8)
        kept = error.sign() * (size - size.pow(-0.3) / 10).clamp(min=0)
        zeros = (codes - (grouped / scales - kept)).mean(-1, keepdim=True)
    zeros = zeros.round().clamp(-4, 3)
    codes = (grouped / scales + zeros).round().clamp(-4, 3)
    rounded = (grouped - (codes - zeros) * scales).abs().pow(0.7).sum()
    ours = (weight - hqq(weight, scheme, F32).dequantize()).abs().pow(0.7).sum()
    assert ours < rounded


# ---- SmoothQuant -------------------------------------------------------------------------------------------------


def test_smoothing_makes_inputs_and_weights_as_hard_as_each_other(weight: torch.Tensor) -> None:
    """With α = 0.5, max|X_j| / s_j = max|W_j| · s_j in every channel."""
    _, inputs = inputs_of(1)
    scales = smoothing([weight, weight * 2], inputs)
    torch.testing.assert_close(inputs.highest / scales, weight.abs().amax(0) * 2 * scales)


def test_smoothing_helps_where_a_channel_is_large(weight: torch.Tensor) -> None:
    """The paper's case: few channels of inputs are a hundred times the others."""
    rows, _ = inputs_of(1)
    rows[:, [7, 40]] *= 100
    inputs = Inputs(64)
    inputs.see(rows)
    scheme = Scheme.parse("w8a8")

    def error(scales: torch.Tensor) -> float:
        layer = torch.nn.Linear(64, 24, bias=False)
        layer.weight.data = rtn(weight * scales, scheme, F32).dequantize()
        round_inputs(layer, None)
        with torch.no_grad():
            return float((layer(rows / scales) - rows @ weight.T).square().sum())

    assert error(smoothing([weight], inputs)) < 0.2 * error(torch.ones(64))


def test_a_static_scale_holds_the_largest_input() -> None:
    rows, inputs = inputs_of(1)
    scale = input_scale(inputs, F32)
    assert scale.shape == (1,)
    assert float(scale) * 127.5 == pytest.approx(float(rows.abs().max()))


def test_rounded_inputs_have_256_values_at_most() -> None:
    layer = torch.nn.Linear(64, 64, bias=False)
    layer.weight.data = torch.eye(64)
    round_inputs(layer, torch.tensor([0.01]))
    with torch.no_grad():
        seen = layer(torch.linspace(-3, 3, 6400).reshape(100, 64))
    assert len(seen.unique()) == 256
    assert not layer(torch.zeros(1, 64)).any()


def test_every_scheme_of_the_words_can_be_fitted(weight: torch.Tensor) -> None:
    for bits, group, how in itertools.product((2, 3, 4, 8), (8, 64), ("", "-asym")):
        made = fit(weight, Scheme.parse(f"w{bits}g{group}{how}"), F32).nearest(weight)
        assert made.scales.shape == (24, 64 // group)
