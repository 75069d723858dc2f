"""Files and bytes are made ready before a request is written, and refused before a byte is sent."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from agentflow.errors import DocumentError
from agentflow.llm import media
from agentflow.llm.content import Audio, Document, Image, Media, Text, ToolResult
from agentflow.llm.media import attachment, loaded
from agentflow.llm.messages import Message

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
PDF = b"%PDF-1.7\n" + bytes(20)
WAV = b"RIFF\x00\x00\x00\x00WAVEfmt " + bytes(8)


async def ready(part: Media) -> Media:
    [message] = await loaded((Message("user", (Text("look"), part)),))
    found = message.parts[1]
    assert isinstance(found, Media)
    return found


async def test_messages_without_files_are_handed_back_as_they_are() -> None:
    messages = (Message("user", "hi"), Message("user", (Image("https://example.org/a.png"), Image("file-id:x"))))
    assert await loaded(messages) is messages


async def test_a_path_becomes_bytes_and_a_type(tmp_path: Path) -> None:
    """The bytes decide what it is, not the name."""
    (tmp_path / "cat.txt").write_bytes(PNG)
    image = await ready(Image(tmp_path / "cat.txt"))
    assert (image.kind, base64.b64decode(image.data or "")) == ("image/png", PNG)


async def test_a_document_keeps_its_name(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("# Notes")
    document = await ready(Document(str(tmp_path / "notes.md")))
    assert isinstance(document, Document)
    assert (document.kind, document.name) == ("text/markdown", "notes.md")


@pytest.mark.parametrize(
    ("part", "kind"),
    [
        (Image(PNG), "image/png"),
        (Image(b"\xff\xd8\xff\xe0" + bytes(9)), "image/jpeg"),
        (Image(b"RIFF\x00\x00\x00\x00WEBP"), "image/webp"),
        (Document(PDF), "application/pdf"),
        (Audio(WAV), "audio/wav"),
        (Audio(b"ID3" + bytes(9)), "audio/mpeg"),
        (Audio(b"fLaC" + bytes(9)), "audio/flac"),
    ],
)
async def test_bytes_tell_their_type(part: Media, kind: str) -> None:
    assert (await ready(part)).kind == kind


async def test_a_type_that_the_caller_gives_with_bytes_is_believed() -> None:
    assert (await ready(Document(b"a,b\n1,2", "text/csv"))).kind == "text/csv"


async def test_files_in_tool_results_are_read_too(tmp_path: Path) -> None:
    (tmp_path / "plot.png").write_bytes(PNG)
    turn = Message("tool", (ToolResult("1", (Text("here"), Image(str(tmp_path / "plot.png")))),))
    [made] = await loaded((turn,))
    [result] = made.parts
    assert isinstance(result, ToolResult)
    assert isinstance(result.content, tuple)
    assert isinstance(result.content[1], Image)
    assert result.content[1].kind == "image/png"


async def test_a_file_is_refused_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media, "LARGEST", 100)
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "large.png").write_bytes(PNG + bytes(100))
    (tmp_path / "unknown").write_bytes(b"abc")
    (tmp_path / "paper.pdf").write_bytes(PDF)
    for part, reason in (
        (Image(tmp_path / "missing.png"), "no such file"),
        (Image(tmp_path / "empty.png"), "it is empty"),
        (Image(tmp_path / "large.png"), "upload it"),
        (Image(PNG + bytes(100)), "upload it"),
        (Image(tmp_path), "it is no file"),
        (Document(tmp_path / "unknown"), "say Document"),
        (Image(tmp_path / "paper.pdf"), "application/pdf, which is no image"),
        (Image("data:;base64,@@@"), "no base64"),
    ):
        with pytest.raises(DocumentError, match=reason):
            await ready(part)


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        ("a.png", Image),
        ("https://example.org/a.jpg", Image),
        ("a.mp3", Audio),
        ("a.pdf", Document),
        ("a.txt", Document),
    ],
)
def test_a_file_is_the_part_that_its_name_says(place: str, kind: type[Media]) -> None:
    assert attachment(place) == kind(place)


def test_a_name_that_says_nothing_needs_a_type() -> None:
    with pytest.raises(DocumentError, match="say media_type"):
        attachment("data")
    assert attachment("data", "image/png") == Image("data", "image/png")
