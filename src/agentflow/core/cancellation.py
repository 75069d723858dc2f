"""Whose cancellation a CancelledError is: the caller's, which ends the work, or a stray one, which is its failure."""

from __future__ import annotations

import asyncio

__all__ = ["failure_of"]


def failure_of(error: BaseException) -> Exception:
    """What an error of somebody else's code stands for.

    A CancelledError is re-raised when this task was asked to stop, and so is what is no Exception. Otherwise it is a
    stray one, from something that code awaited, and its failure.
    """
    if isinstance(error, Exception):
        return error
    task = asyncio.current_task()
    if not isinstance(error, asyncio.CancelledError) or (task is not None and task.cancelling()):
        raise error
    why = f" ({error})" if str(error) else ""
    return RuntimeError(f"something it awaited was cancelled, but the run was not{why}")
