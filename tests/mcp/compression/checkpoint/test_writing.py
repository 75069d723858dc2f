"""A folder appears whole or not at all."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
import torch
from tests.support.tiny_models import tiny_decoder

from agentflow.errors import CompressionError, ShortageError
from agentflow.mcp.compression.checkpoint import Checkpoint, ShardWriter, copy_companions, writing


def copied(source: Path, target: Path, *, shard_bytes: int) -> None:
    checkpoint = Checkpoint.open(source)
    with writing(target) as folder:
        copy_companions(source, folder)
        (folder / "config.json").write_bytes((source / "config.json").read_bytes())
        with ShardWriter(folder, shard_bytes) as shards:
            for name in checkpoint.tensors:
                shards.add(name, checkpoint.load(name))


@pytest.mark.parametrize("shard_bytes", [1, 50_000, 10**9])
def test_what_is_written_is_what_transformers_reads(tmp_path: Path, shard_bytes: int) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source, target = tiny_decoder(tmp_path / "model"), tmp_path / "copy"
    copied(source, target, shard_bytes=shard_bytes)
    tokens = torch.arange(20).unsqueeze(0)
    one, other = (AutoModelForCausalLM.from_pretrained(path).eval() for path in (source, target))
    assert torch.equal(one(tokens).logits, other(tokens).logits)
    assert AutoTokenizer.from_pretrained(target)("the moon")["input_ids"]
    assert (target / "model.safetensors").exists() is (shard_bytes == 10**9)
    assert not [path for path in target.iterdir() if path.name.startswith("part-")]


def test_an_error_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), writing(tmp_path / "target") as folder:
        (folder / "half").write_bytes(b"x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    with (
        pytest.raises(ShortageError, match=r"disk are needed.*make room at") as told,
        writing(tmp_path / "t") as folder,
    ):
        (folder / "half").write_bytes(b"x")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert told.value.resource == "disk"
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    with pytest.raises(CompressionError, match="exists already"), writing(tmp_path / "target"):
        pytest.fail("the block must not run")


def test_others_may_read_what_was_written(tmp_path: Path) -> None:
    with writing(tmp_path / "deep" / "target") as folder:
        (folder / "file").write_bytes(b"x")
    assert (tmp_path / "deep" / "target").stat().st_mode & 0o777 == 0o755


def test_the_modules_of_sentence_transformers_go_along(tmp_path: Path) -> None:
    """Those that modules.json names and that lie in the folder: not the model itself (""), nothing outside of it."""
    source, target = tmp_path / "source", tmp_path / "target"
    for name in ("source/1_Pooling", "source/2_Dense", "source/notes", "target", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.json").write_text("{}")
    paths = ["", "1_Pooling", "2_Dense", "3_Normalize", "..", "../elsewhere"]
    (source / "modules.json").write_text(json.dumps([{"idx": at, "path": path} for at, path in enumerate(paths)]))
    copy_companions(source, target)
    found = {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_dir()}
    assert found == {"1_Pooling", "2_Dense"}
    (source / "modules.json").write_text("[{]")
    copy_companions(source, tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere" / "1_Pooling").is_dir()
