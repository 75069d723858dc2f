"""What a run has done that can be undone, and the undoing of it when the run has failed for good.

    book_flight ──▶ book_hotel ──▶ pay ✗
         ◀── compensate ── compensate ◀──        in the reverse order of their ends

Compensations run one after the other. One that fails does not keep the others from running.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import TypeAlias

__all__ = ["Deed", "Saga"]

Undo: TypeAlias = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Deed:
    """Something done by the step at `path`, and how it is undone."""

    path: str
    undo: Undo


class Saga:
    """The deeds of one run, in the order in which they were done."""

    __slots__ = ("_deeds",)

    def __init__(self) -> None:
        self._deeds: list[Deed] = []

    @property
    def order(self) -> list[str]:
        """The paths of the deeds, the first one first."""
        return [deed.path for deed in self._deeds]

    def add(self, deed: Deed) -> None:
        self._deeds.append(deed)

    def arrange(self, order: Sequence[str]) -> None:
        """Put the deeds at these paths into this order. One that is not kept stays behind the one it was done after."""
        places = {path: place for place, path in enumerate(order)}
        last, found = -1, list[tuple[int, Deed]]()
        for deed in self._deeds:
            last = places.get(deed.path, last)
            found.append((last, deed))
        self._deeds = [deed for _, deed in sorted(found, key=itemgetter(0))]

    async def undo(self, around: Callable[[Deed], Awaitable[None]]) -> list[Exception]:
        """Undo all, the last one first; `around` does it, and whatever belongs to it. Returned is what failed."""
        failures: list[Exception] = []
        for deed in reversed(self._deeds):
            try:
                await around(deed)
            except Exception as error:  # noqa: BLE001 - what failed is told together, when all had their turn
                failures.append(error)
        return failures
