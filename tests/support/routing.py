"""What tests of a router are made of: requests, prices, scripted models that say what they cost, a watched call."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from agentflow.clock import VirtualClock
from agentflow.core import ExecutionEvent
from agentflow.core.limits import Ledger
from agentflow.core.observability import observe
from agentflow.core.observability.scope import scope_outside
from agentflow.llm.caller import Caller, asking_as
from agentflow.llm.config.prices import Price, Rates
from agentflow.llm.messages import Message, OutputFormat, Request, Response, Usage
from agentflow.llm.providers.scripted import ScriptedProvider
from agentflow.mcp.optimization.router.candidate import Candidate
from agentflow.mcp.optimization.router.learning.policy import Choice, Forecast, Objective, Prices

CHEAP = Price.flat(Rates.stated(0.1, 0.4))
DEAR = Price.flat(Rates.stated(2.0, 8.0))
PERSON = OutputFormat(
    "Person",
    {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"], "additionalProperties": False},
)


def ask(text: str = "Why is the sky blue?", **more: Any) -> Request:
    return Request("auto", (Message("user", text),), **more)


def says(answer: Any, *, name: str = "scripted") -> ScriptedProvider:
    """A model that always answers so: a text, a Response, an exception."""
    return ScriptedProvider(lambda request: answer, name=name)


def priced(answer: Any, price: Price, **more: Any) -> Candidate:
    return Candidate(says(answer), price=price, **more)


def answer(text: str, tokens: int = 10, **more: Any) -> Response:
    return Response(text, "model-1", "scripted", Usage(100, tokens), finish_reason="stop", **more)


class Known:
    """A policy that was told what each model makes of a text, and prefers by λ·quality − cost."""

    name = "known"

    def __init__(self, forecasts: Mapping[str, Forecast], value: float = 1.0, digest: str = "d1") -> None:
        self.models = tuple(forecasts)
        self.digest = digest
        self.value_usd = value
        self.asked: list[str] = []
        self._forecasts = dict(forecasts)

    def forecast(
        self, text: str, models: Iterable[str], prices: Prices, *, input_tokens: int | None = None
    ) -> Mapping[str, Forecast]:
        return {model: self._forecasts[model] for model in models if model in self._forecasts}

    def choose(
        self, text: str, models: Iterable[str], prices: Prices, rng: Any, *, input_tokens: int | None = None
    ) -> Choice:
        self.asked.append(text)
        found = self.forecast(text, models, prices)
        best = max(found, key=lambda each: self.value_usd * found[each].quality - found[each].cost_usd)
        return Choice(best, 1.0, "it is worth most", "learned", {each: float(each == best) for each in found}, found)

    def aimed(self, objective: Objective, prices: Prices) -> Known:
        return Known(self._forecasts, objective.value_usd or self.value_usd, self.digest)


class Watched:
    """A caller who is watched: `routes` are the facts of the events `route`."""

    inline = True

    def __init__(self, tenant: str | None = None, ledgers: tuple[Ledger, ...] = (), run_id: str = "run-1") -> None:
        self.events: list[ExecutionEvent] = []
        self._clock = VirtualClock()
        self._tenant, self._ledgers, self._run_id = tenant, ledgers, run_id

    def observe(self, event: ExecutionEvent) -> None:
        self.events.append(event)

    @contextmanager
    def asking(self) -> Iterator[None]:
        """For the body, the watched caller asks."""
        with observe(self):
            scope = scope_outside(self._clock, "auto", lambda: self._run_id)
            with asking_as(Caller(self._tenant, run_id=self._run_id, ledgers=self._ledgers, scope=scope)):
                yield

    @property
    def routes(self) -> list[Mapping[str, Any]]:
        return [event.data for event in self.events if event.kind == "route"]
