"""Files and bytes are made ready before a request is written, and refused before a byte is sent."""

from __future__ import annotations

import base64
import os
import stat
from pathlib import Path

import pytest

from agentflow.errors import DocumentError
from agentflow.llm import media
from agentflow.llm.content import Audio, Document, Image, Media, Text, ToolResult
from agentflow.llm.media import attachment, loaded
from agentflow.llm.messages import Message

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
PDF = b"%PDF-1.7\n" + bytes(20)
BIN = b"\x80\x81\x82"
WAV = b"RIFF\x00\x00\x00\x00WAVEfmt " + bytes(8)


def brands(major: str, *others: str) -> bytes:
    """How a file of ISO's media format begins."""
    box = b"ftyp" + major.encode() + bytes(4) + "".join(others).encode()
    return (len(box) + 4).to_bytes(4, "big") + box + bytes(20)


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
        (Audio(b"ID3\x04" + bytes(9)), "audio/mpeg"),
        (Audio(b"fLaC" + bytes(9)), "audio/flac"),
        (Audio(b"OggS" + bytes(9)), "audio/ogg"),
        (Image(brands("heic")), "image/heic"),
        (Image(brands("heix")), "image/heic"),
        (Image(brands("mif1", "heic")), "image/heic"),
        (Image(brands("mif1")), "image/heif"),
        (Image(brands("avif", "mif1")), "image/avif"),
        (Image(brands("avis")), "image/avif"),
        (Image(brands("mif1", "miaf", "avif")), "image/avif"),
        (Audio(brands("M4A ", "isom")), "audio/mp4"),
        (Document(brands("isom", "mp42")), "video/mp4"),
    ],
)
async def test_bytes_tell_their_type(part: Media, kind: str) -> None:
    assert (await ready(part)).kind == kind


async def test_a_type_that_the_caller_gives_with_bytes_is_believed() -> None:
    assert (await ready(Document(b"a,b\n1,2", "text/csv"))).kind == "text/csv"


@pytest.mark.parametrize(
    ("part", "kind"),
    [
        (Audio(brands("mp42", "isom"), "audio/mp4"), "audio/mp4"),
        (Audio(brands("isom"), "audio/x-m4a"), "audio/mp4"),
        (Audio(b"OggS" + bytes(9), "audio/opus"), "audio/opus"),
        (Audio(b"OggS" + bytes(9), "application/octet-stream"), "audio/ogg"),
        (Image(PNG, "image/jpeg"), "image/png"),
        (Image(PNG, "image/jpg"), "image/png"),
        (Image(BIN, "image/tiff"), "image/tiff"),
        (Document(b"PK\x03\x04" + bytes(9), "application/zip"), "application/zip"),
    ],
)
async def test_a_type_that_was_said_holds_unless_the_bytes_are_plainly_another(part: Media, kind: str) -> None:
    """A container does not tell what is in it, so there the caller knows better."""
    assert (await ready(part)).kind == kind


@pytest.mark.parametrize(
    "text",
    ["ID3 tags are found at the beginning", "What is WEBP?", "What is WAVE?", "OggS and fLaC are formats", "ftypM4A"],
)
async def test_a_text_that_begins_like_a_format_is_a_text(text: str, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text(text)
    assert media.media_type(text.encode()) is None
    assert (await ready(Document(tmp_path / "note.txt"))).kind == "text/plain"


async def test_a_files_name_tells_what_its_container_does_not(tmp_path: Path) -> None:
    (tmp_path / "talk.m4a").write_bytes(brands("isom"))
    assert (await ready(Audio(tmp_path / "talk.m4a"))).kind == "audio/mp4"


@pytest.mark.parametrize(
    ("uri", "made"),
    [
        ("DATA:text/plain;base64,SGk=", "data:text/plain;base64,SGk="),
        ("data:text/plain;charset=utf-8;BASE64,SGk=", "data:text/plain;charset=utf-8;base64,SGk="),
        ("data:text/plain,Hi", "data:text/plain;base64,SGk="),
        ("data:text/html;charset=utf-8,%48i", "data:text/html;charset=utf-8;base64,SGk="),
        ("data:,Hi", "data:text/plain;base64,SGk="),
    ],
)
async def test_a_data_uri_has_one_form(uri: str, made: str) -> None:
    """APIs know base64 alone, and not all of them that a scheme may be written in capitals."""
    assert Document(uri).uri == made
    assert await ready(Document(uri)) == Document(made)


@pytest.mark.parametrize(
    "uri", ["data:image/png;base64,@@@@", "data:image/png;base64,AAA", "data:image/png;base64,=AAA"]
)
async def test_base64_that_is_none_is_found_also_where_the_type_is_said(uri: str) -> None:
    with pytest.raises(DocumentError, match="no base64"):
        await ready(Image(uri))


async def test_of_bytes_without_a_type_only_the_beginning_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Telling what a megabyte is costs what telling a hundred bytes costs."""
    decoded: list[int] = []
    real = base64.b64decode

    def decode(data: str) -> bytes:
        decoded.append(len(data))
        return real(data)

    monkeypatch.setattr(base64, "b64decode", decode)
    assert (await ready(Image(PNG + bytes(1_000_000)))).kind == "image/png"
    assert max(decoded) < 200


async def test_a_file_that_tells_no_size_is_read_within_the_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under /proc a file has 0 bytes, until it is read."""
    monkeypatch.setattr(media, "LARGEST", 100)
    (tmp_path / "endless.txt").write_bytes(b"x" * 1000)
    (tmp_path / "short.txt").write_bytes(b"x" * 100)
    real = Path.stat

    def says_none(self: Path, **how: bool) -> os.stat_result:
        found = list(real(self, **how))
        found[stat.ST_SIZE] = 0
        return os.stat_result(found)

    monkeypatch.setattr(Path, "stat", says_none)
    assert base64.b64decode((await ready(Document(tmp_path / "short.txt"))).data or "") == b"x" * 100
    with pytest.raises(DocumentError, match="more than 100 bytes"):
        await ready(Document(tmp_path / "endless.txt"))


@pytest.mark.parametrize("address", ["file:///etc/hostname", "ftp://example.org/a.txt", "a\0b.txt", "x" * 5000])
async def test_what_is_no_address_and_no_file_is_a_typed_error(address: str) -> None:
    """Only what providers fetch is an address; nothing under file:// is sent to one."""
    part = Document(address, "text/plain")
    assert part.url is None
    with pytest.raises(DocumentError):
        await ready(part)


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


@pytest.mark.parametrize("name", ["cat.png", "cat.jpg", "report.pdf", "talk.mp3"])
@pytest.mark.parametrize(
    "data", [b"<!DOCTYPE html><h1>404</h1>", b"\n<html>", b"<?xml version='1.0'?>", b'{"error": 1}', b"PK\x03\x04\x14"]
)
async def test_a_page_that_was_kept_as_a_picture_is_none(tmp_path: Path, name: str, data: bytes) -> None:
    """The commonest wrong file is the error that a server gave instead."""
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DocumentError, match="begins like text or an archive"):
        await loaded((Message("user", (attachment(tmp_path / name),)),))


@pytest.mark.parametrize("data", [b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"<?xml version='1.0'?><svg/>"])
async def test_a_drawing_in_xml_is_a_picture(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "cat.svg").write_bytes(data)
    [message] = await loaded((Message("user", (Image(tmp_path / "cat.svg"),)),))
    [image] = message.parts
    assert isinstance(image, Image)
    assert image.kind == "image/svg+xml"
