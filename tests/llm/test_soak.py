"""Many callers before a server that fails one request in twenty: nothing is lost, stuck or left behind.

The short version of `benchmarks/soak.py`, whose long one is part of `make bench`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SOAK = Path(__file__).resolve().parents[2] / "benchmarks" / "soak.py"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What two hundred callers did in a few seconds."""
    output = tmp_path_factory.mktemp("soak")
    command = [sys.executable, str(SOAK), "--tiny", "--output", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    raw: dict[str, Any] = json.loads((output / "soak.json").read_text("utf-8"))["raw"]
    return raw


def test_every_call_has_one_end(found: dict[str, Any]) -> None:
    assert found["begun"] == sum(found["ends"].values())
    assert found["ends"]["answered"] > found["begun"] * 0.9
    assert "cut short" not in found["ends"], "an answer that is not whole was taken for one"


def test_client_and_server_agree_about_every_request(found: dict[str, Any]) -> None:
    server = found["server"]
    assert found["attempts"] == server["requests"] == sum(server["did"].values())
    assert set(server["did"]) > {"answered", "500", "529", "reset", "429"}, "what should go wrong did"


def test_nothing_is_held_in_the_end(found: dict[str, Any]) -> None:
    held = found["held"]
    assert [held[what] for what in ("places", "queued", "slots", "waiting", "probes")] == [0] * 5
    assert (found["tasks"], found["sockets"]) == (0, 0)


def test_a_breaker_stays_closed_where_one_in_twenty_fails(found: dict[str, Any]) -> None:
    assert (found["held"]["breaker"], found["held"]["refused by the breaker"]) == ("closed", 0)
