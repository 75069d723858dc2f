"""What is left of a sentence model in a smaller one: do vectors point where they did, are texts ranked as before?"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from agentflow.errors import CalibrationError

__all__ = ["Retention", "retention"]


@dataclass(frozen=True, slots=True)
class Retention:
    """`cosine` is the mean over texts of the cosine between the vector before and after, `spearman` the rank
    correlation of the similarities of all pairs of texts. Both are 1 where nothing was lost."""

    cosine: float
    spearman: float
    texts: int


def retention(before: torch.Tensor, after: torch.Tensor) -> Retention:
    """Of the same texts' vectors, shapes (texts, size) and (texts, any size): of unlike sizes there is no cosine (NaN).

    Raises CalibrationError for fewer than 3 texts, which have too few pairs to rank.
    """
    from scipy.stats import spearmanr

    if len(before) < 3 or len(before) != len(after):
        raise CalibrationError("measuring a sentence model (a text for a token)", needed=3, found=len(before))
    one, other = (functional.normalize(each.double().cpu(), dim=-1) for each in (before, after))
    above = torch.triu_indices(len(one), len(one), offset=1)
    pairs = [(each @ each.T)[above[0], above[1]].numpy() for each in (one, other)]
    cosine = float((one * other).sum(-1).mean()) if one.shape == other.shape else float("nan")
    return Retention(cosine, float(spearmanr(pairs[0], pairs[1]).statistic), len(one))
