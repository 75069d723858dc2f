"""`agentflow bench`: what it prints and writes, its exit codes, Ctrl-C."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web
from tests.cli.conftest import Invoke, Spawn

TEXT = ["the ", "tide ", "is ", "high"]


class Server(threading.Thread):
    """A model on loopback that answers at once, in four pieces; a prompt `hang` never."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.port, self.asked = 0, 0
        self._ready, self._loop = threading.Event(), asyncio.new_event_loop()
        self._over = asyncio.Event()

    def run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._answer)
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.port = runner.addresses[0][1]
        self._ready.set()
        await self._over.wait()
        await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        prompt = (await request.json())["messages"][-1]["content"]
        if prompt == "fail":
            return web.json_response({"error": {"message": "no"}}, status=500)
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        if prompt == "hang":
            await asyncio.sleep(3600)
        told = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "tide"}
        for piece in TEXT:
            choice = {"index": 0, "delta": {"content": piece}, "finish_reason": None}
            await response.write(f"data: {json.dumps({**told, 'choices': [choice]})}\n\n".encode())
        usage = {"prompt_tokens": 2, "completion_tokens": 4, "total_tokens": 6}
        await response.write(f"data: {json.dumps({**told, 'choices': [], 'usage': usage})}\n\n".encode())
        await response.write(b"data: [DONE]\n\n")
        return response

    def __enter__(self) -> Server:
        self.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self.join()


@pytest.fixture
def server(place: Path) -> Iterator[Server]:
    with Server() as found:
        lab = {"kind": "openai", "base_url": f"http://127.0.0.1:{found.port}/v1", "api_key_env": None}
        entry = {"provider": "lab", "model_id": "tide", "price": {"input": 1.0, "output": 2.0}}
        models = {"tide": entry, "ebb": entry}
        (place / "models.yml").write_text(json.dumps({"providers": {"lab": lab}, "models": models}))
        (place / "q.jsonl").write_text('{"prompt": "a", "expected": "tide"}\n{"prompt": "b", "expected": "ebb"}\n')
        yield found


# The machine of a test is busy: its lag is no failure here, and has a test of its own.
QUICK = ["--rate", "40", "--duration", "0.5", "--warmup", "0", "--cooldown", "0", "--max-lag", "60", "--workers", "0"]
RUN = ["bench", "tide", "--dataset", "q.jsonl", *QUICK]


def test_it_says_what_it_found_and_writes_it_down(server: Server, invoke: Invoke, place: Path) -> None:
    words = ["--workers", "2", "--checker", "contains", "--slo", "e2e=60", "--json", "o.json", "--html", "o.html"]
    result = invoke(*RUN, *words, "--arrivals", "constant")
    assert result.exit_code == 0, result.output
    assert server.asked == 20
    for said in (
        "first token",
        "end to end",
        "requests that count",
        "quality: contains",
        "50.0%",
        "a million good tokens",
    ):
        assert said in result.stdout
    assert "wrote o.json" in result.stderr
    document = json.loads((place / "o.json").read_text())
    assert document["valid"]
    assert document["benchmarks"][0]["agentflow"]["answered"] == 20
    assert (place / "o.html").read_text().startswith("<!doctype html>")


def test_a_gate_that_fails_is_exit_code_1_and_one_that_holds_0(server: Server, invoke: Invoke) -> None:
    held = invoke(*RUN, "--fail-if", "p99.ttft>60", "--fail-if", "goodput<1")
    assert held.exit_code == 0, held.output
    broken = invoke(*RUN, "--fail-if", "p99.ttft>60", "--fail-if", "quality<0.9")
    assert broken.exit_code == 1
    assert "fails: quality of tide was not measured" in broken.stdout
    assert "error: 1 of 2 gates failed" in broken.stderr


def test_two_models_are_asked_the_same_and_compared(server: Server, invoke: Invoke) -> None:
    result = invoke("bench", "tide", "ebb", "--dataset", "q.jsonl", *QUICK)
    assert result.exit_code == 0, result.output
    assert "tide → ebb" in result.stdout
    assert "mean.ttft" in result.stdout


