"""A trained decoder as ONNX: measured in the runtimes that load it, from its files to an artifact behind a gate."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.support.trained import teacher_folder, texts
from transformers import AutoTokenizer

from agentflow.errors import ArtifactError, QualityGateError
from agentflow.mcp.compression.artifact import Artifact, Gate, assemble, source_of
from agentflow.mcp.compression.artifact.comparing import bits_of
from agentflow.mcp.compression.checkpoint import Checkpoint
from agentflow.mcp.compression.export.stage import export
from agentflow.mcp.compression.measurement import (
    Reference,
    SourceModel,
    SpeedPlan,
    measure,
    measure_source,
    quality_in,
    try_out,
)
from agentflow.mcp.compression.measurement.greedy import continuation
from agentflow.mcp.compression.measurement.loaders import loaders
from agentflow.mcp.compression.measurement.machine import machine
from agentflow.mcp.compression.recipe import Export
from agentflow.mcp.compression.work import Work
from agentflow.mcp.performance.edge.opening import open_runtime

QUICK = SpeedPlan(output_tokens=6, repeats=2, starts=2, threads=1)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    ids = AutoTokenizer.from_pretrained(teacher_folder())(texts("held_out")[0])["input_ids"]
    windows = np.array(ids[: 4 * 64]).reshape(4, 64)
    return Reference.of(
        lambda: SourceModel(teacher_folder()),
        windows,
        folder=tmp_path_factory.mktemp("reference"),
        prompts=[window[:8].tolist() for window in windows],
        greedy_tokens=8,
    )


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The teacher in 4 bits. One export serves all: the builder's process takes its time."""
    folder = tmp_path_factory.mktemp("exported")
    (folder / "scratch").mkdir()
    none = torch.zeros((0, 8), dtype=torch.int64)
    work = Work(calibration=none, training=none, evaluation=none, scratch=folder / "scratch", teacher=teacher_folder())
    export(Export("onnx:int4"), teacher_folder(), folder / "int4", work)
    return folder / "int4"


def test_both_runtimes_find_the_same(exported: Path, reference: Reference) -> None:
    found = []
    for kind in ("onnxruntime", "onnxruntime-genai"):
        runtime = open_runtime(exported, kind=kind, threads=1)
        found.append(quality_in(runtime, reference))
        runtime.close()
    assert [each.runtime for each in found] == ["onnxruntime", "onnxruntime-genai"]
    assert found[0].kl == pytest.approx(found[1].kl, rel=1e-3)
    assert found[0].greedy == found[1].greedy


def test_what_four_bits_have_lost_is_what_the_formulas_say(exported: Path, reference: Reference) -> None:
    runtime = open_runtime(exported, threads=1)
    found = quality_in(runtime, reference)
    ids = torch.tensor(reference.windows)
    said = torch.tensor(np.stack([runtime.score(window.tolist()) for window in reference.windows]))
    runtime.close()
    source = torch.tensor(np.stack([reference.logits(number) for number in range(len(ids))]))
    q, p = (each[:, :-1].double().log_softmax(-1).flatten(0, 1) for each in (said, source))
    kl = torch.nn.functional.kl_div(q, p, log_target=True, reduction="batchmean").item()
    perplexity = torch.nn.functional.nll_loss(q, ids[:, 1:].flatten()).exp().item()
    top1 = (q.argmax(-1) == p.argmax(-1)).double().mean().item()
    assert (found.perplexity, found.kl, found.top1) == pytest.approx((perplexity, kl, top1), rel=1e-9)
    assert 1e-4 < kl < 0.2
    assert 0.5 < top1 < 1.0


def test_both_runtimes_of_others_load_it_and_write_a_token(exported: Path) -> None:
    found = loaders(exported, prompt=[5, 6, 7])
    assert list(found) == ["onnxruntime-genai", "onnxruntime"]
    assert all(found.values())


def test_it_starts_in_a_process_without_torch(exported: Path, reference: Reference) -> None:
    """Cold start and memory are those of a machine that has the extra `edge` alone."""
    prompt = reference.windows[0, :8].tolist()
    trial = try_out(exported, prompt=prompt, plan=QUICK)
    with closing(open_runtime(exported, threads=1)) as runtime:
        assert trial.tokens == continuation(runtime, prompt, 6)
    speed = trial.speed
    assert speed.resident_bytes is not None
    assert 20_000_000 < speed.resident_bytes < 250_000_000  # PyTorch alone takes more
    assert 0 < speed.time_to_first_token < speed.cold_start


def test_a_damaged_file_is_an_error_and_not_a_crash(exported: Path, reference: Reference, tmp_path: Path) -> None:
    for number, name in enumerate(path.name for path in sorted(exported.glob("*.onnx*"))):
        broken = tmp_path / str(number)
        shutil.copytree(exported, broken)
        path = broken / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
        with pytest.raises(ArtifactError, match="its runtime could not use it"):
            measure(broken, reference, plan=QUICK)


def test_from_files_to_an_artifact_that_says_what_it_is(exported: Path, reference: Reference, tmp_path: Path) -> None:
    source = Checkpoint.open(teacher_folder())
    after = measure(exported, reference, plan=QUICK)
    assert after.greedy_tokens == 32
    artifact = assemble(
        tmp_path / "int4",
        model=exported,
        name="int4",
        task="generate",
        source=source_of(source, name="teacher", texts=texts("held_out")[:1]),
        source_folder=source.folder,
        stages=(),
        recipe_sha256="0" * 64,
        before=measure_source(source.folder, reference, plan=None),
        after=(after,),
        machine=machine(),
        gate=Gate(perplexity_rise=0.05, kl=1e-6),
    )
    manifest = Artifact.open(artifact.folder).manifest
    assert (manifest.format, manifest.parameters) == ("onnx", source.parameters)
    assert manifest.source.licence is not None
    assert (artifact.folder / "LICENSE").is_file()
    quantized = [each for each in manifest.tensors if each.bits == 4]
    assert len(quantized) >= 5 * 4  # q, k and v are one matrix there
    assert all(4 < each.stored_bits < 6 for each in quantized)
    bits = bits_of(manifest)
    assert bits is not None
    assert bits < 16
    assert [failure.split()[0] for failure in manifest.gate.failures] == ["kl"]  # type: ignore[union-attr]
    with pytest.raises(QualityGateError):
        Gate(kl=1e-6).check(manifest)
