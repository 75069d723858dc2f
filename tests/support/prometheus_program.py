"""A real Prometheus server on loopback, with a folder and a configuration of its own, and what it answers.

with prometheus(folder, scraping=server.port, rules=[path]) as program:
    program.until('agentflow_flow_runs_total > 0')          # the result of a query, once it has one
    program.ask("rate(…[30s])")                             # now

promtool("check", "metrics", said=text)                     # the completed process
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
from tests.conftest import missing_service
from tests.support.programs import free_port, started, surroundings

__all__ = ["Prometheus", "prometheus", "promtool"]

_PATIENCE = 60.0  # seconds: a slow machine's start, and a few scrapes
_CONFIGURATION = """
global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}
rule_files: %(rules)s
scrape_configs:
  - job_name: agentflow
    static_configs: [{targets: ["127.0.0.1:%(port)d"]}]
"""


class Prometheus:
    """A server that runs at `url`."""

    def __init__(self, url: str) -> None:
        self.url = url

    def wait(self) -> None:
        """It listens some time before it answers."""
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end:
            with suppress(OSError), urlopen(f"{self.url}/-/ready", timeout=20):
                return
            time.sleep(0.1)
        pytest.fail(f"prometheus was not ready within {_PATIENCE:.0f} s")

    def api(self, path: str, **parameters: str) -> Any:
        """The `data` of an answer of its HTTP API. A query that it refuses fails the test, with its reason."""
        try:
            with urlopen(f"{self.url}/api/v1/{path}?{urlencode(parameters)}", timeout=20) as answer:
                return json.load(answer)["data"]
        except HTTPError as error:
            said = json.loads(error.read())
            pytest.fail(f"prometheus refused {parameters}: {said.get('error')}")

    def ask(self, query: str) -> list[dict[str, Any]]:
        """The samples of an instant query."""
        found: list[dict[str, Any]] = self.api("query", query=query)["result"]
        return found

    def value(self, query: str) -> float:
        """Of a query with one sample."""
        [sample] = self.ask(query)
        return float(sample["value"][1])

    def until(self, query: str, patience: float = _PATIENCE) -> list[dict[str, Any]]:
        """The samples of a query once there are any."""
        end = time.monotonic() + patience
        while time.monotonic() < end:
            found = self.ask(query)
            if found:
                return found
            time.sleep(0.2)
        pytest.fail(f"prometheus had no answer to {query} within {patience:.0f} s; targets: {self.api('targets')}")


@contextmanager
def prometheus(folder: Path, *, scraping: int, rules: Sequence[Path] = ()) -> Iterator[Prometheus]:
    """A server that fetches `/metrics` from a port of loopback every second. Skips where it is not installed."""
    path = shutil.which("prometheus")
    if path is None:
        missing_service("prometheus is not installed: run scripts/install-services")
    assert path is not None
    configuration = folder / "prometheus.yml"
    named = json.dumps([str(path) for path in rules])
    configuration.write_text(_CONFIGURATION % {"port": scraping, "rules": named}, encoding="utf-8")
    port = free_port()
    command = [
        path,
        f"--config.file={configuration}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--enable-feature=exemplar-storage",
        "--log.level=warn",
    ]
    with started(command, port, folder / "prometheus.log", environ=surroundings(), patience=_PATIENCE):
        program = Prometheus(f"http://127.0.0.1:{port}")
        program.wait()
        yield program


def promtool(*arguments: str | Path, said: bytes = b"") -> subprocess.CompletedProcess[str]:
    """What promtool makes of it, with `said` as its input. Skips where it is not installed."""
    program = shutil.which("promtool")
    if program is None:
        missing_service("promtool is not installed: run scripts/install-services")
    assert program is not None
    return subprocess.run(
        [program, *map(str, arguments)], input=said.decode(), capture_output=True, encoding="utf-8", timeout=60
    )
