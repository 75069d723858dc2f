"""From recorded runs to answers to learn from: who agreed, what is left out and why, what is held back."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec
import pytest

from agentflow import AsyncFlow, ModelRegistry, SharedState, node
from agentflow.core.observability import emit, observe
from agentflow.core.observability.feedback import feedback
from agentflow.core.observability.store import RunReader, RunStore
from agentflow.errors import CompressionError, ConfigurationError
from agentflow.llm.builder import LLMClientBuilder
from agentflow.llm.client import Call
from agentflow.mcp.compression.distillation.recorded import (
    Consent,
    Prepared,
    Report,
    Selection,
    may_train,
    prepare,
    read_answers,
)

YML = """
providers:
  lab: {kind: scripted, options: {answers: [mail, games, sound, fonts, web, video, mail, games, sound, fonts]}}
models:
  large: {provider: lab, price: {input: 5.0, output: 25.0}}
  other: {provider: lab}
"""
Said = Mapping[str, object]


def registry_at(folder: Path) -> ModelRegistry:
    (folder / "models.yml").write_text(YML)
    return ModelRegistry.load(folder / "models.yml", environ={}, cwd=folder, home=folder)


async def recorded(
    folder: Path,
    inputs: Sequence[Said],
    *,
    capture: Literal["none", "content"] = "content",
    tenant: str | None = None,
    **labels: str,
) -> list[str]:
    """The ids of runs of a flow: each asks about `text`, says `consent` where it is given, fails where `fails`."""
    registry = registry_at(folder)

    @node
    async def ask(state: SharedState) -> None:
        if "consent" in state:
            await emit("consent", {"training": state["consent"]})
        model = LLMClientBuilder(lambda: registry, Call(str(state.get("model", "large"))))
        await model.system("Name the section.").prompt(str(state["text"])).execute()
        if state.get("fails"):
            raise ValueError("no")

    flow = AsyncFlow(ask, name="sorting")
    ids = []
    with RunStore(folder / "runs.db", capture=capture) as store, observe(store):
        for said in inputs:
            result = (await flow.run_batch([dict(said)], tenant=tenant))[0]
            ids.append(result.run_id)
            if str(said["text"]) in labels:
                feedback(result.run_id, label=labels[str(said["text"])])
    await registry.aclose()
    return ids


def prepared(
    folder: Path, selection: Selection | None = None, *, consent: Consent | None = None, terms: str | None = "ours"
) -> Prepared:
    with RunReader(folder / "runs.db") as reader:
        return prepare(reader, selection or Selection(), consent=consent or Consent(), teacher_terms=terms)


TEXTS = ["mail reader", "chess board", "audio mixer", "serif typeface", "http server"]
AGREED = [{"text": text, "consent": True} for text in TEXTS]


async def test_what_was_asked_and_answered_comes_out_with_what_it_cost(tmp_path: Path) -> None:
    await recorded(tmp_path, AGREED)
    found = prepared(tmp_path)
    first = found.train[0]
    assert [(turn.role, turn.content) for turn in first.messages] == [
        ("system", "Name the section."),
        ("user", "mail reader"),
    ]
    assert (first.answer, first.model, first.provider, first.flow, first.step) == (
        "mail", "large", "lab", "sorting", "ask",
    )  # fmt: skip
    assert (first.question, first.instructions) == ("mail reader", "Name the section.")
    assert first.cost == pytest.approx((first.input_tokens * 5.0 + first.output_tokens * 25.0) / 1e6)
    assert found.report.cost == pytest.approx(sum(each.cost or 0 for each in (*found.train, *found.held_out)))


async def test_the_newest_are_held_out(tmp_path: Path) -> None:
    await recorded(tmp_path, AGREED)
    found = prepared(tmp_path)
    assert [answer.question for answer in found.train] == TEXTS[:4]
    assert [answer.question for answer in found.held_out] == TEXTS[4:]
    assert found.report.boundary == found.held_out[0].at > found.train[-1].at


async def test_without_a_yes_nothing_is_taken_and_that_is_counted(tmp_path: Path) -> None:
    await recorded(tmp_path, [{"text": "mail reader"}, {"text": "chess board", "consent": False}])
    found = prepared(tmp_path)
    assert found.train == found.held_out == ()
    assert found.report.dropped == {"consent was not given": 1, "consent was refused": 1}
    assert (found.report.runs, found.report.calls) == (2, 2)


async def test_a_no_wins_where_consent_is_not_required_and_where_the_tenant_gave_it(tmp_path: Path) -> None:
    await recorded(tmp_path, [{"text": "mail reader"}, {"text": "chess board", "consent": False}], tenant="acme")
    for consent in (Consent(required=False), Consent(tenants=frozenset({"acme"}))):
        found = prepared(tmp_path, consent=consent)
        assert [answer.question for answer in (*found.train, *found.held_out)] == ["mail reader"]
        assert found.report.dropped == {"consent was refused": 1}


async def test_consent_can_be_taken_back_later(tmp_path: Path) -> None:
    ids = await recorded(tmp_path, AGREED[:2])
    with RunStore(tmp_path / "runs.db") as store, observe(store):
        may_train(ids[0], False)
    assert [answer.question for answer in prepared(tmp_path).train] == ["chess board"]


async def test_consent_that_says_something_else_is_none(tmp_path: Path) -> None:
    await recorded(tmp_path, [{"text": "mail reader", "consent": "later"}])
    assert prepared(tmp_path, consent=Consent(required=False)).report.dropped == {"consent was refused": 1}


async def test_without_recorded_contents_nothing_is_there_and_the_reason_says_so(tmp_path: Path) -> None:
    await recorded(tmp_path, AGREED, capture="none")
    found = prepared(tmp_path)
    assert found.report.dropped == {"contents were not recorded": 5}
    with pytest.raises(CompressionError, match="contents were not recorded: 5"):
        found.acknowledged()


async def test_runs_that_failed_teach_nothing(tmp_path: Path) -> None:
    await recorded(tmp_path, [*AGREED[:1], {**AGREED[1], "fails": True}])
    assert prepared(tmp_path).report.dropped == {"the run did not end well": 1}


async def test_only_selected_models_flows_and_steps_count(tmp_path: Path) -> None:
    await recorded(tmp_path, [*AGREED, {**AGREED[0], "model": "other", "text": "pixel editor"}])
    assert prepared(tmp_path, Selection(models=("oth*",))).report.models == {"other": 1}
    assert prepared(tmp_path, Selection(steps=("ask",))).report.calls == 6
    assert prepared(tmp_path, Selection(flows=("else",))).report.calls == 0
    assert prepared(tmp_path, Selection(until=1.0)).report.runs == 0


async def test_judgements_below_the_least_score_are_left_out(tmp_path: Path) -> None:
    ids = await recorded(tmp_path, AGREED[:3])
    with RunStore(tmp_path / "runs.db") as store, observe(store):
        feedback(ids[0], score=0.1)
        feedback(ids[1], score=0.9)
    found = prepared(tmp_path, Selection(min_score=0.5))
    assert found.report.dropped == {"it was judged too bad": 1}
    assert [answer.score for answer in (*found.train, *found.held_out)] == [0.9, None]


async def test_questions_that_come_again_are_taken_once(tmp_path: Path) -> None:
    again = [{"text": "Mail  READER", "consent": True}]
    await recorded(tmp_path, [*AGREED, *again])
    report = prepared(tmp_path).report
    assert report.dropped == {"it was asked before, word for word": 1}
    assert report.contradicting == 1
    assert report.train + report.held_out == 5


async def test_what_belongs_to_a_person_is_taken_out_and_counted(tmp_path: Path) -> None:
    await recorded(tmp_path, [{"text": "call +49 30 901820 or mail ada@example.org", "consent": True}])
    found = prepared(tmp_path)
    assert found.train[0].question == "call [redacted:phone] or mail [redacted:email]"
    assert found.report.scrubbed == {"phone": 1}  # the run store had taken the address out before


async def test_nothing_is_written_until_somebody_says_that_they_may(tmp_path: Path) -> None:
    await recorded(tmp_path, AGREED)
    with pytest.raises(ConfigurationError, match="teacher_terms"):
        prepared(tmp_path, terms="  ").write(tmp_path / "answers")
    assert not (tmp_path / "answers").exists()


async def test_what_was_written_reads_back(tmp_path: Path) -> None:
    await recorded(tmp_path, AGREED)
    found = prepared(tmp_path)
    folder = found.write(tmp_path / "new" / "answers")
    assert tuple(read_answers(folder / "train.jsonl")) == found.train
    assert tuple(read_answers(folder / "held_out.jsonl")) == found.held_out
    report = msgspec.json.decode((folder / "report.json").read_bytes(), type=Report)
    assert report == found.report
    assert report.notes[0].endswith("5 by large; 4 to learn from, 1 held out")
    assert report.notes[2] == "the teacher's terms: ours"
    with pytest.raises(CompressionError, match="exists already"):
        found.write(folder)
    assert [path.name for path in folder.parent.iterdir()] == ["answers"]


async def test_a_text_that_the_run_store_cut_is_left_out(tmp_path: Path) -> None:
    await recorded(tmp_path, [{"text": "x" * 200_000, "consent": True}])
    assert prepared(tmp_path).report.dropped == {"the text was too long for the run store": 1}


async def test_an_answer_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    await recorded(tmp_path, AGREED[:1])
    with sqlite3.connect(tmp_path / "runs.db") as connection:
        connection.execute("UPDATE events SET data = replace(data, '\"stop\"', '\"length\"')")
    connection.close()
    assert prepared(tmp_path).report.dropped == {"the answer was not finished": 1}


def test_a_line_that_is_no_answer_is_named(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('\n{"messages": []}\n')
    with pytest.raises(CompressionError, match="line 2 is no recorded answer"):
        read_answers(tmp_path / "train.jsonl")
    with pytest.raises(CompressionError, match="cannot be read"):
        read_answers(tmp_path / "none.jsonl")
