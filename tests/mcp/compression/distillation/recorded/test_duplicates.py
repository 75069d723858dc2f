"""What was asked before, word for word or nearly, is found; templates and instructions do not make all alike."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from agentflow.mcp.compression.distillation.recorded import RecordedAnswer, Turn
from agentflow.mcp.compression.distillation.recorded.duplicates import without_duplicates
from agentflow.mcp.compression.distillation.recorded.splitting import split_by_time

LONG = "the quick brown fox jumps over the lazy dog while the band plays a slow waltz in the park at noon"


def answer(text: str, said: str = "yes", *, system: str = "", at: float = 0.0, run: str = "") -> RecordedAnswer:
    turns = (*((Turn("system", system),) if system else ()), Turn("user", text))
    return RecordedAnswer(messages=turns, answer=said, model="large", at=at, run=run or text)


def test_case_spaces_and_width_make_no_difference() -> None:
    found = without_duplicates([answer("Hello  World"), answer("hello\nworld"), answer("ｈｅｌｌｏ WORLD", "no")])
    assert [each.question for each in found.kept] == ["Hello  World"]
    assert (found.repeated, found.contradicting, found.near) == (2, 1, 0)


def test_a_word_more_in_a_long_text_is_nearly_the_same() -> None:
    found = without_duplicates([answer(LONG), answer(f"{LONG} today"), answer("something else entirely")])
    assert (len(found.kept), found.near) == (2, 1)
    assert len(without_duplicates([answer(LONG), answer(f"{LONG} today")], near=None).kept) == 2


def test_a_prompts_template_does_not_make_its_questions_alike() -> None:
    asked = [answer(f"{LONG}: {word}? Answer with one word, please.") for word in ("mail", "chess", "fonts", "audio")]
    assert without_duplicates(asked).kept == asked


def test_the_same_words_under_other_instructions_are_another_task() -> None:
    asked = [answer(LONG, system="Translate."), answer(LONG, system="Summarise.")]
    assert without_duplicates(asked).kept == asked


def test_empty_texts_and_none_at_all_are_no_trouble() -> None:
    assert without_duplicates([]).kept == []
    assert without_duplicates([answer(""), answer("")]).repeated == 1
    assert without_duplicates([answer(text) for text in ("a b", "a b", "a b c", "a")]).repeated == 1


@given(st.lists(st.text(alphabet="ab \u0130ß", max_size=12), max_size=30))
def test_no_two_that_are_kept_are_alike(texts: list[str]) -> None:
    kept = without_duplicates([answer(text) for text in texts]).kept
    again = without_duplicates(kept, near=None)
    assert again.kept == kept


def test_no_pair_stands_on_both_sides_of_the_split() -> None:
    draw = random.Random(3)
    words = LONG.split()
    texts = [" ".join(draw.choices(words, k=14)) for _ in range(200)]
    asked = [answer(text if draw.random() < 0.7 else f"{draw.choice(texts)} {draw.choice(words)}") for text in texts]
    train, held = split_by_time(without_duplicates(asked, near=0.8).kept, 0.3)
    shingles = [
        [{t[i : i + 3] for i in range(len(t) - 2)} for t in (e.question for e in part)] for part in (train, held)
    ]
    assert train
    assert max(len(one & other) / len(one | other) for one in shingles[0] for other in shingles[1]) < 0.8


def test_a_run_stays_whole_and_the_newest_is_held_out() -> None:
    asked = [answer(f"{run} {turn}", at=10.0 * run + turn, run=str(run)) for run in range(5) for turn in range(4)]
    train, held = split_by_time(asked[::-1], 0.25)
    assert {each.run for each in train}.isdisjoint(each.run for each in held)
    assert [each.run for each in held] == ["4"] * 4
    assert [each.at for each in train] == sorted(each.at for each in train)


def test_one_run_alone_is_learnt_from() -> None:
    assert split_by_time([answer("a")], 0.5)[1] == []
    assert split_by_time([], 0.5) == ([], [])
    assert len(split_by_time([answer("a"), answer("b", at=1.0)], 0.01)[1]) == 1
    assert split_by_time([answer("a"), answer("b", at=1.0)], 0.0)[1] == []
