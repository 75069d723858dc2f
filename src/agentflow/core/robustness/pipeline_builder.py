"""Puts a pipeline together, stage by stage, and says where the order is odd.

pipeline = PipelineBuilder("search").timeout(60).retry(RetryPolicy()).limit(limiter).breaker(breaker).freeze()
print(pipeline.describe())
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, replace
from typing import Any

from agentflow.clock import Clock, SystemClock
from agentflow.core.robustness.fault_injector import FaultInjector
from agentflow.core.robustness.hedging import Hedge
from agentflow.core.robustness.limiting import Breaker, Limiter
from agentflow.core.robustness.load_shedder import LoadShedder
from agentflow.core.robustness.pipeline import Pipeline
from agentflow.core.robustness.resource_pool import ResourcePool
from agentflow.core.robustness.retry import RetryPolicy
from agentflow.core.robustness.retry_budget import RetryBudget
from agentflow.core.robustness.stages import odd_order

__all__ = ["PipelineBuilder", "PipelineOrderWarning"]


class PipelineOrderWarning(UserWarning):
    """Stages were named in another order than the one in which they run."""


@dataclass(frozen=True, slots=True)
class PipelineBuilder:
    """A value: each method returns a new builder. Every stage is named at most once.

    The order in which stages run does not depend on the order in which they are named; naming them in another one is a
    PipelineOrderWarning at `freeze()`, which says what runs.
    """

    name: str = "pipeline"
    _named: tuple[str, ...] = ()
    _timeout: float | None = None
    _shedder: LoadShedder | None = None
    _hedge: Hedge | None = None
    _retry: RetryPolicy | None = None
    _budget: RetryBudget | None = None
    _repeats: tuple[type[Exception], ...] = (Exception,)
    _limiter: Limiter | None = None
    _pool: ResourcePool[Any] | None = None
    _breaker: Breaker | None = None
    _attempt_timeout: float | None = None
    _faults: FaultInjector | None = None
    _clock: Clock = field(default_factory=SystemClock)

    def timeout(self, seconds: float) -> PipelineBuilder:
        """Everything together takes at most so long."""
        return replace(self._with("timeout"), _timeout=seconds)

    def shed(self, shedder: LoadShedder) -> PipelineBuilder:
        return replace(self._with("shed"), _shedder=shedder)

    def hedge(self, hedge: Hedge) -> PipelineBuilder:
        return replace(self._with("hedge"), _hedge=hedge)

    def retry(
        self,
        policy: RetryPolicy,
        *,
        budget: RetryBudget | None = None,
        repeats: tuple[type[Exception], ...] = (Exception,),
    ) -> PipelineBuilder:
        """Only errors of the types `repeats` are repeated, as the policy says; `budget` is shared with other calls."""
        return replace(self._with("retry"), _retry=policy, _budget=budget, _repeats=repeats)

    def limit(self, limiter: Limiter) -> PipelineBuilder:
        return replace(self._with("limit"), _limiter=limiter)

    def pool(self, pool: ResourcePool[Any]) -> PipelineBuilder:
        """Each attempt is lent a resource, which `pool.lent()` gives inside the call."""
        return replace(self._with("pool"), _pool=pool)

    def breaker(self, breaker: Breaker) -> PipelineBuilder:
        return replace(self._with("breaker"), _breaker=breaker)

    def attempt_timeout(self, seconds: float) -> PipelineBuilder:
        """Each attempt takes at most so long."""
        return replace(self._with("attempt_timeout"), _attempt_timeout=seconds)

    def faults(self, injector: FaultInjector) -> PipelineBuilder:
        """For tests: what else could go wrong with the call."""
        return replace(self._with("faults"), _faults=injector)

    def clock(self, clock: Clock) -> PipelineBuilder:
        return replace(self, _clock=clock)

    def freeze(self) -> Pipeline:
        """The pipeline, which cannot be changed any more. Raises ValueError for a time-out that is none."""
        odd = odd_order(self._named)
        if odd is not None:
            warnings.warn(f"{self.name}: {odd}", PipelineOrderWarning, stacklevel=2)
        return Pipeline(
            self.name,
            timeout=self._timeout,
            shedder=self._shedder,
            hedge=self._hedge,
            retry=self._retry,
            budget=self._budget,
            repeats=self._repeats,
            limiter=self._limiter,
            pool=self._pool,
            breaker=self._breaker,
            attempt_timeout=self._attempt_timeout,
            faults=self._faults,
            clock=self._clock,
        )

    def _with(self, stage: str) -> PipelineBuilder:
        if stage in self._named:
            raise ValueError(f"{self.name}: the stage {stage} was named twice; put one pipeline into another instead")
        return replace(self, _named=(*self._named, stage))
