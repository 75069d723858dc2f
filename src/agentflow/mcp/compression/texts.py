"""Texts as windows of tokens, all of one length: what calibration, training and measuring read.

    "First text."  "Second text."   ─▶   <s> First text . <s> Second text . …   ─▶   (windows, length) of int64

Texts are joined and cut, so that nothing is padded; what is left over at the end is dropped. An encoder's windows have
its own marks about each piece ([CLS] … [SEP]).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from agentflow.errors import CalibrationError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["rows_of", "sha256_of", "windows_of"]


def windows_of(
    texts: Iterable[str],
    tokenizer: PreTrainedTokenizerBase,
    *,
    length: int,
    purpose: str,
    most: int | None = None,
    least: int = 1,
    marked: bool = False,
) -> torch.Tensor:
    """Token ids of shape (windows, `length`), `most` windows of them.

    `marked` puts the tokenizer's marks about each window, as an encoder wants them. Where the text gives more windows
    than `most`, those that are taken lie evenly over it. Raises CalibrationError for fewer than `least` windows.
    """
    marks = tokenizer.num_special_tokens_to_add() if marked else 0
    inner = length - marks
    stream = list(_stream(texts, tokenizer, marked=marked))
    count = len(stream) // inner
    if count < max(least, 1):
        raise CalibrationError(purpose, needed=max(least, 1) * inner, found=len(stream))
    chosen = range(count) if most is None or count <= most else [at * count // most for at in range(most)]
    rows = [stream[at * inner : (at + 1) * inner] for at in chosen]
    if marked:
        rows = [_with_marks(tokenizer, row) for row in rows]
    return torch.tensor(rows, dtype=torch.int64)


def rows_of(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, *, longest: int, most: int
) -> tuple[tuple[int, ...], ...]:
    """Each of the first `most` texts by itself, as an encoder reads it: with its marks, cut to `longest` tokens."""
    return tuple(
        tuple(
            _with_marks(tokenizer, tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"][: longest - 2])
        )
        for text in texts[:most]
    )


def sha256_of(*parts: Sequence[str]) -> str:
    """Of lists of texts: equal lists, equal hash, whatever is in them."""
    digest = hashlib.sha256()
    for texts in parts:
        digest.update(f"{len(texts)}\n".encode())
        for text in texts:
            raw = text.encode("utf-8", "surrogatepass")
            digest.update(f"{len(raw)}\n".encode())
            digest.update(raw)
    return digest.hexdigest()


def _stream(texts: Iterable[str], tokenizer: PreTrainedTokenizerBase, *, marked: bool) -> Iterator[int]:
    begin = None if marked else _id(tokenizer.bos_token_id)
    end = None if marked or begin is not None else _id(tokenizer.eos_token_id)
    for text in texts:
        if begin is not None:
            yield begin
        yield from tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        if end is not None:  # a model without a first token tells texts apart by their last
            yield end


def _with_marks(tokenizer: PreTrainedTokenizerBase, row: list[int]) -> list[int]:
    """As every encoder that is supported has them: one before, one behind."""
    marks = (_id(tokenizer.cls_token_id), _id(tokenizer.sep_token_id))
    return [token for token in (marks[0], *row, marks[1]) if token is not None]


def _id(token: object) -> int | None:
    """transformers types the id of a special token as if there might be several."""
    return token if isinstance(token, int) else None
