"""One worker process, as the process that started it sees it.

    worker = Worker()                    started; it will be ready in a moment
    await worker.exchange(message)       one call: EOFError or OSError where it dies of it
    worker.terminate(); worker.bury(1.0) asked to end at once; gone, with all that it has started

Its pipe is a pair of sockets, because every event loop can wait for those, on Windows too, without a thread.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import multiprocessing.connection
import multiprocessing.process
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from agentflow.errors import ProcessError
from agentflow.process_worker import HELLO, LENGTH, serve

__all__ = ["Worker"]

_SMALL: Final = 65_536
"""A message up to this many bytes is sent in one piece with its length; a copy of a larger one would cost more."""

_GUARD: Final = (
    'a script that starts processes must do its work beneath `if __name__ == "__main__":`, '
    "because each of them imports it once more"
)


class Worker:
    """Raises ProcessError where it cannot be started."""

    __slots__ = ("_pipe", "_process", "idle_since", "ready")

    def __init__(self) -> None:
        self._pipe, theirs = socket.socketpair()
        self._pipe.setblocking(False)
        self.idle_since = 0.0
        self.ready = False
        """Whether it has said that it is there."""
        process = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,), name="agentflow-worker")
        try:
            with theirs, _no_ctrl_c():
                process.start()
        except (RuntimeError, OSError, AssertionError) as error:  # an AssertionError: daemonic processes have none
            self._pipe.close()
            raise ProcessError(f"no worker process can be started: {error}\n{_GUARD}") from error
        # The pool looks after it alone: multiprocessing would wait for it at exit, and fail to in a forked child.
        getattr(multiprocessing.process, "_children", set()).discard(process)
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid or 0

    def alive(self) -> bool:
        """Whether an idle one still waits for work."""
        try:
            self._pipe.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False  # it has closed its end, or said what nobody asked

    async def exchange(self, message: bytes) -> bytearray:
        """Send a message and return the answer. Cancelled, it leaves a pipe behind that is good for nothing more."""
        await self._send(message)
        if not self.ready:
            await self._receive(len(HELLO))
            self.ready = True
        return await self._receive(LENGTH.unpack(await self._receive(LENGTH.size))[0])

    async def _send(self, message: bytes) -> None:
        loop = asyncio.get_running_loop()
        header = LENGTH.pack(len(message))
        with suppress(OSError):  # it is dead: then nothing is received, and that is the error
            if len(message) <= _SMALL:
                await loop.sock_sendall(self._pipe, header + message)
                return
            await loop.sock_sendall(self._pipe, header)
            await loop.sock_sendall(self._pipe, message)

    async def _receive(self, size: int) -> bytearray:
        loop = asyncio.get_running_loop()
        data = bytearray(size)
        view, done = memoryview(data), 0
        while done < size:
            count = await loop.sock_recv_into(self._pipe, view[done:])
            if not count:
                raise EOFError("the worker has closed its pipe")
            done += count
        return data

    def hang_up(self) -> None:
        """Close the pipe; an idle worker leaves then. Only for who has it: elsewhere a loop may wait for it."""
        self._pipe.close()

    def terminate(self) -> None:
        """Ask it to end at once, and whatever it has started with it. Whoever waits for it gets an EOFError."""
        with suppress(OSError):  # it is dead already
            self._pipe.shutdown(socket.SHUT_RDWR)
        self._signal(signal.SIGTERM)

    def bury(self, grace: float) -> int | None:
        """Wait until it has ended, for `grace` seconds at most, then kill it and all it has started; its exit code.

        Blocks. For one that was dismissed, was asked to end, or is dying.
        """
        multiprocessing.connection.wait([self._process.sentinel], grace)
        self._signal(getattr(signal, "SIGKILL", signal.SIGTERM))  # while it is not reaped, its number is nobody else's
        self._process.join()
        code = self._process.exitcode
        if code is not None:  # None: somebody else reaps the children of this process
            self._process.close()
        return code

    def died(self, what: str, code: int | None) -> ProcessError:
        """The error for the call that was its last."""
        how = _ending(code)
        if self.ready:
            return ProcessError(f"the worker process {how} while it ran {what}", exit_code=code, retryable=True)
        why = f"what it wrote to stderr says why. Most often: {_GUARD}"
        return ProcessError(f"the worker process {how} before it could run {what}; {why}", exit_code=code)

    def _signal(self, number: int) -> None:
        if self._process.exitcode is not None:
            return
        try:
            _signal_group(self.pid, number)
        except (ProcessLookupError, PermissionError):  # it has no group yet, or is dead already
            with suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, number)


def _signal_group(pid: int, number: int) -> None:
    send: Any = getattr(os, "killpg", None) or os.kill  # Windows has no groups, and ends a process whatever the signal
    send(pid, number)


@contextmanager
def _no_ctrl_c() -> Iterator[None]:
    """A child inherits what its parent's thread does not listen to: it must not stumble over a Ctrl-C as it starts."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _ending(code: int | None) -> str:
    if code is None:
        return "ended"
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"was ended by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
