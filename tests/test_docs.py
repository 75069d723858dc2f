"""The documentation is true: its code runs, its commands parse, its configuration loads, its links lead somewhere.

page.md  ──▶  blocks, headings, links
  ```python   runs; the blocks of a page run in order and share their names; `await` may stand at the top level
  ```sh       each `agentflow …` is parsed by the command line, each `make …` is a target of the Makefile
  ```yaml     is a models.yml and loads as one

`<!-- no-run: the reason -->` on the line before a block exempts it; Python must still compile.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import re
import shlex
import shutil
import socket
import sys
import types
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from agentflow import AgentFlow, ModelRegistry
from agentflow.cli.main import commands
from agentflow.core.observability.alerts import AlertManager, states
from agentflow.core.observability.metrics.snapshot import MetricsSnapshot
from agentflow.core.robustness.breaker_state import diagram
from agentflow.llm.config.document import parse
from agentflow.llm.config.loader import read_layer

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])

FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>```+)(?P<info>[^`]*)$")
NO_RUN = re.compile(r"^<!-- no-run:(?P<reason>.*)-->$")
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its language, its text, the line of its first line, and why it is not run, if it is not."""

    language: str
    text: str
    line: int
    reason: str | None


def blocks_of(text: str) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    lines = iter(enumerate(text.splitlines(), start=1))
    before = ""
    for number, line in lines:
        opened = FENCE.match(line)
        if opened:
            yield Block(
                language=(opened["info"].split() or [""])[0],
                text="".join(f"{inner.removeprefix(opened['indent'])}\n" for inner in _until(lines, opened["ticks"])),
                line=number + 1,
                reason=marked["reason"].strip() if (marked := NO_RUN.match(before)) else None,
            )
        before = line.strip() or before


def _until(lines: Iterator[tuple[int, str]], ticks: str) -> Iterator[str]:
    for _, line in lines:
        if line.strip() == ticks:
            return
        yield line
    raise AssertionError("a code block is not closed")


def prose_of(text: str) -> str:
    """The page without its code blocks."""
    fenced = {number for block in blocks_of(text) for number in range(block.line, block.line + block.text.count("\n"))}
    return "\n".join(line for number, line in enumerate(text.splitlines(), start=1) if number not in fenced)


def anchors_of(text: str) -> set[str]:
    """What `#…` may lead to, spelled as GitHub spells it; a heading that comes again gets a number."""
    seen: Counter[str] = Counter()
    anchors = set()
    for heading in re.findall(r"^#+ +(.+?) *#*$", prose_of(text), re.MULTILINE):
        title = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        anchors.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return anchors


def commands_of(block: Block) -> Iterator[list[str]]:
    """The commands of a shell block, each as its words: no prompt, no variables before it, no redirections after it."""
    for line in block.text.replace("\\\n", " ").splitlines():
        if block.language == "console" and not line.startswith("$ "):
            continue
        tokens = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars=True)
        words: list[str] = []
        for token in tokens:
            if set(token) <= set("|&;"):
                yield _bare(words)
                words = []
            elif set(token) <= set("<>"):
                next(tokens, None)
            else:
                words.append(token)
        yield _bare(words)


def _bare(words: list[str]) -> list[str]:
    first = next((index for index, word in enumerate(words) if not re.match(r"^\w+=", word)), len(words))
    return words[first:]


def _pages_with(*languages: str) -> list[Path]:
    return [page for page in PAGES if any(block.language in languages for block in _blocks(page))]


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def _blocks(page: Path) -> list[Block]:
    return list(blocks_of(page.read_text(encoding="utf-8")))


