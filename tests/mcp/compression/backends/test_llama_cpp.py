"""Where llama.cpp is found, and what is said where it is not."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from tests.support.exported import work_of
from tests.support.tiny_models import tiny_decoder

from agentflow.errors import BackendError
from agentflow.mcp.compression.backends import install_llama_cpp, llama_cpp_python
from agentflow.mcp.compression.export.stage import export
from agentflow.mcp.compression.recipe import Export

without = pytest.mark.skipif(find_spec("llama_cpp") is not None, reason="llama.cpp is installed here")


def test_a_named_python_comes_first(tmp_path: Path) -> None:
    assert llama_cpp_python({"AGENTFLOW_LLAMA_CPP_PYTHON": sys.executable}) == sys.executable


def test_a_named_python_that_is_none_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="AGENTFLOW_LLAMA_CPP_PYTHON names /none, which is no program"):
        llama_cpp_python({"AGENTFLOW_LLAMA_CPP_PYTHON": "/none"})


@without
def test_its_own_environment_is_found_where_it_was_made(tmp_path: Path) -> None:
    python = tmp_path / "agentflow" / "llama.cpp" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    assert llama_cpp_python({"XDG_CACHE_HOME": str(tmp_path)}) == str(python)
    assert install_llama_cpp({"XDG_CACHE_HOME": str(tmp_path)}) == str(python)  # and not made again


@without
def test_where_it_is_not_installed_the_command_is_said(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"pip install 'agentflow-engine\[gguf\]'"):
        llama_cpp_python({"XDG_CACHE_HOME": str(tmp_path)})


def test_an_environment_that_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    """The package it is told to install is a folder with nothing in it: pip refuses, without the network."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(BackendError, match=r"llama\.cpp: it ended with 1"):
        install_llama_cpp({"XDG_CACHE_HOME": str(tmp_path / "cache")}, package=str(tmp_path / "empty"))
    assert list((tmp_path / "cache" / "agentflow").iterdir()) == []


@without
def test_types_that_it_alone_can_write_are_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("AGENTFLOW_LLAMA_CPP_PYTHON", raising=False)
    with pytest.raises(BackendError, match="it is not installed"):
        export(Export("gguf:q4_k_m"), tiny_decoder(tmp_path / "m"), tmp_path / "out", work_of(tmp_path / "s"))
    assert not (tmp_path / "out").exists()


def test_a_quantiser_that_fails_leaves_nothing_and_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python that has a llama_cpp, which refuses: what it said is in the error."""
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'no such architecture'\nexit 1\n", encoding="utf-8")
    python.chmod(0o755)
    monkeypatch.setenv("AGENTFLOW_LLAMA_CPP_PYTHON", str(python))
    work = work_of(tmp_path / "s")
    with pytest.raises(BackendError, match="no such architecture"):
        export(Export("gguf:q4_k_m"), tiny_decoder(tmp_path / "m"), tmp_path / "out", work)
    assert not (tmp_path / "out").exists()
    assert list(work.scratch.iterdir()) == []
    assert not list(tmp_path.glob(".out.partial-*"))
