"""What a runtime is: a loaded model that takes token ids and gives logits. Sampling, stopping and schemas are ours.

    decoding = runtime.open([[1, 7, 4], [1, 9]])   two rows; they may differ in length
    decoding.logits()                              (2, vocabulary): of each row's next token
    decoding.append([5, 2])                        one token a row
    decoding.add([[1, 8]])                         a third row joins
    decoding.keep([0, 2])                          the second has ended
    runtime.score([1, 7, 4])                       (3, vocabulary): what the model says after each of the tokens

Everything is synchronous and stays in one thread at a time: whoever decodes chooses the thread. Logits are float32.
A row's logits do not depend on the rows beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Decoding", "Embedder", "Labeller", "Runtime"]


class Decoding(Protocol):
    """Some rows that are being continued, one token a row a step."""

    def logits(self) -> NDArray[np.float32]:
        """Of each row's next token: shape (rows, vocabulary). The caller may write into it."""
        ...

    def append(self, tokens: Sequence[int]) -> None:
        """One token a row; a row that has ended may be given any token. No row may outgrow the context."""
        ...

    def add(self, prompts: Sequence[Sequence[int]]) -> None:
        """Further rows, which stand behind those that are there."""
        ...

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows alone, in this order."""
        ...

    def close(self) -> None:
        """Give back what the rows hold. Safe to call twice."""
        ...


class Runtime(Protocol):
    """A decoder. `name` is "onnxruntime", "onnxruntime-genai", "llama.cpp" or "transformers"; `version` that program's
    own."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def context_length(self) -> int: ...

    @property
    def vocabulary(self) -> int: ...

    def open(self, prompts: Sequence[Sequence[int]]) -> Decoding:
        """Read the prompts, each of at least one token and none longer than the context; there may be none yet."""
        ...

    def score(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """What the model says after each token of one text: shape (len(tokens), vocabulary)."""
        ...

    def close(self) -> None:
        """Free the model. Safe to call twice."""
        ...


class Labeller(Protocol):
    """A classifier. Where `multi_label` is set each label stands by itself, and several may hold."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def labels(self) -> tuple[str, ...]: ...

    @property
    def multi_label(self) -> bool: ...

    @property
    def context_length(self) -> int: ...

    def scores(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """The logits of each label: shape (rows, labels)."""
        ...

    def close(self) -> None: ...


class Embedder(Protocol):
    """A model of sentence vectors."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def dimensions(self) -> int: ...

    @property
    def context_length(self) -> int: ...

    def vectors(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Of length 1 where the model's folder says so: shape (rows, dimensions)."""
        ...

    def close(self) -> None: ...
