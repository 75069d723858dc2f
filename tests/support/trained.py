"""The small model that `scripts/fixture_models.py` trains, and the texts that belong to it.

teacher_folder()   build/fixtures/…/teacher: a Hugging Face folder; the test skips where it was not trained, CI fails
texts("held_out")  whole files that the model never saw; also "train" and "calibration"
"""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType

from tests.conftest import missing_service

ROOT = Path(__file__).resolve().parents[2]


@cache
def _program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fixture_models", ROOT / "scripts" / "fixture_models.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def _teacher() -> Path:
    folder = _program().teacher()
    assert isinstance(folder, Path)
    return folder


def teacher_folder() -> Path:
    """A Llama of 3.4 million parameters, its tokenizer and a licence. Never write into it."""
    folder = _teacher()
    if not folder.is_dir():
        missing_service("the fixture is not trained: .venv/bin/python scripts/fixture_models.py")
    return folder


@cache
def texts(part: str) -> tuple[str, ...]:
    """`train`, `calibration` or `held_out`."""
    return tuple(_program().corpus()[part])
