"""What is kept, who may work on it, who is told, and who pays."""

from __future__ import annotations

import base64
import sqlite3
import stat
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.batch_api_server import FULL_PRICE
from tests.support.batch_bench import BatchBench
from tests.support.event_schema import misfits

from agentflow.core.limits import Ledger, Limits
from agentflow.core.observability import ExecutionEvent, observe
from agentflow.errors import (
    BatchError,
    BatchHeldError,
    ConfigurationError,
    LimitExceededError,
    RunStoreError,
    UnknownBatchError,
    UnsupportedError,
)
from agentflow.llm.agentflow import AgentFlow
from agentflow.llm.caller import Caller, asking_as
from agentflow.llm.content import Image
from agentflow.llm.messages import Message, Request, Thinking
from agentflow.mcp.performance.batching.jobs.job import BatchJob

PROMPTS = ["one", "two", "three"]
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)
Place = tuple[BatchBench, str]


# ---- what is asked -------------------------------------------------------------------------------------------


async def test_bodies_are_byte_for_byte_those_of_direct_calls(place: Place) -> None:
    bench, model = place
    asked = [
        Request("", (Message("system", "Be brief."), Message("user", "Hä?"))),
        Request("", (Message("user", "And?"), Message("assistant", "So."), Message("user", "Why?")), stop=("x",)),
    ]
    config, provider = bench.registry.resolve(model)
    job = await bench.submit(asked, model=model)
    stored = [row.body for row in job._store.requests(job.id)]

    direct = [replace_model(request, config.model_id, config.max_tokens) for request in asked]
    assert stored == [provider.written(request)[1] for request in direct]  # type: ignore[attr-defined]
    job.close()


def replace_model(request: Request, model: str, max_tokens: int | None) -> Request:
    from msgspec.structs import replace as replaced

    return replaced(request, model=model, max_tokens=max_tokens)


async def test_builders_and_requests_and_prompts_may_stand_side_by_side(bench: BatchBench) -> None:
    builder = AgentFlow.model(registry=bench.registry).system("Be brief.").prompt("two").max_tokens(7)
    asked = ["one", builder, Request("", (Message("user", "three"),), max_tokens=9)]
    with await bench.submit(asked, model="openai") as job:
        results = [result async for result in job.results()]
    [work] = bench.server.works.values()
    assert [body["max_completion_tokens"] for _, body in work.items] == [64, 7, 9]
    assert sorted(result.text for result in results) == ["re: one", "re: three", "re: two"]


async def test_what_takes_more_than_one_request_is_refused_before_anything_is_stored(bench: BatchBench) -> None:
    def weather(city: str) -> str:
        return city

    builder = AgentFlow.model(registry=bench.registry).prompt("Hi").tools(weather)
    with pytest.raises(ConfigurationError, match="one request"):
        await bench.submit([builder], model="openai")
    with pytest.raises(ConfigurationError, match="at least one"):
        await bench.submit([], model="openai")
    assert not bench.store.exists()


async def test_a_provider_without_batches_says_so(bench: BatchBench) -> None:
    with pytest.raises(UnsupportedError, match="no batches"):
        await bench.submit(PROMPTS, model="local/extractive")


async def test_what_the_model_cannot_be_asked_is_found_before_anything_is_stored(bench: BatchBench) -> None:
    asked = Request("", (Message("user", "Hi"),), n=3, thinking=Thinking("low"))
    with pytest.raises(Exception, match="one answer a request"):
        await bench.submit([asked], model="anthropic")
    assert not bench.store.exists()


async def test_files_in_a_request_are_read_when_it_is_submitted(bench: BatchBench) -> None:
    """And stand in the file of jobs: nobody reads them again, also where a deadline makes it a direct call."""
    picture = bench.folder / "dot.png"
    picture.write_bytes(PNG)
    asked = Request("", (Message("user", ["What is this?", Image(picture)]),))
    for deadline in (None, 10.0):
        with await bench.submit([asked], model="anthropic", deadline=deadline) as job:
            picture.unlink(missing_ok=True)
            assert [result.text async for result in job.results()] == ["re: What is this?"]
        picture.write_bytes(PNG)


# ---- the file ------------------------------------------------------------------------------------------------


async def test_a_job_with_an_id_of_ones_own_is_submitted_once(bench: BatchBench) -> None:
    for _ in range(3):
        (await bench.submit(PROMPTS, model="openai", job_id="nightly")).close()
    assert len(bench.server.works) == 1
    with pytest.raises(BatchError, match="asks something else"):
        await bench.submit([*PROMPTS, "four"], model="openai", job_id="nightly")


async def test_results_are_the_same_whenever_they_are_read(bench: BatchBench) -> None:
    with await bench.submit(PROMPTS, model="anthropic") as job:
        first = [result async for result in job.results()]
    with bench.open(job.id[:8]) as again:
        assert [result async for result in again.results()] == first
    response = first[0].response
    assert response is not None
    assert response.usage is not None
    assert (response.model, response.finish_reason, response.usage.input_tokens) != ("", None, 0)


async def test_only_its_owner_may_read_the_file(bench: BatchBench) -> None:
    (await bench.submit(PROMPTS, model="openai")).close()
    assert stat.S_IMODE(bench.store.stat().st_mode) == 0o600


