"""genai_config.json: what onnxruntime-genai's model builder writes beside an ONNX decoder.

card = GenaiCard.read(folder)
card.file, card.context_length, card.vocabulary, card.end_tokens
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from agentflow.errors import ArtifactError

__all__ = ["NAME", "GenaiCard"]

NAME = "genai_config.json"


class _Inputs(msgspec.Struct, frozen=True):
    input_ids: str = "input_ids"
    attention_mask: str = "attention_mask"
    position_ids: str | None = None
    past_key_names: str = "past_key_values.%d.key"
    past_value_names: str = "past_key_values.%d.value"


class _Outputs(msgspec.Struct, frozen=True):
    logits: str = "logits"
    present_key_names: str = "present.%d.key"
    present_value_names: str = "present.%d.value"


class _Decoder(msgspec.Struct, frozen=True):
    filename: str
    num_hidden_layers: int
    num_key_value_heads: int
    head_size: int
    inputs: _Inputs = _Inputs()
    outputs: _Outputs = _Outputs()


class _Model(msgspec.Struct, frozen=True):
    decoder: _Decoder
    vocab_size: int
    context_length: int
    eos_token_id: int | list[int] = []


class _Search(msgspec.Struct, frozen=True):
    past_present_share_buffer: bool = False


class GenaiCard(msgspec.Struct, frozen=True):
    """The part of it that is needed to run the graph."""

    model: _Model
    search: _Search = _Search()

    @classmethod
    def read(cls, folder: Path) -> GenaiCard:
        """Raises ArtifactError where it cannot be read, or names a file outside of the folder."""
        try:
            card = msgspec.json.decode((folder / NAME).read_bytes(), type=cls)
        except (OSError, msgspec.MsgspecError) as error:
            raise ArtifactError(folder, f"its {NAME} cannot be read: {error}") from error
        name = card.model.decoder.filename
        if Path(name).name != name:
            raise ArtifactError(folder, f"its {NAME} names {name!r}, which lies outside of it")
        if not (folder / name).is_file():
            raise ArtifactError(folder, f"{name} is missing")
        return card

    @property
    def file(self) -> str:
        return self.model.decoder.filename

    @property
    def context_length(self) -> int:
        return self.model.context_length

    @property
    def vocabulary(self) -> int:
        return self.model.vocab_size

    @property
    def end_tokens(self) -> Sequence[int]:
        said = self.model.eos_token_id
        return [said] if isinstance(said, int) else said

    @property
    def layers(self) -> range:
        return range(self.model.decoder.num_hidden_layers)

    @property
    def shares_caches(self) -> bool:
        """Whether the graph writes new keys and values into the buffers that it reads the old ones from."""
        return self.search.past_present_share_buffer
