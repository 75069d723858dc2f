"""What every engine must do, whatever it keeps runs in: its test module hands an engine over and inherits the rest.

class TestSqlite(EngineContract):
    @pytest.fixture
    async def engine(self, tmp_path): …          a new engine with no runs in it, closed afterwards

Only the protocol is used. Bodies are written here, so that no flow comes into it; `Doing` is one that can be held up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing, suppress

import pytest

from agentflow.core.durability.protocol import Body, Durability, Journal
from agentflow.core.durability.records import Ending, Interrupt, Record, RunSpec
from agentflow.errors import (
    AnswerError,
    DurabilityError,
    RunEndedError,
    RunExistsError,
    RunHeldError,
    UnknownRunError,
)

__all__ = ["DONE", "Doing", "EngineContract", "parking", "saving", "spec", "step"]

DONE = Ending("done", "default")


def spec(run_id: str = "r1", flow: str = "article", **more: str) -> RunSpec:
    return RunSpec(run_id=run_id, flow=flow, **more)  # type: ignore[arg-type]


def step(id: str, body: str = '{"action":null}', at: float = 1_000.0) -> Record:
    return Record(id, "step", body, at)


def saving(*records: Record, ending: Ending = DONE) -> Body:
    """A body that saves what is not there yet, and ends so."""

    async def body(journal: Journal) -> Ending:
        for record in records:
            if journal.find(record.id) is None:
                await journal.save(record)
        return ending

    return body


def parking(*questions: Interrupt, then: Body | None = None) -> Body:
    """A body that asks, parks until all is answered, and then does what `then` does."""

    async def body(journal: Journal) -> Ending:
        for each in questions:
            if journal.find(each.id) is None:
                await journal.save(Record(each.id, "timer" if each.kind == "timer" else "wait", "{}", 1_000.0))
        pending = tuple(each for each in questions if journal.find(f"{each.id}!answer") is None)
        if pending:
            return Ending("waiting", interrupts=pending)
        return DONE if then is None else await then(journal)

    return body


class Doing:
    """A body that saves its records and then waits: `begun` is set when it does, and `go` lets it end."""

    def __init__(self, *records: Record, ending: Ending = DONE) -> None:
        self._records = records
        self._ending = ending
        self.begun = asyncio.Event()
        self.go = asyncio.Event()
        self.cancelled = False

    async def __call__(self, journal: Journal) -> Ending:
        for record in self._records:
            await journal.save(record)
        self.begun.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return self._ending


async def begun(engine: Durability, doing: Doing, what: RunSpec | None = None) -> asyncio.Task[Ending]:
    """A task that runs it, once it has saved what it saves."""
    task = asyncio.create_task(engine.execute(what or spec(), doing))
    await doing.begun.wait()
    return task


async def found(engine: Durability, run_id: str = "r1") -> dict[str, Record]:
    """What the body finds when the run goes on."""
    seen: dict[str, Record] = {}

    async def body(journal: Journal) -> Ending:
        seen.update({record.id: record for record in journal.records()})
        assert all(journal.find(id) == record for id, record in seen.items())
        return DONE

    await engine.execute(spec(run_id), body)
    return seen


def ids(records: Sequence[Record]) -> list[str]:
    return [record.id for record in records]


class EngineContract:
    """Inherited by the tests of an engine, which have a fixture `engine`."""

    async def test_a_run_returns_how_its_body_ended(self, engine: Durability) -> None:
        assert await engine.execute(spec(), saving(step("a/x#1"))) == DONE

    async def test_what_was_saved_is_found_by_the_next_stretch(self, engine: Durability) -> None:
        """Every field of a record comes back as it was."""
        record = Record("a/x#1!call:3f:1", "call", '{"text":"tides ≈ 日"}', 1_234.5, 0.25, 3, 0.0125, 321)
        unpriced = Record("a/x#1!call:3f:2", "call", "{}", 1_235.0, cost=None)
        await engine.execute(spec(), saving(record, unpriced, ending=Ending("failed", error="no")))
        assert await found(engine) == {record.id: record, unpriced.id: unpriced}

    async def test_a_record_takes_the_place_of_an_earlier_one(self, engine: Durability) -> None:
        """And its place in the order: the result of exec becomes the step."""

        async def body(journal: Journal) -> Ending:
            await journal.save(Record("a/x#1", "exec", '"draft"', 1.0))
            await journal.save(step("a/y#1"))
            await journal.save(step("a/x#1"))
            assert ids(journal.records()) == ["a/x#1", "a/y#1"]
            assert journal.find("a/x#1") == step("a/x#1")
            return DONE

        await engine.execute(spec(), body)
        assert await engine.records("r1") == [step("a/x#1"), step("a/y#1")]

    async def test_all_that_is_saved_at_once_is_kept(self, engine: Durability) -> None:
        records = [step(f"a/each#1/{number}") for number in range(100)]

        async def body(journal: Journal) -> Ending:
            await asyncio.gather(*map(journal.save, records))
            return DONE

        await engine.execute(spec(), body)
        assert await engine.records("r1") == records

    async def test_a_record_is_kept_also_where_its_waiter_is_cancelled(self, engine: Durability) -> None:
        """What it tells of has happened."""

        async def body(journal: Journal) -> Ending:
            task = asyncio.create_task(journal.save(step("a/x#1")))
            await asyncio.sleep(0)
            task.cancel()
            await journal.save(step("a/y#1"))
            return DONE

        await engine.execute(spec(), body)
        assert ids(await engine.records("r1")) == ["a/x#1", "a/y#1"]

    async def test_a_large_body_is_kept_as_it_is(self, engine: Durability) -> None:
        bodies = ['"' + "x" * 300_000 + '"', '"' + "日本" * 60_000 + '"']
        await engine.execute(spec(), saving(*(step(f"a/{number}", body) for number, body in enumerate(bodies))))
        assert [record.body for record in await engine.records("r1")] == bodies
        assert [record.body for record in (await found(engine)).values()] == bodies

    # ---- ending ----------------------------------------------------------------------------------------------

    async def test_a_run_that_is_done_is_walked_without_being_changed(self, engine: Durability) -> None:
        await engine.execute(spec(), saving(step("a/x#1")))
        refused: list[str] = []

        async def body(journal: Journal) -> Ending:
            assert journal.ended
            assert journal.find("a/x#1") is not None
            with pytest.raises(RunEndedError) as caught:
                await journal.save(step("a/y#1"))
            refused.append(caught.value.status)
            return Ending("done", "again")

        assert await engine.execute(spec(), body) == Ending("done", "again")
        assert refused == ["done"]
        assert (await engine.find("r1")).action == "default"
        assert ids(await engine.records("r1")) == ["a/x#1"]

    async def test_how_a_run_stands_can_be_asked(self, engine: Durability) -> None:
        doing = Doing(step("a/x#1", at=2e9), Record("a/x#1!call:1", "call", "{}", 1.0, cost=0.5))
        wanted = spec(tenant="acme", limits="{}", source="flow.py:flow", graph='{"nodes":[]}', inputs='{"topic":"t"}')
        task = await begun(engine, doing, wanted)
        info = await engine.find("r1")
        assert (info.spec, info.status, info.steps, info.cost) == (wanted, "running", 1, 0.5)
        assert info.owner
        assert info.updated >= info.created > 0
        doing.go.set()
        await task
        info = await engine.find("r1")
        assert (info.spec, info.status, info.action, info.owner) == (wanted, "done", "default", None)
        assert (info.steps, info.cost) == (1, 0.5)

    async def test_nobody_knows_the_cost_of_a_run_with_a_call_without_a_price(self, engine: Durability) -> None:
        calls = [Record(f"a/x#1!call:{each}", "call", "{}", 1.0, cost=each) for each in (0.5, None)]
        await engine.execute(spec(), saving(*calls))
        assert (await engine.find("r1")).cost is None

    async def test_a_body_that_raises_has_failed_and_may_go_on(self, engine: Durability) -> None:
        async def body(journal: Journal) -> Ending:
            await journal.save(step("a/x#1"))
            raise ValueError("no tides today")

        with pytest.raises(ValueError, match="no tides today"):
            await engine.execute(spec(), body)
        info = await engine.find("r1")
        assert info.status == "failed"
        assert info.error is not None
        assert "no tides today" in info.error
        assert await engine.execute(spec(), saving(step("a/y#1"))) == DONE
        info = await engine.find("r1")
        assert (info.status, info.error) == ("done", None)
        assert ids(await engine.records("r1")) == ["a/x#1", "a/y#1"]

    async def test_a_cancelled_caller_leaves_a_run_that_may_go_on(self, engine: Durability) -> None:
        doing = Doing(step("a/x#1"))
        task = await begun(engine, doing)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert doing.cancelled
        assert (await engine.find("r1")).status == "cancelled"
        assert await engine.execute(spec(), saving(step("a/y#1"))) == DONE
        assert ids(await engine.records("r1")) == ["a/x#1", "a/y#1"]

    async def test_nothing_is_added_when_a_stretch_is_over(self, engine: Durability) -> None:
        """A task that was left behind cannot write into what another process may be running by now."""
        kept: list[Journal] = []

        async def body(journal: Journal) -> Ending:
            kept.append(journal)
            return Ending("waiting")

        await engine.execute(spec(), body)
        with pytest.raises(DurabilityError):
            await kept[0].save(step("a/late#1"))
        assert await engine.records("r1") == []

    # ---- identity --------------------------------------------------------------------------------------------

    async def test_a_run_is_run_once_at_a_time(self, engine: Durability) -> None:
        doing = Doing()
        task = await begun(engine, doing)
        with pytest.raises(RunHeldError) as caught:
            await engine.execute(spec(), saving())
        assert caught.value.run_id == "r1"
        assert caught.value.owner
        doing.go.set()
        assert await task == DONE

    @pytest.mark.parametrize("other", [spec(flow="novel"), spec(inputs='{"topic":"moons"}')])
    async def test_an_id_stays_with_the_flow_and_the_inputs_it_began_with(
        self, engine: Durability, other: RunSpec
    ) -> None:
        await engine.execute(spec(), saving(ending=Ending("waiting")))
        with pytest.raises(RunExistsError):
            await engine.execute(other, saving())

    async def test_the_graph_of_a_run_is_the_one_it_began_with(self, engine: Durability) -> None:
        """Whether another one will do is for the flow to say."""
        await engine.execute(spec(graph='{"v":1}'), saving(ending=Ending("waiting")))
        await engine.execute(spec(graph='{"v":2}'), saving())
        assert (await engine.find("r1")).spec.graph == '{"v":1}'

    async def test_the_beginning_of_an_id_will_do(self, engine: Durability) -> None:
        for run_id in ("abc1", "abd2"):
            await engine.execute(spec(run_id), saving())
        assert (await engine.find("abd")).run_id == "abd2"
        with pytest.raises(UnknownRunError) as caught:
            await engine.find("ab")
        assert set(caught.value.matches) == {"abc1", "abd2"}

    @pytest.mark.parametrize("name", ["", "nobody"])
    async def test_a_run_that_is_not_there_is_unknown(self, engine: Durability, name: str) -> None:
        asked: list[Callable[[], Awaitable[object]]] = [
            lambda: engine.find(name),
            lambda: engine.records(name),
            lambda: engine.cancel(name),
            lambda: engine.delete(name),
            lambda: engine.answer(name, {"a!wait:1": "1"}),
            lambda: engine.fork(spec("r2", forked_from=name), None),
            lambda: engine.rewrite(spec(name), []),
        ]
        assert await engine.runs() == [] or await engine.runs() == ()
        await engine.execute(spec(), saving())
        for ask in asked:
            with pytest.raises(UnknownRunError):
                await ask()

    # ---- waiting ---------------------------------------------------------------------------------------------

    async def test_a_parked_run_says_what_it_waits_for(self, engine: Durability) -> None:
        question = Interrupt("a/j#1!wait:1", "a/j#1", "Publish?", {"draft": "…"}, {"type": "boolean"}, 5.0, 99.0)
        timer = Interrupt("a/s#1!timer:1", "a/s#1", "sleeps", asked=5.0, due=50.0, kind="timer")
        ending = await engine.execute(spec(), parking(question, timer))
        assert ending == Ending("waiting", interrupts=(question, timer))
        info = await engine.find("r1")
        assert (info.status, info.interrupts, info.due) == ("waiting", (question, timer), 50.0)

    async def test_an_answer_is_found_when_the_run_goes_on(self, engine: Durability) -> None:
        question = Interrupt("a/j#1!wait:1", "a/j#1", "Publish?")
        await engine.execute(spec(), parking(question))
        await engine.answer("r1", {question.id: "true"})
        assert (await engine.find("r1")).interrupts == ()
        assert (await engine.find("r1")).status == "waiting"
        assert await engine.execute(spec(), parking(question)) == DONE
        answer = (await engine.records("r1"))[-1]
        assert (answer.id, answer.kind, answer.body) == ("a/j#1!wait:1!answer", "answer", "true")

    async def test_the_first_answer_counts(self, engine: Durability) -> None:
        first, second = (Interrupt(f"a/{name}#1!wait:1", f"a/{name}#1", "Well?") for name in "jk")
        await engine.execute(spec(), parking(first, second))
        await engine.answer("r1", {first.id: "1"})
        for answers in ({first.id: "2"}, {second.id: "2", first.id: "2"}, {second.id: "2", "a/none#1!wait:1": "2"}):
            with pytest.raises(AnswerError):
                await engine.answer("r1", answers)
        assert [each.id for each in (await engine.find("r1")).interrupts] == [second.id]
        assert {record.body for record in await engine.records("r1") if record.kind == "answer"} == {"1"}

    async def test_nobody_answers_a_run_that_is_over(self, engine: Durability) -> None:
        question = Interrupt("a/j#1!wait:1", "a/j#1", "Well?")
        await engine.execute(spec(), parking(question))
        await engine.cancel("r1")
        with pytest.raises(AnswerError):
            await engine.answer("r1", {question.id: "1"})

    async def test_an_answer_that_comes_while_the_run_goes_on_is_not_missed(self, engine: Durability) -> None:
        """A branch asks and another one still works: who answers now is not asked to answer again."""
        question = Interrupt("a/j#1!wait:1", "a/j#1", "Well?")
        stretches: list[bool] = []

        async def body(journal: Journal) -> Ending:
            answered = journal.find(f"{question.id}!answer") is not None
            stretches.append(answered)
            if answered:
                return DONE
            await journal.save(Record(question.id, "wait", "{}", 1.0))
            await engine.answer("r1", {question.id: "1"})
            return Ending("waiting", interrupts=(question,))

        assert await engine.execute(spec(), body) == DONE
        assert stretches == [False, True]

    # ---- cancelling ------------------------------------------------------------------------------------------

    async def test_a_cancelled_run_is_over_for_good(self, engine: Durability) -> None:
        doing = Doing(step("a/x#1"))
        task = await begun(engine, doing)
        assert await engine.cancel("r1")
        with pytest.raises(RunEndedError) as caught:
            await task
        assert caught.value.status == "cancelled"
        assert doing.cancelled
        assert (await engine.find("r1")).status == "cancelled"
        with pytest.raises(RunEndedError):
            await engine.execute(spec(), saving())
        assert not await engine.cancel("r1")
        assert ids(await engine.records("r1")) == ["a/x#1"]

    async def test_a_parked_run_is_cancelled_at_once(self, engine: Durability) -> None:
        await engine.execute(spec(), saving(ending=Ending("waiting")))
        assert await engine.cancel("r1")
        assert (await engine.find("r1")).status == "cancelled"
        with pytest.raises(RunEndedError):
            await engine.execute(spec(), saving())

    async def test_what_is_done_cannot_be_cancelled(self, engine: Durability) -> None:
        await engine.execute(spec(), saving())
        assert not await engine.cancel("r1")
        assert (await engine.find("r1")).status == "done"

    async def test_cancelling_a_run_leaves_its_caller_alone(self, engine: Durability) -> None:
        """The task that called `execute` goes on: it was not cancelled."""
        doing = Doing()

        async def caller() -> str:
            with suppress(RunEndedError):
                await engine.execute(spec(), doing)
            await asyncio.sleep(0)
            return "went on"

        task = asyncio.create_task(caller())
        await doing.begun.wait()
        await engine.cancel("r1")
        assert await task == "went on"

    # ---- other histories -------------------------------------------------------------------------------------

    async def test_a_fork_shares_the_history_up_to_a_record(self, engine: Durability) -> None:
        await engine.execute(spec(), saving(step("a/x#1"), step("a/y#1"), step("a/z#1")))
        update = Record("a/y#1!update", "update", '{"draft":"better"}', 7.0)
        await engine.fork(spec("r2", forked_from="r1", forked_at="a/y#1"), update)
        assert await engine.records("r2") == [step("a/x#1"), update]
        info = await engine.find("r2")
        assert (info.spec.forked_from, info.spec.forked_at, info.steps) == ("r1", "a/y#1", 1)
        assert info.status == "waiting"
        forked = spec("r2", forked_from="r1", forked_at="a/y#1")
        assert await engine.execute(forked, saving(step("a/y#1", '"new"'))) == DONE
        assert ids(await engine.records("r2")) == ["a/x#1", "a/y#1!update", "a/y#1"]
        assert ids(await engine.records("r1")) == ["a/x#1", "a/y#1", "a/z#1"]

    async def test_a_fork_needs_a_place_and_an_id_of_its_own(self, engine: Durability) -> None:
        await engine.execute(spec(), saving(step("a/x#1")))
        with pytest.raises(DurabilityError, match="a/none#1"):
            await engine.fork(spec("r2", forked_from="r1", forked_at="a/none#1"), None)
        with pytest.raises(UnknownRunError):
            await engine.find("r2")
        with pytest.raises(RunExistsError):
            await engine.fork(spec("r1", forked_from="r1"), None)

    async def test_a_fork_of_all_that_there_is(self, engine: Durability) -> None:
        await engine.execute(spec(), saving(step("a/x#1"), step("a/y#1", '"' + "y" * 100_000 + '"')))
        await engine.fork(spec("r2", forked_from="r1"), None)
        await engine.delete("r1")
        assert [len(record.body) for record in await engine.records("r2")] == [15, 100_002]

    async def test_the_records_of_a_run_can_be_replaced(self, engine: Durability) -> None:
        await engine.execute(spec(graph='{"v":1}'), saving(step("a/x#1"), step("a/y#1"), ending=Ending("waiting")))
        await engine.rewrite(spec(graph='{"v":2}'), [step("b/y#1"), step("b/x#1")])
        assert await engine.records("r1") == [step("b/y#1"), step("b/x#1")]
        assert (await engine.find("r1")).spec.graph == '{"v":2}'
        assert await found(engine) == {"b/y#1": step("b/y#1"), "b/x#1": step("b/x#1")}

    async def test_a_run_under_way_is_not_replaced_and_not_deleted(self, engine: Durability) -> None:
        doing = Doing(step("a/x#1"))
        task = await begun(engine, doing)
        with pytest.raises(RunHeldError):
            await engine.rewrite(spec(), [])
        with pytest.raises(RunHeldError):
            await engine.delete("r1")
        doing.go.set()
        await task
        assert ids(await engine.records("r1")) == ["a/x#1"]

    async def test_a_deleted_run_is_unknown_and_may_begin_anew(self, engine: Durability) -> None:
        await engine.execute(spec(), saving(step("a/x#1")))
        await engine.delete("r1")
        with pytest.raises(UnknownRunError):
            await engine.find("r1")
        assert await found(engine) == {}

    # ---- lists -----------------------------------------------------------------------------------------------

    async def test_runs_are_listed_the_newest_first(self, engine: Durability) -> None:
        await engine.execute(spec("r1"), saving())
        await engine.execute(spec("r2", "novel"), saving(ending=Ending("waiting")))
        await engine.execute(spec("r3"), saving(ending=Ending("failed", error="no")))
        assert [info.run_id for info in await engine.runs()] == ["r3", "r2", "r1"]
        assert [info.run_id for info in await engine.runs(limit=2)] == ["r3", "r2"]
        assert [info.run_id for info in await engine.runs(flow="article")] == ["r3", "r1"]
        assert [info.run_id for info in await engine.runs(status="waiting")] == ["r2"]
        assert [info.run_id for info in await engine.runs(flow="article", status="done")] == ["r1"]
        doing = Doing()
        task = await begun(engine, doing, spec("r4"))
        assert [info.run_id for info in await engine.runs(status="running")] == ["r4"]
        assert [info.run_id for info in await engine.runs(status="lost")] == []
        doing.go.set()
        await task

    async def test_runs_that_are_due_come_the_earliest_first(self, engine: Durability) -> None:
        for run_id, due in (("late", 30.0), ("soon", 10.0), ("later", 2e9), ("never", None)):
            question = Interrupt("a/j#1!wait:1", "a/j#1", "Well?", due=due)
            await engine.execute(spec(run_id), parking(question))
        assert [info.run_id for info in await engine.runs(due=30.0)] == ["soon", "late"]
        await engine.execute(spec("soon"), saving())
        assert [info.run_id for info in await engine.runs(due=30.0)] == ["late"]

    async def test_a_run_that_was_answered_is_due(self, engine: Durability) -> None:
        question = Interrupt("a/j#1!wait:1", "a/j#1", "Well?")
        await engine.execute(spec(), parking(question))
        assert not await engine.runs(due=4e9)
        await engine.answer("r1", {question.id: "1"})
        assert [info.run_id for info in await engine.runs(due=4e9)] == ["r1"]

    # ---- following -------------------------------------------------------------------------------------------

    async def test_a_follower_sees_what_there_is_and_what_comes(self, engine: Durability) -> None:
        first, second = asyncio.Event(), asyncio.Event()

        async def body(journal: Journal) -> Ending:
            await journal.save(step("a/x#1"))
            first.set()
            await second.wait()
            await journal.save(Record("a/y#1", "exec", "1", 1.0))
            await journal.save(step("a/z#1"))
            return DONE

        task = asyncio.create_task(engine.execute(spec(), body))
        await first.wait()
        seen: list[str] = []
        async with aclosing(engine.follow("r1")) as records:  # type: ignore[type-var]
            async for record in records:
                seen.append(record.id)
                second.set()
        assert seen == ["a/x#1", "a/y#1", "a/z#1"]
        assert await task == DONE

    async def test_following_ends_where_the_run_is_parked(self, engine: Durability) -> None:
        await engine.execute(spec(), saving(step("a/x#1"), ending=Ending("waiting")))
        assert [record.id async for record in engine.follow("r1")] == ["a/x#1"]
        with pytest.raises(UnknownRunError):
            assert [record async for record in engine.follow("nobody")]

    async def test_a_follower_is_told_when_the_run_is_cancelled(self, engine: Durability) -> None:
        doing = Doing(step("a/x#1"))
        task = await begun(engine, doing)
        seen: list[str] = []

        async def follow() -> None:
            async for record in engine.follow("r1"):
                seen.append(record.id)
                await engine.cancel("r1")

        await follow()
        assert seen == ["a/x#1"]
        with pytest.raises(RunEndedError):
            await task

    # ---- closing ---------------------------------------------------------------------------------------------

    async def test_closing_twice_does_no_harm(self, engine: Durability) -> None:
        await engine.execute(spec(), saving(step("a/x#1"), ending=Ending("waiting")))
        await engine.close()
        await engine.close()

    async def test_closing_does_not_end_what_is_under_way(self, engine: Durability) -> None:
        first, go = asyncio.Event(), asyncio.Event()

        async def body(journal: Journal) -> Ending:
            first.set()
            await go.wait()
            await journal.save(step("a/x#1"))
            return DONE

        task = asyncio.create_task(engine.execute(spec(), body))
        await first.wait()
        await engine.close()
        go.set()
        assert await task == DONE
