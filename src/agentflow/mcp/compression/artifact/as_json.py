"""An artifact, or a comparison, as JSON: what `agentflow artifact … --json` prints."""

from __future__ import annotations

import json
from dataclasses import asdict

import msgspec

from agentflow.mcp.compression.artifact.artifact import Artifact
from agentflow.mcp.compression.artifact.comparing import Comparison, Row

__all__ = ["compared_as_json", "shown_as_json"]


def shown_as_json(artifact: Artifact, *, verified: bool) -> str:
    """The manifest, with where it lies and whether its files were checked."""
    facts = msgspec.to_builtins(artifact.manifest)
    return _text({"path": str(artifact.folder), "verified": verified, **facts})


def compared_as_json(comparison: Comparison) -> str:
    best = {column.name: list(comparison.best(column.name)) for column in comparison.columns}
    return _text(
        {
            "source": None if comparison.source is None else _row(comparison.source),
            "rows": [_row(row) for row in comparison.rows],
            "best": {name: rows for name, rows in best.items() if rows},
            "front": list(comparison.front),
            "front_of": [column.name for column in (comparison.quality, comparison.speed) if column] + ["bytes"],
            "notes": list(comparison.notes),
        }
    )


def _row(row: Row) -> dict[str, object]:
    return {**asdict(row), "values": dict(row.values)}


def _text(facts: object) -> str:
    return json.dumps(facts, indent=2, ensure_ascii=False)
