"""AES-GCM in the audit log: contents that open with their key, and not without; `cryptography` is needed to use it, and
not to import it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tests.support.audit_logs import KEY, open_log

from agentflow.core.observability.audit import Selection, read, verify
from agentflow.core.observability.audit.record import AuditRecord
from agentflow.errors import ConfigurationError, MissingExtraError
from agentflow.integrations.aes_gcm import AesGcm, from_settings

PROMPT = {"messages": [{"role": "user", "content": "My diagnosis, please: ada@example.org"}]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log"


def recorded(path: Path) -> AuditRecord:
    with open_log(path, content="encrypted", cipher=AesGcm()) as log:
        log.record("model.call", resource="openai/gpt-4o", content=PROMPT, subject="patient/17", tenant="clinic")
    return next(iter(read(path, Selection(action="model.call")))).record


def test_encrypted_content_opens_with_its_key_and_not_without(path: Path) -> None:
    record = recorded(path)
    assert record.content is not None
    assert b"diagnosis" not in b"".join(file.read_bytes() for file in path.rglob("*") if file.is_file())
    with open_log(path, content="encrypted", cipher=AesGcm()) as log:
        opened = log.contents.open(record.content)
        assert opened is not None
        assert b"My diagnosis, please: [redacted:email]" in opened
        log.erase("patient/17")
        assert log.contents.open(record.content) is None
    assert verify(path, KEY).sound


def test_a_changed_ciphertext_does_not_open(path: Path) -> None:
    record = recorded(path)
    with open_log(path, content="encrypted", cipher=AesGcm()) as log:
        for change in ({"text": "AAAA" + str((record.content or {})["text"])[4:]}, {"digest": "0" * 64}, {"text": "!"}):
            with pytest.raises(ValueError):
                log.contents.open({**(record.content or {}), **change})


def test_what_is_too_large_to_keep_has_its_digest(path: Path) -> None:
    with open_log(path, content="encrypted", cipher=AesGcm()) as log:
        log.record("order.placed", content="x" * 2_000_000)
    [entry] = read(path, Selection(action="order.placed"))
    assert set(entry.record.content or {}) == {"bytes", "digest", "subject"}


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)
    with pytest.raises(MissingExtraError, match=r"agentflow-engine\[audit\]"):
        AesGcm()


def test_the_cipher_takes_no_settings() -> None:
    assert from_settings({}).name == "aes-256-gcm"
    with pytest.raises(ConfigurationError, match="bits"):
        from_settings({"bits": 128})
