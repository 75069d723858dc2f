"""Writes the tables of tests/support/faults/table.py into docs/faults.md, between its marks."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "faults.md"


def main() -> None:
    sys.path.insert(0, str(ROOT))
    from tests.support.faults.table import filled

    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
