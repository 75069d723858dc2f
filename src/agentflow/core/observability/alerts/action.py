"""What is done about an alert: a protocol of one method, and the two actions that need nothing from outside.

    class Pager:
        async def act(self, alert: Alert) -> None: ...

    Log("my.alerts")                 a line in the log
    Callback(function)               a function, sync (in a thread) or async

An action may take its time, and may fail: each has a queue of its own, so it keeps nobody waiting but itself.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Protocol, TypeAlias, runtime_checkable

from agentflow.core.observability.alerts.alert import Alert
from agentflow.core.observability.alerts.states import OPEN
from agentflow.core.threads import call_in_thread
from agentflow.errors import ConfigurationError, OperationTimeoutError

__all__ = ["Action", "Callback", "Log", "Told", "as_action"]

Told: TypeAlias = Callable[[Alert], object | Awaitable[object]]
"""A function that is told of alerts."""

_LEVELS: Final[Mapping[str, int]] = MappingProxyType(
    {"info": logging.INFO, "warning": logging.WARNING, "critical": logging.CRITICAL}
)


@runtime_checkable
class Action(Protocol):
    """Does something about an alert. What it raises is counted and logged."""

    async def act(self, alert: Alert, /) -> None: ...


@dataclass(frozen=True, slots=True)
class Log:
    """A line for each alert, under the name `logger`: at the level of its severity (info, warning, critical; warning
    for any other), and at info for what is over. The alert is the record's `alert`."""

    logger: str = "agentflow.alerts"

    async def act(self, alert: Alert) -> None:
        level = _LEVELS.get(alert.severity, logging.WARNING) if alert.state in OPEN else logging.INFO
        logging.getLogger(self.logger).log(level, "%s", alert.message, extra={"alert": alert.to_json()})


@dataclass(frozen=True, slots=True)
class Callback:
    """Calls a function. A sync one runs in a thread; after `timeout` seconds nobody waits for it any more."""

    function: Told
    timeout: float = 30.0

    async def act(self, alert: Alert) -> None:
        limit = asyncio.timeout(self.timeout)
        try:
            async with limit:
                await self._call(alert)
        except TimeoutError:
            if not limit.expired():
                raise
            raise OperationTimeoutError(f"the function {_name(self.function)}", self.timeout) from None

    async def _call(self, alert: Alert) -> None:
        if _is_async(self.function):
            result = self.function(alert)
        else:
            result = await call_in_thread(self.function, alert)
        if inspect.isawaitable(result):
            await result


def as_action(found: object, name: str) -> Action:
    """An action as it is, and a function as a Callback."""
    if isinstance(found, Action) and not isinstance(found, type):
        return found
    if callable(found) and not isinstance(found, type):
        return Callback(found)
    raise ConfigurationError(f"actions.{name}: found {found!r:.60}, allowed is an action or a function of one argument")


def _is_async(function: Told) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def _name(function: Told) -> str:
    return getattr(function, "__qualname__", type(function).__name__)
