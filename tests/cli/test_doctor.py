"""`agentflow doctor`: what it finds, and its exit code; the probing of ports."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from agentflow import AgentFlow
from agentflow.cli.servers import Answer, Server, probe

KEY = "sk-test-0123456789abcdefghij"


class _Models(BaseHTTPRequestHandler):
    body = json.dumps({"object": "list", "data": [{"id": "llama3.2"}, {"id": "qwen3"}, {"no": "id"}]}).encode()

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/v1/models" else 404)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def port(request: pytest.FixtureRequest) -> Iterator[int]:
    """A server on a free port that answers with what the test's parameter says, by default a list of models."""
    body = getattr(request, "param", _Models.body)
    handler = type("Handler", (_Models,), {"body": body})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture
def closed() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_a_server_tells_its_models(port: int) -> None:
    server = Server("ollama", "Ollama", port)
    assert probe([server]) == [Answer(server, True, ("llama3.2", "qwen3"))]


@pytest.mark.parametrize("port", [b"<html>", b"[]", b'{"data": 3}'], indirect=True)
def test_a_stranger_is_not_taken_for_a_model_server(port: int) -> None:
    assert probe([Server("vllm", "vLLM", port)])[0].models is None
    assert probe([Server("vllm", "vLLM", port)])[0].reached


def test_a_closed_port_and_a_mute_one_are_no_servers(closed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentflow.cli.servers._PATIENCE", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        answers = probe([Server("a", "A", closed), Server("b", "B", mute.getsockname()[1])])
    assert [(answer.reached, answer.models) for answer in answers] == [(False, None), (False, None)]


@pytest.fixture
def usual(monkeypatch: pytest.MonkeyPatch, closed: int) -> None:
    monkeypatch.setattr("agentflow.cli.doctor.USUAL", (Server("ollama", "Ollama", closed),))


@pytest.mark.usefixtures("usual")
def test_all_is_well_without_any_key(invoke, place: Path) -> None:
    shown = invoke("doctor")
    assert shown.exit_code == 0
    assert "OPENAI_API_KEY or OPENAI_KEY is not set" in shown.stdout
    assert "using local/extractive" in shown.stdout
    assert "Ollama, 127.0.0.1" in shown.stdout
    assert shown.stdout.endswith("All is well.\n")


@pytest.mark.usefixtures("usual")
def test_files_are_listed_in_their_order_and_keys_by_name(invoke, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user = Path.home() / ".config" / "agentflow" / "models.yml"
    user.parent.mkdir(parents=True)
    user.write_text("{}\n")
    (place / "mine.yml").write_text("defaults: {model: gpt-4o}\n")
    monkeypatch.setenv("AGENTFLOW_CONFIG", "mine.yml")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    shown = invoke("doctor").stdout
    assert f"✓ 2. {user}\n" in shown
    assert f"· 3. {place / 'models.yml'} (not there)\n" in shown
    assert "✓ 4. mine.yml (AGENTFLOW_CONFIG)\n" in shown
    assert "✓ openai: OPENAI_API_KEY or OPENAI_KEY is set" in shown
    assert "✓ default model gpt-4o" in shown
    assert KEY not in shown


@pytest.mark.usefixtures("usual")
@pytest.mark.parametrize(
    ("models", "said"),
    [
        ("models: [\n", "models.yml:"),
        ("defaults: {model: nothere}\n", "✗ default model nothere: unknown model"),
        ("defaults: {model: gpt-4o}\n", "✗ default model gpt-4o: provider 'openai' needs an API key"),
    ],
)
def test_what_would_stop_a_run_is_exit_code_1(invoke, place: Path, models: str, said: str) -> None:
    (place / "models.yml").write_text(models)
    shown = invoke("doctor")
    assert shown.exit_code == 1
    assert said in shown.stdout
    assert shown.stdout.endswith("1 problem\n")


def test_a_server_that_runs_is_shown_with_its_models(
    invoke, place: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentflow.cli.doctor.USUAL", (Server("ollama", "Ollama", port),))
    assert f"✓ Ollama, 127.0.0.1:{port}: ollama/llama3.2, ollama/qwen3\n" in invoke("doctor").stdout


@pytest.mark.usefixtures("usual")
def test_a_wrong_kind_and_an_orphaned_model_are_found(invoke, place: Path) -> None:
    """Neither is an error while the configuration loads, because code may still register what is missing."""
    (place / "models.yml").write_text("providers: {lab: {kind: opeanai}}\nmodels: {lost: {provider: nowhere}}\n")
    shown = invoke("doctor")
    assert f"✗ {place / 'models.yml'}:1:13: provider 'lab' has the unknown kind 'opeanai'" in shown.stdout
    assert f"✗ {place / 'models.yml'}:2:10: model 'lost' names the provider 'nowhere'" in shown.stdout
    assert shown.stdout.endswith("2 problems\n")
    assert shown.exit_code == 1


@pytest.mark.usefixtures("usual")
def test_a_broken_dotenv_is_told_once(invoke, place: Path) -> None:
    (place / ".env").write_text(f"OPENAI_API_KEY='{KEY}\n")
    shown = invoke("doctor")
    assert shown.stdout.count("is never closed") == 1
    assert f"{place / '.env'}:1: the quote that opens the value of OPENAI_API_KEY" in shown.stdout
    assert shown.exit_code == 1
    assert KEY not in shown.stdout


@pytest.mark.usefixtures("usual")
def test_a_line_of_dotenv_that_assigns_nothing_is_worth_a_note(invoke, place: Path) -> None:
    (place / ".env").write_text(f"A=1\nOPENAI_API_KEY {KEY}\n")
    shown = invoke("doctor")
    assert f"· {place / '.env'}:2: this line assigns nothing" in shown.stdout
    assert shown.exit_code == 0
    assert KEY not in shown.stdout


@pytest.mark.usefixtures("usual")
def test_whether_the_extras_that_recording_needs_are_installed(
    invoke, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "agentflow-engine[" not in invoke("doctor").stdout
    (place / "models.yml").write_text("observability: {prometheus: true, opentelemetry: {sample: 1}}\n")
    monkeypatch.setattr("agentflow.llm.config.extras._is_there", lambda module: module != "prometheus_client")
    monkeypatch.setattr(type(AgentFlow), "_registry", None)
    shown = invoke("doctor")
    assert shown.exit_code == 1
    installs = "pip install 'agentflow-engine[prometheus]'"
    assert f"✗ observability.prometheus: Prometheus needs an extra: {installs}\n" in shown.stdout
    assert "✓ observability.opentelemetry: agentflow-engine[otel] is installed\n" in shown.stdout


@pytest.mark.usefixtures("usual")
def test_where_runs_are_kept_and_whether_the_audit_log_has_its_key(
    invoke, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "· runs are kept in .agentflow/runs.db\n" in invoke("doctor").stdout
    monkeypatch.setattr(type(AgentFlow), "_registry", None)
    (place / "models.yml").write_text("observability: {runs: false}\naudit: {key_env: TRAIL_KEY}\n")
    shown = invoke("doctor")
    assert shown.exit_code == 1
    assert "· no runs are kept\n" in shown.stdout
    assert "✗ audit: the audit log needs a key: set TRAIL_KEY to at least 32 random characters\n" in shown.stdout
    monkeypatch.setattr(type(AgentFlow), "_registry", None)
    monkeypatch.setenv("TRAIL_KEY", "0123456789abcdef" * 3)
    shown = invoke("doctor")
    assert f"✓ audit log in {place / '.agentflow/audit'}: TRAIL_KEY is set\n" in shown.stdout
    assert "0123456789abcdef" not in shown.stdout
