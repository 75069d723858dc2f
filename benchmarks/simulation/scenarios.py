"""What is played: 25 variants in eight scenarios, 4,000 requests each, so that once through is 10⁵ requests."""

from __future__ import annotations

from typing import Final

from agentflow.core.robustness.shedding import Priority

from .guards import aimd, breaking, by_default, gradient, limited, obeying, plain, retrying, shedding
from .provider import Spell, Terms
from .traffic import MEAN_TOKENS, Tenant
from .world import Scenario, Variant

__all__ = ["SCENARIOS"]

_STORM = Terms(requests_per_minute=400, tokens_per_minute=round(400 * MEAN_TOKENS), workers=200)
_LOSS = Terms(places=40, spells=(Spell("weak", 40.0, 80.0, 8), Spell("weak", 120.0, 150.0, 8)))
_FLAP = Terms(spells=tuple(Spell("down", start, start + 15.0) for start in (20.0, 65.0, 110.0, 155.0)))
_SLOW = Terms(workers=40, spells=(Spell("slow", 40.0, 90.0, 6.0),))
_HANG = Terms(workers=40, spells=(Spell("slow", 40.0, 60.0, 12.0),))
_SMALL = Terms(places=12)
_ATTEMPT: Final = 5.0  # seconds that one attempt may take in the retry storm

_GREEDY = (Tenant("greedy", 0.8), *(Tenant(f"modest {number}", 0.025) for number in range(1, 9)))
_RANKS = tuple(Tenant(priority.name.lower(), 0.25, priority) for priority in Priority)

SCENARIOS: Final = (
    Scenario(
        "calm",
        "The provider grants 1.5 times what is asked for, and nothing fails.",
        Terms(requests_per_minute=1_800, tokens_per_minute=round(1_800 * MEAN_TOKENS), workers=60),
        (Variant("no guards", plain()), Variant("the client's defaults", by_default())),
    ),
    Scenario(
        "429 storm",
        "Three times as much is asked for as the provider's rates allow.",
        _STORM,
        (
            Variant("retries", retrying()),
            Variant("retries; no Retry-After", retrying(), told=False),
            Variant("limiter knows the rates", limited(_STORM)),
            Variant("limiter obeys the server", obeying()),
            Variant("the client's defaults", by_default()),
        ),
    ),
    Scenario(
        "529 storm",
        "Twice the provider takes 8 requests at once instead of 40: a third of what comes.",
        _LOSS,
        (
            Variant("retries", retrying()),
            Variant("shedder (AIMD)", shedding(aimd)),
            Variant("the client's defaults", by_default()),
        ),
        patience=15.0,
        spell="weak",
    ),
    Scenario(
        "flapping",
        "Down for 15 seconds, up for 30, four times.",
        _FLAP,
        (
            Variant("retries", retrying()),
            Variant("breaker, 15 s", breaking(open_for=15.0)),
            Variant("breaker, 3 s", breaking()),
        ),
        patience=10.0,
        spell="down",
    ),
    Scenario(
        "slow provider",
        "For 50 seconds every answer takes six times as long: a quarter of what comes can be done.",
        _SLOW,
        (
            Variant("time limits", plain()),
            Variant("shedder (AIMD)", shedding(aimd)),
            Variant("shedder (Gradient2)", shedding(gradient)),
        ),
        patience=20.0,
        spell="slow",
    ),
    Scenario(
        "retry storm",
        "For 20 seconds answers take twelve times as long; an attempt may take 5 seconds, and is then repeated.",
        _HANG,
        (
            Variant("4 attempts, no budget", retrying(4, attempt_timeout=_ATTEMPT)),
            Variant("4 attempts, budget", retrying(4, budget=True, attempt_timeout=_ATTEMPT)),
            Variant("budget and breaker", breaking(4, budget=True, attempt_timeout=_ATTEMPT)),
            Variant("the client's defaults", by_default(attempt_timeout=_ATTEMPT)),
        ),
        spell="slow",
    ),
    Scenario(
        "greedy tenant",
        "One tenant asks for 16 a second, eight for half a one each; the provider can do ten.",
        _SMALL,
        (
            Variant("retries", retrying()),
            Variant("shedder, nobody named", shedding(aimd), named=False),
            Variant("shedder, tenants named", shedding(aimd)),
        ),
        tenants=_GREEDY,
    ),
    Scenario(
        "priorities",
        "Four priorities ask for five a second each; the provider can do ten.",
        _SMALL,
        (
            Variant("shedder, all alike", shedding(aimd), named=False),
            Variant("shedder, priorities named", shedding(aimd)),
        ),
        tenants=_RANKS,
    ),
)