def test_a_baseline_is_compared_with_and_one_of_another_model_is_an_error(
    server: Server, invoke: Invoke, place: Path
) -> None:
    assert invoke(*RUN, "--json", "before.json").exit_code == 0
    (place / "q.jsonl").write_text('{"prompt": "fail"}\n')
    worse = invoke(*RUN, "--baseline", "before.json")
    assert worse.exit_code == 1
    assert "error_share is worse than in the baseline" in worse.stderr
    other = invoke("bench", "ebb", "--dataset", "q.jsonl", *QUICK, "--baseline", "before.json")
    assert other.exit_code == 1
    assert "the baseline holds no ebb" in other.stderr


def test_a_generator_that_is_late_is_exit_code_5_and_no_gate_is_judged(server: Server, invoke: Invoke) -> None:
    result = invoke(*RUN, "--max-lag", "0.0000001", "--fail-if", "p99.ttft>60")
    assert result.exit_code == 5
    assert "not valid: tide: the load generator was late" in " ".join(result.stdout.split())


def test_errors_are_told_by_their_kind(server: Server, invoke: Invoke, place: Path) -> None:
    (place / "q.jsonl").write_text('{"prompt": "fail"}\n{"prompt": "a"}\n')
    result = invoke(*RUN, "--arrivals", "constant")
    assert result.exit_code == 0
    assert "errors: ServerError 10" in result.stdout
    assert server.asked == 20  # nothing is asked twice, and no breaker takes the load away


def test_a_trace_says_when_and_how_long(server: Server, invoke: Invoke, place: Path) -> None:
    rows = [f"2023-11-16 18:17:{second:02}.5000000,{second + 1},4" for second in range(10)]
    (place / "t.csv").write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows]))
    result = invoke("bench", "tide", "--trace", "t.csv", *QUICK, "--json", "o.json")
    assert result.exit_code == 0, result.output
    assert server.asked == 10
    document = json.loads((place / "o.json").read_text())
    assert document["config"]["arrivals"] == "trace of t.csv"
    assert document["config"]["rate"] == pytest.approx(40.0)


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        ([], 2, "Missing argument"),
        (["tide"], 2, "There is nothing to ask"),
        (["tide", "--dataset", "q.jsonl", "--synthetic", "1:2"], 2, "two ways"),
        (["tide", "--synthetic", "many"], 2, "512:128"),
        (["tide", "--dataset", "nowhere.jsonl"], 2, "No such file"),
        (["tide", "--dataset", "q.jsonl", "--cv", "2"], 2, "--arrivals gamma needs --cv"),
        (["tide", "--dataset", "q.jsonl", "--rate", "-1"], 3, "rate: found -1"),
        (["tide", "--dataset", "q.jsonl", "--slo", "fast"], 3, "objective"),
        (["tide", "--dataset", "q.jsonl", "--fail-if", "fast"], 3, "gate"),
        (["tide", "--dataset", "q.jsonl", "--checker", "exakt"], 3, "did you mean exact"),
        (["tide", "--dataset", "q.jsonl", "--fail-if", "ebb: goodput<1", *QUICK], 3, "is none of the models: tide"),
        (["tied", "--dataset", "q.jsonl"], 3, "tied"),
        (["tide", "tide", "--dataset", "q.jsonl"], 3, "two models have one name"),
        (["tide", "--trace", "q.jsonl"], 2, "there is no timestamp"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(
    server: Server, invoke: Invoke, words: list[str], code: int, complaint: str
) -> None:
    result = invoke("bench", *words)
    assert result.exit_code == code, result.output
    assert complaint in result.output
    assert server.asked == 0


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C is told otherwise there")
def test_ctrl_c_leaves_what_was_measured_and_no_process_behind(server: Server, spawn: Spawn, place: Path) -> None:
    words = ["--rate", "20", "--duration", "600", "--workers", "2", "--json", "o.json", "--warmup", "0"]
    process = spawn("bench", "tide", "--dataset", "q.jsonl", *words)
    while server.asked < 5:
        assert process.poll() is None
        time.sleep(0.02)
    children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert b"interrupted" in err
    assert b"requests that count" in out
    document = json.loads((place / "o.json").read_text())
    assert document["benchmarks"][0]["agentflow"]["answered"] >= 1
    assert not document["valid"]
    pids = [int(pid) for pid in children.stdout.split()]
    assert len(pids) == 2
    for pid in pids:
        assert not Path(f"/proc/{pid}").exists()
