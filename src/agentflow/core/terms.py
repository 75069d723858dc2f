"""What a caller says of a run beside its input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agentflow.core.limits import Limits
from agentflow.core.observability.observers import Observer

if TYPE_CHECKING:
    from agentflow.core.durability.protocol import Durability

__all__ = ["NoAnswer", "Terms"]


class NoAnswer:
    """Stands for an answer that was not given; None is one."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<no answer>"


@dataclass(slots=True)  # one is made for each run, and a frozen one takes twice as long
class Terms:
    """`context` is never stored; `batch` names the runs of one `run_batch`; `durability` keeps the run. Nobody changes
    it once it is made."""

    context: object = None
    run_id: str | None = None
    tenant: str | None = None
    limits: Limits | None = None
    observers: Sequence[Observer] = ()
    batch: str | None = None
    durability: Durability | None = None
