"""How errors are stored: ours as they are, and what caused them at least in words.

    NodeError ── node, phase, attempt, siblings          stored, and the same again
        └── __cause__: ServerError                       ours: the same again
            └── __cause__: ClientOSError                 another's: a StoredCause that says its type and its words

An error in the state (`on_error="collect"`) is to be read after a restart as before it, so its text, attributes and
notes are kept, not its traceback. What caused it may be of any type, and is never found again by a name: that is why
it comes back in words. An attribute that cannot be stored is left out where the class says what it is otherwise, as
with the `response` of an OutputError whose type nobody registered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import cast

from agentflow.core.durability.forms import Form, Inner, Misfit, listed, mapped, text_of
from agentflow.core.durability.standard_forms import TUPLE
from agentflow.errors import AgentFlowError

__all__ = ["ERROR_FORMS", "StoredCause", "error_form"]

_OF_THE_PROCESS = "_repeated_at"  # by the clock of one process, so it says nothing to another


class StoredCause(Exception):
    """What caused an error, as far as it was kept: the name of its type, and its words.

    It is never raised. `str(cause)` is "ValueError: too long".
    """

    speaks_for_itself = True  # to `describe`, which would name this class

    def __init__(self, type_name: str, message: str) -> None:
        super().__init__(type_name, message)
        self.type_name = type_name
        self.message = message

    def __str__(self) -> str:
        return f"{self.type_name}: {self.message}" if self.message else self.type_name


def error_form(tag: str, kind: type[AgentFlowError]) -> Form:
    """The form of an error of ours, or of one derived from them."""
    return Form(tag, _apart, _together(kind))


def _apart(value: object, inner: Inner) -> object:
    error = cast("AgentFlowError", value)
    facts = {name: fact for name, fact in vars(error).items() if name != _OF_THE_PROCESS and name.isidentifier()}
    kept: dict[str, object] = {}
    for name, fact in facts.items():
        try:
            kept[name] = _loosely(fact, inner)
        except Misfit as misfit:
            if not hasattr(type(error), name):
                misfit.trail.append((f".{name}", error))
                raise
    return [inner(list(error.args)), kept, _loosely(error.__cause__, inner)]


def _loosely(value: object, inner: Inner) -> object:
    """An error that cannot be stored becomes words, and so does each of several."""
    if type(value) is tuple and any(isinstance(item, BaseException) for item in value):
        return {TUPLE: [_loosely(item, inner) for item in value]}
    if not isinstance(value, BaseException):
        return inner(value)
    try:
        return inner(value)
    except Misfit:
        return inner(StoredCause(type(value).__name__, _words(value)))


def _words(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - an error that cannot say what it is has no words, and is still the cause
        return ""
    return text.encode(errors="backslashreplace").decode()


def _together(kind: type[AgentFlowError]) -> Callable[[object], AgentFlowError]:
    def together(stored: object) -> AgentFlowError:
        args, facts, cause = listed(stored)
        error = kind.__new__(kind)
        error.args = tuple(listed(args))
        vars(error).update(mapped(facts))
        error.__cause__ = cast("BaseException | None", cause)  # anything else is a TypeError
        return error

    return together


def _cause_apart(value: object, inner: Inner) -> object:
    cause = cast("StoredCause", value)
    return inner([cause.type_name, cause.message])


def _cause_together(stored: object) -> StoredCause:
    type_name, message = map(text_of, listed(stored))
    return StoredCause(type_name, message)


ERROR_FORMS: Mapping[type, Form] = {
    StoredCause: Form("$cause", _cause_apart, _cause_together),
    **{
        kind: error_form(f"${kind.__name__}", kind)
        for kind in vars(import_module("agentflow.errors")).values()
        if isinstance(kind, type) and issubclass(kind, AgentFlowError)
    },
}
