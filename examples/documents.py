"""Reads folders, files and standard input as plain text: text, Markdown, reStructuredText, HTML.

    gather(["docs", "notes.html", "-"])  →  Gathered(documents=[Document(name, title, text), …], skipped=[…])

Markdown and reStructuredText are plain text already and stay as they are, but for comments in Markdown; HTML loses its
tags and keeps headings, lists and code apart. What is binary is named and skipped. Used by digest.py, map_reduce.py and
nested_flows.py; the standard library alone.
"""

from __future__ import annotations

import codecs
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

from agentflow import storable
from agentflow.errors import DocumentError

PROSE = {"", ".txt", ".text", ".md", ".markdown", ".mdown", ".rst", ".html", ".htm", ".xhtml"}
MARKDOWN = {".md", ".markdown", ".mdown"}
PAGES = {".html", ".htm", ".xhtml"}
PASSED_OVER = {"node_modules", "__pycache__", "venv", "site-packages"}  # and whatever begins with a dot
MAGIC = (b"%PDF", b"PK\x03\x04", b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x89PNG", b"GIF8", b"\xff\xd8\xff", b"\x7fELF")
LICENCE = re.compile(r"(copyright|licen[cs]e|copying|unlicense)\b", re.IGNORECASE)
MARKS = {  # longest first: UTF-32's mark begins with UTF-16's
    codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32", codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16",
}  # fmt: skip


@storable
@dataclass(frozen=True, slots=True)
class Document:
    """One text. `name` is its path below the folder that was given, and `title` its first heading, or ""."""

    name: str
    title: str
    text: str


@storable
@dataclass(frozen=True, slots=True)
class Skipped:
    name: str
    reason: str


@dataclass(slots=True)
class Gathered:
    documents: list[Document] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)


def gather(places: Sequence[str]) -> Gathered:
    """Read all places in order; a folder with all below it, each file once, each text once.

    Raises DocumentError for a place that does not exist or may not be read, and where nothing readable is left.
    """
    if not places:
        raise DocumentError("nothing to read: name a folder or files, or - for standard input")
    found = Gathered()
    known: dict[str, str] = {}
    licences: list[str] = []
    files = list(_files(places))
    for name, (place, path) in zip(_names(files), files, strict=True):
        chosen = path == Path(place)
        read = _read(name, path, chosen=chosen)
        twin = known.get(read.text) if isinstance(read, Document) else None
        if isinstance(read, Skipped):
            found.skipped.append(read)
        elif twin is not None:
            found.skipped.append(Skipped(name, f"same text as {twin}"))
        else:
            known[read.text] = name
            found.documents.append(read)
            if path is not None and not chosen and LICENCE.match(path.name):
                licences.append(name)
    if len(licences) < len(found.documents):  # beside other documents nobody asks what a licence says
        found.skipped += [Skipped(name, "licence") for name in licences]
        found.documents = [document for document in found.documents if document.name not in licences]
    if not found.documents:
        raise DocumentError(_nothing(places, found.skipped))
    return found


def _nothing(places: Sequence[str], skipped: Sequence[Skipped]) -> str:
    where = ", ".join("standard input" if place == "-" else place for place in places)
    if not skipped:
        return f"{where}: the folder is empty; name one that holds .md, .rst, .html or .txt files"
    names = ", ".join(f"{item.name} ({item.reason})" for item in skipped[:3])
    more = f" and {len(skipped) - 3} more" if skipped[3:] else ""
    return f"{where}: nothing to read in {names}{more}; name .md, .rst, .html or .txt files"


# ---- which files ---------------------------------------------------------------------------------------------


def _files(places: Sequence[str]) -> Iterator[tuple[str, Path | None]]:
    """The place that was given and a path found there, each once; None stands for standard input."""
    seen: set[Path | None] = set()
    for place in places:
        if place == "-":
            if None not in seen:
                seen.add(None)
                yield place, None
            continue
        root = Path(place)
        if not root.exists():
            raise DocumentError(f"{place}: no such file or folder; check the spelling, from {Path.cwd()}")
        for path in _below(root) if root.is_dir() else [root]:
            real = path.resolve()
            if real not in seen:
                seen.add(real)
                yield place, path


