"""Writes docs/events.schema.json, and the table of kinds in docs/observability.md between its marks."""

from __future__ import annotations

import json
from pathlib import Path

from agentflow.core.observability.kinds import event_schema, kinds_table

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = ROOT / "docs" / "events.schema.json"
PAGE = ROOT / "docs" / "observability.md"
BEGIN, END = "<!-- kinds: written by scripts/event_kinds.py -->", "<!-- end of kinds -->"


def schema_text() -> str:
    return json.dumps(event_schema(), indent=2) + "\n"


def filled(page: str) -> str:
    """The page with the table as it should be."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{PAGE.name} lacks the marks {BEGIN} and {END}")
    return f"{before}{begin}\n\n{kinds_table()}\n\n{end}{after}"


def main() -> None:
    SCHEMA.write_text(schema_text(), encoding="utf-8")
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