async def test_files_of_others_and_of_the_future_are_refused(bench: BatchBench, tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE mine(x)")
    connection.close()
    with pytest.raises(RunStoreError, match="another program"):
        BatchJob.all(other)

    (await bench.submit(PROMPTS, model="openai")).close()
    connection = sqlite3.connect(bench.store)
    connection.execute("UPDATE meta SET version = 99 WHERE component = 'batches'")
    connection.commit()
    connection.close()
    with pytest.raises(RunStoreError, match="newer AgentFlow"):
        bench.open()


async def test_a_job_that_is_not_there_is_named(bench: BatchBench) -> None:
    for id in ("twin-a", "twin-b"):
        (await bench.submit(PROMPTS, model="openai", job_id=id)).close()
    with pytest.raises(UnknownBatchError, match="several begin so"):
        bench.open("twin")
    with pytest.raises(UnknownBatchError, match="agentflow batch status"):
        bench.open("nobody")
    with pytest.raises(BatchError, match="no batch job was submitted there"):
        BatchJob.all(bench.folder / "nowhere.db")


async def test_the_journal_tells_every_move_and_its_reason(place: Place) -> None:
    bench, model = place
    with await bench.submit(PROMPTS, model=model) as job:
        assert [result async for result in job.results()]
        moves = [(entry.old, entry.new) for entry in job.journal()]
        assert all(entry.reason for entry in job.journal())
    assert moves[0] == (None, "planned")
    assert moves[-3:] == [("submitting", "submitted"), ("submitted", "ended"), ("ended", "collected")]
    assert [new for _, new in moves[:-1]] == [old for old, _ in moves[1:]], "each begins where the one before it ended"


# ---- one at a time -------------------------------------------------------------------------------------------


async def test_two_never_work_on_one_job(bench: BatchBench) -> None:
    job = await bench.submit(PROMPTS, model="openai", policy=replace(bench.policy, part_requests=1))
    other = bench.open()
    async with aclosing(job.results()) as results:
        await anext(results)
        with pytest.raises(BatchHeldError):
            [result async for result in other.results()]
        assert other.status().answered >= 1  # whoever only looks is not kept from it
    assert len([result async for result in other.results()]) == 3, "whoever leaves lets go of it"
    assert not list(bench.folder.glob("*.lock"))
    job.close()
    other.close()


async def test_a_bare_break_lets_go_of_the_job(bench: BatchBench) -> None:
    job = await bench.submit(PROMPTS, model="openai", policy=replace(bench.policy, part_requests=1))
    async for _ in job.results():
        break
    assert len([result async for result in job.results()]) == 3
    job.close()


async def test_leaving_in_the_middle_loses_nothing(bench: BatchBench) -> None:
    job = await bench.submit(PROMPTS, model="openai", policy=replace(bench.policy, part_requests=1))
    async with aclosing(job.results()) as results:
        first = await anext(results)
    rest = [result async for result in job.results()]
    assert rest[0] == first
    assert bench.server.billed == dict.fromkeys(PROMPTS, 1)
    job.close()


# ---- who pays, who hears -------------------------------------------------------------------------------------


async def test_what_a_batch_costs_is_noted_in_the_ledgers_of_whoever_collects_it(place: Place) -> None:
    bench, model = place
    ledger = Ledger(Limits(dollars=1.0))
    with asking_as(Caller(ledgers=(ledger,))):
        with await bench.submit(PROMPTS, model=model) as job:
            assert [result async for result in job.results()]
    assert (ledger.requests, ledger.tokens) == (3, 450)
    assert ledger.dollars == pytest.approx(3 * FULL_PRICE / 2)


async def test_direct_calls_are_noted_there_once_and_at_their_full_price(bench: BatchBench) -> None:
    ledger = Ledger(Limits(dollars=1.0))
    with asking_as(Caller(ledgers=(ledger,))):
        with await bench.submit(PROMPTS, model="openai", deadline=10.0) as job:
            assert {result.via async for result in job.results()} == {"direct"}
    assert (ledger.requests, ledger.dollars) == (3, pytest.approx(3 * FULL_PRICE))


async def test_nothing_is_sent_for_whom_has_nothing_left(bench: BatchBench) -> None:
    spent = Ledger(Limits(dollars=0.0))
    with asking_as(Caller(ledgers=(spent,))), pytest.raises(LimitExceededError):
        await bench.submit(PROMPTS, model="openai")
    assert not bench.server.works
    with bench.open() as job:
        assert len([result async for result in job.results()]) == 3


async def test_a_price_that_nobody_knows_is_not_made_up(bench: BatchBench) -> None:
    bench.registry.register_model("odd", provider="openai", model_id="odd-1", price={"input": 1.0, "output": 2.0})
    with await bench.submit(PROMPTS, model="odd") as job:
        assert [result.cost async for result in job.results()] == [None] * 3, "its price for batches is not stated"
        assert job.status().cost is None


async def test_whoever_watches_hears_of_every_move(bench: BatchBench) -> None:
    heard = Heard()
    with observe(heard):
        with asking_as(Caller(tenant="acme")):
            with await bench.submit(PROMPTS, model="openai", deadline=36_000.0) as job:
                assert [result async for result in job.results()]
    told = [event.data for event in heard.events if event.kind == "batch_job"]
    assert [each["to"] for each in told] == [
        "uploading", "uploaded", "submitting", "submitted", "ended", "collected"
    ]  # fmt: skip
    assert all(each["job"] == job.id and each["model"] == "openai" and each["tenant"] == "acme" for each in told)
    assert all(each["reason"] for each in told)
    assert not misfits(event for event in heard.events if event.kind == "batch_job")


class Heard:
    def __init__(self) -> None:
        self.events: list[ExecutionEvent] = []

    def observe(self, event: ExecutionEvent) -> None:
        self.events.append(event)
