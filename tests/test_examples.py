"""Every example runs, with no key and no network, as its docstring says."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from agentflow.cli.load import AnyFlow, load_flow
from agentflow.core import ExecutionEvent
from agentflow.errors import LimitExceededError, NodeError, UnsupportedError
from agentflow.llm.agentflow import AgentFlow
from agentflow.llm.content import Audio, Document, Image, Text, ToolCall, ToolResult
from agentflow.llm.messages import EmbeddingRequest, Embeddings, Request, Response, Tool, Usage
from agentflow.llm.providers.scripted import ScriptedAnswer, ScriptedProvider

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
KEYS = ("OPENAI_API_KEY", "OPENAI_KEY", "MOONSHOT_API_KEY", "MOONSHOT_KEY", "AGENTFLOW_CONFIG")

NO_FLOWS = ("documents.py", "survive.py")

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


# ---- models that a test stages -------------------------------------------------------------------------------

PIXEL = b"\x89PNG\r\n\x1a\n" + bytes(16)


class Stage(ScriptedProvider):
    """Says what it is told to, and gives texts a vector: how often they speak of water, of flour, of milk."""

    embedded: tuple[EmbeddingRequest, ...] = ()

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        self.embedded += (request,)
        subjects = (r"sea|water|flood", r"flour|dough|loaf", r"milk|curd|cheese")
        vectors = [tuple(float(len(re.findall(about, text.lower()))) for about in subjects) for text in request.inputs]
        return Embeddings(tuple(vectors), request.model, self.name)


Staged = Callable[..., Stage]


@pytest.fixture
def staged(place: Path, monkeypatch: pytest.MonkeyPatch) -> Staged:
    """Makes the default a model that gives these answers; `price` is in USD a million tokens."""

    def stage(*answers: ScriptedAnswer, price: float | None = None) -> Stage:
        provider = Stage(list(answers), name="stage")
        monkeypatch.setattr(type(AgentFlow), "_registry", None)
        registry = AgentFlow.registry
        registry.register_provider("stage", lambda settings: provider)
        registry.register_model("actor", provider="stage", price=price and {"input": price, "output": price})
        registry.set_default("actor")
        monkeypatch.syspath_prepend(str(EXAMPLES))
        return provider

    return stage


def calling(*calls: ToolCall, text: str = "") -> Response:
    said = (Text(text),) if text else ()
    return Response((*said, *calls), "actor", "stage", usage=Usage(100, 10), finish_reason="tool_calls")


def results(request: Request) -> dict[str, ToolResult]:
    return {part.id: part for turn in request.messages for part in turn.parts if isinstance(part, ToolResult)}


def loaded(name: str) -> tuple[AnyFlow, ModuleType]:
    """An example's flow and its module."""
    return load_flow(example(f"{name}.py")), sys.modules[f"agentflow_file_{name}"]


# ---- the agent -----------------------------------------------------------------------------------------------


def writing(path: str, text: str = "New.\n", id: str = "w") -> Response:
    return calling(ToolCall(id, "write_file", {"path": path, "text": text}))


class Keyboard(io.StringIO):
    """A terminal at which somebody has typed."""

    def isatty(self) -> bool:
        return True


async def test_the_agent_lists_and_reads_what_is_in_the_folder(staged: Staged) -> None:
    Path("docs/.env").write_text("KEY=secret")
    listing, some = ToolCall("1", "list_files"), ToolCall("2", "list_files", {"pattern": "*.rst"})
    reading = ToolCall("3", "read_file", {"path": "tides.md", "first_line": 3})
    picture = ToolCall("4", "read_file", {"path": "logo.png"})
    model = staged(calling(listing, some), calling(reading, picture), "About the sea.")
    flow, _ = loaded("agent")
    ran = await flow.run({"args": ["docs", "What", "is it about?"]})
    assert ran.state["output"] == "About the sea."
    first, second, third = model.requests
    assert [tool.name for tool in first.tools if isinstance(tool, Tool)] == ["list_files", "read_file", "write_file"]
    assert (first.messages[0].role, first.prompt) == ("system", "What is it about?")
    assert results(second)["1"].text == "bread.html\ncheese.rst\nlogo.png\ntides.md"
    assert results(second)["2"].text == "cheese.rst"
    assert results(third)["3"].text.startswith("The moon pulls the sea.")
    assert results(third)["4"] == ToolResult("4", "ValueError: logo.png is binary, not text", "read_file", True)


