"""How an instruction is told from the text, and what is read from it."""

from __future__ import annotations

import pytest

from agentflow.llm.extractive.summary import Budget
from agentflow.llm.extractive.task import read_budget, read_query, read_task, split_prompt

TEXT = "The moon pulls the sea.\n\nTides follow: twice a day."


@pytest.mark.parametrize(
    "instruction",
    [
        "Summarise in 2 sentences:\n\n",
        "Here is a page for you, and this is what to do with it:\n\n",
        "Summarise:\n",
        "Summarise in one sentence: ",
        "Please condense the following. Keep it short.\n\n",
        "What pulls the sea?\n\n",
        "用两句话总结：\n\n",
    ],
)
def test_an_instruction_before_the_text_is_told_from_it(instruction: str) -> None:
    assert split_prompt(instruction + TEXT) == (instruction.strip(), TEXT)


def test_an_instruction_may_stand_at_the_end() -> None:
    assert split_prompt(TEXT + "\n\nSummarise the above in one sentence.")[1].strip() == TEXT


@pytest.mark.parametrize("prompt", [TEXT, "One paragraph alone: it is the text.", "# Title:\n\nProse."])
def test_a_prompt_without_an_instruction_is_text(prompt: str) -> None:
    assert split_prompt(prompt) == ("", prompt)


def test_an_instruction_alone_has_no_text() -> None:
    assert read_task("Summarise in two sentences:\n\n").text == ""


@pytest.mark.parametrize(
    ("instruction", "expected"),
    [
        ("Summarise in 3 sentences:", Budget(sentences=3)),
        ("Two short sentences, please:", Budget(sentences=2)),
        ("Write a single sentence:", Budget(sentences=1)),
        ("Give me a few sentences:", Budget(sentences=3)),
        ("Summarise in 2-3 sentences:", Budget(sentences=3)),
        ("In one or two sentences:", Budget(sentences=2)),
        ("A three-sentence summary:", Budget(sentences=3)),
        ("At most 40 words:", Budget(words=40)),
        ("Under 50 words:", Budget(words=49)),
        ("Stay below 1,200 words:", Budget(words=1199)),
        ("At least 20 words, at most 3 sentences:", Budget(sentences=3)),
        ("In 2 sentences and no more than 30 words:", Budget(sentences=2, words=30)),
        ("Use your own words:", Budget()),
        ("En trois phrases :", Budget(sentences=3)),
        ("In zwei Sätzen:", Budget(sentences=2)),
        ("用两句话总结：", Budget(sentences=2)),
        ("200字以内：", Budget(words=200)),
        ("Summarise this:", Budget()),
    ],
)
def test_a_length_is_read_from_the_instruction(instruction: str, expected: Budget) -> None:
    assert read_budget(instruction) == expected


def test_a_length_in_the_text_means_nothing() -> None:
    assert read_task("Summarise:\n\nThe judge spoke in 2 sentences. Under 5 words.").budget == Budget()


def test_the_system_text_counts_where_the_prompt_is_silent() -> None:
    system = "Answer in 2 sentences."
    assert read_task(TEXT, system=system).budget == Budget(sentences=2)
    assert read_task("In 4 sentences:\n\n" + TEXT, system=system).budget == Budget(sentences=4)


def test_a_subject_is_read_from_the_instruction() -> None:
    assert read_query("Summarise what it says about retries in 2 sentences:") == "retry"
    assert read_query("What pulls the sea?") == "pull sea"
    assert read_query("Summarise what this document is about in 2 sentences:") == ""
    assert read_query("Summarise:") == ""
