"""A router of models.yml that goes by what was learned from outcomes."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from agentflow.errors import ConfigurationError
from agentflow.llm.agentflow import AgentFlow
from agentflow.llm.config.registry import ModelRegistry
from agentflow.llm.messages import Message, Request
from agentflow.llm.wrapped_models import provider_of
from agentflow.mcp.optimization.router import ModelRouter

MODELS = """
providers:
  one: {kind: scripted, options: {answers: [small, small, small]}}
  two: {kind: scripted, options: {answers: [large, large, large]}}
models:
  small: {provider: one, price: {input: 1, output: 1}}
  large: {provider: two, price: {input: 100, output: 100}}
  new: {provider: two}
"""
HARD, EASY = "Prove the theorem about integrals, number {}", "Say hello to the customer, number {}"


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Learned from 300 texts, of which the small model gets the hard ones wrong."""
    from agentflow.mcp.optimization.router.learning.artifact import save_policy
    from agentflow.mcp.optimization.router.learning.table import OutcomeTable
    from agentflow.mcp.optimization.router.learning.training import train

    rng = random.Random(1)
    hard = [rng.random() < 0.5 for _ in range(300)]
    quality = {
        "small": [float(rng.random() < (0.1 if each else 0.95)) for each in hard],
        "large": [float(rng.random() < 0.95) for _ in hard],
    }
    texts = [(HARD if each else EASY).format(number) for number, each in enumerate(hard)]
    tokens = {"small": [100.0] * 300, "large": [100.0] * 300}
    cost = {"small": [0.0001] * 300, "large": [0.01] * 300}
    table = OutcomeTable.of(texts, quality, cost=cost, output_tokens=tokens)
    return save_policy(train(table), tmp_path_factory.mktemp("policy") / "learned")


def router(folder: Path, policy: Path, said: str) -> ModelRouter:
    entry = f"  auto: {{router: {{candidates: [small, large, new], policy: {policy}, {said}}}}}\n"
    (folder / "models.yml").write_text(MODELS + entry)
    registry = ModelRegistry.load(environ={}, cwd=folder, home=folder)
    AgentFlow.registry = registry
    made = provider_of(registry, "auto")
    assert isinstance(made, ModelRouter)
    return made


def asked(text: str) -> Request:
    return Request("auto", (Message("user", text),))


@pytest.fixture(autouse=True)
def registry_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(AgentFlow), "_registry", None)


async def test_hard_questions_go_to_the_model_that_is_good_at_them(policy: Path, tmp_path: Path) -> None:
    routes = router(tmp_path, policy, "lambda: 0.1")
    hard, easy = routes.explain(asked(HARD.format(7001))), routes.explain(asked(EASY.format(7002)))
    assert (hard.chosen, easy.chosen) == ("large", "small")
    assert (hard.by, hard.policy.split()[0]) == ("learned", "learned")
    assert hard.forecasts["small"].quality < 0.4 < 0.8 < hard.forecasts["large"].quality
    assert hard.value_usd is not None
    assert 0.0 < hard.value_usd <= 0.1
    assert await AgentFlow.model("auto").prompt(HARD.format(7003)).execute() == "large"


async def test_the_aim_of_the_entry_is_the_aim_of_the_policy(policy: Path, tmp_path: Path) -> None:
    cheap = router(tmp_path, policy, "lambda: 0.000001").explain(asked(HARD.format(7001)))
    assert cheap.chosen == "small"
    floor = router(tmp_path, policy, "quality_floor: 0.99").explain(asked(HARD.format(7001)))
    assert (floor.chosen, floor.objective) == ("large", "quality ≥ 0.99")


async def test_exploration_goes_by_the_value_that_was_worked_out(policy: Path, tmp_path: Path) -> None:
    routes = router(tmp_path, policy, "lambda: 0.1, exploration: {least: 0.05}")
    found = routes.explain(asked(HARD.format(7001)))
    assert found.by == "explored"
    assert set(found.probabilities) == {"small", "large"}
    assert min(found.probabilities.values()) >= 0.05
    assert sum(found.probabilities.values()) == pytest.approx(1.0)
    await routes.aclose()


async def test_shadow_and_canary_are_read_and_aimed_alike(policy: Path, tmp_path: Path) -> None:
    routes = router(tmp_path, policy, f"lambda: 0.1, shadow: {policy}, canary: {{policy: {policy}, fraction: 0.5}}")
    found = routes.explain(asked(HARD.format(7001)))
    assert (found.shadow, found.arm is not None) == ("large", True)
    await routes.aclose()


def test_a_policy_that_is_not_there_is_an_error_of_the_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        router(tmp_path, tmp_path / "nowhere", "lambda: 0.1")


def test_without_numpy_the_error_is_the_command_that_installs_it(tmp_path: Path) -> None:
    (tmp_path / "models.yml").write_text(f"{MODELS}  auto: {{router: {{candidates: [small], policy: p}}}}\n")
    program = dedent(
        f"""
        import sys
        sys.modules["numpy"] = None
        from pathlib import Path
        from agentflow.errors import MissingExtraError
        from agentflow.llm.config.registry import ModelRegistry
        from agentflow.llm.wrapped_models import provider_of
        place = Path({str(tmp_path)!r})
        try:
            provider_of(ModelRegistry.load(environ={{}}, cwd=place, home=place), "auto")
        except MissingExtraError as error:
            print(error)
        """
    )
    ran = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert ran.stdout.strip() == (
        "models.auto.router: a learned policy needs an extra: pip install 'agentflow-engine[learn]'"
    )
