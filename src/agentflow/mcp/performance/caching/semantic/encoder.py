"""A sentence embedding model of the BERT family, such as all-MiniLM-L6-v2, computed with NumPy alone.

    Encoder.load(folder).encode("How far is the moon?")  ──▶  384 numbers of norm 1

The folder is one that sentence-transformers writes: config.json, vocab.txt, model.safetensors (float32). The mean of
the last layer's tokens is the vector (mean pooling). It is for one short text at a time, on a CPU; a batch, a GPU or
another architecture is not for it.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final, TypeAlias

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from agentflow.errors import ConfigurationError
from agentflow.mcp.performance.caching.semantic.wordpiece import pieces_of

__all__ = ["Encoder"]

Floats: TypeAlias = NDArray[np.float32]

_MOST_PIECES: Final = 256  # what the model was trained with


class _Config(Struct, frozen=True):
    num_attention_heads: int
    num_hidden_layers: int
    layer_norm_eps: float = 1e-12
    max_position_embeddings: int = 512
    hidden_act: str = "gelu"
    model_type: str = "bert"


class _Tensor(Struct, frozen=True):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


class Encoder:
    """`weights` by their names in the file, `vocabulary` from piece to number."""

    def __init__(self, config: _Config, weights: dict[str, Floats], vocabulary: dict[str, int], *, lower: bool) -> None:
        self._config = config
        self._weights = weights
        self._vocabulary = vocabulary
        self._lower = lower

    @classmethod
    def load(cls, folder: Path) -> Encoder:
        """Raises ConfigurationError for a folder without such a model."""
        try:
            config = msgspec.json.decode((folder / "config.json").read_bytes(), type=_Config)
            weights = _read((folder / "model.safetensors").read_bytes())
            words = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
            tokens = folder / "tokenizer_config.json"
            said = msgspec.json.decode(tokens.read_bytes()) if tokens.exists() else {}
        except (OSError, ValueError, KeyError) as error:
            raise ConfigurationError(
                f"{folder.name} holds no sentence embedding model: config.json, vocab.txt and model.safetensors of a "
                f"BERT are needed ({type(error).__name__}: {error})"
            ) from error
        if config.model_type != "bert" or config.hidden_act != "gelu":
            raise ConfigurationError(f"{folder.name} holds a {config.model_type}: only BERT with GELU is known")
        vocabulary = {word: number for number, word in enumerate(words)}
        return cls(config, weights, vocabulary, lower=bool(said.get("do_lower_case", True)))

    def encode(self, text: str) -> Floats:
        """The vector of a text, shape (hidden,), norm 1. What exceeds 256 pieces does not count."""
        most = min(_MOST_PIECES, self._config.max_position_embeddings)
        pieces = pieces_of(text, self._vocabulary, most=most, lower=self._lower)
        state = self._embedded(pieces)
        for layer in range(self._config.num_hidden_layers):
            state = self._layer(state, f"encoder.layer.{layer}.")
        mean = state.mean(axis=0)
        made: Floats = (mean / max(float(np.linalg.norm(mean)), 1e-12)).astype(np.float32)
        return made

    def _embedded(self, pieces: list[int]) -> Floats:
        weights = self._weights
        state = (
            weights["embeddings.word_embeddings.weight"][pieces]
            + weights["embeddings.position_embeddings.weight"][: len(pieces)]
            + weights["embeddings.token_type_embeddings.weight"][0]
        )
        return self._normed(state, "embeddings.LayerNorm")

    def _layer(self, state: Floats, name: str) -> Floats:
        """(pieces, hidden) to the same."""
        attended = self._linear(self._attention(state, name + "attention.self."), name + "attention.output.dense")
        state = self._normed(state + attended, name + "attention.output.LayerNorm")
        inner = _gelu(self._linear(state, name + "intermediate.dense"))
        return self._normed(state + self._linear(inner, name + "output.dense"), name + "output.LayerNorm")

    def _attention(self, state: Floats, name: str) -> Floats:
        heads = self._config.num_attention_heads
        count, hidden = state.shape
        query, key, value = (
            self._linear(state, name + part).reshape(count, heads, hidden // heads).transpose(1, 0, 2)
            for part in ("query", "key", "value")
        )
        scores = query @ key.transpose(0, 2, 1) / np.float32(math.sqrt(hidden // heads))  # (heads, pieces, pieces)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = (weights / weights.sum(axis=-1, keepdims=True)) @ value
        made: Floats = mixed.transpose(1, 0, 2).reshape(count, hidden)
        return made

    def _linear(self, state: Floats, name: str) -> Floats:
        made: Floats = state @ self._weights[name + ".weight"].T + self._weights[name + ".bias"]
        return made

    def _normed(self, state: Floats, name: str) -> Floats:
        centred = state - state.mean(axis=-1, keepdims=True)
        scale = np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + np.float32(self._config.layer_norm_eps))
        made: Floats = centred / scale * self._weights[name + ".weight"] + self._weights[name + ".bias"]
        return made


def _gelu(x: Floats) -> Floats:
    """x Φ(x), with the error function of Abramowitz and Stegun 7.1.26, whose error is below 1.5e-7."""
    z = np.abs(x) * np.float32(math.sqrt(0.5))
    t = 1.0 / (1.0 + np.float32(0.3275911) * z)
    series = t * (
        0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * np.float32(1.061405429))))
    )
    erf = np.sign(x) * (1.0 - series * np.exp(-z * z))
    made: Floats = (0.5 * x * (1.0 + erf)).astype(np.float32)
    return made


def _read(data: bytes) -> dict[str, Floats]:
    """The tensors of a safetensors file: eight bytes of length, a JSON header, then the numbers."""
    size = int.from_bytes(data[:8], "little")
    header: dict[str, msgspec.Raw] = msgspec.json.decode(data[8 : 8 + size], type=dict[str, msgspec.Raw])
    body = memoryview(data)[8 + size :]
    found: dict[str, Floats] = {}
    for name, raw in header.items():
        if name == "__metadata__":
            continue
        tensor = msgspec.json.decode(raw, type=_Tensor)
        if tensor.dtype == "F32":
            start, end = tensor.data_offsets
            found[name.removeprefix("bert.")] = np.frombuffer(body[start:end], np.float32).reshape(tensor.shape)
    return found
