"""A real model in real runtimes: figures are those of the formulas, a model beside itself has lost nothing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from tests.support.scripted_runtime import ScriptedRuntime
from tests.support.trained import teacher_folder, texts
from transformers import AutoModelForCausalLM, AutoTokenizer

from agentflow.errors import ArtifactError
from agentflow.mcp.compression.measurement import (
    Examples,
    Reference,
    SourceModel,
    SpeedPlan,
    measure,
    measure_source,
    quality_in,
)
from agentflow.mcp.performance.edge.opening import open_runtime

QUICK = SpeedPlan(output_tokens=4, repeats=2, starts=1, threads=1)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def windows() -> np.ndarray:
    ids = AutoTokenizer.from_pretrained(teacher_folder())(texts("held_out")[0])["input_ids"]
    return np.array(ids[: 4 * 64]).reshape(4, 64)


@pytest.fixture(scope="module")
def reference(windows: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    prompts = [window[:8].tolist() for window in windows]
    return Reference.of(
        lambda: SourceModel(teacher_folder()),
        windows,
        folder=tmp_path_factory.mktemp("reference"),
        prompts=prompts,
        greedy_tokens=6,
    )


@pytest.fixture(scope="module")
def worse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The teacher, with noise on its weights."""
    folder = tmp_path_factory.mktemp("worse") / "model"
    model = AutoModelForCausalLM.from_pretrained(teacher_folder(), dtype=torch.float32)
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.02)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(teacher_folder() / name, folder / name)
    return folder


def _naive(folder: Path, windows: np.ndarray) -> tuple[float, float, float]:
    """Perplexity, KL and top-1 by torch, all windows at once."""
    ids = torch.tensor(windows)
    with torch.no_grad():
        said, source = (
            AutoModelForCausalLM.from_pretrained(each, dtype=torch.float32)(ids).logits[:, :-1].double()
            for each in (folder, teacher_folder())
        )
    q, p = (each.log_softmax(-1).flatten(0, 1) for each in (said, source))
    nll = torch.nn.functional.nll_loss(q, ids[:, 1:].flatten())
    kl = torch.nn.functional.kl_div(q, p, log_target=True, reduction="batchmean")
    return nll.exp().item(), kl.item(), (q.argmax(-1) == p.argmax(-1)).double().mean().item()


def test_the_source_beside_itself_has_lost_nothing(reference: Reference) -> None:
    runtime = SourceModel(teacher_folder())
    found = quality_in(runtime, reference)
    assert (found.kl, found.top1, found.greedy) == (0.0, 1.0, 1.0)
    assert (found.tokens, found.greedy_tokens) == (4 * 63, 4 * 6)
    assert found.perplexity == reference.perplexity
    assert found.runtime == "transformers"


def test_in_transformers_figures_are_those_of_the_formulas(
    worse: Path, reference: Reference, windows: np.ndarray
) -> None:
    runtime = open_runtime(worse, kind="transformers", threads=1)
    found = quality_in(runtime, reference)
    runtime.close()
    expected = _naive(worse, windows)
    assert (found.perplexity, found.kl, found.top1) == pytest.approx(expected, rel=1e-4)
    assert expected[1] > 0.005
    assert found.greedy is not None
    assert found.greedy < 1.0


def test_greedy_agreement_is_that_of_transformers_own_generate(
    worse: Path, reference: Reference, windows: np.ndarray
) -> None:
    written = []
    for folder in (teacher_folder(), worse):
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        prompts = torch.tensor(windows[:, :8])
        more = model.generate(
            prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=6, min_new_tokens=6, do_sample=False,
            eos_token_id=None,
        )  # fmt: skip
        written.append(more[:, 8:])
    assert written[0].tolist() == [list(row) for row in reference.greedy]
    found = quality_in(open_runtime(worse, kind="transformers", threads=1), reference)
    assert found.greedy == pytest.approx((written[0] == written[1]).double().mean().item())


def test_a_folder_is_measured_from_its_loading_to_its_score(worse: Path, reference: Reference) -> None:
    """Quality, a task, and speed in a process of its own; the source likewise."""

    def short(answers: list[str], expected: list[str]) -> float:
        return float(np.mean([len(each) > 0 for each in answers]))

    examples = Examples.judged("says something", ["import os\n", "def "], ["", ""], short, max_tokens=3)
    found = measure(worse, reference, plan=QUICK, examples=examples)
    assert (found.task, found.task_name) == (1.0, "says something")
    assert found.speed is not None
    assert found.speed.output_tokens == 4
    assert found.speed.prompt_tokens == 16
    assert found.speed.cold_start > found.speed.time_to_first_token > 0
    before = measure_source(teacher_folder(), reference, plan=None, examples=examples)
    assert (before.kl, before.top1, before.greedy, before.task) == (0.0, 1.0, 1.0, 1.0)
    assert before.perplexity is not None
    assert found.perplexity is not None
    assert before.perplexity < found.perplexity
    assert msgspec.json.decode(msgspec.json.encode(found), type=type(found)) == found


def test_another_vocabulary_and_numbers_that_are_none_are_said_of_the_folder(
    worse: Path, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agentflow.mcp.compression.measurement import measuring

    monkeypatch.setattr(measuring, "try_out", lambda *given, **more: None)
    for runtime, words in (
        (ScriptedRuntime(lambda tokens: 1, vocabulary=9, context_length=512), "another vocabulary"),
        (ScriptedRuntime(lambda tokens: 1, vocabulary=2048, context_length=512, sharpness=np.inf), "NaN or infinite"),
    ):
        monkeypatch.setattr(
            "agentflow.mcp.performance.edge.opening.open_runtime", lambda *given, opened=runtime, **more: opened
        )
        with pytest.raises(ArtifactError, match=words) as failure:
            measure(worse, reference, plan=QUICK)
        assert failure.value.path == str(worse)
        assert runtime.closed == 1
