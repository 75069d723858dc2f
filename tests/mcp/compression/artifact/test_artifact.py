"""An artifact is opened only as it was made: every byte of it, and nothing beside it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.made_artifacts import made, manifest

from agentflow.errors import ArtifactError
from agentflow.mcp.compression.artifact import Artifact
from agentflow.mcp.compression.artifact.manifest import FileFacts


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return made(tmp_path_factory.mktemp("artifacts") / "w4 ünï")


def test_it_is_opened_wherever_it_was_carried(artifact: Artifact, tmp_path: Path) -> None:
    there = artifact.folder.rename(tmp_path / "elsewhere")
    try:
        opened = Artifact.open(there)
        assert opened.name == "w4"
        assert opened.model == there / "model"
        assert opened.manifest == artifact.manifest
    finally:
        there.rename(artifact.folder)


FILES = ("model/model.onnx", "model/genai_config.json", "LICENSE", "manifest.json")


@given(st.sampled_from(FILES), st.integers(0, 10**9), st.integers(0, 7))
@settings(max_examples=50)
def test_a_flipped_bit_in_any_file_is_found_and_the_file_named(
    artifact: Artifact, name: str, place: int, bit: int
) -> None:
    assert {each.path for each in artifact.manifest.files} | {"manifest.json"} == set(FILES)
    path = artifact.folder / name
    sound = path.read_bytes()
    damaged = bytearray(sound)
    damaged[place % len(sound)] ^= 1 << bit
    try:
        path.write_bytes(damaged)
        with pytest.raises(ArtifactError, match=f"{name}|of version"):
            Artifact.open(artifact.folder)
    finally:
        path.write_bytes(sound)


def test_without_verifying_a_changed_byte_is_not_looked_for_but_a_changed_size_is(tmp_path: Path) -> None:
    folder = made(tmp_path / "a").folder
    path = folder / "model" / "model.onnx"
    sound = path.read_bytes()
    path.write_bytes(b"?" + sound[1:])
    assert Artifact.open(folder, verify=False).name == "w4"
    path.write_bytes(sound[:-1])
    with pytest.raises(ArtifactError, match=r"model/model.onnx has 2,099 bytes, not 2,100: it was cut off or changed"):
        Artifact.open(folder, verify=False)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    folder = made(tmp_path / "a").folder
    (folder / "model" / "genai_config.json").unlink()
    with pytest.raises(ArtifactError, match=r"model/genai_config\.json is missing"):
        Artifact.open(folder)


def test_a_file_that_was_added_is_named_unless_a_file_manager_hid_it_there(tmp_path: Path) -> None:
    """A runtime might read what was put beside the weights: an adapter, another tokenizer."""
    folder = made(tmp_path / "a").folder
    (folder / ".DS_Store").write_bytes(b"")
    assert Artifact.open(folder).name == "w4"
    (folder / "model" / "adapter_config.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"model/adapter_config\.json is not in its manifest"):
        Artifact.open(folder)


@pytest.mark.parametrize("path", ["../outside", "/etc/passwd", "model/../../outside", "C:/outside", "..\\outside", ""])
def test_a_manifest_that_names_files_outside_of_it_is_refused(path: str, tmp_path: Path) -> None:
    manifest(files=(FileFacts(path=path, bytes=0, sha256="0"),)).write(tmp_path)
    with pytest.raises(ArtifactError, match="lies outside"):
        Artifact.open(tmp_path)


def test_a_folder_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="there is no such folder"):
        Artifact.open(tmp_path / "nothing")


NO_TORCH = """
import sys
class Forbidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "transformers", "safetensors", "numpy", "onnxruntime"}:
            raise ImportError(f"{name} was asked for")
sys.meta_path.insert(0, Forbidden())
from agentflow.mcp.compression.artifact import Artifact, Gate, compare
artifact = Artifact.open(sys.argv[1])
Gate(kl=1.0).check(artifact.manifest)
print(len(compare([artifact]).rows))
"""


def test_opening_judging_and_comparing_need_neither_torch_nor_numpy(artifact: Artifact) -> None:
    done = subprocess.run(
        [sys.executable, "-c", NO_TORCH, str(artifact.folder)], capture_output=True, text=True, timeout=100, check=False
    )
    assert (done.stdout, done.stderr) == ("1\n", "")
