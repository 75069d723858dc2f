"""What an artifact must reach before anybody calls it: floors for its quality and speed, ceilings for what it takes.

    gate = Gate(perplexity_rise=0.01, kl=0.05, top1=0.9, bytes=60_000_000)
    gate.check(manifest)            raises QualityGateError: "w4 is not let through: kl 0.08 is above 0.05; …"

Each limit is held against every runtime in which the artifact was measured. What was not measured, or is NaN, misses
its limit: a gate lets nothing through on trust.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Final, Literal, TypeAlias

import msgspec

from agentflow.errors import CompressionError, QualityGateError
from agentflow.mcp.compression.artifact.manifest import GateRecord, Manifest, Measures, Speed

__all__ = ["Gate"]

Side: TypeAlias = Literal["most", "least"]
_Reading: TypeAlias = Callable[[Manifest, Measures], float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """Limits; None asks nothing. Shares and scores lie between 0 and 1.

    `perplexity_rise`  the most by which perplexity may rise above the source's, as a share: 0.01 is 1 %
    `kl`               the most nats a token by which it may differ from the source
    `top1` `greedy`    the least agreement with the source
    `accuracy` `agreement` (classifiers), `cosine` `spearman` (embedding models), `task`: the least
    `tokens_per_second`              the least
    `cold_start` `time_to_first_token`  the most seconds
    `resident_bytes` `bytes`         the most

    Raises CompressionError where nothing is asked, or a limit is no number that can be reached.
    """

    perplexity_rise: float | None = None
    kl: float | None = None
    top1: float | None = None
    greedy: float | None = None
    accuracy: float | None = None
    agreement: float | None = None
    cosine: float | None = None
    spearman: float | None = None
    task: float | None = None
    tokens_per_second: float | None = None
    time_to_first_token: float | None = None
    cold_start: float | None = None
    resident_bytes: float | None = None
    bytes: float | None = None

    def __post_init__(self) -> None:
        if not self.limits:
            raise CompressionError("a gate without limits lets everything through: give it one, as in Gate(kl=0.05)")
        for name, limit in self.limits.items():
            highest = 1.0 if name in _SHARES else math.inf
            if not 0.0 <= limit <= highest or math.isinf(limit):
                what = "a number from 0 to 1" if name in _SHARES else "a number from 0 on"
                raise CompressionError(f"Gate({name}={limit!r}): write {what}")

    @property
    def limits(self) -> Mapping[str, float]:
        """Those that are given."""
        every = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: limit for name, limit in every if limit is not None}

    def failures(self, manifest: Manifest) -> tuple[str, ...]:
        """Each limit that is missed, in words. Empty where the artifact may pass."""
        measured = manifest.after or (Measures(runtime="", runtime_version=""),)
        found = dict.fromkeys(
            words
            for measures in measured
            for name, limit in self.limits.items()
            for words in _missed(name, _READINGS[name](manifest, measures), limit, _where(manifest, measures, name))
        )
        return tuple(found)

    def check(self, manifest: Manifest) -> None:
        """Raises QualityGateError, which lists every limit that is missed."""
        failures = self.failures(manifest)
        if failures:
            raise QualityGateError(manifest.name, failures)

    def judged(self, manifest: Manifest) -> Manifest:
        """The manifest with what this gate asked, and found, written into it."""
        record = GateRecord(limits=self.limits, failures=self.failures(manifest))
        return msgspec.structs.replace(manifest, gate=record)


def _missed(name: str, found: float | None, limit: float, where: str) -> Iterator[str]:
    if found is None or math.isnan(found):
        yield f"{name} {'was not measured' if found is None else 'is not a number'}{where}"
    elif _SIDES[name] == "most" and found > limit:
        yield f"{name} {_said(found)} is above {_said(limit)}{where}"
    elif _SIDES[name] == "least" and found < limit:
        yield f"{name} {_said(found)} is below {_said(limit)}{where}"


def _said(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.6g}"


def _where(manifest: Manifest, measures: Measures, name: str) -> str:
    return "" if name == "bytes" or len(manifest.after) < 2 else f" in {measures.runtime}"


def _rise(manifest: Manifest, measures: Measures) -> float | None:
    before = None if manifest.before is None else manifest.before.perplexity
    if before is None or measures.perplexity is None or before == 0.0:
        return None
    return measures.perplexity / before - 1.0


def _speed(name: str) -> _Reading:
    return lambda manifest, measures: _known(measures.speed, name)


def _measure(name: str) -> _Reading:
    return lambda manifest, measures: _known(measures, name)


def _known(facts: Measures | Speed | None, name: str) -> float | None:
    found = None if facts is None else getattr(facts, name)
    return None if found is None else float(found)


_SHARES: Final = frozenset({"top1", "greedy", "accuracy", "agreement", "cosine", "spearman", "task"})
_SPEEDS: Final = ("tokens_per_second", "time_to_first_token", "cold_start", "resident_bytes")
_SIDES: Final[Mapping[str, Side]] = {
    **dict.fromkeys(_SHARES | {"tokens_per_second"}, "least"),
    **dict.fromkeys(("perplexity_rise", "kl", "time_to_first_token", "cold_start", "resident_bytes", "bytes"), "most"),
}
_READINGS: Final[Mapping[str, _Reading]] = {
    **{name: _measure(name) for name in (*_SHARES, "kl")},
    **{name: _speed(name) for name in _SPEEDS},
    "perplexity_rise": _rise,
    "bytes": lambda manifest, measures: float(manifest.bytes),
}
