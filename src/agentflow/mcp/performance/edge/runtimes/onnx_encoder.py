"""An exported encoder run by ONNX Runtime: labels or vectors of texts, many at once.

    folder/  encoder.json  model.onnx          as `compression.export` writes it
    OnnxLabeller(folder).scores([[1, 7, 4], [1, 9]])     (2, labels)
    OnnxEmbedder(folder).vectors([[1, 7, 4], [1, 9]])    (2, dimensions)

Rows are padded to the longest of their call; the mask keeps padding out of the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from agentflow.errors import ArtifactError
from agentflow.mcp.compression.export.encoder_card import EncoderCard
from agentflow.mcp.performance.edge.runtimes.session import session_of

__all__ = ["OnnxEmbedder", "OnnxLabeller"]


class _Encoder:
    name = "onnxruntime"

    def __init__(self, folder: Path, task: str, *, threads: int | None = None) -> None:
        self.card = card = EncoderCard.read(folder)
        if card.task != task:
            raise ArtifactError(folder, f"its encoder.json says {card.task}, and {task} was asked for")
        if Path(card.model).name != card.model or not (folder / card.model).is_file():
            raise ArtifactError(folder, f"{card.model} is missing")
        self.version: str = ort.__version__
        self.context_length = card.max_length
        self._session: ort.InferenceSession | None = session_of(folder, card.model, threads=threads)

    def _run(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        if self._session is None:
            raise RuntimeError("the runtime is closed")
        tokens, mask = padded(rows, self.card.pad_token_id)
        known = {"input_ids": tokens, "attention_mask": mask, "token_type_ids": np.zeros_like(tokens)}
        [found] = self._session.run([self.card.output], {name: known[name] for name in self.card.inputs})
        return np.asarray(found, np.float32)

    def close(self) -> None:
        self._session = None


class OnnxLabeller(_Encoder):
    """Raises ArtifactError where the folder is damaged, or of an embedding model."""

    def __init__(self, folder: Path, *, threads: int | None = None) -> None:
        super().__init__(folder, "classify", threads=threads)
        self.labels = self.card.labels
        self.multi_label = self.card.multi_label

    def scores(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """The logits of each label: shape (rows, labels)."""
        return self._run(rows) if rows else np.zeros((0, len(self.labels)), np.float32)


class OnnxEmbedder(_Encoder):
    """Raises ArtifactError where the folder is damaged, or of a classifier."""

    def __init__(self, folder: Path, *, threads: int | None = None) -> None:
        super().__init__(folder, "embed", threads=threads)
        self.dimensions = self.card.dimensions

    def vectors(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Shape (rows, dimensions)."""
        return self._run(rows) if rows else np.zeros((0, self.dimensions), np.float32)


def padded(rows: Sequence[Sequence[int]], pad: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Tokens filled up on the right, and a mask with 1 for what is no padding: both of shape (rows, longest)."""
    lengths = np.array([len(row) for row in rows])
    mask = (np.arange(lengths.max())[None] < lengths[:, None]).astype(np.int64)
    tokens = np.full(mask.shape, pad, np.int64)
    tokens[mask == 1] = np.concatenate([np.asarray(row, np.int64) for row in rows])
    return tokens, mask
