"""A Hugging Face folder run by transformers, also one of compressed-tensors: the fallback, which needs PyTorch.

    TransformersRuntime(folder).open([[1, 7, 4], [1, 9]])

Each row has a cache of its own, so that every architecture's cache works and a row's answer is what it is alone. The
weights are run in the type they are stored in; code that comes with a model is never run.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from agentflow.errors import ArtifactError
from agentflow.mcp.performance.edge.runtimes.separate import Separate

__all__ = ["TransformersRuntime", "loaded"]

_MOST = 1 << 17  # tokens of context where a configuration names none


def loaded(folder: Path, kind: str, *, threads: int | None = None) -> Any:
    """A model in its evaluation mode. `kind` is the name of one of transformers' Auto classes. Raises ArtifactError."""
    import transformers

    if threads is not None:
        torch.set_num_threads(threads)
    bars: Any = transformers.utils.logging
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            more = {}
            if _has_zeros(folder):
                more["quantization_config"] = transformers.CompressedTensorsConfig(dequantize=True)
                warnings.filterwarnings("ignore", "You passed `quantization_config`")  # beside the folder's own: meant
            model = getattr(transformers, kind).from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype="auto", **more
            )
    except Exception as error:
        raise ArtifactError(folder, f"transformers does not load it: {str(error)[:300]}") from error
    finally:
        if shown:
            bars.enable_progress_bar()
    return model.eval()


def _has_zeros(folder: Path) -> bool:
    """Whether some weights have zero points, which transformers reads only where it decodes everything first."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        groups = config.get("quantization_config", {}).get("config_groups", {}).values()
        return any(group["weights"].get("symmetric") is False for group in groups)
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return False  # what is wrong with it, transformers says


class TransformersRuntime:
    """`threads` holds for the whole process, as PyTorch's number of threads does. Raises ArtifactError."""

    name = "transformers"

    def __init__(self, folder: Path, *, threads: int | None = None) -> None:
        self._model: Any = loaded(folder, "AutoModelForCausalLM", threads=threads)
        self.version = version("transformers")
        self._cache = "cache" if "cache" in signature(self._model.forward).parameters else "past_key_values"
        config = self._model.config.get_text_config()
        self.context_length = int(getattr(config, "max_position_embeddings", None) or _MOST)
        self.vocabulary = int(config.vocab_size)

    def open(self, prompts: Sequence[Sequence[int]]) -> Separate:
        decoding = Separate(self._row)
        decoding.add(prompts)
        return decoding

    def score(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Shape (len(tokens), vocabulary)."""
        with torch.inference_mode():
            found = self._loaded(input_ids=torch.tensor([list(tokens)]), use_cache=False).logits[0]
        return np.array(found.float().numpy())

    def _row(self, prompt: Sequence[int]) -> _Row:
        return _Row(self._loaded, self._cache, prompt)

    @property
    def _loaded(self) -> Any:
        if self._model is None:
            raise RuntimeError("the runtime is closed")
        return self._model

    def close(self) -> None:
        self._model = None


class _Row:
    def __init__(self, model: Any, cache: str, prompt: Sequence[int]) -> None:
        self._model = model
        self._name = cache  # which older releases call past_key_values
        self._cache: Any = None
        self._next = self._run(prompt)

    def logits(self) -> NDArray[np.float32]:
        return self._next.copy()

    def append(self, token: int) -> None:
        self._next = self._run([token])

    def _run(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        with torch.inference_mode():
            found = self._model(
                input_ids=torch.tensor([list(tokens)]),
                use_cache=True,
                logits_to_keep=1,
                **{self._name: self._cache},
            )
        self._cache = getattr(found, self._name)
        return np.array(found.logits[0, -1].float().numpy())

    def close(self) -> None:
        self._cache = None
