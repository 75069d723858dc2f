"""An artifact is made whole or not at all, and says of itself what is true."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
from pathlib import Path

import pytest
from tests.support.made_artifacts import SOURCE, STAGES, TENSORS, made, measures
from tests.support.trained import teacher_folder

from agentflow.errors import ArtifactError, CompressionError, ShortageError
from agentflow.mcp.compression.artifact import Gate, assemble, format_of, source_of
from agentflow.mcp.compression.artifact.assembling import installed_versions
from agentflow.mcp.compression.checkpoint import Checkpoint


def test_it_holds_the_model_the_licence_and_the_facts(tmp_path: Path) -> None:
    artifact = made(tmp_path / "w4")
    manifest = artifact.manifest
    assert sorted(path.name for path in artifact.folder.iterdir()) == ["LICENSE", "manifest.json", "model"]
    assert {each.path: each.bytes for each in manifest.files} == {
        "LICENSE": 29,
        "model/genai_config.json": 2,
        "model/model.onnx": 2100,
    }
    weights = (artifact.model / "model.onnx").read_bytes()
    assert hashlib.sha256(weights).hexdigest() == manifest.files[2].sha256
    assert manifest.bytes == 2102  # of model/ alone
    assert manifest.parameters == STAGES[-1].parameters
    assert manifest.format == "onnx"
    assert manifest.loaded_by == {"onnxruntime": "1.32.0"}
    assert manifest.tensors == TENSORS
    assert manifest.versions["torch"].startswith("2.")
    assert manifest.created.endswith("+00:00")
    assert manifest.gate is None


def test_the_gate_s_verdict_is_written_down_and_not_raised(tmp_path: Path) -> None:
    found = made(tmp_path / "w4", gate=Gate(kl=0.001, greedy=0.5)).manifest.gate
    assert found is not None
    assert found.limits == {"kl": 0.001, "greedy": 0.5}
    assert found.failures == ("kl 0.021 is above 0.001",)


def test_nothing_is_written_over(tmp_path: Path) -> None:
    made(tmp_path / "w4")
    shutil.rmtree(tmp_path / "work-w4")
    with pytest.raises(CompressionError, match="exists already"):
        made(tmp_path / "w4", name="another")


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: object, **more: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copytree", full)
    with pytest.raises(ShortageError, match="disk"):
        made(tmp_path / "w4")
    assert [path.name for path in tmp_path.iterdir()] == ["work-w4"]


def test_a_kill_in_the_middle_leaves_no_artifact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def killed(*given: object) -> None:
        raise Killed

    monkeypatch.setattr("agentflow.mcp.compression.artifact.assembling.facts_of", killed)
    with pytest.raises(Killed):
        made(tmp_path / "w4")
    assert [path.name for path in tmp_path.iterdir()] == ["work-w4"]


def test_a_recipe_that_wrote_nothing_is_no_artifact(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    for model in (tmp_path / "model", tmp_path / "nothing"):
        with pytest.raises(ArtifactError, match="wrote no model"):
            assemble(
                tmp_path / "w4", model=model, name="w4", task="generate", source=SOURCE, source_folder=tmp_path,
                stages=STAGES, recipe_sha256="0",
            )  # fmt: skip


@pytest.mark.parametrize(
    ("file", "config", "known"),
    [
        ("model-q4_k_m.gguf", None, "gguf"),
        ("model.onnx", {}, "onnx"),
        (None, {"architectures": []}, "hf"),
        (None, {"quantization_config": {"quant_method": "compressed-tensors"}}, "compressed-tensors"),
    ],
)
def test_the_format_is_told_from_the_files(file: str | None, config: object, known: str, tmp_path: Path) -> None:
    if file:
        (tmp_path / file).write_bytes(b"")
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert format_of(tmp_path) == known


@pytest.mark.parametrize("config", [None, "{", "[]"])
def test_a_folder_of_no_format_is_refused(config: str | None, tmp_path: Path) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(config, encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"no \.gguf, no \.onnx and no readable config\.json"):
        format_of(tmp_path)


def test_the_source_is_named_by_its_digest_its_licence_and_the_digest_of_the_texts() -> None:
    checkpoint = Checkpoint.open(teacher_folder())
    source = source_of(checkpoint, name="teacher", texts=["ab", "c"])
    assert source.sha256 == checkpoint.sha256()
    assert source.architecture == "LlamaForCausalLM"
    assert source.licence is not None
    assert source.parameters == checkpoint.parameters
    assert source_of(checkpoint, name="t", texts=["a", "bc"]).data_sha256 != source.data_sha256
    assert source_of(checkpoint, name="t").data_sha256 is None


def test_only_what_is_installed_has_a_version() -> None:
    found = installed_versions()
    assert "agentflow-engine" in found
    assert all(found.values())


def test_a_measure_of_each_runtime_is_kept(tmp_path: Path) -> None:
    both = (measures(), measures(runtime="onnxruntime-genai", runtime_version="0.18.0"))
    assert made(tmp_path / "w4", after=both).manifest.loaded_by == {
        "onnxruntime": "1.32.0",
        "onnxruntime-genai": "0.18.0",
    }