def _names(files: Sequence[tuple[str, Path | None]]) -> list[str]:
    """The shortest names that tell the files apart: below the folder that was given, with the folder's own name where
    there are several, and as given where that is not enough."""
    several = len({place for place, path in files if path != Path(place)}) > 1
    short = [_name(place, path, several=several) for place, path in files]
    alike = {name for name, times in Counter(short).items() if times > 1}
    return [
        _readable(path) if path is not None and name in alike else name
        for name, (_, path) in zip(short, files, strict=True)
    ]


def _name(place: str, path: Path | None, *, several: bool) -> str:
    if path is None:
        return "standard input"
    if path == Path(place):
        return _readable(path.name)
    below = path.relative_to(place)
    return _readable(Path(Path(place).resolve().name, below) if several else below)


def _readable(path: Path | str) -> str:
    return os.fsencode(path).decode("utf-8", "replace")


def _below(folder: Path) -> Iterator[Path]:
    """The files in and below a folder. A folder below it that may not be listed stands for itself."""
    refused: list[Path] = []

    def refuse(error: OSError) -> None:
        if Path(error.filename) == folder:
            raise DocumentError(f"{folder}: {error.strerror}; allow reading it, or leave it out") from error
        refused.append(Path(error.filename))

    for here, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in PASSED_OVER)
        yield from (Path(here, name) for name in sorted(files) if not name.startswith("."))
    yield from refused


def _read(name: str, path: Path | None, *, chosen: bool) -> Document | Skipped:
    """One file. What the user has `chosen` by name is read whatever its suffix, and must be readable."""
    suffix = "" if path is None else path.suffix.lower()
    try:
        if path is not None and not path.is_file():
            return Skipped(name, "may not be read" if path.is_dir() else "not a file")
        data = sys.stdin.buffer.read() if path is None else path.read_bytes()
    except OSError as error:
        if chosen:
            raise DocumentError(f"{path}: {error.strerror}; allow reading it, or leave it out") from error
        return Skipped(name, "may not be read")
    if is_binary(data):
        return Skipped(name, "binary")
    if path is not None and not chosen and suffix not in PROSE and not path.stem.isupper():  # README.Debian is prose
        return Skipped(name, f"not prose ({suffix})")
    text = decode(data).replace("\r\n", "\n").replace("\r", "\n")
    if suffix in PAGES or _looks_like_page(text):
        title, text = plain(text)
        title = first_heading(text) or title  # a page's title often ends with the name of its site
    else:
        text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL) if suffix in MARKDOWN else text
        title = first_heading(text)
    return Document(name, title, text.strip()) if text.strip() else Skipped(name, "empty")


# ---- bytes to text -------------------------------------------------------------------------------------------


def is_binary(data: bytes) -> bool:
    """Whether no text is meant: a known signature, or a zero byte early on that no UTF-16 explains."""
    if any(data.startswith(mark) for mark in MARKS):
        return False
    return data.startswith(MAGIC) or b"\0" in data[:8192]


def decode(data: bytes) -> str:
    """Byte-order mark, else UTF-8, else the encoding the page declares, else Windows-1252, which reads anything."""
    for mark, encoding in MARKS.items():
        if data.startswith(mark):
            return data.decode(encoding, "replace")
    declared = re.search(rb"(?:charset|encoding)\s*=\s*[\"']?([\w.-]+)", data[:1024])
    for encoding in ("utf-8", declared[1].decode() if declared else "utf-8"):
        try:
            return data.decode(encoding)
        except (UnicodeDecodeError, LookupError):
            continue
    return data.decode("cp1252", "replace")


def first_heading(text: str) -> str:
    """The first heading near the top of a Markdown or reStructuredText document."""
    lines = [line.strip() for line in text.split("\n", 60)[:60]]
    for line, below in zip(lines, [*lines[1:], ""], strict=True):
        if re.match(r"#{1,6} \S", line):
            return line.strip("# ")
        if (
            line
            and line[0] not in ".=-~#*"
            and re.fullmatch(r"([=\-~#*^])\1{2,}", below)
            and len(below) >= len(line) - 1
        ):
            return line.rstrip(":")
    return ""


