"""How a run ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from agentflow.core.state import SharedState

if TYPE_CHECKING:
    from agentflow.core.durability.records import Interrupt

__all__ = ["FlowResult", "Status"]

Status = Literal["done", "interrupted", "failed", "cancelled"]


@dataclass(frozen=True, slots=True)
class FlowResult:
    """How a run ended. `duration` is in seconds; `interrupts` lists what a parked run waits for."""

    state: SharedState
    action: str | None
    status: Status
    error: Exception | None
    run_id: str
    duration: float
    interrupts: tuple[Interrupt, ...] = ()
