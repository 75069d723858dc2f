"""Contents: kept as a digest or encrypted, and forgotten by dropping a key, while the log stays sound."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.support.audit_logs import KEY, open_log

from agentflow.core.observability.audit import AuditLog, AuditRecord, Selection, read, verify
from agentflow.core.observability.audit.content import ContentKeys
from agentflow.errors import ConfigurationError

PROMPT = {"messages": [{"role": "user", "content": "My diagnosis, please: ada@example.org"}]}
CLEANED = {"messages": [{"role": "user", "content": "My diagnosis, please: [redacted:email]"}]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log"


def recorded(path: Path, **options: Any) -> AuditRecord:
    with open_log(path, **options) as log:
        log.record("model.call", resource="openai/gpt-4o", content=PROMPT, subject="patient/17", tenant="clinic")
    return next(iter(read(path, Selection(action="model.call")))).record


def reopened(path: Path, **options: Any) -> AuditLog:
    return open_log(path, **options)


def test_a_digest_says_whether_this_was_it_and_nothing_else(path: Path) -> None:
    record = recorded(path)
    assert set(record.content or {}) == {"bytes", "digest", "subject"}
    assert "patient" not in str(record.content)
    with reopened(path) as log:
        assert record.content is not None
        assert log.contents.matches(record.content, CLEANED) is True  # type: ignore[arg-type]
        assert log.contents.matches(record.content, "another") is False
        assert log.contents.open(record.content) is None


def test_the_same_content_of_two_subjects_has_two_digests(path: Path) -> None:
    with open_log(path) as log:
        for subject in ("a", "b", "a"):
            log.record("order.placed", content="the same", subject=subject)
    one, two, three = [entry.record.content for entry in read(path, Selection(action="order.placed"))]
    assert one is not None
    assert two is not None
    assert one["digest"] != two["digest"]
    assert one == three


def test_an_erased_digest_means_nothing_and_the_log_is_sound(path: Path) -> None:
    record = recorded(path)
    assert record.content is not None
    with reopened(path) as log:
        assert log.erase("patient/17") is True
        assert log.contents.matches(record.content, CLEANED) is None  # type: ignore[arg-type]
        assert log.erase("patient/17") is False
    assert verify(path, KEY).sound
    erased = [entry.record for entry in read(path, Selection(action="audit.erased"))]
    assert [each.outcome for each in erased] == ["ok", "error"]
    assert "patient" not in str(erased)


def test_what_is_recorded_after_an_erasure_has_a_new_key(path: Path) -> None:
    record = recorded(path)
    with reopened(path) as log:
        log.erase("patient/17")
        log.record("model.call", resource="openai/gpt-4o", content=PROMPT, subject="patient/17")
    again = [entry.record.content for entry in read(path, Selection(action="model.call"))][-1]
    assert record.content is not None
    assert again is not None
    assert again["subject"] == record.content["subject"]
    assert again["digest"] != record.content["digest"]


def test_without_content_nothing_of_it_is_kept(path: Path) -> None:
    assert recorded(path, content="none").content is None
    assert not (path / "keys").exists()


def test_without_a_subject_it_is_the_tenants_content(path: Path) -> None:
    with open_log(path) as log:
        log.record("order.placed", content="x", tenant="acme")
        log.record("order.placed", content="x")
        assert log.erase("acme") is True
        assert log.erase("-") is True


def test_encrypting_needs_a_cipher(path: Path) -> None:
    with pytest.raises(ConfigurationError, match="AesGcm"):
        open_log(path, content="encrypted")


def test_two_processes_make_one_key(tmp_path: Path) -> None:
    one, two = ContentKeys(tmp_path), ContentKeys(tmp_path)
    assert one.get_or_make("a" * 32) == two.get_or_make("a" * 32)
    assert two.drop("a" * 32)
    assert one.get("a" * 32) is None


def test_half_a_key_of_a_killed_process_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / f"{'a' * 32}.key").write_bytes(b"half")
    assert len(ContentKeys(tmp_path).get_or_make("a" * 32)) == 32


@pytest.mark.parametrize("subject", ["", "../x", "A" * 32, "a" * 31])
def test_a_subject_is_no_path(tmp_path: Path, subject: str) -> None:
    with pytest.raises(ValueError, match="hexadecimal"):
        ContentKeys(tmp_path).get(subject)
