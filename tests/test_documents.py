"""Reading documents for the examples: what is text, what is not, and what a page says."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.types_apart import types_apart

from agentflow.errors import DocumentError

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def _loaded() -> ModuleType:
    spec = importlib.util.spec_from_file_location("example_documents", EXAMPLES / "documents.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["example_documents"] = module
    with types_apart():
        spec.loader.exec_module(module)
    return module


documents = _loaded()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    return tmp_path / "docs"


def _gathered(*places: str) -> tuple[list[tuple[str, str, str]], list[tuple[str, str]]]:
    found = documents.gather(places)
    return (
        [(document.name, document.title, document.text) for document in found.documents],
        [(item.name, item.reason) for item in found.skipped],
    )


def test_a_folder_is_read_in_order_and_the_rest_is_named(folder: Path) -> None:
    (folder / "b.md").write_text("# Bee\n\nBuzz.\n")
    (folder / "a.rst").write_text("Ant\n===\n\nMarch.\n")
    (folder / "README").write_text("Read me.")
    (folder / "CHANGES.Debian").write_text("Changed.")
    (folder / "logo.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / "blob.txt").write_bytes(b"text\0more")
    (folder / "tool.py").write_text("print()")
    (folder / "empty.txt").write_text(" \n")
    (folder / ".hidden.md").write_text("no")
    (folder / ".git").mkdir()
    (folder / ".git" / "x.md").write_text("no")
    (folder / "deep").mkdir()
    (folder / "deep" / "c.txt").write_text("See.")
    read, skipped = _gathered("docs")
    assert read == [
        ("CHANGES.Debian", "", "Changed."),
        ("README", "", "Read me."),
        ("a.rst", "Ant", "Ant\n===\n\nMarch."),
        ("b.md", "Bee", "# Bee\n\nBuzz."),
        ("deep/c.txt", "", "See."),
    ]
    assert skipped == [
        ("blob.txt", "binary"),
        ("empty.txt", "empty"),
        ("logo.png", "binary"),
        ("tool.py", "not prose (.py)"),
    ]


def test_names_are_below_the_folder_however_it_is_given(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "deep").mkdir()
    (folder / "deep" / "a.txt").write_text("A.")
    for place in ("docs", "docs/", "./docs", str(folder), "docs/../docs"):
        assert _gathered(place)[0] == [("deep/a.txt", "", "A.")]
    monkeypatch.chdir(folder)
    assert _gathered(".")[0] == [("deep/a.txt", "", "A.")]
    assert _gathered(str(folder / "deep" / "a.txt"))[0] == [("a.txt", "", "A.")]


def test_several_folders_are_told_apart_by_their_names_and_else_as_given(folder: Path) -> None:
    for name in ("docs/a.txt", "notes/a.txt", "old/notes/a.txt", "a.txt"):
        (folder.parent / name).parent.mkdir(parents=True, exist_ok=True)
        (folder.parent / name).write_text(f"In {name}.")

    def named(*places: str) -> list[str]:
        return [name for name, _, _ in _gathered(*places)[0]]

    assert named(str(folder), "notes") == ["docs/a.txt", "notes/a.txt"]
    assert named("notes", "old/notes", "docs") == ["notes/a.txt", "old/notes/a.txt", "docs/a.txt"]
    assert named("docs", "a.txt") == ["docs/a.txt", "a.txt"]
    assert named("docs/a.txt", "notes/a.txt") == ["docs/a.txt", "notes/a.txt"]


def test_a_file_that_is_named_is_read_whatever_its_suffix(folder: Path) -> None:
    (folder / "tool.py").write_text("print()")
    assert _gathered("docs/tool.py")[0] == [("tool.py", "", "print()")]


def test_a_file_is_read_once_and_a_text_too(folder: Path) -> None:
    (folder / "a.txt").write_text("Same.")
    (folder / "b.txt").write_text("Same.\n")
    (folder / "c.txt").symlink_to("a.txt")
    read, skipped = _gathered("docs/a.txt", "docs")
    assert read == [("a.txt", "", "Same.")]
    assert skipped == [("b.txt", "same text as a.txt")]


@pytest.mark.parametrize(
    ("places", "said"),
    [
        ([], "nothing to read: name a folder or files, or - for standard input"),
        (["nowhere"], "nowhere: no such file or folder; check the spelling, from "),
        (["docs"], "docs: the folder is empty; name one that holds .md"),
    ],
)
def test_nothing_to_read_is_an_error_with_a_remedy(folder: Path, places: list[str], said: str) -> None:
    with pytest.raises(DocumentError) as raised:
        documents.gather(places)
    assert str(raised.value).startswith(said)


def test_a_folder_of_binaries_says_which(folder: Path) -> None:
    (folder / "x.bin").write_bytes(b"\0")
    with pytest.raises(DocumentError, match=r"docs: nothing to read in x\.bin \(binary\); name \.md"):
        documents.gather(["docs"])


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file of /proc that nobody may read")
def test_a_named_file_that_cannot_be_read_is_an_error_and_one_in_a_folder_is_skipped(folder: Path) -> None:
    (folder / "a.txt").write_text("A.")
    (folder / "b.txt").symlink_to("/proc/self/mem")
    assert _gathered("docs")[1] == [("b.txt", "may not be read")]
    with pytest.raises(DocumentError, match=r"docs/b\.txt: Input/output error; allow reading it"):
        documents.gather(["docs/b.txt"])


def test_a_folder_that_may_not_be_read_is_named_and_one_that_was_given_is_an_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may read every folder, so the refusal is the listing's own."""
    (folder / "a.txt").write_text("A.")
    (folder / "locked").mkdir()
    scan = os.scandir

    def refuse(place: str) -> object:
        if Path(place).name == "locked":
            raise PermissionError(13, "Permission denied", place)
        return scan(place)

    monkeypatch.setattr(os, "scandir", refuse)
    assert _gathered("docs") == ([("a.txt", "", "A.")], [("locked", "may not be read")])
    with pytest.raises(DocumentError, match=r"docs/locked: Permission denied; allow reading it, or leave it out"):
        documents.gather(["docs/locked"])


