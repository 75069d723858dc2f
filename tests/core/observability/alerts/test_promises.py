"""What whoever is told of alerts may rely on, whatever happens: values, gaps, silences, time, in any order."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.support.alerting import Gauges

from agentflow.clock import VirtualClock
from agentflow.core.observability.alerts.alert import Alert
from agentflow.core.observability.alerts.manager import AlertManager
from agentflow.core.observability.alerts.quantities import Metric
from agentflow.core.observability.alerts.rule import AlertRule, NoData
from agentflow.core.observability.alerts.silence import Silence
from agentflow.core.observability.alerts.states import OPEN, TRANSITIONS, AlertState
from agentflow.core.observability.alerts.threshold import Threshold

REPEAT = 100.0


class Told(RuleBasedStateMachine):
    """Two models, one rule, some silences; `believed` is what somebody knows who has nothing but the notices."""

    @initialize(
        for_=st.sampled_from([0.0, 20.0]),
        keep=st.sampled_from([0.0, 20.0]),
        no_data=st.sampled_from(NoData),
        repeat=st.sampled_from([None, REPEAT]),
    )
    def begin(self, for_: float, keep: float, no_data: NoData, repeat: float | None) -> None:
        self.clock = VirtualClock()
        self.gauges = Gauges()
        self.rule = AlertRule(
            "hot",
            Metric("load"),
            Threshold(">", 10.0, clear=8.0),
            by=("model",),
            for_=for_,
            keep_firing_for=keep,
            no_data=no_data,
            repeat=repeat,
        )
        self.manager = AlertManager(self.gauges, [self.rule], clock=self.clock, actions={}, name="t")
        self.silences: list[Silence] = []
        self.believed: dict[str, AlertState] = defaultdict(lambda: AlertState.RESOLVED)
        self.actual: dict[str, AlertState] = defaultdict(lambda: AlertState.INACTIVE)
        self.told_at: dict[str, float] = {}
        self.ids: list[str] = []
        self.looked = False

    @rule(model=st.sampled_from("ab"), value=st.none() | st.sampled_from([5.0, 9.0, 11.0, float("nan")]))
    def measure(self, model: str, value: float | None) -> None:
        self.gauges.set("load", value, model=model)
        self.looked = False

    @rule(seconds=st.sampled_from([1.0, 10.0, 30.0, 2000.0]))
    def look(self, seconds: float) -> None:
        self.clock.advance(seconds)
        evaluation = self.manager.evaluate()
        for alert in evaluation.changes:
            self.hear_of_change(alert)
        for alert in evaluation.notices:
            self.be_told(alert)
        self.looked = True

    @rule(model=st.sampled_from(["a", "b", "*"]), seconds=st.sampled_from([15.0, 500.0]))
    def silence(self, model: str, seconds: float) -> None:
        self.silences.append(self.manager.silence({"model": model}, seconds))
        self.looked = False

    @precondition(lambda self: self.silences)
    @rule()
    def speak(self) -> None:
        self.manager.end(self.silences.pop())
        self.looked = False

    def hear_of_change(self, alert: Alert) -> None:
        before = self.actual[alert.labels["model"]]
        assert alert.previous is before
        assert alert.state in {new for (old, _), new in TRANSITIONS.items() if old is before}
        self.actual[alert.labels["model"]] = alert.state

    def be_told(self, alert: Alert) -> None:
        model, now = alert.labels["model"], self.clock.monotonic()
        believed = self.believed[model]
        assert alert.state is self.actual[model]
        assert alert.state in OPEN or alert.state is AlertState.RESOLVED
        assert not alert.silenced or alert.state is AlertState.RESOLVED
        if alert.repeated:
            assert alert.state is believed
            assert self.rule.repeat is not None
            assert now - self.told_at[model] >= self.rule.repeat
        else:
            assert alert.state is not believed
        assert alert.since <= alert.time == self.clock.time()
        self.believed[model], self.told_at[model] = alert.state, now
        self.ids.append(alert.id)

    @invariant()
    def what_is_believed_is_true_where_nothing_is_silenced(self) -> None:
        if not self.looked:
            return
        now = self.clock.monotonic()
        for model in "ab":
            if any(each.covers({"model": model}, now) for each in self.silences):
                continue
            actual = self.actual[model]
            if actual in OPEN:
                assert self.believed[model] is actual
            elif actual in (AlertState.RESOLVED, AlertState.INACTIVE):
                assert self.believed[model] is AlertState.RESOLVED

    @invariant()
    def what_is_over_is_never_believed_to_go_on(self) -> None:
        if self.looked:
            for model in "ab":
                if self.actual[model] in (AlertState.RESOLVED, AlertState.INACTIVE):
                    assert self.believed[model] is AlertState.RESOLVED

    @invariant()
    def no_two_messages_are_one(self) -> None:
        assert len(set(self.ids)) == len(self.ids)

    @invariant()
    def what_is_shown_is_what_was_told_of(self) -> None:
        shown = {each.labels["model"]: each.state for each in self.manager.alerts}
        known = {model: state for model, state in self.actual.items() if state is not AlertState.INACTIVE}
        assert shown == known


TestTold = Told.TestCase
TestTold.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
