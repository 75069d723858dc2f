"""Whether it is certain that nothing inside an unrecorded span is recorded, so that nobody has to be asked again."""

from __future__ import annotations

from typing import Final

from opentelemetry.trace import Tracer

__all__ = ["children_follow"]

_CERTAIN: Final = ("AlwaysOffSampler", "TraceIdRatioBased{")  # the same answer to the same trace
_PARENT_DECIDES: Final = ("ParentBased{", "localParentNotSampled:AlwaysOffSampler")


def children_follow(tracer: Tracer) -> bool:
    """By what the tracer's sampler says of itself. One that is not known is asked for every span, as it may look at
    each of them."""
    sampler = getattr(tracer, "sampler", None)
    said = "" if sampler is None else str(sampler.get_description())
    return said.startswith(_CERTAIN) or (said.startswith(_PARENT_DECIDES[0]) and _PARENT_DECIDES[1] in said)
