"""What somebody else's code has raised: a failure, or what ends the work without being one.

CancelledError      the caller's, which ends the work, or a stray one, which is its failure
a group of errors   its failures, as far as there are any; else what it waits for (a TaskGroup of a node's own)
"""

from __future__ import annotations

import asyncio

from agentflow.core.parking import Parked, parked_in

__all__ = ["failure_of"]


def failure_of(error: BaseException) -> Exception:
    """What an error of somebody else's code stands for.

    A CancelledError is re-raised when this task was asked to stop, and so is what is no Exception. Otherwise it is a
    stray one, from something that code awaited, and its failure.
    """
    if isinstance(error, Exception):
        return error
    if isinstance(error, BaseExceptionGroup):
        return _failure_in(error)
    task = asyncio.current_task()
    if not isinstance(error, asyncio.CancelledError) or (task is not None and task.cancelling()):
        raise error
    why = f" ({error})" if str(error) else ""
    return RuntimeError(f"something it awaited was cancelled, but the run was not{why}")


def _failure_in(group: BaseExceptionGroup[BaseException]) -> Exception:
    """A failure beside what waits for somebody is a failure."""
    parked = parked_in(group)
    if parked is not None:
        raise parked from group
    rest = group.split(Parked)[1]
    if isinstance(rest, ExceptionGroup):
        return rest
    raise group
