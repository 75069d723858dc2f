"""What was measured, before anybody writes it down: setting, runs, comparisons, and why to doubt them.

Setting        what was done
Run            one model's measures, and how the generator itself kept time
Findings       all of it; `report.BenchmarkReport` is this with ways to write it down
"""

from __future__ import annotations

from dataclasses import dataclass

from agentflow.mcp.optimization.benchmark.comparison import Comparison
from agentflow.mcp.optimization.benchmark.gates import Verdict
from agentflow.mcp.optimization.benchmark.measures import Distribution, Measures

__all__ = ["Findings", "Run", "Setting"]


@dataclass(frozen=True, slots=True)
class Setting:
    """What was done, for whoever wants to do it again. Times are in seconds."""

    dataset: str
    fingerprint: str
    arrivals: str
    rate: float
    duration: float
    warmup: float
    cooldown: float
    drain: float
    workers: int
    max_in_flight: int
    max_lag: float
    seed: int
    guards: bool
    objective: str
    checkers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """One model's measures, when they were made (wall time, seconds since 1970), and the lags of the event loops."""

    measures: Measures
    began: float
    beats: tuple[float, ...]
    stopped: bool = False

    @property
    def name(self) -> str:
        return self.measures.name

    @property
    def loop_lag(self) -> Distribution:
        return Distribution(tuple([(beat,) for beat in self.beats]))

    def doubts(self, setting: Setting) -> list[str]:
        """Why these measures are not what was asked for."""
        found = []
        for what, lags in (("requests were sent", self.measures.lag), ("its event loop woke", self.loop_lag)):
            late = lags.percentiles["p99"].value if lags.count else 0.0
            if late > setting.max_lag:
                found.append(
                    f"the load generator was late: {what} {late * 1000:.1f} ms behind at the 99th percentile, where "
                    f"{setting.max_lag * 1000:g} ms are allowed; give it more workers or cores, or a lower rate"
                )
        if self.stopped:
            found.append("it was stopped before its end; what was under way then does not count")
        if not self.measures.counted:
            found.append("no request was intended for the measured window; the trace or the duration is too short")
        return found

    def remarks(self, setting: Setting) -> list[str]:
        """What a reader should know before believing a number."""
        measures = self.measures
        found = []
        if setting.arrivals.startswith("trace") and not 0.8 <= measures.offered / setting.rate <= 1.25:
            found.append(
                f"this part of the trace brought {measures.offered:.3g} requests a second, where all of it brings "
                f"{setting.rate:.3g}"
            )
        held = sum(record.held > 0.0 for record in measures.counted)
        if held:
            found.append(f"{held:,} requests waited for room, as many were in flight as are allowed; the wait counts")
        if measures.estimated:
            found.append(
                f"tokens of {measures.estimated:,} answers are estimated by their length: no usage was told for them"
            )
        pieces = measures.pieces_per_token
        if pieces is not None and not 0.95 <= pieces <= 1.05:
            found.append(
                f"a piece of the stream is {1.0 / pieces:.2g} tokens on average: gaps are between pieces, "
                "time per output token is by the tokens of the usage"
            )
        if measures.from_cache:
            found.append(f"{measures.from_cache:,} answers came from a cache of ours")
        if measures.cost is None and measures.answered:
            found.append("the price of some answers is not known, so no cost is told")
        return found


@dataclass(frozen=True)
class Findings:
    """Runs in the order in which they were made. `comparisons` are of each with the first one, or of each with its
    like in a baseline."""

    setting: Setting
    runs: tuple[Run, ...]
    comparisons: tuple[Comparison, ...] = ()
    verdicts: tuple[Verdict, ...] = ()

    def __getitem__(self, name: str) -> Measures:
        """The measures of a model. Raises KeyError."""
        for run in self.runs:
            if run.name == name:
                return run.measures
        raise KeyError(name)

    @property
    def doubts(self) -> list[str]:
        """Why the numbers are not to be relied on; a model's name stands before its own."""
        return [f"{run.name}: {doubt}" for run in self.runs for doubt in run.doubts(self.setting)]

    @property
    def valid(self) -> bool:
        return not self.doubts
