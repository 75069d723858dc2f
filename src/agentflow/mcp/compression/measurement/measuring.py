"""What an artifact has kept and what it costs, measured in its own runtime, beside the source it was made from.

    reference = Reference.of(lambda: SourceModel(source), windows, folder=scratch, prompts=prompts)
    before = measure_source(source, reference)
    after = measure(folder, reference, examples=examples)         Measures of a decoder
    after = measure_classifier(folder, rows, expected=…, reference=…)
    after = measure_embedder(folder, rows, reference=vectors)

First fresh processes show that the runtime can load it, and how fast it is there; then it is opened here and read
window by window. Whatever is wrong with the artifact is an ArtifactError that says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from agentflow.errors import ArtifactError, CompressionError
from agentflow.mcp.compression.artifact.manifest import Measures
from agentflow.mcp.compression.measurement.encoders import labels_said, share_equal, similarity, vectors_said
from agentflow.mcp.compression.measurement.examples import Examples
from agentflow.mcp.compression.measurement.greedy import agreement, continuation
from agentflow.mcp.compression.measurement.logits import Tally
from agentflow.mcp.compression.measurement.reference import Reference
from agentflow.mcp.compression.measurement.speed import SpeedPlan, Trial, try_out
from agentflow.mcp.performance.edge.runtime import Runtime

__all__ = ["measure", "measure_classifier", "measure_embedder", "measure_source", "quality_in"]

PROMPT = 16  # tokens of the prompt that speeds are measured with
_PLAN = SpeedPlan()
Check = Callable[[], None]
Tell = Callable[[str, int, int], None]
Rows = Sequence[Sequence[int]]


def _unchecked() -> None:
    """Nobody wants it to end."""


def _untold(what: str, done: int, of: int) -> None:
    """Nobody wants to know."""


def measure(
    folder: Path,
    reference: Reference,
    *,
    kind: str | None = None,
    plan: SpeedPlan = _PLAN,
    examples: Examples | None = None,
    check: Check = _unchecked,
    progress: Tell = _untold,
) -> Measures:
    """A decoder in `folder` (the artifact's model/), in the runtime `kind`, or the one that fits its files.

    Raises ArtifactError where it cannot be loaded, says NaN, or has another vocabulary than the source.
    """
    from agentflow.mcp.performance.edge.opening import open_runtime

    trial = _tried(folder, reference, kind, plan, check, progress)
    with closing(open_runtime(folder, kind=kind, threads=plan.threads)) as runtime, _about(folder):
        found = quality_in(runtime, reference, check=check, progress=progress)
        if examples is not None:
            from agentflow.mcp.performance.edge.tokenizer import EdgeTokenizer

            score = examples.answer(runtime, EdgeTokenizer(folder), check=check)
            found = msgspec.structs.replace(found, task=score, task_name=examples.name)
    return msgspec.structs.replace(found, speed=trial.speed)


def quality_in(
    runtime: Runtime, reference: Reference, *, check: Check = _unchecked, progress: Tell = _untold
) -> Measures:
    """What an open runtime says of the reference's windows and prompts; one window's logits are in memory at a time."""
    tally = Tally()
    for number, window in enumerate(reference.windows):
        check()
        tally.add(window, runtime.score(window.tolist()), reference.logits(number))
        progress("quality", number + 1, len(reference.windows))
    written = []
    for prompt, source in zip(reference.prompts, reference.greedy, strict=True):
        check()
        written.append(continuation(runtime, prompt, len(source)))
    return Measures(
        runtime=runtime.name,
        runtime_version=runtime.version,
        tokens=tally.tokens,
        perplexity=tally.perplexity,
        kl=tally.kl,
        top1=tally.top1,
        greedy=agreement(written, reference.greedy),
        greedy_tokens=sum(map(len, reference.greedy)),
    )


def measure_source(
    source: Path,
    reference: Reference,
    *,
    plan: SpeedPlan | None = _PLAN,
    examples: Examples | None = None,
    check: Check = _unchecked,
    progress: Tell = _untold,
) -> Measures:
    """The source itself, in transformers: what the reference holds, its speed (unless `plan` is None) and its score."""
    from agentflow.mcp.compression.measurement.source_model import SourceModel
    from agentflow.mcp.performance.edge.tokenizer import EdgeTokenizer

    speed = None if plan is None else _tried(source, reference, "transformers", plan, check, progress).speed
    score = None
    if examples is not None:
        with closing(SourceModel(source)) as runtime, _about(source):
            score = examples.answer(runtime, EdgeTokenizer(source), check=check)
    return Measures(
        runtime=reference.runtime,
        runtime_version=reference.runtime_version,
        tokens=reference.windows[:, 1:].size,
        perplexity=reference.perplexity,
        kl=0.0,
        top1=1.0,
        greedy=1.0 if reference.greedy else None,
        greedy_tokens=sum(map(len, reference.greedy)),
        task=score,
        task_name=None if examples is None else examples.name,
        speed=speed,
    )


def measure_classifier(
    folder: Path,
    rows: Rows,
    *,
    expected: NDArray[np.int64] | None = None,
    reference: NDArray[np.int64] | None = None,
    kind: str | None = None,
    plan: SpeedPlan = _PLAN,
    check: Check = _unchecked,
) -> Measures:
    """A classifier on texts as token ids: `accuracy` against true labels, `agreement` with the source's or teacher's;
    both are the indexes of labels, of shape (texts,)."""
    from agentflow.mcp.performance.edge.opening import open_labeller

    trial = try_out(folder, prompt=_middle(rows), task="classify", kind=kind, plan=plan, check=check)
    with closing(open_labeller(folder, kind=kind, threads=plan.threads)) as labeller, _about(folder):
        said = labels_said(labeller, rows, check=check)
        return Measures(
            runtime=trial.runtime,
            runtime_version=trial.runtime_version,
            texts=len(rows),
            accuracy=None if expected is None else share_equal(said, expected),
            agreement=None if reference is None else share_equal(said, reference),
            speed=trial.speed,
        )


def measure_embedder(
    folder: Path,
    rows: Rows,
    *,
    reference: NDArray[np.float32],
    kind: str | None = None,
    plan: SpeedPlan = _PLAN,
    check: Check = _unchecked,
) -> Measures:
    """An embedding model on texts as token ids, beside the source's vectors of them: (texts, dimensions)."""
    from agentflow.mcp.performance.edge.opening import open_embedder

    trial = try_out(folder, prompt=_middle(rows), task="embed", kind=kind, plan=plan, check=check)
    with closing(open_embedder(folder, kind=kind, threads=plan.threads)) as embedder, _about(folder):
        cosine, spearman = similarity(vectors_said(embedder, rows, check=check), reference)
    return Measures(
        runtime=trial.runtime,
        runtime_version=trial.runtime_version,
        texts=len(rows),
        cosine=cosine,
        spearman=spearman,
        speed=trial.speed,
    )


def _tried(
    folder: Path, reference: Reference, kind: str | None, plan: SpeedPlan, check: Check, progress: Tell
) -> Trial:
    progress("speed", 0, 0)
    prompt = reference.windows[0, :PROMPT].tolist()
    return try_out(folder, prompt=prompt, kind=kind, plan=plan, check=check)


def _middle(rows: Rows) -> Sequence[int]:
    """A text of middling length: speeds are measured with it."""
    if not rows:
        raise CompressionError("there are no texts to measure with")
    return sorted(rows, key=len)[len(rows) // 2]


@contextmanager
def _about(folder: Path) -> Iterator[None]:
    """What is found out about a model while it is measured is said of its folder."""
    try:
        yield
    except CompressionError as error:
        if isinstance(error, ArtifactError):
            raise
        raise ArtifactError(folder, str(error)) from error
