"""The manager: when it looks, whom it tells, how often, and that nothing stops it."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import pytest
from tests.support.alerting import Gauges

from agentflow.clock import VirtualClock
from agentflow.core.observability.alerts.action import Callback, Log
from agentflow.core.observability.alerts.alert import Alert
from agentflow.core.observability.alerts.manager import AlertManager
from agentflow.core.observability.alerts.quantities import Metric
from agentflow.core.observability.alerts.rule import AlertRule, NoData
from agentflow.core.observability.alerts.threshold import Absent, Threshold
from agentflow.core.observability.events import ExecutionEvent
from agentflow.core.observability.metrics.collector import MetricsCollector
from agentflow.core.observability.metrics.snapshot import MetricsSnapshot
from agentflow.core.observability.observers import observe
from agentflow.errors import ConfigurationError

HOT = AlertRule("hot", Metric("load"), Threshold(">", 10.0), by=("model",))
DAY = 86_400.0


class Told:
    """An action that writes down what it is told."""

    def __init__(self) -> None:
        self.alerts: list[Alert] = []

    def __call__(self, alert: Alert) -> None:
        self.alerts.append(alert)

    @property
    def states(self) -> list[str]:
        return [alert.state.value for alert in self.alerts]


class Bench:
    """A manager over metrics that are set by hand."""

    def __init__(self, *rules: AlertRule, **options: Any) -> None:
        self.clock = VirtualClock()
        self.gauges = Gauges()
        self.told = Told()
        options = {"actions": {"told": self.told}, "name": "t", **options}
        self.manager = AlertManager(self.gauges, rules or (HOT,), clock=self.clock, **options)

    def load(self, value: float | None, model: str = "a") -> None:
        self.gauges.set("load", value, model=model)

    async def step(self, seconds: float = 10.0) -> None:
        """Time passes, the manager looks, and everybody is told."""
        self.clock.advance(seconds)
        await self.manager.check()
        assert await self.manager.drained()

    def run(self, main: Callable[[], Awaitable[None]]) -> None:
        async def whole() -> None:
            try:
                await main()
            finally:
                await self.manager.aclose()

        self.clock.run(whole())


def with_(rule: AlertRule, **fields: Any) -> AlertRule:
    return AlertRule(
        **{
            **{
                name: getattr(rule, name)
                for name in ("name", "quantity", "condition", "for_", "by", "severity", "labels", "no_data", "repeat")
            },
            **fields,
        }
    )


# ---- telling


def test_whoever_is_told_hears_of_a_beginning_and_of_its_end_once() -> None:
    bench = Bench()

    async def main() -> None:
        for value in (5, 11, 12, 13, 5, 5):
            bench.load(value)
            await bench.step()

    bench.run(main)
    assert bench.told.states == ["firing", "resolved"]


def test_an_alert_says_what_of_whom_since_when() -> None:
    bench = Bench(with_(HOT, for_=20.0, severity="critical", labels={"team": "search"}))

    async def main() -> None:
        for value in (11, 12, 13.5, 2):
            bench.load(value)
            await bench.step()

    bench.run(main)
    fired, resolved = bench.told.alerts
    assert (fired.rule, fired.severity, fired.value) == ("hot", "critical", 13.5)
    assert fired.labels == {"model": "a", "team": "search"}
    assert fired.message == "hot (model=a, team=search) is firing: load is 13.5 (above 10)."
    assert (fired.time, fired.since) == (bench.clock.time() - 10, bench.clock.time() - 10)
    assert (resolved.previous, resolved.since) == ("firing", fired.time)
    assert resolved.fingerprint == fired.fingerprint
    assert resolved.id != fired.id
    assert resolved.to_json()["state"] == "resolved"


def test_what_is_pending_is_shown_and_told_nobody() -> None:
    bench = Bench(with_(HOT, for_=60.0))

    async def main() -> None:
        bench.load(11)
        await bench.step()
        assert [(each.state.value, each.labels) for each in bench.manager.alerts] == [("pending", {"model": "a"})]
        bench.load(5)
        await bench.step()
        assert bench.manager.alerts == ()

    bench.run(main)
    assert bench.told.alerts == []


def test_each_group_is_watched_by_itself() -> None:
    bench = Bench()

    async def main() -> None:
        bench.load(11, "a")
        bench.load(5, "b")
        await bench.step()
        bench.load(11, "b")
        await bench.step()
        bench.load(5, "a")
        await bench.step()

    bench.run(main)
    found = [(each.state.value, each.labels["model"]) for each in bench.told.alerts]
    assert found == [("firing", "a"), ("firing", "b"), ("resolved", "a")]
    assert len({each.fingerprint for each in bench.told.alerts}) == 2


def test_a_reminder_comes_as_often_as_the_rule_says() -> None:
    bench = Bench(with_(HOT, repeat=60.0))

    async def main() -> None:
        bench.load(11)
        for _ in range(20):
            await bench.step()
        bench.load(5)
        await bench.step()

    bench.run(main)
    assert [each.repeated for each in bench.told.alerts] == [False, True, True, True, False]
    assert bench.told.states == ["firing"] * 4 + ["resolved"]


def test_a_state_without_data_is_told_and_ends_as_resolved() -> None:
    bench = Bench(with_(HOT, no_data=NoData.NO_DATA))

    async def main() -> None:
        for value in (11, None, None, 5):
            bench.load(value)
            await bench.step()

    bench.run(main)
    assert bench.told.states == ["firing", "no_data", "resolved"]
    assert bench.told.alerts[1].value is None


def test_a_group_that_is_gone_is_absent_once_it_was_there() -> None:
    bench = Bench(AlertRule("gone", Metric("load"), Absent(), by=("model",)))

    async def main() -> None:
        await bench.step()
        assert bench.manager.alerts == ()
        bench.load(1)
        await bench.step()
        bench.load(None)
        await bench.step()
        bench.load(1)
        await bench.step()

    bench.run(main)
    assert bench.told.states == ["firing", "resolved"]


def test_each_rule_chooses_its_actions_by_name() -> None:
    ops, everybody = Told(), Told()
    rules = (with_(HOT, name="one", actions=("ops",)), with_(HOT, name="two"))
    bench = Bench(*rules, actions={"ops": ops, "all": everybody})

    async def main() -> None:
        bench.load(11)
        await bench.step()

    bench.run(main)
    assert [each.rule for each in ops.alerts] == ["one", "two"]
    assert [each.rule for each in everybody.alerts] == ["two"]


# ---- silences


def test_a_silence_keeps_quiet_and_what_is_still_true_is_told_afterwards() -> None:
    bench = Bench()

    async def main() -> None:
        bench.manager.silence({"rule": "hot", "model": "a*"}, 25.0)
        bench.load(11)
        await bench.step()
        await bench.step()
        assert bench.told.alerts == []
        assert [(each.state.value, each.silenced) for each in bench.manager.alerts] == [("firing", True)]
        await bench.step()
        assert bench.manager.silences == bench.manager._evaluator.silences == ()

    bench.run(main)
    assert bench.told.states == ["firing"]


def test_what_began_and_ended_in_a_silence_is_not_told() -> None:
    bench = Bench()

    async def main() -> None:
        bench.manager.silence({"severity": "warning"}, DAY)
        for value in (11, 5):
            bench.load(value)
            await bench.step()

    bench.run(main)
    assert bench.told.alerts == []


def test_whoever_was_told_that_it_began_is_told_that_it_is_over_silence_or_not() -> None:
    bench = Bench(with_(HOT, repeat=10.0))

    async def main() -> None:
        bench.load(11)
        await bench.step()
        bench.manager.silence({}, DAY, reason="we know")
        await bench.step()
        bench.load(5)
        await bench.step()

    bench.run(main)
    assert bench.told.states == ["firing", "resolved"]


@pytest.mark.parametrize("match", [{"model": "b"}, {"rule": "cold"}, {"nowhere": "x"}, {"model": "a", "severity": "x"}])
def test_a_silence_that_does_not_match_changes_nothing(match: dict[str, str]) -> None:
    bench = Bench()

    async def main() -> None:
        bench.manager.silence(match, DAY)
        bench.load(11)
        await bench.step()

    bench.run(main)
    assert bench.told.states == ["firing"]


def test_a_silence_can_be_ended_before_its_time() -> None:
    bench = Bench()

    async def main() -> None:
        silence = bench.manager.silence({"model": "a"}, DAY)
        twin = bench.manager.silence({"model": "a"}, DAY)
        bench.load(11)
        bench.manager.end(silence)
        assert bench.manager.silences == (twin,)
        await bench.step()
        assert bench.told.alerts == []
        bench.manager.end(twin)
        await bench.step()

    bench.run(main)
    assert bench.told.states == ["firing"]


# ---- on the clock


def test_it_looks_at_once_and_then_once_each_interval() -> None:
    bench = Bench(interval=15.0)

    async def main() -> None:
        async with bench.manager:
            await asyncio.sleep(46.0)
            assert bench.manager.counts().evaluations == 4
        assert bench.manager.counts().evaluations == 5  # and once more at the end

    bench.clock.run(main())


def test_what_was_missed_is_not_made_up_for() -> None:
    bench = Bench(interval=15.0)

    async def main() -> None:
        async with bench.manager:
            await asyncio.sleep(1.0)
            bench.clock.advance(DAY)  # the machine slept
            await asyncio.sleep(1.0)
            assert bench.manager.counts().evaluations == 2
            await asyncio.sleep(15.0)
            assert bench.manager.counts().evaluations == 3

    bench.clock.run(main())


def test_a_short_program_hears_of_its_alerts_too() -> None:
    bench = Bench(interval=3600.0)

    async def main() -> None:
        async with bench.manager:
            await asyncio.sleep(1.0)
            bench.load(11)

    bench.clock.run(main())
    assert bench.told.states == ["firing"]


def test_the_end_waits_for_actions_no_longer_than_its_grace_and_counts_what_is_lost(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def for_ever(alert: Alert) -> None:
        await asyncio.Event().wait()

    bench = Bench(actions={"stuck": Callback(for_ever, timeout=DAY)}, grace=5.0)

    async def main() -> None:
        bench.load(11, "a")
        bench.load(11, "b")
        async with bench.manager:
            await asyncio.sleep(1.0)
        assert bench.clock.monotonic() == 6.0

    bench.clock.run(main())
    counts = bench.manager.counts().actions["stuck"]
    assert (counts.told, counts.dropped, counts.waiting) == (0, 2, 0)
    assert caplog.messages == ["the alert action stuck was not done in time: 2 alerts were not told"]


def test_it_can_be_started_again_also_on_another_loop() -> None:
    bench = Bench()

    async def main(value: float) -> None:
        async with bench.manager:
            await asyncio.sleep(1.0)
            bench.load(value)

    bench.clock.run(main(11))
    bench.clock.run(main(5))
    assert bench.told.states == ["firing", "resolved"]


def test_starting_twice_is_starting_once_and_ending_what_never_began_is_nothing() -> None:
    bench = Bench()

    async def main() -> None:
        await bench.manager.aclose()
        await bench.manager.start()
        await bench.manager.start()
        await asyncio.sleep(31.0)
        assert bench.manager.counts().evaluations == 3
        await bench.manager.aclose()
        await bench.manager.aclose()
        assert len(asyncio.all_tasks()) == 1

    bench.clock.run(main())


def test_the_same_metrics_at_the_same_times_give_the_same_alerts() -> None:
    def alerts() -> list[Alert]:
        bench = Bench(HOT, with_(HOT, name="hotter", for_=30.0))
        found: list[Alert] = []
        for second in range(0, 300, 15):
            for model in "abc":
                bench.load((second * 7 + ord(model)) % 20, model)
            evaluation = bench.manager.evaluate(second)
            found += [*evaluation.changes, *evaluation.notices, *bench.manager.alerts]
        return found

    assert alerts() == alerts()
    assert len(alerts()) > 20


def test_evaluating_tells_nobody() -> None:
    bench = Bench()
    bench.load(11)
    evaluation = bench.manager.evaluate(0.0)
    assert [each.state.value for each in evaluation.notices] == ["firing"]
    assert bench.told.alerts == []


def test_a_time_that_goes_back_stands_still() -> None:
    bench = Bench(with_(HOT, for_=100.0))
    fired = []
    for now, value in ((1000.0, 11), (0.0, 5), (5.0, 11), (1050.0, 11), (1099.0, 11), (1100.0, 11)):
        bench.load(value)
        if bench.manager.evaluate(now).notices:
            fired.append(now)
    assert fired == [1100.0]


def test_code_without_an_event_loop_has_it_in_a_thread() -> None:
    gauges, fired = Gauges(), threading.Event()
    gauges.set("load", 11, model="a")
    manager = AlertManager(gauges, [HOT], actions={"told": lambda alert: fired.set()})
    with manager:
        assert fired.wait(10)
    assert manager.counts().actions["told"].told == 1


def test_a_forked_child_is_not_held_up_by_what_its_parent_was_doing() -> None:
    gauges = Gauges()
    gauges.set("load", 11, model="a")
    manager = AlertManager(gauges, [HOT], actions={})
    with manager:
        manager._lock.acquire()  # as another thread may have it at that moment
        try:
            child = os.fork()
            if child == 0:
                try:
                    manager.evaluate(1.0)
                    manager.__exit__(None, None, None)
                    os._exit(0 if len(manager.alerts) == 1 else 3)
                finally:
                    os._exit(4)
        finally:
            manager._lock.release()
        assert os.waitpid(child, 0)[1] == 0


# ---- what goes wrong


def test_an_action_that_fails_is_counted_and_logged_and_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    told = Told()

    def broken(alert: Alert) -> None:
        raise ValueError("no, with sk-proj-abcdefghijklmnopqrstuvwxyz0123456789ABCD in it")

    bench = Bench(actions={"broken": broken, "told": told})

    async def main() -> None:
        for value in (11, 5, 11, 5):
            bench.load(value)
            await bench.step()

    bench.run(main)
    assert told.states == ["firing", "resolved"] * 2
    counts = bench.manager.counts().actions["broken"]
    assert (counts.failed, counts.told) == (4, 0)
    assert counts.last_error is not None
    assert counts.last_error.startswith("ValueError: no, with ")
    assert "sk-proj" not in counts.last_error + caplog.text
    assert caplog.text.count("the alert action broken failed") == 1  # the first, the tenth, …


def test_a_slow_action_keeps_nobody_waiting() -> None:
    told = Told()

    async def slow(alert: Alert) -> None:
        await asyncio.sleep(1000.0)

    bench = Bench(actions={"slow": Callback(slow, timeout=DAY), "told": told}, interval=10.0, grace=0.0)

    async def main() -> None:
        async with bench.manager:
            for value in (11, 5, 11):
                bench.load(value)
                await asyncio.sleep(10.0)
            assert told.states == ["firing", "resolved", "firing"]

    bench.clock.run(main())


def test_a_function_that_takes_too_long_has_failed() -> None:
    async def slow(alert: Alert) -> None:
        await asyncio.sleep(1000.0)

    async def times_out_itself(alert: Alert) -> None:
        raise TimeoutError("mine")

    bench = Bench(actions={"slow": Callback(slow, timeout=3.0), "own": times_out_itself})

    async def main() -> None:
        bench.load(11)
        await bench.step()

    bench.run(main)
    counts = bench.manager.counts().actions
    assert "took longer than 3 s" in (counts["slow"].last_error or "")
    assert counts["own"].last_error == "TimeoutError: mine"


def test_a_queue_that_is_full_lets_go_of_its_oldest_and_counts_them(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[str] = []
    gate = asyncio.Event()

    async def slow(alert: Alert) -> None:
        await gate.wait()
        seen.append(alert.id)

    bench = Bench(actions={"slow": slow}, name="n")

    async def main() -> None:
        for _ in range(600):
            for value in (11, 5):
                bench.load(value)
                bench.clock.advance(0.01)
                await bench.manager.check()
                await asyncio.sleep(0)
        assert bench.manager.counts().actions["slow"].waiting == 1001
        gate.set()
        assert await bench.manager.drained(timeout=DAY)

    bench.run(main)
    counts = bench.manager.counts().actions["slow"]
    assert (counts.told, counts.dropped) == (1001, 199)
    assert seen[-1] == "n-1200"
    assert "alerts dropped" in caplog.text


def test_metrics_that_cannot_be_had_are_counted_and_asked_for_again(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()

    async def main() -> None:
        bench.load(11)
        await bench.step()
        bench.gauges.broken = OSError("gone")
        await bench.step()
        bench.gauges.broken = None
        await bench.step()

    bench.run(main)
    assert bench.told.states == ["firing"]
    counts = bench.manager.counts()
    assert (counts.failed, counts.last_error) == (1, "the metrics: OSError: gone")
    assert "the metrics cannot be evaluated" in caplog.text


def test_a_rule_that_does_not_fit_its_metric_stops_no_other() -> None:
    bench = Bench(AlertRule("odd", Metric("load", "p95"), Threshold(">", 1.0)), HOT)

    async def main() -> None:
        bench.load(11)
        await bench.step()

    bench.run(main)
    assert [each.rule for each in bench.told.alerts] == ["hot"]
    assert "the alert rule odd: a gauge has no 'p95'" in (bench.manager.counts().last_error or "")


def test_a_flood_of_labels_is_bounded_counted_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(max_series=10)

    async def main() -> None:
        for number in range(30):
            bench.load(11, f"m{number}")
        await bench.step()
        await bench.step()
        counts = bench.manager.counts()
        assert (counts.watched, counts.unwatched) == (10, 20)

    bench.run(main)
    assert len(bench.told.alerts) == 10
    assert caplog.text.count("too many series") == 1


@pytest.mark.parametrize("no_data", NoData)
def test_what_is_well_or_gone_is_not_remembered(no_data: NoData) -> None:
    bench = Bench(with_(HOT, no_data=no_data), max_series=100)

    async def main() -> None:
        for number in range(300):
            bench.load(5 + number % 10, "m")
            bench.load(5, f"m{number}")
            await bench.manager.check()
            bench.load(None, f"m{number}")
            bench.clock.advance(10)

    bench.run(main)
    assert bench.manager.counts().watched <= (1 if no_data in (NoData.OK, NoData.KEEP) else 100)


def test_a_rule_may_ask_for_an_action_only_if_there_is_one() -> None:
    with pytest.raises(ConfigurationError, match=r"rules hot\.actions: found 'pager', allowed are told"):
        Bench(with_(HOT, actions=("pager",)))


def test_two_rules_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="rules: found hot twice"):
        Bench(HOT, HOT)


@pytest.mark.parametrize("action", [None, 3, "log", Told])
def test_what_is_no_action_is_refused(action: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"actions\.odd: found .*, allowed is an action or a function"):
        Bench(actions={"odd": action})


# ---- functions as actions


def test_functions_may_be_async_objects_or_return_something_to_wait_for() -> None:
    seen: list[str] = []

    async def plain(alert: Alert) -> None:
        await asyncio.sleep(0)
        seen.append("async")

    class Awaited:
        async def __call__(self, alert: Alert) -> None:
            seen.append("object")

    bench = Bench(actions={"a": plain, "b": Awaited(), "c": lambda alert: plain(alert)})

    async def main() -> None:
        bench.load(11)
        await bench.step()

    bench.run(main)
    assert sorted(seen) == ["async", "async", "object"]


def test_what_is_done_about_an_alert_is_no_part_of_the_run_that_looked() -> None:
    run: ContextVar[str] = ContextVar("run", default="none")
    seen: list[str] = []

    async def look(alert: Alert) -> None:
        seen.append(run.get())

    bench = Bench(actions={"a": look, "b": lambda alert: seen.append(run.get())})

    async def main() -> None:
        run.set("mine")
        bench.load(11)
        await bench.step()

    bench.run(main)
    assert seen == ["none", "none"]


def test_a_sync_function_runs_beside_the_event_loop() -> None:
    where: list[int] = []
    bench = Bench(actions={"a": lambda alert: where.append(threading.get_ident())})

    async def main() -> None:
        bench.load(11)
        await bench.step()

    bench.run(main)
    assert where != [threading.get_ident()]


def test_the_log_has_a_line_at_the_level_of_the_severity(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    rules = [with_(HOT, name=name, severity=name) for name in ("info", "warning", "critical", "page")]
    bench = Bench(*rules, actions={"log": Log("mine")})

    async def main() -> None:
        bench.load(11)
        await bench.step()
        bench.load(5)
        await bench.step()

    bench.run(main)
    levels = [record.levelname for record in caplog.records if record.name == "mine"]
    assert levels == ["INFO", "WARNING", "CRITICAL", "WARNING"] + ["INFO"] * 4
    assert caplog.records[0].alert["rule"] == "info"  # type: ignore[attr-defined]


def test_without_actions_there_is_the_log(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(actions=None)

    async def main() -> None:
        bench.load(11)
        await bench.step()

    bench.run(main)
    assert "hot (model=a) is firing: load is 11 (above 10)." in caplog.text


# ---- observers


class Seen:
    inline = True

    def __init__(self) -> None:
        self.events: list[ExecutionEvent] = []

    def observe(self, event: ExecutionEvent) -> None:
        self.events.append(event)


def test_every_change_is_an_event_silence_or_not() -> None:
    bench = Bench(with_(HOT, for_=10.0))
    seen = Seen()

    async def main() -> None:
        bench.manager.silence({}, DAY)
        for value in (11, 11, 5):
            bench.load(value)
            await bench.step()

    with observe(seen):
        bench.run(main)
    assert [event.kind for event in seen.events] == ["alert"] * 3
    assert [event.data["state"] for event in seen.events] == ["pending", "firing", "resolved"]
    assert [event.sequence for event in seen.events] == [1, 2, 3]
    assert {(event.run_id, event.path) for event in seen.events} == {("t", "hot")}
    assert seen.events[1].data == {
        "rule": "hot",
        "state": "firing",
        "previous": "pending",
        "severity": "warning",
        "value": 11.0,
        "labels": {"model": "a"},
    }
    assert bench.told.alerts == []


def test_alerts_on_the_number_of_alerts_settle() -> None:
    """A collector counts alerts, and a rule looks at that count: each look changes it at most once."""
    clock = VirtualClock()
    metrics = MetricsCollector(clock=clock)
    rule = AlertRule("alerts", Metric("alert_transitions"), Threshold(">", 0.0))
    manager = AlertManager(metrics, [HOT, rule], clock=clock, actions={})

    async def main() -> None:
        metrics.gauge("load", 11.0, {"model": "a"})
        changes = [len((await manager.check()).changes) for _ in range(5)]
        assert changes == [1, 1, 0, 0, 0]

    with observe(metrics):
        clock.run(main())


def test_an_observer_that_asks_the_manager_to_look_does_not_go_round_in_circles() -> None:
    bench = Bench()

    class Eager:
        inline = True

        def observe(self, event: ExecutionEvent) -> None:
            assert bench.manager.evaluate().changes == ()

    async def main() -> None:
        for value in (11, 5):
            bench.load(value)
            await bench.step()

    with observe(Eager()) as eager:
        bench.run(main)
    assert (eager.seen, eager.failed) == (2, 0)


def test_an_alert_that_no_json_can_hold_is_told_without_its_value() -> None:
    bench = Bench()
    seen = Seen()

    async def main() -> None:
        bench.load(float("inf"))
        await bench.step()

    with observe(seen):
        bench.run(main)
    assert seen.events[0].data["value"] is None
    assert bench.told.alerts[0].to_json()["value"] is None
    assert "load is inf" in bench.told.alerts[0].message


# ---- as a mapping


def test_a_manager_is_read_from_a_mapping() -> None:
    clock, gauges, told = VirtualClock(), Gauges(), Told()
    manager = AlertManager.from_mapping(
        gauges,
        {
            "interval": "1m",
            "grace": 1,
            "rules": [{"preset": "breaker-open", "actions": ["told"]}, HOT.to_mapping()],
            "actions": {"log": {"log": "mine"}, "page": {"command": ["true"], "timeout": 5}},
            "silences": [{"match": {"rule": "hot"}, "until": "2023-11-14T23:13:20Z", "reason": "known"}],
        },
        actions={"told": told},
        clock=clock,
    )
    assert [rule.name for rule in manager.rules] == ["breaker-open", "hot"]
    assert sorted(manager.counts().actions) == ["log", "page", "told"]
    [silence] = manager.silences
    assert (silence.match, silence.until, silence.reason) == ({"rule": "hot"}, 3600.0, "known")

    async def main() -> None:
        async with manager:
            gauges.set("breaker_open", 1.0, guard="g")
            await asyncio.sleep(61)

    clock.run(main())
    assert told.states == ["firing"]


@pytest.mark.parametrize(
    ("mapping", "words"),
    [
        ({"intervall": 1}, "alerts.intervall: unknown field; did you mean interval?"),
        ({"interval": 0}, "alerts.interval: found 0.0, allowed is a finite number of seconds above 0"),
        ({"rules": {"a": 1}}, "alerts.rules: found {'a': 1}, allowed is a list"),
        ({"rules": ["latency"]}, "alerts.rules.0: found 'latency', allowed is a mapping"),
        (
            {"rules": [{"preset": "latency", "abve": 1}]},
            "alerts.rules.0 latency.abve: unknown field; did you mean",
        ),
        ({"rules": [{"preset": "latency", "actions": ["x"]}]}, "rules latency.actions: found 'x', allowed are log"),
        ({"rules": [{"preset": "latency"}] * 2}, "alerts.rules: found latency twice"),
        ({"actions": ["log"]}, "alerts.actions: found ['log'], allowed is a mapping"),
        ({"actions": {"a": "log"}}, "alerts.actions.a: found 'log', allowed is a mapping"),
        ({"actions": {"a": {}}}, "alerts.actions.a: an action has exactly one of log, webhook, command"),
        ({"actions": {"a": {"log": "x", "command": ["y"]}}}, "alerts.actions.a: an action has exactly one of"),
        ({"actions": {"a": {"log": "x", "to": 1}}}, "alerts.actions.a.to: unknown field"),
        ({"actions": {"a": {"command": []}}}, "alerts.actions.a.command: found (), allowed is a list"),
        ({"actions": {"a": {"command": ["x"], "timeout": 0}}}, "alerts.actions.a.timeout: found 0.0"),
        ({"silences": [{"match": {}}]}, "alerts.silences.0: the field for is missing; it holds a duration"),
        ({"silences": [{"for": 1, "until": "x"}]}, "alerts.silences.0.for: found 1, allowed is a duration, or"),
        ({"silences": [{"until": "tomorrow"}]}, "alerts.silences.0.until: found 'tomorrow', allowed is a date"),
        ({"silences": [{"until": "2026-12-01"}]}, "alerts.silences.0.until: found '2026-12-01', allowed is a date"),
    ],
)
def test_a_misfit_in_a_mapping_is_named_with_what_is_allowed(mapping: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        AlertManager.from_mapping(Gauges(), mapping)
    assert words in str(caught.value)


def test_a_list_is_the_rules_alone() -> None:
    manager = AlertManager.from_mapping(Gauges(), [{"preset": "latency"}, HOT.to_mapping()])
    assert [rule.name for rule in manager.rules] == ["latency", "hot"]
    assert list(manager.counts().actions) == ["log"]


def test_a_source_that_does_not_come_back_is_counted_and_keeps_two_threads_at_most() -> None:
    came, go = threading.Semaphore(0), threading.Event()

    def hang() -> MetricsSnapshot:
        came.release()
        go.wait(60)
        return MetricsSnapshot(0.0)

    manager = AlertManager(hang, [HOT], actions={})

    async def main() -> None:
        for _ in range(4):
            task = asyncio.create_task(manager.check())
            await asyncio.sleep(0)
            task.cancel()
        assert came.acquire(timeout=10)
        assert came.acquire(timeout=10)
        assert not came.acquire(blocking=False)
        await manager.check()
        assert manager.counts().last_error == "the metrics: reading the metrics took longer than 10 s"
        assert not came.acquire(blocking=False)
        await manager.aclose()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    try:
        asyncio.run(main())
    finally:
        go.set()


def test_the_end_looks_once_more_also_while_a_look_is_under_way() -> None:
    gauges, came, go = Gauges(), threading.Event(), threading.Event()

    def slow() -> MetricsSnapshot:
        found = gauges()
        came.set()
        go.wait(60)
        return found

    seen: list[str] = []
    manager = AlertManager(slow, [HOT], actions={"a": lambda alert: seen.append(alert.state.value)})

    async def main() -> None:
        async with manager:
            while not came.is_set():
                await asyncio.sleep(0.001)
            gauges.set("load", 11.0, model="a")
            asyncio.get_running_loop().call_soon(go.set)

    asyncio.run(main())
    assert seen == ["firing"]
