"""What is left when a training is over: the student's folder, with its curve, and what a manifest says of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch
from torch import nn

from agentflow.mcp.compression.checkpoint import Checkpoint, ShardWriter, copy_companions, writing
from agentflow.mcp.compression.distillation import curves
from agentflow.mcp.compression.distillation.training import Course, Schedule

__all__ = ["facts_of", "notes_of", "write_student"]

_POINTS: Final = 40  # evaluations that a manifest lists; the rest is in the curve's file
_TYPES: Final = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def write_student(
    model: nn.Module, source: Checkpoint, target: Path, course: Course, settings: Mapping[str, object]
) -> None:
    """`model`, which came from `source`, into the new folder `target`: in the types it had, with all that goes with it.

    Raises CompressionError where `target` exists, ShortageError where the disk is full.
    """
    state = model.state_dict()
    with writing(target) as folder:
        copy_companions(source.folder, folder)
        (folder / "config.json").write_bytes((source.folder / "config.json").read_bytes())
        curves.write(folder, course, settings)
        with ShardWriter(folder) as shards:
            for name, facts in source.tensors.items():
                taught = state.get(name)  # a buffer that the library makes anew has no place in it
                shards.add(name, source.load(name) if taught is None else taught.to(_TYPES.get(facts.dtype)))


def facts_of(course: Course, schedule: Schedule) -> dict[str, object]:
    """`before` is the student as it came, `after` as it was taken."""
    at = {each.step: dict(each.values) for each in course.evaluations}
    every = max(1, math.ceil(len(course.evaluations) / _POINTS))
    last = course.losses[-20:]
    return {
        "before": at[0],
        "after": at[course.taken],
        "steps": course.steps,
        "taken": course.taken,
        "best": course.best,
        "stopped_early": course.steps < schedule.steps,
        "resumed": course.resumed,
        "training_loss": sum(last) / len(last) if last else None,
        "curve": [{"step": each.step, **each.values} for each in course.evaluations[::every]],
    }


def notes_of(course: Course, schedule: Schedule) -> list[str]:
    """What a reader must know."""
    before, after = course.evaluations[0], next(each for each in course.evaluations if each.step == course.taken)
    notes = []
    if course.taken == 0:
        notes.append("no step made it better on held-out text: these are the weights it came with")
    elif after.loss > before.loss:
        notes.append(f"training made it worse on held-out text: loss {before.loss:.4g} before, {after.loss:.4g} after")
    if course.steps < schedule.steps:
        notes.append(f"stopped after {course.steps} of {schedule.steps} steps, the best was {course.best}")
    return notes
