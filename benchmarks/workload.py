"""A workload asked for twice: as it was, and as `agentflow cost optimize` proposes; was the report right?

    conversation trace ──▶ questions, some of them again ──▶ first half: the large model, now and then the small one
        ──▶ run store ──▶ CostOptimizer ──▶ report and patch of models.yml, predictions in dollars and quality
        ──▶ second half: the same program, with the patch and a budget in force ──▶ what it cost, how good it was

    python benchmarks/workload.py [--trace FILE] [--requests N] [--output FOLDER]

The models are scripted: their prices are those of the list, how good they are is known, and nothing is random but
which questions are asked again. All of it runs on the clock that jumps, so a day takes seconds.
"""

from __future__ import annotations

import argparse
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agentflow import AsyncFlow, Key, RunStore, SharedState, node, observe
from agentflow.clock import VirtualClock
from agentflow.core.observability.feedback import feedback
from agentflow.core.observability.store import RunReader
from agentflow.llm.builder import LLMClientBuilder
from agentflow.llm.client import Call
from agentflow.llm.config.registry import ModelRegistry
from agentflow.llm.messages import Request, Response, Usage
from agentflow.llm.providers.scripted import ScriptedProvider
from agentflow.mcp.optimization.benchmark.trace import Trace
from agentflow.mcp.optimization.budget.configured import budgets_of
from agentflow.mcp.optimization.cost.findings import Findings
from agentflow.mcp.optimization.cost.optimizer import CostOptimizer
from agentflow.mcp.optimization.cost.recorded import recorded_log
from agentflow.mcp.optimization.cost.writing import write_patch, write_picture, write_report

LARGE, SMALL = "gpt-4o", "gpt-4o-mini"
RIGHT: Final = {"faq": {LARGE: 0.96, SMALL: 0.95}, "analysis": {LARGE: 0.92, SMALL: 0.55}}
EXPLORED: Final = 0.25  # of the first half is asked of the small model, so that its answers are known too
FLOOR: Final = 0.90

MODELS_YML: Final = f"""
providers:
  openai: {{kind: scripted, prices: openai, api_key_env: null}}
models:
  {LARGE}: {{provider: openai, model_id: {LARGE}, temperature: 0, max_tokens: 1024}}
  {SMALL}: {{provider: openai, model_id: {SMALL}, temperature: 0, max_tokens: 1024}}
"""

BUDGET: Final = "defaults: {budget: {per_day: 50.0, per_month: 500.0, account: workload}}\n"
PATCH, ROUTED = "models.patch.yml", "routed"

QUESTION, ANSWER = Key[str]("question"), Key[str]("answer")


@dataclass(frozen=True, slots=True)
class Question:
    """Something that is asked, perhaps more than once: of which sort, and how many tokens it and its answer have."""

    name: str
    sort: str
    input_tokens: int
    output_tokens: int

    @property
    def text(self) -> str:
        return f"{self.name} ({self.sort}, {self.input_tokens} in, {self.output_tokens} out)"

    def is_right(self, model: str) -> bool:
        """Whether this model knows the answer: always or never, for nothing is drawn twice."""
        return random.Random(f"{self.name} {model}").random() < RIGHT[self.sort][model]


@dataclass(frozen=True, slots=True)
class Asked:
    """A question at its moment, in seconds from the first."""

    at: float
    question: Question


def traffic(trace: Trace, requests: int, *, seed: int = 1, repeated: float = 0.3) -> list[Asked]:
    """The first `requests` of a trace, stretched to a day; a share of them asks again what was asked in the last
    hour. Lengths are the trace's, bounded by what the models may say."""
    dice = random.Random(seed)
    arrivals = trace.arrivals[:requests]
    stretch = 86_400.0 / arrivals[-1].at
    asked: list[Asked] = []
    for number, arrival in enumerate(arrivals):
        at = arrival.at * stretch
        recent = [each for each in asked[-60:] if at - each.at < 3_000.0]
        if recent and dice.random() < repeated:
            question = dice.choice(recent).question
        else:
            sort = "faq" if dice.random() < 0.6 else "analysis"
            question = Question(f"Q{number}", sort, max(1, arrival.prompt_tokens), min(1_000, arrival.output_tokens))
        asked.append(Asked(at, question))
    return asked


