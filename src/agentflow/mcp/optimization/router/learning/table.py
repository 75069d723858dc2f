"""What is learned from: texts, and how good each model's answer was, what it cost, how long it was.

                 quality            cost in USD        output tokens
    text     small   large      small   large        small   large
    "2+2?"    1.0     1.0       2e-6    9e-5           3       3
    "Prove…"  0.0     nan       4e-5    nan          310     nan      nan: nobody asked that model

A table in which every model answered everything is a plain matrix. One that comes from traffic has an answer of one
model in each row, and the `propensity` with which that model was chosen, so that what the others would have done can be
estimated without bias (see `offpolicy`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agentflow.errors import ConfigurationError

__all__ = ["Matrix", "OutcomeTable", "prompt_key", "token_estimate"]

Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class OutcomeTable:
    """`quality`, `cost`, `output_tokens` and `propensity` are (texts × models), NaN where unknown; quality is from 0
    to 1. `input_tokens` and `groups` have one entry a text: rows of one group (a subject, a tenant, a week) may be left
    out together. Raises ConfigurationError for what does not fit together."""

    texts: tuple[str, ...]
    models: tuple[str, ...]
    quality: Matrix
    cost: Matrix
    output_tokens: Matrix
    input_tokens: Matrix
    propensity: Matrix
    groups: tuple[str, ...]

    def __post_init__(self) -> None:
        wide, long = (len(self.texts), len(self.models)), (len(self.texts),)
        for name, shape in {
            "quality": wide, "cost": wide, "output_tokens": wide, "propensity": wide, "input_tokens": long,
        }.items():  # fmt: skip
            found = getattr(self, name).shape
            if found != shape:
                raise ConfigurationError(f"{name} of an outcome table has the shape {shape}, not {found}")
        if len(self.groups) != len(self.texts):
            raise ConfigurationError(f"{len(self.texts)} texts have {len(self.groups)} groups")
        if len(set(self.models)) != len(self.models) or not self.models:
            raise ConfigurationError(f"an outcome table names each model once, and at least one: {self.models}")
        known = self.quality[~np.isnan(self.quality)]
        if known.size and not (known.min() >= 0 and known.max() <= 1):
            raise ConfigurationError(
                f"qualities are from 0 to 1, these from {known.min():.4g} to {known.max():.4g}: say what to divide by"
            )

    @classmethod
    def of(
        cls,
        texts: Sequence[str],
        quality: Mapping[str, Sequence[float]],
        *,
        cost: Mapping[str, Sequence[float]] | None = None,
        output_tokens: Mapping[str, Sequence[float]] | None = None,
        input_tokens: Sequence[float] | None = None,
        propensity: Mapping[str, Sequence[float]] | None = None,
        groups: Sequence[str] | None = None,
    ) -> OutcomeTable:
        """From columns by model; a model that a mapping lacks is unknown there. Input tokens are estimated from the
        texts where they are left out; without groups all rows are of one."""
        models = tuple(quality)

        def matrix(columns: Mapping[str, Sequence[float]] | None) -> Matrix:
            found = np.full((len(texts), len(models)), np.nan)
            for place, model in enumerate(models):
                if columns is not None and model in columns:
                    if len(columns[model]) != len(texts):
                        raise ConfigurationError(f"{len(texts)} texts have {len(columns[model])} values of {model!r}")
                    found[:, place] = columns[model]
            return found

        known = np.array([token_estimate(text) for text in texts] if input_tokens is None else input_tokens, float)
        return cls(
            tuple(texts),
            models,
            matrix(quality),
            matrix(cost),
            matrix(output_tokens),
            known,
            matrix(propensity),
            tuple(groups) if groups is not None else ("",) * len(texts),
        )

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def complete(self) -> bool:
        """Whether every model's answer to everything is known."""
        return not np.isnan(self.quality).any()

    def rows(self, chosen: NDArray[np.intp]) -> OutcomeTable:
        """Only these rows, in this order."""
        return OutcomeTable(
            tuple(self.texts[row] for row in chosen),
            self.models,
            self.quality[chosen],
            self.cost[chosen],
            self.output_tokens[chosen],
            self.input_tokens[chosen],
            self.propensity[chosen],
            tuple(self.groups[row] for row in chosen),
        )

    def picked(self, models: Sequence[str]) -> OutcomeTable:
        """Only these models, in this order. Raises ConfigurationError for one that is not there."""
        missing = [model for model in models if model not in self.models]
        if missing:
            raise ConfigurationError(f"the table knows {', '.join(self.models)}, and not {', '.join(missing)}")
        places = [self.models.index(model) for model in models]
        return OutcomeTable(
            self.texts,
            tuple(models),
            self.quality[:, places],
            self.cost[:, places],
            self.output_tokens[:, places],
            self.input_tokens,
            self.propensity[:, places],
            self.groups,
        )

    def judged(self) -> OutcomeTable:
        """Without rows of which nothing is known, and without models that never answered."""
        known = ~np.isnan(self.quality)
        columns = np.flatnonzero(known.any(axis=0))
        if not columns.size:
            raise ConfigurationError("the table holds no outcome: no model's answer was judged")
        kept = self.rows(np.flatnonzero(known.any(axis=1)))
        return kept.picked([self.models[column] for column in columns])

    def digest(self) -> str:
        """Of all that can be learned from it; beside a policy it says which data it is made of."""
        hasher = hashlib.sha256("\0".join((*self.models, *self.groups)).encode("utf-8", "surrogatepass"))
        for text in self.texts:
            hasher.update(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
        for values in (self.quality, self.cost, self.output_tokens, self.input_tokens, self.propensity):
            hasher.update(np.nan_to_num(values, nan=-1.0).tobytes())
        return hasher.hexdigest()


def prompt_key(text: str) -> str:
    """The same for texts that are the same prompt: case and white space aside. They are never split between what is
    learned from and what is judged by."""
    return " ".join(text.casefold().split())


def token_estimate(text: str) -> int:
    """About how many tokens a text has: a quarter of its bytes in UTF-8, at least 1."""
    return max(1, round(len(text.encode("utf-8", "surrogatepass")) / 4))
