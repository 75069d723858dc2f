"""The seam for answers to questions in other words: when a tier is asked, what it is told, what it cannot do."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from tests.support.costly import CENT, Costly, asked

from agentflow.clock import VirtualClock
from agentflow.llm.caller import Caller, asking_as
from agentflow.llm.messages import Response
from agentflow.mcp.performance.caching import Asked, ResponseCache, Verdict


class Lower:
    """Questions are alike if they are the same in small letters."""

    def __init__(self) -> None:
        self.found: list[Asked] = []
        self.kept: list[Asked] = []
        self.keys: dict[str, str] = {}

    async def find(self, asked: Asked) -> Verdict:
        self.found.append(asked)
        key = self.keys.get(asked.request.prompt.lower())
        facts: Mapping[str, float] = {"similarity": 0.9}
        return Verdict(key, "unlike" if key is None else "similar", facts)

    async def keep(self, asked: Asked, key: str, answer: Response) -> None:
        self.kept.append(asked)
        self.keys[asked.request.prompt.lower()] = key


async def test_a_question_in_other_words_gets_the_answer_of_the_first() -> None:
    """Free, and marked as what it is. The tier is only asked where the exact one has nothing."""
    model, tier = Costly(), Lower()
    cache = ResponseCache(model, ttl=60, semantic=tier)
    first = await cache.execute(asked("Hello"))
    second = await cache.execute(asked("HELLO"))
    await cache.execute(asked("Hello"))
    assert (second.text, second.cost, second.cache_hit) == (first.text, 0.0, "semantic")
    assert (len(model.calls), len(tier.found), len(tier.kept)) == (1, 2, 1)
    assert tier.found[0] is tier.kept[0]
    found = cache.statistics()
    assert (found.semantic, found.hits, found.saved, found.misses) == (1, 2, 2 * CENT, {"unlike": 1})
    await cache.aclose()


async def test_many_who_ask_at_once_have_it_asked_once() -> None:
    model, tier = Costly(), Lower()
    cache = ResponseCache(model, ttl=60, semantic=tier)
    await cache.execute(asked("Hello"))
    answers = await asyncio.gather(*[cache.execute(asked("HELLO")) for _ in range(10)])
    assert {answer.cache_hit for answer in answers} == {"semantic"}
    assert len(tier.found) == 2
    streamed = [chunk async for chunk in cache.execute_streaming(asked("hello"))]
    assert streamed[-1].cache_hit == "semantic"


def test_an_answer_that_is_gone_is_a_miss() -> None:
    """Too old or purged: the tier names a key, and nothing stands under it."""
    clock, model = VirtualClock(), Costly()

    async def main() -> None:
        cache = ResponseCache(model, ttl=60, semantic=Lower(), clock=clock)
        await cache.execute(asked("Hello"))
        clock.advance(60)
        assert (await cache.execute(asked("HELLO"))).cache_hit is None
        await cache.purge()
        assert (await cache.execute(asked("hello"))).cache_hit is None
        assert cache.statistics().misses == {"unlike": 1, "gone": 2}

    clock.run(main())


async def test_a_tier_cannot_hand_one_tenants_answer_to_another() -> None:
    """Even if it does not look at who asks."""
    model = Costly()
    cache = ResponseCache(model, ttl=60, semantic=Lower())
    with asking_as(Caller(tenant="a")):
        await cache.execute(asked("Hello"))
        assert (await cache.execute(asked("HELLO"))).cache_hit == "semantic"
    with asking_as(Caller(tenant="b")):
        assert (await cache.execute(asked("HELLO"))).cache_hit is None


async def test_what_is_not_kept_or_not_for_the_cache_is_not_told_to_it() -> None:
    model, tier = Costly(finish="length"), Lower()
    cache = ResponseCache(model, ttl=60, semantic=tier)
    await cache.execute(asked("Hello"))
    await cache.execute(asked("Hello", temperature=1.0))
    await cache.execute(asked("Hello", metadata={"agentflow_cache": "off"}))
    await cache.aclose()
    assert (len(tier.found), tier.kept) == (1, [])
