"""`agentflow audit`: check, show, export, erase."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.support.audit_logs import open_log, segments_of

from agentflow.core.observability.audit import FileAnchor, verify
from agentflow.integrations.aes_gcm import AesGcm

KEY = "0123456789abcdef0123456789abcdef0123456789abcdef"


@pytest.fixture
def log(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A log at its usual place, with its key in the environment."""
    monkeypatch.setenv("AGENTFLOW_AUDIT_KEY", KEY)
    path = place / ".agentflow" / "audit"
    with open_log(path, key=KEY, content="encrypted", cipher=AesGcm()) as log:
        log.record("model.call", actor="ada", resource="openai/gpt-4o", tenant="acme", run="r1", data={"tokens": 12})
        log.record("tool.call", actor="bob", resource="search", outcome="error", content="a question", subject="eve")
    return path


def test_a_sound_log_is_exit_code_0_and_says_how_many_records_it_has(invoke, log: Path) -> None:
    shown = invoke("audit", "verify")
    assert shown.exit_code == 0
    assert shown.stdout == "sound: 5 records in 1 file of 1 chain\n"
    assert "without --anchor" in shown.stderr


def test_a_fault_is_exit_code_1_and_is_named(invoke, log: Path) -> None:
    file = segments_of(log)[0]
    file.write_bytes(file.read_bytes().replace(b"ada", b"eve"))
    shown = invoke("audit", "verify")
    assert shown.exit_code == 1
    assert "altered: chain-1/audit-00000001.jsonl line 3: record 3 does not bear its seal" in shown.stdout
    assert "NOT SOUND" in shown.stdout
    told = json.loads(invoke("audit", "verify", "--json").stdout)
    assert (told["sound"], told["faults"][0]["line"]) == (False, 3)


def test_a_missing_key_is_exit_code_3_and_a_missing_log_1(invoke, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert invoke("audit", "verify", "--path", "nowhere").exit_code == 1
    monkeypatch.delenv("AGENTFLOW_AUDIT_KEY")
    shown = invoke("audit", "verify")
    assert shown.exit_code == 3
    assert "set AGENTFLOW_AUDIT_KEY" in shown.stderr
    monkeypatch.setenv("OTHER", KEY)
    assert invoke("audit", "verify", "--key-env", "OTHER").exit_code == 0


def test_show_prints_a_line_a_record(invoke, log: Path) -> None:
    lines = invoke("audit", "show").stdout.splitlines()
    assert len(lines) == 5
    assert lines[2].split() == [
        "2023-11-14T22:13:20.000Z", "chain-1/3", "model.call", "ok", "ada", "openai/gpt-4o",
        "tenant=acme", "run=r1", "tokens=12",
    ]  # fmt: skip


def test_show_picks_and_counts(invoke, log: Path) -> None:
    assert len(invoke("audit", "show", "--last", "2").stdout.splitlines()) == 2
    assert len(invoke("audit", "show", "--action", "audit.", "--all").stdout.splitlines()) == 3
    assert "search" in invoke("audit", "show", "--actor", "bob", "--outcome", "error").stdout
    assert invoke("audit", "show", "--since", "1h").stdout == ""
    assert invoke("audit", "show", "--until", "2020-01-01").stdout == ""


def test_show_needs_no_key(invoke, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AGENTFLOW_AUDIT_KEY")
    assert invoke("audit", "show").exit_code == 0


def test_show_as_json_opens_contents_when_asked(invoke, log: Path) -> None:
    [line] = invoke("audit", "show", "--action", "tool.", "--json").stdout.splitlines()
    assert "opened" not in json.loads(line)
    [line] = invoke("audit", "show", "--action", "tool.", "--json", "--content").stdout.splitlines()
    assert json.loads(line)["opened"] == "a question"


def test_no_sign_of_a_record_reaches_the_terminal_as_a_command(invoke, place: Path) -> None:
    path = place / ".agentflow" / "audit"
    with open_log(path, key=KEY) as log:
        log.record("order.placed", actor="\x1b[31mred\x07")
    assert "\x1b" not in invoke("audit", "show").stdout


def test_an_export_can_be_checked(invoke, log: Path, place: Path) -> None:
    shown = invoke("audit", "export", "out.csv", "--action", "model.")
    assert (shown.exit_code, shown.stdout) == (0, "1 record in out.csv, signed in out.csv.manifest.json\n")
    assert invoke("audit", "verify", "out.csv").stdout == "sound: out.csv is as it was exported\n"
    (place / "out.csv").write_text("something else")
    shown = invoke("audit", "verify", "out.csv")
    assert shown.exit_code == 1
    assert "is not what out.csv.manifest.json says" in shown.stderr


def test_an_export_of_a_log_that_is_not_sound_warns(invoke, log: Path) -> None:
    file = segments_of(log)[0]
    file.write_bytes(file.read_bytes().replace(b"ada", b"eve"))
    shown = invoke("audit", "export", "out.jsonl")
    assert shown.exit_code == 1
    assert "not sound" in shown.stderr


def test_erase_drops_a_key_and_leaves_the_log_sound(invoke, log: Path) -> None:
    assert invoke("audit", "erase", "eve", input="n\n").exit_code != 0
    shown = invoke("audit", "erase", "eve", "--yes")
    assert (shown.exit_code, shown.stdout) == (0, "erased\n")
    [line] = invoke("audit", "show", "--action", "tool.", "--json", "--content").stdout.splitlines()
    assert json.loads(line)["opened"] is None
    assert invoke("audit", "erase", "eve", "--yes").exit_code == 1
    assert verify(log, KEY).sound
    assert "audit.settings" not in invoke("audit", "show").stdout


def test_the_newest_anchor_is_known(invoke, log: Path, place: Path) -> None:
    head = (log / "chain-1" / "head.json").read_bytes()
    (place / "heads.jsonl").write_bytes(head)
    shown = invoke("audit", "verify", "--anchor", "heads.jsonl")
    assert (shown.exit_code, shown.stderr) == (0, "")
    file = segments_of(log)[0]
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:-1]))
    assert (
        "truncated: chain-1/audit-00000001.jsonl line 5" in invoke("audit", "verify", "--anchor", "heads.jsonl").stdout
    )


def test_the_log_of_models_yml_is_the_one_that_is_meant(invoke, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "models.yml").write_text("audit: {path: logs/trail, key_env: TRAIL_KEY, anchor: heads.jsonl}\n")
    (place / ".env").write_text(f"TRAIL_KEY={KEY}\n")
    with open_log(place / "logs" / "trail", key=KEY, anchors=[FileAnchor(place / "heads.jsonl")]) as log:
        log.record("order.placed")
    shown = invoke("audit", "verify")
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert len(invoke("audit", "show").stdout.splitlines()) == 4


def test_an_anchor_that_is_not_there_is_said(invoke, log: Path, place: Path) -> None:
    (place / "models.yml").write_text("audit: {anchor: elsewhere/heads.jsonl}\n")
    shown = invoke("audit", "verify")
    assert shown.exit_code == 0
    assert f"note: the anchor of models.yml is not there: {place / 'elsewhere' / 'heads.jsonl'}" in shown.stderr


def test_a_named_folder_needs_no_sound_models_yml(invoke, log: Path, place: Path) -> None:
    (place / "models.yml").write_text("models: [")
    assert invoke("audit", "verify").exit_code == 3
    assert invoke("audit", "verify", "--path", str(log)).exit_code == 0
    assert invoke("audit", "show", "--path", str(log)).exit_code == 0
