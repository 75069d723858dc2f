"""The functions that DBOS knows by name and calls: they hand over to the engine of this process.

    "agentflow_run"     a run: its input is what it began with, its output how the last stretch of it ended
    "agentflow_fire"    a moment of a schedule: begins a run
    "agentflow_wake"    a parked run is due: goes on with it

DBOS keeps names of functions in its tables and one registry in a process, so these are registered once, and a process
has one engine at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, Protocol

from agentflow.errors import DurabilityError

__all__ = ["RUN", "Host", "Workflows", "hosted", "workflows"]

RUN = "agentflow_run"


class Host(Protocol):
    """What runs them: the engine."""

    async def run_stretch(self, run_id: str) -> dict[str, Any]: ...

    async def fire(self, moment: datetime, given: dict[str, Any]) -> None: ...

    async def wake(self, run_id: str) -> None: ...


_hosts: list[Host] = []


def hosted(host: Host | None) -> None:
    """This engine is the process's from now on, or none. Raises DurabilityError where there is another."""
    if host is not None and _hosts and _hosts[0] is not host:
        raise DurabilityError("this process has an open DbosDurability already: use that one, or close it first")
    _hosts[:] = [] if host is None else [host]


def _host() -> Host:
    if not _hosts:
        raise DurabilityError("the engine of this process is closed")
    return _hosts[0]


async def _run(given: dict[str, Any]) -> dict[str, Any]:
    from dbos import DBOS

    assert DBOS.workflow_id is not None
    return await _host().run_stretch(DBOS.workflow_id)


async def _fire(moment: datetime, given: dict[str, Any]) -> None:
    await _host().fire(moment, given)


async def _wake(run_id: str) -> None:
    await _host().wake(run_id)


@dataclass(frozen=True, slots=True)
class Workflows:
    """As DBOS wants them to be called."""

    run: Callable[[dict[str, Any]], Coroutine[Any, Any, dict[str, Any]]]
    fire: Callable[[datetime, dict[str, Any]], Coroutine[Any, Any, None]]
    wake: Callable[[str], Coroutine[Any, Any, None]]


@cache
def workflows() -> Workflows:
    from dbos import DBOS

    # How often a run may be taken over from the dead is counted by the engine.
    return Workflows(
        DBOS.workflow(name=RUN, max_recovery_attempts=None)(_run),
        DBOS.workflow(name="agentflow_fire")(_fire),
        DBOS.workflow(name="agentflow_wake")(_wake),
    )
