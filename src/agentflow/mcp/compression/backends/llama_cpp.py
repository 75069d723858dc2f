"""Where llama.cpp is: in this Python, in one that is named, or in an environment that was made for it.

    1. this interpreter, where llama_cpp is installed (the extra `gguf`)
    2. the one that AGENTFLOW_LLAMA_CPP_PYTHON names
    3. CACHE/agentflow/llama.cpp/bin/python, which `install_llama_cpp()` makes, and nobody else

CACHE is XDG_CACHE_HOME or ~/.cache. It is compiled while it is installed: some minutes, and a C++ compiler.
"""

from __future__ import annotations

import os
import shutil
import sys
import venv
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from tempfile import mkdtemp

from agentflow.errors import BackendError
from agentflow.mcp.compression.backends.worker import Command, run_worker

__all__ = ["install_llama_cpp", "llama_cpp_python"]

NAME = "llama.cpp"
VARIABLE = "AGENTFLOW_LLAMA_CPP_PYTHON"
PACKAGE = "llama-cpp-python>=0.3.16"
_INSTALL = "pip install 'agentflow-engine[gguf]' compiles it here; or name a Python that has it by " + VARIABLE
# The last line makes run_worker's answer.
_PIP = "import subprocess, sys; subprocess.run([sys.executable, '-m', 'pip', 'install', sys.argv[1]], check=True); "
_PIP += "open(sys.argv[3], 'w').write('{}')"


def llama_cpp_python(environment: Mapping[str, str] = os.environ) -> str:
    """The Python that has llama_cpp. Raises BackendError, which says how to install it, where none has."""
    if named := environment.get(VARIABLE):
        if shutil.which(named) is None:
            raise BackendError(NAME, f"{VARIABLE} names {named}, which is no program")
        return named
    if find_spec("llama_cpp") is not None:
        return sys.executable
    own = _python_in(_place(environment))
    if own.exists():
        return str(own)
    raise BackendError(NAME, f"it is not installed: {_INSTALL}")


def install_llama_cpp(
    environment: Mapping[str, str] = os.environ, *, check: Callable[[], None] = lambda: None, package: str = PACKAGE
) -> str:
    """Make the environment of its own, if it is not there, and return its Python. Raises BackendError where the
    compilation fails; nothing is left then."""
    place = _place(environment)
    if _python_in(place).exists():
        return str(_python_in(place))
    place.parent.mkdir(parents=True, exist_ok=True)
    marker = Path(mkdtemp(prefix=".installing-", dir=place.parent))
    try:
        venv.create(place, with_pip=True)
        python = str(_python_in(place))
        run_worker(Command(NAME, (python, "-I", "-c", _PIP, package)), {}, marker, check)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)  # an environment cannot be moved, so it is made where it stays
        raise
    finally:
        shutil.rmtree(marker, ignore_errors=True)
    return python


def _place(environment: Mapping[str, str]) -> Path:
    cache = environment.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "agentflow" / "llama.cpp"


def _python_in(place: Path) -> Path:
    return place / ("Scripts" if os.name == "nt" else "bin") / "python"
