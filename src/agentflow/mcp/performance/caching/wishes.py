"""What a single call wants of the cache, said in its metadata, and kept from the provider.

.metadata(agentflow_cache="off")                      neither looked for nor kept
.metadata(agentflow_cache="refresh")                  asked anew, and kept in place of what was there
.metadata(agentflow_cache="on")                       as at temperature 0, whatever the temperature
.metadata(agentflow_cache_tags="faq,release-7")       labels to purge by
.metadata(agentflow_cache_ttl="60")                   seconds
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, Literal, TypeAlias, cast

from msgspec import Struct

from agentflow.errors import ConfigurationError

__all__ = ["Mode", "Wishes", "wishes_of"]

Mode: TypeAlias = Literal["usual", "on", "off", "refresh"]

_MODE: Final = "agentflow_cache"
_TAGS: Final = "agentflow_cache_tags"
_TTL: Final = "agentflow_cache_ttl"
_ALL: Final = frozenset({_MODE, _TAGS, _TTL})


class Wishes(Struct, frozen=True):
    """`ttl` None is the cache's own."""

    mode: Mode = "usual"
    tags: tuple[str, ...] = ()
    ttl: float | None = None


_NONE: Final = Wishes()


def wishes_of(metadata: Mapping[str, str]) -> tuple[Wishes, Mapping[str, str]]:
    """What the call wants, and the metadata without it. Raises ConfigurationError for what nobody understands."""
    if not metadata or _ALL.isdisjoint(metadata):
        return _NONE, metadata
    mode = metadata.get(_MODE, "usual")
    if mode not in ("usual", "on", "off", "refresh"):
        raise ConfigurationError(f"metadata {_MODE} is on, off or refresh, not {mode[:40]!r}")
    tags = tuple([tag for each in metadata.get(_TAGS, "").split(",") if (tag := each.strip())])
    rest = {name: value for name, value in metadata.items() if name not in _ALL}
    return Wishes(cast("Mode", mode), tags, _seconds(metadata.get(_TTL))), rest


def _seconds(said: str | None) -> float | None:
    if said is None:
        return None
    try:
        seconds = float(said)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < math.inf:
        raise ConfigurationError(f"metadata {_TTL} is a number of seconds above 0, not {said[:40]!r}")
    return seconds
