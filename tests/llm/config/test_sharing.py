"""`defaults.shared`: which guards live in the store that processes share, and what is said of mistakes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from agentflow.core.robustness.circuit_breaker import CircuitBreaker
from agentflow.core.robustness.decision import Decision, Listener
from agentflow.core.robustness.rate_limiter import RateLimiter
from agentflow.errors import ConfigurationError
from agentflow.llm.config.registry import ModelRegistry


class Store:
    """A store that remembers what it was asked to share."""

    opened: list[Store]

    def __init__(self, settings: Mapping[str, object], *, listener: Listener) -> None:
        self.settings = dict(settings)
        self.listener = listener
        self.limiters: dict[str, dict[str, Any]] = {}
        self.breakers: list[str] = []
        self.closed = False
        Store.opened.append(self)

    def limiter(self, key: str, **limits: Any) -> RateLimiter:
        self.limiters[key] = limits
        return RateLimiter(name=key, **limits)

    def share_breaker(self, key: str, breaker: Callable[[Listener], CircuitBreaker]) -> CircuitBreaker:
        self.breakers.append(key)
        return breaker(self.listener)

    async def aclose(self) -> None:
        self.closed = True


class Entry:
    name = "valkey"

    def load(self) -> type[Store]:
        return Store


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ModelRegistry]:
    """A registry of a models.yml; the only integration there is makes a `Store`."""
    Store.opened = []
    monkeypatch.setattr(metadata, "entry_points", lambda group: [Entry()] if group == "agentflow.integrations" else [])

    def load(text: str, **environ: str) -> ModelRegistry:
        (tmp_path / "models.yml").write_text(text)
        return ModelRegistry.load(environ={"OPENAI_API_KEY": "x" * 20, **environ}, cwd=tmp_path, home=tmp_path)

    return load


Load = Callable[..., ModelRegistry]

LIMITED = (
    "defaults: {shared: {url_env: STORE_URL, replicas: 4}}\n"
    "providers: {openai: {rate_limit: {requests_per_minute: 500}}}\n"
)


async def test_limits_with_numbers_and_breakers_are_shared_and_the_servers_word_is_not(registry: Load) -> None:
    loaded = registry(LIMITED, STORE_URL="valkey://limits:6379/0")
    assert Store.opened == []  # nobody has asked yet
    loaded.pipeline(loaded.describe("gpt-4o"))
    loaded.pipeline(loaded.describe("gpt-4o-mini"))
    [store] = Store.opened
    assert store.settings == {"url": "valkey://limits:6379/0", "replicas": 4}
    assert store.limiters == {"openai": {"requests_per_minute": 500.0}}
    assert store.breakers == ["openai/gpt-4o", "openai/gpt-4o-mini"]
    await loaded.aclose()
    assert store.closed


def test_without_it_nothing_is_shared(registry: Load) -> None:
    loaded = registry("providers: {openai: {rate_limit: {requests_per_minute: 500}}}")
    loaded.pipeline(loaded.describe("gpt-4o"))
    assert Store.opened == []


def test_an_address_that_holds_no_password_may_stand_in_the_file(registry: Load) -> None:
    loaded = registry("defaults: {shared: {integration: valkey, url: 'redis://127.0.0.1:1/0', prefix: shop}}")
    loaded.pipeline(loaded.describe("gpt-4o"))
    assert Store.opened[0].settings == {"url": "redis://127.0.0.1:1/0", "prefix": "shop"}


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ("{url_env: STORE_URL}", "environment variable STORE_URL is not set"),
        ("{integration: valky, url: x}", "no integration 'valky'; did you mean valkey?"),
    ],
)
def test_a_store_that_cannot_be_opened_is_a_configuration_error(registry: Load, said: str, complaint: str) -> None:
    loaded = registry(f"defaults: {{shared: {said}}}")
    with pytest.raises(ConfigurationError, match=complaint):
        loaded.pipeline(loaded.describe("gpt-4o"))


def test_what_an_integration_fails_with_is_a_configuration_error(registry: Load, monkeypatch: Any) -> None:
    def fail(settings: object, *, listener: object) -> None:
        raise RuntimeError("no such host")

    monkeypatch.setattr(Entry, "load", lambda self: fail)
    loaded = registry("defaults: {shared: {url: x}}")
    with pytest.raises(ConfigurationError, match=r"the integration 'valkey' failed: RuntimeError: no such host"):
        loaded.pipeline(loaded.describe("gpt-4o"))


def test_that_the_store_is_down_is_logged(registry: Load, caplog: pytest.LogCaptureFixture) -> None:
    loaded = registry("defaults: {shared: {url: x}}")
    loaded.pipeline(loaded.describe("gpt-4o"))
    with caplog.at_level(logging.INFO, logger="agentflow.shared"):
        Store.opened[0].listener(Decision("store_down", "valkey", {"reason": "refused"}))
        Store.opened[0].listener(Decision("limiter_wait", "openai", {"seconds": 1}))
        Store.opened[0].listener(Decision("store_up", "valkey", {"seconds": 3}))
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("WARNING", "valkey: store down (reason refused)"),
        ("INFO", "valkey: store up (seconds 3)"),
    ]
