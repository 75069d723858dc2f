"""Several models behind one name: each request goes to the one that is worth its price.

router = ModelRouter({"small": Candidate(small, price=…, quality=0.8), "large": Candidate(large, …)}, value=0.01)
reply = await router.execute(request)         it is a provider as any other
print(router.explain(request))                who would be asked, who not, and why

filters ──▶ conversation ──▶ rules ──▶ policy ──▶ cascade ──▶ a model ──failed──▶ the next best
"""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace as replaced

from msgspec.structs import replace

from agentflow.core.observability.events import ExecutionEvent
from agentflow.core.observability.observers import Observation, observe
from agentflow.errors import AgentFlowError, ConfigurationError, UnsupportedError
from agentflow.llm.caller import current_caller
from agentflow.llm.messages import EmbeddingRequest, Embeddings, Request, Response, StreamChunk
from agentflow.llm.providers.base import EmbeddingProvider, LLMProvider, TokenCounter
from agentflow.llm.streaming.join import chunks_of
from agentflow.mcp.optimization.router.canary import Canary, Trial
from agentflow.mcp.optimization.router.candidate import Candidate, Pool, given
from agentflow.mcp.optimization.router.cascade import Cascade
from agentflow.mcp.optimization.router.deciding import Decider, value_of
from agentflow.mcp.optimization.router.decision import Decision
from agentflow.mcp.optimization.router.exploring import Exploration
from agentflow.mcp.optimization.router.journey import Journey
from agentflow.mcp.optimization.router.learning.policy import Objective, Policy, Prices
from agentflow.mcp.optimization.router.lengths import Lengths
from agentflow.mcp.optimization.router.memory import Memory
from agentflow.mcp.optimization.router.pieces import Pieces
from agentflow.mcp.optimization.router.rules import Rule
from agentflow.mcp.optimization.router.sessions import Sessions, marked
from agentflow.mcp.optimization.router.stated import StatedPolicy

__all__ = ["ModelRouter"]


def _always(name: str) -> bool:
    return True


