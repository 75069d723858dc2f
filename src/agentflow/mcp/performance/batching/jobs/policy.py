"""How a batch job waits, how often it tries, and when it stops waiting: numbers, and the pure decisions on them.

BatchPolicy(attempts=3, direct_concurrency=8)
pause(policy, asked=4, dice=0.5)                    seconds until the batch is asked after again
plan_of_escape(policy, deadline, remaining=120)     when to call the batch off, and when to ask directly
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields

from agentflow.errors import ConfigurationError
from agentflow.llm.providers.batches.endpoint import BatchLimits
from agentflow.mcp.performance.batching.jobs.ids import split

__all__ = ["BatchPolicy", "Escape", "parts_of", "pause", "plan_of_escape"]

_GROWTH = 1.5
_ENVELOPE = 200  # bytes that an API's own words take around a request


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """Of one job. Seconds are floats.

    `attempts` is how often a request is sent at most, follow-ups included. A batch is asked after `poll_first` seconds,
    then ever more seldom up to `poll_most`, with up to a fifth of jitter. Where the outcome of a submission is unknown,
    the provider is asked for `settle` seconds whether it has the batch after all, before it is sent again; `skew` is
    how much its clock may be behind. `part_requests` and `part_bytes` split a job more finely than the provider
    demands.

    With a deadline: no batch is begun whose chance to be done in time is below `least_chance`. A direct call is
    reckoned with `direct_seconds`, `direct_concurrency` of them at a time; `cancel_seconds` is how long a provider may
    take to end a batch that is called off (OpenAI says up to ten minutes), but no more than a quarter of the job's time
    is given to it.
    """

    attempts: int = 3
    poll_first: float = 10.0
    poll_most: float = 120.0
    settle: float = 60.0
    skew: float = 300.0
    part_requests: int | None = None
    part_bytes: int | None = None
    least_chance: float = 0.2
    direct_seconds: float = 10.0
    direct_concurrency: int = 8
    cancel_seconds: float = 600.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and not (0 <= value < math.inf):
                raise ConfigurationError(
                    f"{field.name} of a batch job's policy is a number of 0 or more, not {value!r}"
                )
        for name in ("attempts", "direct_concurrency", "part_requests", "part_bytes"):
            if getattr(self, name) == 0:
                raise ConfigurationError(f"{name} of a batch job's policy is at least 1")

    def as_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> BatchPolicy:
        """What a later version has added is passed over."""
        told: Mapping[str, float] = json.loads(text)
        return cls(**{field.name: told[field.name] for field in fields(cls) if field.name in told})  # type: ignore[arg-type]


def pause(policy: BatchPolicy, asked: int, dice: float) -> float:
    """Seconds to wait before the next question, when `asked` have been answered without news; `dice` is in [0, 1)."""
    longest = min(policy.poll_most, policy.poll_first * _GROWTH ** min(asked, 64))
    return longest * (1.0 + 0.2 * dice)


@dataclass(frozen=True, slots=True)
class Escape:
    """When a job that has a deadline stops waiting: at `cancel` its batches are called off, at `direct` what is still
    open is asked directly. Seconds since 1970."""

    cancel: float
    direct: float


def plan_of_escape(policy: BatchPolicy, deadline: float, *, created: float, remaining: int) -> Escape:
    """As late as it can be: waiting costs nothing, and each answer that still comes costs half."""
    rounds = math.ceil(remaining / policy.direct_concurrency)
    direct = deadline - rounds * policy.direct_seconds
    grace = min(policy.cancel_seconds, max(0.0, deadline - created) / 4)
    return Escape(direct - grace, direct)


def parts_of(
    sizes: Sequence[int], limits: BatchLimits, policy: BatchPolicy, most: int | None = None
) -> Iterator[range]:
    """Requests of those sizes in bytes, as runs that one batch takes; `most` bounds their number further."""
    requests = min([bound for bound in (limits.requests, policy.part_requests, most) if bound])
    return split(
        [size + _ENVELOPE for size in sizes],
        requests=requests,
        bytes=min(limits.bytes, policy.part_bytes or limits.bytes),
    )
