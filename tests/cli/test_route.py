"""`agentflow route`: whom a router of models.yml would ask, and why."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

MODELS = """
providers:
  one: {kind: scripted, options: {answers: [small]}}
  two: {kind: scripted, options: {answers: [large]}}
models:
  small: {provider: one, price: {input: 0.1, output: 0.4}, context: 8000}
  large: {provider: two, price: {input: 2, output: 8}, regions: [eu]}
  auto:
    max_tokens: 100
    router:
      candidates: [small, large]
      lambda: 0.01
      quality: {small: 0.7, large: 0.9}
      rules: [{use: large, tenant: acme, name: contract}]
    cache: {ttl: 60}
"""


@pytest.fixture(autouse=True)
def configured(place: Path) -> None:
    (place / "models.yml").write_text(MODELS)


def test_the_candidates_are_a_table_below_what_decides(invoke) -> None:
    shown = invoke("route", "auto", "Why", "is the sky blue?")
    lines = shown.stdout.splitlines()
    assert (shown.exit_code, lines[0]) == (0, "auto → small   it has the most of $0.01 × quality − cost")
    assert "prompt: about 9 tokens" in lines
    assert [line.split()[:2] for line in lines[-2:]] == [["small", "✓"], ["large", "0.90"]]


def test_who_asks_and_where_it_may_go_is_said_by_options(invoke) -> None:
    assert "auto → large   rule 1 (contract) says so" in invoke("route", "auto", "--tenant", "acme", "Hi").stdout
    kept = invoke("route", "auto", "--residency", "eu", "--json", "Hi")
    said = json.loads(kept.stdout)
    assert (said["chosen"], said["by"]) == ("large", "only")
    assert said["excluded"]["small"].startswith("residency: ")
    assert said["candidates"]["large"]["propensity"] == 1.0
    long = json.loads(invoke("route", "auto", "--max-tokens", "9000", "--json", "Hi").stdout)
    assert long["excluded"]["small"].startswith("context: ")


def test_what_is_piped_in_is_the_prompt(invoke) -> None:
    assert "about 2,5" in invoke("route", "auto", input="word " * 2000).stdout
    shown = invoke("route", "auto", input="")
    assert (shown.exit_code, "nothing to route" in shown.stderr) == (2, True)


def test_where_nobody_may_answer_each_is_named_with_its_reason(invoke) -> None:
    shown = invoke("route", "auto", "--residency", "us", "Hi")
    assert (shown.exit_code, shown.stdout) == (1, "")
    assert "small: residency: " in shown.stderr
    assert "large: residency: it may work in eu, allowed is us" in shown.stderr


def test_a_model_that_is_no_router_is_exit_code_3(invoke) -> None:
    shown = invoke("route", "small", "Hi")
    assert (shown.exit_code, "routers are auto" in shown.stderr) == (3, True)
    assert "did you mean auto" in invoke("route", "autp", "Hi").stderr
