"""The source in full precision, as a runtime: transformers in float32, on whatever device the work is done.

It is what every artifact is held against, so nothing about it may be quick or small: no half precision, no batching.
"""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from agentflow.errors import ModelFolderError
from agentflow.mcp.performance.edge.runtimes.separate import Separate

__all__ = ["SourceModel"]


class SourceModel:
    """A decoder of transformers; satisfies `Runtime`. Raises ModelFolderError where the folder cannot be loaded."""

    name = "transformers"

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        from transformers import __version__

        self.version: str = __version__
        self._device = device
        model = _loaded(folder)
        self._model: Any = model.eval().to(device)
        # What older releases call past_key_values is about to be gone.
        self._cache = "cache" if "cache" in signature(model.forward).parameters else "past_key_values"

    @property
    def context_length(self) -> int:
        return int(self._model.config.max_position_embeddings)

    @property
    def vocabulary(self) -> int:
        return int(self._model.config.vocab_size)

    def score(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        with torch.inference_mode():
            said = self._model(input_ids=self._row(tokens), use_cache=False).logits[0]
        return np.array(said.float().cpu().numpy(), dtype=np.float32)

    def open(self, prompts: Sequence[Sequence[int]]) -> Separate:
        decoding = Separate(lambda prompt: _Row(self._model, self._cache, self._row(prompt)))
        decoding.add(prompts)
        return decoding

    def close(self) -> None:
        self._model = None

    def _row(self, tokens: Sequence[int]) -> torch.Tensor:
        return torch.tensor([list(tokens)], dtype=torch.int64, device=self._device)


def _loaded(folder: Path) -> Any:
    """Without the bar that transformers draws: whoever measures tells of it."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    drawn = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        return AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, trust_remote_code=False, use_safetensors=True
        )
    except (OSError, ValueError) as error:
        raise ModelFolderError(folder, f"transformers cannot load it: {error}") from error
    finally:
        if drawn:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


class _Row:
    """One text with its own cache of keys and values."""

    def __init__(self, model: Any, cache: str, tokens: torch.Tensor) -> None:
        self._model = model
        self._name = cache
        self._cache: Any = None
        self._said = self._step(tokens)

    def logits(self) -> NDArray[np.float32]:
        return self._said

    def append(self, token: int) -> None:
        self._said = self._step(torch.tensor([[token]], dtype=torch.int64, device=self._model.device))

    def close(self) -> None:
        self._cache = None

    def _step(self, tokens: torch.Tensor) -> NDArray[np.float32]:
        with torch.inference_mode():
            out = self._model(input_ids=tokens, use_cache=True, logits_to_keep=1, **{self._name: self._cache})
        self._cache = getattr(out, self._name)
        return np.array(out.logits[0, -1].float().cpu().numpy(), dtype=np.float32)
