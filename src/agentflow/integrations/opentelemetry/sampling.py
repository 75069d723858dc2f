"""Whether it is certain that nothing inside an unrecorded span is recorded, so that nobody has to be asked again."""

from __future__ import annotations

from typing import Final, Protocol, runtime_checkable

__all__ = ["children_follow"]

_CERTAIN: Final = ("AlwaysOffSampler", "TraceIdRatioBased{")  # the same answer to the same trace
_PARENT_DECIDES: Final = ("ParentBased{", "localParentNotSampled:AlwaysOffSampler")


@runtime_checkable
class _Sampler(Protocol):
    def get_description(self) -> str: ...


def children_follow(sampler: object) -> bool:
    """By what a tracer's sampler says of itself. One that is not known is asked for every span, as it may look at each
    of them."""
    said = sampler.get_description() if isinstance(sampler, _Sampler) else ""
    return said.startswith(_CERTAIN) or (said.startswith(_PARENT_DECIDES[0]) and _PARENT_DECIDES[1] in said)
