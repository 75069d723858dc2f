"""What is remembered of one group of series, and how a new value changes its state. No clock, no lock, no I/O.

    watch = Watch()
    watch.see(rule, value, now)      ──▶  the state it had before; watch.state is the new one
    watch.word(rule, silenced, now)  ──▶  Word.NEW, Word.AGAIN or None: whether to tell somebody

`now` is in seconds that never go back.
"""

from __future__ import annotations

from enum import Enum

from agentflow.core.observability.alerts.rule import AlertRule, NoData
from agentflow.core.observability.alerts.states import OPEN, TRANSITIONS, AlertEvent, AlertState

__all__ = ["REMEMBERED", "Watch", "Word"]

REMEMBERED = 900.0
"""Seconds for which a resolved alert is still shown."""


class Word(Enum):
    NEW = "new"
    AGAIN = "again"


class Watch:
    """`since` is when the state was entered, `began` when the state was that is told as the beginning of an alert."""

    __slots__ = ("_clear", "_held", "_lost", "_told", "_told_at", "began", "since", "state", "value")

    def __init__(self) -> None:
        self.state = AlertState.INACTIVE
        self.value: float | None = None
        self.since = self.began = 0.0
        self._held: float | None = None  # since when the condition holds
        self._clear: float | None = None  # since when it does not
        self._lost: float | None = None  # since when there is no value
        self._told: AlertState | None = None  # what those who are told believe, while it is worth knowing
        self._told_at = 0.0

    @property
    def blank(self) -> bool:
        """Whether there is nothing to remember."""
        return self.state is AlertState.INACTIVE

    def see(self, rule: AlertRule, value: float | None, now: float) -> AlertState:
        """Take in a value. Returns the state until now."""
        old, self.value = self.state, value
        event = self._event(rule, value, now)
        if event is None and old is AlertState.RESOLVED and now - self.since >= REMEMBERED:
            event = AlertEvent.FORGOTTEN
        if event is not None:
            self._enter(TRANSITIONS.get((old, event), old), now)
        return old

    def word(self, rule: AlertRule, silenced: bool, now: float) -> Word | None:
        """Whether to tell what state it is in: once for each, and again where the rule wants that.

        What a silence keeps back is told when the silence ends, if it is still true. Whoever was told that something
        began is told that it is over, silence or not.
        """
        if self.state not in OPEN:
            return self._over()
        if silenced:
            return None
        if self._told is not self.state:
            self._told, self._told_at = self.state, now
            return Word.NEW
        if rule.repeat is not None and now - self._told_at >= rule.repeat:
            self._told_at = now
            return Word.AGAIN
        return None

    # ---- within

    def _event(self, rule: AlertRule, value: float | None, now: float) -> AlertEvent | None:
        holds = rule.condition.holds(value, self.state is AlertState.FIRING)
        if holds is None:
            match rule.no_data:
                case NoData.KEEP:
                    return None
                case NoData.NO_DATA:
                    return self._missing(rule, now)
                case other:
                    holds = other is NoData.ALERTING
        self._lost = None
        return self._holding(rule, now) if holds else self._not_holding(rule, now)

    def _missing(self, rule: AlertRule, now: float) -> AlertEvent | None:
        self._lost = now if self._lost is None else self._lost
        if now - self._lost < rule.for_:
            return None
        self._held = self._clear = None
        return AlertEvent.LOST

    def _holding(self, rule: AlertRule, now: float) -> AlertEvent:
        self._clear = None
        self._held = now if self._held is None else self._held
        return AlertEvent.HELD if now - self._held >= rule.for_ else AlertEvent.BREACHED

    def _not_holding(self, rule: AlertRule, now: float) -> AlertEvent | None:
        self._held = None
        self._clear = now if self._clear is None else self._clear
        if self.state is AlertState.FIRING and now - self._clear < rule.keep_firing_for:
            return None
        if self.state is AlertState.RESOLVED:
            return None
        return AlertEvent.CLEARED

    def _enter(self, state: AlertState, now: float) -> None:
        if state is self.state:
            return
        self.state, self.since = state, now
        if state is not AlertState.RESOLVED:
            self.began = now

    def _over(self) -> Word | None:
        if self._told is None or self.state is not AlertState.RESOLVED:
            return None
        self._told = None
        return Word.NEW
