"""The guards of a registry: who shares them, when they are made anew, and that what they know outlives a change."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from agentflow.clock import VirtualClock
from agentflow.core.robustness.pipeline import Pipeline
from agentflow.errors import ConfigurationError
from agentflow.llm.config.registry import ModelRegistry
from agentflow.llm.providers.scripted import ScriptedProvider


@pytest.fixture
def registry(tmp_path: Path) -> ModelRegistry:
    found = ModelRegistry.load(environ={}, cwd=tmp_path, home=tmp_path, clock=VirtualClock())
    found.register_provider("toy", lambda _: ScriptedProvider(lambda _: "ok"))
    return found


def of(registry: ModelRegistry, name: str, endpoint: str = "chat") -> Pipeline:
    return registry.pipeline(registry.describe(name), endpoint)


def guards(pipeline: Pipeline) -> tuple[Any, Any, Any]:
    return pipeline._breaker, pipeline._limiter, pipeline._shedder


def test_a_pipeline_is_made_once(registry: ModelRegistry) -> None:
    assert of(registry, "toy/m") is of(registry, "toy/m")
    assert of(registry, "toy/m") is not of(registry, "toy/m", "embeddings")


def test_a_model_registered_anew_keeps_what_is_known_of_it(registry: ModelRegistry) -> None:
    registry.register_model("m", provider="toy")
    before = of(registry, "m")
    before._breaker.force_open()  # type: ignore[union-attr]
    registry.register_model("m", provider="toy", temperature=0.5, retry={"max_attempts": 7})
    after = of(registry, "m")
    assert after is not before
    assert guards(after) == guards(before)
    assert registry.describe("m").retry.max_attempts == 7
    assert "7 attempts" in after.describe()


def test_a_new_limit_holds_from_the_next_call_on_and_the_other_guards_go_on(registry: ModelRegistry) -> None:
    registry.register_model("m", provider="toy", rate_limit={"concurrency": 1})
    breaker, limiter, shedder = guards(of(registry, "m"))
    registry.register_model("m", provider="toy", rate_limit={"concurrency": 2})
    now = guards(of(registry, "m"))
    assert (now[0], now[2]) == (breaker, shedder)
    assert now[1] is not limiter
    registry.register_model("m", provider="toy", rate_limit={"concurrency": 2}, breaker=False, shedder={"initial": 3})
    assert guards(of(registry, "m"))[0] is None
    assert guards(of(registry, "m"))[1] is now[1]
    assert guards(of(registry, "m"))[2].limit == 3


def test_the_registration_of_another_model_changes_nothing(registry: ModelRegistry) -> None:
    """Also where two entries for one model do not agree on its guards: the first one's word holds."""
    registry.register_model("a", provider="toy", model_id="m", rate_limit={"concurrency": 1})
    registry.register_model("b", provider="toy", model_id="m", rate_limit={"concurrency": 9})
    before = guards(of(registry, "a"))
    assert guards(of(registry, "b")) == before
    registry.register_model("c", provider="toy")
    assert guards(of(registry, "b")) == before
    assert guards(of(registry, "a")) == before


def test_aliases_follow_when_the_word_that_holds_changes(registry: ModelRegistry) -> None:
    registry.register_model("a", provider="toy", model_id="m", breaker={"min_calls": 5})
    registry.register_model("b", provider="toy", model_id="m")
    assert guards(of(registry, "a"))[0] is guards(of(registry, "b"))[0]
    registry.register_model("a", provider="toy", model_id="m", breaker={"min_calls": 6})
    assert guards(of(registry, "a"))[0] is guards(of(registry, "b"))[0]


async def test_guards_outlive_new_providers_tokens_and_the_closing_of_connections(registry: ModelRegistry) -> None:
    before = guards(of(registry, "toy/m"))
    registry.register_provider("toy", lambda _: ScriptedProvider(lambda _: "other"))
    assert guards(of(registry, "toy/m")) == before
    registry.set_token("toy", lambda: "token")
    assert guards(of(registry, "toy/m")) == before
    await registry.aclose()
    assert guards(of(registry, "toy/m")) == before


