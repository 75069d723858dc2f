"""Whatever is done with runs, in whatever order, the file says what a model of it says that fits on one page."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.core.durability.engine_contract import spec

from agentflow.core.durability.protocol import Journal
from agentflow.core.durability.records import Ending, Interrupt, Record
from agentflow.core.durability.sqlite import SqliteDurability
from agentflow.errors import AnswerError, RunEndedError, RunExistsError, UnknownRunError

T = TypeVar("T")
RUNS = ["r1", "r2", "s1"]
IDS = [f"a/{name}#1" for name in "uvwxyz"]
runs = st.sampled_from(RUNS)
records = st.builds(
    Record,
    st.sampled_from(IDS),
    st.sampled_from(["exec", "step", "call"]),
    st.sampled_from(["{}", "日" * 20, "x" * 39, "x" * 40, "y" * 500]),
    st.floats(0, 2e9),
    st.floats(0, 10),
    st.integers(1, 5),
    st.none() | st.floats(0, 1),
    st.integers(0, 2**40),
)
WAIT = Interrupt("a/q#1!wait:1", "a/q#1", "Well?", {"draft": 1})


@dataclass
class Model:
    status: str
    records: dict[str, Record] = field(default_factory=dict)
    final: bool = False
    asks: bool = False

    @property
    def answered(self) -> bool:
        return f"{WAIT.id}!answer" in self.records


class Durable(RuleBasedStateMachine):
    """Two engines work on one file in turns, and are closed and opened in between."""

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.runner = asyncio.Runner()
        self.path = Path(self.folder.name) / "runs.db"
        self.engines = [self.engine(), self.engine()]
        self.models: dict[str, Model] = {}

    def engine(self) -> SqliteDurability:
        return SqliteDurability(self.path, blob_bytes=40)

    def do(self, work: Awaitable[T]) -> T:
        async def main() -> T:
            return await work

        return self.runner.run(main())

    def refused(self, work: Awaitable[object], *errors: type[Exception]) -> None:
        try:
            self.do(work)
        except errors:
            return
        raise AssertionError(f"expected one of {errors}")

    @rule(
        which=st.integers(0, 1),
        run=runs,
        batch=st.lists(records, max_size=8),
        end=st.sampled_from(["done", "failed", "waiting", "asks", "raises", "cancelled"]),
    )
    def execute(self, which: int, run: str, batch: list[Record], end: str) -> None:
        model, seen = self.models.get(run), []

        async def body(journal: Journal) -> Ending:
            seen.extend(journal.records())
            if journal.ended:
                return Ending("done")
            for record in batch:
                await journal.save(record)
            if end == "raises":
                raise ValueError("no")
            if end == "cancelled":
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
                await asyncio.sleep(0)
            if end == "asks":
                if journal.find(WAIT.id) is None:
                    await journal.save(Record(WAIT.id, "wait", "{}", 1.0))
                return (
                    Ending("waiting", interrupts=(WAIT,)) if not journal.find(f"{WAIT.id}!answer") else Ending("done")
                )
            return Ending(end)  # type: ignore[arg-type]

        work = self.engines[which].execute(spec(run), body)
        if model is not None and model.final and model.status == "cancelled":
            self.refused(work, RunEndedError)
            return
        try:
            self.do(work)
        except (ValueError, asyncio.CancelledError):
            assert end in ("raises", "cancelled")
        before = list(model.records.values()) if model else []
        assert seen[: len(before)] == before
        if model is None:
            model = self.models[run] = Model("running")
        if model.status == "done":
            return
        for record in batch:
            model.records[record.id] = record
        if end == "asks":
            model.records.setdefault(WAIT.id, Record(WAIT.id, "wait", "{}", 1.0))
        model.status = {"raises": "failed", "asks": "done" if model.answered else "waiting"}.get(end, end)
        model.asks = end == "asks" and model.status == "waiting"
        model.final = model.status == "done"

    @rule(which=st.integers(0, 1), source=runs, into=runs, at=st.none() | st.sampled_from(IDS))
    def fork(self, which: int, source: str, into: str, at: str | None) -> None:
        forked = spec(into, **{"forked_from": source, **({} if at is None else {"forked_at": at})})
        update = Record("a/u#1!update", "update", "z" * 50, 3.0)
        work = self.engines[which].fork(forked, update)
        model = self.models.get(source)
        if model is None:
            return self.refused(work, UnknownRunError)
        if at is not None and at not in model.records:
            return self.refused(work, Exception)
        if into in self.models:
            return self.refused(work, RunExistsError)
        self.do(work)
        kept = list(model.records.values())
        kept = kept if at is None else kept[: list(model.records).index(at)]
        self.models[into] = Model("waiting", {each.id: each for each in [*kept, update]})
        return None

    @rule(which=st.integers(0, 1), run=runs, new=st.lists(records, max_size=5, unique_by=lambda each: each.id))
    def rewrite(self, which: int, run: str, new: list[Record]) -> None:
        work = self.engines[which].rewrite(spec(run), new)
        if run not in self.models:
            return self.refused(work, UnknownRunError)
        self.do(work)
        self.models[run].records = {each.id: each for each in new}
        return None

    @rule(which=st.integers(0, 1), run=runs)
    def cancel(self, which: int, run: str) -> None:
        work, model = self.engines[which].cancel(run), self.models.get(run)
        if model is None:
            return self.refused(work, UnknownRunError)
        ends = not model.final and model.status != "failed"
        assert self.do(work) == ends
        if ends:
            model.status, model.final = "cancelled", True
        return None

    @rule(which=st.integers(0, 1), run=runs)
    def answer(self, which: int, run: str) -> None:
        work, model = self.engines[which].answer(run, {WAIT.id: "a" * 41}), self.models.get(run)
        if model is None:
            return self.refused(work, UnknownRunError)
        if model.final or WAIT.id not in model.records or model.answered:
            return self.refused(work, AnswerError)
        self.do(work)
        [kept] = [each for each in self.do(self.engines[which].records(run)) if each.id == f"{WAIT.id}!answer"]
        assert kept.body == "a" * 41
        model.records[kept.id] = kept
        return None

    @rule(which=st.integers(0, 1), run=runs)
    def delete(self, which: int, run: str) -> None:
        work = self.engines[which].delete(run)
        if run not in self.models:
            return self.refused(work, UnknownRunError)
        self.do(work)
        del self.models[run]
        return None

    @rule(which=st.integers(0, 1), anew=st.booleans())
    def close(self, which: int, anew: bool) -> None:
        self.do(self.engines[which].close())
        if anew:
            self.engines[which] = self.engine()

    @invariant()
    @precondition(lambda self: hasattr(self, "models"))
    def the_file_says_what_the_model_says(self) -> None:
        for engine in self.engines:
            listed = {info.run_id: info for info in self.do(engine.runs())}
            assert {id: info.status for id, info in listed.items()} == {
                id: model.status for id, model in self.models.items()
            }
            for id, model in self.models.items():
                assert self.do(engine.records(id)) == list(model.records.values())
                pending = (WAIT,) if model.status == "waiting" and model.asks and not model.answered else ()
                assert listed[id].interrupts == pending
                assert listed[id].steps == sum(each.kind == "step" for each in model.records.values())

    @invariant()
    @precondition(lambda self: hasattr(self, "models"))
    def every_file_of_a_value_belongs_to_a_run(self) -> None:
        bodies = {each.body for model in self.models.values() for each in model.records.values() if len(each.body) > 39}
        values = [each for each in self.path.with_name("runs.db-values").rglob("*") if each.is_file()]
        assert len(values) >= len({body for body in bodies if len(body.encode()) >= 40})

    def teardown(self) -> None:
        if hasattr(self, "models"):
            for engine in self.engines:
                self.do(engine.close())
            self.runner.close()
            self.folder.cleanup()


TestDurable = Durable.TestCase
TestDurable.settings = settings(
    max_examples=30,
    stateful_step_count=20,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # a step takes milliseconds: shrinking would take minutes
)
