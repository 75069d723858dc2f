"""Documents from files and folders, and those that are set aside."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.cli.compressing.documents import documents, parted
from agentflow.errors import DocumentError


def test_a_folder_is_a_document_a_file_and_lines_of_json_are_a_document_each(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "b.txt").write_text("second")
    (tmp_path / "deep" / "c.md").write_text("third")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    (tmp_path / "empty.txt").write_text(" \n")
    lines = [{"text": "first"}, "plain", {"prompt": "What?", "answer": "That."}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    assert documents([str(tmp_path)]) == ("first", "plain", "What?\nThat.", "second", "third")


def test_a_text_that_comes_twice_is_one(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("the same")
    assert documents([str(tmp_path), str(tmp_path / "a.txt")]) == ("the same",)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.jsonl", b"{", "a.jsonl, line 1: no JSON"),
        ("a.jsonl", b'"x"\n{"words": 1}', "a.jsonl, line 2: a line is"),
        ("a.txt", b"\xff\xfe\xfa", "a.txt is no UTF-8 text"),
        ("a.txt", b"", "there is no text in"),
    ],
)
def test_what_is_no_text_says_where(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DocumentError, match=reason):
        documents([str(path)])


def test_a_place_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="cannot be read"):
        documents([str(tmp_path / "none.txt")])


@given(st.lists(st.text(min_size=1), min_size=2, max_size=30, unique=True), st.floats(0.05, 0.9))
def test_every_text_is_on_one_side_and_stays_there(texts: list[str], share: float) -> None:
    try:
        kept, out = parted(texts, share)
    except DocumentError:
        return
    assert kept
    assert out
    assert sorted([*kept, *out]) == sorted(texts)
    if len(out) > 1:
        assert set(parted([*texts, "one more text"], share)[1]) - {"one more text"} == set(out)


def test_one_document_cannot_be_parted() -> None:
    with pytest.raises(DocumentError, match="cannot be parted"):
        parted(["alone"], 0.1)
