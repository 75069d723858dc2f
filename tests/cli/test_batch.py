"""`agentflow batch …`: a file of requests to answers, by commands that may be interrupted between any two."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli.conftest import Invoke
from tests.support.batch_api_server import BatchApiServer

from agentflow.cli.batch_lines import read_lines
from agentflow.errors import InputError
from agentflow.llm.messages import Message, Request

LINES = """\
"one"

{"prompt": "two", "system": "Be brief.", "max_tokens": 7}
{"messages": [{"role": "user", "content": "three"}]}
"""


class _Serving:
    """A provider in a thread of its own, for commands run loops of their own."""

    def __init__(self) -> None:
        self.server = BatchApiServer(time.time)
        self.server.takes = 0.0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> BatchApiServer:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self.server.__aenter__(), self._loop).result()
        return self.server

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self.server.__aexit__(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture
def server(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BatchApiServer]:
    with _Serving() as server:
        (place / "models.yml").write_text(server.models_yml(), encoding="utf-8")
        (place / "asked.jsonl").write_text(LINES, encoding="utf-8")
        monkeypatch.setattr("agentflow.mcp.performance.batching.jobs.course._SHORTEST", 0.0)
        monkeypatch.setattr("agentflow.mcp.performance.batching.jobs.policy._GROWTH", 1.0)
        monkeypatch.setattr("agentflow.cli.batch.BatchPolicy", _hurried)
        yield server


def _hurried(**how: int) -> object:
    from agentflow.mcp.performance.batching.jobs.policy import BatchPolicy

    return BatchPolicy(poll_first=0.01, poll_most=0.02, settle=0.1, **how)  # type: ignore[arg-type]


def test_a_file_of_requests_becomes_a_file_of_answers(server: BatchApiServer, invoke: Invoke, place: Path) -> None:
    submitted = invoke("batch", "submit", "asked.jsonl", "--model", "openai")
    assert submitted.exit_code == 0, submitted.output
    job = submitted.stdout.strip()

    collected = invoke("batch", "results", job, "-o", "answers.jsonl")
    assert collected.exit_code == 0, collected.output
    answers = [json.loads(line) for line in (place / "answers.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {answer["index"]: answer["text"] for answer in answers} == {0: "re: one", 1: "re: two", 2: "re: three"}
    assert all(answer["error"] is None and answer["via"] == "batch" and answer["cost"] > 0 for answer in answers)
    assert "collected: 3 of 3" in collected.stderr
    assert f"{job}: 3 of 3 answered, $0.0006" in collected.stderr


def test_status_says_how_far_a_job_is_without_a_key(server: BatchApiServer, invoke: Invoke, place: Path) -> None:
    server.takes = 1e6
    job = invoke("batch", "submit", "asked.jsonl", "-m", "anthropic", "--id", "nightly").stdout.strip()
    text = (place / "models.yml").read_text(encoding="utf-8")
    (place / "models.yml").write_text(text.replace('"api_key_env": null', '"api_key_env": "NOBODY_HAS_IT"'))

    assert job == "nightly"
    assert "0 of 3 answered" in invoke("batch", "status").stdout
    told = invoke("batch", "status", "night", "--journal").stdout
    assert "nightly-1  submitted  3 requests" in told
    assert "submitting → submitted: the provider has accepted it" in told
    whole = json.loads(invoke("batch", "status", job, "--json").stdout)
    assert (whole["state"], whole["total"], whole["open"]) == ("submitted", 3, 3)


def test_a_submission_that_waits_tells_how_it_goes(server: BatchApiServer, invoke: Invoke) -> None:
    done = invoke("batch", "submit", "asked.jsonl", "-m", "google", "--wait")
    assert done.exit_code == 0, done.output
    assert "3 of 3 answered" in done.stderr


def test_a_job_is_resumed_and_a_failed_request_is_the_exit_code(server: BatchApiServer, invoke: Invoke) -> None:
    server.fails = lambda prompt, time: 400 if prompt == "two" else None
    job = invoke("batch", "submit", "asked.jsonl", "-m", "openai").stdout.strip()
    resumed = invoke("batch", "resume", job, "--quiet")
    assert resumed.exit_code == 1
    assert f"{job}: 2 of 3 answered, 1 failed" in resumed.stderr
    lines = [json.loads(line) for line in invoke("batch", "results", job, "--no-wait").stdout.splitlines()]
    assert [line["error_type"] for line in lines if line["error"]] == ["BadRequestError"]


def test_a_job_is_called_off(server: BatchApiServer, invoke: Invoke) -> None:
    server.takes = 1e6
    job = invoke("batch", "submit", "asked.jsonl", "-m", "openai").stdout.strip()
    cancelled = invoke("batch", "cancel", job, "--wait", "-q")
    assert cancelled.exit_code == 0, cancelled.output
    assert f"{job}: 0 of 3 answered, 3 cancelled" in cancelled.stdout


def test_a_deadline_that_leaves_no_time_for_a_batch_asks_directly(server: BatchApiServer, invoke: Invoke) -> None:
    job = invoke("batch", "submit", "asked.jsonl", "-m", "openai", "--deadline", "30s", "--wait").stdout.strip()
    assert server.asked["direct"] == 3
    assert "3 asked directly" in invoke("batch", "status", job).stdout


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["batch", "submit", "nowhere.jsonl", "-m", "openai"], 2, "nowhere.jsonl"),
        (["batch", "submit", "asked.jsonl", "-m", "nobody"], 3, "unknown model"),
        (["batch", "submit", "asked.jsonl", "-m", "openai", "--deadline", "soon"], 2, "no span of time"),
        (["batch", "submit", "asked.jsonl", "-m", "openai", "--id", "Not Good"], 3, "lower-case letters"),
        (["batch", "submit", "asked.jsonl", "-m", "local/extractive"], 3, "has no batches"),
        (["batch", "status", "nobody"], 1, "no batch job was submitted there"),
        (["batch", "results", "x", "--store", "nowhere.db"], 1, "no batch job was submitted there"),
    ],
)
def test_what_is_wrong_is_said_on_one_line(
    server: BatchApiServer, invoke: Invoke, words: list[str], code: int, said: str
) -> None:
    result = invoke(*words)
    assert result.exit_code == code
    assert said in result.stderr
    assert "Traceback" not in result.output


def test_a_job_that_is_not_in_the_file_is_bad_input(server: BatchApiServer, invoke: Invoke) -> None:
    invoke("batch", "submit", "asked.jsonl", "-m", "openai")
    result = invoke("batch", "status", "nobody")
    assert (result.exit_code, "agentflow batch status" in result.stderr) == (2, True)


# ---- lines ---------------------------------------------------------------------------------------------------


def test_lines_are_prompts_or_conversations() -> None:
    assert list(read_lines(LINES.splitlines(), "f")) == [
        "one",
        Request("", (Message("system", "Be brief."), Message("user", "two")), max_tokens=7),
        Request("", (Message("user", "three"),)),
    ]


@pytest.mark.parametrize(
    "line",
    [
        "{", "7", "[]", "{}", '{"prompt": 7}',
        '{"prompt": "a", "messages": []}', '{"messages": []}', '{"prompt": "a", "n": 2}',
        '{"messages": ["a"]}', '{"messages": [{"role": "user"}]}', '{"prompt": "a", "max_tokens": "many"}',
    ],
)  # fmt: skip
def test_a_line_that_asks_nothing_is_named(line: str) -> None:
    with pytest.raises(InputError, match=r"^f:3: "):
        list(read_lines(['"one"', "", line], "f"))
