"""Every example runs, with no key and no network, as its docstring says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from agentflow.cli.load import load_flow
from agentflow.llm.agentflow import AgentFlow
from agentflow.llm.messages import Request
from agentflow.llm.providers.scripted import ScriptedProvider

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
KEYS = ("OPENAI_API_KEY", "OPENAI_KEY", "MOONSHOT_API_KEY", "MOONSHOT_KEY", "AGENTFLOW_CONFIG")

TIDES = "# Tides\n\nThe moon pulls the sea. Twice a day the water rises. The sun helps the moon. Sailors plan for it.\n"
CHEESE = (
    "Cheese\n======\n\nMilk curdles when rennet is added. The curd is pressed into a mould. It ripens for months.\n"
)
BREAD = "<html><title>Bread</title><p>Flour and water make a dough. Yeast lets the dough rise. Heat sets the crumb.</p>"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of three small documents and a picture, without keys or configuration."""
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "tides.md").write_text(TIDES)
    (docs / "cheese.rst").write_text(CHEESE)
    (docs / "bread.html").write_text(BREAD)
    (docs / "logo.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(
    *words: str, stdin: str = "", program: tuple[str, ...] = ("-m", "agentflow.cli.main", "run")
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *program, *words],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        env=dict(os.environ),
    )


def example(name: str) -> str:
    return str(EXAMPLES / name)


def count_words(digest: str) -> int:
    """The words that count: without headings, file names and the last line."""
    body = re.sub(r"^- \*\*.*?\*\*(?: \(.*?\))?:|\(`[^`]*`\)", "", digest, flags=re.MULTILINE)
    return sum(len(part.split()) for part in body.split("\n\n") if not part.startswith(("#", "Skipped", "*")))


def test_every_example_is_tested_here() -> None:
    tested = Path(__file__).read_text()
    assert [
        path.name for path in EXAMPLES.glob("*.py") if path.name != "documents.py" and path.name not in tested
    ] == []


# ---- the digest ----------------------------------------------------------------------------------------------


def test_the_digest_names_every_source_and_what_was_skipped(place: Path) -> None:
    ran = run(example("digest.py"), "docs", "--output", "digest.md")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1] == "wrote digest.md"
    assert "no API key found: using local/extractive" in ran.stderr
    digest = (place / "digest.md").read_text()
    assert digest.startswith("# Digest of 3 documents\n")
    for name in ("tides.md", "cheese.rst", "bread.html"):
        assert f"- **`{name}`**" in digest
    assert "Skipped, binary: `logo.png`." in digest


def test_each_entry_says_something_of_its_own_source(place: Path) -> None:
    lines = {
        line.split("`")[1]: line
        for line in run("-q", example("digest.py"), "docs").stdout.splitlines()
        if line.startswith("- **")
    }
    assert "moon" in lines["tides.md"] or "water" in lines["tides.md"]
    assert "curd" in lines["cheese.rst"]
    assert "dough" in lines["bread.html"]


@pytest.mark.parametrize("words", [4, 20, 45])
def test_the_judge_keeps_the_digest_below_the_limit(place: Path, words: int) -> None:
    ran = run("-q", example("digest.py"), "docs", "--input", f"words={words}")
    assert ran.returncode == 0, ran.stderr
    assert 0 < count_words(ran.stdout) <= words


def test_standard_input_is_a_document(place: Path) -> None:
    ran = run("-q", example("digest.py"), "-", stdin=TIDES)
    assert "- **`standard input`** (Tides): The moon pulls the sea." in ran.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "nothing to read: name a folder or files"),
        (["nowhere"], "nowhere: no such file or folder"),
        (["hollow"], "hollow: the folder is empty"),
        (["docs/logo.png"], "nothing to read in logo.png (binary)"),
        (["docs", "-i", "words=0"], "words is 0: give a whole number above 0"),
    ],
)
def test_bad_input_is_exit_code_2_and_leaves_the_output_whole(place: Path, words: list[str], said: str) -> None:
    (place / "hollow").mkdir()
    (place / "digest.md").write_text("old")
    ran = run(example("digest.py"), *words, "--output", "digest.md")
    assert ran.returncode == 2
    assert said in ran.stderr.splitlines()[-1]
    assert (place / "digest.md").read_text() == "old"


@pytest.fixture
def chat_model(place: Path, monkeypatch: pytest.MonkeyPatch) -> ScriptedProvider:
    """A model that writes its own words, ignores every limit at first, and refuses what mentions rennet."""

    def speak(request: Request) -> str | Exception:
        from agentflow.errors import ContentFilterError

        if "rennet" in request.prompt:
            return ContentFilterError("no cheese: by policy", provider="stage", model="x")
        return "Some words of its own. " * (3 if "at most 1" in request.prompt else 30)

    provider = ScriptedProvider(speak)
    monkeypatch.setattr(type(AgentFlow), "_registry", None)
    AgentFlow.registry.register_provider("stage", lambda settings: provider)
    AgentFlow.registry.set_default("stage/x")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return provider


