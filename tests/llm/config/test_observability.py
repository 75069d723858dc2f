"""The sections `observability:` and `audit:`: what may stand there, what a misfit is told, and how files are laid over
each other."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec import UNSET

from agentflow.errors import ConfigurationError
from agentflow.llm.config.loader import Configuration, load_configuration, read_layer
from agentflow.llm.config.observability import AlertSection, Audit, Logs, Observability, Prometheus, Runs


def refusal(text: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        read_layer("m.yml", text)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "observability:\n  runs: 3\n",
            "m.yml:2:3: observability.runs: found 3, allowed is true or false or a text that is not empty or a mapping",
        ),
        ("observability: {runs: {capture: all}}", "runs.capture: found 'all', allowed is content or none"),
        ("observability: {runs: {max_bytes: 10}}", "runs.max_bytes: found 10, allowed is a whole number, 262144 or"),
        ("observability: {metrics: {max_series: 0}}", "metrics.max_series: found 0, allowed is a whole number, 1 or"),
        ("observability: {logs: {level: loud}}", "logs.level: found 'loud', allowed is CRITICAL or DEBUG or ERROR or"),
        ("observability: {prometheus: {port: 70000}}", "prometheus.port: found 70000, allowed is a whole number from"),
        ("observability: {prometheus: {bounds: {a: [x]}}}", "prometheus.bounds.a.0: found 'x', allowed is a number"),
        ("observability: {opentelemetry: {sample: 2}}", "opentelemetry.sample: found 2, allowed is a number from 0"),
        ("observability: {alerts: 3}", "observability.alerts: found 3, allowed is true or false or a list"),
        ("observability: {integrations: {x: 3}}", "integrations.x: found 3, allowed is true or false or a mapping"),
        ("audit: {fsync: often}", "audit.fsync: found 'often', allowed is always or never or a number above 0"),
        ("audit: {rotate: {size: 3}}", "audit.rotate.size: found 3, allowed is a whole number, 4096 or more or null"),
        ("audit: {retain: {at_least: -1}}", "audit.retain.at_least: found -1, allowed is a number, 0 or more"),
        ("audit: {on_failure: ignore}", "audit.on_failure: found 'ignore', allowed is closed or open"),
        ("audit: 3", "m.yml:1:1: audit: found 3, allowed is true or false or a mapping of path, key_env"),
    ],
)  # fmt: skip
def test_a_misfit_is_told_with_its_place_and_what_is_allowed(text: str, message: str) -> None:
    assert message in refusal(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("observability: {metric: true}", "m.yml:1:17: observability.metric: unknown field; did you mean metrics?"),
        ("observability: {opentelemetry: {endpont: x}}", "opentelemetry.endpont: unknown field; did you mean"),
        ("observability: {alerts: {rule: []}}", "observability.alerts.rule: unknown field; did you mean rules?"),
        ("audit: {on_fail: open}", "audit.on_fail: unknown field; did you mean on_failure?"),
        ("observabilty: {}", "observabilty: unknown field; did you mean observability?"),
    ],
)  # fmt: skip
def test_an_unknown_field_is_told_with_the_nearest_known_one(text: str, message: str) -> None:
    assert message in refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "observability: {opentelemetry: {endpoint: 'https://me:hunter2@host'}}",
        "observability: {opentelemetry: {endpoint: 'https://host/?key=hunter2'}}",
        "observability: {opentelemetry: {headers_env: 'hunter2'}}",
        "audit: {key_env: hunter2}",
    ],
)
def test_what_may_be_a_password_is_not_repeated(text: str) -> None:
    message = refusal(text)
    assert "found something else" in message
    assert "hunter2" not in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "observability:\n  alerts:\n    - {preset: latency}\n    - {preset: latenzy}\n",
            "m.yml:4:8: observability.alerts.1.preset: found 'latenzy', allowed is latency | error-rate",
        ),
        (
            "observability:\n  alerts:\n    rules:\n      - name: slow\n        metric: flow_duration_seconds\n"
            "        above: much\n",
            "m.yml:6:9: observability.alerts.rules.0 slow.above: found 'much', allowed is a number",
        ),
        ("observability: {alerts: [{name: a, metric: b, abov: 3}]}", "m.yml:1:26: observability.alerts.0 a"),
    ],
)
def test_a_rule_that_is_none_is_told_where_it_stands(text: str, message: str) -> None:
    assert message in refusal(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'audit:\n  redact:\n    patterns:\n      ticket: "TCK-[0-9]+"\n      x: "("\n',
            "m.yml:5:7: audit.redact.patterns.x: the pattern 'x' is no regular expression: missing ), unterminated",
        ),
        ('audit: {redact: {patterns: {"My Pattern": a}}}', "m.yml:1:29: audit.redact.patterns.My Pattern: the name of"),
    ],
)
def test_a_pattern_to_redact_that_is_none_is_told_where_it_stands(text: str, message: str) -> None:
    assert message in refusal(text)


def test_each_part_has_a_short_form_and_a_long_one() -> None:
    short = read_layer(
        "m.yml", "observability: {runs: a.db, metrics: true, prometheus: true, alerts: true}\naudit: true"
    )
    assert short.document.observability == Observability(runs="a.db", metrics=True, prometheus=True, alerts=True)
    assert short.document.audit is True
    long = read_layer(
        "m.yml",
        """
