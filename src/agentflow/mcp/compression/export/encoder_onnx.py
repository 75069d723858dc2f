"""An encoder as an ONNX folder: pooled and normalised as its sentence-transformers layout says, or a classifier.

source/ config.json model.safetensors modules.json 1_Pooling/ …  ─▶  model.onnx(.data) encoder.json tokenizer.json …
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentflow.errors import ModelFolderError, RecipeError
from agentflow.mcp.compression.checkpoint import Checkpoint
from agentflow.mcp.compression.export.bert_graph import BertGraph, Pooling
from agentflow.mcp.compression.export.encoder_card import EncoderCard
from agentflow.mcp.compression.export.full_precision import FullPrecision
from agentflow.mcp.compression.export.onnx_file import Weights, save

__all__ = ["write_encoder"]

CLASSIFIER = "BertForSequenceClassification"


def write_encoder(checkpoint: Checkpoint, folder: Path, *, int8: bool, check: Callable[[], None]) -> EncoderCard:
    """model.onnx and encoder.json, in `folder`. Raises RecipeError for what cannot be written, such as another
    activation function or a module of sentence-transformers that is neither pooling nor normalisation."""
    source = FullPrecision(checkpoint)
    if source.quantized:
        raise RecipeError("an encoder is quantised by Export('onnx:int8'), not before it")
    card = _card(checkpoint)
    with Weights(folder) as weights:
        graph = BertGraph(
            config=checkpoint.config,
            load=lambda name: _array(source, name),
            weights=weights,
            check=check,
            int8=int8,
        )
        if card.task == "classify":
            model = graph.logits(len(card.labels))
        else:
            model = graph.embedding(card.pooling or "mean", normalize=card.normalize)
    save(model, folder)
    card.write(folder)
    return card


def _array(source: FullPrecision, name: str) -> NDArray[np.float32]:
    array: NDArray[np.float32] = source.load(_full_name(source, name)).numpy()
    return array


def _full_name(source: FullPrecision, name: str) -> str:
    """A BertModel's own names; a model with a head on top puts "bert." before them."""
    return name if name in source else f"bert.{name}"


def _card(checkpoint: Checkpoint) -> EncoderCard:
    config = checkpoint.config
    length, padding = _max_length(checkpoint), int(config.get("pad_token_id") or 0)
    if checkpoint.architecture == CLASSIFIER:
        return EncoderCard(
            task="classify",
            output="logits",
            max_length=length,
            pad_token_id=padding,
            labels=_labels(checkpoint),
            multi_label=config.get("problem_type") == "multi_label_classification",
        )
    pooling, normalize = _pooling(checkpoint.folder)
    return EncoderCard(
        task="embed",
        output="embedding",
        max_length=length,
        pad_token_id=padding,
        dimensions=int(config["hidden_size"]),
        pooling=pooling,
        normalize=normalize,
    )


def _labels(checkpoint: Checkpoint) -> tuple[str, ...]:
    found = checkpoint.config.get("id2label") or {}
    count = checkpoint.tensors["classifier.bias"].count if "classifier.bias" in checkpoint.tensors else 0
    if not count:
        raise ModelFolderError(checkpoint.folder, "it has no classifier.bias, which says how many labels there are")
    return tuple(str(found.get(str(index), f"LABEL_{index}")) for index in range(count))


def _max_length(checkpoint: Checkpoint) -> int:
    told = (_json(checkpoint.folder / "sentence_bert_config.json") or {}).get("max_seq_length")
    tokenizer = (_json(checkpoint.folder / "tokenizer_config.json") or {}).get("model_max_length")
    known = [size for size in (told, tokenizer, checkpoint.context_length) if isinstance(size, int) and size > 0]
    return min(known)


def _pooling(folder: Path) -> tuple[Pooling, bool]:
    """As modules.json says; a model without one has the mean of its tokens, of any length, as sentence-transformers
    would make of it."""
    modules = _json(folder / "modules.json")
    if modules is None:
        return "mean", False
    kinds = [str(module["type"]).rpartition(".")[2] for module in modules]
    if unknown := set(kinds) - {"Transformer", "Pooling", "Normalize"}:
        raise RecipeError(f"onnx: {folder} has the modules {', '.join(sorted(unknown))}, which cannot be written")
    paths = [module["path"] for module, kind in zip(modules, kinds, strict=True) if kind == "Pooling"]
    return _mode((_json(folder / paths[0] / "config.json") or {}) if paths else {}, folder), "Normalize" in kinds


def _mode(config: Mapping[str, Any], folder: Path) -> Pooling:
    flags = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token", "max": "pooling_mode_max_tokens"}
    named = config.get("pooling_mode")  # newer folders name it, older ones set one of several flags
    chosen = [named] if isinstance(named, str) else [mode for mode, flag in flags.items() if config.get(flag)]
    known: dict[str, Pooling] = {"mean": "mean", "cls": "cls", "max": "max"}
    if not config:
        return "mean"
    if len(chosen) != 1 or chosen[0] not in known:
        raise RecipeError(f"onnx: {folder} is pooled by {chosen or 'another way'}; mean, cls and max can be written")
    return known[chosen[0]]


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ModelFolderError(path.parent, f"its {path.name} cannot be read: {error}") from error
