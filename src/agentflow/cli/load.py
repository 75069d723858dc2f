"""FILE[:NAME] → the flow: imports a flow file and finds the flow in it.

    flow.py            the variable `flow`, else the only flow there is
    flow.py:article    the variable `article`

Everything that can be wrong with the file is a FlowFileError of one line that says where and what to do.
"""

from __future__ import annotations

import importlib.util
import re
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Final, TypeAlias

from agentflow.cli.source import Source
from agentflow.core import AsyncFlow, Flow
from agentflow.errors import ConfigurationError, FlowFileError, describe

__all__ = ["AnyFlow", "load_flow"]

AnyFlow: TypeAlias = AsyncFlow | Flow

_USUAL_NAME: Final = "flow"


@dataclass(frozen=True, slots=True)
class Target:
    """What `FILE[:NAME]` says."""

    file: Path
    name: str | None


def read_target(text: str) -> Target:
    """A colon splits only where what follows is a name, so `C:\\flow.py` is a file."""
    file, colon, name = text.rpartition(":")
    if not colon or not name.isidentifier() or Path(text).exists():
        return Target(Path(text), None)
    return Target(Path(file), name)


def load_flow(text: str, model: str | None = None) -> AnyFlow:
    """The flow that `FILE[:NAME]` names. By its `source` it is loaded again from any folder, with the `model` that is
    asked where a call names none. The file's own folder is put on sys.path, as `python FILE` does.

    Raises FlowFileError; a ConfigurationError raised by the file's own code passes.
    """
    target = read_target(text)
    _check(target.file)
    name, flow = _choose(_flows(_imported(target.file)), target)
    flow.source = str(Source(f"{target.file.resolve()}:{name}", model))
    return flow


def _check(file: Path) -> None:
    if file.is_dir():
        raise FlowFileError(f"{file} is a folder: name the flow file in it, as in {file / 'flow.py'}")
    if not file.exists():
        beside = [path.name for path in file.parent.glob("*.py")] if file.parent.is_dir() else []
        near = get_close_matches(file.name, beside, n=1)
        hint = f"did you mean {file.parent / near[0]}?" if near else "`agentflow init` writes a first one"
        raise FlowFileError(f"there is no file {file}: {hint}")
    if file.suffix != ".py":
        raise FlowFileError(f"{file} is no Python file: a flow file ends in .py")


# ---- importing -----------------------------------------------------------------------------------------------


class _Source(SourceFileLoader):
    """Compiles the file as it stands: no stale cache is read, and none is left beside the user's file."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def _imported(file: Path) -> ModuleType:
    path = str(file.resolve())
    name = "agentflow_file_" + re.sub(r"\W", "_", file.stem)
    spec = importlib.util.spec_from_loader(name, _Source(name, path))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look a class's module up there
    folder = str(file.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        spec.loader.exec_module(module)
    except ConfigurationError:
        raise
    except (Exception, SystemExit) as error:
        raise FlowFileError(_import_failure(file, path, error)) from error
    return module


def _import_failure(file: Path, path: str, error: BaseException) -> str:
    if isinstance(error, SyntaxError) and error.filename == path:
        return f"{file}:{error.lineno}:{error.offset or 1}: {type(error).__name__}: {error.msg}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    place = f"{file}:{lines[-1]}" if lines else f"{file}"
    if isinstance(error, ModuleNotFoundError) and error.name is not None:
        return f"{place}: {error.msg}; install it into {sys.prefix}, or correct the name"
    if isinstance(error, SystemExit):
        return f'{place}: the file ends the program when it is imported; guard that with if __name__ == "__main__":'
    return f"{place}: {describe(error)}"


# ---- choosing ------------------------------------------------------------------------------------------------


def _flows(module: ModuleType) -> dict[str, AnyFlow]:
    return {name: value for name, value in vars(module).items() if isinstance(value, AsyncFlow | Flow)}


def _choose(flows: Mapping[str, AnyFlow], target: Target) -> tuple[str, AnyFlow]:
    """The flow, and the name it has in the file."""
    file = target.file
    if not flows:
        raise FlowFileError(f"{file} holds no flow: assign one at its top level, as in {_USUAL_NAME} = AsyncFlow(…)")
    if target.name is not None:
        return _named(flows, target.name, file)
    if _USUAL_NAME in flows:
        return _USUAL_NAME, flows[_USUAL_NAME]
    if len({id(flow) for flow in flows.values()}) > 1:
        raise FlowFileError(
            f"{file} holds {len(flows)} flows, {', '.join(flows)}: say which one, as in {file}:{next(iter(flows))}"
        )
    return next(iter(flows.items()))


def _named(flows: Mapping[str, AnyFlow], name: str, file: Path) -> tuple[str, AnyFlow]:
    if name in flows:
        return name, flows[name]
    near = get_close_matches(name, flows, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there is {', '.join(flows)}"
    raise FlowFileError(f"{file} has no flow {name!r}: {hint}")
