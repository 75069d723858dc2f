"""An answer held to a JSON Schema or a regular expression: tokens that would break it are made impossible.

    grammars = Grammars(tokenizer, vocabulary)
    constraint = grammars.schema({"type": "object", …})
    constraint.mask(logits)          -inf for what cannot come next; in place
    constraint.take(token)
    constraint.done                  nothing may follow but the end

The grammars are llguidance's. A schema that it cannot keep to in full is refused, so that whatever comes out whole is
valid. JSON is written without spaces between its parts: a model that may write spaces may write them for ever.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final

import llguidance
import numpy as np
from numpy.typing import NDArray

from agentflow.errors import BadRequestError
from agentflow.llm.content import Json
from agentflow.mcp.performance.edge.tokenizer import EdgeTokenizer

__all__ = ["Constraint", "Grammars"]

_BITS: Final = 32


class Grammars:
    """What a tokenizer's grammars have in common. `end_tokens` end an answer; without any nothing can be held to a
    grammar."""

    def __init__(self, tokenizer: EdgeTokenizer, vocabulary: int) -> None:
        self._vocabulary = vocabulary
        self._ends = sorted(token for token in tokenizer.end_tokens if token < vocabulary)
        ends: list[int] | None = self._ends or None
        self._tokenizer = llguidance.LLTokenizer(tokenizer.library.to_str(), n_vocab=vocabulary, eos_token=ends)

    def schema(self, schema: Mapping[str, Json] | None) -> Constraint:
        """None is any JSON object. Raises BadRequestError for a schema that cannot be kept to."""
        wanted = {"type": "object"} if schema is None else dict(schema)
        try:
            grammar = llguidance.LLMatcher.grammar_from_json_schema(
                json.dumps(wanted),
                overrides={"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "},
            )
        except ValueError as error:
            raise BadRequestError(f"the schema of the answer is no JSON Schema: {error}") from error
        return self._constraint(grammar, "the schema of the answer")

    def regex(self, pattern: str) -> Constraint:
        """The whole answer matches. Raises BadRequestError for a pattern that is none, or that looks around itself."""
        return self._constraint(llguidance.LLMatcher.grammar_from_regex(pattern), "the regular expression")

    def _constraint(self, grammar: str, what: str) -> Constraint:
        if not self._ends:
            raise BadRequestError(f"{what} cannot be kept to: the model has no token that ends an answer")
        matcher = llguidance.LLMatcher(self._tokenizer, grammar, log_level=0)
        if matcher.is_error():
            raise BadRequestError(f"{what} cannot be kept to: {matcher.get_error().strip()[:300]}")
        return Constraint(matcher, self._vocabulary, self._ends)


class Constraint:
    """One answer's place in its grammar."""

    def __init__(self, matcher: llguidance.LLMatcher, vocabulary: int, ends: Sequence[int]) -> None:
        self._matcher = matcher
        self._vocabulary = vocabulary
        self._ends = list(ends)

    @property
    def done(self) -> bool:
        return bool(self._matcher.is_stopped())

    def mask(self, logits: NDArray[np.float32]) -> None:
        """Where the grammar is at its end, only what ends the answer stays possible."""
        allowed = self._allowed(len(logits))
        logits[~allowed] = -np.inf

    def take(self, token: int) -> None:
        """Raises RuntimeError for a token that the mask forbids, and where the grammar has grown beyond its limits."""
        if not self._matcher.consume_token(token):
            raise RuntimeError(f"the grammar cannot go on: {self._matcher.get_error()[:300]}")

    def _allowed(self, size: int) -> NDArray[np.bool_]:
        if self._matcher.is_stopped():
            allowed = np.zeros(size, bool)
            allowed[self._ends] = True
            return allowed
        words = np.frombuffer(self._matcher.compute_bitmask(), np.uint32)
        bits = (words[:, None] >> np.arange(_BITS, dtype=np.uint32)) & 1
        allowed = np.zeros(size, bool)
        count = min(size, self._vocabulary, bits.size)
        allowed[:count] = bits.ravel()[:count] == 1
        return allowed
