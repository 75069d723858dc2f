"""`agentflow serve`: a process that answers, says where, and goes when it is told to."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
from http.client import HTTPConnection
from pathlib import Path

import pytest

YML = "providers: {toy: {kind: scripted, options: {answers: [Hello there.]}}}\nmodels: {toy: {provider: toy}}\n"
QUESTION = json.dumps({"model": "toy", "messages": [{"role": "user", "content": "Hi"}]})


def test_it_answers_until_it_is_told_to_stop(spawn, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The address is on stderr once it is there; Ctrl-C ends it well, and what was asked can be shown."""
    (place / "models.yml").write_text(YML)
    monkeypatch.setenv("SERVER_KEY", "a-key-for-this-test")
    process = spawn("serve", "-m", "toy", "--port", "0", "--api-key-env", "SERVER_KEY")
    line = process.stderr.readline().decode()
    found = re.search(r"serving toy at http://127\.0\.0\.1:(\d+)/v1 to whoever has the key", line)
    assert found, line
    connection = HTTPConnection("127.0.0.1", int(found[1]), timeout=60)
    headers = {"content-type": "application/json", "authorization": "Bearer a-key-for-this-test"}
    connection.request("POST", "/v1/chat/completions", QUESTION, headers)
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())["choices"][0]["message"]["content"]) == (200, "Hello there.")
    connection.request("POST", "/v1/chat/completions", QUESTION, headers)  # the script has no second answer
    answer = connection.getresponse()
    assert (answer.status, b"no answer" in answer.read()) == (502, False)
    connection.close()
    process.send_signal(signal.SIGINT)
    said = process.stderr.read().decode()
    assert process.wait(60) == 0
    assert re.search(r"warning: req_\w+ failed: toy/toy: call 2 finds no answer", said)
    assert "a-key-for-this-test" not in said
    with sqlite3.connect(place / ".agentflow" / "runs.db") as runs:
        assert runs.execute("select count(*) from runs").fetchone() == (2,)
    runs.close()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("-m", "nobody-knows-this"), 3, "unknown model 'nobody-knows-this'"),
        (("-m", "toy", "--api-key-env", "NO_SUCH_KEY"), 3, "NO_SUCH_KEY is not set"),
        (("-m", "toy", "--port", "99999"), 2, "99999"),
        (("-m", "toy", "--host", "203.0.113.7", "--no-record"), 3, "203.0.113.7:8000 cannot be listened on"),
    ],
)
def test_what_cannot_be_served_is_said(invoke, place: Path, words: tuple[str, ...], code: int, said: str) -> None:
    """On one line, with the exit code of such mistakes."""
    (place / "models.yml").write_text(YML)
    shown = invoke("serve", *words)
    assert (shown.exit_code, shown.stdout) == (code, "")
    assert said in shown.stderr


def test_an_open_door_is_said(invoke, place: Path) -> None:
    """Listening beyond this machine without a key is allowed, and not done silently."""
    (place / "models.yml").write_text(YML)
    shown = invoke("serve", "-m", "toy", "--host", "203.0.113.7", "--no-record")
    assert "warning: the server listens on 203.0.113.7, beyond this machine, and asks for no key" in shown.stderr
