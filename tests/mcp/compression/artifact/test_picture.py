"""The picture and the page: drawn for whatever manifests hold, the same each time, and harmless."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.made_artifacts import manifest, measures, speed
from tests.support.png import Picture

from agentflow.errors import MissingExtraError
from agentflow.mcp.compression.artifact import Artifact, Comparison, compare
from agentflow.mcp.compression.artifact import picture as module
from agentflow.mcp.compression.artifact.page import page_of
from agentflow.mcp.compression.artifact.picture import picture_of, write_picture

NASTY = "<script>alert(1)</script> $x_y$ \x00 ünï " + "long " * 9


def _compared(*changes: dict[str, object]) -> tuple[Comparison, list[Artifact]]:
    artifacts = [Artifact(Path(str(number)), manifest(**each)) for number, each in enumerate(changes)]
    return compare(artifacts), artifacts


def _measured(name: str, size: int, kl: float | None, rate: float | None) -> dict[str, object]:
    said = None if rate is None else speed(tokens_per_second=rate)
    return {"name": name, "bytes": size, "after": (measures(kl=kl, speed=said),)}


FEW = (_measured("int4", 2_700_000, 0.021, 300.0), _measured("int8", 4_100_000, 0.004, 210.0))


def test_a_dot_of_each_artifact_and_the_source_is_on_it(tmp_path: Path) -> None:
    comparison, _ = _compared(*FEW)
    write_picture(comparison, tmp_path / "p.png")
    picture = Picture((tmp_path / "p.png").read_bytes())
    seen = {picture.at(x, y) for x in range(0, picture.width, 5) for y in range(0, picture.height, 5)}
    for colour in (*module._COLOURS[:2], module._SOFT):
        assert tuple(bytes.fromhex(colour[1:])) in seen


def test_equal_comparisons_give_equal_files() -> None:
    comparison, _ = _compared(*FEW)
    assert picture_of(comparison, "svg") == picture_of(comparison, "svg")


@pytest.mark.parametrize(
    "changes",
    [
        ({"after": ()},),
        ({"before": None},),
        (_measured(NASTY, 1, 0.0, 1.0), _measured(NASTY, 1, 0.0, 1.0)),
        tuple(_measured(f"artifact number {number}", 3_000_000 + number, 0.02, 250.0) for number in range(12)),
        (_measured("no kl", 9, None, None), _measured("kl", 9, 0.1, 3.0)),
        (_measured("enormous", 10**13, 1e6, 1e-6),),
    ],
)
def test_whatever_they_hold_can_be_drawn(changes: tuple[dict[str, object], ...], tmp_path: Path) -> None:
    """Warnings are errors here: of letters that no font has, of axes without an extent."""
    comparison, artifacts = _compared(*changes)
    write_picture(comparison, tmp_path / "p.svg")
    assert b"<svg" in (tmp_path / "p.svg").read_bytes()
    assert page_of(comparison, [each.manifest for each in artifacts]).startswith("<!doctype html>")


def test_names_break_out_of_no_page() -> None:
    comparison, artifacts = _compared(_measured(NASTY, 10, 0.1, 5.0))
    page = page_of(comparison, [each.manifest for each in artifacts])
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "default-src &#x27;none&#x27;" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_the_page_says_what_was_lost_and_where_it_comes_from() -> None:
    comparison, artifacts = _compared(*FEW)
    page = page_of(comparison, [each.manifest for each in artifacts])
    lost, made = (
        ("+1.00 %", "0.021", "int4 g64", "lm_head is not quantised"),
        ("5" * 64, "MIT", "onnxruntime-genai 0.18.0"),
    )
    for words in (*lost, *made):
        assert words in page


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    comparison, _ = _compared(*FEW)
    with pytest.raises(MissingExtraError, match=r"agentflow-engine\[report\]"):
        write_picture(comparison, tmp_path / "p.png")
    assert not (tmp_path / "p.png").exists()
