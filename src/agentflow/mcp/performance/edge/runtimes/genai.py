"""An ONNX decoder run by onnxruntime-genai itself: the proof that it loads the folder, and a home for unusual graphs.

    GenaiRuntime(folder).open([[1, 7, 4]])

Each row has a `Generator` of its own: those of one generator must begin together, end together and be padded. The
library holds Python's lock while it computes, so an event loop in the same process waits for each token;
`runtimes.onnx` runs plain decoders without that.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime_genai
from numpy.typing import NDArray

from agentflow.errors import ArtifactError
from agentflow.mcp.performance.edge.runtimes.genai_card import GenaiCard
from agentflow.mcp.performance.edge.runtimes.separate import Separate

__all__ = ["GenaiRuntime"]

og: Any = onnxruntime_genai  # its names have no types
if hasattr(og, "disable_telemetry_events"):
    og.disable_telemetry_events()  # nothing of what is run here is told to anybody


class GenaiRuntime:
    """Raises ArtifactError where the folder is damaged."""

    name = "onnxruntime-genai"

    def __init__(self, folder: Path, *, threads: int | None = None) -> None:
        card = GenaiCard.read(folder)
        self.version: str = og.__version__
        self.context_length = card.context_length
        self.vocabulary = card.vocabulary
        self._logits = card.model.decoder.outputs.logits
        try:
            config = og.Config(str(folder))
            if threads is not None:
                options = {"session_options": {"intra_op_num_threads": threads}}
                config.overlay(json.dumps({"model": {"decoder": options}}))
            self._model: Any = og.Model(config)
        except Exception as error:
            raise ArtifactError(folder, f"onnxruntime-genai does not load it: {str(error)[:300]}") from error

    def open(self, prompts: Sequence[Sequence[int]]) -> Separate:
        decoding = Separate(self._row)
        decoding.add(prompts)
        return decoding

    def score(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Shape (len(tokens), vocabulary)."""
        found = self._row(tokens).generator.get_output(self._logits)
        return np.array(found[0], np.float32)

    def _row(self, prompt: Sequence[int]) -> _Row:
        if self._model is None:
            raise RuntimeError("the runtime is closed")
        params = og.GeneratorParams(self._model)
        params.set_search_options(max_length=self.context_length, batch_size=1)
        return _Row(og.Generator(self._model, params), prompt)

    def close(self) -> None:
        self._model = None


class _Row:
    def __init__(self, generator: Any, prompt: Sequence[int]) -> None:
        self.generator = generator
        generator.append_tokens(np.asarray([prompt], np.int32))

    def logits(self) -> NDArray[np.float32]:
        return np.array(self.generator.get_logits()[0, -1], np.float32)

    def append(self, token: int) -> None:
        self.generator.append_tokens(np.asarray([[token]], np.int32))

    def close(self) -> None:
        del self.generator
