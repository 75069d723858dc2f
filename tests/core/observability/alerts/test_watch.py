"""How a state follows from values and time: examples, and every history against a model that looks back."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hypothesis import given
from hypothesis import strategies as st

from agentflow.core.observability.alerts.quantities import Metric
from agentflow.core.observability.alerts.rule import AlertRule, NoData
from agentflow.core.observability.alerts.states import TRANSITIONS, AlertState
from agentflow.core.observability.alerts.threshold import Absent, Threshold
from agentflow.core.observability.alerts.watch import REMEMBERED, Watch

INACTIVE, PENDING, FIRING = AlertState.INACTIVE, AlertState.PENDING, AlertState.FIRING
RESOLVED, NO_DATA = AlertState.RESOLVED, AlertState.NO_DATA

RULE = AlertRule("n", Metric("m"), Threshold(">", 10.0, clear=8.0), for_=30.0)


def states(rule: AlertRule, *values: float | None, every: float = 10.0) -> list[str]:
    """The states that these values lead to, one every 10 s."""
    watch = Watch()
    found = []
    for number, value in enumerate(values):
        watch.see(rule, value, number * every)
        found.append(watch.state.value)
    return found


def test_it_fires_once_the_condition_has_held_for_so_long() -> None:
    assert states(RULE, 11, 12, 11, 13) == ["pending", "pending", "pending", "firing"]


def test_it_fires_at_once_where_nothing_is_asked() -> None:
    assert states(replace(RULE, for_=0.0), 9, 11) == ["inactive", "firing"]


def test_what_ends_while_it_is_pending_was_nothing() -> None:
    assert states(RULE, 11, 11, 9, 11, 11) == ["pending", "pending", "inactive", "pending", "pending"]


def test_between_the_two_limits_it_goes_on_firing_and_does_not_begin() -> None:
    rule = replace(RULE, for_=0.0)
    assert states(rule, 9, 11, 9, 8, 9) == ["inactive", "firing", "firing", "resolved", "resolved"]


def test_it_goes_on_firing_for_a_while_and_anew_after_each_breach() -> None:
    rule = replace(RULE, for_=0.0, keep_firing_for=20.0)
    assert states(rule, 11, 5, 5, 11, 5, 5, 5) == ["firing"] * 6 + ["resolved"]


def test_what_is_resolved_is_forgotten_in_time() -> None:
    watch = Watch()
    rule = replace(RULE, for_=0.0)
    for value, now in ((11.0, 0.0), (5.0, 10.0), (5.0, 10.0 + REMEMBERED - 1)):
        watch.see(rule, value, now)
    assert watch.state is RESOLVED
    watch.see(rule, 5.0, 10.0 + REMEMBERED)
    assert watch.state is INACTIVE
    assert watch.blank


def test_it_may_fire_again_before_that() -> None:
    assert states(replace(RULE, for_=0.0), 11, 5, 11) == ["firing", "resolved", "firing"]
    assert states(replace(RULE, for_=10.0), 11, 11, 5, 11) == ["pending", "firing", "resolved", "pending"]


def test_no_value_is_as_good_as_a_good_one_by_default() -> None:
    assert states(replace(RULE, for_=0.0), 11, None) == ["firing", "resolved"]


def test_no_value_may_be_as_bad_as_a_bad_one() -> None:
    rule = replace(RULE, for_=10.0, no_data=NoData.ALERTING)
    assert states(rule, 5, None, None, 5) == ["inactive", "pending", "firing", "resolved"]


def test_no_value_may_leave_things_as_they_are() -> None:
    rule = replace(RULE, no_data=NoData.KEEP)
    assert states(rule, 11, None, None, None, 11, None, 5) == ["pending"] * 4 + ["firing"] * 2 + ["resolved"]


def test_no_value_may_be_a_state_of_its_own_once_it_lasts() -> None:
    rule = replace(RULE, for_=20.0, no_data=NoData.NO_DATA)
    assert states(rule, 5, None, None, 5) == ["inactive"] * 4
    assert states(rule, 5, None, None, None, 5) == ["inactive"] * 3 + ["no_data", "resolved"]
    assert states(rule, 11, 11, 11, None, None, None, 11, 11, 11) == (
        ["pending", "pending", "firing", "firing", "firing"] + ["no_data"] * 3 + ["firing"]
    )


def test_absent_is_a_condition_like_any_other() -> None:
    rule = AlertRule("n", Metric("m"), Absent(), for_=10.0)
    assert states(rule, 1, None, None, 1) == ["inactive", "pending", "firing", "resolved"]


def test_not_a_number_is_no_value() -> None:
    assert states(replace(RULE, for_=0.0), float("nan"), float("inf")) == ["inactive", "firing"]


# ---- every history


@dataclass(frozen=True)
class Seen:
    """One evaluation as the model notes it down: when, and what the value said: yes, no, gap, or nothing at all."""

    time: float
    word: str


class Model:
    """The same by looking back over all that was seen, each time: slow, and simple."""

    def __init__(self, rule: AlertRule) -> None:
        self.rule = rule
        self.seen: list[Seen] = []
        self.state = INACTIVE
        self.since = 0.0

    def see(self, value: float | None, now: float) -> AlertState:
        self.seen.append(Seen(now, self._word(value)))
        state = self._next(now)
        if state is not self.state:
            self.state, self.since = state, now
        return self.state

    def _word(self, value: float | None) -> str:
        if value is not None:
            limit = 8.0 if self.state is FIRING else 10.0
            return "yes" if value > limit else "no"
        return {NoData.OK: "no", NoData.ALERTING: "yes", NoData.KEEP: "nothing", NoData.NO_DATA: "gap"}[
            self.rule.no_data
        ]

    def _lasted(self, word: str, now: float) -> float:
        """For how long nothing but `word` was said; gaps that did not last, and what says nothing, do not count."""
        start = now
        for each in reversed(self._without_short_gaps(word)):
            if each.word == word:
                start = each.time
            elif each.word != "nothing":
                break
        return now - start

    def _without_short_gaps(self, word: str) -> list[Seen]:
        if word == "gap":
            return self.seen
        found: list[Seen] = []
        run: list[Seen] = []
        for each in [*self.seen, Seen(0.0, "end")]:
            if each.word == "gap":
                run.append(each)
                continue
            if run and run[-1].time - run[0].time >= self.rule.for_:
                found += run
            run = []
            if each.word != "end":
                found.append(each)
        return found

    def _next(self, now: float) -> AlertState:
        word = self.seen[-1].word
        if word == "yes" and self.state is not FIRING:
            if self._lasted("yes", now) >= self.rule.for_:
                return FIRING
            return NO_DATA if self.state is NO_DATA else PENDING
        if word == "gap" and self._lasted("gap", now) >= self.rule.for_:
            return NO_DATA
        if word == "no":
            match self.state:
                case AlertState.PENDING:
                    return INACTIVE
                case AlertState.NO_DATA:
                    return RESOLVED
                case AlertState.FIRING if self._lasted("no", now) >= self.rule.keep_firing_for:
                    return RESOLVED
        if self.state is RESOLVED and now - self.since >= REMEMBERED:
            return INACTIVE
        return self.state


values = st.none() | st.sampled_from([5.0, 8.0, 9.0, 10.0, 11.0])
steps = st.lists(st.tuples(st.sampled_from([1.0, 10.0, 15.0, 1000.0]), values), max_size=40)


@given(
    steps,
    st.sampled_from([0.0, 10.0, 30.0]),
    st.sampled_from([0.0, 10.0, 25.0]),
    st.sampled_from(NoData),
)
def test_every_history_leads_where_the_model_says(
    history: list[tuple[float, float | None]], for_: float, keep: float, no_data: NoData
) -> None:
    rule = replace(RULE, for_=for_, keep_firing_for=keep, no_data=no_data)
    watch, model, now = Watch(), Model(rule), 0.0
    for seconds, value in history:
        now += seconds
        before = watch.see(rule, value, now)
        assert watch.state is model.see(value, now), (history, rule)
        assert watch.state is before or watch.state in {new for (old, _), new in TRANSITIONS.items() if old is before}
