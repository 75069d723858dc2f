"""`agentflow deploy`: a folder from an artifact, and whether one is whole."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.deployable import artifact_of, fake_model
from tests.support.edge_models import onnx_of


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
