"""All rules at one moment: what changed, and what is to be told. Pure but for what it remembers.

    snapshot ──read──▶ a value for each rule and group ──evaluate, now──▶ Evaluation(changes, notices, problems)

`read` takes the time and remembers nothing, so it may run in any thread. The same snapshots at the same times give the
same evaluations, ids included.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from agentflow.core.observability.alerts.alert import Alert, fingerprint
from agentflow.core.observability.alerts.quantities import Group
from agentflow.core.observability.alerts.rule import AlertRule
from agentflow.core.observability.alerts.silence import Silence
from agentflow.core.observability.alerts.states import AlertState
from agentflow.core.observability.alerts.watch import Watch, Word
from agentflow.core.observability.metrics.snapshot import MetricsSnapshot
from agentflow.errors import ConfigurationError

__all__ = ["Evaluation", "Evaluator", "Readings"]


Readings: TypeAlias = Sequence[tuple[AlertRule, Mapping[Group, float | None] | Exception]]
"""Each rule with what it looks at, or with why that cannot be had."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """`changes` are alerts whose state changed, `notices` those of which somebody is to be told, in the order of the
    rules. `problems` are rules that could not be evaluated, with their error, and `unwatched` counts groups that there
    was no room for."""

    changes: tuple[Alert, ...] = ()
    notices: tuple[Alert, ...] = ()
    problems: tuple[tuple[str, Exception], ...] = ()
    unwatched: int = 0


class Evaluator:
    """`max_series` bounds for how many groups of one rule something is remembered; `name` begins the alerts' ids."""

    def __init__(self, rules: Sequence[AlertRule], *, name: str = "alerts", max_series: int = 1000) -> None:
        names = [rule.name for rule in rules]
        twice = sorted({each for each in names if names.count(each) > 1})
        if twice:
            raise ConfigurationError(f"rules: found {', '.join(twice)} twice, allowed is each name once")
        if max_series < 1:
            raise ConfigurationError(f"max_series: found {max_series}, allowed is 1 or more")
        self.rules = tuple(rules)
        self.silences: tuple[Silence, ...] = ()
        self._watches: dict[str, dict[Group, Watch]] = {name: {} for name in names}
        self._name = name
        self._max_series = max_series
        self._number = 0
        self._now = float("-inf")

    def read(self, snapshot: MetricsSnapshot) -> Readings:
        """What the rules look at."""
        return [(rule, _values(rule, snapshot)) for rule in self.rules]

    def evaluate(self, readings: Readings, now: float, time: float) -> Evaluation:
        """`now` is monotonic and `time` wall time, both in seconds. A `now` that goes back counts as standing still."""
        self._now = now = max(now, self._now)
        self.silences = tuple([each for each in self.silences if now < each.until])
        changes: list[Alert] = []
        notices: list[Alert] = []
        problems: list[tuple[str, Exception]] = []
        unwatched = 0
        for rule, values in readings:
            if isinstance(values, Exception):
                problems.append((rule.name, values))
            else:
                unwatched += self._apply(rule, values, now, time, changes, notices)
        return Evaluation(tuple(changes), tuple(notices), tuple(problems), unwatched)

    def alerts(self, time: float) -> tuple[Alert, ...]:
        """What is not inactive, as it stood at the last evaluation; `time` is wall time."""
        return tuple(
            [
                self._alert(rule, group, watch, watch.state, self._now, time, self._silences(rule, group, self._now))
                for rule in self.rules
                for group, watch in self._watches[rule.name].items()
                if watch.state is not AlertState.INACTIVE
            ]
        )

    @property
    def watched(self) -> int:
        """For how many groups something is remembered."""
        return sum(len(each) for each in self._watches.values())

    # ---- within

    def _apply(
        self,
        rule: AlertRule,
        values: Mapping[Group, float | None],
        now: float,
        time: float,
        changes: list[Alert],
        notices: list[Alert],
    ) -> int:
        """One rule. Returns how many groups there was no room for."""
        watches, unwatched = self._watches[rule.name], 0
        for group in [*values, *[each for each in watches if each not in values]]:
            watch = watches.pop(group, None) or Watch()
            before = watch.see(rule, values.get(group), now)
            if rule.asks_for_data or not watch.blank:
                if len(watches) >= self._max_series:
                    unwatched += 1
                    continue
                watches[group] = watch
            silenced = self._silences(rule, group, now)
            word = watch.word(rule, silenced, now)
            if word is None and watch.state is before:
                continue
            self._number += 1
            alert = self._alert(rule, group, watch, before, now, time, silenced, word is Word.AGAIN, self._number)
            if watch.state is not before:
                changes.append(alert)
            if word is not None:
                notices.append(alert)
        return unwatched

    def _silences(self, rule: AlertRule, group: Group, now: float) -> bool:
        if not self.silences:
            return False
        labels = {**_labels(rule, group), "rule": rule.name, "severity": rule.severity}
        return any(each.covers(labels, now) for each in self.silences)

    def _alert(
        self,
        rule: AlertRule,
        group: Group,
        watch: Watch,
        before: AlertState,
        now: float,
        time: float,
        silenced: bool,
        repeated: bool = False,
        number: int = 0,
    ) -> Alert:
        labels = _labels(rule, group)
        return Alert(
            rule=rule.name,
            state=watch.state,
            previous=before,
            severity=rule.severity,
            value=watch.value,
            labels=labels,
            message=_message(rule, labels, watch),
            fingerprint=fingerprint(rule.name, dict(zip(rule.by, group, strict=True))),
            id=f"{self._name}-{number}" if number else "",
            time=time,
            since=time - (now - watch.began),
            repeated=repeated,
            silenced=silenced,
            summary=rule.summary,
            actions=rule.actions,
        )


def _values(rule: AlertRule, snapshot: MetricsSnapshot) -> Mapping[Group, float | None] | Exception:
    try:
        return rule.quantity.read(snapshot, rule.by)
    except Exception as error:  # noqa: BLE001 - one rule that does not fit its metric stops no other
        return error.with_traceback(None)


def _labels(rule: AlertRule, group: Group) -> dict[str, str]:
    return {name: value for name, value in zip(rule.by, group, strict=True) if value} | dict(rule.labels)


def _message(rule: AlertRule, labels: Mapping[str, str], watch: Watch) -> str:
    """All of it in one line."""
    of = ", ".join(f"{name}={value}" for name, value in labels.items())
    value = "without a value" if watch.value is None else f"{watch.value:.6g}"
    state = watch.state.value.replace("_", " ")
    summary = f" {rule.summary}" if rule.summary else ""
    return f"{rule.name}{f' ({of})' if of else ''} is {state}: {rule.quantity} is {value} ({rule.condition}).{summary}"
