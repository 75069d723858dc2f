"""The stage as a whole: what is asked for is what is written, and after an error nothing is."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support.exported import quantized, work_of
from tests.support.tiny_models import tiny_decoder

from agentflow.errors import CompressionError, ModelFolderError, RecipeError, ShortageError
from agentflow.mcp.compression.export import gguf_model
from agentflow.mcp.compression.export.stage import export
from agentflow.mcp.compression.recipe import Export
from agentflow.mcp.compression.work import CancelledWork


def left_of(target: Path) -> list[str]:
    return [path.name for path in target.parent.iterdir() if target.name in path.name]


def test_hf_is_the_model_as_it_is(tmp_path: Path) -> None:
    source = tiny_decoder(tmp_path / "m")
    (source / "LICENSE").write_text("as you like")
    record = export(Export("hf"), source, tmp_path / "out", work_of(tmp_path / "s"))
    assert (record.kind, record.settings) == ("export", {"target": "hf"})
    for path in source.iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("scheme", ["w4g32", "w8a8"])
def test_compressed_tensors_is_the_quantised_model_as_it_is(tmp_path: Path, scheme: str) -> None:
    source = quantized(tiny_decoder(tmp_path / "m"), scheme, tmp_path / "q")
    record = export(Export("compressed-tensors"), source, tmp_path / "out", work_of(tmp_path / "s"))
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()
    plain = export(Export("hf"), tmp_path / "m", tmp_path / "plain", work_of(tmp_path / "s"))
    assert record.parameters == plain.parameters  # of weights, not of the tensors that hold their codes


def test_shards_come_along(tmp_path: Path) -> None:
    source = tiny_decoder(tmp_path / "m")
    tensors = load_file(source / "model.safetensors")
    (source / "model.safetensors").unlink()
    where = {}
    for number, name in enumerate(tensors):
        file = f"model-{number % 2}.safetensors"
        where[name] = file
    for file in set(where.values()):
        save_file({name: tensors[name] for name in tensors if where[name] == file}, source / file)
    (source / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    export(Export("hf"), source, tmp_path / "out", work_of(tmp_path / "s"))
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"model-0.safetensors", "model-1.safetensors", "model.safetensors.index.json"} <= names


def test_what_is_not_what_was_asked_for_is_refused(tmp_path: Path) -> None:
    plain = tiny_decoder(tmp_path / "m")
    codes = quantized(plain, "w4g32", tmp_path / "q")
    work = work_of(tmp_path / "s")
    with pytest.raises(RecipeError, match="export it as compressed-tensors"):
        export(Export("hf"), codes, tmp_path / "out", work)
    with pytest.raises(RecipeError, match="let Quantize stand before it"):
        export(Export("compressed-tensors"), plain, tmp_path / "out", work)
    with pytest.raises(RecipeError, match="keep its codes"):
        export(Export("onnx:int8"), codes, tmp_path / "out", work)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("target", ["hf", "gguf:f16"])
def test_a_damaged_weight_is_found_and_nothing_is_left(tmp_path: Path, target: str) -> None:
    source = tiny_decoder(tmp_path / "m")
    tensors = load_file(source / "model.safetensors")
    tensors["model.norm.weight"][3] = torch.nan
    save_file(tensors, source / "model.safetensors")
    with pytest.raises(ModelFolderError, match=r"model\.norm\.weight holds NaN"):
        export(Export(target), source, tmp_path / "out", work_of(tmp_path / "s"))
    assert left_of(tmp_path / "out") == []


def test_nothing_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(CompressionError, match="exists already"):
        export(Export("hf"), tiny_decoder(tmp_path / "m"), tmp_path / "out", work_of(tmp_path / "s"))


@pytest.mark.parametrize("target", ["hf", "onnx", "gguf:f16"])
def test_a_cancelled_export_leaves_nothing(tmp_path: Path, target: str) -> None:
    work = work_of(tmp_path / "s")
    work.cancelled.set()
    with pytest.raises(CancelledWork):
        export(Export(target), tiny_decoder(tmp_path / "m"), tmp_path / "out", work)
    assert left_of(tmp_path / "out") == []
    assert list(work.scratch.iterdir()) == []


def test_a_full_disk_is_said_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = 0

    def full(self: Any, tensor: Any) -> None:
        nonlocal written
        written += 1
        if written > 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        original(self, tensor)

    original = gguf_model.GGUFWriter.write_tensor_data
    monkeypatch.setattr(gguf_model.GGUFWriter, "write_tensor_data", full)
    with pytest.raises(ShortageError, match="make room"):
        export(Export("gguf:f16"), tiny_decoder(tmp_path / "m"), tmp_path / "out", work_of(tmp_path / "s"))
    assert left_of(tmp_path / "out") == []


def test_progress_is_told(tmp_path: Path) -> None:
    from dataclasses import replace

    told: list[tuple[str, int, int]] = []
    work = replace(work_of(tmp_path / "s"), progress=lambda *step: told.append(step))
    export(Export("gguf:f16"), tiny_decoder(tmp_path / "m"), tmp_path / "out", work)
    assert told[0] == ("writing gguf", 0, len(told))
    assert [done for _, done, _ in told] == list(range(len(told)))
