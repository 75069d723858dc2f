"""The run store: what is told is in the file, nobody waits for it, and what is not there is counted."""

from __future__ import annotations

import asyncio
import gc
import os
import sqlite3
import stat
import threading
import weakref
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.recorded import a_call, a_run, child, read, record

from agentflow.core import AsyncFlow, SharedState, node, observe
from agentflow.core.observability.events import ExecutionEvent
from agentflow.core.observability.redaction.redactor import Redactor
from agentflow.core.observability.store import RunReader, RunStore
from agentflow.core.observability.store import intake as intake_module
from agentflow.core.observability.store.intake import Intake
from agentflow.errors import ConfigurationError, RunStoreError

KEY = "sk-proj-abcdefghijklmnopqrstuvwxyz0123456789AB"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".agentflow" / "runs.db"


def event(kind: str = "progress", sequence: int = 1, run_id: str = "run1", **data: object) -> ExecutionEvent:
    return ExecutionEvent(kind, run_id, "f/a#1", "a", 1, sequence, 1_800_000_000.0, data=data, span=1)


# ---- what is told is kept ------------------------------------------------------------------------------------


def test_a_flow_that_is_observed_is_in_the_file_event_by_event(path: Path) -> None:
    told: list[ExecutionEvent] = []

    class Told:
        inline = True

        def observe(self, event: ExecutionEvent) -> None:
            told.append(event)

    @node
    async def write(state: SharedState) -> None:
        state["text"] = "tides"

    async def main() -> None:
        with RunStore(path) as store, observe(store), observe(Told()):
            await AsyncFlow(write >> write.named("again"), name="article").run({})

    asyncio.run(main())
    with RunReader(path) as reader:
        [run] = reader.runs()
        assert list(reader.events(run.id)) == told
    assert (run.name, run.status, run.events) == ("article", "done", 6)


def test_events_come_back_as_they_were_told_in_their_order(path: Path) -> None:
    events = a_run(nodes=3)
    record(path, events)
    assert read(path) == events


