"""`agentflow run`: input, output, exit codes and Ctrl-C."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

TREE = "from agentflow import *\nimport asyncio, time\n"


def test_the_output_goes_to_stdout_and_the_progress_to_stderr(invoke, hello: Path) -> None:
    shown = invoke("run", "flow.py", "--input", "name=Ada")
    assert (shown.exit_code, shown.stdout) == (0, "Hello Ada\n")
    assert "greet: " in shown.stderr
    assert "done in " in shown.stderr


def test_quiet_says_nothing_but_the_output(invoke, hello: Path) -> None:
    shown = invoke("run", "-q", "flow.py", "-i", "name=Ada")
    assert (shown.stdout, shown.stderr) == ("Hello Ada\n", "")


def test_input_is_json_where_it_is_json_and_text_elsewhere(invoke, place: Path) -> None:
    (place / "f.py").write_text(TREE + "@node\nasync def a(s): s['output'] = dict(s)\nflow = AsyncFlow(a)\n")
    shown = invoke(
        "run", "-q", "f.py", "-i", "n=3", "-i", "l=[1, null]", "-i", "t=a=b", "-i", 's="3"', "-i", "e=", "-i", "x=NaN"
    )
    assert json.loads(shown.stdout) == {"args": [], "n": 3, "l": [1, None], "t": "a=b", "s": "3", "e": "", "x": "NaN"}


def test_arguments_arrive_as_args(invoke, place: Path) -> None:
    (place / "f.py").write_text(
        TREE + "@node(reads='args', writes='output')\nasync def a(x): return x\nflow = AsyncFlow(a)\n"
    )
    assert json.loads(invoke("run", "-q", "f.py", "one", "-", "two three").stdout) == ["one", "-", "two three"]


@pytest.mark.parametrize("by", ["file", "stdin"])
def test_input_json_is_a_file_or_stdin_and_input_wins(invoke, hello: Path, place: Path, by: str) -> None:
    (place / "in.json").write_text('{"name": "Bob"}')
    source = ["--input-json", "in.json"] if by == "file" else ["--input-json", "-"]
    assert invoke("run", "-q", "flow.py", *source, input='{"name": "Bob"}').stdout == "Hello Bob\n"
    assert invoke("run", "-q", "flow.py", *source, "-i", "name=Eve", input='{"name": "Bob"}').stdout == "Hello Eve\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": }', "in.json:1:7: this is not JSON: "),
        ("[1]", 'in.json: a JSON object is needed, as in {"topic": "tides"}, not list'),
        ('{"a": NaN}', "in.json: this is not JSON: NaN is no JSON number"),
        (None, "in.json: No such file or directory; --input-json takes a file"),
    ],
)
def test_a_broken_input_file_says_where(invoke, hello: Path, place: Path, text: str | None, said: str) -> None:
    if text is not None:
        (place / "in.json").write_text(text)
    shown = invoke("run", "flow.py", "--input-json", "in.json")
    assert shown.exit_code == 2
    assert shown.stderr.startswith(f"error: {said}")


@pytest.mark.parametrize("words", [["-i", "name"], ["-i", "=x"], ["-i", "a=1", "-i", "a=2"], ["x", "-i", "args=[1]"]])
def test_words_that_make_no_sense_are_usage_errors(invoke, hello: Path, words: list[str]) -> None:
    assert invoke("run", "flow.py", *words).exit_code == 2


SCHEMA = (
    TREE
    + """
from dataclasses import dataclass
@dataclass
class Article:
    title: str
    words: int = 100