@pytest.fixture
def as_a_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A reader's machine: a copy of what the pages speak of, no key, no configuration of their own, no network."""
    for name in ("docs", "examples"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for page in ROOT.glob("*.md"):
        shutil.copy(page, tmp_path)
    for name in [name for name in os.environ if name.endswith("_API_KEY") or name.startswith("AGENTFLOW_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home" / ".config"))
    monkeypatch.setattr(socket, "getaddrinfo", _no_network)
    monkeypatch.chdir(tmp_path)
    AgentFlow.registry = ModelRegistry.load()
    return tmp_path


def _no_network(host: object, *rest: object, **more: object) -> None:
    raise AssertionError(f"a code block in the documentation looked up {host}")


@pytest.mark.parametrize("page", _pages_with("python"), ids=_name)
def test_every_python_block_runs(page: Path, as_a_reader: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Python blocks of a page run one after the other, as a reader would paste them."""
    session = types.ModuleType(f"page_{page.stem.replace('-', '_')}")
    monkeypatch.setitem(sys.modules, session.__name__, session)
    with asyncio.Runner() as loop:
        for block in _blocks(page):
            if block.language == "python":
                _run(block, page, session, loop)
        loop.run(AgentFlow.aclose())


def _run(block: Block, page: Path, session: types.ModuleType, loop: asyncio.Runner) -> None:
    placed = "\n" * (block.line - 1) + block.text  # a traceback then names the line of the page
    code = compile(placed, page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    if block.reason is not None:
        return
    outcome = types.FunctionType(code, vars(session))()
    if inspect.iscoroutine(outcome):
        loop.run(outcome)


@pytest.mark.parametrize("page", _pages_with("sh", "bash", "shell", "console"), ids=_name)
def test_every_shell_command_is_one_that_exists(page: Path, as_a_reader: Path) -> None:
    """`agentflow …` in a shell block has a command and options that the command line knows; `make …` has a target."""
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for block in _blocks(page):
        if block.language not in {"sh", "bash", "shell", "console"} or block.reason is not None:
            continue
        for words in commands_of(block):
            match words:
                case ["agentflow", *arguments]:
                    _parse(arguments)
                case ["make", *wanted]:
                    assert {word for word in wanted if "=" not in word} <= targets, f"{page.name}: {words}"


def _parse(arguments: list[str]) -> None:
    """Parse as the command line does, without running anything. Raises click's UsageError for what it does not know."""
    with commands.make_context("agentflow", ["--help"], resilient_parsing=True) as top:
        name = next((word for word in arguments if not word.startswith("-")), None)
        if name is None:
            assert set(arguments) <= {option for each in commands.get_params(top) for option in each.opts}, arguments
            return
        command = commands.get_command(top, name)
        assert command is not None, f"there is no command {name}"
        with command.make_context(name, arguments[arguments.index(name) + 1 :], parent=top):
            pass


@pytest.mark.parametrize("page", _pages_with("yaml", "yml"), ids=_name)
def test_every_yaml_block_is_a_configuration_that_loads(page: Path) -> None:
    """A YAML block is a models.yml: it has the right shape and holds no key."""
    for block in _blocks(page):
        if block.language in {"yaml", "yml"} and block.reason is None:
            read_layer(f"{page.name}, block at line {block.line}", block.text)


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_link_leads_somewhere(page: Path) -> None:
    """A relative link names a file that is there, and its `#anchor` a heading in it."""
    text = page.read_text(encoding="utf-8")
    dead = []
    for target in LINK.findall(prose_of(text)):
        if re.match(r"^\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors_of(file.read_text(encoding="utf-8"))):
            dead.append(target)
    assert dead == []


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_a_block_that_is_not_run_says_why(page: Path) -> None:
    """An exemption gives its reason; one without a block after it, or misspelled, would exempt nothing unseen."""
    text = page.read_text(encoding="utf-8")
    reasons = [block.reason for block in blocks_of(text) if block.reason is not None]
    assert all(reasons)
    assert len(reasons) == len(re.findall(r"^<!--\s*no-?run", prose_of(text), re.MULTILINE))


# ---- the checks themselves -----------------------------------------------------------------------------------


def test_blocks_are_found_with_their_language_line_and_exemption() -> None:
    """Nested fences, indentation and the exemption on the line before are read as Markdown reads them."""
    page = (
        "# T\n\n<!-- no-run: needs a key -->\n\n```python title\nx = 1\n```\n\n"
        "````text\n```\n````\n- a\n\n  ```sh\n  ls\n  ```\n"
    )
    assert list(blocks_of(page)) == [
        Block("python", "x = 1\n", 6, "needs a key"),
        Block("text", "```\n", 10, None),
        Block("sh", "ls\n", 15, None),
    ]


def test_shell_commands_are_found_between_pipes_and_redirections() -> None:
    """Only what is run is looked at: prompts, variables, comments and redirections are not part of a command."""
    text = (
        "$ A=1 agentflow ask 'a | b' < in.txt | tee out  # why\nprinted\n"
        "$ make demo && agentflow run x.py \\\n  --json\n"
    )
    assert list(commands_of(Block("console", text, 1, None))) == [
        ["agentflow", "ask", "a | b"],
        ["tee", "out"],
        ["make", "demo"],
        ["agentflow", "run", "x.py", "--json"],
    ]


def test_anchors_are_spelled_as_the_reader_s_page_spells_them() -> None:
    """Lower case, hyphens for spaces, no punctuation; a heading's second appearance is numbered; code has none."""
    page = "# A `b`, and [c](d.md)!\n## Same\n## Same\n```sh\n# not a heading\n```\n"
    assert anchors_of(page) == {"a-b-and-c", "same", "same-1"}


def test_a_block_that_fails_names_its_line_in_the_page(as_a_reader: Path) -> None:
    """The traceback of a failing block points at the line of the Markdown file, top-level await included."""
    block = Block("python", "import asyncio\nawait asyncio.sleep(0)\n1 / 0\n", 41, None)
    with asyncio.Runner() as loop, pytest.raises(ZeroDivisionError) as failure:
        _run(block, Path("page.md"), types.ModuleType("page"), loop)
    assert failure.traceback[-1].lineno == 42  # counted from 0: the block's third line


def test_the_breakers_picture_is_drawn_from_its_table() -> None:
    """Whoever changes a transition changes the picture."""
    page = (ROOT / "docs" / "robustness.md").read_text(encoding="utf-8")
    assert f"```mermaid\n{diagram().strip()}\n```" in page


def test_the_alerts_picture_is_drawn_from_its_table() -> None:
    """The same for the states of an alert."""
    page = (ROOT / "docs" / "alerts.md").read_text(encoding="utf-8")
    assert f"```mermaid\n{states.diagram().strip()}\n```" in page


def test_the_alerts_of_the_page_are_ones_that_can_be_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its YAML is no models.yml, but what stands in one."""
    monkeypatch.setenv("HOOK_SECRET", "s")
    [block] = [block for block in _blocks(ROOT / "docs" / "alerts.md") if block.language == "yaml"]
    found = parse(block.text)
    assert isinstance(found, dict)
    manager = AlertManager.from_mapping(lambda: MetricsSnapshot(0.0), found)
    assert [rule.name for rule in manager.rules] == ["latency", "breaker-open", "error-rate", "slow-flow"]