async def test_a_model_that_ignores_the_limit_is_asked_again_and_then_cut(chat_model: ScriptedProvider) -> None:
    flow = load_flow(example("digest.py"))
    (Path("docs") / "wine.md").write_text("# Wine\n\nGrapes ferment. Barrels wait.")
    result = await flow.run({"args": ["docs"], "words": 60})
    digest = str(result.state["output"])
    assert count_words(digest) <= 60
    assert "Skipped, refused by the model (no cheese): `cheese.rst`." in digest
    assert result.state["rounds"] in range(1, 6)


async def test_a_long_document_is_read_in_parts_that_a_model_can_hold(chat_model: ScriptedProvider) -> None:
    flow = load_flow(example("digest.py"))
    Path("long.txt").write_text("\n\n".join(f"Paragraph {number}. " + "word " * 500 for number in range(40)))
    await flow.run({"args": ["long.txt"]})
    prompts = [request.prompt for request in chat_model.requests]
    assert all(len(prompt) < 25_000 for prompt in prompts)
    assert all(any(f"Paragraph {number}." in prompt for prompt in prompts) for number in range(40))


# ---- the others ----------------------------------------------------------------------------------------------


def test_the_chat_answers_and_ends(place: Path) -> None:
    ran = run(example("chat.py"), program=(), stdin="The moon pulls the sea.\nquit\n")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "you> \nit> The moon pulls the sea.\n\nyou> "


def test_the_chat_remembers_what_was_said(place: Path) -> None:
    ran = run(example("chat.py"), program=(), stdin="The moon pulls the sea.\nThe sun shines.\n")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("it> ") == 2


def test_the_chat_says_what_is_wrong(place: Path) -> None:
    ran = run(example("chat.py"), "gpt4o", program=(), stdin="Hello\n")
    assert ran.returncode == 1
    assert "error: " in ran.stderr
    assert "unknown model 'gpt4o'" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    ("question", "answer"), [("Is 91 a prime number?", "no (2 of 3 votes)"), ("Is 97 a prime?", "yes (3 of 3 votes)")]
)
def test_the_majority_decides(place: Path, question: str, answer: str) -> None:
    ran = run("-q", example("majority_vote.py"), question)
    assert ran.stdout.splitlines()[-1] == answer, ran.stderr


def test_the_vote_takes_models_by_name_and_refuses_nonsense(place: Path) -> None:
    ran = run("-q", example("majority_vote.py"), "-i", 'models=["local/extractive"]')
    assert "local/extractive: " in ran.stdout, ran.stderr
    assert run("-q", example("majority_vote.py"), "-i", "models=3").returncode == 2


def test_map_reduce_counts_words_over_files(place: Path) -> None:
    (place / "docs" / "digits.txt").write_text("1 2 3")
    ran = run("-q", example("map_reduce.py"), "docs", "-i", "top=3")
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    assert lines[0].split() == ["word", "files", "times"]
    assert ["water", "2", "2"] in [line.split() for line in lines[1:4]]
    assert lines[4] == "not counted: digits.txt holds no words"


def test_the_judge_sends_the_draft_back_until_it_is_long_enough(place: Path) -> None:
    ran = run("-q", example("judge_loop.py"))
    assert ran.stdout.endswith("(accepted in round 2)\n"), ran.stderr


def test_the_judge_gives_up_on_a_model_that_does_not_listen(place: Path) -> None:
    (place / "models.yml").write_text("providers: {stage: {kind: scripted, options: {answers: [a, b, c, d, e]}}}\n")
    ran = run("-q", example("judge_loop.py"), "--model", "stage/x")
    assert ran.stdout == "e\n\n(accepted in round 5)\n", ran.stderr


def test_nested_flows_brief_each_document_and_the_whole(place: Path) -> None:
    ran = run("-q", example("nested_flows.py"), "docs")
    assert ran.returncode == 0, ran.stderr
    headline, _, *briefs = ran.stdout.splitlines()
    assert [line.split(":")[0] for line in briefs] == ["- bread.html", "- cheese.rst", "- tides.md"]
    assert 0 < len(headline.split()) <= 13


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.py") if path.name != "documents.py"))
def test_every_example_can_be_drawn(place: Path, name: str) -> None:
    ran = run(example(name), program=("-m", "agentflow.cli.main", "graph"))
    assert ran.stdout.startswith("flowchart TD"), ran.stderr


def test_a_top_that_is_no_number_is_said_with_the_remedy(place: Path) -> None:
    ran = run("-q", example("map_reduce.py"), "docs", "-i", "top=abc")
    assert ran.returncode == 2
    assert "error: top is 'abc': give a whole number above 0, as in --input top=20" in ran.stderr
