"""Several load processes against a server on loopback: one plan, one start, nothing left behind."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from agentflow import ModelRegistry
from agentflow.errors import MissingKeyError, ProcessError, UnknownModelError
from agentflow.mcp.optimization.benchmark import Benchmark, Constant, Dataset, Poisson
from agentflow.mcp.optimization.benchmark.asking import Target
from agentflow.mcp.optimization.benchmark.crew import Crew
from agentflow.mcp.optimization.benchmark.generator import Limits, Planned, Standing

CHUNK = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "known"}


def event(content: str | None, usage: dict[str, int] | None = None) -> bytes:
    choices = [] if content is None else [{"index": 0, "delta": {"content": content}, "finish_reason": None}]
    return f"data: {json.dumps({**CHUNK, 'choices': choices, 'usage': usage})}\n\n".encode()


class Server:
    """Counts what it is asked. A prompt `hang` is never answered."""

    def __init__(self) -> None:
        self.prompts: list[str] = []
        self.address = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.prompts.append(body["messages"][-1]["content"])
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        if self.prompts[-1] == "hang":
            await asyncio.sleep(3600)
        await response.write(event("the "))
        await response.write(event("tide"))
        usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
        await response.write(event(None, usage) + b"data: [DONE]\n\n")
        return response


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    found, app = Server(), web.Application()
    app.router.add_post("/v1/chat/completions", found.answer)
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    lab = {"kind": "openai", "base_url": f"http://{host}:{port}/v1", "api_key_env": None}
    models = {"known": {"provider": "lab", "model_id": "known", "price": {"input": 1.0, "output": 2.0}}}
    found.address = str(tmp_path / "models.yml")
    Path(found.address).write_text(json.dumps({"providers": {"lab": lab}, "models": models}))
    yield found
    await runner.cleanup()


def alive(process: asyncio.subprocess.Process) -> bool:
    try:
        os.kill(process.pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_two_workers_send_the_plan_once_and_measure_all_of_it(server: Server) -> None:
    seen: list[Standing] = []
    benchmark = Benchmark(
        "known",
        dataset=Dataset.of(*map(str, range(40))),
        arrivals=Constant(40.0),
        duration=1.0,
        warmup=0.0,
        cooldown=0.0,
        workers=2,
        config=server.address,
        max_lag=60.0,
        watch=lambda progress: seen.append(progress.standing),
    )
    report = await benchmark.run()
    measures = report["known"]
    assert sorted(server.prompts, key=int) == [str(number) for number in range(40)]
    assert [record.index for record in measures.records] == list(range(40))
    assert [record.worker for record in measures.records] == [number % 2 for number in range(40)]
    assert measures.errors == {}
    assert measures.output_tokens == 80
    assert measures.cost == pytest.approx(40 * (3 * 1.0 + 2 * 2.0) / 1e6)
    assert all(each.first is not None and each.first <= (each.ended or 0.0) for each in measures.records)
    assert seen[-1].sent <= 40


async def test_what_never_answers_is_cut_off_and_the_processes_are_gone(server: Server) -> None:
    plan = Benchmark("known", dataset=Dataset.of("hang", "0"), arrivals=Constant(20.0), duration=0.3, warmup=0.0).plan()
    async with Crew(Target("known", server.address), plan, Limits(0.3, drain=0.2), workers=2) as crew:
        processes = list(crew._processes)
        _, generated = await crew.run()
    errors = [record.error for record in generated.records]
    assert errors.count("Unfinished") == sum(each.case.prompt == "hang" for each in plan)
    assert not any(map(alive, processes))


async def test_a_run_that_is_stopped_returns_what_it_has_and_is_doubted(server: Server) -> None:
    begun = asyncio.Event()
    benchmark = Benchmark(
        "known",
        dataset=Dataset.of("0"),
        arrivals=Constant(20.0),
        duration=120.0,
        warmup=0.0,
        workers=1,
        config=server.address,
        watch=lambda progress: begun.set() if progress.standing.answered else None,
    )
    running = asyncio.create_task(benchmark.run())
    await begun.wait()
    benchmark.stop()
    report = await running
    measures = report["known"]
    assert measures.records
    assert all(record.answered for record in measures.records)
    assert measures.window.end < 120.0
    assert any("stopped before its end" in doubt for doubt in report.doubts)


async def test_a_cancelled_run_leaves_no_process_behind(server: Server) -> None:
    plan = [Planned(0, 0.0, Dataset.of("hang").questions[0])]
    crew = Crew(Target("known", server.address), plan, Limits(3600.0), workers=2)

    async def run() -> None:
        async with crew:
            await crew.run()

    running = asyncio.create_task(run())
    while not server.prompts:
        await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not any(map(alive, crew._processes))


async def test_a_worker_that_dies_is_an_error_that_says_so(server: Server) -> None:
    plan = [Planned(0, 0.0, Dataset.of("hang").questions[0])]
    crew = Crew(Target("known", server.address), plan, Limits(3600.0), workers=2)
    with pytest.raises(ProcessError, match="died"):
        async with crew:
            running = asyncio.create_task(crew.run())
            while not server.prompts:
                await asyncio.sleep(0.01)
            crew._processes[0].kill()
            await running
    assert not any(map(alive, crew._processes))


async def test_a_model_that_nobody_knows_is_the_error_that_it_is_here(server: Server, tmp_path: Path) -> None:
    plan = [Planned(0, 0.0, Dataset.of("a").questions[0])]
    with pytest.raises(UnknownModelError):
        async with Crew(Target("nobody", server.address), plan, Limits(1.0), workers=1):
            pass
    keyed = tmp_path / "keyed.yml"
    keyed.write_text("providers: {lab: {kind: openai, base_url: 'http://127.0.0.1:9/v1', api_key_env: NO_SUCH_KEY}}")
    with pytest.raises(MissingKeyError):
        async with Crew(Target("lab/x", str(keyed)), plan, Limits(1.0), workers=1):
            pass


async def test_the_same_plan_in_this_process_asks_through_models_yml_as_well(server: Server) -> None:
    benchmark = Benchmark(
        "known",
        dataset=Dataset.of("a"),
        arrivals=Poisson(50.0),
        duration=0.5,
        warmup=0.0,
        cooldown=0.0,
        max_lag=60.0,
        registry=ModelRegistry.load(server.address, environ={}),
    )
    report = await benchmark.run()
    assert len(server.prompts) == len(report["known"].answered) == len(benchmark.plan())


async def test_a_run_that_is_stopped_before_it_began_ends_at_once(server: Server) -> None:
    benchmark = Benchmark(
        "known", dataset=Dataset.of("a"), arrivals=Constant(5.0), duration=60.0, workers=1, config=server.address
    )
    running = asyncio.create_task(benchmark.run())
    await asyncio.sleep(0)
    benchmark.stop()
    report = await running
    assert server.prompts == []
    assert not report.valid
