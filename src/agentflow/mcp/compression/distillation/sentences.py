"""A sentence model as sentence-transformers lays it out: BertModel, the mean over tokens, and often a norm of 1.

    folder/  config.json  model.safetensors  tokenizer.json  modules.json  1_Pooling/config.json

model = SentenceModel.open(folder)
model.vectors(["a text", "another"])     (2, hidden size)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn
from torch.nn import functional

from agentflow.errors import ModelFolderError, UnsupportedArchitectureError
from agentflow.mcp.compression.checkpoint import Checkpoint

__all__ = ["SentenceModel", "pooled"]

_BATCH: Final = 32  # texts that are read together
Tokens = tuple[torch.Tensor, torch.Tensor]  # ids and mask, both (texts, length)


class SentenceModel:
    """`module` is the BertModel, in float32; `length` the tokens of a text that are read."""

    def __init__(self, checkpoint: Checkpoint, module: Any, *, length: int, normalised: bool) -> None:
        self.checkpoint = checkpoint
        self.module: nn.Module = module
        self.length = length
        self.normalised = normalised

    @classmethod
    def open(cls, folder: Path, device: str = "cpu", *, longest: int | None = None) -> SentenceModel:
        """Raises ModelFolderError for what is no sentence model with mean pooling."""
        checkpoint = Checkpoint.open(folder)
        if checkpoint.architecture != "BertModel":
            raise UnsupportedArchitectureError(folder, checkpoint.architecture, ("BertModel",))
        _mean(folder)
        said = _json(folder, "sentence_bert_config.json").get("max_seq_length") or checkpoint.context_length
        length = min(int(said), checkpoint.context_length, longest or checkpoint.context_length)
        module = _loaded(checkpoint).to(device)
        return cls(checkpoint, module, length=length, normalised=_normalised(folder))

    def tokens(self, texts: Sequence[str]) -> Tokens:
        """Ids and mask of shape (texts, longest text), on the model's device."""
        found = self.checkpoint.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.length, return_tensors="pt"
        )
        device = next(self.module.parameters()).device
        return found["input_ids"].to(device), found["attention_mask"].to(device)

    def vectors(self, texts: Sequence[str], check: Callable[[], None] = lambda: None) -> torch.Tensor:
        """Without gradients, as the model is used: normalised where its folder says so. (texts, hidden size)."""
        rows: list[torch.Tensor] = []
        self.module.eval()
        with torch.no_grad():
            for at in range(0, len(texts), _BATCH):
                check()
                rows.append(pooled(self.module, *self.tokens(texts[at : at + _BATCH])))
        found = torch.cat(rows)
        return functional.normalize(found, dim=-1) if self.normalised else found


def pooled(module: Any, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The mean of the last hidden states over the tokens that `mask` marks by 1. (texts, hidden size)."""
    states: torch.Tensor = module(input_ids=ids, attention_mask=mask).last_hidden_state
    weights = mask.unsqueeze(-1).to(states.dtype)
    return (states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)


def _mean(folder: Path) -> None:
    pooling = _json(folder, "1_Pooling/config.json")
    if pooling and not pooling.get("pooling_mode_mean_tokens", pooling.get("pooling_mode") == "mean"):
        raise ModelFolderError(folder, "its sentence vector is not the mean over tokens, which alone is known here")


def _normalised(folder: Path) -> bool:
    modules = _json(folder, "modules.json")
    return any(str(each.get("type", "")).endswith("Normalize") for each in modules) if modules else False


def _json(folder: Path, name: str) -> Any:
    """An empty object where there is no such file."""
    try:
        return json.loads((folder / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ModelFolderError(folder, f"its {name} cannot be read: {error}") from error


def _loaded(checkpoint: Checkpoint) -> Any:
    from transformers import BertConfig, BertModel

    config = BertConfig.from_pretrained(checkpoint.folder, local_files_only=True)
    module: nn.Module = BertModel(config, add_pooling_layer="pooler.dense.weight" in checkpoint.tensors)
    state = {name: checkpoint.load(name).float() for name in module.state_dict() if name in checkpoint.tensors}
    missing = sorted(set(module.state_dict()) - set(state))
    if missing:
        raise ModelFolderError(checkpoint.folder, f"it lacks {', '.join(missing[:3])}")
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise ModelFolderError(checkpoint.folder, f"its weights do not fit its config.json: {error}") from error
    return module.eval()
