"""Keys are planted in a prompt, an answer, an exception's text and wherever else a program may put one; then each place
that anything is written to is searched for them, with all of models.yml's recording turned on.

    KEY      the provider's API key: no shape tells that it is one, but the key ring has loaded it
    SECRET   somebody else's key: nobody knows it, but it has the shape of one

    prompt, answer, error ──▶ run store · JSON logs · audit · OpenTelemetry · Prometheus · metrics · alerts' webhook
                                  └──▶ terminal, HTML page, JSON of `agentflow trace`
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.support.otel_memory import Memory

from agentflow import AgentFlow, AsyncFlow, LLMNode, ModelRegistry, SharedState, emit, node, observe
from agentflow.cli.main import commands
from agentflow.errors import AgentFlowError, AuthenticationError
from agentflow.llm.agentflow import _Door
from agentflow.llm.messages import Request
from agentflow.llm.providers.base import ProviderSettings
from agentflow.llm.providers.scripted import ScriptedProvider

KEY = "mellow-otter-ninety-two-brass-kettle"
SECRET = "sk-proj-4f9aB81xQz77LmNp20rTuVw3"
PIECES = (KEY, KEY[:16], KEY[-16:], SECRET, SECRET[8:24], SECRET[-12:])
AUDIT_KEY = "0123456789abcdef" * 3

YML = """
providers: {{lab: {{kind: lab, api_key_env: LAB_KEY}}}}
observability:
  runs: {{path: kept/runs.db, capture: content}}
  metrics: true
  logs: {{json: true, level: DEBUG}}
  prometheus: {{port: 0}}
  alerts:
    interval: 3600
    rules:
      - {{name: failures, metric: errors, by: [scope, error_type], above: 0}}
      - {{name: opinions, metric: feedback, by: [label], above: 0}}
    actions: {{hook: {{webhook: "http://127.0.0.1:{port}/hook"}}, log: {{log: agentflow.alerts}}}}
audit: {{path: kept/audit, key_env: AUDIT_KEY}}
"""


@contextmanager
def receiver() -> Iterator[tuple[int, list[bytes]]]:
    """A server on loopback that keeps what is posted to it: headers and body."""
    kept: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            kept.append(self.headers.as_bytes() + body)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """In silence."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1], kept
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def answer(request: Request) -> Any:
    """Repeats what it was asked, or fails and repeats it in the error."""
    if "fail" in request.prompt:
        raise AuthenticationError(f"bad key {KEY}; header Authorization: Bearer {SECRET}", provider="lab", status=401)
    return f"You said {request.prompt}, and your keys are {KEY} and {SECRET}."


class Leaky(Exception):
    """An exception of the user's own."""


@node
async def careless(state: SharedState) -> None:
    """Puts keys where programs put them by mistake."""
    await emit(
        "note", {"header": f"Bearer {SECRET}", "api_key": KEY, KEY: [SECRET, {"deep": KEY}], "raw": KEY.encode()}
    )
    logging.getLogger("shop").warning("using %s", KEY, extra={"headers": {"x": SECRET}, "api_key": "anything at all"})
    logging.getLogger("shop").error("and %s", SECRET, exc_info=Leaky(f"{KEY} {SECRET}"))


@node
async def broken(state: SharedState) -> None:
    """Fails in the user's own code."""
    try:
        raise Leaky(f"inner {KEY}")
    except Leaky as error:
        raise RuntimeError(f"outer {SECRET}") from error


def flows(registry: ModelRegistry) -> list[AsyncFlow]:
    model = AgentFlow.model("lab/m", registry=registry)
    good = LLMNode(model, prompt="{prompt}", writes="answer", name="ask")
    bad = LLMNode(model, prompt="fail with {prompt}", writes="answer", name="ask")
    return [
        AsyncFlow(careless >> good, name="good"),
        AsyncFlow(bad, name="bad"),
        AsyncFlow(broken, name="own"),
    ]


async def everything_goes(registry: ModelRegistry) -> None:
    prompt = f"my key is {KEY}, hers is {SECRET}"
    for flow in flows(registry):
        with suppress(AgentFlowError):
            await flow.run({"prompt": prompt}, run_id=flow.name, tenant=SECRET)
    with suppress(AgentFlowError):
        async with AgentFlow.model("lab/m", registry=registry).prompt(prompt).execute_streaming() as stream:
            async for _ in stream:
                pass
    AgentFlow.feedback("good", score=0.5, label=f"why {SECRET}", comment=f"it says {KEY}")


def test_no_key_comes_out_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    memory = Memory(content="SPAN_AND_EVENT")
    with receiver() as (port, posted):
        (tmp_path / "models.yml").write_text(YML.format(port=port))
        environ = {"LAB_KEY": KEY, "AUDIT_KEY": AUDIT_KEY}
        registry = ModelRegistry.load(environ=environ, cwd=tmp_path, home=tmp_path)
        registry.register_provider("lab", provider)
        monkeypatch.setattr(_Door, "_registry", registry)
        with registry.observe() as observing, observe(memory.observer):
            asyncio.run(everything_goes(registry))
            server: Any = observing.integrations["prometheus"]
            with urllib.request.urlopen(server.url) as page:
                metrics_page = page.read().decode()
            assert observing.metrics is not None
            snapshot = json.dumps(observing.metrics.snapshot().to_json())
    shown = {f"{name} {more}": trace(name, *more) for name in ("good", "bad", "own") for more in ((), ("--json",))}
    pages = {f"{name} page": trace(name, "--html", "-") for name in ("good", "bad", "own")}
    sinks = {
        "logs": capsys.readouterr().err,
        "prometheus": metrics_page,
        "metrics": snapshot,
        "webhook": "\n".join(map(repr, posted)),
        "spans": "\n".join(span.to_json() for span in memory.spans),
        "span events": "\n".join(str(dict(record.attributes)) for record in memory.records),
        **{str(file): file.read_bytes().decode("latin-1") for file in (tmp_path / "kept").rglob("*") if file.is_file()},
        **shown,
        **pages,
    }
    assert told(sinks) == {name: [] for name in sinks}
    for name, sign in signs().items():
        assert any(sign in text for text in [text for sink, text in sinks.items() if name in sink]), f"{name} is empty"


def signs() -> dict[str, str]:
    """What each sink says at least: one that is empty would hold no key either."""
    return {
        "logs": "using [redacted:known]",
        "prometheus": "agentflow_errors_total{",
        "metrics": "errors",
        "webhook": "error_type=AuthenticationError",
        "spans": "gen_ai.input.messages",
        "span events": "You said",
        "runs.db": "You said my key is [redacted:known]",
        "audit-": "model.call",
        "good page": "You said",
        "bad page": "bad key [redacted:known]",
        "own page": "RuntimeError",
    }


def told(sinks: dict[str, str]) -> dict[str, list[str]]:
    """Which pieces of keys stand where; of what stands there, a little around it."""
    return {name: [_around(text, piece) for piece in PIECES if piece in text] for name, text in sinks.items()}


def _around(text: str, piece: str) -> str:
    at = text.index(piece)
    return text[max(0, at - 80) : at + 60]


def provider(settings: ProviderSettings) -> ScriptedProvider:
    assert settings.api_key is not None
    return ScriptedProvider(answer)


def trace(*arguments: str) -> str:
    outcome = CliRunner().invoke(commands, ["trace", *arguments, "--file", "kept/runs.db"])
    assert outcome.exit_code == 0, outcome.output
    return outcome.output
