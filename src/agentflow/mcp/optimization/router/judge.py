"""Whether an answer is good enough, told by the answer itself: what a cascade goes up for.

    Accept()                                    it is whole, and fits the schema that was asked for
    Accept(check=is_valid_sql)                  and a function of yours agrees
    Accept(samples=3, agreement=0.6)            and of three answers the most frequent is given by two
    Accept(mean_logprob=-0.4)                   and the model was sure of its words
    Accept(...).unlike(request, response)       ──▶  None, or why it is not good enough

What a question alone tells of its difficulty is little; what an answer tells is more, and costs the answer.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias, cast

from agentflow.errors import ConfigurationError
from agentflow.llm.content import Json
from agentflow.llm.messages import OutputFormat, Request, Response, Tool
from agentflow.llm.output.output_type import OutputType
from agentflow.mcp.optimization.router.schema_fit import misfit

__all__ = ["Accept", "Checker"]

Checker: TypeAlias = Callable[[Request, Response], "bool | float | Awaitable[bool | float]"]
"""Says how good an answer is: whether it will do, or a score from 0 to 1."""

_WHOLE: Final = (None, "stop", "tool_calls")


@dataclass(frozen=True, slots=True)
class Accept:
    """What must hold of an answer; the first that does not is the reason to go up.

    `finish`: it came to its end, and was not cut off, blocked or paused. `schema`: it is JSON of the shape that was
    asked for, and the arguments of its tool calls are. `check` is a function of the request and the answer; a score
    must reach `enough`. `mean_logprob` and `min_logprob` bound the log-probabilities of its tokens from below (natural
    logarithms), `min_margin` by how much the likeliest token beats the next; where the answer has none, it is not
    accepted. With `samples` above 1 the stage is asked so often, at once, and the most frequent answer must have a
    share of `agreement`; a request at temperature 0 is asked at `temperature` from its second sample on.

    Raises ConfigurationError for numbers out of their range.
    """

    finish: bool = True
    schema: bool = True
    check: Checker | None = None
    enough: float = 0.5
    mean_logprob: float | None = None
    min_logprob: float | None = None
    min_margin: float | None = None
    samples: int = 1
    agreement: float = 0.6
    temperature: float = 0.7

    def __post_init__(self) -> None:
        if not 1 <= self.samples <= 32:
            raise ConfigurationError(f"cascade: samples is from 1 to 32, not {self.samples!r}")
        if not 0.0 < self.agreement <= 1.0:
            raise ConfigurationError(f"cascade: agreement is a share above 0, at most 1, not {self.agreement!r}")

    @property
    def wants_logprobs(self) -> bool:
        return not self.mean_logprob is self.min_logprob is self.min_margin is None

    async def unlike(self, request: Request, response: Response) -> str | None:
        """Why the answer will not do; None where it will. What `check` raises passes through."""
        if self.finish and response.finish_reason not in _WHOLE:
            return f"it ended with {response.finish_reason}"
        if not response.text.strip() and not response.tool_calls:
            return "it says nothing"
        return (
            (_shapeless(request, response) if self.schema else None)
            or (self._unsure(response) if self.wants_logprobs else None)
            or (await self._disliked(request, response) if self.check is not None else None)
        )

    def _unsure(self, response: Response) -> str | None:
        tokens = response.logprobs
        if not tokens:
            return "it has no log-probabilities"
        mean = math.fsum(token.logprob for token in tokens) / len(tokens)
        if self.mean_logprob is not None and mean < self.mean_logprob:
            return f"its mean log-probability is {mean:.3f}, below {self.mean_logprob:g}"
        least = min(token.logprob for token in tokens)
        if self.min_logprob is not None and least < self.min_logprob:
            return f"its least log-probability is {least:.3f}, below {self.min_logprob:g}"
        if self.min_margin is None:
            return None
        margins = [
            token.logprob - max((other for name, other in token.alternatives if name != token.token), default=-math.inf)
            for token in tokens
            if token.alternatives
        ]
        if not margins:
            return "it has no log-probabilities of alternatives"
        return f"its least margin is {min(margins):.3f}" if min(margins) < self.min_margin else None

    async def _disliked(self, request: Request, response: Response) -> str | None:
        assert self.check is not None
        said = self.check(request, response)
        score = await said if inspect.isawaitable(said) else said
        if isinstance(score, bool):
            return None if score else "the checker refuses it"
        return None if score >= self.enough else f"the checker gives it {score:.3g}, below {self.enough:g}"


def _shapeless(request: Request, response: Response) -> str | None:
    """Why the answer, or what it calls a tool with, does not have its shape."""
    shapes = {tool.name: tool.parameters for tool in request.tools if isinstance(tool, Tool)}
    for call in response.tool_calls:
        if call.invalid is not None:
            return f"it calls {call.name} with what is no JSON"
        wrong = misfit(call.arguments, shapes.get(call.name, {}))
        if wrong is not None:
            return f"it calls {call.name} with what does not fit: {wrong}"
    if response.tool_calls:
        return None
    if request.output is not None:
        return _unlike_schema(request.output, response.text)
    return _callless(request, response, shapes)


def _callless(request: Request, response: Response, shapes: Mapping[str, Mapping[str, Json]]) -> str | None:
    """Why an answer in words will not do where a tool had to be called: a typed answer is asked for so of models that
    know no schemas. Words that are what the tool would have been called with are as good."""
    choice = request.tool_choice
    if not shapes or choice in (None, "auto", "none"):
        return None
    named = choice if isinstance(choice, str) and choice in shapes else None
    if named is not None and _unlike_schema(OutputFormat(named, shapes[named]), response.text) is None:
        return None
    return "it calls no tool, and had to"


def _unlike_schema(wanted: OutputFormat, text: str) -> str | None:
    """JSON is found in a text as it is for whoever reads a typed answer: between fences and in prose, and a value that
    is asked for as `{"value": …}` may come bare."""
    try:
        value = cast(Json, OutputType.of(object).decode(text))
    except ValueError:
        return f"it is no JSON of {wanted.name}"
    schema = {"type": "object"} if wanted.schema is None else wanted.schema
    known = schema.get("properties")
    wrapped = isinstance(known, Mapping) and set(known) == {"value"}
    wrong = misfit(value, schema)
    if wrong is None or (wrapped and misfit({"value": value}, schema) is None):
        return None
    return f"it does not fit {wanted.name}: {wrong}" if value != text.strip() else f"it is no JSON of {wanted.name}"
