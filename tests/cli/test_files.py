"""Files are written whole or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from agentflow.cli.files import unwritable, write_whole


def test_a_new_file_has_the_permissions_that_others_have(tmp_path: Path) -> None:
    write_whole(tmp_path / "new", "text ✓")
    (tmp_path / "other").touch()
    assert (tmp_path / "new").read_text(encoding="utf-8") == "text ✓"
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_a_file_that_is_replaced_keeps_its_permissions(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("old")
    file.chmod(0o600)
    write_whole(file, "new")
    assert (file.read_text(), stat.S_IMODE(file.stat().st_mode)) == ("new", 0o600)


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_when_writing_fails_the_old_file_is_whole_and_nothing_strays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    file = tmp_path / "digest.md"
    file.write_text("old")

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device", "/tmp/x")

    monkeypatch.setattr(os, broken, full)
    with pytest.raises(OSError, match="No space left on device") as raised:
        write_whole(file, "new")
    assert raised.value.filename == str(file)
    assert [path.name for path in tmp_path.iterdir()] == ["digest.md"]
    assert file.read_text() == "old"


def test_an_interruption_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "digest.md", "new")
    assert not list(tmp_path.iterdir())


def test_a_link_is_followed_and_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    write_whole(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


def test_a_device_is_written_to_and_not_replaced() -> None:
    write_whole(Path(os.devnull), "text")
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


def test_what_cannot_be_encoded_does_not_lose_the_rest(tmp_path: Path) -> None:
    write_whole(tmp_path / "x", "a\ud800b")
    assert (tmp_path / "x").read_text() == "a?b"


def test_a_place_that_cannot_be_written_is_refused_with_a_remedy(tmp_path: Path) -> None:
    assert "is a folder" in (unwritable(tmp_path) or "")
    assert f"mkdir -p {tmp_path / 'a'}" in (unwritable(tmp_path / "a" / "b") or "")
    assert unwritable(tmp_path / "b") is None
