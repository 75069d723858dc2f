"""What a request wishes, in the words of a draft: its own, and else the habits that came with the model.

    wishes = Habits.of(folder).wishes(request)

A model's habits stand in generation_config.json. Where neither says anything, the likeliest token is taken, so that the
same question has the same answer. Parameters that no provider has in common: `min_p`, `repetition_penalty`,
`frequency_penalty`, `presence_penalty`, `regex`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from agentflow.errors import ArtifactError, BadRequestError, ConfigurationError, UnsupportedError
from agentflow.llm.content import Json
from agentflow.llm.messages import Request
from agentflow.mcp.performance.edge.draft import Wishes
from agentflow.mcp.performance.edge.sampling import Sampling

__all__ = ["REGEX", "Habits"]

REGEX: Final = "regex"
_PARAMETERS: Final = ("min_p", "repetition_penalty", "frequency_penalty", "presence_penalty")
_SAID: Final = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
_MOST_LOGPROBS: Final = 100


@dataclass(frozen=True, slots=True)
class Habits:
    """How a model is meant to be sampled."""

    sampling: Sampling = field(default_factory=Sampling)

    @classmethod
    def of(cls, folder: Path) -> Habits:
        """Raises ArtifactError for a generation_config.json that cannot be read."""
        path = folder / "generation_config.json"
        if not path.is_file():
            return cls()
        try:
            said = json.loads(path.read_text(encoding="utf-8"))
            if said.get("do_sample") is not True:
                return cls()
            given = {name: said[name] for name in _SAID if isinstance(said.get(name), (int, float))}
            return cls(Sampling(**{"temperature": 1.0, **given}))
        except (OSError, ValueError, AttributeError, ConfigurationError) as error:
            raise ArtifactError(folder, f"its generation_config.json cannot be used: {error}") from error

    def wishes(self, request: Request) -> Wishes:
        """Raises BadRequestError for a number out of range or a parameter that nobody knows, UnsupportedError for what
        no model here can do."""
        _check(request)
        own = [name for name in _PARAMETERS if name in request.params]
        given: dict[str, float | int] = {name: _number(request.params, name) for name in own}
        for name in ("temperature", "top_p", "top_k"):
            value = getattr(request, name)
            if value is not None:
                given[name] = value
        try:
            sampling = replace(self.sampling, **given)  # type: ignore[arg-type]  # top_k is whole, the others need not be
        except ConfigurationError as error:
            raise BadRequestError(str(error)) from error
        return Wishes(
            sampling=sampling,
            seed=request.seed,
            max_tokens=request.max_tokens,
            stop=request.stop,
            logprobs=request.logprobs,
        )


def _check(request: Request) -> None:
    if request.tools:
        raise UnsupportedError("a model on this machine calls no tools: ask another, or ask for a schema")
    if request.thinking is not None and request.thinking.effort != "none" and request.thinking.budget != 0:
        raise UnsupportedError("a model on this machine does not think before it answers, as far as anybody knows")
    unknown = sorted(set(request.params) - {*_PARAMETERS, REGEX})
    if unknown:
        raise BadRequestError(f"unknown parameter {unknown[0]!r}; it takes {', '.join((*_PARAMETERS, REGEX))}")
    if request.max_tokens is not None and request.max_tokens < 1:
        raise BadRequestError(f"max_tokens is {request.max_tokens}; it must be at least 1")
    if request.n is not None and not 1 <= request.n <= 128:
        raise BadRequestError(f"n is {request.n}; it must be from 1 to 128")
    if request.logprobs is not None and not 0 <= request.logprobs <= _MOST_LOGPROBS:
        raise BadRequestError(f"logprobs is {request.logprobs}; it must be from 0 to {_MOST_LOGPROBS}")
    if request.output is not None and REGEX in request.params:
        raise BadRequestError("an answer is held to a schema or to a regular expression, not to both")


def _number(params: Mapping[str, Json], name: str) -> float:
    value = params[name]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BadRequestError(f"{name} is {value!r}; it must be a number")
    return value
