"""Cheap models first, dearer ones where the answer is not good enough: one stage, asked and judged.

Cascade()                                     the candidates in order of price, judged by `Accept()`
Cascade(("small", "large"), Accept(check=f))  these, in this order

attempt(provider, request, accept)  ──▶  Attempt(response, usage, cost, unlike=None)     good enough
                                    ──▶  Attempt(…, unlike="it is no JSON of Person")    go up
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from agentflow.errors import AgentFlowError
from agentflow.llm.messages import Request, Response, Usage
from agentflow.llm.streaming.join import total
from agentflow.mcp.optimization.router.judge import Accept

__all__ = ["Attempt", "Cascade", "Spent", "attempt"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Cascade:
    """`stages` are candidates in the order in which they are asked; without any, all are, the cheapest first. The last
    of those that may answer is not judged: there is nobody above it."""

    stages: tuple[str, ...] = ()
    accept: Accept = field(default_factory=Accept)

    def ranked(self, allowed: Sequence[str], cost: Callable[[str], float]) -> tuple[str, ...]:
        """The stages of a request that these may answer."""
        return tuple([name for name in self.stages if name in allowed]) or tuple(sorted(allowed, key=cost))


@dataclass(frozen=True, slots=True)
class Spent:
    """What stages that were not good enough have used and cost, to be added to the answer's own.

    `cost` is None as soon as one of them is unknown.
    """

    usage: Usage | None = None
    cost: float | None = 0.0

    def and_(self, usage: Usage | None, cost: float | None) -> Spent:
        """With one more."""
        both, money = total([(self.usage, self.cost), (usage, cost)])
        return Spent(both, money)

    def upon(self, response: Response) -> Response:
        """The answer, with all that it took."""
        whole = self.and_(response.usage, response.cost)
        return replace(response, usage=whole.usage, cost=whole.cost)


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a stage has answered; `usage` and `cost` are of all its samples. `unlike` is why that will not do."""

    response: Response
    usage: Usage | None
    cost: float | None
    unlike: str | None


async def attempt(ask: Callable[[Request], Awaitable[Response]], request: Request, accept: Accept) -> Attempt:
    """Ask one stage, and judge the answer. Raises what the provider, or the checker, raises."""
    wanted = replace(request, logprobs=0) if accept.wants_logprobs and request.logprobs is None else request
    if accept.min_margin is not None and not wanted.logprobs:
        wanted = replace(wanted, logprobs=2)
    answers = await _samples(ask, wanted, accept)
    best, votes = _favourite(answers)
    usage, cost = total([(each.usage, each.cost) for each in answers])
    unlike = None
    if accept.samples > 1 and votes < accept.agreement * accept.samples:
        unlike = f"{votes} of {accept.samples} samples agree"
    unlike = unlike or await accept.unlike(request, best)
    return Attempt(best if request.logprobs is not None else replace(best, logprobs=()), usage, cost, unlike)


async def _samples(ask: Callable[[Request], Awaitable[Response]], request: Request, accept: Accept) -> list[Response]:
    """All answers; where some fail, those that came, and where all do, the first error."""
    if accept.samples == 1:
        return [await ask(request)]
    asked = [_sample(request, number, accept.temperature) for number in range(accept.samples)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_caught(ask(each))) for each in asked]
    ended = [task.result() for task in tasks]
    answers = [each for each in ended if isinstance(each, Response)]
    if not answers:
        raise next(each for each in ended if isinstance(each, Exception))
    return answers


async def _caught(answer: Awaitable[Response]) -> Response | AgentFlowError:
    try:
        return await answer
    except AgentFlowError as error:
        return error


def _sample(request: Request, number: int, temperature: float) -> Request:
    """The first is the request itself. Further ones differ where they would else be the same answer again."""
    if number and request.temperature == 0:
        request = replace(request, temperature=temperature)
    if number and request.seed is not None:
        request = replace(request, seed=request.seed + number)
    return request


def _favourite(answers: Sequence[Response]) -> tuple[Response, int]:
    """The most frequent answer, the earliest of equals, and how many gave it."""
    said = [_gist(each) for each in answers]
    counted = Counter(said)
    gist = max(said, key=counted.__getitem__)
    return answers[said.index(gist)], counted[gist]


def _gist(response: Response) -> str:
    """What an answer comes to: white space, case and the order of a JSON object's fields do not count."""
    calls = "".join(f"\0{call.name}\0{_settled(call.json)}" for call in response.tool_calls)
    return _settled(response.text) + calls


def _settled(text: str) -> str:
    try:
        return msgspec.json.encode(msgspec.json.decode(text), order="sorted").decode()
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return " ".join(text.split()).casefold()
