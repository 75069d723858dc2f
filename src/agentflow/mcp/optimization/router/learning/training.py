"""Learns a policy from a table of outcomes, validates it on rows it has not seen, and says what came of it.

    table ──space──▶ pieces, vectors, shapes ──folds──▶ experts' forecasts for rows not learned from
          ──▶ blend ──▶ calibration ──▶ λ for the objective ──▶ verdict: learned, or the hull ──▶ LearnedPolicy

    policy = train(table, Training(objective=Objective(quality_floor=0.8)), prices=prices)

Needs scipy, which scikit-learn brings (`pip install 'agentflow-engine[learn]'`); what it returns needs numpy alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from agentflow.errors import ConfigurationError, MissingExtraError
from agentflow.mcp.optimization.router.learning.calibration import Calibration, best_calibration
from agentflow.mcp.optimization.router.learning.curve import Aim
from agentflow.mcp.optimization.router.learning.experience import ASSUMED_TOKENS, Validated
from agentflow.mcp.optimization.router.learning.experts import Read, cross_fitted, encodings, experts_of
from agentflow.mcp.optimization.router.learning.gate import Verdict
from agentflow.mcp.optimization.router.learning.hull_policy import HullPolicy
from agentflow.mcp.optimization.router.learning.knowledge import EXPERTS, Blend, Knowledge, calibrated
from agentflow.mcp.optimization.router.learning.learned import LearnedPolicy
from agentflow.mcp.optimization.router.learning.lengths import Lengths, fit_lengths
from agentflow.mcp.optimization.router.learning.offpolicy import (
    LEAST_PROPENSITY,
    doubly_robust,
    explored_share,
    propensities,
)
from agentflow.mcp.optimization.router.learning.policy import Objective, Prices
from agentflow.mcp.optimization.router.learning.space import Embedder
from agentflow.mcp.optimization.router.learning.table import Matrix, OutcomeTable, prompt_key

__all__ = ["Training", "train"]

_FOLDS: Final = 5
_NOVEL: Final = 0.01


@dataclass(frozen=True, slots=True)
class Training:
    """How to learn.

    `traffic` says what will be asked: `seen`, more of the same kinds as in the table, or `unseen`, whole groups (a
    subject, a tenant) that the table lacks; validation leaves out rows, or whole groups. `objective` is the point to
    aim at; without one, a point (0.01) below the quality of the best single model. `seed` decides every draw.
    """

    objective: Objective | None = None
    traffic: Literal["seen", "unseen"] = "seen"
    embed: Embedder | None = None
    seed: int = 0


def train(
    table: OutcomeTable,
    training: Training | None = None,
    *,
    prices: Prices | None = None,
    read: Callable[[str], Read] = Read.of,
) -> LearnedPolicy:
    """`read` may remember what it has read before, where many tables share their texts.

    Raises ConfigurationError for a table without outcomes or costs, MissingExtraError without scipy.

    Fewer than 60 rows, or 8 groups where whole groups will be new, are too few to trust: the hull decides then.
    """
    _require()
    said = training or Training()
    judged = table.judged()
    weight, chance = _weights(judged)
    base = _base(judged.quality, weight)
    blocks, folds = _parts(judged, said)
    given = encodings(judged.texts, embed=said.embed, seed=said.seed, read=read)
    fitted = cross_fitted(given, judged.quality, weight, folds, base, seed=said.seed)
    trusted = doubly_robust(judged.quality, chance, _first_guess(fitted.said, base))
    blend = _blend(fitted.said, trusted, base)
    mixed = blend.of(fitted.said, base)
    calibrations = _calibrations(mixed, judged.quality, weight, folds)
    columns = np.concatenate([given.shapes, given.vectors], axis=1).astype(float)
    tokens, costs = fit_lengths(columns, judged.output_tokens), fit_lengths(columns, judged.cost)
    least = float(np.quantile(fitted.alike, _NOVEL))
    experts = experts_of(given, judged.quality, weight, base, fitted.count, seed=said.seed)
    knowledge = Knowledge(
        judged.models, given.space, base, experts.words, experts.shape, experts.place, experts.neighbours,
        blend, calibrations, least, tokens, costs,
    )  # fmt: skip
    forecast = _honest(fitted.said, trusted, judged.quality, weight, folds, base)
    forecast = np.where((fitted.alike < least)[:, None], base, forecast)
    validated = Validated(
        forecast,
        doubly_robust(judged.quality, chance, forecast),
        judged.output_tokens,
        _cross_lengths(columns, judged.output_tokens, folds),
        judged.cost,
        _cross_lengths(columns, judged.cost, folds),
        judged.input_tokens,
        blocks,
        explored_share(judged.quality, chance),
    )
    return _aimed(knowledge, validated, said, prices or {}, judged)


def _require() -> None:
    from importlib.util import find_spec

    if find_spec("scipy") is None:
        raise MissingExtraError("training a router", "learn")


def _weights(table: OutcomeTable) -> tuple[Matrix, Matrix]:
    """How much each outcome counts in learning (inverse propensities, mean 1 a model), and its chance to be known."""
    known = ~np.isnan(table.quality)
    chance = propensities(table.quality, table.propensity)
    raw = np.where(known, 1 / np.maximum(chance, LEAST_PROPENSITY), 0.0)
    return raw * known.sum(axis=0) / np.maximum(raw.sum(axis=0), 1e-12), chance


def _base(quality: Matrix, weight: Matrix) -> Matrix:
    """Each model's mean quality, shrunk by two imagined outcomes so that none is certain."""
    total = weight.sum(axis=0)
    return np.asarray(((np.nan_to_num(quality) * weight).sum(axis=0) + 1) / (total + 2))


