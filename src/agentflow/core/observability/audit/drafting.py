"""From what was done to what is written of it: names bounded, keys and people redacted, contents sealed.

    Deed ──check──redact──bound──▶ Draft          outside of the log's lock, as it is most of the work

Resource, data and content are redacted by the log's redactor. Actor, tenant and ids are names, which an audit is about:
only keys are taken out of those.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from agentflow.core.observability.audit.actions import Outcome, check
from agentflow.core.observability.audit.actors import current_actor, system_user
from agentflow.core.observability.audit.canonical import canonical
from agentflow.core.observability.audit.content import ContentSealer
from agentflow.core.observability.audit.deed import Deed
from agentflow.core.observability.audit.keys import AuditKey
from agentflow.core.observability.audit.record import Draft
from agentflow.core.observability.plain import Plain
from agentflow.core.observability.redaction.redactor import Redactor

__all__ = ["Drafter", "is_heavy"]

_LONGEST_NAME: Final = 512  # characters of an actor, a resource, an id
_HEAVY: Final = 100_000  # characters that are looked through in some 10 ms
_LARGEST_DATA: Final = 64 * 1024  # bytes of canonical JSON


class Drafter:
    """Serves any number of threads."""

    def __init__(self, key: AuditKey, redactor: Redactor, contents: ContentSealer, actor: str | None) -> None:
        self._key = key
        self._redactor = redactor
        self._names = Redactor(emails=False, cards=False)
        self._contents = contents
        self._actor = actor

    def of(self, deed: Deed) -> Draft:
        """Raises ValueError for a deed that lacks what its action must say, OSError where a content key cannot be
        made."""
        data = deed.data or {}
        check(deed.action, {"resource": deed.resource, "run": deed.run, "key": deed.key}, data)
        return Draft.of(
            deed.action,
            deed.outcome,
            actor=self._name(deed.actor or current_actor() or self._actor or system_user()),
            tenant=self._name(deed.tenant),
            resource=None if deed.resource is None else _bounded(self._redactor.redact(deed.resource)),
            run=self._name(deed.run),
            trace=self._name(deed.trace),
            key=self._name(deed.key),
            content="null" if deed.content is None else self._content(deed),
            data=self._facts(data) if data else "{}",
        )

    def own(self, action: str, facts: Mapping[str, Plain], outcome: str = Outcome.OK) -> Draft:
        """A record of the log about itself."""
        actor = self._name(self._actor or system_user())
        return Draft.of(action, outcome, actor=actor, data=canonical(dict(facts)).decode())

    def _name(self, text: str | None) -> str | None:
        return None if text is None else _bounded(self._names.redact(text))

    def _facts(self, data: Mapping[str, object]) -> str:
        facts = canonical(self._redactor.redact_json(data, longest=_LARGEST_DATA))
        if len(facts) > _LARGEST_DATA:
            digest = self._key.sign("data", facts)
            facts = canonical({"bytes": len(facts), "digest": digest, "left_out": "too large"})
        return facts.decode()

    def _content(self, deed: Deed) -> str:
        if self._contents.mode == "none":
            return "null"
        cleaned = self._redactor.redact_json(deed.content)
        sealed = self._contents.seal(cleaned, self._key.subject(deed.subject or deed.tenant or "-"))
        return "null" if sealed is None else canonical(sealed).decode()


def is_heavy(content: object) -> bool:
    """Whether going over it would keep an event loop from its other work for a noticeable time."""
    waiting, characters = [content], 0
    while waiting and characters <= _HEAVY:
        value = waiting.pop()
        if isinstance(value, str):
            characters += len(value)
        elif isinstance(value, Mapping):
            characters += len(value)
            waiting += value.values() if len(value) <= _HEAVY else ()
        elif isinstance(value, list | tuple):
            characters += len(value)
            waiting += value if len(value) <= _HEAVY else ()
    return characters > _HEAVY


def _bounded(text: str) -> str:
    text = text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
    return text if len(text) <= _LONGEST_NAME else f"{text[:_LONGEST_NAME]}…"
