"""What ends the work of a step that has to wait for somebody, without having failed.

    interrupt() ──raises──▶ Parked ──▶ siblings finish ──▶ the run is parked, and no task waits

It is no Exception, so that nobody's `except Exception` takes it for a failure, no retry repeats it and no breaker
counts it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agentflow.core.durability.records import Interrupt

__all__ = ["Parked", "parked_in"]


class Parked(BaseException):
    """A step waits for what `interrupts` say. One that merely waits for such a step has none of its own."""

    def __init__(self, interrupts: Iterable[Interrupt] = ()) -> None:
        super().__init__("parked")
        self.interrupts = tuple(interrupts)

    @classmethod
    def together(cls, parked: Iterable[Parked]) -> Parked:
        """Several that wait beside each other, in their order."""
        return cls(interrupt for each in parked for interrupt in each.interrupts)


def parked_in(error: BaseException) -> Parked | None:
    """What is parked in a group of errors, as a TaskGroup of a node's own raises one; None where one has failed."""
    if isinstance(error, Parked):
        return error
    if not isinstance(error, BaseExceptionGroup):
        return None
    found = [parked_in(each) for each in error.exceptions]
    return Parked.together(each for each in found if each) if all(found) else None
