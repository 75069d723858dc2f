"""`agentflow artifact`: shown, compared, handed on; a damaged one is an error in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.support.made_artifacts import made, measures, speed

from agentflow.mcp.compression.artifact import Gate
from agentflow.mcp.compression.artifact.manifest import Manifest

GREEDY = Gate(kl=0.001, top1=0.9)


@pytest.fixture
def artifacts(place: Path) -> Path:
    made(place / "int4", name="int4", gate=GREEDY)
    made(
        place / "int8",
        name="int8",
        weights=b"x" * 4000,
        after=(measures(kl=0.0001, top1=0.99, speed=speed(tokens_per_second=200.0)),),
        gate=GREEDY,
    )
    return place


def test_one_is_shown_with_what_was_lost_and_why(invoke, artifacts: Path) -> None:
    shown = invoke("artifact", "show", "int4")
    assert shown.exit_code == 0, shown.stderr
    for words in (
        "int4  onnx, writes text, 2.2 M parameters, 2.1 kB",
        "teacher, LlamaForCausalLM, 3.36 M parameters, 13.4 MB",
        "3 files, every checksum right",
        "A Processor; avx2 avx512_vnni",
        "scheme w4g64, method gptq",
        "! lm_head is not quantised",
        "in onnxruntime 1.32.0 on 8,128 tokens",
        "gate missed: kl 0.001, top1 0.9",
        "  kl 0.021 is above 0.001",
    ):
        assert words in shown.stdout
    rows = [" ".join(line.split()) for line in shown.stdout.splitlines()]
    for row in (
        "perplexity 40 40.4 +1.00 %",
        "top-1 100.0 % 93.1 % -6.9 points",
        "tokens/s 90 300 3.33 ×",
        "int4 g64 1 65.5 k 4 4.25 11.0 %",
    ):
        assert row in rows
    assert "gate passed" in invoke("artifact", "show", "int8").stdout


def test_every_tensor_is_listed_when_asked(invoke, artifacts: Path) -> None:
    shown = invoke("artifact", "show", "int4", "--tensors").stdout
    rows = [" ".join(line.split()) for line in shown.splitlines()]
    assert "layers.0.q 256×256 int4 g64 4 4.25 11.0 %" in rows


def test_several_are_put_side_by_side(invoke, artifacts: Path) -> None:
    shown = invoke("artifact", "compare", "int4", "int8", "int4")  # named twice, shown once
    assert shown.exit_code == 0, shown.stderr
    rows = [" ".join(line.split()) for line in shown.stdout.splitlines()]
    for row in (
        "teacher int4 int8",
        "size 13.4 MB 2.1 kB * 4 kB",
        "KL 0 0.021 0.0001 *",
        "tokens/s 90 300 * 200",
        "gate missed passed",
    ):
        assert row in rows
    assert "not beaten in size, KL, tokens/s at once: int4, int8" in shown.stdout


@pytest.mark.parametrize("width", [80, 160])
def test_no_line_is_wider_than_the_terminal(invoke, artifacts: Path, width: int, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    for number in range(5):
        made(artifacts / f"a{number}", name=f"an artifact with a long name, number {number}")
    names = [f"a{number}" for number in range(5)]
    for words in (("compare", *names), ("show", "a0"), ("show", "a0", "--tensors")):
        shown = invoke("artifact", *words)
        assert max(map(len, shown.stdout.splitlines())) <= width
        assert "…" not in shown.stdout.replace("5…", "").replace("e…", "")


def test_as_json_it_is_the_manifest_and_more(invoke, artifacts: Path) -> None:
    facts = json.loads(invoke("artifact", "show", "int4", "--json").stdout)
    assert (facts.pop("path"), facts.pop("verified")) == ("int4", True)
    assert set(facts) == set(Manifest.__struct_fields__)
    found = json.loads(invoke("artifact", "compare", "int4", "int8", "--json").stdout)
    assert [row["name"] for row in found["rows"]] == ["int4", "int8"]
    assert found["best"]["kl"] == [1]
    assert found["front"] == [0, 1]
    assert found["source"]["values"]["bytes"] == 13_440_000


def test_a_page_and_a_picture_are_written(invoke, artifacts: Path) -> None:
    shown = invoke("artifact", "compare", "int4", "int8", "--html", "out.html", "--png", "out.png")
    assert shown.exit_code == 0, shown.stderr
    assert shown.stdout.endswith("wrote out.html, out.png\n")
    assert (artifacts / "out.html").read_text().startswith("<!doctype html>")
    assert (artifacts / "out.png").read_bytes().startswith(b"\x89PNG")
    assert invoke("artifact", "show", "int4", "--png", "missing/out.png").exit_code == 2


def test_a_damaged_one_is_named_with_its_file(invoke, artifacts: Path) -> None:
    weights = artifacts / "int4" / "model" / "model.onnx"
    sound = weights.read_bytes()
    weights.write_bytes(sound[:-1] + b"?")
    for words in (("show", "int4"), ("compare", "int8", "int4")):
        failed = invoke("artifact", *words)
        assert failed.exit_code == 2
        assert failed.stdout == ""
        assert failed.stderr == (
            "error: the artifact int4 cannot be used: model/model.onnx is damaged: its checksum differs\n"
        )
    assert "3 files, not verified" in invoke("artifact", "show", "int4", "--no-verify").stdout
    weights.write_bytes(sound[:-1])
    assert invoke("artifact", "show", "int4", "--no-verify").exit_code == 2


def test_what_is_no_artifact_says_so(invoke, place: Path) -> None:
    (place / "folder").mkdir()
    assert "it has no manifest.json" in invoke("artifact", "show", "folder").stderr
    assert "there is no such folder" in invoke("artifact", "show", "nothing").stderr
    assert invoke("artifact", "compare").exit_code == 2