# ---- HTML ----------------------------------------------------------------------------------------------------


def _looks_like_page(text: str) -> bool:
    return re.match(r"\s*(?:<\?xml[^>]*>\s*)?(?:<!doctype html|<html)", text, re.IGNORECASE) is not None


def plain(page: str) -> tuple[str, str]:
    """(title, text) of an HTML page: its main part where it marks one, without menus, scripts and styles."""
    reader = _Page()
    reader.feed(page)
    reader.close()
    return " ".join(reader.title.split()).replace("¶", ""), reader.text()


class _Page(HTMLParser):
    """Collects lines of text; a heading gets hashes, a list item a dash, a code block a fence, as in Markdown."""

    BLOCKS = frozenset(
        "p div section article main header ul ol dl dt dd table tr blockquote figure figcaption body h1 h2 h3 h4 h5 h6 "
        "li pre br hr details summary address fieldset".split()
    )
    SILENT = frozenset("script style nav footer aside noscript template svg button select textarea iframe".split())
    SILENT_ROLES = frozenset("navigation search banner contentinfo complementary".split())

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.title = ""
        self._parts: list[str] = []
        self._aside: list[str] = []  # what the silent parts say, in case there is nothing else
        self._muted: tuple[str, int] | None = None  # (tag, how often it is open)
        self._main: tuple[str, int] | None = None
        self._finished = self._in_title = False
        self._verbatim = 0  # how many <pre> are open

    def text(self) -> str:
        """Runs of blank lines shrunk to one, and no space at the ends of lines."""
        said = "".join(self._parts)
        if not said.strip():
            said = "".join(self._aside)
        return re.sub(r"\n{3,}", "\n\n", re.sub(r"[ \t]+\n", "\n", said)).strip()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        role = dict(attrs).get("role") or ""
        if self._muted is not None:
            self._muted = _deeper(self._muted, tag, 1)
        elif tag in self.SILENT or role in self.SILENT_ROLES:
            self._muted = (tag, 1)
        elif tag == "title":
            self._in_title = True
        elif self._main is not None:
            self._main = _deeper(self._main, tag, 1)
        elif tag == "main" or role == "main":
            self._main = (tag, 1)
            self._parts.clear()
        if self._muted is None:
            self._open(tag)

    def _open(self, tag: str) -> None:
        if tag in self.BLOCKS and not self._verbatim:
            self._parts.append("\n" if tag in ("li", "tr", "br", "dd") else "\n\n")
        if re.fullmatch("h[1-6]", tag):
            self._parts.append("#" * int(tag[1]) + " ")
        elif tag == "li":
            self._parts.append("- ")
        elif tag in ("td", "th"):
            self._parts.append(" | ")
        elif tag == "pre":
            self._parts.append("" if self._verbatim else "```\n")
            self._verbatim += 1

    def handle_endtag(self, tag: str) -> None:
        if self._muted is not None:
            muted = _deeper(self._muted, tag, -1)
            self._muted = muted if muted[1] else None
            return
        if tag == "title":
            self._in_title = False
        elif tag == "pre" and self._verbatim:
            self._verbatim -= 1
            self._parts.append("" if self._verbatim else "\n```\n\n")
        elif tag in self.BLOCKS and not self._verbatim and tag not in ("li", "tr", "br"):
            self._parts.append("\n\n")
        if self._main is not None:
            self._main = _deeper(self._main, tag, -1)
            self._finished = self._finished or self._main[1] == 0

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.title += data
            return
        if self._finished:
            return
        said = data if self._verbatim else re.sub(r"\s+", " ", data.replace("¶", ""))
        if self._parts and self._parts[-1].endswith("\n") and not self._verbatim:
            said = said.lstrip()
        (self._parts if self._muted is None else self._aside).append(said)


def _deeper(open_tag: tuple[str, int], tag: str, by: int) -> tuple[str, int]:
    return (open_tag[0], open_tag[1] + by) if open_tag[0] == tag else open_tag
