"""What the audit log says of a run that is parked, answered, goes on, is forked, cancelled."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.audit_logs import open_log

from agentflow.core.auditing import (
    run_answered,
    run_begun,
    run_cancelled,
    run_ended,
    run_forked,
    run_parked,
    run_resumed,
)
from agentflow.core.observability.audit import AuditLog, AuditRecord, acting_as, read, use_audit
from agentflow.core.observability.audit.segment import Segment
from agentflow.errors import AuditError


@pytest.fixture
def log(tmp_path: Path) -> Iterator[AuditLog]:
    with open_log(tmp_path / "log") as log, use_audit(log):
        yield log


def records(log: AuditLog) -> list[AuditRecord]:
    return [entry.record for entry in read(log.folder.path) if not entry.record.action.startswith("audit.")]


async def test_each_stretch_of_a_run_is_an_act_with_its_own_end(log: AuditLog) -> None:
    run_parked(await run_begun("order", "r1", "acme", None), ["order/judge#1!wait:1"])
    run_ended(await run_resumed("order", "r1", "acme", 1), None)
    first, parked, again, end = records(log)
    assert [(each.action, each.outcome) for each in (first, parked, again, end)] == [
        ("run.started", "started"),
        ("run.parked", "ok"),
        ("run.resumed", "started"),
        ("run.ended", "ok"),
    ]
    assert first.data["act"] == parked.data["act"] != again.data["act"] == end.data["act"]
    assert parked.data["waits_for"] == ["order/judge#1!wait:1"]
    assert again.data["stretch"] == 1
    assert {(each.run, each.resource, each.tenant) for each in records(log)} == {("r1", "order", "acme")}


async def test_a_stretch_that_fails_is_an_error(log: AuditLog) -> None:
    run_ended(await run_resumed("order", "r1", None, 2), ValueError("x"))
    assert [(each.action, each.outcome) for each in records(log)] == [
        ("run.resumed", "started"),
        ("run.ended", "error"),
    ]


async def test_who_answered_which_question_is_recorded_and_the_answer_is_content(log: AuditLog) -> None:
    with acting_as("ada"):
        await run_answered("order", "r1", "acme", {"order/judge#1!wait:1": {"approve": "sentinel"}, "second": True})
    first, second = records(log)
    assert [each.data for each in (first, second)] == [{"interrupt": "order/judge#1!wait:1"}, {"interrupt": "second"}]
    assert (first.action, first.actor, first.run, first.tenant) == ("run.answered", "ada", "r1", "acme")
    assert "sentinel" not in json.dumps(first.data)
    assert log.folder is not None
    assert b"sentinel" not in b"".join(file.read_bytes() for file in log.folder.path.rglob("*.jsonl"))


async def test_who_answers_for_somebody_else_says_so(log: AuditLog) -> None:
    await run_answered("order", "r1", None, {"w": 1}, by="grace")
    await run_cancelled("order", "r1", None, by="grace")
    assert [(each.action, each.actor) for each in records(log)] == [
        ("run.answered", "grace"),
        ("run.cancelled", "grace"),
    ]


async def test_a_fork_says_of_what_it_was_made(log: AuditLog) -> None:
    await run_forked("order", "r2", None, source="r1", at="order/judge#1")
    await run_forked("order", "r3", None, source="r1", at=None)
    assert [(each.run, each.data) for each in records(log)] == [
        ("r2", {"from": "r1", "at": "order/judge#1"}),
        ("r3", {"from": "r1"}),
    ]


async def test_closed_to_failure_nobody_is_told_that_it_may_be_done(
    log: AuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Segment, line: bytes) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Segment, "append", broken)
    with pytest.raises(AuditError):
        await run_answered("order", "r1", None, {"w": 1})
    with pytest.raises(AuditError):
        await run_resumed("order", "r1", None, 1)


async def test_without_a_log_nothing_happens() -> None:
    act = await run_resumed("order", "r1", None, 1)
    assert act is None
    run_parked(act, ["w"])
    run_ended(act, None)
    await run_answered("order", "r1", None, {"w": 1})
    await run_forked("order", "r2", None, source="r1", at=None)
    await run_cancelled("order", "r1", None)
