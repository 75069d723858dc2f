"""Saving what was answered, also where whoever asked no longer wants it.

answer ──saved──▶ the journal has it ──▶ and only then a cancellation that came meanwhile goes on
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

__all__ = ["saved"]


async def saved(saving: Coroutine[Any, Any, None]) -> None:
    """Await it to its end. A cancellation of this task waits for that, and is raised then, also where saving failed."""
    task = asyncio.ensure_future(saving)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # looked at, so that asyncio does not report it as forgotten
        raise cancelled
    task.result()
