"""Who does it, where a record does not say: whoever the code is acting for, else the user of the operating system.

with acting_as("alice"):
    await flow.run(…)             the run's records bear the actor alice
"""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache

__all__ = ["acting_as", "current_actor", "system_user"]

_actor: ContextVar[str | None] = ContextVar("agentflow_audit_actor", default=None)


@contextmanager
def acting_as(actor: str) -> Iterator[None]:
    """Everything in the block, and the tasks begun in it, is done in this name."""
    token = _actor.set(actor)
    try:
        yield
    finally:
        _actor.reset(token)


def current_actor() -> str | None:
    """Who acts here, as far as the code has said; None where it has not."""
    return _actor.get()


@cache
def system_user() -> str:
    """The user whose process this is."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container may run under a number that has no name
        return "unknown"
