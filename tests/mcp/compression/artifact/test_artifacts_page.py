"""docs/artifacts.md is true: it names every field of the manifest, every limit of the gate, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from agentflow.mcp.compression.artifact import Gate
from agentflow.mcp.compression.artifact import manifest as manifest

PAGE = (Path(__file__).resolve().parents[4] / "docs" / "artifacts.md").read_text(encoding="utf-8")


def _rows(title: str) -> list[str]:
    """The first cells of the table that stands under a heading."""
    section = re.split(r"^#+ ", PAGE.split(f"# {title}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    cells = re.findall(r"^\| ([^|]+) \|", section, re.MULTILINE)
    return [cell for cell in cells if "`" in cell]


@pytest.mark.parametrize("name", list(manifest.__all__))
def test_each_part_of_the_manifest_is_told_field_by_field_in_order(name: str) -> None:
    fields = [field.name for field in msgspec.structs.fields(getattr(manifest, name))]
    assert [cell.strip("`") for cell in _rows(name)] == fields


def test_each_limit_of_the_gate_is_told() -> None:
    told = [name for cell in _rows("The gate") for name in re.findall(r"`(\w+)`", cell)]
    assert sorted(told) == sorted(Gate.__dataclass_fields__)
