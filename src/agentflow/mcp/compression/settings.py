"""What a recipe is run with: texts, sizes of windows, the device, where the artifact goes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from agentflow.errors import CompressionError

__all__ = ["Settings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Texts are whole documents. `length` is that of a window, in tokens; None: the model's context, 512 at most.

    `calibration` is what stages look at, `training` what they learn from, `evaluation` what the artifact is measured
    on: texts that the model, and every stage, never saw. At most so many windows of the first and last are taken.
    """

    output: Path
    name: str
    calibration: tuple[str, ...]
    training: tuple[str, ...]
    evaluation: tuple[str, ...]
    length: int | None = None
    calibration_windows: int = 128
    evaluation_windows: int = 64
    device: str = "cpu"
    seed: int = 0

    def __post_init__(self) -> None:
        shared = set(self.evaluation) & {*self.calibration, *self.training}
        if shared:
            text = f"{len(shared)} texts of `evaluation` are in `calibration` or `training`, too"
            raise CompressionError(f"{text}: what a stage has seen cannot tell how good it is")
        for name in ("calibration_windows", "evaluation_windows"):
            if getattr(self, name) < 1:
                raise CompressionError(f"{name} is at least 1")
        if self.length is not None and self.length < 8:
            raise CompressionError(f"windows of {self.length} tokens are too short: take 8 at least")
