"""Arize Phoenix, a server that receives traces and shows what it made of them: somebody else's reading of ours.

with phoenix(folder) as running:
    …export to running.endpoint…
    running.spans(6)              what it has stored, once there are six
"""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.support.programs import free_port, python_of, started, surroundings

__all__ = ["Phoenix", "phoenix"]

_PATIENCE = 200  # seconds: it brings a database up to date first, on a busy machine
_STORED = 60  # seconds until what it has accepted is to be found


@dataclass(frozen=True, slots=True)
class Phoenix:
    """A running one."""

    endpoint: str

    def spans(self, count: int) -> list[dict[str, Any]]:
        """What it has stored of its default project, as its API tells it, once there are so many."""
        end = time.monotonic() + _STORED
        while time.monotonic() < end:
            with urllib.request.urlopen(f"{self.endpoint}/v1/projects/default/spans", timeout=10) as answer:
                found: list[dict[str, Any]] = json.load(answer)["data"]
            if len(found) >= count:
                return found
            time.sleep(0.2)  # it stores in the background, and has no word for when that is done
        pytest.fail(f"Phoenix has {len(found)} spans, and not {count}")


@contextmanager
def phoenix(folder: Path) -> Iterator[Phoenix]:
    """Phoenix on loopback from its start to its end. Its database and what it says lie in `folder`."""
    python, port = python_of("phoenix"), free_port()
    environ = surroundings(
        PHOENIX_HOST="127.0.0.1",
        PHOENIX_PORT=str(port),
        PHOENIX_GRPC_PORT=str(free_port()),
        PHOENIX_WORKING_DIR=str(folder),
        PHOENIX_TELEMETRY_ENABLED="false",
        PHOENIX_ALLOW_EXTERNAL_RESOURCES="false",
        PHOENIX_DISABLE_AGENT_ASSISTANT="true",
        HOME=str(folder),
    )
    command = [python.with_name("phoenix"), "serve"]
    with started(command, port, folder / "log", environ=environ, patience=_PATIENCE):
        yield Phoenix(f"http://127.0.0.1:{port}")