def _parts(table: OutcomeTable, said: Training) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """What belongs together, and the fold of each row. Same prompts are never split, nor are groups if they are new."""
    names = [prompt_key(text) for text in table.texts]
    if said.traffic == "unseen":
        if len(set(table.groups)) < 2:
            raise ConfigurationError(
                "traffic of unseen groups can only be prepared for where the table has groups: name their column"
            )
        names = _joined(names, table.groups)
    numbers: dict[str, int] = {}
    blocks = np.array([numbers.setdefault(name, len(numbers)) for name in names], np.int64)
    order = np.random.default_rng(said.seed).permutation(len(numbers))
    return blocks, order[blocks] % min(_FOLDS, len(numbers))


def _joined(prompts: list[str], groups: tuple[str, ...]) -> list[str]:
    """Groups that share a prompt are one: each gets the name of the first of them."""
    parent: dict[str, str] = {group: group for group in groups}

    def root(group: str) -> str:
        while parent[group] != group:
            group = parent[group]
        return group

    first: dict[str, str] = {}
    for prompt, group in zip(prompts, groups, strict=True):
        one, other = root(first.setdefault(prompt, group)), root(group)
        parent[max(one, other)] = min(one, other)
    return [root(group) for group in groups]


def _first_guess(said: Matrix, base: Matrix) -> Matrix:
    return np.asarray(base + (said - base).mean(axis=1))


def _blend(said: Matrix, quality: Matrix, base: Matrix) -> Blend:
    """Weights of the experts, none negative, by least squares: for what models share, and for what parts them.

    `said` is (rows × experts × models).
    """
    from scipy.optimize import nnls

    moved, target = said - base, quality - base
    shared, shared_target = moved.mean(axis=2), target.mean(axis=1)
    apart = moved - shared[:, :, None]
    apart_target = target - shared_target[:, None]
    common, _ = nnls(_with_ridge(shared), _padded(shared_target))
    columns = apart.transpose(0, 2, 1).reshape(-1, len(EXPERTS))
    parting, _ = nnls(_with_ridge(columns), _padded(apart_target.reshape(-1)))
    return Blend(common, parting, _axes(parting @ apart, apart_target))


