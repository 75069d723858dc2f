"""The benchmark of the cache runs, with the smallest sizes. What it measures is not judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT


def test_it_measures_hits_in_memory_from_the_file_and_through_the_client(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "cache_overhead.py"), "--tiny", "--output", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "cache_overhead.json").read_text("utf-8"))
    assert {"memory, one turn", "SQLite, ten turns", "memory, through the client"} <= set(report["raw"]["ours"])
    assert [promise["measured"] for promise in report["promises"]][-1] == 1
