"""The far side of `on="process"`: what a worker process does, from its start until its pipe is closed.

    pool ──▶ (function, arguments)  ──▶  worker: finds the function, calls it  ──▶  what it returned, or raised

It stands on the ground floor and imports little, so that a worker is there in 50 ms: the flow engine is imported with
the function's module, if that asks for it, and not before.

What travels is pickled. That is safe here and nowhere else: both ends of the pipe are processes of this very program,
no one else can write into it, and nothing of it is ever stored.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import struct
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final

__all__ = [
    "HELLO",
    "LENGTH",
    "RAISED",
    "RETURNED",
    "UNREADABLE",
    "UNSENDABLE",
    "carried_key",
    "method_of",
    "partial_of",
    "reborn",
    "resolve",
    "serve",
]

HELLO: Final = b"!"
"""What a worker says once, when it is ready."""
LENGTH: Final = struct.Struct("!Q")
"""Stands before each message."""

RETURNED, RAISED, UNREADABLE, UNSENDABLE = b"v", b"e", b"r", b"s"
"""An answer's first byte: a value; an error and its traceback; why the call could not be read; why the value could not
be sent."""

_key: str | None = None


def carried_key() -> str | None:
    """The idempotency key of the step for which this worker works just now. None in any other process."""
    return _key


# ---- the process ---------------------------------------------------------------------------------------------


def serve(pipe: socket.socket) -> None:
    """Make one call after the other, until the pool closes the pipe."""
    _settle(pipe)
    pipe.sendall(HELLO)
    try:
        while (message := _receive(pipe)) is not None:
            answer = _answer(message)
            message = None
            pipe.sendall(LENGTH.pack(len(answer)))
            pipe.sendall(answer)
            del answer  # an idle worker holds nothing of its last call
    except OSError:
        return  # nobody is there any more


def _settle(pipe: socket.socket) -> None:
    """A group of its own, which can be ended as a whole, and which Ctrl-C in a terminal does not reach."""
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
    # A handler that does nothing: unlike SIG_IGN it is not inherited by programs that a call starts.
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=pipe.close)  # else the pool would not see this process die
    threading.Thread(target=_end_with_parent, name="agentflow-parent", daemon=True).start()


def _end_with_parent() -> None:
    """A parent that was killed could end nobody."""
    from multiprocessing import parent_process

    parent = parent_process()
    if parent is None:
        return
    parent.join()
    if hasattr(os, "killpg"):
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _receive(pipe: socket.socket) -> bytearray | None:
    """One message; None when there will be no more."""
    header = _exactly(pipe, LENGTH.size)
    return None if header is None else _exactly(pipe, LENGTH.unpack(header)[0])


def _exactly(pipe: socket.socket, size: int) -> bytearray | None:
    data = bytearray(size)
    view, done = memoryview(data), 0
    while done < size:
        count = pipe.recv_into(view[done:])
        if not count:
            return None
        done += count
    return data


# ---- a call --------------------------------------------------------------------------------------------------


def _answer(message: bytearray) -> bytes:
    try:
        function, arguments, key = pickle.loads(message)
    except BaseException as error:  # noqa: BLE001 - importing the function's module runs any code
        return UNREADABLE + pickle.dumps(_story(error))
    try:
        value = _call(function, arguments, key)
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is raised where the call was made
        return RAISED + pickle.dumps((_portable(error), _story(error)))
    finally:
        _flush()
    try:
        return RETURNED + pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    except Exception as error:  # noqa: BLE001 - a class's own pickling may raise anything
        return UNSENDABLE + pickle.dumps(f"{type(error).__name__}: {error}")


def _call(function: Callable[..., Any], arguments: tuple[object, ...], key: str | None) -> object:
    global _key
    _key = key
    try:
        value = function(*arguments)
        if hasattr(value, "__await__"):
            import asyncio  # as slow to import as all else together

            return asyncio.run(_awaited(value))
        return value
    finally:
        _key = None


async def _awaited(value: Awaitable[object]) -> object:
    return await value


def _flush() -> None:
    """Where output is no terminal it would be seen when the worker leaves, and lost with one that is killed."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):  # closed, broken, or None
            continue


def _story(error: BaseException) -> str:
    """The traceback, from the function on."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    return "".join(traceback.format_exception(type(error), error, trace))


# ---- what travels --------------------------------------------------------------------------------------------


def resolve(module: str, name: str, file: str | None, unwrap: int) -> Any:
    """The thing of that name; `unwrap` times what it wraps, for a function in whose place a decorator's object stands.

    A module that cannot be imported by its name, as a flow file of the command line, is read from its `file`.
    """
    found: Any = sys.modules.get(module)
    if found is None:
        found = _imported(module, file)
    for part in name.split("."):
        found = getattr(found, part)
    for _ in range(unwrap):
        found = found.__wrapped__
    return found


def _imported(module: str, file: str | None) -> Any:
    from pkgutil import resolve_name

    try:
        return resolve_name(f"{module}:")
    except (ModuleNotFoundError, ValueError) as error:  # a ValueError: the name is none that could be imported
        missing = getattr(error, "name", None) or module
        if file is None or not f"{module}.".startswith(f"{missing}."):
            raise
    return _read(module, file)


def _read(module: str, file: str) -> Any:
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location(module, file)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[module] = found = module_from_spec(spec)
    try:
        spec.loader.exec_module(found)
    except BaseException:
        del sys.modules[module]
        raise
    return found


def method_of(kind: type, attributes: Mapping[str, object], name: str) -> Any:
    """The method of an object that has these attributes."""
    made: Any = object.__new__(kind)
    made.__dict__.update(attributes)
    return getattr(made, name)


def partial_of(function: Callable[..., Any], args: tuple[object, ...], keywords: Mapping[str, object]) -> Any:
    return partial(function, *args, **keywords)


def reborn(kind: type[BaseException], args: tuple[object, ...], attributes: Mapping[str, object]) -> BaseException:
    """An error as it was, without the `__init__` that may want other arguments than it left in `args`."""
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(attributes)
    return error


def _portable(error: BaseException) -> bytes | None:
    """The error, pickled so that it can be read again; None where it cannot be."""
    pickled = _round_trip(error)
    if pickled is not None:
        return pickled
    args = tuple(each if _round_trip(each) else repr(each) for each in error.args)
    attributes = {name: value for name, value in vars(error).items() if _round_trip(value)}
    return _round_trip(_Reborn(type(error), args, attributes))


class _Reborn:
    """Unpickled it is the error itself."""

    def __init__(self, *facts: object) -> None:
        self.facts = facts

    def __reduce__(self) -> tuple[Callable[..., BaseException], tuple[object, ...]]:
        return reborn, self.facts


def _round_trip(value: object) -> bytes | None:
    try:
        pickled = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
        pickle.loads(pickled)
    except Exception:  # noqa: BLE001 - a class's own pickling may raise anything
        return None
    return pickled
