"""A Hugging Face encoder run by transformers: the fallback, which needs PyTorch.

TransformersLabeller(folder).scores(rows)      a model for sequence classification
TransformersEmbedder(folder).vectors(rows)     pooled as 1_Pooling/config.json says, else the mean
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from agentflow.errors import ArtifactError
from agentflow.mcp.performance.edge.runtimes.transformers import loaded

__all__ = ["TransformersEmbedder", "TransformersLabeller"]


class _Encoder:
    name = "transformers"

    def __init__(self, folder: Path, kind: str, *, threads: int | None = None) -> None:
        self._model: Any = loaded(folder, kind, threads=threads)
        self.version = version("transformers")
        config = self._model.config
        self.context_length = int(getattr(config, "max_position_embeddings", None) or 512)
        self._pad = int(getattr(config, "pad_token_id", None) or 0)

    def _run(self, rows: Sequence[Sequence[int]]) -> tuple[Any, Any]:
        """The model's output and the mask, (rows, longest)."""
        if self._model is None:
            raise RuntimeError("the runtime is closed")
        longest = max(map(len, rows))
        tokens = torch.tensor([[*row, *[self._pad] * (longest - len(row))] for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
        with torch.inference_mode():
            return self._model(input_ids=tokens, attention_mask=mask), mask

    def close(self) -> None:
        self._model = None


class TransformersLabeller(_Encoder):
    """Raises ArtifactError."""

    def __init__(self, folder: Path, *, threads: int | None = None) -> None:
        super().__init__(folder, "AutoModelForSequenceClassification", threads=threads)
        config = self._model.config
        self.labels: tuple[str, ...] = tuple(config.id2label[index] for index in range(config.num_labels))
        self.multi_label = getattr(config, "problem_type", None) == "multi_label_classification"

    def scores(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """The logits of each label: shape (rows, labels)."""
        if not rows:
            return np.zeros((0, len(self.labels)), np.float32)
        found, _ = self._run(rows)
        return np.array(found.logits.float().numpy())


class TransformersEmbedder(_Encoder):
    """Raises ArtifactError, also for a way of pooling other than mean, first token or maximum."""

    def __init__(self, folder: Path, *, threads: int | None = None) -> None:
        super().__init__(folder, "AutoModel", threads=threads)
        self.dimensions = int(self._model.config.hidden_size)
        self._pooling = _pooling(folder)
        self._normalise = "Normalize" in _text(folder / "modules.json")

    def vectors(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Shape (rows, dimensions)."""
        if not rows:
            return np.zeros((0, self.dimensions), np.float32)
        found, mask = self._run(rows)
        states, shown = found.last_hidden_state.float().numpy(), mask.numpy()[:, :, None]
        pooled = np.array(_POOLED[self._pooling](states, shown), np.float32)
        if self._normalise:
            pooled /= np.maximum(np.linalg.norm(pooled, axis=1, keepdims=True), 1e-12)
        return pooled


_POOLED = {
    "mean": lambda states, shown: (states * shown).sum(1) / np.maximum(shown.sum(1), 1),
    "cls": lambda states, shown: states[:, 0],
    "max": lambda states, shown: np.where(shown == 1, states, -np.inf).max(1),
}
_NAMES = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
}


def _pooling(folder: Path) -> str:
    said = json.loads(_text(folder / "1_Pooling" / "config.json") or "{}")
    named = said.get("pooling_mode")
    chosen = [named] if isinstance(named, str) else [key for key, on in said.items() if on is True and "mode" in key]
    if not chosen:
        return "mean"
    way = _NAMES.get(chosen[0], chosen[0])
    if len(chosen) > 1 or way not in _POOLED:
        raise ArtifactError(folder, f"it pools by {', '.join(chosen)}; known are {', '.join(_POOLED)}")
    return way


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""
