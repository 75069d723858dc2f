"""One model call of a log, as the optimiser sees it: when, for whom, by whom, what it cost, and how good it was.

    {"at": 1764201600.0, "run": "7f3a", "model": "gpt-4o", "input_tokens": 812, "output_tokens": 40, "cost": 0.00243}

It is also a line of the neutral log format (`usage_log.py`): what nobody knows is left out. Times are seconds since
1970, durations seconds, costs US dollars, scores 0 to 1.
"""

from __future__ import annotations

from msgspec import Struct

__all__ = ["Call"]


class Call(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One request and its answer.

    `at` is when it was sent. Calls of one `run` are thought to depend on each other, those of different runs not: where
    a log knows sessions or users, these are its runs. `model` is the name by which it was asked for, `model_id` what
    the provider calls it. `flow` and `step` say where in a program it was made.

    `input_tokens` counts cached ones too (`cached_tokens`, `cache_write_tokens`). `cost` None is unknown, never free.
    `max_tokens` is the limit that the request stated, `finish_reason` as in `Response`.

    `fingerprint` is equal for requests whose answers may stand for each other, whoever asks: a hash of all that
    changes the answer. `cacheable` None is decided by `temperature` (0 may be cached, as in `ResponseCache`).
    `prefix` names the beginning that the prompt has in common with others, `prefix_tokens` long. `context` and
    `embedding` are for likeness: calls of one context differ in their last user turn alone, whose vector it is.

    `slack` is for how many seconds nobody waits for the answer; `score` how good it was. `propensity` is how likely it
    was that this model would be chosen, where that was left to chance.
    """

    at: float
    model: str
    run: str = ""
    provider: str = ""
    model_id: str = ""
    tenant: str = ""
    flow: str = ""
    step: str = ""
    duration: float | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    cost: float | None = None
    currency: str = "USD"
    failed: bool = False
    finish_reason: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    fingerprint: str | None = None
    cacheable: bool | None = None
    prefix: str | None = None
    prefix_tokens: int = 0
    context: str | None = None
    embedding: tuple[float, ...] | None = None
    slack: float | None = None
    score: float | None = None
    propensity: float | None = None

    @property
    def segment(self) -> str:
        """Where it was made: calls of one segment are thought to do the same sort of work."""
        return "/".join(part for part in (self.flow, self.step) if part) or "(all)"

    @property
    def may_be_cached(self) -> bool:
        """Whether its answer may be given again: whole, wanted, and the same each time or declared so."""
        if self.failed or self.finish_reason not in (None, "stop"):
            return False
        return self.temperature == 0 if self.cacheable is None else self.cacheable
