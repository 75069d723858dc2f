"""Where sync code runs: threads beside the event loop.

One executor serves the process. It grows whenever all its threads are busy, because a fixed one deadlocks as soon as
its threads wait for work that is queued behind them: a sync node that runs a sync flow is enough.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar, TypeVarTuple

__all__ = ["call_in_thread"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_LIMIT = 100_000  # the operating system refuses sooner; a refusal there is an error, not a deadlock

_executor: ThreadPoolExecutor | None = None


async def call_in_thread(function: Callable[[*Ts], T], *args: *Ts) -> T:
    """Call a function in a thread, with this task's context variables.

    Cancelling the wait does not stop the thread: it finishes, and its late result is dropped.
    """
    context = copy_context()

    def call() -> T:
        try:
            return context.run(function, *args)
        except StopIteration as error:  # a future cannot carry it: the waiting side would never wake
            raise RuntimeError("the function raised StopIteration") from error

    return await asyncio.get_running_loop().run_in_executor(_threads(), call)


def _threads() -> ThreadPoolExecutor:
    global _executor
    if _executor is None:
        _executor = ThreadPoolExecutor(_LIMIT, thread_name_prefix="agentflow")
    return _executor


def _forget_threads() -> None:
    """After a fork the child has none of its parent's threads."""
    global _executor
    _executor = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)
