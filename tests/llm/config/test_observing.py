"""From models.yml to running parts: everything on, nothing on, what cannot start, who shares what, and how it ends."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import threading
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest

from agentflow import AsyncFlow, LLMNode, ModelRegistry
from agentflow.core import ExecutionEvent
from agentflow.core.observability import RunReader
from agentflow.core.observability.audit import AuditKeys, current_audit, read, verify
from agentflow.core.observability.observers import observations
from agentflow.errors import AuditError, ConfigurationError, MissingExtraError
from agentflow.llm.builder import LLMClientBuilder
from agentflow.llm.client import Call

AUDIT_KEY = "0123456789abcdef" * 3
TOY = "providers: {toy: {kind: scripted, options: {answers: [One., Two., Three., Four.]}}}\n"
EVERYTHING = (
    TOY
    + """
observability:
  runs: {path: kept/runs.db, capture: content}
  metrics: {max_series: 50}
  logs: {json: true, level: DEBUG}
  alerts:
    interval: 3600
    rules: [{name: any-run, metric: flow_runs, above: 0}]
    actions: {log: {log: test.alerts}}
  integrations: {witness: {colour: red}}
audit: {path: kept/audit, key_env: AUDIT_KEY}
"""
)


class Witness:
    """What the integration of this test is: it remembers."""

    inline = True
    made: list[Witness] = []

    def __init__(self, settings: Mapping[str, object]) -> None:
        self.settings = settings
        self.events: list[ExecutionEvent] = []
        self.closed = 0
        Witness.made.append(self)

    def observe(self, event: ExecutionEvent) -> None:
        self.events.append(event)

    def close(self) -> None:
        self.closed += 1


def blind(settings: Mapping[str, object]) -> object:
    return object()


def broken(settings: Mapping[str, object]) -> object:
    raise OSError("no such collector")


def missing(settings: Mapping[str, object]) -> object:
    raise MissingExtraError("Witnessing", "witness")


@pytest.fixture(autouse=True)
def integrations(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Further integrations, as installed packages would offer them; and nothing is left behind."""
    import importlib.metadata

    Witness.made.clear()
    real = importlib.metadata.entry_points
    here = __name__
    for name, found in (("Witness", Witness), ("blind", blind), ("broken", broken), ("missing", missing)):
        monkeypatch.setattr(sys.modules[here], name, found, raising=False)
    more = [EntryPoint(n, f"{here}:{v}", "agentflow.integrations") for n, v in
            (("witness", "Witness"), ("blind", "blind"), ("broken", "broken"), ("missing", "missing"),
             ("gone", "gone"))]  # fmt: skip

    def entry_points(**wanted: str) -> EntryPoints:
        found = real(**wanted)
        return EntryPoints([*found, *more]) if wanted.get("group") == "agentflow.integrations" else found

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    before = standing()
    yield
    assert standing() == before


def standing() -> tuple[object, ...]:
    """What may not be left behind. Threads of the executor stay, for whoever needs one next."""
    threads = [each.name for each in threading.enumerate() if not each.name.startswith("agentflow_")]
    return observations(), threads, logging.getLogger().handlers[:], current_audit()


def load(folder: Path, yml: str) -> ModelRegistry:
    folder.mkdir(exist_ok=True)
    (folder / "models.yml").write_text(yml)
    return ModelRegistry.load(environ={"AUDIT_KEY": AUDIT_KEY}, cwd=folder, home=folder)


async def run(registry: ModelRegistry, run_id: str = "r1") -> None:
    """A flow with a scripted model."""
    ask = LLMNode(LLMClientBuilder(lambda: registry, Call(model="toy/m")), prompt="Greet {name}", writes="greeting")
    await AsyncFlow(ask, name="greet").run({"name": "Ada"}, run_id=run_id)


# ---- everything, and nothing ---------------------------------------------------------------------------------


def test_with_everything_on_a_run_is_in_all_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    registry = load(tmp_path, EVERYTHING)
    with registry.observe() as observing:
        asyncio.run(run(registry))
        assert observing.metrics is not None
        assert observing.metrics.snapshot().value("flow_runs") == 1.0
        assert [each.name for each in observing.alerts.rules] == ["any-run"]  # type: ignore[union-attr]
    [witness] = Witness.made
    assert (witness.settings, witness.closed) == ({"colour": "red"}, 1)
    assert [event.kind for event in witness.events if event.run_id == "r1"][:3] == [
        "flow_start",
        "node_start",
        "model_start",
    ]
    kept = RunReader(tmp_path / "kept/runs.db")
    assert kept.find("r1").status == "done"
    assert any("Greet Ada" in json.dumps(dict(event.data)) for event in kept.events("r1"))
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert {"flow_start", "model_success", "flow_success"} <= {line.get("event") for line in lines}
    assert any("any-run is firing" in line["message"] for line in lines if line["logger"] == "test.alerts")
    assert verify(tmp_path / "kept/audit", AuditKeys(AUDIT_KEY)).sound
    entries = [entry.record for entry in read(tmp_path / "kept/audit")]
    loaded = [record.resource for record in entries if record.action == "config.loaded"]
    assert loaded == ["built-in models.yml", str(tmp_path / "models.yml")]
    assert {"run.started", "model.call", "run.ended"} <= {record.action for record in entries if record.run == "r1"}