def test_a_licence_is_read_where_there_is_nothing_else(folder: Path) -> None:
    (folder / "copyright").write_text("Files: *\nCopyright: 2020 Ada\nLicense: MIT\n")
    (folder / "LICENSE-MIT.txt").write_text("Permission is hereby granted.")
    assert [name for name, _, _ in _gathered("docs")[0]] == ["LICENSE-MIT.txt", "copyright"]
    (folder / "a.txt").write_text("A.")
    read, skipped = _gathered("docs")
    assert [name for name, _, _ in read] == ["a.txt"]
    assert skipped == [("LICENSE-MIT.txt", "licence"), ("copyright", "licence")]
    assert [name for name, _, _ in _gathered("docs/copyright", "docs")[0]] == ["copyright", "a.txt"]


def test_what_a_markdown_file_says_in_comments_is_not_read(folder: Path) -> None:
    (folder / "a.md").write_text("# Tides\n\n<!-- YAML\nadded: v1 -->\n\nThe sea <!-- is -->rises.\n")
    (folder / "b.txt").write_text("Write <!-- so --> in HTML.")
    assert [text for _, _, text in _gathered("docs")[0]] == [
        "# Tides\n\n\n\nThe sea rises.",
        "Write <!-- so --> in HTML.",
    ]


def test_the_heading_of_a_chapter_deep_in_a_manual_is_its_title(folder: Path) -> None:
    (folder / "a.html").write_text("<title>Arrays (The Manual)</title><h4>2.3.4 Arrays, Unions</h4><p>They differ.</p>")
    assert _gathered("docs")[0][0][1] == "2.3.4 Arrays, Unions"


def test_a_pipe_is_not_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "pipe.txt")
    (folder / "a.txt").write_text("A.")
    assert _gathered("docs")[1] == [("pipe.txt", "not a file")]


def test_names_that_are_no_utf8_are_readable(folder: Path) -> None:
    try:
        Path(os.fsdecode(b"docs/b\xff.txt")).write_text("A.")
    except OSError:
        pytest.skip("this file system takes UTF-8 names alone")
    assert _gathered("docs")[0][0][0] == "b\ufffd.txt"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("Käse".encode(), "Käse"),
        ("Käse".encode("utf-8-sig"), "Käse"),
        ("Käse".encode("utf-16"), "Käse"),
        ("Käse".encode("utf-32"), "Käse"),
        ("Käse €".encode("cp1252"), "Käse €"),
        ('<meta charset="koi8-r">Сыр'.encode("koi8-r"), '<meta charset="koi8-r">Сыр'),
        (b'<meta charset="nonsense">K\xe4se', '<meta charset="nonsense">Käse'),
    ],
)
def test_every_encoding_is_read(data: bytes, text: str) -> None:
    assert not documents.is_binary(data)
    assert documents.decode(data) == text


@given(st.binary())
def test_any_bytes_are_decoded_or_binary(data: bytes) -> None:
    assert isinstance(documents.decode(data), str)
    assert documents.is_binary(data) in (True, False)


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("# Tides #\n\nText", "Tides"),
        ("Tides\n=====\n\nText", "Tides"),
        (".. note:: x\n\n======\nTides\n======\n", "Tides"),
        ("\n  The tides\n  ---------\n\nText", "The tides"),
        ("Tides:\n------\n", "Tides"),
        ("Just text.\n\nMore.", ""),
        ("---\ntitle: x\n---\n## Tides\n", "Tides"),
    ],
)
def test_the_first_heading_is_the_title(text: str, title: str) -> None:
    assert documents.first_heading(text) == title


PAGE = """<!DOCTYPE html><html><head><title>Tides &amp; moons — a site</title><style>p {}</style></head><body>
<nav><ul><li>Home</li></ul></nav><main><h1>Tides</h1><p>The <b>moon</b>
pulls&nbsp;the sea.</p><ul><li>spring<li>neap</ul><pre><code>x = 1
  y</code></pre><script>alert("x")</script><table><tr><td>a</td><td>b</td></tr></table></main>
<footer>All rights reserved</footer></body></html>"""


def test_a_page_becomes_plain_text_without_menus_and_scripts() -> None:
    title, text = documents.plain(PAGE)
    assert title == "Tides & moons — a site"
    assert text.startswith("# Tides\n\nThe moon pulls the sea.")
    assert "- spring\n- neap" in text
    assert "```\nx = 1\n  y\n```" in text
    assert "| a | b" in text
    for word in ("Home", "alert", "rights", "{}"):
        assert word not in text


def test_a_page_is_known_by_its_beginning_too(folder: Path) -> None:
    (folder / "page").write_text(PAGE)
    assert _gathered("docs")[0][0][1] == "Tides"


def test_a_page_whose_menu_is_never_closed_still_says_something() -> None:
    assert documents.plain("<nav><p>All there is.</p>")[1] == "All there is."


@given(st.text(alphabet="<>/ap!-&;= \"'\nx", max_size=200))
def test_any_page_is_read(page: str) -> None:
    assert isinstance(documents.plain(page)[1], str)
