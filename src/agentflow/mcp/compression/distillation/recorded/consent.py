"""Whether what was said in a run may teach another model: nobody's words are taken without a yes, and a no always wins.

await emit("consent", {"training": True})        in the run, where the person who speaks has agreed
may_train(run_id, False)                         later, from anywhere that a run store watches: taken back

Consent()                                        runs that say yes (the default)
Consent(tenants=frozenset({"acme"}))             and those of tenants whose contract does
Consent(required=False)                          all but those that say no: for texts that are nobody's
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from agentflow.core.observability.events import ExecutionEvent
from agentflow.core.observability.feedback import feedback
from agentflow.core.observability.store import Feedback

__all__ = ["KIND", "Consent", "Verdict", "may_train", "statements"]

KIND: Final = "consent"
YES: Final = "training: yes"
NO: Final = "training: no"
Verdict: TypeAlias = Literal["granted", "refused", "not given"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Consent:
    """Which runs may be taken. `required` False takes those, too, in which nobody has said anything."""

    required: bool = True
    tenants: frozenset[str] = frozenset()

    def verdict(self, said: Iterable[bool], tenant: str | None) -> Verdict:
        """Of a run in which this was `said`. What is "not given" is not taken."""
        known = list(said)
        if not all(known):
            return "refused"
        return "granted" if known or not self.required or tenant in self.tenants else "not given"


def may_train(run_id: str, allowed: bool) -> None:
    """Record that what was said in a run may, or may not, teach another model. It may be said at any time.

    Raises ConfigurationError where no run store watches this process.
    """
    feedback(run_id, label=YES if allowed else NO)


def statements(events: Iterable[ExecutionEvent], feedbacks: Iterable[Feedback]) -> list[bool]:
    """Each yes and no of a run. A consent event that does not say `training: true` is a no."""
    said = [event.data.get("training") is True for event in events if event.kind == KIND]
    return said + [each.label == YES for each in feedbacks if each.label in (YES, NO)]
