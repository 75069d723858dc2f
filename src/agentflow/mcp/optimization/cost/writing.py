"""Writes what was found: a page, a picture, a patch for models.yml."""

from __future__ import annotations

from pathlib import Path

from agentflow.mcp.optimization.cost.findings import Findings
from agentflow.mcp.optimization.cost.front_picture import write_front
from agentflow.mcp.optimization.cost.page import page_of
from agentflow.mcp.optimization.cost.patch import patch_of

__all__ = ["write_patch", "write_picture", "write_report"]


def write_report(findings: Findings, path: str | Path) -> None:
    """The page: HTML in one file that asks nothing of any server."""
    Path(path).write_text(page_of(findings), encoding="utf-8")


def write_picture(findings: Findings, path: str | Path) -> None:
    """Quality against cost, as a PNG. Raises MissingExtraError without matplotlib (extra `report`)."""
    write_front(findings, Path(path))


def write_patch(findings: Findings, path: str | Path) -> None:
    """What of it models.yml can say, as a file to be laid over the others."""
    Path(path).write_text(patch_of(findings), encoding="utf-8")