def answered(questions: dict[str, Question], request: Request) -> Response:
    """What a scripted model says: `right` or `wrong`, with the tokens that the trace has."""
    found = re.match(r"Q\d+", request.prompt)
    assert found is not None
    question = questions[found[0]]
    said = "right" if question.is_right(request.model) else "wrong"
    usage = Usage(question.input_tokens, question.output_tokens)
    return Response(said, request.model, "openai", usage=usage, finish_reason="stop")


def registry_at(
    folder: Path, asked: Sequence[Asked], clock: VirtualClock, *, patched: bool
) -> tuple[ModelRegistry, ScriptedProvider]:
    """The program's registry, as models.yml in that folder says, with models that know their answers. Patched, the
    proposals are laid over it, and a budget is in force."""
    questions = {each.question.name: each.question for each in asked}
    provider = ScriptedProvider(lambda request: answered(questions, request), name="openai")
    environ = {"AGENTFLOW_CONFIG": str(folder / PATCH)} if patched else {}
    registry = ModelRegistry.load(environ=environ, cwd=folder, home=folder, clock=clock)
    registry.register_provider("scripted", lambda settings: provider)
    return registry, provider


def program(registry: ModelRegistry, clock: VirtualClock, sort: str, model: str) -> AsyncFlow:
    """One flow for each sort of question, as a service would have them."""

    @node(name="answer")
    async def ask(state: SharedState) -> None:
        builder = LLMClientBuilder(lambda: registry, Call(model=model))
        state[ANSWER] = await builder.prompt(state[QUESTION]).execute()

    return AsyncFlow(ask, name=sort, clock=clock)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a stretch of the workload came to: the share of right answers, US dollars by the run store and by the budget
    (None without one), and how many requests reached a model."""

    quality: float
    spent: float
    budgeted: float | None
    calls: int


async def served(registry: ModelRegistry, clock: VirtualClock, asked: Sequence[Asked], model: str | None) -> float:
    """Every question at its moment, each a run of its own, judged at once: the share of right answers. Without a
    model, the large one is asked, and now and then the small one."""
    dice = random.Random(7)
    right = 0
    begun = clock.monotonic() - asked[0].at
    for each in asked:
        await clock.sleep(max(0.0, begun + each.at - clock.monotonic()))
        name = model or (SMALL if dice.random() < EXPLORED else LARGE)
        result = await program(registry, clock, each.question.sort, name).run({"question": each.question.text})
        is_right = result.state[ANSWER] == "right"
        right += is_right
        feedback(result.run_id, score=float(is_right))
    return right / len(asked)


async def in_budget(registry: ModelRegistry) -> float | None:
    """What the month's account has spent; None where there is no budget. All entries share one."""
    budgets = budgets_of(registry)
    if not budgets:
        return None
    _, budget = budgets[0]
    return sum(account.spent for account in await budget.status() if "/month" in account.account)


def record(folder: Path, name: str, asked: Sequence[Asked], model: str | None = None) -> Outcome:
    """Serve, and keep what happens in `<name>.db`; with a model, as it is patched."""
    clock = VirtualClock()
    registry, provider = registry_at(folder, asked, clock, patched=model is not None)

    async def serve() -> tuple[float, float | None]:
        quality = await served(registry, clock, asked, model)
        budgeted = await in_budget(registry)
        await registry.aclose()
        return quality, budgeted

    with RunStore(folder / f"{name}.db", capture="content", max_age=None) as store:
        with observe(store):
            quality, budgeted = clock.run(serve())
        store.flush()
    with RunReader(folder / f"{name}.db") as reader:
        spent = sum(row.cost for row in reader.costs(by="model"))
    return Outcome(quality, spent, budgeted, len(provider.requests))


