"""Standard logging that knows in which run and node a line was written, and lets no key through.

    logging.getLogger("shop").info("paid")
        ──BindScope──▶  run_id, node, path, span, tenant
        ──JsonLines──▶  {"time":"2026-11-30T09:15:00.125000Z","level":"INFO","logger":"shop","message":"paid",…}

    with configure_logging(json=True, level="INFO"):
        await flow.run({"topic": "tides"})

The parts serve alone in a logging configuration of one's own: `BindScope` is a filter (of a handler, so that it sees
the records of every logger), `JsonLines`, `TextLines` and `Redacting` are formatters (`log_lines.py`), `RunLog` is an
observer that writes down what happens in runs (`run_log.py`). Node and path are known where somebody watches the run.
"""

from __future__ import annotations

import logging
import sys
import threading
from types import TracebackType
from typing import Final, TextIO

from agentflow.core.observability.logs.lines import BOUND, JsonLines, TextLines
from agentflow.core.observability.redaction.redactor import Redactor
from agentflow.core.observability.scope import current_scope
from agentflow.core.run import current_run

__all__ = ["BindScope", "ConfiguredLogging", "configure_logging"]


class BindScope(logging.Filter):
    """Gives each record `run_id`, `node`, `path`, `span` and `tenant` of where it is written; else empty ones.

    What a record has already, from `extra=`, stays.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        given = vars(record)
        for name, value in _where().items():
            given.setdefault(name, value)
        return True


def _where() -> dict[str, str | int]:
    scope, run = current_scope.get(), current_run.get()
    found: dict[str, str | int] = dict.fromkeys(BOUND, "")
    if run is not None:
        found["run_id"], found["tenant"] = run.run_id, run.tenant or ""
    if scope is not None:
        found["run_id"] = scope.channel.run_id
        found["node"], found["path"], found["span"] = scope.node, scope.path, scope.span
    return found


class _Lines(logging.StreamHandler[TextIO]):
    """Writes lines. One that cannot be written is counted, and never printed elsewhere with all it holds."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self.lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record) + self.terminator
            encoding = getattr(self.stream, "encoding", None) or "utf-8"
            self.stream.write(line.encode(encoding, "backslashreplace").decode(encoding))
            self.flush()
        except RecursionError:
            raise
        except Exception:  # noqa: BLE001 - a full disk, a closed stream
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        self.lost += 1


class ConfiguredLogging:
    """What `configure_logging` has set up, until `close()` or the end of its `with`. `lost` counts unwritten lines."""

    def __init__(self, handler: _Lines, logger: logging.Logger, level: int | str) -> None:
        self._handler = handler
        self._logger = logger
        self._before = logger.level
        self._open = True
        logger.addHandler(handler)
        logger.setLevel(level)

    @property
    def lost(self) -> int:
        return self._handler.lost

    def close(self) -> None:
        """Write no more, and let the logger's level be what it was."""
        global _configured
        with _lock:
            if _configured is self:
                _configured = None
            if self._open:
                self._open = False
                self._logger.removeHandler(self._handler)
                self._logger.setLevel(self._before)
                self._handler.close()

    def __enter__(self) -> ConfiguredLogging:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_configured: ConfiguredLogging | None = None
_lock: Final = threading.RLock()


def configure_logging(
    *,
    json: bool = False,
    level: int | str = "INFO",
    stream: TextIO | None = None,
    redactor: Redactor | None = None,
) -> ConfiguredLogging:
    """Write the records of all loggers from `level` on to `stream` (standard error), as text or JSON.

    A second call takes the place of the first; handlers that others have set up stay. Raises ValueError for a level
    that logging does not know.
    """
    global _configured
    handler = _Lines(sys.stderr if stream is None else stream)
    handler.addFilter(BindScope())
    handler.setFormatter(JsonLines(redactor) if json else TextLines(redactor))
    handler.setLevel(level)
    with _lock:
        if _configured is not None:
            _configured.close()
        _configured = ConfiguredLogging(handler, logging.getLogger(), level)
        return _configured
