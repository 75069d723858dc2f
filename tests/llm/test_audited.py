"""What the engine records where there is an audit log: runs, requests to models, calls of tools, keys."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.bench import Bench, Slow

from agentflow.core import AsyncFlow, ExecutionEvent, SharedState, node, observe
from agentflow.core.observability.audit import AuditLog, Entry, read, use_audit, verify
from agentflow.errors import AuditError, NodeError, ServerError
from agentflow.llm.content import ToolCall
from agentflow.llm.messages import Response, StreamChunk, Usage
from agentflow.llm.providers.scripted import ScriptedAnswer, ScriptedProvider

KEY = "an audit key that is long enough"


@pytest.fixture
def log(tmp_path: Path) -> Iterator[AuditLog]:
    """A log in the seat of the process, whose own records are left out of sight."""
    log = AuditLog(tmp_path / "audit", KEY, background=False, actor="alice")
    with use_audit(log):
        yield log
    log.close()
    assert verify(tmp_path / "audit", KEY).sound


def bench_of(tmp_path: Path, *answers: ScriptedAnswer, yml: str = "", **environ: str) -> Bench:
    return Bench(tmp_path, {"toy": ScriptedProvider(list(answers), name="toy")}, yml, environ=environ)


def told(log: AuditLog) -> list[Entry]:
    return [entry for entry in read(log.folder.path) if not entry.record.action.startswith(("audit.", "config."))]


def said(log: AuditLog) -> list[tuple[str, str, str | None]]:
    return [(each.record.action, each.record.outcome, each.record.resource) for each in told(log)]


def test_a_request_is_recorded_before_and_after_it_is_made(tmp_path: Path, log: AuditLog) -> None:
    bench = bench_of(tmp_path, Response("Hello", "m", "toy", usage=Usage(3, 5), request_id="r1", cost=0.25))
    bench.run(bench.ask().tenant("acme").execute())
    assert said(log) == [("model.call", "started", "toy/m"), ("model.call", "ok", "toy/m")]
    before, after = [each.record for each in told(log)]
    assert (before.actor, before.tenant, before.data["act"]) == ("alice", "acme", after.data["act"])
    facts = {name: after.data[name] for name in ("input_tokens", "output_tokens", "cost", "request_id")}
    assert facts == {"input_tokens": 3, "output_tokens": 5, "cost": 0.25, "request_id": "r1"}


@pytest.mark.parametrize("streaming", [False, True])
def test_what_failed_and_what_was_left_is_recorded_as_such(tmp_path: Path, log: AuditLog, streaming: bool) -> None:
    bench = bench_of(tmp_path, ServerError("down"), ["one ", "two"])

    async def main() -> None:
        from agentflow.core import RetryPolicy

        with pytest.raises(ServerError):
            await bench.ask().retry(RetryPolicy(max_attempts=1)).streaming(streaming).execute()
        async with bench.ask().execute_streaming() as stream:
            async for _ in stream:
                break

    bench.run(main())
    assert [outcome for _, outcome, _ in said(log)] == ["started", "error", "started", "cancelled"]


def test_a_cancelled_request_is_recorded_without_waiting(tmp_path: Path, log: AuditLog) -> None:
    bench = Bench(tmp_path, {"toy": Slow(100.0)})

    async def main() -> None:
        task = asyncio.create_task(bench.ask().execute())
        await asyncio.sleep(1.0)
        task.cancel()
        await asyncio.wait([task])

    bench.run(main())
    assert [outcome for _, outcome, _ in said(log)] == ["started", "cancelled"]


def test_a_run_is_recorded_with_all_that_it_does(tmp_path: Path, log: AuditLog) -> None:
    bench = bench_of(tmp_path, Response((ToolCall("c1", "add", {"a": 1}),), "m", "toy"), "done")

    async def add(a: int) -> int:
        """Add."""
        return a + 1

    @node
    async def ask(state: SharedState) -> None:
        await bench.ask().tools(add).execute()

    flow = AsyncFlow(ask, name="flow", clock=bench.clock)
    bench.run(flow.run({}, run_id="run-7", tenant="acme"))
    assert said(log) == [
        ("run.started", "started", "flow"),
        ("model.call", "started", "toy/m"),
        ("model.call", "ok", "toy/m"),
        ("tool.call", "started", "add"),
        ("tool.call", "ok", "add"),
        ("model.call", "started", "toy/m"),
        ("model.call", "ok", "toy/m"),
        ("run.ended", "ok", "flow"),
    ]
    runs = {each.record.run for each in told(log) if each.record.action != "tool.call"}
    assert runs == {"run-7"}


def test_a_failed_run_and_a_refused_tool_are_recorded(tmp_path: Path, log: AuditLog) -> None:
    bench = bench_of(tmp_path, Response((ToolCall("c1", "nothing", {}),), "m", "toy"), ServerError("down", status=500))

    async def add(a: int) -> int:
        """Add."""
        return a + 1

    @node
    async def ask(state: SharedState) -> None:
        from agentflow.core import RetryPolicy

        await bench.ask().tools(add).retry(RetryPolicy(max_attempts=1)).execute()

    async def main() -> None:
        with pytest.raises(NodeError):
            await AsyncFlow(ask, name="flow", clock=bench.clock).run({})

    bench.run(main())
    assert [(action, outcome) for action, outcome, _ in said(log) if outcome not in ("started", "ok")] == [
        ("tool.call", "refused"),
        ("model.call", "error"),
        ("run.ended", "error"),
    ]


def test_a_key_is_recorded_by_its_fingerprint_when_it_is_first_used(tmp_path: Path, log: AuditLog) -> None:
    yml = "providers: {toy: {kind: toy, api_key_env: TOY_KEY}}"
    bench = bench_of(tmp_path, "one", "two", yml=yml, TOY_KEY="sk-sentinel-0123456789abcdefghijklmn")

    async def twice() -> None:
        await bench.ask().execute()
        await bench.ask().execute()

    bench.run(twice())
    records = [each.record for each in told(log)]
    (used,) = [record for record in records if record.action == "key.used"]
    assert used.resource == "toy"
    assert {record.key for record in records} == {used.key}
    written = b"".join(file.read_bytes() for file in log.folder.path.rglob("*") if file.is_file())
    assert b"sentinel" not in written


def test_where_it_must_be_recorded_and_cannot_be_nothing_is_done(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit", KEY, background=False)
    log.close()
    bench = bench_of(tmp_path, "never")
    flow = AsyncFlow(node(lambda state: None), name="flow")  # type: ignore[arg-type, return-value]
    with use_audit(log):
        with pytest.raises(AuditError):
            bench.run(bench.ask().execute())
        with pytest.raises(AuditError):
            bench.run(bench.ask().streaming().execute())
        with pytest.raises(AuditError):
            bench.run(flow.run({}))
    assert bench.registry.provider("toy").requests == []  # type: ignore[attr-defined]


def test_a_tool_that_must_be_recorded_and_cannot_be_has_failed_and_was_not_cancelled(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit", KEY, background=False)
    bench = bench_of(tmp_path, Response((ToolCall("c1", "add", {}),), "m", "toy"), "never")
    called: list[str] = []
    kinds: list[str] = []

    class Closing:
        inline = True

        def observe(self, event: ExecutionEvent) -> None:
            kinds.append(event.kind)
            if event.kind == "tool_start":
                log.close()

    async def add() -> int:
        """Add."""
        called.append("add")
        return 1

    with use_audit(log), observe(Closing()), pytest.raises(AuditError):
        bench.run(bench.ask().tools(add).execute())
    assert called == []
    assert kinds[-2:] == ["tool_start", "tool_error"]


def test_a_record_names_the_trace_that_others_know_it_by(tmp_path: Path, log: AuditLog) -> None:
    class Carrying:
        inline = True

        def observe(self, event: object) -> None:
            pass

        def headers(self, run_id: str, span: int) -> dict[str, str]:
            return {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}

    bench = bench_of(tmp_path, ["one ", StreamChunk("two", finish_reason="stop")])

    async def main() -> None:
        with observe(Carrying()):
            await bench.ask().streaming().execute()

    bench.run(main())
    assert {each.record.trace for each in told(log)} == {"0af7651916cd43dd8448eb211c80319c"}
