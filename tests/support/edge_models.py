"""ONNX folders of small models, made once by onnxruntime-genai's builder and kept beside the trained fixture.

onnx_of("trained")     the trained teacher, fp32;  onnx_of("trained", "int4")
onnx_of("tiny")        a random Llama of 300 tokens
tiny_folder()          the same as a Hugging Face folder

The builder needs PyTorch and is run in a process of its own. What it makes is moved into place whole, so that two
processes may make it at once.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from tempfile import mkdtemp

from tests.support.trained import teacher_folder

_MADE_BY = [*map(version, ("onnxruntime-genai", "transformers", "onnx-ir")), Path(__file__).read_text()]
_KEY = hashlib.sha256(" ".join(_MADE_BY).encode()).hexdigest()[:12]


@cache
def tiny_folder() -> Path:
    return _kept("tiny-hf", _make_tiny)


@cache
def onnx_of(model: str, precision: str = "fp32") -> Path:
    """`model` is "trained" or "tiny"."""
    source = teacher_folder() if model == "trained" else tiny_folder()
    return _kept(f"{model}-onnx-{precision}", lambda target: _build(source, target, precision))


def _kept(name: str, make: Callable[[Path], None]) -> Path:
    home = teacher_folder().parent / f"edge-{_KEY}"
    folder = home / name
    if folder.is_dir():
        return folder
    home.mkdir(exist_ok=True)
    made = Path(mkdtemp(dir=home))
    try:
        make(made / "model")
        (made / "model").rename(folder)
    except OSError:
        if not folder.is_dir():  # another process was faster
            raise
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return folder


def _make_tiny(target: Path) -> None:
    from tests.support.tiny_models import tiny_decoder

    tiny_decoder(target, num_hidden_layers=2)


def _build(source: Path, target: Path, precision: str) -> None:
    command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", str(source), "-o", str(target)]
    subprocess.run(
        [*command, "-p", precision, "-e", "cpu", "-c", str(target.parent / "cache")],
        check=True,
        capture_output=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
