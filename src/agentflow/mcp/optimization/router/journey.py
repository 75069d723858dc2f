"""One request on its way through a router: who is asked, who failed, what was spent on answers that would not do.

    decide ──▶ ask, stage by stage ──▶ answer
      ▲          └─ it failed, and another may not: excluded, decided anew
      └──────────┘

Who failed is told to the decision as any other reason not to answer, so that the next best is found by the same rules.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from dataclasses import dataclass, field
from functools import partial

from msgspec.structs import replace

from agentflow.core.robustness.fallback import falls_back
from agentflow.core.robustness.notes import add_notes, brief
from agentflow.errors import (
    AgentFlowError,
    MissingExtraError,
    MissingKeyError,
    NoCandidateError,
    UnboundedCostError,
    UnsupportedError,
    describe,
)
from agentflow.llm.caller import Caller
from agentflow.llm.messages import Request, Response
from agentflow.mcp.optimization.router.cascade import Spent, attempt
from agentflow.mcp.optimization.router.deciding import Decider
from agentflow.mcp.optimization.router.decision import Decision
from agentflow.mcp.optimization.router.filters import Excluded

__all__ = ["Journey"]

_ANOTHER_HAS_IT = (MissingExtraError, MissingKeyError, UnboundedCostError, UnsupportedError)


@dataclass
class Journey:
    """How far a request has come. `decision` is the last one made, `model` who is being asked, `error` why the last one
    that failed did, and `counted` whether that counts already in a trial."""

    decider: Decider
    request: Request
    caller: Caller
    rng: random.Random
    decision: Decision = field(init=False)
    model: str = ""
    error: AgentFlowError | None = None
    counted: bool = False
    spent: Spent = field(default_factory=Spent)
    notes: list[str] = field(default_factory=list)
    failed: dict[str, Excluded] = field(default_factory=dict)

    async def decide(self) -> None:
        """Choose whom to ask next. Raises the last error, with the earlier ones as notes, where nobody is left, and
        NoCandidateError where there never was anybody."""
        before, id = self.model, secrets.token_hex(8)
        try:
            self.decision = self.decider.decide(self.request, self.caller, self.rng, id=id, failed=self.failed)
        except NoCandidateError as refused:
            if self.error is None:
                await self._tell_refused(refused)
                raise
            add_notes(self.error, self.notes[:-1])
            raise self.error from None
        why = f"{before} failed; {self.decision.reason}" if before else self.decision.reason
        await self._turn_to(self.decision.chosen, why, 0)

    async def climb(self) -> Response | None:
        """The first answer of a cascade's stages that will do. None where all but the last were asked, or there are
        none: then `model` is still to be asked. Raises what a stage raises that no other may do better at."""
        cascade, stages = self.decider.cascade, self.decision.stages
        if cascade is None:
            return None
        for stage, model in enumerate(stages[:-1], 1):
            try:
                made = await attempt(partial(self.ask, model), self.asked(model), cascade.accept)
            except AgentFlowError as error:
                if not self.goes_on(error):
                    raise
                why = f"{model} failed"
            else:
                if made.unlike is None:
                    return replace(made.response, usage=made.usage, cost=made.cost)
                why = made.unlike
                self.spent = self.spent.and_(made.usage, made.cost)
                self.failed[model] = Excluded("cascade", why)
            await self._turn_to(stages[stage], why, stage)
        return None

    def goes_on(self, error: AgentFlowError) -> bool:
        """Whether another model may answer after this. Whoever failed is asked no more."""
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            return False  # somebody made another error of the caller's cancellation
        if not falls_back(error) and not isinstance(error, _ANOTHER_HAS_IT):
            return False
        self.notes.append(f"{self.model} had failed before: {brief(error)}")
        self.failed[self.model] = Excluded("failed", type(error).__name__, unwell=falls_back(error))
        self.error = error
        return True

    async def ask(self, model: str, request: Request) -> Response:
        """That candidate's answer, with its cost."""
        pool = self.decider.pool
        return pool.priced(model, await pool.ask(model).execute(request))

    def asked(self, model: str) -> Request:
        """The request as that candidate gets it."""
        return replace(self.request, model=self.decider.pool.describe(model).model_id)

    async def _tell_refused(self, error: NoCandidateError) -> None:
        if self.caller.watched:
            facts = {"guard": error.guard, "error": describe(error), "error_type": type(error).__name__}
            await self.caller.tell("rejected", facts)

    async def _turn_to(self, model: str, why: str, stage: int) -> None:
        before, self.model = self.model or self.decider.name, model
        if not self.caller.watched:
            return
        facts = {"from": before, "to": model, "reason": why, **self.decision.facts()}
        if self.decision.stages:
            facts["stage"] = stage
        if self.caller.tenant is not None:
            facts["tenant"] = self.caller.tenant
        await self.caller.tell("route", facts)