observability:
  runs: {path: a.db, capture: content, max_age: 3600, max_bytes: null, max_text: 1000}
  metrics: {max_series: 10}
  logs: {json: true, level: DEBUG, runs: false}
  prometheus: {port: 0, host: "::1", prefix: shop, bounds: {tool_duration_seconds: [0.1, 1]}}
  opentelemetry: {endpoint: "http://127.0.0.1:4318", service_name: shop, headers_env: OTLP, content: NO_CONTENT,
                  sample: 0.1, timeout: 2, interval: 10, metrics: false, chunks: true, max_open_spans: 9}
  alerts:
    rules: [{preset: latency, above: 10}]
    actions: {ops: {webhook: "https://example.org/hook"}}
    silences: []
    interval: 5
    grace: 1
  integrations: {mine: {colour: red}, theirs: true, nobody: false}
audit:
  path: a
  key_env: AUDIT_KEY
  on_failure: open
  fsync: always
  rotate: {size: 5000, age: null}
  retain: {age: 3600, size: 100000, at_least: 60}
  anchor: {path: heads.jsonl, records: 10, seconds: 5}
  redact: {emails: false, patterns: {ticket: "TCK-[0-9]+"}}
  content: none
  actor: batch
  exclusive: true
""",
    )
    assert isinstance(long.document.audit, Audit)
    assert isinstance(long.document.observability, Observability)
    assert isinstance(long.document.observability.alerts, AlertSection)


# ---- files over each other -----------------------------------------------------------------------------------


def laid(tmp_path: Path, weaker: str, stronger: str) -> Configuration:
    (tmp_path / ".config/agentflow").mkdir(parents=True)
    (tmp_path / ".config/agentflow/models.yml").write_text(weaker)
    (tmp_path / "project").mkdir()
    (tmp_path / "project/models.yml").write_text(stronger)
    return load_configuration(None, environ={}, cwd=tmp_path / "project", home=tmp_path)


def test_without_a_word_nothing_is_on(tmp_path: Path) -> None:
    configuration = laid(tmp_path, "", "observability:\naudit:\n")
    assert configuration.observability == Observability()
    assert configuration.audit is None


def test_mappings_are_laid_over_each_other_field_by_field(tmp_path: Path) -> None:
    found = laid(
        tmp_path,
        "observability: {runs: {path: a.db, capture: content}, logs: {json: true}, prometheus: {port: 1}}\n"
        "audit: {path: a, rotate: {size: 5000}}",
        "observability: {runs: {max_age: 60}, logs: {level: ERROR}, prometheus: false, metrics: true}\n"
        "audit: {key_env: KEY, rotate: {age: 60}}",
    )
    said = found.observability
    assert said.runs == Runs(path="a.db", capture="content", max_age=60)
    assert said.logs == Logs(json=True, level="ERROR")
    assert (said.prometheus, said.metrics, said.alerts) == (False, True, UNSET)
    assert isinstance(found.audit, Audit)
    assert (found.audit.path, found.audit.key_env) == ("a", "KEY")
    assert (found.audit.rotate.size, found.audit.rotate.age) == (5000, 60)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("weaker", "stronger", "audit"),
    [
        ("audit: {path: a}", "audit: false", None),
        ("audit: {path: a}", "audit: true", Audit(path="a")),
        ("audit: {path: a}", "", Audit(path="a")),
        ("audit: false", "audit: true", Audit()),
    ],
)
def test_an_audit_log_is_turned_on_and_off(tmp_path: Path, weaker: str, stronger: str, audit: Audit | None) -> None:
    assert laid(tmp_path, weaker, stronger).audit == audit


def test_a_field_is_found_again_in_the_strongest_file_that_sets_it(tmp_path: Path) -> None:
    found = laid(tmp_path, "observability:\n  prometheus: {port: 1}\n", "observability:\n  metrics: true\n")
    weak, strong = found.layers[1].source, found.layers[2].source
    assert found.place("observability", "prometheus") == f"{weak}:2:3"
    assert found.place("observability", "metrics") == f"{strong}:2:3"
    assert found.place("observability", "runs") is None
    assert found.observability.prometheus == Prometheus(port=1)
