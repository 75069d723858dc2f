"""What the source says is computed once, window by window, and read back as it was."""

from __future__ import annotations

import errno
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from tests.support.scripted_runtime import ScriptedRuntime

from agentflow.errors import CompressionError, ShortageError
from agentflow.mcp.compression.measurement import reference as module
from agentflow.mcp.compression.measurement.reference import Reference

WINDOWS = np.random.default_rng(0).integers(0, 50, (4, 12))
PROMPTS = [[1, 2, 3], [7]]


def _next(tokens: Sequence[int]) -> int:
    return (3 * tokens[-1] + 1) % 50


def _source(**changes: float) -> ScriptedRuntime:
    return ScriptedRuntime(_next, vocabulary=50, **changes)  # type: ignore[arg-type]


def test_logits_are_read_back_to_the_bit(tmp_path: Path) -> None:
    source = _source()
    reference = Reference.of(source, WINDOWS, folder=tmp_path)
    for number, window in enumerate(WINDOWS):
        assert (reference.logits(number) == source.score(window.tolist())).all()
    assert reference.logits(2).dtype == np.float32


def test_in_half_precision_they_are_read_back_to_a_thousandth(tmp_path: Path) -> None:
    source = _source(sharpness=17.3)
    reference = Reference.of(source, WINDOWS, folder=tmp_path, limit=WINDOWS.size * 50 * 3)
    said = source.score(WINDOWS[1].tolist())
    assert np.allclose(reference.logits(1), said - said.max(axis=1, keepdims=True), rtol=1e-3)


def test_the_source_s_own_words_are_kept(tmp_path: Path) -> None:
    reference = Reference.of(_source(), WINDOWS, folder=tmp_path, prompts=PROMPTS, greedy_tokens=5)
    assert reference.greedy == ((10, 31, 44, 33, 0), (22, 17, 2, 7, 22))


def test_it_is_computed_once_and_found_again_after_a_crash(tmp_path: Path) -> None:
    first = Reference.of(_source(), WINDOWS, folder=tmp_path, prompts=PROMPTS, key="a")
    source = _source()
    again = Reference.of(source, WINDOWS, folder=tmp_path, prompts=PROMPTS, key="a")
    assert source.scored == []
    assert again.greedy == first.greedy
    assert (again.logits(3) == first.logits(3)).all()

    def never() -> ScriptedRuntime:
        raise AssertionError("the source was opened for nothing")

    assert Reference.of(never, WINDOWS, folder=tmp_path, prompts=PROMPTS, key="a").perplexity == first.perplexity


@pytest.mark.parametrize("change", ["key", "windows", "prompts", "greedy_tokens"])
def test_anything_else_is_computed_anew(change: str, tmp_path: Path) -> None:
    Reference.of(_source(), WINDOWS, folder=tmp_path, prompts=PROMPTS, key="a")
    source = _source()
    Reference.of(
        source,
        WINDOWS + 1 if change == "windows" else WINDOWS,
        folder=tmp_path,
        prompts=PROMPTS[:1] if change == "prompts" else PROMPTS,
        greedy_tokens=3 if change == "greedy_tokens" else 24,
        key="b" if change == "key" else "a",
    )
    assert len(source.scored) == len(WINDOWS)


def test_one_that_was_cut_off_is_computed_anew(tmp_path: Path) -> None:
    reference = Reference.of(_source(), WINDOWS, folder=tmp_path)
    [file] = tmp_path.glob("*.logits")
    file.write_bytes(file.read_bytes()[:-1])
    source = _source()
    again = Reference.of(source, WINDOWS, folder=tmp_path)
    assert len(source.scored) == len(WINDOWS)
    assert (again.logits(3) == reference.logits(3)).all()


def test_cancelling_leaves_nothing_half_done_and_closes_what_it_opened(tmp_path: Path) -> None:
    class Stopped(BaseException):
        pass

    source, looks = _source(), iter(range(9))

    def check() -> None:
        if next(looks) == 2:
            raise Stopped

    with pytest.raises(Stopped):
        Reference.of(lambda: source, WINDOWS, folder=tmp_path, check=check)
    assert list(tmp_path.iterdir()) == []
    assert source.closed == 1


def test_memory_holds_one_window_at_a_time(tmp_path: Path) -> None:
    """Of 40 windows of 32 × 2,000 logits (10 MB), less than a megabyte and a half is ever held."""
    windows = np.random.default_rng(0).integers(0, 2000, (40, 32))
    source = ScriptedRuntime(lambda tokens: 5, vocabulary=2000)
    tracemalloc.start()
    try:
        reference = Reference.of(source, windows, folder=tmp_path)
        for number in range(len(windows)):
            reference.logits(number)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (tmp_path / reference._file).stat().st_size == 40 * 32 * 2000 * 4
    assert peak < 2_500_000


def test_a_disk_too_small_is_said_beforehand_and_one_that_fills_up_is_said_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = _source()
    with pytest.raises(ShortageError, match="fewer held-out windows"):
        Reference.of(source, WINDOWS, folder=tmp_path, limit=1000)
    assert source.scored == []

    def full(logits: object, kind: str) -> bytes:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "_packed", full)
    with pytest.raises(ShortageError, match="disk"):
        Reference.of(source, WINDOWS, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("windows", [np.zeros((0, 8), np.int64), np.zeros((3, 1), np.int64), np.zeros(8, np.int64)])
def test_windows_that_say_nothing_are_refused(windows: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(CompressionError, match="say nothing"):
        Reference.of(_source(), windows, folder=tmp_path)


def test_windows_and_prompts_longer_than_the_context_are_refused(tmp_path: Path) -> None:
    source = _source(context_length=11)
    with pytest.raises(CompressionError, match="12 tokens do not fit the context of 11"):
        Reference.of(source, WINDOWS, folder=tmp_path)
    with pytest.raises(CompressionError, match="27 tokens do not fit the context of 11"):
        Reference.of(source, WINDOWS[:, :4], folder=tmp_path, prompts=PROMPTS)


def test_removing_it_gives_the_disk_back(tmp_path: Path) -> None:
    Reference.of(_source(), WINDOWS, folder=tmp_path).remove()
    assert list(tmp_path.iterdir()) == []
