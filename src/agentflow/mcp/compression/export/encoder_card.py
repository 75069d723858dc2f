"""encoder.json: what an exported encoder is for and how it is called, for whoever runs it without PyTorch.

    folder/  model.onnx   encoder.json   tokenizer.json   config.json   …

    {"version": 1, "task": "embed", "model": "model.onnx",
     "inputs": ["input_ids", "attention_mask", "token_type_ids"], "output": "embedding",
     "max_length": 256, "pad_token_id": 0, "dimensions": 384, "pooling": "mean", "normalize": true,
     "labels": [], "multi_label": false}

The inputs are int64 of shape (rows, length); `attention_mask` is 1 for a token and 0 for padding, which stands on the
right; `token_type_ids` are 0 throughout for one text. The output is float32: of task "embed" `embedding` (rows,
dimensions), pooled and normalised within the model already; of task "classify" `logits` (rows, labels), of which the
softmax over a row is the likelihood of each label, or the sigmoid of each number by itself where `multi_label` is set.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from agentflow.errors import ArtifactError

__all__ = ["EncoderCard"]

NAME = "encoder.json"
VERSION = 1


class EncoderCard(msgspec.Struct, frozen=True, kw_only=True):
    """`max_length` counts tokens, special ones included. `labels` stand in the order of the logits."""

    task: Literal["embed", "classify"]
    output: Literal["embedding", "logits"]
    max_length: int
    pad_token_id: int
    inputs: tuple[str, ...] = ("input_ids", "attention_mask", "token_type_ids")
    model: str = "model.onnx"
    dimensions: int = 0  # of the embedding; 0 for a classifier
    pooling: Literal["mean", "cls", "max"] | None = None  # what was done within the model, for the reader
    normalize: bool = False  # likewise
    labels: tuple[str, ...] = ()
    multi_label: bool = False
    version: int = VERSION

    @classmethod
    def read(cls, folder: str | Path) -> EncoderCard:
        """Raises ArtifactError where it is missing, damaged, or of a newer version."""
        try:
            card = msgspec.json.decode((Path(folder) / NAME).read_bytes(), type=cls)
        except FileNotFoundError:
            raise ArtifactError(folder, f"it has no {NAME}") from None
        except (OSError, msgspec.MsgspecError) as error:
            raise ArtifactError(folder, f"its {NAME} cannot be read: {error}") from error
        if card.version > VERSION:
            raise ArtifactError(folder, f"its {NAME} is of version {card.version}, and this package knows {VERSION}")
        return card

    def write(self, folder: str | Path) -> None:
        text = msgspec.json.format(msgspec.json.encode(self), indent=2)
        (Path(folder) / NAME).write_bytes(text + b"\n")
