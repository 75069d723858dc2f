"""What call sites call: an act has a beginning and an end, and without a log in the seat nothing happens."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.audit_logs import open_log

from agentflow.core.observability.audit import AuditAction, AuditLog, AuditRecord, Deed, current_audit, read, use_audit
from agentflow.core.observability.audit.recording import Act, began, began_blocking, ended, key_used, noted
from agentflow.core.observability.audit.segment import Segment
from agentflow.errors import AuditError, CircuitOpenError, LimitExceededError

CALL = Deed(AuditAction.MODEL_CALL, resource="openai/gpt-4o", run="r1", tenant="acme", data={"round": 1})
KEY = "sk-sentinel-0123456789abcdefghijklmn"


@pytest.fixture
def log(tmp_path: Path) -> Iterator[AuditLog]:
    with open_log(tmp_path / "log") as log, use_audit(log):
        yield log


def records(log: AuditLog) -> list[AuditRecord]:
    return [entry.record for entry in read(log.folder.path) if not entry.record.action.startswith("audit.")]


async def test_an_act_is_recorded_before_it_and_after_it(log: AuditLog) -> None:
    act = await began(CALL)
    assert [record.outcome for record in records(log)] == ["started"]
    ended(act, data={"output_tokens": 3}, content="the answer")
    before, after = records(log)
    assert (before.outcome, after.outcome) == ("started", "ok")
    assert before.data["act"] == after.data["act"]
    assert (before.data["round"], after.data["output_tokens"]) == (1, 3)
    assert (after.resource, after.run, after.tenant) == ("openai/gpt-4o", "r1", "acme")
    assert (before.content, after.content is None) == (None, False)


def test_acts_are_told_apart(log: AuditLog) -> None:
    first, second = began_blocking(CALL), began_blocking(CALL)
    ended(second)
    ended(first)
    numbers = [record.data["act"] for record in records(log)]
    assert numbers[0] == numbers[3]
    assert numbers[1] == numbers[2]
    assert numbers[0] != numbers[1]


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ValueError("x"), "error"),
        (asyncio.CancelledError(), "cancelled"),
        (KeyboardInterrupt(), "cancelled"),
        (GeneratorExit(), "cancelled"),
        (CircuitOpenError("b", "open"), "refused"),
        (LimitExceededError("tokens", 1, 2), "refused"),
    ],
)
def test_the_outcome_is_told_from_the_error(log: AuditLog, error: BaseException, outcome: str) -> None:
    ended(began_blocking(CALL), error=error)
    last = records(log)[-1]
    assert (last.outcome, last.data["error"]) == (outcome, type(error).__name__)


def test_an_outcome_can_be_said(log: AuditLog) -> None:
    ended(began_blocking(CALL), outcome="refused")
    assert records(log)[-1].outcome == "refused"


def test_both_records_have_what_the_action_must_say(log: AuditLog) -> None:
    ended(began_blocking(Deed(AuditAction.ARTIFACT_REGISTERED, resource="edge/x", data={"digest": "d", "size": 1})))
    assert [record.data["digest"] for record in records(log)] == ["d", "d"]


async def test_without_a_log_nothing_happens() -> None:
    assert current_audit() is None
    act = await began(CALL)
    assert act is None
    ended(act)
    await noted(CALL)
    assert key_used("openai", KEY) is None


async def test_a_note_is_one_record(log: AuditLog) -> None:
    await noted(Deed(AuditAction.ROUTE_TAKEN, resource="fast", data={"of": ["fast", "gpt-4o"]}))
    assert [(record.action, record.outcome) for record in records(log)] == [("route.taken", "ok")]


def test_a_keys_first_use_is_recorded_and_every_use_has_its_fingerprint(log: AuditLog) -> None:
    fingerprints = {key_used("openai", KEY) for _ in range(3)}
    assert len(fingerprints) == 1
    [record] = records(log)
    assert (record.action, record.resource, record.key) == ("key.used", "openai", fingerprints.pop())
    key_used("openai", f"{KEY}2")
    key_used("groq", KEY)
    assert len(records(log)) == 3
    assert KEY.encode() not in b"".join(f.read_bytes() for f in log.folder.path.rglob("*") if f.is_file())


async def test_closed_to_failure_the_act_is_not_begun_and_its_end_never_raises(
    log: AuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    act = await began(CALL)

    def broken(self: Segment, line: bytes) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Segment, "append", broken)
    with pytest.raises(AuditError, match=r"so model.call was not done"):
        await began(CALL)
    with pytest.raises(AuditError):
        key_used("openai", KEY)
    ended(act)
    assert (log.status().refused, log.status().lost) == (2, 1)
    monkeypatch.undo()
    assert key_used("openai", KEY) is not None
    assert [record.action for record in records(log)].count("key.used") == 1


def test_an_act_that_outlives_its_log_ends_quietly(log: AuditLog) -> None:
    act = began_blocking(CALL)
    log.close()
    ended(act)
    assert isinstance(act, Act)


def test_a_seat_gives_the_log_before_it_back(tmp_path: Path) -> None:
    with open_log(tmp_path / "a") as a, open_log(tmp_path / "b") as b:
        with use_audit(a):
            with use_audit(b):
                assert current_audit() is b
            assert current_audit() is a
            with use_audit(None):
                assert current_audit() is None
        assert current_audit() is None