def test_without_a_word_nothing_is_written_opened_or_started(tmp_path: Path) -> None:
    registry = load(tmp_path, TOY)
    before = sorted(tmp_path.rglob("*"))
    with registry.observe() as observing:
        asyncio.run(run(registry))
        assert observations() == ()
        parts = (observing.runs, observing.metrics, observing.alerts, observing.audit, observing.integrations)
        assert parts == (None, None, None, None, {})
    assert sorted(tmp_path.rglob("*")) == before


def test_a_registry_that_was_loaded_has_started_nothing(tmp_path: Path) -> None:
    load(tmp_path, EVERYTHING)
    assert not (tmp_path / "kept").exists()
    assert observations() == ()


@pytest.mark.parametrize(
    ("said", "file"),
    [("true", ".agentflow/runs.db"), ("mine.db", "mine.db"), ("{path: deep/mine.db}", "deep/mine.db")],
)
def test_runs_are_kept_where_models_yml_says_from_its_own_folder(tmp_path: Path, said: str, file: str) -> None:
    registry = load(tmp_path, f"{TOY}observability: {{runs: {said}}}")
    with registry.observe() as observing:
        asyncio.run(run(registry))
        assert observing.runs is not None
        assert not observing.runs.content
    assert RunReader(tmp_path / file).find("r1").status == "done"


def test_who_wants_no_run_kept_has_the_rest(tmp_path: Path) -> None:
    registry = load(tmp_path, f"{TOY}observability: {{runs: true, metrics: true}}")
    with registry.observe(runs=False) as observing:
        assert observing.runs is None
        assert observing.metrics is not None


# ---- what cannot be started ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "error", "message"),
    [
        ("witnes: true", ConfigurationError, r"models\.yml:3:33: .*there is no integration 'witnes'; did you mean wit"),
        ("blind: true", ConfigurationError, r"models\.yml:3:33: .*'blind' is no observer: it has no method observe"),
        ("broken: true", ConfigurationError, r"models\.yml:3:33: .*cannot be started: OSError: no such collector"),
        ("gone: true", ConfigurationError, r"models\.yml:3:33: .*'gone' \(.*:gone\) does not load: AttributeError"),
        ("missing: true", MissingExtraError, r"models\.yml:3:33: Witnessing needs an extra: pip install"),
    ],
)
def test_what_cannot_be_started_says_where_and_why_and_ends_the_rest(
    tmp_path: Path, said: str, error: type[Exception], message: str
) -> None:
    registry = load(tmp_path, f"observability:\n  runs: a.db\n  integrations: {{witness: true, {said}}}\n")
    with pytest.raises(error, match=message):
        registry.observe()
    assert not registry.observing.running
    assert [witness.closed for witness in Witness.made] == [1]


@pytest.mark.parametrize(
    ("said", "error", "message"),
    [
        ("audit: {key_env: NO_SUCH_KEY}", ConfigurationError, r"models\.yml:3:1: .*NO_SUCH_KEY"),
        (
            "  alerts: {rules: [], actions: {ops: {webhook: {url: 'https://a.example', secret_env: NO_SUCH}}}}",
            ConfigurationError,
            r"models\.yml:3:3: .*observability\.alerts\.actions\.ops.*NO_SUCH is not set",
        ),
        (
            "  opentelemetry: {headers_env: NO_SUCH}",
            ConfigurationError,
            r"models\.yml:3:19: observability\.opentelemetry\.headers_env: .*NO_SUCH is not set",
        ),
        (
            "  opentelemetry: true",
            MissingExtraError,
            r"models\.yml:3:3: OpenTelemetry needs an extra: pip install 'agentflow-engine\[otel\]'",
        ),
        (
            "audit: {content: encrypted, key_env: AUDIT_KEY}",
            MissingExtraError,
            r"models\.yml:3:9: encrypted content in the audit log needs an extra",
        ),
    ],
)
def test_what_can_be_known_beforehand_is_told_before_anything_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, error: type[Exception], message: str
) -> None:
    there = {"NO_SUCH"} if "NO_SUCH" not in said else {"opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http"}
    monkeypatch.setattr("agentflow.llm.config.extras._is_there", there.__contains__)
    registry = load(tmp_path, f"observability:\n  integrations: {{witness: true}}\n{said}\n")
    with pytest.raises(error, match=message):
        registry.observe()
    assert Witness.made == []
    assert sorted(each.name for each in tmp_path.iterdir()) == ["models.yml"]