class ModelRouter:
    """A provider over several models.

    What is aimed at is said by one of `quality_floor` (from 0 to 1, kept on the whole at the least cost),
    `budget_per_call` (US dollars on the whole, with the most quality) and `value` (λ: US dollars that a good answer is
    worth, for the most of λ·quality − cost). A learned `policy` is aimed so; without one, stated qualities are. Without
    any aim the cheapest model is asked.

    `rules` come before the policy, `cascade` behind it. `residency` are the only places where requests may be worked
    on, `max_cost` is what a call may cost at most (US dollars). `sessions` says how long a model stays with a
    conversation. `shadow` is a policy whose choice is told and not followed, `canary` one that decides for a few.
    `exploration` tries now and then what may be better than it looks; it needs a λ. `healthy` says by name who may be
    asked now. `rng` is the source of all chance.

    Raises ConfigurationError where these do not go together. It is safe in several tasks and threads.
    """

    inline = True  # as an observer: it never waits

    def __init__(
        self,
        candidates: Mapping[str, LLMProvider | Candidate] | Pool,
        *,
        name: str = "router",
        policy: Policy | None = None,
        quality_floor: float | None = None,
        budget_per_call: float | None = None,
        value: float | None = None,
        qualities: Mapping[str, float] | None = None,
        rules: Sequence[Rule] = (),
        cascade: Cascade | None = None,
        residency: Sequence[str] = (),
        max_cost: float | None = None,
        sessions: Sessions = "conversation",
        shadow: Policy | None = None,
        canary: Canary | None = None,
        exploration: Exploration | None = None,
        healthy: Callable[[str], bool] = _always,
        rng: random.Random | None = None,
    ) -> None:
        pool = candidates if isinstance(candidates, Pool) else given(candidates)
        stated = {**pool.qualities, **(qualities or {})}
        pool.check(stated, "`qualities`")
        pool.check((cascade.stages if cascade else ()), "the cascade")
        for number, rule in enumerate(rules, 1):
            pool.check(rule.models, f"rule {number}")
        aim = _objective(quality_floor, budget_per_call, value)
        self._pool = pool
        self._rng = rng or random.Random()
        if aim is not None:
            prices = _prices(pool)
            policy, shadow = (each and each.aimed(aim, prices) for each in (policy, shadow))
            canary = canary and replaced(canary, policy=canary.policy.aimed(aim, prices))
        trial, lengths = None if canary is None else Trial(canary), Lengths()
        self._decider = Decider(
            name,
            pool,
            StatedPolicy(pool.names, stated, aim if stated or policy is None else None, lengths),
            policy,
            tuple(rules),
            cascade,
            frozenset(residency) or None,
            max_cost,
            sessions,
            shadow,
            trial,
            exploration,
            healthy=healthy,
            able=self._unable,
        )
        self._listening: Observation | None = None
        self._memory = Memory(lengths, self._decider.experience, trial)
        if exploration is not None and value_of(self._decider.policy or self._decider.stated) is None:
            raise ConfigurationError(
                "exploration weighs quality against cost, so it needs a λ: say what a good answer is worth (`value` in "
                "code, `lambda` in models.yml), or name a policy that has worked one out"
            )

    # ---- answering -------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self._decider.name

    @property
    def schemas(self) -> bool:
        """Whether all candidates that can be asked can be asked for an answer by its schema."""
        return all(self._schemas(name) for name in self._pool.names if self._unable(name) is None)

    async def execute(self, request: Request) -> Response:
        """The answer of the model that was chosen, with the usage and cost of all that it took to get it.

        Raises NoCandidateError, and the error of the last model that was asked, with the earlier ones as notes.
        """
        journey = self._journey(request)
        while True:
            await journey.decide()
            try:
                answer = await journey.climb()
                if answer is None:
                    answer = await journey.ask(journey.model, journey.asked(journey.model))
            except AgentFlowError as error:
                if not self._goes_on(journey, error):
                    raise
                continue
            return self._whole(journey, answer)

    async def execute_streaming(self, request: Request) -> AsyncGenerator[StreamChunk, None]:
        """The same as it comes. Of a cascade, all stages but the last are judged before anything of them is told;
        another model takes over only where nothing was told yet."""
        journey, delivered = self._journey(request), False
        while True:
            await journey.decide()
            try:
                async with aclosing(self._pieces(journey)) as source:
                    async for chunk in source:
                        delivered = True
                        yield chunk
                return
            except AgentFlowError as error:
                if delivered or not self._goes_on(journey, error):
                    raise

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        """Vectors of the one candidate that has some: those of two models cannot be compared, so there is no choice.
        Raises UnsupportedError where none has, or several have."""
        able = [name for name in self._pool.names if self._embeds(name)]
        if len(able) != 1:
            raise UnsupportedError(
                f"{self.name} routes to {', '.join(able) or 'no model'} for embeddings; vectors of two models cannot "
                "be compared, so exactly one candidate may be one that embeds: ask that model by its own name"
            )
        provider = self._pool.ask(able[0])
        assert isinstance(provider, EmbeddingProvider)
        return await provider.embed(replace(request, model=self._pool.describe(able[0]).model_id))

    async def count_tokens(self, request: Request) -> int:
        """Input tokens, as the model counts them that would be chosen. Raises UnsupportedError, NoCandidateError."""
        chosen = self.explain(request).chosen
        provider = self._pool.ask(chosen)
        if not isinstance(provider, TokenCounter):
            raise UnsupportedError(f"{chosen}, which {self.name} would choose, does not count tokens")
        return await provider.count_tokens(request.replace_model(self._pool.describe(chosen).model_id))

    async def aclose(self) -> None:
        """Close the providers that it was given, and listen no longer."""
        if self._listening is not None:
            self._listening.close()
            self._listening = None
        for provider in self._pool.owned:
            await provider.aclose()

    # ---- asking why, and saying how it was -------------------------------------------------------------------

    def explain(self, request: Request) -> Decision:
        """What `execute` would decide for this request now, of whoever is the current caller. Nothing is sent, and
        nothing is drawn: the next request meets the same chance. Raises NoCandidateError."""
        rng = random.Random()
        rng.setstate(self._rng.getstate())
        return self._decider.decide(request, current_caller(), rng)

    def feedback(self, about: str | Response, score: float) -> int:
        """How good an answer was, from 0 to 1. `about` is the answer, or the id of its run, decision, or of the answer
        itself. Returns how many decisions that says something of: 0 where they are too old, or were made elsewhere.

        It is what a canary is judged by, and what exploration learns from. Raises ConfigurationError for a score that
        is none.
        """
        if not 0.0 <= score <= 1.0:  # which NaN is not, either
            raise ConfigurationError(f"a score is a number from 0 to 1, not {score!r}")
        names = [about] if isinstance(about, str) else [about.id, about.request_id, about.run_id]
        return self._memory.scored(names, score)

    def listen(self) -> None:
        """From now on take the scores that anybody tells of a run, by `feedback(run_id, score=…)` or by a checker,
        until the router is closed. Every call then has a run of its own, by whose id it is found."""
        if self._listening is None:
            self._listening = observe(self)

    def observe(self, event: ExecutionEvent, /) -> None:
        """What `listen` listens with."""
        score = event.data.get("score")
        if event.kind == "feedback" and isinstance(score, int | float):
            self.feedback(event.run_id, score)

    @property
    def trial(self) -> Trial | None:
        """How the canary does; None without one. `trial.over` says why it was taken back."""
        return self._memory.trial

    @property
    def explores(self) -> bool:
        """Whether it tries what may be better than it looks."""
        return self._decider.exploration is not None

    def rollback(self, reason: str = "somebody took it back") -> None:
        """Let the policy in force decide everything from now on. Raises ConfigurationError without a canary."""
        if self._memory.trial is None:
            raise ConfigurationError(f"{self.name} has no canary to take back")
        self._memory.trial.take_back(reason)

    # ---- within ----------------------------------------------------------------------------------------------

    def _journey(self, request: Request) -> Journey:
        return Journey(self._decider, request, current_caller(), self._rng)

    def _goes_on(self, journey: Journey, error: AgentFlowError) -> bool:
        """Whether the next best is asked; what a cascade's stage has raised was asked about before."""
        goes_on = journey.goes_on(error)
        if goes_on:
            self._memory.failed(journey)
        return goes_on

    def _whole(self, journey: Journey, answer: Response) -> Response:
        tokens = None if answer.usage is None else answer.usage.output_tokens
        self._memory.answered(journey, tokens, answer.id, answer.request_id)
        return marked(journey.spent.upon(answer), self.name, journey.model)

    async def _pieces(self, journey: Journey) -> AsyncGenerator[StreamChunk, None]:
        answer = await journey.climb()
        if answer is not None:
            for chunk in chunks_of(self._whole(journey, answer)):
                yield chunk
            return
        model = journey.model
        source = self._pool.ask(model).execute_streaming(journey.asked(model))
        pieces = Pieces(source, journey.spent, self._pool, router=self.name, model=model)
        async with aclosing(pieces.chunks()) as chunks:
            async for chunk in chunks:
                yield chunk
        self._memory.answered(journey, pieces.tokens, pieces.id, pieces.request_id)

    def _unable(self, name: str) -> str | None:
        """Why a candidate cannot be asked, such as for want of a key."""
        try:
            self._schemas(name)
        except ConfigurationError as error:
            return str(error)
        return None

    def _schemas(self, name: str) -> bool:
        return bool(getattr(self._pool.ask(name), "schemas", True))

    def _embeds(self, name: str) -> bool:
        can = self._pool.describe(name).capabilities
        return isinstance(self._pool.ask(name), EmbeddingProvider) if can is None else "embed" in can


def _objective(floor: float | None, budget: float | None, value: float | None) -> Objective | None:
    if floor is budget is value is None:
        return None
    return Objective(quality_floor=floor, budget_usd=budget, value_usd=value)


def _prices(pool: Pool) -> Prices:
    found = {name: pool.describe(name).current_price() for name in pool.names}
    return {name: price.usual for name, price in found.items() if price is not None and price.usual is not None}
