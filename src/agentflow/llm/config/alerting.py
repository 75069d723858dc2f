"""The rules under `observability.alerts`: checked where the file is read, and evaluated beside the program.

    [{"preset": "latency", "abov": 3}]  ──misfit──▶       its place, and "… unknown field; did you mean above?"
    {"rules": […], "interval": 15}      ──AlertThread──▶  a thread with an event loop of its own, until close()

The thread is the manager's alone: a program that blocks its event loop, or has none, keeps no alert back.
"""

from __future__ import annotations

import asyncio
import logging
import re
import threading
import weakref
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from agentflow.clock import Clock
from agentflow.core.observability.alerts import AlertManager, AlertRule
from agentflow.core.observability.alerts.settings import read_settings
from agentflow.core.observability.metrics.collector import MetricsCollector
from agentflow.errors import ConfigurationError
from agentflow.llm.config.document import Path
from agentflow.llm.config.observability import AlertSection
from agentflow.llm.config.schema import set_fields

__all__ = ["USUAL", "AlertThread", "as_mapping", "check", "misfit"]

USUAL: Final = ("latency", "error-rate", "cost-per-hour", "breaker-open")
"""The presets that `alerts: true` stands for."""

_PLACE: Final = ("observability", "alerts")
_PATH: Final = ".".join(_PLACE)
_FIELD: Final = re.compile(r"[^\s:]+(?: [^.:]*)?\.([\w.-]+): ")
_log: Final = logging.getLogger("agentflow.alerts")


def as_mapping(said: bool | list[dict[str, Any]] | AlertSection) -> dict[str, Any]:
    """What `AlertManager.from_mapping` takes."""
    if isinstance(said, AlertSection):
        return set_fields(said)
    return {"rules": said if isinstance(said, list) else [{"preset": name} for name in USUAL if said]}


def misfit(said: bool | list[dict[str, Any]] | AlertSection) -> tuple[Path, str] | None:
    """The first rule that is none: where it stands, and what is wrong with it."""
    inner = (*_PLACE, "rules") if isinstance(said, AlertSection) else _PLACE
    for number, rule in enumerate(as_mapping(said).get("rules", [])):
        place = ".".join(map(str, (*inner, number)))
        try:
            AlertRule.from_mapping(rule, path=place)
        except ConfigurationError as error:
            field = _FIELD.match(str(error))
            return (*inner, number, *(field[1].split(".") if field else ())), str(error)
    return None


def check(said: Mapping[str, object], clock: Clock) -> None:
    """Raises ConfigurationError for what no manager would be made of: an action's variable that is not set, …"""
    read_settings(said, _PATH, clock=clock)


class AlertThread:
    """Evaluates until `close()`, which evaluates once more and gives actions the manager's `grace`."""

    def __init__(self, manager: AlertManager) -> None:
        self.manager = manager
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="agentflow alerts", daemon=True)
        self._thread.start()
        self._ready.wait()
        _close_before_threads_end(self)

    @classmethod
    def of(cls, said: Mapping[str, object], metrics: MetricsCollector, clock: Clock) -> AlertThread:
        """Raises ConfigurationError."""
        return cls(AlertManager.from_mapping(metrics, said, clock=clock, path=_PATH))

    def close(self, patience: float = 10.0) -> None:
        """Wait for its end, for so many seconds. Doing it twice does it once."""
        if self._loop is not None and self._stop is not None and self._thread.is_alive():
            try:
                self._loop.call_soon_threadsafe(self._stop.set)
            except RuntimeError:  # its loop is closed: it has ended
                return
            self._thread.join(patience)

    def _run(self) -> None:
        try:
            asyncio.run(self._watch())
        except Exception:  # noqa: BLE001 - a thread has nobody to raise to
            _log.exception("alerts are evaluated no more")
        finally:
            self._ready.set()

    async def _watch(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with self.manager:
            self._ready.set()
            await self._stop.wait()


def _close_before_threads_end(alerts: AlertThread) -> None:
    """The last look at the metrics, and actions, need threads, which no executor gives any more once `atexit` comes.
    The standard library's own way to be asked before is private; without it the last look is missed, and counted."""
    ask = getattr(threading, "_register_atexit", None)
    close = weakref.WeakMethod(alerts.close)

    def end() -> None:
        found = close()
        if found is not None:
            found()

    if ask is not None:
        with suppress(RuntimeError):  # the interpreter is ending already
            ask(end)