def test_several_threads_tell_at_once_and_all_of_it_is_there(path: Path) -> None:
    with RunStore(path) as store:

        def tell(run_id: str) -> None:
            for each in a_run(run_id, nodes=40):
                store.observe(each)

        threads = [threading.Thread(target=tell, args=(f"r{number}",)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for number in range(8):
        assert read(path, f"r{number}") == a_run(f"r{number}", nodes=40)


def test_the_file_is_its_owners_alone_and_git_does_not_see_it(path: Path) -> None:
    record(path, a_run())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert (path.parent / ".gitignore").read_text() == "*\n"


def test_no_gitignore_is_written_into_a_folder_of_the_users_own(tmp_path: Path) -> None:
    record(tmp_path / "runs.db", a_run())
    assert sorted(os.listdir(tmp_path)) == ["runs.db"]


def test_a_gitignore_that_is_there_stays_as_it_is(path: Path) -> None:
    path.parent.mkdir()
    (path.parent / ".gitignore").write_text("runs.db\n")
    record(path, a_run())
    assert (path.parent / ".gitignore").read_text() == "runs.db\n"


def test_nothing_is_made_before_something_is_told(path: Path) -> None:
    with RunStore(path) as store:
        assert store.flush()
    assert not path.parent.exists()


def test_open_makes_the_file_at_once(path: Path) -> None:
    with RunStore(path) as store:
        store.open()
        assert path.exists()


def test_the_path_is_the_one_of_the_working_directory_it_was_made_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with RunStore() as store:
        monkeypatch.chdir("/")
        store.observe(event())
    assert (tmp_path / ".agentflow" / "runs.db").exists()


def test_flush_brings_in_what_was_told_until_then(path: Path) -> None:
    with RunStore(path) as store:
        for each in a_run():
            store.observe(each)
        assert store.flush()
        assert read(path) == a_run()
        assert store.behind == 0


# ---- what is not kept ----------------------------------------------------------------------------------------


def test_prompts_and_answers_are_left_out_by_default(path: Path) -> None:
    said = {"messages": [{"role": "user", "content": "secret"}], "answer": "secret", "arguments": {"a": "secret"}}
    record(path, [event(**said, tool_calls=[{"arguments": "secret"}], model="fast")])
    [kept] = read(path)
    assert kept.data == {"model": "fast"}
    assert b"secret" not in path.read_bytes()
    assert not RunStore(path).content


def test_prompts_and_answers_are_kept_redacted_where_that_is_asked_for(path: Path) -> None:
    messages = [{"role": "user", "content": f"my key is {KEY}, and ada@example.org"}]
    store = record(path, [event(messages=messages, answer=f"use {KEY}")], capture="content")
    [kept] = read(path)
    assert kept.data == {
        "messages": [{"role": "user", "content": "my key is [redacted:key], and [redacted:email]"}],
        "answer": "use [redacted:key]",
    }
    assert store.content


def test_no_key_is_in_the_file_wherever_it_stood(path: Path) -> None:
    events = [
        event("flow_start", 1, tenant=KEY, note={"deep": [KEY, {KEY: 1}]}),
        event("flow_error", 2, error=f"401: {KEY}", error_type="X", api_key="hunter2hunter2"),
        ExecutionEvent(KEY, "run1", f"f/{KEY}#1", KEY, 1, 3, 0.0),
        event("feedback", 4, label=KEY, comment=f"see {KEY}", score=1.0),
        event("model_success", 5, model=KEY, provider=KEY, error=KEY),
    ]
    record(path, events)
    everything = path.read_bytes()
    assert KEY.encode() not in everything
    assert b"hunter2" not in everything


def test_a_redactor_of_ones_own_sees_every_text(path: Path) -> None:
    record(path, [event(error="tides and Ada")], redactor=lambda text: text.replace("Ada", "someone"))
    assert read(path)[0].data == {"error": "tides and someone"}
    other = path.with_name("other.db")
    record(other, [event(error="TCK-1")], redactor=Redactor(patterns={"ticket": r"TCK-\d+"}))
    assert read(other)[0].data == {"error": "[redacted:ticket]"}


def test_a_redactor_that_fails_keeps_the_text_out_and_is_counted(path: Path) -> None:
    def broken(text: str) -> str:
        if "secret" in text:
            raise RuntimeError("no")
        return text

    store = record(path, [event(error="a secret", model="fast")], redactor=broken)
    assert read(path)[0].data == {"error": "<not kept: RuntimeError in the redactor>", "model": "fast"}
    assert (store.losses, store.lost) == ({"redaction": 1}, 0)


def test_pieces_of_streams_are_not_kept(path: Path) -> None:
    store = record(path, [event("chunk", content="tid"), event("progress", 2)], capture="content")
    assert [each.kind for each in read(path)] == ["progress"]
    assert store.lost == 0


def test_alerts_belong_to_no_run_and_are_not_kept(path: Path) -> None:
    store = record(path, [event("alert", rule="latency", state="firing"), event("progress", 2)])
    assert [each.kind for each in read(path)] == ["progress"]
    assert store.lost == 0


def test_ten_megabytes_are_cut_and_say_how_long_they_were(path: Path) -> None:
    record(path, [event(blob="x" * 10_000_000, model="fast")], max_text=1_000)
    [kept] = read(path)
    assert kept.data == {"blob": f"{'x' * 1_000}… (10,000,000 characters)", "model": "fast"}
    assert path.stat().st_size < 200_000


def test_what_is_no_event_is_counted_and_the_others_are_kept(path: Path) -> None:
    too_large = ExecutionEvent("x", "run1", "p", "n", 2**70, 1, 0.0)
    of_no_kind = ExecutionEvent(None, "run1", "p", "n", 1, 1, 0.0)  # type: ignore[arg-type]
    at_no_time = ExecutionEvent("x", "run1", "p", "n", 1, 1, float("nan"))
    beyond_all_hours = ExecutionEvent("model_success", "run1", "p", "n", 1, 1, 1e300)
    with RunStore(path, max_age=None) as store:
        for odd in (too_large, of_no_kind, at_no_time, beyond_all_hours):
            store.observe(odd)
        store.observe(event())
        with pytest.raises(AttributeError):  # whoever tells hears of it: an Observation counts it
            store.observe("no event")  # type: ignore[arg-type]
    assert read(path) == [event()]
    assert store.losses == {"unwritable": 4}


def test_what_comes_after_the_end_is_counted(path: Path) -> None:
    store = record(path, [event()])
    store.observe(event(sequence=2))
    assert store.losses == {"closed": 1}
    assert store.close()


# ---- nobody waits --------------------------------------------------------------------------------------------


def test_a_full_queue_drops_and_counts_here_and_in_the_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentflow.core.observability.store.writer.Intake", lambda: Intake(room=10))
    with RunStore(path) as store:
        store.open()
        blocking = sqlite3.connect(path, isolation_level=None)
        blocking.execute("BEGIN IMMEDIATE")
        for number in range(1, 2_001):
            store.observe(event(sequence=number))
        assert store.lost >= 1_000
        blocking.execute("COMMIT")
        blocking.close()
    kept = [each.sequence for each in read(path)]
    assert kept[:5] == [1, 2, 3, 4, 5]
    assert len(kept) + store.lost == 2_000
    with RunReader(path) as reader:
        [loss] = reader.losses()
    assert (loss.reason, loss.events, loss.pid) == ("queue", store.lost, os.getpid())


def test_a_full_queue_still_has_room_for_how_runs_end_and_what_they_cost() -> None:
    intake = Intake(room=10)
    while intake.put(replace(event("node_success"), parent=1)):
        pass
    assert len(intake) == 10
    for kind, parent, held in (("model_success", 3, 12), ("flow_success", None, 14)):
        while intake.put(replace(event(kind), parent=parent)):
            pass  # that room ends, too
        assert len(intake) == held


def test_a_queue_of_large_prompts_is_full_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake_module, "_CHARACTERS", 1_000)
    intake = Intake()
    heavy = replace(event(messages=[{"role": "user", "content": "x" * 400}] * 2), parent=1)
    light = replace(event(), parent=1)
    assert intake.put(heavy)
    assert intake.put(heavy)
    assert not intake.put(light)
    assert len(intake.more(10)) == 2
    assert intake.put(light)


def test_a_locked_database_loses_nothing(path: Path) -> None:
    with RunStore(path) as store:
        store.open()
        blocking = sqlite3.connect(path, isolation_level=None)
        blocking.execute("BEGIN IMMEDIATE")
        for each in a_run():
            store.observe(each)
        assert not store.flush(timeout=0.01)
        assert store.behind
        blocking.execute("COMMIT")
        blocking.close()
    assert read(path) == a_run()
    assert store.lost == 0


# ---- ends ----------------------------------------------------------------------------------------------------

TELL = """
import sys
from agentflow.core.observability.store import RunStore
from tests.support.recorded import a_run
store = RunStore(sys.argv[1], max_age=None)
for event in a_run(nodes=int(sys.argv[2])):
    store.observe(event)
"""


@pytest.mark.parametrize("end", ["", "sys.exit(0)", "import threading; threading.Thread(target=print).start()"])
def test_a_program_that_ends_cleanly_loses_nothing(path: Path, end: str) -> None:
    child(TELL + end, path, 600)
    assert read(path) == a_run(nodes=600)
    assert not path.with_name("runs.db-wal").exists()


def test_a_program_that_fails_loses_nothing(path: Path) -> None:
    process = child(TELL + "raise SystemExit(3)", path, 50, wait=False)
    process.communicate(timeout=60)
    assert process.returncode == 3
    assert read(path) == a_run(nodes=50)


KILLED = """
import sys, time
from agentflow.core.observability.store import RunStore
from tests.support.recorded import a_run
store = RunStore(sys.argv[1], max_age=None)
for event in a_run(nodes=15_000, over=False):
    store.observe(event)
    if event.sequence % 10 == 0:
        print(event.sequence, time.monotonic(), flush=True)
        time.sleep(0.001)
"""


def test_a_killed_program_loses_the_last_moments_alone(path: Path, tell) -> None:
    """What is there is the beginning, without a gap; the promise is 0.1 s, and a slow machine is given two."""
    process = child(KILLED, path, wait=False)
    assert process.stdout is not None
    told: list[tuple[int, float]] = []
    while not told or told[-1][1] - told[0][1] < 1.0:
        sequence, when = process.stdout.readline().split()
        told.append((int(sequence), float(when)))
    process.kill()
    out, _ = process.communicate(timeout=60)
    told += [(int(line.split()[0]), float(line.split()[1])) for line in out.splitlines() if len(line.split()) == 2]

    kept = [each.sequence for each in read(path)]
    assert kept == list(range(1, len(kept) + 1))
    missing = [when for sequence, when in told if sequence > len(kept)]
    seconds = told[-1][1] - missing[0] if missing else 0.0
    tell([f"run store: kill -9 after {told[-1][0]} events lost the last {seconds * 1000:.0f} ms"])
    assert seconds < 2.0
    with RunReader(path) as reader:
        assert reader.find("run1").status == "lost"


FORKED = """
import os, sys
from agentflow.core.observability.store import RunStore
from tests.support.recorded import a_run
store = RunStore(sys.argv[1], max_age=None)
before, after = a_run("parent", nodes=20), a_run("late", nodes=20)
for event in before:
    store.observe(event)
child = os.fork()
if not child:
    for event in a_run("child", nodes=20):
        store.observe(event)
    sys.exit(0)
for event in after:
    store.observe(event)
_, status = os.waitpid(child, 0)
sys.exit(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_after_a_fork_both_processes_record_what_they_tell(path: Path) -> None:
    child(FORKED, path)
    for run_id in ("parent", "late", "child"):
        assert read(path, run_id) == a_run(run_id, nodes=20)
    with RunReader(path) as reader:
        assert len({run.pid for run in reader.runs()}) == 2


POOLED = """
import multiprocessing, sys
from agentflow.core.observability.store import RunStore
from tests.support.recorded import a_run

def work(name):
    for event in a_run(name, nodes=20):
        store.observe(event)

if __name__ == "__main__":
    store = RunStore(sys.argv[1], max_age=None)
    work("parent")
    children = [multiprocessing.get_context("fork").Process(target=work, args=(name,)) for name in ("one", "two")]
    for each in children:
        each.start()
    for each in children:
        each.join()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_children_of_multiprocessing_lose_nothing_at_their_end(path: Path) -> None:
    child(POOLED, path)
    for run_id in ("parent", "one", "two"):
        assert read(path, run_id) == a_run(run_id, nodes=20)


MANY = """
import sys
from agentflow.core.observability.store import RunStore
from tests.support.recorded import a_run
with RunStore(sys.argv[1], max_age=None) as store:
    for number in range(20):
        for event in a_run(f"{sys.argv[2]}-{number}", nodes=10):
            store.observe(event)
        store.flush()
assert store.lost == 0
"""


def test_several_processes_write_the_same_file(path: Path) -> None:
    processes = [child(MANY, path, name, wait=False) for name in "abc"]
    for process in processes:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    with RunReader(path) as reader:
        assert len(reader.runs(limit=None)) == 60
        assert all(list(reader.events(run.id)) == a_run(run.id, nodes=10) for run in reader.runs(limit=None))
        [row] = reader.costs()
    assert (row.calls, row.cost) == (600, 150.0)


def test_a_store_that_is_forgotten_ends_and_leaves_no_thread(path: Path) -> None:
    store = RunStore(path, max_age=None)
    for each in a_run():
        store.observe(each)
    writer = store._writer
    thread, gone = writer._thread, weakref.ref(store)
    del store
    gc.collect()
    assert gone() is None
    assert thread is not None
    thread.join(30)
    assert not thread.is_alive()
    assert read(path) == a_run()


def test_a_store_that_is_closed_leaves_no_thread_and_no_open_file(path: Path) -> None:
    store = record(path, a_run())
    assert not [thread for thread in threading.enumerate() if thread.name == "agentflow run store"]
    assert sorted(os.listdir(path.parent)) == [".gitignore", "runs.db"]
    assert "0 behind, 0 lost" in repr(store)


# ---- arguments -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"path": ":memory:"}, "a file on a disk"),
        ({"path": ""}, "a file on a disk"),
        ({"path": "file:x?mode=ro"}, "a file on a disk"),
        ({"path": "a\0b"}, "a file on a disk"),
        ({"capture": "all"}, "capture is 'none' or 'content'"),
        ({"max_bytes": 1000}, "max_bytes"),
        ({"max_age": 0}, "max_age"),
        ({"max_age": float("nan")}, "max_age"),
        ({"max_text": 1}, "max_text"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments: dict[str, object], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        RunStore(**arguments)  # type: ignore[arg-type]


def test_open_says_where_a_file_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with RunStore(tmp_path / "file" / "runs.db") as store, pytest.raises(RunStoreError, match="cannot be written"):
        store.open()


def test_a_call_outside_of_any_flow_is_a_run(path: Path) -> None:
    record(path, a_call())
    with RunReader(path) as reader:
        [run] = reader.runs()
    assert (run.kind, run.name, run.status, run.calls, run.cost, run.duration) == ("call", "fast", "done", 1, 0.25, 1.0)