async def test_the_agent_says_where_a_long_file_goes_on(staged: Staged) -> None:
    Path("docs/long.txt").write_text("".join(f"{number:09}\n" for number in range(1, 5001)))
    model = staged(calling(ToolCall("1", "read_file", {"path": "long.txt"})), "Long.")
    flow, _ = loaded("agent")
    await flow.run({"args": ["docs", "Read it."]})
    assert results(model.requests[1])["1"].text.endswith("000002000\n… read on from line 2001")


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("../secret.txt", "../secret.txt is outside of the folder"),
        ("{here}/secret.txt", "is outside of the folder"),
        ("way/secret.txt", "way/secret.txt is outside of the folder"),
        ("link.txt", "link.txt is outside of the folder"),
        (".env", ".env is hidden"),
        ("new/.git/config", "is hidden"),
        (".", "is no file"),
        ("a\0b", "null byte"),
    ],
)
async def test_the_agent_stays_in_its_folder(staged: Staged, path: str, told: str) -> None:
    """Not by .., not by an absolute path, not by a link to a file or a folder; what is hidden is out of bounds too."""
    here = Path.cwd()
    Path("secret.txt").write_text("secret")
    Path("docs/.env").write_text("KEY=secret")
    Path("docs/link.txt").symlink_to(here / "secret.txt")
    Path("docs/way").symlink_to(here)
    path = path.replace("{here}", str(here))
    before = sorted(here.rglob("*"))
    model = staged(calling(ToolCall("r", "read_file", {"path": path}), *writing(path).tool_calls), "No.")
    flow, _ = loaded("agent")
    await flow.run({"args": ["docs", "Break out."], "yes": True})
    for result in results(model.requests[1]).values():
        assert result.is_error
        assert told in result.text
    assert (Path("secret.txt").read_text(), Path("docs/.env").read_text()) == ("secret", "KEY=secret")
    assert sorted(here.rglob("*")) == before


async def test_the_agent_changes_what_is_allowed_beforehand(staged: Staged) -> None:
    model = staged(writing("notes/new.md"), "Written.")
    flow, _ = loaded("agent")
    await flow.run({"args": ["docs", "Write it."], "yes": True})
    assert Path("docs/notes/new.md").read_text() == "New.\n"
    assert results(model.requests[1])["w"].text == "wrote 1 line"


async def test_the_agent_changes_nothing_when_nobody_can_be_asked(
    staged: Staged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))  # a pipe is nobody
    model = staged(writing("tides.md"), "I was not allowed to.")
    flow, _ = loaded("agent")
    await flow.run({"args": ["docs", "Write it."]})
    assert Path("docs/tides.md").read_text() == TIDES
    assert "nobody is there to allow it" in results(model.requests[1])["w"].text