def test_an_audit_log_without_a_key_is_refused(tmp_path: Path) -> None:
    registry = load(tmp_path, "audit: {key_env: NO_SUCH_KEY}")
    with pytest.raises(ConfigurationError, match=r"models\.yml:1:1: .*NO_SUCH_KEY"):
        registry.observe()


def test_an_audit_log_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file where the folder should be")
    registry = load(tmp_path, "audit: {path: taken, key_env: AUDIT_KEY}")
    with pytest.raises(AuditError):
        registry.observe()
    assert current_audit() is None


def test_a_run_store_that_cannot_be_written_keeps_no_run_from_running(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "taken").write_text("a file where the folder should be")
    registry = load(tmp_path, f"{TOY}observability: {{runs: taken/runs.db}}")
    with registry.observe() as observing:
        asyncio.run(run(registry))
        store = observing.runs
        assert store is not None
    assert store.lost > 0


# ---- once, shared, again -------------------------------------------------------------------------------------


def test_starting_and_closing_twice_is_doing_it_once(tmp_path: Path) -> None:
    registry = load(tmp_path, EVERYTHING)
    observing = registry.observe()
    assert registry.observe() is observing.start() is observing
    assert len(Witness.made) == 1
    observing.close()
    observing.close()
    assert Witness.made[0].closed == 1


def test_what_was_closed_can_be_started_again(tmp_path: Path) -> None:
    registry = load(tmp_path, EVERYTHING)
    for number in (1, 2):
        with registry.observe():
            asyncio.run(run(registry, f"r{number}"))
    reader = RunReader(tmp_path / "kept/runs.db")
    assert {reader.find(name).status for name in ("r1", "r2")} == {"done"}
    assert verify(tmp_path / "kept/audit", AuditKeys(AUDIT_KEY)).sound


def test_registries_that_name_the_same_share_it_and_the_last_one_ends_it(tmp_path: Path) -> None:
    one, other = load(tmp_path, EVERYTHING), load(tmp_path, EVERYTHING)
    first = one.observe()
    second = other.observe()
    assert first.runs is second.runs is not None
    assert first.metrics is second.metrics
    assert first.audit is second.audit is current_audit()
    first.close()
    asyncio.run(run(other))
    assert Witness.made[0].closed == 0
    second.close()
    assert len(Witness.made) == Witness.made[0].closed == 1
    assert RunReader(tmp_path / "kept/runs.db").find("r1").events == len(
        [event for event in Witness.made[0].events if event.run_id == "r1"]
    )


def test_audit_logs_may_be_left_in_any_order(tmp_path: Path) -> None:
    one = load(tmp_path / "one", "audit: {path: a, key_env: AUDIT_KEY}").observe()
    other = load(tmp_path / "other", "audit: {path: a, key_env: AUDIT_KEY}").observe()
    assert current_audit() is other.audit
    one.close()
    assert current_audit() is other.audit
    other.close()
    assert current_audit() is None


def test_threads_that_start_at_once_start_it_once(tmp_path: Path) -> None:
    registry = load(tmp_path, EVERYTHING)
    threads = [threading.Thread(target=registry.observe) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(Witness.made) == 1
    registry.observing.close()


# ---- what changes while it runs ------------------------------------------------------------------------------


def test_what_is_registered_while_it_runs_is_audited(tmp_path: Path) -> None:
    registry = load(tmp_path, EVERYTHING)
    with registry.observe():
        registry.register_model("mine", provider="toy")
        registry.set_default("mine")
        registry.register_provider("own", lambda settings: None)  # type: ignore[arg-type,return-value]
        registry.set_token("toy", lambda: "token")
    changed = [entry.record for entry in read(tmp_path / "kept/audit") if entry.record.action == "config.changed"]
    assert [record.resource for record in changed] == [
        "models.mine",
        "defaults.model",
        "providers.own",
        "providers.toy.token",
    ]


def test_keys_are_taken_out_of_what_is_written_from_when_they_are_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = "plain-words-that-no-shape-knows"
    yml = """
providers: {lab: {kind: scripted, api_key_env: LAB, options: {answers: [a]}}}
observability: {logs: {json: true}}
"""
    (tmp_path / "models.yml").write_text(yml)
    registry = ModelRegistry.load(environ={"LAB": key}, cwd=tmp_path, home=tmp_path)
    with registry.observe():
        assert registry.key_found("lab")
        logging.getLogger("shop").warning("the key is %s", key)
    assert key not in (err := capsys.readouterr().err)
    assert "the key is [redacted:known]" in err