def _axes(said: Matrix, truth: Matrix) -> Matrix:
    """Along each principal direction of what is said to part the models, the share of it that comes true, from 0 to 1.

    Less than twice its own standard error is taken for nothing.
    """
    _, directions = np.linalg.eigh(said.T @ said)
    scores, real = said @ directions, truth @ directions
    power = np.square(scores).sum(axis=0) + 1e-9
    slope = (scores * real).sum(axis=0) / power
    doubt = np.sqrt(np.square(real - scores * slope).mean(axis=0) / power)
    kept = np.where(slope > 2 * doubt, np.minimum(slope, 1.0), 0.0)
    return np.asarray((directions * kept) @ directions.T)


_RIDGE: Final = 1.0  # towards no movement at all: what is learned from few rows moves little


def _with_ridge(columns: Matrix) -> Matrix:
    return np.concatenate([columns, np.sqrt(_RIDGE) * 0.1 * np.eye(columns.shape[1])])


def _padded(target: Matrix) -> Matrix:
    return np.concatenate([target, np.zeros(len(EXPERTS))])


def _calibrations(mixed: Matrix, quality: Matrix, weight: Matrix, folds: NDArray[np.int64]) -> tuple[Calibration, ...]:
    return tuple(
        best_calibration(mixed[:, place], quality[:, place], weight[:, place], folds) for place in range(mixed.shape[1])
    )


def _honest(
    said: Matrix, trusted: Matrix, quality: Matrix, weight: Matrix, folds: NDArray[np.int64], base: Matrix
) -> Matrix:
    """Forecasts that have seen none of the row's outcome, neither in the experts nor in what blends and calibrates
    them: only such ones may be judged by it."""
    found = np.tile(base, (len(said), 1))
    for fold in np.unique(folds):
        inside = folds != fold
        if not inside.any():
            continue
        mixed = _blend(said[inside], trusted[inside], base).of(said, base)
        fitted = _calibrations(mixed[inside], quality[inside], weight[inside], folds[inside])
        found[~inside] = calibrated(mixed[~inside], fitted)
    return found


def _cross_lengths(columns: Matrix, amounts: Matrix, folds: NDArray[np.int64]) -> Matrix:
    """Forecasts of lengths for rows they were not learned from; NaN for a model of which nothing is known."""
    found = np.full(amounts.shape, np.nan)
    if np.isnan(amounts).all():
        return found
    for fold in np.unique(folds):
        inside = folds != fold
        fitted = fit_lengths(columns[inside], amounts[inside]) if inside.any() else fit_lengths(columns, amounts)
        found[~inside] = fitted.expected(columns[~inside])
    return np.where(np.isnan(found), np.nanmean(amounts, axis=0) if not np.isnan(amounts).all() else np.nan, found)


def _aimed(
    knowledge: Knowledge, validated: Validated, said: Training, prices: Prices, table: OutcomeTable
) -> LearnedPolicy:
    means = validated.quality.mean(axis=0)
    objective = said.objective or Objective(quality_floor=float(np.clip(means.max() - 0.01, 0, 1)))
    inputs = float(np.nanmean(validated.input_tokens))
    hull = HullPolicy(
        knowledge.models,
        tuple(map(float, means)),
        (0.0,) * len(means),
        tuple((inputs, float(each)) for each in _mean_tokens(knowledge.tokens)),
    )
    unset = LearnedPolicy(
        knowledge, validated, hull, objective, Aim(0, 0, 0, 0, 0), Verdict(False, 0, 0, 0, 0, 0.0, ""), table.digest()
    )
    return unset.aimed(objective, prices)


def _mean_tokens(tokens: Lengths) -> Matrix:
    return np.where(np.isnan(tokens.mean), ASSUMED_TOKENS, tokens.mean)
