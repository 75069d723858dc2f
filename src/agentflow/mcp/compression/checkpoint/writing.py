"""A model folder, written shard by shard into a hidden folder beside its place, which it takes at the end, whole.

with writing(target) as folder:          target's neighbour .target.partial-…
    with ShardWriter(folder) as shards:  model-00001.safetensors … and their index
        shards.add("model.layers.0.mlp.up_proj.weight", tensor)
…                                        fsync, then one rename; after an error nothing is left
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from types import TracebackType

import torch
from safetensors.torch import save_file

from agentflow.errors import CompressionError, ShortageError

__all__ = ["ShardWriter", "copy_companions", "writing"]

SHARD = 2_000_000_000  # bytes
# What belongs to a model beside its weights: its tokenizer, how it is used, and what it may be used for.
COMPANIONS = ("tokenizer*", "special_tokens_map.json", "vocab*", "merges.txt", "added_tokens.json",
              "generation_config.json", "chat_template*", "modules.json", "sentence_bert_config.json",
              "config_sentence_transformers.json", "LICENSE*", "LICENCE*", "NOTICE*", "README*")  # fmt: skip


@contextmanager
def writing(target: Path) -> Iterator[Path]:
    """A folder that becomes `target` if the block ends well, and is removed if it does not.

    Raises CompressionError where `target` exists already, ShortageError where the disk is full.
    """
    if target.exists():
        raise CompressionError(f"{target} exists already; nothing is ever written over: give another place")
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(mkdtemp(prefix=f".{target.name}.partial-", dir=target.parent))
    try:
        yield folder
        for path in folder.rglob("*"):
            if path.is_file():
                _to_disk(path)
        folder.chmod(0o755)  # what mkdtemp made is for its owner alone
        _to_disk(folder)
        folder.rename(target)
        _to_disk(target.parent)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            free = shutil.disk_usage(target.parent).free
            raise ShortageError(
                "disk", needed=free + 1, available=free, advice=f"make room at {target.parent}"
            ) from error
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class ShardWriter:
    """Takes tensors one by one, in any order, and holds no more than one shard of them in memory."""

    def __init__(self, folder: Path, shard_bytes: int = SHARD) -> None:
        self._folder = folder
        self._limit = shard_bytes
        self._shard: dict[str, torch.Tensor] = {}
        self._size = 0
        self._written: list[list[str]] = []
        self._total = 0

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._finish()

    def add(self, name: str, tensor: torch.Tensor) -> None:
        size = tensor.numel() * tensor.element_size()
        if self._shard and self._size + size > self._limit:
            self._flush()
        self._shard[name] = tensor.detach().cpu().contiguous()
        self._size += size
        self._total += size

    def _flush(self) -> None:
        path = self._folder / f"part-{len(self._written):05}.safetensors"
        save_file(self._shard, path, metadata={"format": "pt"})
        self._written.append(list(self._shard))
        self._shard, self._size = {}, 0

    def _finish(self) -> None:
        if self._shard:
            self._flush()
        many = len(self._written)
        where: dict[str, str] = {}
        for number, names in enumerate(self._written):
            final = "model.safetensors" if many == 1 else f"model-{number + 1:05}-of-{many:05}.safetensors"
            (self._folder / f"part-{number:05}.safetensors").rename(self._folder / final)
            where |= dict.fromkeys(names, final)
        if many > 1:
            index = {"metadata": {"total_size": self._total}, "weight_map": where}
            (self._folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")


def copy_companions(source: Path, folder: Path) -> None:
    """The files that go with the weights: tokenizer, generation settings, chat template, licence."""
    for pattern in COMPANIONS:
        for path in source.glob(pattern):
            if path.is_file():
                shutil.copyfile(path, folder / path.name)
    for name in _modules(source):
        shutil.copytree(source / name, folder / name, dirs_exist_ok=True)


def _modules(source: Path) -> Iterator[str]:
    """The folders that sentence-transformers keeps beside a model: how it pools, and what it does after that."""
    try:
        listed = json.loads((source / "modules.json").read_text(encoding="utf-8"))
        paths = {"1_Pooling", *(str(module["path"]) for module in listed)}
    except (OSError, ValueError, KeyError, TypeError):
        paths = {"1_Pooling"}
    paths -= {"", ".", ".."}  # "" is the model itself
    yield from (path for path in sorted(paths) if path == Path(path).name and (source / path).is_dir())


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
