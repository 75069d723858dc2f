"""Outcome tables whose truth is known: which texts are hard for which model is planted, and can be found or not.

planted(rows=800, signal=True)   "calculate …" is hard for `small` (0.25 right), else easy (0.92); `large` is at 0.9
"""

from __future__ import annotations

import numpy as np

from agentflow.mcp.optimization.router.learning.table import Matrix, OutcomeTable

HARD = "calculate derive integral theorem matrix proof equation vector".split()
EASY = "capital river animal colour bread garden winter song".split()
FILLER = "please tell me about the of a in short words what would you say now then with for and".split()
SMALL, LARGE, MIDDLE = "small", "large", "middle"
COST = {SMALL: 0.001, MIDDLE: 0.004, LARGE: 0.02}


def chances(hard: bool) -> dict[str, float]:
    """The true quality of each model."""
    return {SMALL: 0.25, MIDDLE: 0.55, LARGE: 0.9} if hard else {SMALL: 0.92, MIDDLE: 0.93, LARGE: 0.94}


def planted(
    rows: int = 800, *, signal: bool = True, models: tuple[str, ...] = (SMALL, LARGE), seed: int = 0, groups: int = 1
) -> OutcomeTable:
    """Without a signal the outcomes have nothing to do with the texts, and the same means."""
    table, _ = planted_with_truth(rows, signal=signal, models=models, seed=seed, groups=groups)
    return table


def planted_with_truth(
    rows: int = 800, *, signal: bool = True, models: tuple[str, ...] = (SMALL, LARGE), seed: int = 0, groups: int = 1
) -> tuple[OutcomeTable, Matrix]:
    rng = np.random.default_rng(seed)
    hard = rng.random(rows) < 0.4
    texts = [_text(bool(each), rng) for each in hard]
    told = hard if signal else rng.permutation(hard)
    truth = np.array([[chances(bool(each))[model] for model in models] for each in told])
    quality = (rng.random(truth.shape) < truth).astype(float)
    words = np.array([40.0 if each else 8.0 for each in hard])
    table = OutcomeTable.of(
        texts,
        {model: list(quality[:, place]) for place, model in enumerate(models)},
        cost={model: [COST[model]] * rows for model in models},
        output_tokens={model: list(words * (1 + place)) for place, model in enumerate(models)},
        groups=[f"group {row % groups}" for row in range(rows)],
    )
    return table, truth


def _text(hard: bool, rng: np.random.Generator) -> str:
    words = [*rng.choice(HARD if hard else EASY, 3), *rng.choice(FILLER, 8)]
    rng.shuffle(words)
    return " ".join([*map(str, words), f"number {rng.integers(10**6)}"])
