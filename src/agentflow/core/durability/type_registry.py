"""Which types can be stored, and under which names: a list that only the program itself adds to.

    @storable                                   by its class's name: "Finding"
    @storable("finding/1")                      by a name that outlives the class's
    storable("money", Money, to=lambda m: [m.amount, m.currency], back=lambda parts: Money(*parts))

    {"$:Finding": …}  ──▶  the class registered as "Finding", else an error: nothing is imported by its name

The name is `__name__`, so that a class may move between modules; give one where two classes are called alike. A name
belongs to one class, but a class may have several: it is written under the latest and read under all, and that is how
to rename it. A class of the same module and qualified name takes the place of the earlier one, as a reloaded module's
does. A subclass has to be registered for itself, since it would come back as its base.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from types import NoneType
from typing import TypeVar, cast, overload

from agentflow.core.durability.class_forms import class_form
from agentflow.core.durability.error_forms import ERROR_FORMS
from agentflow.core.durability.forms import Form, full_name, whole
from agentflow.core.durability.standard_forms import STANDARD_FORMS
from agentflow.errors import ConfigurationError

__all__ = ["REGISTERED", "TypeRegistry", "registry", "storable"]

T = TypeVar("T")
S = TypeVar("S")

REGISTERED = "$:"
"""What a tag begins with that names a registered type. The other tags are ours."""


_OF_JSON = frozenset({NoneType, bool, int, float, str, list, dict})


class TypeRegistry:
    """Forms by the type of what is written, and by the tag of what is read. Safe to use from threads."""

    def __init__(self) -> None:
        self.by_type: dict[type, Form] = {**STANDARD_FORMS, **ERROR_FORMS}
        self.by_tag: dict[str, Form] = {form.tag: form for form in self.by_type.values()}
        self._owners: dict[str, type] = {}
        self._lock = Lock()

    def add(self, kind: type, form: Form) -> None:
        """Raises ConfigurationError where another type has the tag, or where the type is stored already by us."""
        with self._lock:
            owner = self._owners.get(form.tag)
            name = form.tag.removeprefix(REGISTERED)
            if owner is not None and full_name(owner) != full_name(kind):
                raise ConfigurationError(
                    f"{full_name(owner)} and {full_name(kind)} would both be stored as {name!r}: "
                    f'give one of them another name, @storable("…")'
                )
            present = self.by_type.get(kind)
            if kind in _OF_JSON or (present is not None and not present.tag.startswith(REGISTERED)):
                raise ConfigurationError(f"a {full_name(kind)} can be stored as it is: {name!r} is not needed")
            if owner is not None and owner is not kind:
                self.by_type.pop(owner, None)
            self._owners[form.tag] = kind
            self.by_type[kind] = self.by_tag[form.tag] = form


registry = TypeRegistry()


@overload
def storable(kind: type[T], /) -> type[T]: ...
@overload
def storable(name: str, /) -> Callable[[type[T]], type[T]]: ...
@overload
def storable(name: str, kind: type[T], /) -> type[T]: ...
@overload
def storable(name: str, kind: type[T], /, *, to: Callable[[T], S], back: Callable[[S], T]) -> type[T]: ...
def storable(
    name: str | type[T],
    kind: type[T] | None = None,
    /,
    *,
    to: Callable[[T], S] | None = None,
    back: Callable[[S], T] | None = None,
) -> type[T] | Callable[[type[T]], type[T]]:
    """Let values of a type be stored with durable runs. The class itself is handed back, unchanged.

    `to` gives something that can be stored, and `back` gets an equal thing; without them the type is a dataclass, an
    enum, a NamedTuple, a pydantic model, a msgspec Struct or an error of ours. Raises ConfigurationError for any other,
    and for a name that another type has.
    """
    if not isinstance(name, str):
        return _register(getattr(name, "__name__", ""), name, None, None)
    if kind is not None:
        return _register(name, kind, to, back)
    if to is not None or back is not None:
        raise ConfigurationError(f"storable({name!r}, …): name the type that `to` and `back` are of")
    return lambda decorated: _register(name, decorated, None, None)


def _register(name: str, kind: type[T], to: Callable[[T], S] | None, back: Callable[[S], T] | None) -> type[T]:
    if not isinstance(kind, type):
        raise ConfigurationError(f"storable takes a class, not {kind!r}")
    if not name:
        raise ConfigurationError(f"a {full_name(kind)} needs a name to be stored under")
    if (to is None) != (back is None):
        raise ConfigurationError(f"storable({name!r}, …) needs both: `to`, and `back` for the way back")
    tag = REGISTERED + name
    if to is None or back is None:
        registry.add(kind, class_form(tag, kind))
    else:
        apart = whole(cast("Callable[[object], object]", to))
        registry.add(kind, Form(tag, apart, cast("Callable[[object], object]", back)))
    return kind
