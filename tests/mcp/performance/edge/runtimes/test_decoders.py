"""Decoders behind one protocol: the tokens of transformers' own generate, whoever else is decoded beside them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from tests.support.edge_models import onnx_of, tiny_folder
from tests.support.trained import teacher_folder

from agentflow.errors import ArtifactError, ConfigurationError, MissingExtraError
from agentflow.mcp.performance.edge.opening import kind_of, open_runtime
from agentflow.mcp.performance.edge.runtime import Runtime

PROMPTS = [[5], list(range(3, 290)), [0, 17, 400, 9], list(range(700, 740))]
LENGTH = 24
KINDS = ("onnxruntime", "onnxruntime-genai", "transformers")


@cache
def _runtime(kind: str) -> Runtime:
    return open_runtime(teacher_folder() if kind == "transformers" else onnx_of("trained"), kind=kind, threads=1)


@cache
def by_transformers() -> list[list[int]]:
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(teacher_folder())
    found = []
    for prompt in PROMPTS:
        tokens = torch.tensor([prompt])
        made = model.generate(
            tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=LENGTH, do_sample=False, eos_token_id=None
        )
        found.append(made[0, len(prompt) :].tolist())
    return found


def _greedy(runtime: Runtime, prompts: Sequence[Sequence[int]], steps: int = LENGTH) -> list[list[int]]:
    decoding = runtime.open(prompts)
    written: list[list[int]] = [[] for _ in prompts]
    for _ in range(steps):
        tokens = decoding.logits().argmax(axis=-1).tolist()
        for row, token in zip(written, tokens, strict=True):
            row.append(token)
        decoding.append(tokens)
    decoding.close()
    decoding.close()
    return written


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_is_what_transformers_generates(kind: str) -> None:
    """Every token, of each prompt alone and of all in one decoding."""
    alone = [_greedy(_runtime(kind), [prompt])[0] for prompt in PROMPTS]
    assert alone == by_transformers()
    assert _greedy(_runtime(kind), PROMPTS) == alone


@pytest.mark.parametrize(("precision", "apart_by"), [("fp32", 0.0), ("int4", 0.1)])
def test_rows_of_a_batch_have_the_logits_they_have_alone(precision: str, apart_by: float) -> None:
    """To the bit where weights are floats. ONNX Runtime multiplies 4-bit weights with one row by another way than with
    many, and rounds the activations to 8 bits: there logits, which reach over 20, differ by some hundredths."""
    runtime = open_runtime(onnx_of("trained", precision), threads=1)
    together = runtime.open(PROMPTS)
    alone = [runtime.open([prompt]) for prompt in PROMPTS]
    for token in (7, 300, 11):
        together.append([token] * len(PROMPTS))
        for row, decoding in enumerate(alone):
            decoding.append([token])
            assert np.abs(together.logits()[row] - decoding.logits()[0]).max() <= apart_by


@pytest.mark.parametrize("kind", KINDS)
def test_rows_come_and_go_between_steps(kind: str) -> None:
    runtime, expected = _runtime(kind), by_transformers()
    decoding = runtime.open([])
    assert decoding.logits().shape[0] == 0
    decoding.append([])
    rows: list[int] = []
    written: dict[int, list[int]] = {row: [] for row in range(len(PROMPTS))}
    comes, goes = {0: [0, 1], 4: [2], 9: [3]}, {7: [0, 2], 12: [3, 2]}
    for step in range(20):
        if step in comes:
            decoding.add([PROMPTS[row] for row in comes[step]])
            rows += comes[step]
        if step in goes:
            decoding.keep([rows.index(row) for row in goes[step]])
            rows = list(goes[step])
        tokens = decoding.logits().argmax(axis=-1).tolist()
        for row, token in zip(rows, tokens, strict=True):
            written[row].append(token)
        decoding.append(tokens)
    assert [len(written[row]) for row in range(4)] == [12, 7, 16, 11]
    assert all(expected[row][: len(tokens)] == tokens for row, tokens in written.items())


@pytest.mark.parametrize("kind", KINDS)
def test_a_score_is_what_the_model_says_after_each_token(kind: str) -> None:
    runtime, text = _runtime(kind), PROMPTS[1]
    scores = runtime.score(text)
    assert scores.shape == (len(text), runtime.vocabulary)
    assert scores.dtype == np.float32
    for length in (1, 100, len(text)):
        last = runtime.open([text[:length]]).logits()[0]
        assert np.abs(scores[length - 1] - last).max() < 2e-4


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_fills_its_context_to_the_end(kind: str) -> None:
    runtime = _runtime(kind)
    decoding = runtime.open([list(range(3, runtime.context_length)), [7]])
    decoding.append([5, 5])
    decoding.append([5, 5])
    decoding.append([5, 5])
    assert np.isfinite(decoding.logits()).all()


@pytest.mark.parametrize("architecture", ["MistralForCausalLM", "Qwen3ForCausalLM"])
def test_other_architectures_run_in_the_fallback(architecture: str, tmp_path: Path) -> None:
    from tests.support.tiny_models import tiny_decoder

    runtime = open_runtime(tiny_decoder(tmp_path / "m", architecture), threads=1)
    assert runtime.name == "transformers"
    assert _greedy(runtime, [[5, 6], [9]], 5) == [_greedy(runtime, [each], 5)[0] for each in ([5, 6], [9])]


def test_each_folder_finds_its_runtime(tmp_path: Path) -> None:
    assert kind_of(tiny_folder()) == "transformers"
    assert kind_of(onnx_of("tiny")) == "onnxruntime"
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    assert kind_of(tmp_path) == kind_of(tmp_path / "m.gguf") == "llama.cpp"


def test_a_graph_with_other_caches_runs_in_onnxruntime_genai(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(onnx_of("tiny"), folder)
    card = json.loads((folder / "genai_config.json").read_text())
    card["search"]["past_present_share_buffer"] = False
    (folder / "genai_config.json").write_text(json.dumps(card))
    runtime = open_runtime(folder, threads=1)
    assert runtime.name == "onnxruntime-genai"
    assert _greedy(runtime, [[5, 6], [9]], 5) == _greedy(open_runtime(onnx_of("tiny"), threads=1), [[5, 6], [9]], 5)
    with pytest.raises(ArtifactError, match="no plain decoder"):
        open_runtime(folder, kind="onnxruntime")


def test_what_is_no_model_is_said_to_be_none(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(ArtifactError, match=r"no such folder|neither"):
            open_runtime(path)
    (tmp_path / "text.txt").write_text("a")
    with pytest.raises(ArtifactError, match=r"no \.gguf"):
        open_runtime(tmp_path / "text.txt")
    with pytest.raises(ConfigurationError, match="onnxruntime-genai"):
        open_runtime(onnx_of("tiny"), kind="tensorrt")


def test_a_runtime_that_is_not_installed_names_its_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    monkeypatch.delitem(sys.modules, "agentflow.mcp.performance.edge.runtimes.llama_cpp", raising=False)
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    with pytest.raises(MissingExtraError, match=r"pip install 'agentflow-engine\[gguf\]'"):
        open_runtime(tmp_path / "m.gguf")


@pytest.mark.parametrize("kind", ["onnxruntime", "onnxruntime-genai"])
@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("model.onnx", b"no graph"),
        ("model.onnx.data", b"cut off"),
        ("genai_config.json", b"{"),
        ("genai_config.json", b"{}"),
        ("model.onnx", None),
    ],
)
def test_a_damaged_onnx_folder_is_an_artifact_error(
    kind: str, file: str, content: bytes | None, tmp_path: Path
) -> None:
    folder = tmp_path / "m"
    shutil.copytree(onnx_of("tiny"), folder)
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_bytes(content)
    with pytest.raises(ArtifactError):
        open_runtime(folder, kind=kind)


def test_a_card_that_names_a_file_elsewhere_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(onnx_of("tiny"), folder)
    card = json.loads((folder / "genai_config.json").read_text())
    card["model"]["decoder"]["filename"] = "../m/model.onnx"
    (folder / "genai_config.json").write_text(json.dumps(card))
    with pytest.raises(ArtifactError, match="outside"):
        open_runtime(folder)


def test_a_damaged_hugging_face_folder_is_an_artifact_error(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(tiny_folder(), folder)
    (folder / "model.safetensors").write_bytes(b"\x08")
    with pytest.raises(ArtifactError, match="transformers does not load it"):
        open_runtime(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_a_closed_runtime_says_so(kind: str) -> None:
    runtime = open_runtime(tiny_folder() if kind == "transformers" else onnx_of("tiny"), kind=kind, threads=1)
    runtime.close()
    runtime.close()
    with pytest.raises(RuntimeError, match="closed"):
        runtime.open([[1]])
