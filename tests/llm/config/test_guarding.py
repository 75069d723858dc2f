"""The levels of models.yml laid over each other: defaults, then the provider's entry, then the model's."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentflow.core.robustness.retry import RetryPolicy
from agentflow.errors import ConfigurationError
from agentflow.llm.config.guarding import Guarding
from agentflow.llm.config.registry import ModelRegistry


def said(tmp_path: Path, yml: str, model: str = "m") -> Guarding:
    (tmp_path / "models.yml").write_text(yml)
    registry = ModelRegistry.load(environ={}, cwd=tmp_path, home=tmp_path)
    return registry.describe(model).guarding


def levels(field: str, defaults: str | None, provider: str | None, model: str | None) -> str:
    def entry(value: str | None) -> str:
        return "" if value is None else f"{field}: {value}"

    return (
        f"defaults: {{{entry(defaults)}}}\n"
        f"providers: {{toy: {{kind: scripted, {entry(provider)}}}}}\n"
        f"models: {{m: {{provider: toy, {entry(model)}}}}}"
    )


def test_where_nothing_is_said_everything_is_on_but_the_hedge(tmp_path: Path) -> None:
    assert said(tmp_path, levels("breaker", None, None, None)) == Guarding()
    assert Guarding() == Guarding(RetryPolicy(), {}, {}, {}, {}, None, False)


@pytest.mark.parametrize("field", ["breaker", "shedder"])
@pytest.mark.parametrize(
    ("defaults", "provider", "model", "expected"),
    [
        ("false", None, None, None),
        ("false", "true", None, {}),
        ("true", "false", None, None),
        ("false", "false", "true", {}),
        (None, None, "false", None),
        ("false", None, "{%s: 7}", {"%s": 7}),
        ("{%s: 1}", "{%s: 2}", None, {"%s": 2}),
        ("{%s: 1}", "{%s: 2}", "{%s: 3}", {"%s": 3}),
        ("{%s: 1}", "true", None, {"%s": 1}),
        ("{%s: 1}", "false", "true", {}),
    ],
)
def test_later_levels_win_and_false_takes_away_what_came_before(
    tmp_path: Path, field: str, defaults: str | None, provider: str | None, model: str | None, expected: dict[str, int]
) -> None:
    name = {"breaker": "min_calls", "shedder": "initial"}[field]

    def filled(text: str | None) -> str | None:
        return None if text is None else text.replace("%s", name)

    found = getattr(said(tmp_path, levels(field, filled(defaults), filled(provider), filled(model))), field)
    assert found == (None if expected is None else {key.replace("%s", name): value for key, value in expected.items()})


def test_levels_are_laid_over_field_by_field(tmp_path: Path) -> None:
    found = said(tmp_path, levels("breaker", "{min_calls: 1, open_for: 1}", "{open_for: 2, window: 2}", "{window: 3}"))
    assert found.breaker == {"min_calls": 1, "open_for": 2, "window": 3}


def test_retries_are_laid_over_and_their_budget_is_the_providers(tmp_path: Path) -> None:
    found = said(
        tmp_path, levels("retry", "{max_attempts: 5, jitter: none}", "{base_delay: 2, budget: {ratio: 0.5}}", None)
    )
    assert found.retry == RetryPolicy(max_attempts=5, base_delay=2, jitter="none")
    assert found.retry_budget == {"ratio": 0.5}
    assert said(tmp_path, levels("retry", "{budget: {ratio: 0.5}}", "{budget: false}", None)).retry_budget is None


def test_a_hedge_is_off_until_somebody_asks_for_it(tmp_path: Path) -> None:
    assert said(tmp_path, levels("max_attempts", None, None, None)).hedge is None
    text = "providers: {toy: {kind: scripted, hedge: {after: 2}}}\nmodels: {m: {provider: toy}, n: {provider: toy, %s}}"
    assert said(tmp_path, text % "hedge: {budget: 0.5}").hedge == {"after": 2}
    assert said(tmp_path, text % "hedge: {budget: 0.5}", "n").hedge == {"after": 2, "budget": 0.5}
    assert said(tmp_path, text % "hedge: null", "n").hedge is None


@pytest.mark.parametrize(
    ("provider", "model", "expected", "shared"),
    [
        (None, None, {}, False),
        ("{concurrency: 5}", None, {"concurrency": 5}, True),
        ("{concurrency: 5}", "{requests_per_minute: 60}", {"requests_per_minute": 60}, False),
        ("{concurrency: 5}", "{}", {"concurrency": 5}, True),
        ("{concurrency: 5}", "null", {}, False),
        ("null", "{concurrency: 7}", {"concurrency": 7}, False),
        ("null", None, {}, False),
        ("{}", None, {}, False),
    ],
)
def test_a_rate_limit_is_the_models_own_else_the_providers(
    tmp_path: Path, provider: str | None, model: str | None, expected: dict[str, int], shared: bool
) -> None:
    text = (
        f"providers: {{toy: {{kind: scripted, {'' if provider is None else f'rate_limit: {provider}'}}}}}\n"
        f"models: {{m: {{provider: toy, {'' if model is None else f'rate_limit: {model}'}}}}}"
    )
    found = said(tmp_path, text)
    assert (found.rate_limit, found.shares_limit) == (expected, shared)


@pytest.mark.parametrize("field", ["breaker", "shedder"])
def test_what_runs_in_this_process_has_no_server_that_could_be_down(tmp_path: Path, field: str) -> None:
    assert getattr(said(tmp_path, "", "local/extractive"), field) is None
    assert getattr(said(tmp_path, f"providers: {{local: {{{field}: true}}}}", "local/extractive"), field) == {}


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("defaults: {breaker: 3}", "breaker"),
        ("defaults: {breaker: {windw: 3}}", "did you mean window"),
        ("defaults: {retry: {max_attempts: 0}}", "max_attempts"),
        ("providers: {toy: {rate_limit: {tokens_per_minute: 0}}}", "tokens_per_minute"),
        ("models: {m: {provider: toy, hedge: {percentile: 2}}}", "percentile"),
        ("models: {m: {provider: toy, fallback: [{model: x, when: [tired]}]}}", "when"),
    ],
)
def test_what_does_not_fit_is_named_with_its_place(tmp_path: Path, text: str, where: str) -> None:
    with pytest.raises(ConfigurationError, match=where):
        said(tmp_path, text)
