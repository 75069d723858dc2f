"""A file of JSON beside a model: an object, or nothing where there is none."""

from __future__ import annotations

import json
from pathlib import Path

from agentflow.errors import ArtifactError
from agentflow.llm.content import Json

__all__ = ["json_object"]


def json_object(path: Path) -> dict[str, Json]:
    """A JSON object; an empty one where there is no such file. Raises ArtifactError."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(path.parent, f"its {path.name} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise ArtifactError(path.parent, f"its {path.name} is no JSON object")
    return found
