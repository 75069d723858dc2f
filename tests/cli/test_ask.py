"""`agentflow ask`: the prompt, the pipe, the answer."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from agentflow.llm.agentflow import AgentFlow
from agentflow.llm.messages import Response
from agentflow.llm.providers.scripted import ScriptedProvider

SCRIPTED = (
    "providers: {stage: {kind: scripted, options: {answers: [[Curtain, ' up', '!']]}}}\n"
    "models: {play: {provider: stage}}\ndefaults: {model: play}\n"
)


@pytest.mark.parametrize("how", ["--stream", "--no-stream"])
def test_the_answer_is_printed_with_one_line_end(invoke, place: Path, how: str) -> None:
    (place / "models.yml").write_text(SCRIPTED)
    shown = invoke("ask", "What", "now?", how)
    assert (shown.exit_code, shown.stdout, shown.stderr) == (0, "Curtain up!\n", "")


@pytest.mark.parametrize("how", ["--stream", "--no-stream"])
@pytest.mark.parametrize(
    ("text", "finish", "code", "said"),
    [
        ("", "content_filter", 1, "blocked the answer"),
        ("Once", "content_filter", 0, "blocked the rest"),
        ("Once", "length", 0, "max_tokens is reached"),
    ],
)
def test_what_is_not_the_whole_answer_is_told(invoke, how: str, text: str, finish: str, code: int, said: str) -> None:
    provider = ScriptedProvider([Response(text, "m", "toy", finish_reason=finish)], name="toy")
    AgentFlow.registry.register_provider("toy", lambda _: provider)
    shown = invoke("ask", "Tell", "--model", "toy/m", how)
    assert (shown.exit_code, shown.stdout.strip()) == (code, text)
    assert said in shown.stderr


def test_piped_text_follows_the_prompt(invoke) -> None:
    """The local model takes the prompt for the instruction, because a blank line follows it."""
    text = "The moon pulls the sea. Tides follow the moon. The moon makes the tides."
    shown = invoke("ask", "Summarise in one sentence:", input=text)
    assert shown.exit_code == 0
    assert shown.stdout.strip() in text
    assert shown.stdout.count(".") == 1


def test_piped_text_alone_is_the_prompt(invoke) -> None:
    assert invoke("ask", input="The moon pulls the sea.\n").stdout == "The moon pulls the sea.\n"


def test_bytes_that_are_no_utf8_do_not_stop_it(invoke) -> None:
    assert invoke("ask", input=b"\xff The moon pulls the sea.").exit_code == 0


@pytest.mark.parametrize("piped", ["", "  \n"])
def test_nothing_to_ask_is_a_usage_error(invoke, piped: str) -> None:
    shown = invoke("ask", input=piped)
    assert shown.exit_code == 2
    assert "There is nothing to ask" in shown.stderr


def test_without_a_key_one_line_says_so(invoke) -> None:
    shown = invoke("ask", "The moon pulls the sea.")
    assert shown.stderr.count("\n") == 1
    assert "no API key found" in shown.stderr


def test_a_model_that_is_named_is_asked_and_an_unknown_one_is_exit_code_3(invoke, place: Path) -> None:
    (place / "models.yml").write_text(SCRIPTED.replace("defaults: {model: play}\n", ""))
    assert invoke("ask", "x", "--model", "play").stdout == "Curtain up!\n"
    shown = invoke("ask", "x", "--model", "plya")
    assert shown.exit_code == 3
    assert "did you mean play" in shown.stderr


def test_the_system_text_is_heard(invoke) -> None:
    text = "The moon pulls the sea. Tides follow the moon. The moon makes the tides. The sun does too."
    shown = invoke("ask", "--system", "Answer in one sentence.", input=text)
    assert shown.stdout.count(".") == 1


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
HALF = b'data: {"choices": [{"index": 0, "delta": {"content": "Half an ans"}}]}\n\n'


@pytest.mark.parametrize(
    ("said", "printed", "told"),
    [
        (b"", b"", b"interrupted; there is no answer yet"),
        (HEAD + HALF, b"Half an ans\n", b"interrupted; what stands above is not the whole answer"),
    ],
    ids=["mute", "half"],
)
def test_ctrl_c_says_whether_there_is_a_part_of_the_answer(
    spawn, place: Path, said: bytes, printed: bytes, told: bytes
) -> None:
    """The server accepts, says nothing or the half, and then nothing more."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}/v1"
        (place / "models.yml").write_text(f"providers: {{mute: {{kind: openai, base_url: '{address}'}}}}\n")
        process = spawn("ask", "Hello", "--model", "mute/x")
        connection, _ = server.accept()
        with connection:
            assert connection.recv(1)
            connection.sendall(said)
            first = process.stdout.read(len(b"Half an ans")) if printed else b""
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
    assert (process.returncode, first + out) == (130, printed)
    assert err.strip() == told


def test_an_answer_that_breaks_off_ends_its_line_before_the_error(invoke, place: Path) -> None:
    import socket
    import threading

    def answer(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(HEAD + HALF)

    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}/v1"
        (place / "models.yml").write_text(
            f"defaults: {{retry: {{max_attempts: 1}}}}\nproviders: {{cut: {{kind: openai, base_url: '{address}'}}}}\n"
        )
        thread = threading.Thread(target=answer, args=(server,))
        thread.start()
        shown = invoke("ask", "Hello", "--model", "cut/x")
        thread.join()
    assert (shown.exit_code, shown.stdout) == (1, "Half an ans\n")
    assert "error: cut/x: the stream ended before the answer did" in shown.stderr
