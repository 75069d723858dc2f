"""Text → blocks: which lines are prose, list items, headings, tables or code.

    # Tides            →  HEADING  Tides
    The moon pulls     →  PROSE    The moon pulls the sea.
    the sea.
    - Spring tides     →  ITEM     Spring tides
    ```                →  CODE     …

`blocks(text)` reads Markdown, reStructuredText, manual pages and plain text alike, in time linear in the text. Inline
markup (links, roles, emphasis, tags) is taken off prose; badges, rules, directives and comments leave nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

__all__ = ["UNMARKED", "Block", "Kind", "blocks", "joined"]


UNMARKED = 9


class Kind(Enum):
    """What a block is; only PROSE and ITEM are sentences a summary wants."""

    PROSE = "prose"
    ITEM = "item"
    HEADING = "heading"
    TABLE = "table"
    CODE = "code"


@dataclass(frozen=True, slots=True)
class Block:
    """A stretch of one kind, on one line.

    `level` is a heading's depth, from 1 for a title between two lines and 2 for `#` or a double line below, to
    `UNMARKED` for a short line alone; 0 for what is no heading.
    """

    kind: Kind
    text: str
    level: int = 0


_FENCE = re.compile(r"\s{0,8}(```+|~~~+)")
_FRONT_MATTER = re.compile(r"\A\ufeff?\s*---[ \t]*\n(?:[\w-]+:.*\n|[ \t]+.*\n|- .*\n){1,50}(?:---|\.\.\.)[ \t]*\n")
_HASHES = re.compile(r"\s{0,3}(#{1,6})\s+(\S.*)")
_UNDERLINE = re.compile(r"\s{0,3}([=\-~^\"'`*+#.:_])\1{2,}\s*\Z")
_MARKER = re.compile(r"\s*(?:[-*+•‣◦▪–—]|\(?\d{1,3}[.)]|\(?[a-zA-Z][)])\s+(?=\S)")
_QUOTE = re.compile(r"\A\s{0,3}(?:>\s?)+")
_DIRECTIVE = re.compile(r"\s*\.\.(?:\s+(?:(note|warning|tip|important|hint|caution|attention|seealso)::(.*)|.*)|\s*)\Z")
_FIELD = re.compile(r"\s*(?::[\w -]{1,40}(?: [^:\n]{1,60})?:(?:\s|\Z)|@(?:param|return|throws|type)\b)")
_LINK_TARGET = re.compile(r"\s{0,3}(?:\[[^\]]{1,200}\]:\s*\S+|\[\^[^\]]{1,80}\]:).*\Z")
_PAIR = re.compile(r"\s*[A-Z][\w /-]{0,30}:\s+\S")
_COLUMNS = re.compile(r"\S(?:\s{3,}|\t+)\S")
_PROMPT_LINE = re.compile(r"\s*(?:>>>|\.\.\. |\$ |# (?:apt|pip|npm|cd|sudo)|PS>|C:\\)")
_CODE_LINE = re.compile(
    r"\s*(?:(?:def|class|import|from|return|for|if|while|function|const|let|var|static|public|private|fn|#include|"
    r"#define|template|struct|void|int|elif|else)\b.*[:;{}()]\s*\Z|.*[;{}]\s*\Z|[\w.\[\]\"']+\s*(?:=|:=|\+=)\s*\S.*|</?\w)"
)
_ENDED = re.compile(r"[.!?…:;。！？｡．।॥؟۔։።][\"'”’»)\]*_`]*\s*\Z")

_IMAGE = re.compile(r"!\[[^\[\]]{0,300}\](?:\([^()]{0,2000}\)|\[[^\[\]]{0,300}\])?")
_LINK = re.compile(r"\[([^\[\]]{0,1000})\](?:\([^()]{0,2000}\)|\[[^\[\]]{0,300}\])")
_RST_LINK = re.compile(r"`([^`<>]{1,300}?)\s*<[^<>`]{1,500}>`__?")
_RST_ROLE = re.compile(r":[a-z][a-z:]{0,30}:`[~!]?([^`<>]{1,300})(?:<[^<>`]{1,300}>)?`")
_RST_NAME = re.compile(r"(?<![\w`])`([^`]{1,300})`__?(?![\w`])")
_TAG = re.compile(r"<(?:/?[a-zA-Z][^<>]{0,500}|!--[^<>]{0,2000}--)>")
_AUTOLINK = re.compile(r"<((?:https?://|mailto:)[^<>\s]{1,500})>")
_STRONG = re.compile(r"(\*\*|__)(?=\S)([^*_]{1,500}?)(?<=\S)\1")
_EMPHASIS = re.compile(r"(?<![\w*])\*(?=[^\s*])([^*]{1,300}?)(?<=[^\s*])\*(?![\w*])")
_LITERAL = re.compile(r"``([^`]{1,300})``")
_SUBSTITUTION = re.compile(r"\|[\w -]{1,60}\|(?:_\b)?")
_FOOTNOTE = re.compile(r"\[\^[^\]]{1,80}\]|\[#?[\w-]{0,20}\]_")
_OVERSTRIKE = re.compile(r".\x08|\x1b\[[0-9;]{0,20}[A-Za-z]")
_CJK = "\u2e80-\u2fdf\u3000-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003134f"
_CJK_GAP = re.compile(rf"(?<=[{_CJK}])\s+(?=[{_CJK}])")


def blocks(text: str) -> list[Block]:
    """The blocks of a text, in order. Empty ones are left out; an empty text has none."""
    clean = _OVERSTRIKE.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    clean = _FRONT_MATTER.sub("", clean, count=1)
    return [block for block in _chunks_to_blocks(clean) if block.text]


def joined(lines: list[str]) -> str:
    """Lines as one: a word broken by a soft hyphen is mended, and no space is put between two CJK signs."""
    mended = " ".join(lines).replace("\u2010 ", "").replace("\u00ad", "")
    return _CJK_GAP.sub("", " ".join(mended.split()))


# ---- blank lines and fences cut the text into chunks ------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Chunk:
    lines: list[str]
    fenced: bool = False

    @property
    def indent(self) -> int:
        return min(len(line) - len(line.lstrip()) for line in self.lines)


def _chunks(text: str) -> Iterator[_Chunk]:
    """Runs of lines without a blank one; a fenced block is one chunk whatever it holds."""
    held: list[str] = []
    fence = ""
    for line in text.expandtabs(8).split("\n") if "\t" in text else text.split("\n"):
        mark = _FENCE.match(line)
        if fence:
            if mark and mark[1].startswith(fence) and not line.strip().strip(fence[0]):
                yield from _flush(held, fenced=True)
                held, fence = [], ""
            else:
                held.append(line)
        elif mark and (mark[1][0] == "`" or not held):
            yield from _flush(held)
            held, fence = [], mark[1]
        elif line.strip():
            held.append(line)
        else:
            yield from _flush(held)
            held = []
    yield from _flush(held, fenced=bool(fence))


def _flush(lines: list[str], *, fenced: bool = False) -> Iterator[_Chunk]:
    kept = [line for line in lines if line.strip()]
    if kept:
        yield _Chunk(kept, fenced)


def _chunks_to_blocks(text: str) -> Iterator[Block]:
    """Classify each chunk; a chunk indented under `::` or under a dropped directive belongs to it."""
    swallow: tuple[Kind | None, int] | None = None  # (what it is, deeper than this indent)
    base = 0
    for chunk in _chunks(text):
        if chunk.fenced:
            yield Block(Kind.CODE, joined(chunk.lines))
            continue
        if swallow is not None and chunk.indent > swallow[1]:
            if swallow[0] is not None:
                yield Block(swallow[0], joined(chunk.lines))
            continue
        swallow = None
        if _is_dropped_directive(chunk.lines[0]):
            swallow = (None, chunk.indent)
            continue
        if _is_code(chunk, base):
            yield Block(Kind.CODE, joined(chunk.lines))
            continue
        base = chunk.indent
        yield from _classified([_QUOTE.sub("", line) for line in chunk.lines])
        if chunk.lines[-1].rstrip().endswith("::"):
            swallow = (Kind.CODE, len(chunk.lines[-1]) - len(chunk.lines[-1].lstrip()))


def _is_dropped_directive(line: str) -> bool:
    directive = _DIRECTIVE.match(line)
    return directive is not None and directive[1] is None


def _is_code(chunk: _Chunk, base: int) -> bool:
    """Prompts are code; so are lines that look like code, the more readily the deeper they are indented."""
    lines = chunk.lines
    if _PROMPT_LINE.match(lines[0]):
        return True
    looks = sum(1 for line in lines if _CODE_LINE.match(line) and not _MARKER.match(line))
    if chunk.indent >= base + 4 and not any(_MARKER.match(line) for line in lines):
        return looks * 3 >= len(lines) or _symbols(lines) > 0.12
    return looks * 5 >= len(lines) * 4 and len(lines) > 1 and not lines[0].lstrip().startswith("<")


def _symbols(lines: list[str]) -> float:
    """The share of signs that prose hardly uses."""
    text = "".join(lines)
    return sum(text.count(sign) for sign in "{}[]<>=;$\\|/_&*#@~^") / max(1, len(text.replace(" ", "")))


# ---- a chunk becomes blocks, line by line -----------------------------------------------------------------------


def _classified(lines: list[str]) -> Iterator[Block]:
    """A chunk that is not code: a table as a whole, a lone title, or what its lines say one by one."""
    if _is_table(lines):
        yield Block(Kind.TABLE, joined(lines))
    elif len(lines) == 1 and _is_title(lines[0]):
        yield Block(Kind.HEADING, _plain(lines[0]), UNMARKED)
    else:
        paragraphs = _Paragraphs(width=max(map(len, lines)))
        for line in lines:
            yield from paragraphs.take(line)
        yield from paragraphs.flush()


class _Paragraphs:
    """Holds the lines of the paragraph or list item that is open; gives blocks as lines close it."""

    def __init__(self, *, width: int) -> None:
        self._width = width
        self._held: list[str] = []
        self._kind = Kind.PROSE
        self._overlined = False

    def take(self, line: str) -> Iterator[Block]:
        if heading := _HASHES.match(line):
            yield from self.flush()
            yield Block(Kind.HEADING, _plain(heading[2].rstrip("# ")), len(heading[1]) + 1)
        elif _UNDERLINE.match(line):
            yield from self._ruled(line.strip()[0])
        elif _LINK_TARGET.match(line) or _is_dropped_directive(line):
            yield from self.flush()
        elif _MARKER.match(line):
            yield from self.flush(then=Kind.ITEM)
            self._held.append(_MARKER.sub("", line, count=1))
        elif _FIELD.match(line):
            yield from self.flush(then=Kind.TABLE)
            self._held.append(line)
        else:
            if self._held and _breaks(self._held[-1], line, self._width):
                yield from self.flush()
            directive = _DIRECTIVE.match(line)
            self._held.append(directive[2] or "" if directive else line)

    def flush(self, *, then: Kind = Kind.PROSE) -> Iterator[Block]:
        if self._held:
            text = joined(self._held)
            yield Block(self._kind, text if self._kind is Kind.TABLE else _plain(text))
        self._held, self._kind = [], then

    def _ruled(self, sign: str) -> Iterator[Block]:
        """A line of one sign: under a line it makes a heading, else it is a rule or the line above a title."""
        if len(self._held) != 1:
            yield from self.flush()
            self._overlined = True
            return
        level = 1 if self._overlined else 2 if sign in "=#*" else 3
        yield Block(Kind.HEADING, _plain(self._held[0]), level)
        self._held, self._kind, self._overlined = [], Kind.PROSE, False


def _is_table(lines: list[str]) -> bool:
    """Bars, column gaps or `Key: value` in most of at least two lines."""
    if len(lines) < 2:
        line = lines[0]
        return (
            line.count("|") > 2 or line.lstrip().startswith("+-") or bool(_PAIR.match(line) and not _ENDED.search(line))
        )
    rows = sum(
        1
        for line in lines
        if line.count("|") >= 2 or _COLUMNS.search(line.strip()) or _PAIR.match(line) or line.lstrip().startswith("+-")
    )
    return rows * 5 >= len(lines) * 3 and not any(_MARKER.match(line) for line in lines[:1])


def _is_title(line: str) -> bool:
    """A short line alone, without a mark of its own, that ends like no sentence."""
    if any(mark.match(line) for mark in (_HASHES, _UNDERLINE, _MARKER, _FIELD, _LINK_TARGET, _DIRECTIVE)):
        return False
    text = line.strip()
    return len(text) <= 70 and len(text.split()) <= 9 and not _ENDED.search(text)


def _breaks(before: str, line: str, width: int) -> bool:
    """A line much shorter than its neighbours that does not end like a sentence, with a capital after it."""
    return width > 40 and len(before) < width * 0.5 and not _ENDED.search(before) and line.lstrip()[:1].isupper()


def _plain(text: str) -> str:
    """Take inline markup off; every letter that stays, stays in its order."""
    if not any(sign in text for sign in "[`<*_|!"):
        return text.strip()
    text = _IMAGE.sub("", _FOOTNOTE.sub("", text))
    text = _LINK.sub(r"\1", text)
    text = _RST_ROLE.sub(r"\1", _RST_LINK.sub(r"\1", text))
    text = _RST_NAME.sub(r"\1", _LITERAL.sub(r"`\1`", text)) if "_" in text or "``" in text else text
    text = _TAG.sub("", _AUTOLINK.sub(r"\1", text))
    text = _EMPHASIS.sub(r"\1", _STRONG.sub(r"\2", text))
    text = _SUBSTITUTION.sub("", text)
    return " ".join(text.split())
