"""SparseGPT's update is that of Optimal Brain Surgeon, and errs less than dropping weights does."""

from __future__ import annotations

import pytest
import torch
from tests.support.pruned import layers_of_the_fixture

from agentflow.errors import CompressionError
from agentflow.mcp.compression.pruning.pattern import Pattern, magnitude, wanda
from agentflow.mcp.compression.pruning.sparsegpt import DAMPING, sparsegpt

HALF = Pattern(0.5)
TWO_OF_FOUR = Pattern(0.5, (2, 4))


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def tiny_layer(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights (6, 16), and inputs whose channels have much to do with each other."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(200, 16, generator=generator) @ torch.randn(16, 16, generator=generator)
    return torch.randn(6, 16, generator=generator), inputs


def by_full_inverses(weight: torch.Tensor, hessian: torch.Tensor, pattern: Pattern) -> torch.Tensor:
    """Column by column: what is left of the matrix is inverted anew each time, and the surgeon's formula applied.

    To drop wⱼ costs wⱼ² / [H⁻¹]ⱼⱼ, and the others become w − wⱼ / [H⁻¹]ⱼⱼ · H⁻¹[:, j]; H is of the columns from j on.
    """
    weight, hessian = weight.double().clone(), hessian.double().clone()
    hessian += DAMPING * hessian.diagonal().mean() * torch.eye(len(hessian))
    columns = len(hessian)
    inverses = [hessian[j:, j:].inverse() for j in range(columns)]
    corners = torch.stack([inverse[0, 0] for inverse in inverses])
    keep = torch.ones_like(weight, dtype=torch.bool)
    if pattern.among is None:
        costs = (weight.square() / corners).flatten()
        keep.view(-1)[costs.argsort()[: costs.numel() // 2]] = False
    for j in range(columns):
        if pattern.among is not None and j % 4 == 0:
            costs = weight[:, j : j + 4].square() / corners[j : j + 4]
            keep[:, j : j + 4].scatter_(1, costs.argsort(1)[:, :2], False)
        for row in range(len(weight)):
            if not keep[row, j]:
                weight[row, j:] -= weight[row, j] / corners[j] * inverses[j][:, 0]
                weight[row, j] = 0
    return weight


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("pattern", [HALF, TWO_OF_FOUR])
def test_the_update_is_the_surgeons(pattern: Pattern, seed: int) -> None:
    """One factorisation says what an inversion for every column says."""
    weight, inputs = tiny_layer(seed)
    hessian = inputs.T @ inputs
    expected = by_full_inverses(weight, hessian, pattern)
    found = sparsegpt(weight, hessian, pattern)
    assert torch.equal(found == 0, expected == 0)
    torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("block", [4, 8, 12, 16])
def test_runs_of_neighbours_do_not_know_of_blocks(block: int) -> None:
    weight, inputs = tiny_layer()
    hessian = inputs.T @ inputs
    found = sparsegpt(weight, hessian, TWO_OF_FOUR, block=block)
    torch.testing.assert_close(found, sparsegpt(weight, hessian, TWO_OF_FOUR, block=128), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("sparsity", [0.1, 0.3, 0.5, 0.77])
def test_there_are_as_many_zeros_as_asked_for(sparsity: float) -> None:
    """Over all blocks together, the last of which is narrower."""
    weight, inputs = tiny_layer()
    found = sparsegpt(weight, inputs.T @ inputs, Pattern(sparsity), block=5)
    assert int((found == 0).sum()) == Pattern(sparsity).zeros(96)


def test_inputs_that_are_always_zero_are_worth_nothing() -> None:
    weight, inputs = tiny_layer()
    inputs[:, 3] = 0
    found = sparsegpt(weight, inputs.T @ inputs, HALF)
    assert (found[:, 3] == 0).all()
    assert found.isfinite().all()


def test_activations_that_say_nothing_are_refused() -> None:
    with pytest.raises(CompressionError, match="calibration activations have no inverse"):
        sparsegpt(torch.ones(2, 4), torch.full((4, 4), torch.nan), HALF)


@pytest.mark.parametrize("pattern", [HALF, TWO_OF_FOUR])
def test_sparsegpt_errs_less_than_wanda_and_wanda_less_than_magnitude(pattern: Pattern) -> None:
    """‖(W − W')·X‖² / ‖W·X‖², a mean over layers of the trained model: on the texts that the method was shown, and on
    texts that neither method nor model ever saw."""
    shown = layers_of_the_fixture("calibration", 16)
    unseen = layers_of_the_fixture("held_out", 16)
    errors = {part: {"sparsegpt": 0.0, "wanda": 0.0, "magnitude": 0.0} for part in ("shown", "unseen")}
    names = [name for name in shown if ".1." in name or ".3." in name]
    for name in names:
        weight, inputs = shown[name]
        treated = {
            "sparsegpt": sparsegpt(weight, inputs.T @ inputs, pattern),
            "wanda": weight * wanda(weight, inputs.double().square().sum(0).sqrt(), pattern),
            "magnitude": weight * magnitude(weight, pattern),
        }
        for part, given in (("shown", inputs), ("unseen", unseen[name][1])):
            whole = float((given @ weight.T).square().sum()) * len(names)
            for method, new in treated.items():
                errors[part][method] += float((given @ (weight - new).T).square().sum()) / whole
    print(pattern, {part: {m: round(e, 5) for m, e in found.items()} for part, found in errors.items()})
    for found in errors.values():
        assert found["sparsegpt"] < 0.5 * found["wanda"]
        assert found["wanda"] < found["magnitude"]
