"""What a stage may use beside the model: texts as token windows, the device, a place to scribble, someone to tell.

compress() ──▶ Work ──▶ quantize(stage, source, target, work) · prune(…) · distill(…) · export(…)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["Progress", "Work", "silent"]

Progress = Callable[[str, int, int], None]  # what is being done, how many of it are done, of how many (0: not known)


def silent(what: str, done: int, of: int) -> None:
    """Tells nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """`calibration`, `training` and `evaluation` are token ids of shape (windows, length), of the source's tokenizer.

    `scratch` is a folder that outlives a crash, one a stage: what is in it when a stage begins is that stage's own,
    from an earlier try. `check()` raises `CancelledWork` once somebody wants the stage to end; call it in every loop.
    """

    calibration: torch.Tensor
    training: torch.Tensor
    evaluation: torch.Tensor
    scratch: Path
    teacher: Path  # the recipe's source, in full precision
    device: str = "cpu"
    seed: int = 0
    progress: Progress = silent
    cancelled: Event = field(default_factory=Event)

    def check(self) -> None:
        if self.cancelled.is_set():
            raise CancelledWork


class CancelledWork(BaseException):
    """Somebody cancelled `compress()`; not an Exception, so that no `except Exception` of a library keeps it."""
