"""Audit logs for tests: small ones with many files, written on a virtual clock and without threads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agentflow.clock import Clock, VirtualClock
from agentflow.core.observability.audit import AuditLog, Rotation

__all__ = ["KEY", "OTHER_KEY", "open_log", "segments_of", "small_log"]

KEY = "a key of the tests, thirty-two characters and more"
OTHER_KEY = "another key of the tests, which has never sealed any of it"


def open_log(path: Path, clock: Clock | None = None, **options: Any) -> AuditLog:
    """A log that does nothing in the background and never waits for a disk, unless told otherwise."""
    settings: dict[str, Any] = {"fsync": "never", "background": False, "clock": clock or VirtualClock(), **options}
    return AuditLog(path, settings.pop("key", KEY), **settings)


def small_log(path: Path, records: int = 8, **options: Any) -> Path:
    """A closed log of several files; each record carries its number."""
    options = {"rotation": Rotation(size=4096, age=None), **options}
    with open_log(path, **options) as log:
        for number in range(records):
            log.record(
                "order.placed", actor="ada", resource=f"order/{number}", data={"number": number, "filler": "x" * 200}
            )
    return path


def segments_of(path: Path, chain: int = 1) -> list[Path]:
    """The files of a chain, the oldest first."""
    return sorted((path / f"chain-{chain}").glob("audit-*.jsonl"))
