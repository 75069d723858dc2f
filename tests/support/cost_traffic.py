"""A made-up company's model calls, of which also is known what would have been: the other models' answers.

    traffic = Traffic.drawn(seed=1, runs=2_000)
    traffic.log                      a UsageLog, as it would have been recorded
    traffic.truth[call.at]           what each model would have cost for that call, and how good it would have been

Three flows: `support` (many short sessions that ask the same questions over and over, Zipf), `extract` (documents, long
common instructions), `nightly` (reports that nobody waits for). Four models with list prices; which of them answers is
chance, with a propensity. Scores are 0 or 1, and those of a run hang together: some runs are harder. Days are busy at
noon and quiet at night.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from agentflow.llm.config.prices import Price, PriceTable
from agentflow.llm.messages import Usage
from agentflow.mcp.optimization.cost import Call, PriceSnapshot, UsageLog

__all__ = ["LIST", "MODELS", "Traffic", "Truth", "halves"]

START: Final = 1_764_547_200.0  # 2025-12-01
DAY: Final = 86_400.0
MODELS: Final[Mapping[str, tuple[str, str]]] = {
    "large": ("anthropic", "claude-sonnet-4-5"),
    "middle": ("openai", "gpt-4o"),
    "small": ("openai", "gpt-4o-mini"),
    "haiku": ("anthropic", "claude-haiku-4-5"),
}
# The mean score of each model in each step; how often each is asked there today; how much it says, to `large`'s one.
QUALITY: Final[Mapping[str, Mapping[str, float]]] = {
    "answer": {"large": 0.93, "middle": 0.90, "small": 0.72, "haiku": 0.84},
    "classify": {"large": 0.96, "middle": 0.955, "small": 0.955, "haiku": 0.95},
    "fields": {"large": 0.95, "middle": 0.91, "small": 0.83, "haiku": 0.93},
    "report": {"large": 0.88, "middle": 0.85, "small": 0.62, "haiku": 0.80},
}
ASKED: Final = {"large": 0.55, "middle": 0.20, "small": 0.12, "haiku": 0.13}
WORDS: Final = {"large": 1.0, "middle": 0.8, "small": 0.9, "haiku": 1.1}
TENANTS: Final = ("acme", "globex", "initech")
LIST: Final = PriceTable.built_in()


@dataclass(frozen=True, slots=True)
class Truth:
    """By model: US dollars for this call, and the chance that its answer would have been right."""

    cost: Mapping[str, float]
    quality: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Traffic:
    log: UsageLog
    truth: Mapping[float, Truth]
    prices: PriceSnapshot

    @classmethod
    def drawn(cls, *, seed: int, runs: int, days: float = 7.0) -> Traffic:
        draw = _Draw(Random(seed), days)
        for number in range(runs):
            draw.run(f"run-{number:06}")
        return cls(UsageLog(draw.calls, seconds=days * DAY), draw.truth, _prices())

    def quality_today(self, call: Call) -> float:
        """The chance of a right answer, as chance chooses the models now."""
        return sum(share * self.truth[call.at].quality[name] for name, share in ASKED.items())

    def part(self, runs: Iterable[str]) -> Traffic:
        """The calls of some of the runs, over the same time."""
        wanted = set(runs)
        calls = [call for call in self.log if call.run in wanted]
        return Traffic(UsageLog(calls, seconds=self.log.seconds), self.truth, self.prices)


def halves(traffic: Traffic, seed: int) -> tuple[Traffic, Traffic]:
    """The runs dealt into two halves by chance."""
    runs = sorted({call.run for call in traffic.log})
    Random(seed).shuffle(runs)
    middle = len(runs) // 2
    return traffic.part(runs[:middle]), traffic.part(runs[middle:])


def _prices() -> PriceSnapshot:
    found: dict[str, Price] = {}
    for name, (provider, model) in MODELS.items():
        price = LIST.price(provider, model)
        assert price is not None
        found[name] = Price(price.rates)
    return PriceSnapshot(found, LIST.updated, LIST.source)


class _Draw:
    def __init__(self, chance: Random, days: float) -> None:
        self._chance = chance
        self._days = days
        self._prices = _prices()
        self.calls: list[Call] = []
        self.truth: dict[float, Truth] = {}

    def run(self, name: str) -> None:
        kind = self._one(("support", "extract", "nightly"), (0.6, 0.3, 0.1))
        at = self._moment(kind)
        tenant = self._one(TENANTS, (0.6, 0.3, 0.1))
        hard = self._chance.gauss(0.0, 0.06)
        if kind == "support":
            self._support(name, at, tenant, hard)
        elif kind == "extract":
            self._extract(name, at, tenant, hard)
        else:
            self._nightly(name, at, tenant, hard)

    def _one(self, names: Sequence[str], weights: Iterable[float]) -> str:
        return self._chance.choices(names, tuple(weights))[0]

    def _moment(self, kind: str) -> float:
        day = self._chance.randrange(max(1, int(self._days)))
        hour = 2.0 if kind == "nightly" else min(max(self._chance.gauss(13.0, 3.5), 0.0), 23.9)
        return START + day * DAY + hour * 3_600.0 + self._chance.uniform(0.0, 1_800.0)

    def _support(self, run: str, at: float, tenant: str, hard: float) -> None:
        for turn in range(2 + int(self._chance.expovariate(1.0 / 1.2))):
            question = int(self._chance.paretovariate(0.8))
            size = 900 + question % 7 * 60
            self._ask(run, at, tenant, "support", "classify", hard, 420, 6, key=f"c{question}", limit=64)
            self._ask(
                run, at + 2.0, tenant, "support", "answer", hard, size + 300 * turn, 180 + question % 11 * 12,
                key=f"a{question}" if turn == 0 else f"{run}/{turn}", limit=4_096,
            )  # fmt: skip
            at += self._chance.expovariate(1.0 / 90.0) + 5.0

    def _extract(self, run: str, at: float, tenant: str, hard: float) -> None:
        for page in range(self._chance.randint(2, 6)):
            size = 3_600 + int(self._chance.lognormvariate(6.6, 0.6))
            words = int(self._chance.lognormvariate(5.0, 0.4))
            self._ask(
                run, at + page * 4.0, tenant, "extract", "fields", hard, size, words,
                key=f"{run}/{page}", limit=2_048, prefix=("fields", 3_600),
            )  # fmt: skip

    def _nightly(self, run: str, at: float, tenant: str, hard: float) -> None:
        size = 5_000 + int(self._chance.lognormvariate(7.5, 0.5))
        words = int(self._chance.lognormvariate(6.8, 0.3))
        self._ask(run, at, tenant, "nightly", "report", hard, size, words, key=run, limit=8_192, slack=2 * DAY)

    def _ask(
        self, run: str, at: float, tenant: str, flow: str, step: str, hard: float, size: int, words: int, *, key: str,
        limit: int, prefix: tuple[str, int] | None = None, slack: float | None = None,
    ) -> None:  # fmt: skip
        names = list(ASKED)
        model = self._one(names, ASKED.values())
        said = {name: max(1, round(words * WORDS[name])) for name in names}
        quality = {name: min(max(QUALITY[step][name] - hard, 0.0), 1.0) for name in names}
        cost = {name: self._prices.cost(name, Usage(size, said[name])) or 0.0 for name in names}
        at += len(self.calls) * 1e-4  # so that each moment names one call
        self.truth[at] = Truth(cost, quality)
        call = Call(
            at=at, run=run, model=model, provider=MODELS[model][0], model_id=MODELS[model][1], tenant=tenant,
            flow=flow, step=step, duration=0.4 + said[model] / 80.0, input_tokens=size, output_tokens=said[model],
            cost=cost[model], finish_reason="stop", temperature=0.0, max_tokens=limit, fingerprint=f"{step}:{key}",
            prefix=None if prefix is None else prefix[0], prefix_tokens=0 if prefix is None else prefix[1],
            slack=slack, score=float(self._chance.random() < quality[model]), propensity=ASKED[model],
        )  # fmt: skip
        self.calls.append(call)
