"""A log as a configuration describes it: every setting with its type, every mistake by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.support.audit_logs import KEY

from agentflow.core.observability.audit import (
    AuditSettings,
    RedactSettings,
    Retention,
    Rotation,
    open_audit,
    read_settings,
)
from agentflow.errors import ConfigurationError


def test_nothing_said_is_the_usual() -> None:
    assert read_settings({}) == AuditSettings()


def test_everything_can_be_said() -> None:
    said = {
        "path": "logs/audit",
        "key_env": "MY_KEY",
        "on_failure": "open",
        "fsync": "always",
        "rotate": {"size": 1_000_000, "age": 3600},
        "retain": {"age": 86_400, "size": 10_000_000, "at_least": 60},
        "anchor": {"path": "/mnt/heads.jsonl", "records": 10, "seconds": 5},
        "redact": {"emails": False, "patterns": {"ticket": r"T-\d+"}},
        "content": "none",
        "actor": "service",
        "exclusive": True,
    }
    assert read_settings(said) == AuditSettings(
        path="logs/audit",
        key_env="MY_KEY",
        on_failure="open",
        fsync="always",
        rotate=Rotation(size=1_000_000, age=3600),
        retain=Retention(age=86_400, size=10_000_000, at_least=60),
        anchor="/mnt/heads.jsonl",
        anchor_records=10,
        anchor_seconds=5,
        redact=RedactSettings(emails=False, patterns={"ticket": r"T-\d+"}),
        content="none",
        actor="service",
        exclusive=True,
    )
    assert read_settings({"anchor": "heads.jsonl"}).anchor == "heads.jsonl"
    assert read_settings({"fsync": 2}).fsync == 2.0
    assert read_settings({"rotate": {"size": None, "age": None}}).rotate == Rotation(size=None, age=None)


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ({"pth": "x"}, "audit has no setting named 'pth'"),
        ({"rotate": {"bytes": 1}}, "audit.rotate has no setting named 'bytes'"),
        ({"path": 3}, "audit.path must be text"),
        ({"path": " "}, "audit.path must be text"),
        ({"on_failure": "maybe"}, "audit.on_failure must be one of closed, open"),
        ({"content": True}, "audit.content must be one of"),
        ({"fsync": "often"}, "audit.fsync must be"),
        ({"fsync": True}, "audit.fsync must be"),
        ({"fsync": 0}, "fsync of an audit log"),
        ({"rotate": 5}, "audit.rotate must be a mapping"),
        ({"rotate": {"size": 1.5}}, "audit.rotate.size must be a whole number"),
        ({"rotate": {"size": 5}}, "at least 4096 bytes"),
        ({"retain": {"age": "long"}}, "audit.retain.age must be seconds"),
        ({"retain": {"age": float("inf")}}, "audit.retain.age must be seconds"),
        ({"exclusive": "no"}, "audit.exclusive must be true or false"),
        ({"redact": {"patterns": {"x": 1}}}, "audit.redact.patterns must be a mapping of texts"),
        ({"redact": {"patterns": {"x": "("}}}, "no regular expression"),
        ({"anchor": 3}, "audit.anchor.path must be text"),
    ],
)
def test_a_mistake_is_named(said: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        read_settings(said)


def test_the_key_stands_in_the_environment(tmp_path: Path) -> None:
    settings = AuditSettings(path=str(tmp_path / "log"), anchor=str(tmp_path / "heads.jsonl"))
    with pytest.raises(ConfigurationError, match="set AGENTFLOW_AUDIT_KEY"):
        open_audit(settings, {})
    with open_audit(settings, {"AGENTFLOW_AUDIT_KEY": KEY.replace(" ", "-").replace(",", "")}) as log:
        log.record("order.placed")
    assert (tmp_path / "heads.jsonl").exists()


def test_an_earlier_key_stands_behind_the_current_one(tmp_path: Path) -> None:
    settings = AuditSettings(path=str(tmp_path / "log"))
    old, new = "o" * 40, "n" * 40
    open_audit(settings, {"AGENTFLOW_AUDIT_KEY": old}).close()
    with open_audit(settings, {"AGENTFLOW_AUDIT_KEY": f"{new},{old}"}) as log:
        assert len(log.keys.all()) == 2
