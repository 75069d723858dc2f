"""`agentflow models` and `agentflow graph`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

KEY = "sk-test-0123456789abcdefghij"


def test_the_table_has_own_models_first_and_marks_the_default(invoke, place: Path) -> None:
    (place / "models.yml").write_text(
        "providers: {lab: {kind: openai, base_url: 'http://127.0.0.1:9/v1'}}\n"
        "models: {fast: {provider: lab}}\ndefaults: {model: fast}\n"
    )
    shown = invoke("models")
    first = shown.stdout.splitlines()[2].split()
    assert first == ["*", "fast", "lab", "none", "needed", "http://127.0.0.1:9/v1"]
    assert "no OPENAI_API_KEY" in shown.stdout
    assert "Default: fast, because" in shown.stdout


def test_json_says_whether_a_key_is_there_and_never_which(invoke, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    shown = invoke("models", "--json")
    lines = {line["name"]: line for line in json.loads(shown.stdout)}
    assert lines["gpt-4o"]["key"] is True
    assert lines["gpt-4o-mini"]["default"] is True
    assert lines["kimi-k2.6"] == {
        "name": "kimi-k2.6", "provider": "moonshot", "model_id": "kimi-k2.6", "key": False,
        "key_names": ["MOONSHOT_API_KEY", "MOONSHOT_KEY"], "base_url": "https://api.moonshot.ai/v1", "default": False,
    }  # fmt: skip
    assert lines["local/extractive"]["key"] is None
    assert KEY not in shown.stdout


def test_a_default_without_an_entry_is_listed_too(invoke, place: Path) -> None:
    (place / "models.yml").write_text("defaults: {model: ollama/llama3.2}\n")
    assert json.loads(invoke("models", "--json").stdout)[0]["name"] == "ollama/llama3.2"


def test_a_broken_configuration_is_exit_code_3_with_its_place(invoke, place: Path) -> None:
    (place / "models.yml").write_text("models:\n  a: {provider: 3}\n")
    shown = invoke("models")
    assert shown.exit_code == 3
    assert "models.yml:2:" in shown.stderr


def test_graph_prints_mermaid_and_nothing_else(invoke, hello: Path) -> None:
    shown = invoke("graph", "flow.py")
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert shown.stdout.startswith("flowchart TD\n")
    assert '"greet"' in shown.stdout
    assert invoke("graph", "flow.py:nope").exit_code == 2


def test_the_built_in_models_fit_a_terminal_of_80_columns(invoke) -> None:
    table = invoke("models").stdout.split("\n\n")[0]
    assert max(map(len, table.splitlines())) <= 80
