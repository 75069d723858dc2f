"""`agentflow deploy`: a folder from an artifact, and whether one is whole."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tests.support.deployable import artifact_of, fake_model
from tests.support.edge_models import onnx_of, tiny_folder

from agentflow.mcp.compression.artifact import Artifact


@pytest.fixture
def artifact(place: Path) -> Path:
    return artifact_of(place / "small", fake_model(place / "model")).folder


def test_it_says_what_it_wrote_and_what_next(invoke, artifact: Path, place: Path) -> None:
    """The name, the size, and the command that checks it."""
    shown = invoke("deploy", str(artifact), "--target", "onnx", "--output", "out/small", "--name", "edge/mine")
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert shown.stdout.startswith("wrote out/small: edge/mine, 11 files, ")
    assert "agentflow deploy --verify out/small" in shown.stdout
    assert (place / "out" / "small" / "run.py").is_file()


def test_it_checks_what_it_wrote(invoke, place: Path) -> None:
    """A real model: whole, loaded, and a first token written."""
    folder = artifact_of(place / "small", onnx_of("tiny")).folder
    assert invoke("deploy", str(folder), "-o", "out").exit_code == 0
    shown = invoke("deploy", "--verify", "out")
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert "files are as they were written" in shown.stdout
    assert "run.py runs by onnxruntime-genai" in shown.stdout
    (place / "out" / "README.md").write_text("other words")
    shown = invoke("deploy", "--verify", "out")
    assert (shown.exit_code, shown.stdout) == (2, "")
    assert "README.md is damaged: its checksum differs" in shown.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "Say what to deploy and where to"),
        (("small",), "Say what to deploy and where to"),
        (("small", "-o", "small"), "small is there already"),
        (("small", "--verify", "small"), "--verify FOLDER stands alone"),
        (("nowhere", "-o", "out"), "nowhere"),
        (("small", "-o", "out", "--target", "docx"), "docx"),
    ],
)
def test_a_wrong_command_line_is_said(invoke, artifact: Path, words: tuple[str, ...], said: str) -> None:
    """With the exit code of such mistakes, and nothing written."""
    shown = invoke("deploy", *words)
    assert (shown.exit_code, shown.stdout) == (2, "")
    assert said in shown.stderr
    assert not Path("out").exists()


def test_another_format_is_exported_first(invoke, place: Path) -> None:
    """The model becomes GGUF; the history has one more stage, and what was measured before is not claimed for it."""
    folder = artifact_of(place / "small", tiny_folder()).folder
    shown = invoke("deploy", "small", "--target", "gguf", "-o", "out")  # from where one is, as people do
    assert shown.exit_code == 0, shown.stderr
    assert "exporting from hf to gguf" in shown.stderr
    made = Artifact.open(place / "out" / "artifact").manifest
    assert (made.format, made.recipe[-1].kind, made.after) == ("gguf", "export", ())
    assert made.source == Artifact.open(folder).manifest.source
    assert made.tensors != Artifact.open(folder).manifest.tensors
    assert sorted(path.name for path in place.iterdir()) == ["out", "small", "source"]


def test_without_the_extra_the_export_says_which(invoke, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that installs it, before anything is written."""
    folder = artifact_of(place / "small", tiny_folder()).folder
    monkeypatch.setitem(sys.modules, "torch", None)
    shown = invoke("deploy", str(folder), "--target", "onnx", "-o", "out")
    assert shown.exit_code == 3
    assert "pip install 'agentflow-engine[compression]'" in shown.stderr
    assert sorted(path.name for path in place.iterdir()) == ["small", "source"]