async def test_the_agent_asks_for_each_change_and_tells_its_steps(
    staged: Staged, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is asked for shows what is to be written, without what could deceive a terminal."""
    monkeypatch.setattr(sys, "stdin", Keyboard("y\nno\n"))
    lines = "one \x1b[2J\n" + "more\n" * 9
    model = staged(
        calling(ToolCall("1", "list_files"), text="Let me look."),
        writing("new.md", lines),
        writing("tides.md"),
        writing("../out.md"),
        Response("Done.", "actor", "stage", usage=Usage(100, 10)),
        price=1000.0,
    )
    _, module = loaded("agent")
    await module.main("docs", "Write it.", None, yes=False)
    said = capsys.readouterr()
    assert said.out == "Done.\n"
    assert said.err.startswith("Let me look.\n→ list_files()\nwrite new.md, 10 lines:\n  │ one  [2J\n  │ more\n")
    assert "  │ … 4 more\nallow it? [y/N] → write_file(path='new.md', text='one \\x1b[2J\\nmore" in said.err
    assert "replace tides.md, 1 line:\n  │ New.\nallow it? [y/N] ✗ write_file: refused: the user does not" in said.err
    assert said.err.endswith("✗ write_file: ../out.md is outside of the folder\n(5 model calls, 550 tokens, $0.5500)\n")
    assert Path("docs/new.md").read_text() == lines
    assert Path("docs/tides.md").read_text() == TIDES
    assert len(model.requests) == 5


@pytest.mark.parametrize(("price", "limit", "requests"), [(None, "tool_rounds", 21), (1000.0, "dollars", 5)])
async def test_the_agent_ends_at_its_limits(staged: Staged, price: float | None, limit: str, requests: int) -> None:
    """Rounds of tools always, dollars where the price is known: five calls of 11 cents go beyond 50."""
    model = staged(*[calling(ToolCall(str(number), "list_files")) for number in range(30)], price=price)
    flow, _ = loaded("agent")
    with pytest.raises(NodeError) as caught:
        await flow.run({"args": ["docs", "Go on for ever."]})
    assert isinstance(caught.value.__cause__, LimitExceededError)
    assert caught.value.__cause__.limit == limit
    assert len(model.requests) == requests


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere", "Do it."], "nowhere: no such folder"),
        (["docs/tides.md", "Do it."], "docs/tides.md: no such folder"),
        (["docs", ""], "say what is to be done in docs"),
        (["docs", "Do it."], "local/extractive is asked to call tools, which it cannot"),
        (["docs", "Do it.", "--model", "gpt4o"], "unknown model 'gpt4o'"),
        (["docs", "Do it.", "--model", "gpt-4o"], "set OPENAI_API_KEY"),
    ],
)
def test_the_agent_says_what_is_wrong(place: Path, words: list[str], said: str) -> None:
    ran = run(example("agent.py"), *words, program=())
    assert ran.returncode == 1
    assert ran.stderr.startswith("error: "), ran.stderr
    assert said in ran.stderr
    assert "Traceback" not in ran.stderr


def test_the_agent_wants_a_plain_yes(place: Path) -> None:
    ran = run("-q", example("agent.py"), "docs", "Do it.", "-i", "yes=sure")
    assert ran.returncode == 2
    assert "yes is 'sure': give --input yes=true" in ran.stderr


# ---- answers from a folder -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "answered", "source"),
    [
        ("When does the sea rise?", "Twice a day the water rises. [1]", "[1] tides.md: Tides The moon pulls the sea."),
        ("How long does cheese ripen", "It ripens for months. [1]", "[1] cheese.rst: Cheese Milk curdles"),
        ("What does yeast do?", "Yeast lets the dough rise. [1]", "[1] bread.html: Flour and water"),
    ],
)
def test_the_folder_answers_without_a_key(place: Path, question: str, answered: str, source: str) -> None:
    ran = run("-q", example("ask_folder.py"), "docs", question)
    assert ran.returncode == 0, ran.stderr
    assert answered in ran.stdout
    assert source in ran.stdout


async def test_the_folder_says_when_it_holds_nothing_about_that(staged: Staged) -> None:
    """Words that every text holds are no answer, and no model is asked."""
    model = staged()
    flow, _ = loaded("ask_folder")
    ran = await flow.run({"args": ["docs", "Who is the president of the moon's football club?"]})
    assert ran.state["output"] == "The documents say nothing about that."
    assert model.requests == []


async def test_the_folder_sends_numbered_passages_and_lists_those_that_are_named(staged: Staged) -> None:
    model = staged("It rises twice a day [1]. Sailors know it [1][7].")
    flow, _ = loaded("ask_folder")
    ran = await flow.run({"args": ["docs", "When does  the sea\nrise?"]})
    prompt = model.requests[0].prompt
    assert "The question is: When does the sea rise?" in prompt
    assert "## [1] tides.md\n\n# Tides\n\nThe moon pulls the sea." in prompt
    assert ran.state["output"] == (
        "It rises twice a day [1]. Sailors know it [1][7].\n\n"
        "[1] tides.md: Tides The moon pulls the sea. Twice a day the water rises. The sun …"
    )


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("It rises.", "It rises.\n\nIt names no source; these are the passages it was given:\n[1] tides.md: Tides"),
        ("NOTHING", "The documents say nothing about that."),
        ("NOTHING.", "The documents say nothing about that."),
    ],
)
async def test_the_folder_shows_what_an_answer_rests_on(staged: Staged, said: str, shown: str) -> None:
    staged(said)
    flow, _ = loaded("ask_folder")
    ran = await flow.run({"args": ["docs", "When does the sea rise?"]})
    assert str(ran.state["output"]).startswith(shown)


async def test_the_folder_is_searched_by_meaning_where_a_model_has_vectors(staged: Staged) -> None:
    """`flood` stands in no document; the vector of the question points to the sea."""
    model = staged("It comes twice a day [1].")
    Path("docs/long.txt").write_text("\n\n".join("cheese " * 150 for _ in range(300)))
    flow, _ = loaded("ask_folder")
    ran = await flow.run({"args": ["docs", "Flood?"], "embeddings": "stage/vectors"})
    assert [len(request.inputs) for request in model.embedded] == [256, 48]
    assert {request.model for request in model.embedded} == {"vectors"}
    assert model.embedded[0].inputs[0] == "Flood?"
    assert "## [1] tides.md" in model.requests[0].prompt
    assert str(ran.state["output"]).endswith(
        "[1] tides.md: Tides The moon pulls the sea. Twice a day the water rises. The sun …"
    )


async def test_passages_are_whole_paragraphs_and_lose_nothing(staged: Staged) -> None:
    staged()
    _, module = loaded("ask_folder")
    texts = ["Short.", "word " * 700, "x" * 3000, "Last one."]
    passages = module.cut(module.Document("a", "", "\n\n".join(texts)))
    assert all(0 < len(passage.text) <= module.PASSAGE for passage in passages)
    assert "".join("".join(passage.text.split()) for passage in passages) == "".join("".join(texts).split())
    assert passages[-1].text.endswith("x\n\nLast one.")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "name a folder or files, and then ask"),
        (["docs"], 2, "name a folder or files, and then ask"),
        (["docs", "docs"], 2, "name a folder or files, and then ask"),
        (["nowhere", "Why?"], 2, "nowhere: no such file or folder"),
        (["hollow", "Why?"], 2, "hollow: the folder is empty"),
        (["docs", "Why?", "-i", "embeddings=3"], 2, "embeddings is 3: give the name of a model"),
        (["docs", "Why?", "-i", "embeddings=local/extractive"], 3, "embeddings"),
        (["docs", "Why?", "-i", "embeddings=text-embedding-3-small"], 3, "set OPENAI_API_KEY"),
    ],
)
def test_the_folder_says_what_is_wrong(place: Path, words: list[str], code: int, said: str) -> None:
    (place / "hollow").mkdir()
    ran = run("-q", example("ask_folder.py"), *words)
    assert (ran.returncode, ran.stdout) == (code, "")
    assert said in ran.stderr


# ---- extraction ----------------------------------------------------------------------------------------------

MAIL = "Dear Ada,\n\nplease pay 12.50 EUR for 2 pots of ink, invoice 7 of 2 May 2025, by the end of May.\n\nBabbage\n"
INVOICE = {
    "number": "7", "seller": "Babbage", "buyer": "Ada", "issued": "2025-05-02", "due": "2025-05-31", "currency": "EUR",
    "items": [{"description": "pot of ink", "quantity": "2", "unit_price": "6.25"}], "tax": None, "total": "12.50",
}  # fmt: skip


def invoices(source: str, **changed: object) -> str:
    return json.dumps({"value": [{"source": source, **INVOICE, **changed}]})


async def test_an_invoice_is_asked_for_by_its_schema_and_grows(staged: Staged) -> None:
    model = staged(invoices("mail.txt"))
    Path("mail.txt").write_text(MAIL)
    flow, _ = loaded("extract")
    seen: list[ExecutionEvent] = []
    async with flow.stream({"args": ["mail.txt"]}) as events:
        async for event in events:
            if event.kind == "partial":
                seen.append(event)
    request = model.requests[0]
    assert MAIL.strip() in request.prompt
    assert request.output is not None
    assert "what is to be paid, tax included" in json.dumps(request.output.schema)
    assert {event.data["source"] for event in seen} == {"mail.txt"}
    assert len(seen) > 5
    assert json.loads(str(events.result.state["output"])) == [{"source": "mail.txt", **INVOICE}]


async def test_an_invoice_that_cannot_be_true_is_asked_for_again(staged: Staged) -> None:
    model = staged(invoices("mail.txt", due="2025-01-01"), invoices("mail.txt", items=3), invoices("mail.txt"))
    Path("mail.txt").write_text(MAIL)
    flow, _ = loaded("extract")
    await flow.run({"args": ["mail.txt"]})
    assert "due is before issued" in model.requests[1].prompt
    assert "items" in model.requests[2].prompt


def test_extraction_prints_json_for_each_of_the_files(place: Path) -> None:
    (place / "mail.txt").write_text(MAIL)
    answers = json.dumps([invoices("one"), '{"value": []}', "none of it is JSON"])
    (place / "models.yml").write_text(f"providers: {{stage: {{kind: scripted, options: {{answers: {answers}}}}}}}\n")
    ran = run(example("extract.py"), "-", "--model", "stage/x", program=(), stdin=MAIL)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == [{"source": "one", **INVOICE}]
    assert ran.stderr == ""
    ran = run("-q", example("extract.py"), "mail.txt", "docs/tides.md", "-m", "stage/x")
    assert ran.returncode == 0, ran.stderr
    assert [found["source"] for found in json.loads(ran.stdout)] == ["one"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere.txt"], "nowhere.txt: no such file"),
        (["hollow"], "hollow: the folder is empty"),
        (["docs/logo.png"], "nothing to read in logo.png (binary)"),
        (["mail.txt"], "local/extractive"),  # cannot answer in a shape
        (["mail.txt", "--model", "gpt-4o"], "set OPENAI_API_KEY"),
        (["mail.txt", "--model", "stage/x"], "does not fit the type asked for"),
    ],
)
def test_extraction_says_what_is_wrong(place: Path, words: list[str], said: str) -> None:
    (place / "hollow").mkdir()
    (place / "mail.txt").write_text(MAIL)
    (place / "models.yml").write_text("providers: {stage: {kind: scripted, options: {answers: [a, b, c]}}}\n")
    ran = run(example("extract.py"), *words, program=())
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.startswith("error: ")
    assert said in ran.stderr
    assert "Traceback" not in ran.stderr


# ---- a look --------------------------------------------------------------------------------------------------


async def test_what_is_looked_at_stands_before_the_question(staged: Staged) -> None:
    """Each file is the part that it is; an address is handed on as it stands."""
    model = staged("Two cats.")
    Path("cat.png").write_bytes(PIXEL)
    Path("bill.pdf").write_bytes(b"%PDF-1.7 ")
    Path("purr.mp3").write_bytes(b"ID3 ")
    Path("notes.txt").write_text("Cats.")
    places = ["cat.png", "bill.pdf", "purr.mp3", "notes.txt", "https://example.com/cat.jpg"]
    flow, _ = loaded("look")
    ran = await flow.run({"args": [*places, "How many cats?"]})
    assert ran.state["output"] == "Two cats."
    *parts, question = model.requests[0].messages[0].parts
    assert [type(part) for part in parts] == [Image, Document, Audio, Document, Image]
    assert [part.kind for part in parts if isinstance(part, Image | Document | Audio)] == [
        "image/png", "application/pdf", "audio/mpeg", "text/plain", None
    ]  # fmt: skip
    assert isinstance(parts[4], Image)
    assert parts[4].url == "https://example.com/cat.jpg"
    assert question == Text("How many cats?")


async def test_a_file_alone_is_described(staged: Staged) -> None:
    model = staged("A cat.")
    Path("cat.png").write_bytes(PIXEL)
    flow, _ = loaded("look")
    await flow.run({"args": ["cat.png"]})
    assert model.requests[0].prompt == "Describe what you see, hear or read here, in a few sentences."


async def test_what_a_look_finds_is_printed_as_it_comes(staged: Staged, capsys: pytest.CaptureFixture[str]) -> None:
    staged("A cat, asleep.")
    Path("cat.png").write_bytes(PIXEL)
    _, module = loaded("look")
    await module.main(["cat.png", "What is it?"], "actor")
    assert capsys.readouterr().out == "A cat, asleep.\n"


async def test_a_model_without_eyes_is_not_asked(staged: Staged) -> None:
    model = staged("never said")
    AgentFlow.registry.register_model("blind", provider="stage", capabilities=["tools"])
    AgentFlow.registry.set_default("blind")
    Path("cat.png").write_bytes(PIXEL)
    flow, _ = loaded("look")
    with pytest.raises(NodeError) as caught:
        await flow.run({"args": ["cat.png", "What is it?"]})
    assert isinstance(caught.value.__cause__, UnsupportedError)
    assert "blind is asked to look at an image, which it cannot" in str(caught.value)
    assert model.requests == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["dog.png", "What is it?"], "dog.png: no such file"),
        (["What is it?"], "What is it?: no such file"),
        (["docs", "What is it?"], "docs: no such file"),
        (["strange", "What is it?"], "strange: its name does not tell what it is"),
        (["cat.png", "What is it?"], "local/extractive is asked to look at an image, which it cannot"),
        (["cat.png", "What is it?", "--model", "gpt-4o"], "set OPENAI_API_KEY"),
        (["empty.png", "What is it?", "--model", "stage/x"], "it is empty"),
    ],
)
def test_a_look_says_what_is_wrong(place: Path, words: list[str], said: str) -> None:
    (place / "cat.png").write_bytes(PIXEL)
    for name in ("strange", "empty.png"):
        (place / name).touch()
    (place / "models.yml").write_text("providers: {stage: {kind: scripted, options: {answers: [a]}}}\n")
    ran = run(example("look.py"), *words, program=())
    assert ran.returncode == 1
    assert ran.stderr.startswith("error: "), ran.stderr
    assert said in ran.stderr
    assert "Traceback" not in ran.stderr


# ---- gone on with ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words", [("digest.py", "docs"), ("map_reduce.py", "docs"), ("ask_folder.py", "docs", "When does the sea rise?")]
)
def test_all_that_an_example_does_can_be_kept_and_is_not_done_again(place: Path, words: tuple[str, ...]) -> None:
    name, *rest = words
    ran = run(example(name), *rest)
    assert "cannot be stored" not in ran.stderr
    again = run("resume", "last", program=("-m", "agentflow", "runs"))
    assert (again.returncode, again.stdout) == (0, ran.stdout), again.stderr
    assert "0 node visits" in again.stderr


# ---- the trip ------------------------------------------------------------------------------------------------

BOOKED = ["booking a flight in Oslo", "booking a hotel in Oslo"]
GIVEN_BACK = ["giving back the hotel in Oslo", "giving back the flight in Oslo"]

DOOMED = """
import os, signal
import approve

class Doomed(approve.Book):
    async def exec(self, where):
        if self.name == "hotel" and os.environ["DOOM"] == "between":
            os.kill(os.getpid(), signal.SIGKILL)
        price = await super().exec(where)
        if self.name == "hotel" and os.environ["DOOM"] == "within":
            os.kill(os.getpid(), signal.SIGKILL)
        return price

flow = approve.AsyncFlow(
    Doomed("flight", 300) >> Doomed("hotel", 450) >> approve.approve,
    approve.approve.on("yes") >> approve.pay >> approve.END,
    approve.approve.on("no") >> approve.give_up >> approve.END,
    name="trip",
)
"""


def agentflow(*words: str) -> subprocess.CompletedProcess[str]:
    return run(*words, program=("-m", "agentflow"))


def lines(said: str) -> list[str]:
    """What an example has printed, without the keys."""
    return [line.partition(" (key")[0] for line in said.splitlines()]


def test_a_trip_waits_for_somebody_to_agree_and_is_booked_once(place: Path) -> None:
    parked = agentflow("run", example("approve.py"), "Oslo")
    assert (parked.returncode, lines(parked.stdout)) == (4, BOOKED), parked.stderr
    assert "it asks: Spend 750 euros? (yes/no, until " in parked.stderr
    unclear = agentflow("answer", "last", "perhaps")
    assert (unclear.returncode, unclear.stdout) == (2, "")
    answered = agentflow("answer", "last", "yes")
    assert (answered.returncode, answered.stdout) == (0, "paid 750 euros for flight and hotel\n"), answered.stderr
    assert agentflow("runs", "resume", "last").stdout == answered.stdout


@pytest.mark.parametrize(
    ("words", "answer", "said"),
    [
        ((), "no", "nobody wanted to go"),
        (("-i", "budget=100"), "yes", "750 euros are more than there are"),
    ],
)
def test_a_trip_that_comes_to_nothing_is_given_back_in_reverse_order(
    place: Path, words: tuple[str, ...], answer: str, said: str
) -> None:
    agentflow("run", example("approve.py"), "Oslo", *words)
    ended = agentflow("answer", "last", answer)
    assert (ended.returncode, lines(ended.stdout)) == (1, GIVEN_BACK)
    assert said in ended.stderr
    again = agentflow("runs", "resume", "last")
    assert (again.returncode, again.stdout) == (1, "")  # it is not given back twice
    assert said in again.stderr


@pytest.mark.parametrize(
    ("doom", "before", "after"), [("between", BOOKED[:1], BOOKED[1:]), ("within", BOOKED, BOOKED[1:])]
)
def test_a_trip_that_is_killed_goes_on_and_books_nothing_twice_that_was_kept(
    place: Path, monkeypatch: pytest.MonkeyPatch, doom: str, before: list[str], after: list[str]
) -> None:
    """Killed within a booking, nobody knows whether that was made, so it is made once more, with the same key."""
    (place / "doomed.py").write_text(DOOMED)
    for name, value in {"DOOM": doom, "PYTHONPATH": str(EXAMPLES), "PYTHONUNBUFFERED": "1"}.items():
        monkeypatch.setenv(name, value)
    killed = agentflow("run", "doomed.py", "Oslo")
    assert (killed.returncode, lines(killed.stdout)) == (-signal.SIGKILL, before), killed.stderr
    resumed = agentflow("runs", "resume", "last", "--flow", example("approve.py"))
    assert (resumed.returncode, lines(resumed.stdout)) == (4, after), resumed.stderr
    keys = {line for line in (killed.stdout + resumed.stdout).splitlines() if "hotel" in line}
    assert len(keys) == 1
    assert agentflow("answer", "last", "y", "--flow", example("approve.py")).stdout.startswith("paid 750 euros")


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


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.py") if path.name not in NO_FLOWS))
def test_every_example_can_be_drawn(place: Path, name: str) -> None:
    ran = run(example(name), program=("-m", "agentflow.cli.main", "graph"))
    assert ran.stdout.startswith("flowchart TD"), ran.stderr


def test_a_top_that_is_no_number_is_said_with_the_remedy(place: Path) -> None:
    ran = run("-q", example("map_reduce.py"), "docs", "-i", "top=abc")
    assert ran.returncode == 2
    assert "error: top is 'abc': give a whole number above 0, as in --input top=20" in ran.stderr


def test_survive_answers_every_question_of_a_bad_day(place: Path) -> None:
    """Limits, outages and stalls come to waits and stand-ins, and the account says where the time went."""
    done = run("--questions", "40", "--at-once", "10", program=(str(EXAMPLES / "survive.py"),))
    assert done.stderr == ""
    assert "40 of 40 questions were answered" in done.stdout
    assert re.search(r"\d+ × clever: down", done.stdout)
    assert re.search(r"generation +\d+\.\d\d s", done.stdout)