@dataclass(frozen=True, slots=True)
class Span:
    """A number with its interval."""

    value: float
    low: float
    high: float

    def __contains__(self, number: float) -> bool:
        return self.low <= number <= self.high


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was predicted, and what came: the second half as the first was served, and as it was proposed.

    `predicted` is the share of the cost that was to be saved, and `quality` what the mean score was to be, at worst and
    at best."""

    unchanged: Outcome
    changed: Outcome
    predicted: Span
    quality: Span

    @property
    def saved(self) -> float:
        """The share of the cost that was saved."""
        return 1.0 - self.changed.spent / self.unchanged.spent

    @property
    def holds(self) -> bool:
        return self.saved in self.predicted and self.changed.quality in self.quality

    def lines(self) -> list[str]:
        """A Markdown table."""
        predicted, quality, before, after = self.predicted, self.quality, self.unchanged, self.changed
        return [
            "| second half of the workload | as it was | predicted | as proposed |",
            "| --- | --- | --- | --- |",
            f"| cost, US dollars | {before.spent:.4f} | | {after.spent:.4f} |",
            f"| saved | | {predicted.value:.1%} ({predicted.low:.1%} to {predicted.high:.1%}) | {self.saved:.1%} |",
            f"| right answers | {before.quality:.1%} | {quality.value:.1%} ({quality.low:.1%} to {quality.high:.1%}) "
            f"| {after.quality:.1%} |",
            f"| requests to a model | {before.calls:,} | | {after.calls:,} |",
            f"| by the budget, US dollars | | | {after.budgeted or 0.0:.4f} |",
        ]


def compare(folder: Path, trace: Trace, requests: int, *, seed: int = 1) -> Comparison:
    """Serve the first half as it was, believe the report, and serve the second half so; and once more as if nothing had
    been changed. The folder then has the report, the picture, the patch and the runs."""
    asked = traffic(trace, requests, seed=seed)
    first, second = asked[: len(asked) // 2], asked[len(asked) // 2 :]
    (folder / "models.yml").write_text(MODELS_YML)
    record(folder, "before", first)
    with RunReader(folder / "before.db") as reader:
        log = recorded_log(reader)
    registry = ModelRegistry.load(environ={}, cwd=folder, home=folder)
    findings = CostOptimizer(log, describe=registry.describe).propose(quality_floor=FLOOR)
    write_report(findings, folder / "report.html")
    write_picture(findings, folder / "front.png")
    write_patch(findings, folder / PATCH)
    unchanged = record(folder, "unchanged", second)
    (folder / "models.yml").write_text(BUDGET + MODELS_YML)
    changed = record(folder, "changed", second, ROUTED)
    return Comparison(unchanged, changed, _saving(findings), _quality(findings, len(second)))


def _saving(findings: Findings) -> Span:
    """All proposals together, as a share of what was spent."""
    saves, daily = findings.together, findings.spent / findings.days
    assert saves is not None
    assert saves.low is not None
    assert saves.high is not None
    return Span(saves.value / daily, saves.low / daily, saves.high / daily)


def _quality(findings: Findings, requests: int) -> Span:
    """The mean score that the router was said to come to: its lower bound is that of the mean, and of so many answers
    a share differs from its mean by chance, three standard errors at most."""
    [change] = [proposal.quality for proposal in findings.proposals if proposal.kind == "route"]
    assert change is not None
    chance = 3.0 * (change.after * (1.0 - change.after) / requests) ** 0.5
    return Span(change.after, change.low - chance, min(1.0, 2 * change.after - change.low + chance))


def main() -> None:
    """Raises SystemExit with 1 where the report was wrong."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--trace", type=Path, required=True, help="a CSV of arrivals, as Azure publishes them")
    words.add_argument("--requests", type=int, default=4_000)
    words.add_argument("--output", type=Path, default=Path("build/workload"))
    said = words.parse_args()
    said.output.mkdir(parents=True, exist_ok=True)
    found = compare(said.output, Trace.read(said.trace), said.requests)
    print("\n".join(found.lines()))
    raise SystemExit(not found.holds)


if __name__ == "__main__":
    main()
