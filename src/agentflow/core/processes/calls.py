"""A call on its way to a worker process and back: what is pickled, and what goes wrong with that.

    pack(function, arguments)  ──▶  bytes  ──▶  worker  ──▶  bytes  ──▶  opened(answer): the value, or the error raised

A function travels as its module and name, not as what stands under that name: `@node` puts a node there, and it is the
node's function that is meant. The pipe is our own and has our own processes at both ends (see process_worker.py).
"""

from __future__ import annotations

import functools
import pickle
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from agentflow.errors import GraphError, ProcessError, describe
from agentflow.process_worker import RAISED, RETURNED, UNREADABLE, method_of, partial_of, resolve

__all__ = ["ProcessCall", "check_travels", "opened", "pack", "title"]

_AROUND: Final = frozenset({"retry", "timeout", "guard"})  # they stay here, and hold locks
_DEEPEST: Final = 100  # wrappers; a chain may be a ring


@dataclass(frozen=True, slots=True)
class ProcessCall:
    """A method of an object, such as a node's exec: it travels with the object's attributes, without its guards."""

    owner: object
    name: str

    def __call__(self, *args: object) -> Any:
        return getattr(self.owner, self.name)(*args)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...]]:
        kind = type(self.owner)
        attributes = {name: value for name, value in vars(self.owner).items() if name not in _AROUND}
        return method_of, (_found(kind) or kind, attributes, self.name)


class _Stand:
    """Stands for something else: what `make` makes of the `facts`, where it is unpickled."""

    def __init__(self, make: Callable[..., Any], *facts: object) -> None:
        self.made_of = make, facts

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...]]:
        return self.made_of


def check_travels(function: Callable[..., Any], node: str) -> None:
    """Raise GraphError for a function that no other process could find."""
    try:
        pickle.dumps(_travelling(function))
    except Exception as error:
        raise GraphError(
            f'{node}: on="process" needs work that another process can import, and {title(function)} is none '
            f"({describe(error)}): write it with def or class at the top level of a module"
        ) from error


def pack(function: Callable[..., Any], arguments: tuple[object, ...], key: str | None) -> bytes:
    """Raises ProcessError for arguments that cannot be pickled."""
    try:
        return pickle.dumps((_travelling(function), arguments, key), pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        raise ProcessError(
            f"{title(function)} cannot be called in another process: it, or what it is given, cannot be pickled "
            f"({describe(error)}); write functions and classes at the top level of a module, and hand over plain data"
        ) from error


def opened(answer: bytearray, function: Callable[..., Any]) -> Any:
    """The value that came back. Raises the error that did, with the worker's traceback as a note."""
    kind, body = bytes(answer[:1]), memoryview(answer)[1:]
    if kind == RETURNED:
        return _loaded(body, function)
    content = pickle.loads(body)
    if kind == RAISED:
        pickled, story = content
        raise _error(pickled, story, function)
    if kind == UNREADABLE:
        raise ProcessError(
            f"{title(function)} cannot be found, or its arguments cannot be read, in a worker process: "
            f"write it at the top level of a module that can be imported there. The worker says:\n{content}"
        )
    raise ProcessError(
        f"what {title(function)} returned cannot be pickled, so it cannot come back from its process ({content}); "
        f"return plain data, or objects of classes at the top level of a module"
    )


def title(function: Callable[..., Any]) -> str:
    """How messages call it."""
    if isinstance(function, ProcessCall):
        return f"{type(function.owner).__qualname__}.{function.name}"
    while isinstance(function, functools.partial):
        function = function.func
    return str(getattr(function, "__qualname__", None) or type(function).__qualname__)


def _loaded(body: memoryview, function: Callable[..., Any]) -> Any:
    try:
        return pickle.loads(body)
    except Exception as error:
        raise ProcessError(f"what {title(function)} returned cannot be read here: {describe(error)}") from error


def _error(pickled: bytes | None, story: str, function: Callable[..., Any]) -> BaseException:
    error = _read_error(pickled)
    if error is None:
        last = story.strip().rpartition("\n")[2]
        error = ProcessError(f"{title(function)} raised what cannot come back from its process: {last}")
    error.add_note(f"in its worker process:\n{story.rstrip()}")
    return error


def _read_error(pickled: bytes | None) -> BaseException | None:
    if pickled is None:
        return None
    try:
        error: object = pickle.loads(pickled)
    except Exception:  # noqa: BLE001 - a class that the worker has found may not be found here
        return None
    return error if isinstance(error, BaseException) else None


def _travelling(function: object) -> object:
    if isinstance(function, functools.partial):
        return _Stand(partial_of, _travelling(function.func), function.args, function.keywords)
    return _found(function) or function


def _found(thing: object) -> _Stand | None:
    """Where a function or class stands, if it stands at the top level of a module, or in something that does."""
    module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str):
        return None
    home = sys.modules.get(module)
    if module == "__main__" and getattr(home, "__file__", None) is None:
        raise pickle.PicklingError("what is typed in, or given with -c, is in no file that could be imported")
    found: object = home
    for part in name.split("."):
        found = getattr(found, part, None)
    for unwrap in range(_DEEPEST):
        if found is thing:
            return _Stand(resolve, module, name, getattr(home, "__file__", None), unwrap)
        found = getattr(found, "__wrapped__", None)
    return None