def test_every_field_of_an_entry_can_be_registered(registry: ModelRegistry) -> None:
    registry.register_model("n", provider="toy")
    registry.register_model(
        "m",
        provider="toy",
        retry={"max_attempts": 2},
        fallback=["n", {"model": "toy/x", "when": ["timeout"]}],
        hedge={"after": 2},
        rate_limit={"requests_per_minute": 60},
        breaker={"window_seconds": 30},
        shedder=False,
    )
    config = registry.describe("m")
    assert [(each.model, each.when) for each in config.fallback] == [("n", ()), ("toy/x", ("timeout",))]
    assert (config.guarding.hedge, config.guarding.shedder) == ({"after": 2}, None)
    with pytest.raises(ConfigurationError, match=r"models\.m\.breaker"):
        registry.register_model("m", provider="toy", breaker={"windw": 3})


def test_what_a_server_says_of_one_model_is_no_business_of_another(registry: ModelRegistry) -> None:
    for name in ("toy/a", "toy/b"):
        of(registry, name)
    registry.pipelines.observe("toy", "a", {"requests_remaining": 0, "requests_reset": 10.0})
    registry.pipelines.observe("toy", "never-asked", {"requests_remaining": 0, "requests_reset": 10.0})
    assert guards(of(registry, "toy/a"))[1].try_reserve() is None
    assert guards(of(registry, "toy/b"))[1].try_reserve() is not None


@pytest.mark.parametrize(
    ("options", "limit"),
    [
        ({}, 1000),
        ({"initial": 5}, 5),
        ({"minimum": 2000}, 2000),
        ({"maximum": 10}, 10),
        ({"initial": 20_000}, 20_000),
        ({"algorithm": "gradient2"}, 20),
        ({"algorithm": "gradient2", "maximum": 5}, 5),
        ({"algorithm": "fixed", "maximum": 7}, 7),
        ({"algorithm": "fixed", "initial": 3}, 3),
        ({"algorithm": "fixed"}, 1000),
    ],
)
def test_a_shedder_is_made_of_whatever_is_said(registry: ModelRegistry, options: dict[str, Any], limit: int) -> None:
    registry.register_model("m", provider="toy", shedder=options)
    assert guards(of(registry, "m"))[2].limit == limit


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"open_for": 500}, "500 s"),
        ({"max_open": 1}, "1 s"),
        ({"open_for": 50, "max_open": 20}, "20 s"),
        ({"window": 3}, "3 calls"),
        ({"window": 1, "min_calls": 50}, "1 call"),
    ],
)
def test_a_breaker_is_made_of_whatever_is_said(registry: ModelRegistry, options: dict[str, Any], words: str) -> None:
    registry.register_model("m", provider="toy", breaker=options)
    assert words in of(registry, "m").describe()


def test_every_option_of_every_guard_reaches_it(registry: ModelRegistry) -> None:
    """What a guard does with an option is its own specification; here it must get it, under the name it knows."""
    registry.register_model(
        "m",
        provider="toy",
        retry={
            "max_attempts": 5,
            "base_delay": 1,
            "max_delay": 9,
            "jitter": "decorrelated",
            "after_first_chunk": True,
            "budget": {"ratio": 0.5, "minimum": 7},
        },
        breaker={
            "window_seconds": 30,
            "min_calls": 3,
            "failure_rate": 0.9,
            "slow_call": 4,
            "slow_rate": 0.8,
            "open_for": 6,
            "max_open": 60,
            "half_open_calls": 2,
            "half_open_wait": 11,
        },
        shedder={
            "algorithm": "gradient2",
            "initial": 12,
            "minimum": 3,
            "maximum": 50,
            "max_queue": 9,
            "target_wait": 2,
            "max_lag": 0.2,
        },
        rate_limit={
            "requests_per_minute": 61,
            "tokens_per_minute": 62,
            "input_tokens_per_minute": 63,
            "output_tokens_per_minute": 64,
            "concurrency": 65,
            "on_limit": "raise",
        },
        hedge={"percentile": 0.9, "budget": 0.2},
    )
    described = of(registry, "m").describe()
    for word in ("5 attempts", "decorrelated", "61", "62", "63", "64", "65", "4 s", "90%", "20%", "6 s", "60 s"):
        assert word in described, (word, described)
    assert registry.describe("m").retry.after_first_chunk


def test_threads_that_ask_at_the_same_time_share_the_guards(registry: ModelRegistry) -> None:
    barrier = threading.Barrier(8)
    found: list[tuple[Any, Any, Any]] = []

    def ask() -> None:
        barrier.wait()
        found.append(guards(of(registry, "toy/m")))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
