"""Hands records on, with a signed statement of what was handed on.

    export(path, "june.jsonl", keys, Selection(since=…, until=…))    ──▶  june.jsonl and june.jsonl.manifest.json
    verify_export("june.jsonl", keys)                                ──▶  True: not a byte was changed since

JSON Lines are the records as they stand in the log, so each can still be checked by its seal. In CSV a text that a
spreadsheet would take for a formula has an apostrophe before it.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from io import StringIO
from pathlib import Path
from typing import Final, Literal, TypeAlias

from agentflow.core.observability.audit.canonical import canonical
from agentflow.core.observability.audit.keys import AuditKeys
from agentflow.core.observability.audit.reading import Entry, Selection, read
from agentflow.core.observability.audit.record import time_text
from agentflow.core.observability.audit.statements import read_statement, signed
from agentflow.core.observability.audit.verifying import verify
from agentflow.core.observability.plain import Plain

__all__ = ["ExportFormat", "export", "manifest_of", "verify_export"]

ExportFormat: TypeAlias = Literal["jsonl", "csv"]

_COLUMNS: Final[Sequence[str]] = (
    "chain seq time action actor tenant resource outcome run trace key content data".split()
)
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


def export(
    path: str | os.PathLike[str],
    target: str | os.PathLike[str],
    keys: AuditKeys,
    selection: Selection,
    *,
    format: ExportFormat = "jsonl",
    now: float,
) -> dict[str, Plain]:
    """Write the records and, beside them, the manifest, whose facts are returned: `sound` says how the log was found.

    Raises AuditError where there is no log, and OSError.
    """
    found = verify(path, keys)
    file = Path(target)
    digest = hashlib.sha256()
    count = 0
    first = last = None
    with file.open("wb") as out:
        for entry, data in _rendered(read(path, selection), format):
            digest.update(data)
            out.write(data)
            if entry is not None:
                count += 1
                first = first or entry
                last = entry
        out.flush()
        os.fsync(out.fileno())
    facts: dict[str, Plain] = {
        "exported": time_text(now),
        "first": None if first is None else f"{first.chain}/{first.record.seq}",
        "format": format,
        "last": None if last is None else f"{last.chain}/{last.record.seq}",
        "records": count,
        "selection": {name: value for name, value in asdict(selection).items() if value is not None},
        "sha256": digest.hexdigest(),
        "sound": found.sound,
        "version": 1,
    }
    manifest_of(file).write_bytes(signed("export", facts, keys.current) + b"\n")
    return facts


def manifest_of(target: Path) -> Path:
    return target.with_name(f"{target.name}.manifest.json")


def verify_export(target: str | os.PathLike[str], keys: AuditKeys) -> bool:
    """Whether the file is, to the byte, what the manifest beside it says. Raises OSError where one is missing."""
    file = Path(target)
    facts = read_statement("export", manifest_of(file).read_bytes().removesuffix(b"\n"), keys)
    if facts is None:
        return False
    digest = hashlib.sha256()
    with file.open("rb") as data:
        while block := data.read(1 << 20):
            digest.update(block)
    return digest.hexdigest() == facts["sha256"]


def _rendered(entries: Iterable[Entry], format: ExportFormat) -> Iterable[tuple[Entry | None, bytes]]:
    if format == "jsonl":
        return ((entry, canonical(entry.record.plain()) + b"\n") for entry in entries)
    return _rows(entries)


def _rows(entries: Iterable[Entry]) -> Iterable[tuple[Entry | None, bytes]]:
    buffer = StringIO()
    write: Callable[[Sequence[str]], object] = csv.writer(buffer).writerow

    def row(cells: Sequence[str]) -> bytes:
        buffer.seek(0)
        buffer.truncate()
        write(cells)
        return buffer.getvalue().encode("utf-8")

    yield None, row(_COLUMNS)
    for entry in entries:
        yield entry, row([entry.chain, *(_cell(getattr(entry.record, name)) for name in _COLUMNS[1:])])


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        return json.dumps(value, sort_keys=True, ensure_ascii=False) if value else ""
    text = str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text
