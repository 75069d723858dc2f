"""What a configuration file may say of OpenTelemetry, what it may not, and whose providers are used."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Mapping
from importlib.metadata import EntryPoint

import pytest
from opentelemetry import trace
from tests.conftest import ROOT
from tests.support.otel_memory import Memory
from tests.support.otlp_receiver import receiving
from tests.support.telling import MODEL, Telling

from agentflow.errors import ConfigurationError
from agentflow.integrations.opentelemetry import OpenTelemetryObserver, application, from_settings

SECRET = "hunter2-of-nobody"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"endpont": "http://x"}, "no setting is named 'endpont', only endpoint, "),
        ({"endpoint": 7}, "endpoint must be str, not int"),
        ({"endpoint": "localhost:4318"}, "must be a URL that begins with http"),
        ({"endpoint": "http://"}, "must be a URL that begins with http"),
        ({"endpoint": f"http://host:{SECRET}"}, "host or port that cannot be read"),
        ({"endpoint": f"http://me:{SECRET}@host"}, "holds a password"),
        ({"endpoint": f"http://host?key={SECRET}"}, "holds a password or a query"),
        ({"sample": 1.5}, "sample must be from 0 to 1"),
        ({"sample": float("nan")}, "sample must be from 0 to 1"),
        ({"sample": True}, "sample must be float, not bool"),
        ({"timeout": 0}, "timeout must be more than 0"),
        ({"interval": -1}, "interval must be more than 0"),
        ({"max_open_spans": 0}, "max_open_spans must be more than 0"),
        ({"max_open_spans": 1.5}, "max_open_spans must be int"),
        ({"chunks": "yes"}, "chunks must be bool, not str"),
        ({"content": "ALL"}, "content must be one of NO_CONTENT, SPAN_ONLY"),
        ({"headers_env": "NOT_SET_ANYWHERE"}, r"NOT_SET_ANYWHERE \(headers_env\) is not set"),
        ({"headers_env": "OTLP_HEADERS"}, "OTLP_HEADERS must be name=value,name=value"),
    ],
)
def test_settings_that_are_wrong_are_a_configuration_error_that_repeats_no_secret(
    settings: Mapping[str, object], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTLP_HEADERS", SECRET)
    with pytest.raises(ConfigurationError, match=said) as failure:
        from_settings(settings)
    assert SECRET not in str(failure.value)


def test_the_entry_point_leads_to_it() -> None:
    """Its name in pyproject.toml, by which a configuration can name it without an import."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    value = project["entry-points"]["agentflow.integrations"]["opentelemetry"]
    assert EntryPoint("opentelemetry", value, "agentflow.integrations").load() is from_settings


@pytest.mark.parametrize("use", ["m.from_settings({})", "m.OpenTelemetryObserver"])
def test_without_the_extra_it_says_how_to_install_it(use: str) -> None:
    program = (
        "import sys; sys.modules.update(dict.fromkeys(('opentelemetry.trace', 'opentelemetry.sdk', 'opentelemetry')))\n"
        "import agentflow.integrations.opentelemetry as m\n"
        "from agentflow.errors import MissingExtraError\n"
        f"try: {use}\n"
        "except MissingExtraError as error: print(error)\n"
    )
    said = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert said.strip() == "OpenTelemetry needs an extra: pip install 'agentflow-engine[otel]'"


def test_an_import_of_the_name_loads_nothing_of_the_extra() -> None:
    program = "import sys, agentflow.integrations.opentelemetry\nprint('opentelemetry.sdk' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert said.strip() == "False"


def test_an_unknown_name_of_the_package_is_an_attribute_error() -> None:
    import agentflow.integrations.opentelemetry as package

    with pytest.raises(AttributeError, match="Nonsense"):
        package.Nonsense  # noqa: B018


@pytest.fixture
def configured_application(monkeypatch: pytest.MonkeyPatch) -> Memory:
    """An application that has set up OpenTelemetry itself."""
    memory = Memory()
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: memory.tracers)
    monkeypatch.setattr(application, "get_tracer_provider", lambda: memory.tracers)
    return memory


def test_what_the_application_has_configured_is_used(configured_application: Memory) -> None:
    observer = from_settings({"chunks": True})
    run = Telling(observer)
    run.end("model_success", run.begin("model_start", "fast", MODEL))
    assert [span.name for span in configured_application.spans] == ["chat gpt-4o"]
    assert observer.chunks is True
    observer.flush()
    observer.close()


def test_an_endpoint_of_its_own_comes_before_that(configured_application: Memory) -> None:
    with receiving() as receiver:
        observer = from_settings({"endpoint": receiver.endpoint, "metrics": False})
        run = Telling(observer)
        run.end("model_success", run.begin("model_start", "fast", MODEL))
        observer.flush()
        observer.close()
        assert [span.name for span in receiver.spans] == ["chat gpt-4o"]
    assert configured_application.spans == []


def test_the_standard_variables_count_where_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
        monkeypatch.setenv("OTEL_SERVICE_NAME", "from-the-environment")
        observer = from_settings({})
        run = Telling(observer)
        run.end("model_success", run.begin("model_start", "fast", MODEL))
        observer.flush()
        observer.close()
        assert receiver.resource["service.name"] == "from-the-environment"
        assert len(receiver.spans) == 1


def test_a_service_that_nobody_named_is_called_agentflow() -> None:
    with receiving() as receiver:
        observer = from_settings({"endpoint": receiver.endpoint, "metrics": False})
        run = Telling(observer)
        run.end("model_success", run.begin("model_start", "fast", MODEL))
        observer.flush()
        observer.close()
        assert receiver.resource["service.name"] == "agentflow"


def test_room_for_no_span_is_refused() -> None:
    with pytest.raises(ValueError, match="max_open_spans"):
        OpenTelemetryObserver(max_open_spans=0)


def test_a_process_that_ends_sends_what_it_has_and_does_not_hang() -> None:
    """Without a call of `close`, and also where the collector is not there."""
    program = (
        "import sys\n"
        "from agentflow import AsyncFlow, Flow, node\n"
        "from agentflow.core.observability import observe\n"
        "from agentflow.integrations.opentelemetry import from_settings\n"
        "observe(from_settings({'endpoint': sys.argv[1]}))\n"
        "@node\n"
        "async def step(state): ...\n"
        "Flow(step, name='article').run({})\n"
    )
    with receiving() as receiver:
        subprocess.run([sys.executable, "-c", program, receiver.endpoint], check=True, timeout=60)
        assert {span.name for span in receiver.spans} == {"invoke_workflow article", "node step"}
        assert {metric.name for metric in receiver.metrics} >= {"gen_ai.invoke_workflow.duration"}
    subprocess.run([sys.executable, "-c", program, receiver.endpoint], check=True, timeout=60, capture_output=True)
