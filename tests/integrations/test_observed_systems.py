"""Prometheus and OpenTelemetry by models.yml: shown, sent, told where they stand when they cannot be, and ended."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from tests.support.otlp_receiver import receiving

from agentflow import AgentFlow, AsyncFlow, LLMNode, ModelRegistry
from agentflow.errors import ConfigurationError, MissingExtraError

TOY = "providers: {toy: {kind: scripted, options: {answers: [One., Two.]}}}\n"


def load(folder: Path, yml: str) -> ModelRegistry:
    folder.mkdir(exist_ok=True)
    (folder / "models.yml").write_text(TOY + yml)
    return ModelRegistry.load(environ={}, cwd=folder, home=folder)


def run(registry: ModelRegistry) -> None:
    ask = LLMNode(AgentFlow.model("toy/m", registry=registry), prompt="Greet {name}", writes="greeting")
    asyncio.run(AsyncFlow(ask, name="greet").run({"name": "Ada"}))


def test_prometheus_shows_what_the_collector_counts(tmp_path: Path) -> None:
    registry = load(tmp_path, "observability: {prometheus: {port: 0, prefix: shop}}")
    with registry.observe() as observing:
        run(registry)
        server: Any = observing.integrations["prometheus"]
        with urllib.request.urlopen(server.url) as page:
            assert b'shop_flow_runs_total{flow="greet",status="done"} 1.0' in page.read()
        assert observing.metrics is not None
    assert not any("metrics server" in thread.name for thread in threading.enumerate())


def test_a_port_that_is_taken_is_told_with_its_place(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        registry = load(tmp_path, f"observability:\n  prometheus: {{port: {port}}}\n")
        with pytest.raises(ConfigurationError, match=rf"models\.yml:3:3: .*{port}"):
            registry.observe()


def test_registries_that_name_the_same_port_share_the_server(tmp_path: Path) -> None:
    one, other = (load(tmp_path / name, "observability: {prometheus: {port: 0}}") for name in ("one", "other"))
    with one.observe() as first, other.observe() as second:
        assert first.integrations["prometheus"] is second.integrations["prometheus"]


def test_opentelemetry_sends_to_the_collector_and_has_sent_all_at_its_end(tmp_path: Path) -> None:
    with receiving() as receiver:
        registry = load(tmp_path, f"observability: {{opentelemetry: {{endpoint: '{receiver.endpoint}'}}}}")
        with registry.observe():
            run(registry)
        assert {"invoke_workflow greet", "chat m"} <= {span.name for span in receiver.spans}


@pytest.mark.parametrize(
    ("section", "package", "extra"),
    [("prometheus: true", "prometheus_client", "prometheus"), ("opentelemetry: true", "opentelemetry", "otel")],
)
def test_a_missing_extra_is_told_by_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, section: str, package: str, extra: str
) -> None:
    for name in [
        name for name in sys.modules if name.split(".")[0] == package or "integrations.opentelemetry." in name
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    registry = load(tmp_path, f"observability: {{{section}}}")
    said = rf"models\.yml:2:17: .* needs an extra: pip install 'agentflow-engine\[{extra}\]'"
    with pytest.raises(MissingExtraError, match=said):
        registry.observe()
