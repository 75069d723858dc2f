"""The evaluation's own arithmetic: ROUGE against the reference implementation, the bootstrap against known cases."""

from __future__ import annotations

import functools
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

SCRIPT = Path(__file__).resolve().parents[3] / "benchmarks" / "extractive.py"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("extractive_benchmark", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


benchmark = load()
SENTENCES = st.lists(
    st.sampled_from(["The", "the", "cat,", "sat", "on", "2", "mats.", "café", "e-mail"]), max_size=12
).map(" ".join)


def test_rouge_is_the_f1_of_shared_n_grams() -> None:
    assert benchmark.rouge("the cat sat", "the cat ran off", 1) == pytest.approx(2 * 2 / 7)
    assert benchmark.rouge("the cat sat", "the cat ran off", 2) == pytest.approx(2 * 1 / 5)
    assert benchmark.rouge("the the", "the", 1) == pytest.approx(2 / 3)
    assert benchmark.rouge("", "the", 1) == 0


@functools.cache
def reference_implementation() -> Any:
    scorer = pytest.importorskip("rouge_score.rouge_scorer")
    return scorer.RougeScorer(["rouge1", "rouge2"], use_stemmer=False)


@settings(deadline=None)  # the first call imports the reference implementation
@given(SENTENCES, SENTENCES)
def test_rouge_agrees_with_the_reference_implementation(reference: str, candidate: str) -> None:
    expected = reference_implementation().score(reference, candidate)
    for n in (1, 2):
        assert benchmark.rouge(reference, candidate, n) == pytest.approx(expected[f"rouge{n}"].fmeasure)


def test_the_bootstrap_brackets_the_mean_and_is_seeded() -> None:
    differences = [0.1, -0.05, 0.2, 0.0, 0.15] * 10
    low, high = benchmark.bootstrap(differences)
    assert low < 0.08 < high
    assert (low, high) == benchmark.bootstrap(differences)
    assert benchmark.bootstrap([0.3] * 5) == pytest.approx((0.3, 0.3))


def test_the_summary_is_cut_from_the_body_over_line_breaks() -> None:
    body = "Tool - fast\nlists of FILES. It lists. Fast lists of files"
    assert "lists of" not in benchmark.cut_summary(body, "fast lists of files").lower()
    assert "It lists." in benchmark.cut_summary(body, "fast lists of files")
