"""Every decision of a cache is counted, and told with its reason to whoever watches."""

from __future__ import annotations

from collections.abc import Mapping

from agentflow.clock import Clock
from agentflow.llm.caller import Caller
from agentflow.llm.messages import Usage
from agentflow.mcp.performance.caching.kept import Kept
from agentflow.mcp.performance.caching.tally import Tally

__all__ = ["Notes"]

_TOKENS = ("input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens")


class Notes:
    def __init__(self, tally: Tally, clock: Clock) -> None:
        self._tally = tally
        self._clock = clock

    async def miss(self, caller: Caller, model: str, reason: str, facts: Mapping[str, object] = {}) -> None:
        """A model is asked."""
        self._tally.miss(reason)
        if caller.watched:
            await caller.tell("cache_miss", {"model": model, "reason": reason, **_tenant(caller), **facts})

    async def hit(
        self,
        caller: Caller,
        model: str,
        reason: str,
        *,
        worth: float | None,
        usage: Usage | None,
        tier: str = "exact",
        found: Kept | None = None,
        facts: Mapping[str, object] = {},
    ) -> None:
        """No model is asked. `found` None is an answer that another question has brought just now."""
        self._tally.hit(_KINDS.get(reason, "semantic" if tier == "semantic" else "hits"), worth)
        if not caller.watched:
            return
        told: dict[str, object] = {"model": model, "tier": tier, "reason": reason, "saved": worth, **_tenant(caller)}
        if found is not None:
            now = self._clock.time()
            told |= {"age": max(0.0, now - found.created), "stale": found.expires <= now}
        if usage is not None:
            told |= {name: getattr(usage, name) for name in _TOKENS}
        await caller.tell("cache_hit", {**told, **facts})


_KINDS = {"joined": "joined", "stale": "stale"}


def _tenant(caller: Caller) -> Mapping[str, object]:
    return {} if caller.tenant is None else {"tenant": caller.tenant}
