"""Which programs of others can load what was written: each opens it in a fresh process and writes a token.

loaders(folder, prompt=[1, 7, 4])  →  {"onnxruntime-genai": "0.18.0", "onnxruntime": "1.32.0"}
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from agentflow.errors import ArtifactError, MissingExtraError
from agentflow.mcp.compression.artifact.manifest import Task
from agentflow.mcp.compression.measurement.speed import SpeedPlan, try_out

__all__ = ["loaders"]

_PLAN = SpeedPlan(output_tokens=2, repeats=1, starts=1)


def loaders(
    folder: Path, *, prompt: Sequence[int], task: Task = "generate", check: Callable[[], None] = lambda: None
) -> dict[str, str]:
    """Name and version of every runtime that fits the files, is installed here and can use them.

    Raises ArtifactError where none can, MissingExtraError where none that fits is installed.
    """
    found: dict[str, str] = {}
    refused: list[ArtifactError | MissingExtraError] = []
    for kind in _fitting(folder, task):
        try:
            trial = try_out(folder, prompt=prompt, task=task, kind=kind, plan=_PLAN, check=check)
            found[trial.runtime] = trial.runtime_version
        except (ArtifactError, MissingExtraError) as error:
            refused.append(error)
    if not found:
        raise refused[0]
    return found


def _fitting(folder: Path, task: Task) -> tuple[str, ...]:
    from agentflow.mcp.performance.edge.opening import kind_of

    kind = kind_of(folder)
    return ("onnxruntime-genai", "onnxruntime") if kind == "onnxruntime" and task == "generate" else (kind,)