@node(reads='title', writes='output')
async def a(t): return t
flow = AsyncFlow(a, inputs=Article, name='article')
"""
)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Article needs 'title', which the input lacks"),
        (["-i", "title=x", "-i", "words=many"], "Article: words must be int, not str"),
        (["-i", "titel=x"], "Article has no field 'titel'; did you mean 'title'?"),
        (["stray"], "article takes no arguments; give its input by name (title, words), as in --input title=…"),
    ],
)
def test_input_that_fails_the_schema_is_refused(invoke, place: Path, words: list[str], said: str) -> None:
    (place / "f.py").write_text(SCHEMA)
    shown = invoke("run", "f.py", *words)
    assert shown.exit_code == 2
    assert f"error: {said}" in shown.stderr


def test_a_schema_that_does_not_want_args_gets_none(invoke, place: Path) -> None:
    (place / "f.py").write_text(SCHEMA)
    assert invoke("run", "-q", "f.py", "-i", "title=Tides").stdout == "Tides\n"


# ---- output --------------------------------------------------------------------------------------------------


def test_without_output_the_last_nodes_key_is_the_output(invoke, place: Path) -> None:
    (place / "f.py").write_text(
        TREE + "@node(writes='a')\nasync def one(): return 'first'\n@node(writes='b')\nasync def two(): return 'last'\n"
        "inner = AsyncFlow(two, name='inner')\nflow = AsyncFlow(one >> inner)\nparallel = AsyncFlow((one, two))\n"
    )
    assert invoke("run", "-q", "f.py").stdout == "last\n"
    nothing = invoke("run", "f.py:parallel")
    assert (nothing.exit_code, nothing.stdout) == (0, "")
    assert "no output: the state holds args, a, b" in nothing.stderr


def test_output_is_written_to_the_file_whose_path_ends_the_run(invoke, hello: Path, place: Path) -> None:
    shown = invoke("run", "flow.py", "-i", "name=Ada", "--output", "out.md")
    assert shown.stdout == "wrote out.md\n"
    assert (place / "out.md").read_text() == "Hello Ada\n"


def test_a_run_that_fails_leaves_the_output_file_as_it_was(invoke, place: Path) -> None:
    (place / "f.py").write_text(
        TREE + "@node\nasync def a(s):\n    s['output'] = 'half'\n    raise OSError(5, 'oh')\nflow = AsyncFlow(a)\n"
    )
    (place / "out.md").write_text("old")
    assert invoke("run", "f.py", "-o", "out.md", "--no-record").exit_code == 1
    assert (place / "out.md").read_text() == "old"
    assert sorted(path.name for path in place.iterdir()) == ["f.py", "out.md"]


@pytest.mark.parametrize("target", ["nowhere/out.md", "."])
def test_an_impossible_output_is_refused_before_anything_runs(invoke, place: Path, target: str) -> None:
    (place / "f.py").write_text("raise SystemError('imported')\n")
    shown = invoke("run", "f.py", "-o", target)
    assert shown.exit_code == 2
    assert "imported" not in shown.stderr


def test_output_without_any_output_is_an_error(invoke, place: Path) -> None:
    (place / "f.py").write_text(TREE + "@node\nasync def a(s): s['x'] = 1\nflow = AsyncFlow(a)\n")
    shown = invoke("run", "f.py", "-o", "out.md")
    assert shown.exit_code == 1
    assert "the run left no output" in shown.stderr
    assert not (place / "out.md").exists()


def test_json_prints_the_whole_result_and_says_what_it_had_no_word_for(invoke, place: Path) -> None:
    (place / "f.py").write_text(
        TREE + "@node\nasync def a(s): s['output'] = (1, 'two'); s['odd'] = object()\nflow = AsyncFlow(a)\n"
    )
    shown = invoke("run", "f.py", "--json")
    result = json.loads(shown.stdout)
    assert (result["status"], result["action"], result["error"]) == ("done", "default", None)
    assert result["output"] == [1, "two"]
    assert result["state"]["odd"].startswith("<object object at")
    assert "note: JSON has no word for object" in shown.stderr


def test_a_dash_is_stdout(invoke, hello: Path, place: Path) -> None:
    assert invoke("run", "--no-record", "-q", "flow.py", "-i", "name=Ada", "-o", "-").stdout == "Hello Ada\n"
    assert [path.name for path in place.iterdir()] == ["flow.py"]


def test_what_a_flow_prints_does_not_stand_in_its_json(invoke, place: Path) -> None:
    (place / "f.py").write_text(
        TREE + "print('imported')\n@node(writes='output')\ndef a(): print('ran'); return 1\nflow = AsyncFlow(a)\n"
    )
    shown = invoke("run", "f.py", "--json")
    assert json.loads(shown.stdout)["output"] == 1
    assert [word in shown.stderr for word in ("imported", "ran")] == [True, True]
    assert invoke("run", "-q", "f.py").stdout == "imported\nran\n1\n"


def test_json_tells_of_a_failure_too(invoke, place: Path) -> None:
    (place / "f.py").write_text(
        TREE + "@node\nasync def a(s): s['x'] = 1\n@node\nasync def b(s): s['x'] = 2; 1 / 0\nflow = AsyncFlow(a >> b)\n"
    )
    shown = invoke("run", "f.py", "--json")
    result = json.loads(shown.stdout)
    assert shown.exit_code == 1
    assert (result["status"], result["error"]["type"], result["state"]["x"]) == ("failed", "NodeError", 1)


def test_a_value_that_contains_itself_is_an_error_that_says_so(invoke, place: Path) -> None:
    (place / "f.py").write_text(
        TREE + "@node\nasync def a(s):\n    s['output'] = x = []\n    x.append(x)\nflow = AsyncFlow(a)\n"
    )
    shown = invoke("run", "f.py")
    assert shown.exit_code == 1
    assert "error: output.0: the value contains itself" in shown.stderr


def test_a_sync_flow_runs_as_well(invoke, place: Path) -> None:
    (place / "f.py").write_text(TREE + "@node(writes='output')\ndef a(): return 'sync'\nflow = Flow(a)\n")
    assert invoke("run", "-q", "f.py").stdout == "sync\n"
    (place / "g.py").write_text(TREE + "@node\ndef a(s): 1 / 0\nflow = Flow(a)\n")
    assert "ZeroDivisionError" in invoke("run", "g.py").stderr


# ---- models --------------------------------------------------------------------------------------------------

ASKS = TREE + "flow = AsyncFlow(LLMNode(prompt='Summarise:\\n\\nThe moon pulls the sea.', writes='output'))\n"
SCRIPTED = "providers: {stage: {kind: scripted, options: {answers: [Curtain up]}}}\nmodels: {play: {provider: stage}}\n"


def test_without_a_key_one_line_says_so_with_the_remedy(invoke, place: Path) -> None:
    (place / "f.py").write_text(ASKS)
    shown = invoke("run", "f.py")
    assert shown.stdout == "The moon pulls the sea.\n"
    notes = [line for line in shown.stderr.splitlines() if line.startswith("note: ")]
    assert len(notes) == 1
    assert "no API key found: using local/extractive" in notes[0]
    assert "agentflow init" in notes[0]


def test_model_is_the_default_of_this_run(invoke, place: Path) -> None:
    (place / "f.py").write_text(ASKS)
    (place / "models.yml").write_text(SCRIPTED)
    shown = invoke("run", "f.py", "--model", "play")
    assert shown.stdout == "Curtain up\n"
    assert "no API key" not in shown.stderr


@pytest.mark.parametrize(
    ("models", "words", "said"),
    [
        ("", ["--model", "gpt-4p"], "unknown model 'gpt-4p': did you mean gpt-4o"),
        ("", ["--model", "gpt-4o"], "needs an API key: set OPENAI_API_KEY"),
        ("models: {a: [}\n", [], "models.yml:1:14: "),
        (
            "providers: {openai: {api_key: sk-abcdefghijklmnopqrstuvwx}}\n",
            [],
            "providers.openai.api_key holds what looks like a key",
        ),
        ("models: {a: {provider: openai, temperature: 9}}\n", [], "temperature"),
        ("defaults: {model: nothere}\n", [], "unknown model 'nothere'"),
    ],
)
def test_a_wrong_configuration_is_exit_code_3(invoke, place: Path, models: str, words: list[str], said: str) -> None:
    (place / "f.py").write_text(ASKS)
    if models:
        (place / "models.yml").write_text(models)
    shown = invoke("run", "f.py", *words)
    assert shown.exit_code == 3
    assert said in shown.stderr.splitlines()[-1]
    assert "sk-abc" not in shown.stderr


# ---- Ctrl-C --------------------------------------------------------------------------------------------------

SLOW = (
    TREE
    + """
