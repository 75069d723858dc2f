"""`agentflow models` and `agentflow graph`."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from agentflow.cli.model_lists import compare
from agentflow.errors import AuthenticationError
from agentflow.llm.agentflow import AgentFlow
from agentflow.llm.config.registry import ModelRegistry
from agentflow.llm.messages import ModelInfo
from agentflow.llm.providers.scripted import ScriptedProvider

KEY = "sk-test-0123456789abcdefghij"


@pytest.fixture(autouse=True)
def nobodys_keys(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    """No provider of the built-in file finds a key in the environment of whoever runs the tests."""
    registry = ModelRegistry.load(environ={}, cwd=place, home=place)
    for name in {name for provider in registry.providers() for name in registry.key_names(provider)}:
        monkeypatch.delenv(name, raising=False)


# ---- the list ------------------------------------------------------------------------------------------------


def test_the_table_has_own_models_first_and_marks_the_default(invoke, place: Path) -> None:
    (place / "models.yml").write_text(
        "providers: {lab: {kind: openai, base_url: 'http://127.0.0.1:9/v1'}}\n"
        "models:\n"
        "  fast: {provider: lab, capabilities: [tools, image], context: 8192, price: {input: 0.5, output: 2}}\n"
        "  plain: {provider: lab}\n"
        "defaults: {model: fast}\n"
    )
    shown = invoke("models")
    first, second = (line.split() for line in shown.stdout.splitlines()[2:4])
    assert first == ["*", "fast", "lab", "i--t---", "8.19k", "0.5/2"]
    assert second == ["plain", "lab", "?", "?", "?"]
    assert "Default: fast, because" in shown.stdout
    assert re.search(r"Built-in models are those of 20\d\d-\d\d-\d\d, prices those of 20\d\d-\d\d-\d\d", shown.stdout)


def test_the_guards_of_a_model_are_shown_in_their_order_with_who_stands_in(invoke, place: Path) -> None:
    (place / "models.yml").write_text(
        "providers: {lab: {kind: openai, base_url: 'http://127.0.0.1:9/v1', rate_limit: {requests_per_minute: 500}}}\n"
        "models: {sure: {provider: lab, timeout: 30, breaker: false, fallback: [{model: lab/b, when: [timeout]}]}}\n"
    )
    lines = [line.strip() for line in invoke("models", "--guards", "sure").stdout.splitlines()]
    assert [line.split("  ")[0] for line in lines] == [
        "lab/sure",
        "load shedder",
        "retry",
        "each attempt:",
        "rate limiter",
        "the call",
        "all of it within 30 s",
        "and then lab/b (timeout)",
    ]
    assert "500 requests a minute" in lines[4]


def test_the_guards_of_an_unknown_model_are_exit_code_3(invoke, place: Path) -> None:
    shown = invoke("models", "--guards", "gpt-4oo")
    assert (shown.exit_code, shown.stdout) == (3, "")
    assert "did you mean gpt-4o" in shown.stderr


def test_keys_and_addresses_are_told_once_for_each_provider(invoke, place: Path) -> None:
    (place / "models.yml").write_text(
        "providers: {lab: {kind: openai, base_url: 'http://127.0.0.1:9/v1'}}\nmodels: {fast: {provider: lab}}\n"
    )
    lines = invoke("models").stdout.splitlines()
    assert "lab: http://127.0.0.1:9/v1, no key needed" in lines
    assert "openai: https://api.openai.com/v1, no OPENAI_API_KEY" in lines
    assert "local: in this process, no key needed" in lines


def test_json_says_whether_a_key_is_there_and_never_which(invoke, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    shown = invoke("models", "--json")
    lines = {line["name"]: line for line in json.loads(shown.stdout)}
    assert lines["gpt-4o"]["key"] is True
    assert lines["gpt-4o-mini"]["default"] is True
    assert lines["kimi-k2.6"] == {
        "name": "kimi-k2.6", "provider": "moonshot", "model_id": "kimi-k2.6", "key": False,
        "key_names": ["MOONSHOT_API_KEY", "MOONSHOT_KEY"], "base_url": "https://api.moonshot.ai/v1", "default": False,
        "capabilities": ["image", "tools", "schema", "thinking"], "context": 262144, "max_output": None,
        "price": {"input": 0.95, "output": 4.0, "cached": 0.16, "cache_write": 0.95, "cache_write_1h": 0.95},
    }  # fmt: skip
    assert lines["deepseek-v4-pro"]["capabilities"] is None
    assert lines["local/extractive"]["price"] is None
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
    table, providers, *_ = invoke("models").stdout.split("\n\n")
    *rows, _abilities, _units = table.splitlines()
    assert max(map(len, [*rows, *providers.splitlines()])) <= 80


# ---- what the providers say ----------------------------------------------------------------------------------

MODELS = """
providers:
  lab: {kind: lab, base_url: "http://127.0.0.1:9/v1"}
  den: {kind: den, base_url: "http://127.0.0.1:9/v1"}
