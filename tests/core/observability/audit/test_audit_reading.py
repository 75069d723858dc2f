"""Reading picks records, over all chains and in the order of time; an export can be checked to the byte."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from tests.support.audit_logs import KEY, OTHER_KEY, open_log, segments_of

from agentflow.clock import VirtualClock
from agentflow.core.observability.audit import AuditKeys, Entry, Selection, export, read, verify_export
from agentflow.core.observability.audit.exporting import manifest_of
from agentflow.errors import AuditError

KEYS = AuditKeys(KEY)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Two chains that were written at the same time, a record a second, in turns."""
    clock = VirtualClock()
    with open_log(tmp_path / "log", clock) as one, open_log(tmp_path / "log", clock) as two:
        for number in range(6):
            clock.advance(1)
            (one, two)[number % 2].record(
                ("model.call", "tool.call")[number // 3],
                resource=f"r{number}",
                actor=("ada", "bob")[number % 2],
                tenant="acme",
                run=f"run-{number // 2}",
                outcome=("ok", "error")[number // 5],
                key="f" * 16,
                trace="t1",
            )
    return tmp_path / "log"


def resources(path: Path, **selection: Any) -> list[str]:
    return [e.record.resource or "" for e in read(path, Selection(**selection)) if e.record.action[:6] != "audit."]


def test_all_chains_are_read_in_the_order_of_time(path: Path) -> None:
    assert resources(path) == ["r0", "r1", "r2", "r3", "r4", "r5"]
    entries = [entry for entry in read(path) if entry.record.resource in ("r0", "r1")]
    assert [(entry.chain, entry.file, entry.line) for entry in entries] == [
        ("chain-1", "audit-00000001.jsonl", 3),
        ("chain-2", "audit-00000001.jsonl", 3),
    ]


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ({"action": "model.call"}, "r0 r1 r2"),
        ({"action": "tool."}, "r3 r4 r5"),
        ({"action": "tool"}, ""),
        ({"actor": "ada"}, "r0 r2 r4"),
        ({"actor": "ada", "action": "model."}, "r0 r2"),
        ({"tenant": "acme", "trace": "t1", "key": "f" * 16}, "r0 r1 r2 r3 r4 r5"),
        ({"tenant": "other"}, ""),
        ({"resource": "r3"}, "r3"),
        ({"run": "run-1"}, "r2 r3"),
        ({"outcome": "error"}, "r5"),
        ({"since": 1_700_000_003.0}, "r2 r3 r4 r5"),
        ({"until": 1_700_000_003.0}, "r0 r1"),
        ({"since": 1_700_000_002.0, "until": 1_700_000_004.0}, "r1 r2"),
        ({"action": "model.", "last": 2}, "r1 r2"),
    ],
)
def test_records_are_picked(path: Path, selection: dict[str, Any], expected: str) -> None:
    assert resources(path, **selection) == expected.split()


@pytest.mark.parametrize("line", [b"{}", b"[1]", b"\xff", b'{"a":' * 5_000, b"null"])
def test_a_line_that_is_no_record_is_passed_over(path: Path, line: bytes) -> None:
    file = segments_of(path)[0]
    file.write_bytes(line + b"\n" + file.read_bytes())
    assert resources(path) == ["r0", "r1", "r2", "r3", "r4", "r5"]


def test_a_record_with_an_impossible_time_is_passed_over(path: Path) -> None:
    file = segments_of(path)[0]
    lines = file.read_bytes().splitlines(keepends=True)
    fields = json.loads(lines[2])
    file.write_bytes(b"".join([*lines[:2], json.dumps({**fields, "time": "soon"}).encode() + b"\n", *lines[3:]]))
    assert resources(path, since=0.0) == ["r1", "r2", "r3", "r4", "r5"]


def test_where_there_is_no_log_nothing_is_read(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="there is no audit log"):
        list(read(tmp_path))


def test_an_export_is_the_records_and_a_manifest_that_says_what_they_are(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    facts = export(path, target, KEYS, Selection(action="model."), now=1_700_000_100.0)
    lines = [json.loads(line) for line in target.read_text().splitlines()]
    assert [line["resource"] for line in lines] == ["r0", "r1", "r2"]
    assert (facts["records"], facts["first"], facts["last"], facts["sound"]) == (3, "chain-1/3", "chain-1/4", True)
    assert facts["selection"] == {"action": "model."}
    assert verify_export(target, KEYS)


def test_lines_of_an_export_are_those_of_the_log(path: Path, tmp_path: Path) -> None:
    export(path, tmp_path / "out.jsonl", KEYS, Selection(), now=0.0)
    exported = set((tmp_path / "out.jsonl").read_bytes().splitlines())
    assert exported == {
        line for chain in (1, 2) for file in segments_of(path, chain) for line in file.read_bytes().splitlines()
    }


def test_a_changed_export_or_manifest_is_found(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    export(path, target, KEYS, Selection(), now=0.0)
    whole, manifest = target.read_bytes(), manifest_of(target).read_bytes()
    target.write_bytes(whole.replace(b"bob", b"eve"))
    assert not verify_export(target, KEYS)
    target.write_bytes(whole)
    manifest_of(target).write_bytes(manifest.replace(b'"sound":true', b'"sound":false'))
    assert not verify_export(target, KEYS)
    manifest_of(target).write_bytes(manifest)
    assert verify_export(target, KEYS)
    assert not verify_export(target, AuditKeys(OTHER_KEY))


def test_an_export_of_a_log_that_is_not_sound_says_so(path: Path, tmp_path: Path) -> None:
    file = segments_of(path)[0]
    file.write_bytes(file.read_bytes().replace(b"ada", b"eve"))
    assert export(path, tmp_path / "out.jsonl", KEYS, Selection(), now=0.0)["sound"] is False


def test_csv_has_a_column_a_fact_and_no_formulas(path: Path, tmp_path: Path) -> None:
    with open_log(path) as log:
        log.record("order.placed", actor='=cmd|" /C calc"!A0', resource="+1", tenant="@x", data={"a": [1, 'x,"']})
    facts = export(path, tmp_path / "out.csv", KEYS, Selection(action="order."), format="csv", now=0.0)
    with (tmp_path / "out.csv").open(newline="") as file:
        [row] = csv.DictReader(file)
    assert row["actor"] == '\'=cmd|" /C calc"!A0'
    assert (row["resource"], row["tenant"], row["run"]) == ("'+1", "'@x", "")
    assert json.loads(row["data"]) == {"a": [1, 'x,"']}
    assert facts["records"] == 1
    assert verify_export(tmp_path / "out.csv", KEYS)


def test_an_entry_knows_its_place(path: Path) -> None:
    entry = next(iter(read(path)))
    assert isinstance(entry, Entry)
    assert (entry.chain, entry.line) == ("chain-1", 1)