@node
async def quick(s): pass
@node
async def hang(s):
    try:
        for _ in range(50):  # until the watcher has seen all that came before
            await asyncio.sleep(0.001)
        print("hanging", flush=True)
        await asyncio.sleep(600)
    finally:
        print("cleaned up", flush=True)
flow = AsyncFlow(quick >> hang)
blocking = Flow(quick >> hang)
"""
)


@pytest.mark.parametrize("name", ["flow", "blocking"])
def test_ctrl_c_cancels_cleanly_and_says_what_was_done(spawn, place: Path, name: str) -> None:
    (place / "f.py").write_text(SLOW)
    process = spawn("run", f"f.py:{name}", "--output", "out.md", "--no-record")
    assert process.stdout.readline() == b"hanging\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert out == b"cleaned up\n"
    assert err.decode().splitlines()[-1] == "interrupted; finished: quick; under way: hang; out.md was not written"
    assert b"Traceback" not in err
    assert [path.name for path in place.iterdir() if path.name.startswith((".", "out"))] == []


def test_a_second_ctrl_c_does_not_wait_for_a_thread(spawn, place: Path) -> None:
    (place / "f.py").write_text(
        TREE
        + "@node\ndef hang(s):\n    time.sleep(0.2)\n    print('hanging', flush=True)\n    time.sleep(600)\n"
        + "flow = AsyncFlow(hang)\n"
    )
    process = spawn("run", "f.py")
    assert process.stdout.readline() == b"hanging\n"
    process.send_signal(signal.SIGINT)
    said = process.stderr.readline().decode()
    assert re.fullmatch(r"interrupted; finished: nothing; under way: hang; to go on: agentflow runs resume \w+\n", said)
    deadline = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < deadline:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.1)
    assert process.returncode in (130, -signal.SIGINT)
    assert b"Traceback" not in process.stderr.read()