models:
  fast: {provider: lab, model_id: small-1}
  old: {provider: lab, model_id: small-0}
  dated: {provider: lab, model_id: big}
"""


class Lister(ScriptedProvider):
    """A fake provider with a list of models, or with an error instead."""

    def __init__(self, *models: str, error: Exception | None = None) -> None:
        super().__init__([])
        self.models = models
        self.error = error
        self.closed = False

    async def list_models(self) -> tuple[ModelInfo, ...]:
        if self.error is not None:
            raise self.error
        return tuple(map(ModelInfo, self.models))

    async def aclose(self) -> None:
        self.closed = True


@pytest.fixture
def lab(place: Path) -> Callable[..., Lister]:
    """The default registry, with a provider `lab` that lists these models."""

    def install(*models: str, error: Exception | None = None) -> Lister:
        (place / "models.yml").write_text(MODELS)
        provider = Lister(*models, error=error)
        AgentFlow.registry.register_provider("lab", lambda _: provider)
        return provider

    return install


def test_refresh_says_which_models_are_gone_and_which_are_new(invoke, lab: Callable[..., Lister]) -> None:
    provider = lab("small-1", "models/big-2026-01-01", "medium")
    shown = invoke("models", "--refresh")
    assert shown.stdout == "lab: 3 models\n  gone: old\n  new: medium\n"
    assert shown.exit_code == 1
    assert provider.closed


def test_refresh_is_content_where_nothing_is_gone(invoke, lab: Callable[..., Lister]) -> None:
    lab("small-0", "small-1", "big")
    shown = invoke("models", "--refresh")
    assert (shown.stdout, shown.exit_code) == ("lab: 3 models\n", 0)


def test_refresh_names_so_many_new_models_and_counts_the_others(invoke, lab: Callable[..., Lister]) -> None:
    lab("small-0", "small-1", "big", *[f"x{number:02}" for number in range(30)])
    assert invoke("models", "--refresh").stdout.endswith(" x18, x19 and 10 more\n")


def test_a_provider_that_refuses_is_told_on_stderr_and_is_exit_code_1(invoke, lab: Callable[..., Lister]) -> None:
    lab(error=AuthenticationError("the key is wrong", provider="lab", status=401))
    shown = invoke("models", "--refresh")
    assert (shown.stdout, shown.exit_code) == ("", 1)
    assert shown.stderr == "lab: the key is wrong (HTTP 401)\n"


def test_refresh_as_json_has_everything(invoke, lab: Callable[..., Lister]) -> None:
    lab("small-1", "big", "medium")
    shown = invoke("models", "--refresh", "--json")
    assert json.loads(shown.stdout) == [
        {"provider": "lab", "models": ["small-1", "big", "medium"], "gone": ["old"], "new": ["medium"], "error": None}
    ]
    assert shown.exit_code == 1


def test_without_a_provider_to_ask_it_says_how_to_get_one(invoke) -> None:
    shown = invoke("models", "--refresh")
    assert shown.exit_code == 3
    assert "there is no provider to ask: set a key, as in OPENAI_API_KEY" in shown.stderr


def test_a_provider_without_a_list_is_no_failure(invoke, place: Path) -> None:
    (place / "models.yml").write_text(MODELS)
    AgentFlow.registry.register_provider("lab", lambda _: ScriptedProvider([]))
    shown = invoke("models", "--refresh")
    assert (shown.stdout, shown.exit_code) == ("lab: has no list of models\n", 0)


async def test_lists_are_asked_for_at_once_and_not_waited_for_without_end(place: Path) -> None:
    """Both providers wait for each other; one never answers."""
    (place / "models.yml").write_text(MODELS + "  other: {provider: den}\n")
    registry = ModelRegistry.load(environ={}, cwd=place, home=place)
    met = asyncio.Barrier(2)

    class Waiting(Lister):
        async def list_models(self) -> tuple[ModelInfo, ...]:
            await met.wait()
            if self.models:
                return await super().list_models()
            return await asyncio.Future()

    registry.register_provider("lab", lambda _: Waiting("small-0", "small-1", "big"))
    registry.register_provider("den", lambda _: Waiting())
    found = {each.provider: each for each in await compare(registry, patience=0.05)}
    assert found["lab"].models == ("small-0", "small-1", "big")
    assert found["den"].error == "no answer within 0.05 s"
