"""What the nodes of a run share: a mapping of names to values, typed where it is read through a `Key`.

    root ──────── {"topic": "tides"}
     ├─ view ──── reads the root, keeps its writes to itself
     └─ view ──── another branch: blind to its sibling until both join

A branch of a parallel section works on its own *view*. At the join the views' writes are merged, and every conflict is
found before any write is applied. Values are never copied, so a view protects names, not the insides of values: a list
that two branches append to is invisible to all of this.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import (
    Callable,
    ItemsView,
    Iterable,
    Iterator,
    KeysView,
    Mapping,
    MutableMapping,
    Sequence,
    ValuesView,
)
from dataclasses import dataclass, field
from threading import RLock
from typing import Any, Final, Generic, TypeAlias, TypeVar, cast, overload
from weakref import WeakKeyDictionary

from agentflow.errors import ContextError, SerializationError, StateConflict, StateError, StateKeyError

__all__ = ["ITEM", "Inputs", "Key", "SharedState", "StateDiff", "Writes", "key_name"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
D = TypeVar("D")


class ReadableKey(Generic[T_co]):
    """The reading side of a `Key`. It is covariant, as only a side without writing can be: what a `Key[list[str]]`
    reads may go where a `Sequence[str]` is wanted."""

    __slots__ = ("name",)

    name: str


class Key(ReadableKey[T], Generic[T]):
    """A name in the shared state with the type of its value: `TOPIC = Key[str]("topic")`.

    With `reduce`, parallel branches may contribute to the key with `state.add(KEY, value)`: contributions are folded in
    branch order, `reduce(so_far, value)`, starting from `initial()` (without it, from the first contribution).

        SEEN = Key[list[str]]("seen", reduce=operator.add, initial=list)
    """

    __slots__ = ("__weakref__", "initial", "reduce")

    def __init__(
        self, name: str, *, reduce: Callable[[T, T], T] | None = None, initial: Callable[[], T] | None = None
    ) -> None:
        if not name:
            raise ValueError("a key needs a name")
        self.name = name
        self.reduce = reduce
        self.initial = initial
        if reduce is not None:
            _reducing.setdefault(name, WeakKeyDictionary())[self] = None

    @property
    def reducer(self) -> str:
        """The name of its reducer, by which a durable run finds the key again; of a lambda, with its module's."""
        named: Any = self.reduce if hasattr(self.reduce, "__qualname__") else type(self.reduce)
        name = str(named.__qualname__)
        return f"{named.__module__}:{name}" if "<" in name else name

    def fold(self, so_far: T | _Absent, value: T) -> T:
        """The key's value once `value` has been contributed."""
        if self.reduce is None:
            raise StateError(f"{self.name!r} has no reducer: declare Key({self.name!r}, reduce=…) to add to it")
        if isinstance(so_far, _Absent):
            if self.initial is None:
                return value
            so_far = self.initial()
        return self.reduce(so_far, value)

    def __repr__(self) -> str:
        return f"Key({self.name!r})"


_reducing: Final[dict[str, WeakKeyDictionary[Key[Any], None]]] = {}
"""The keys with reducers that this program has, by name, in the order in which they were made: what a run added to one
is folded with it when it goes on."""


def reducing_key(name: str, reducer: str) -> Key[Any]:
    """The key of that name, with a reducer of that name: the latest, as a module may have been loaded again. Raises
    StateError where the program has none."""
    known: list[Key[Any]] = list(_reducing.get(name, ()))
    found: Key[Any] | None = next((key for key in reversed(known) if key.reducer == reducer), None)
    if found is None:
        raise StateError(
            f"what was added to {name!r} cannot be folded: no Key({name!r}, reduce={reducer}) is there any more"
        )
    return found


class _Absent:
    """Stands for a key that is not there, and in a view for one that was deleted."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<absent>"


_ABSENT: Final = _Absent()

Inputs: TypeAlias = "SharedState | Mapping[str, object] | Mapping[Key[Any], object]"

ITEM: Final = Key[object]("item")
"""Where the node of an `Each` finds its item. For a typed one, give `Each` a key of your own: `item=QUERY`."""


def key_name(key: ReadableKey[T] | str) -> str:
    """The name that a key, or a name itself, stands for. Raises StateError for anything else."""
    if isinstance(key, str):
        return key
    if isinstance(key, Key):
        return key.name
    raise StateError(f"a key of the state is a Key or a str, not {type(key).__name__} {key!r}")


@dataclass(frozen=True, slots=True)
class StateDiff:
    """What changed between two states: the new values by key, and the keys that are gone."""

    changed: Mapping[str, object]
    removed: frozenset[str]

    def __bool__(self) -> bool:
        return bool(self.changed or self.removed)


@dataclass(frozen=True, slots=True)
class Writes:
    """What a view wrote: values assigned, names deleted, and contributions (with the name of the key's reducer)."""

    assigned: Mapping[str, object]
    removed: Sequence[str] = ()
    added: Mapping[str, tuple[str, Sequence[object]]] = field(default_factory=dict)


class SharedState(MutableMapping[str, object]):
    """A thread-safe mapping that the nodes of a run share.

    `state[TOPIC]` with a `Key[str]` is a str to a type checker; `state["topic"]` is an object. Single reads and writes
    are atomic; `modify` reads, computes and writes as one step. An empty state is truthy.

    Raises StateKeyError (a KeyError) for a key that is not there.
    """

    __slots__ = ("_adds", "_context", "_data", "_lock", "_parent")

    def __init__(
        self, values: Mapping[str, object] | Mapping[Key[T], object] | None = None, *, context: object = None
    ) -> None:
        self._data: dict[str, object] = {}
        self._adds: dict[str, _Contributions] = {}
        self._lock = RLock()
        self._parent: SharedState | None = None
        self._context = context
        for key, value in (values or {}).items():
            self._data[key_name(key)] = value

    # ---- reading

    @overload
    def __getitem__(self, key: ReadableKey[T]) -> T: ...
    @overload
    def __getitem__(self, key: str) -> object: ...
    def __getitem__(self, key: ReadableKey[T] | str) -> object:
        name = key if isinstance(key, str) else key_name(key)
        value = self._find(name)
        if value is _ABSENT:
            raise StateKeyError(name, difflib.get_close_matches(name, list(self), n=2))
        return value

    @overload
    def get(self, key: ReadableKey[T]) -> T | None: ...
    @overload
    def get(self, key: Key[T], default: T) -> T: ...
    @overload
    def get(self, key: ReadableKey[T], default: D) -> T | D: ...
    @overload
    def get(self, key: str, default: object = None) -> object: ...
    def get(  # pyright: ignore[reportIncompatibleMethodOverride]  # mypy sees that Mapping.get's overloads are covered
        self, key: ReadableKey[T] | str, default: object = None
    ) -> object:
        value = self._find(key_name(key))
        return default if value is _ABSENT else value

    def _find(self, name: str) -> object:
        """The value that this view sees, or `_ABSENT`."""
        layer: SharedState | None = self
        while layer is not None:
            value = layer._data.get(name, _MISSING)
            if value is not _MISSING:
                return value
            layer = layer._parent
        return _ABSENT

    def __contains__(self, key: object) -> bool:
        return isinstance(key, Key | str) and self._find(key_name(key)) is not _ABSENT

    def __iter__(self) -> Iterator[str]:
        return iter(self.snapshot())

    def __len__(self) -> int:
        return len(self.snapshot())

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"SharedState({', '.join(sorted(self))})"

    def keys(self) -> KeysView[str]:
        return self.snapshot().keys()

    def values(self) -> ValuesView[object]:
        return self.snapshot().values()

    def items(self) -> ItemsView[str, object]:
        return self.snapshot().items()

    def snapshot(self) -> dict[str, object]:
        """All names and values as a plain dictionary of its own; the values are the same objects."""
        with self._lock:
            merged = self._parent.snapshot() if self._parent else {}
            merged.update(self._data)
        return {name: value for name, value in merged.items() if value is not _ABSENT}

    def diff(self, before: Mapping[str, object]) -> StateDiff:
        """What changed since `before`, an earlier `snapshot()` or another state."""
        now = self.snapshot()
        changed = {k: v for k, v in now.items() if k not in before or not _same(before[k], v)}
        return StateDiff(changed, frozenset(before) - frozenset(now))

    def context(self, kind: type[T]) -> T:
        """What was given to the run as `context=`, checked to be a `kind`. It is never stored.

        Raises ContextError when there is none or it is something else.
        """
        if isinstance(self._context, kind):
            return self._context
        found = "no context" if self._context is None else f"a {type(self._context).__name__}"
        raise ContextError(f"this run has {found}; start it with run(…, context={kind.__name__}(…))")

    # ---- writing

    @overload
    def __setitem__(self, key: Key[T], value: T) -> None: ...
    @overload
    def __setitem__(self, key: str, value: object) -> None: ...
    def __setitem__(self, key: Key[T] | str, value: object) -> None:
        name = key if isinstance(key, str) else key_name(key)
        with self._lock:
            self._data[name] = value
            if self._adds:
                self._adds.pop(name, None)

    def __delitem__(self, key: Key[T] | str) -> None:
        name = key_name(key)
        with self._lock:
            self[name]  # a StateKeyError names what is missing
            self._remove(name)

    def _remove(self, name: str) -> None:
        """A view remembers the deletion, even of a name it alone had: it counts as an assignment at the join."""
        if self._parent is None:
            self._data.pop(name, None)
        else:
            self[name] = _ABSENT

    @overload
    def modify(self, key: Key[T], change: Callable[[T], T]) -> T: ...
    @overload
    def modify(self, key: str, change: Callable[[object], object]) -> object: ...
    def modify(self, key: Key[T] | str, change: Callable[[T], T] | Callable[[object], object]) -> object:
        """Replace a value by `change(value)` in one atomic step and return the new one.

        In a parallel branch this counts as an assignment. `change` must be quick and must not await.
        """
        with self._lock:
            value = cast("Callable[[object], object]", change)(self[key_name(key)])
            self[key_name(key)] = value
        return value

    def add(self, key: Key[T], value: T) -> None:
        """Contribute to a key through its reducer; parallel branches may add to the same key.

        Raises StateError when the key has no reducer.
        """
        with self._lock:
            so_far = cast("T | _Absent", self._find(key.name))
            folded = key.fold(so_far, value)
            assigned_here = key.name in self._data and key.name not in self._adds
            if self._parent is not None and not assigned_here:
                self._adds.setdefault(key.name, _Contributions(key)).values.append(value)
            self._data[key.name] = folded

    # ---- views

    def view(self, values: Mapping[str, object] | None = None) -> SharedState:
        """A state that reads this one and keeps its writes to itself, until `join` or `apply`.

        `values` are seen in the view from the start. This state must not be written while views of it are in use.
        """
        view = SharedState.__new__(SharedState)
        view._data = dict(values) if values else {}
        view._adds = {}
        view._lock = RLock()
        view._parent = self
        view._context = self._context
        return view

    def apart(self, values: Mapping[str, object]) -> SharedState:
        """A state of its own with the same context, as a nested flow's with `using()`."""
        return SharedState(values, context=self._context)

    def with_context(self, context: object) -> SharedState:
        """The same storage, seen with another context."""
        twin = SharedState.__new__(SharedState)
        twin._data, twin._adds, twin._lock, twin._parent = self._data, self._adds, self._lock, self._parent
        twin._context = context
        return twin

    def own_writes(self) -> frozenset[str]:
        """The names that were written in this view, deletions included."""
        return frozenset(self._data)

    def written(self) -> Writes:
        """What was written in this view, to be written again by `write`."""
        with self._lock:
            added = {name: (adds.key.reducer, tuple(adds.values)) for name, adds in self._adds.items()}
            own = {name: value for name, value in self._data.items() if name not in added}
        removed = [name for name, value in own.items() if value is _ABSENT]
        return Writes({name: value for name, value in own.items() if value is not _ABSENT}, removed, added)

    def write(self, writes: Writes) -> None:
        """Write what another view wrote. Raises StateError where a key that it added to is there no more."""
        with self._lock:
            for name, value in writes.assigned.items():
                self[name] = value
            for name in writes.removed:
                self._remove(name)
            for name, (reducer, values) in writes.added.items():
                key = reducing_key(name, reducer)
                for value in values:
                    self.add(key, value)

    def join(self, branches: Iterable[tuple[str, SharedState]]) -> None:
        """Merge the writes of named branch views, in order. All conflicts are checked before anything is applied.

        Raises StateConflict when two branches assigned one key, or one assigned what another added to.
        """
        written = [(name, view) for name, view in branches if view._data]
        if len(written) > 1:
            _check_conflicts(written)
        for _, view in written:
            self.apply(view)

    def apply(self, view: SharedState) -> None:
        """Take over the writes of one view."""
        with self._lock:
            for name, value in view._data.items():
                contributions = view._adds.get(name)
                if contributions is not None:
                    self._take(contributions)
                elif value is _ABSENT:
                    self._remove(name)
                else:
                    self[name] = value

    def apply_additions(self, view: SharedState) -> None:
        """Take over what a view added through reducers, and nothing else."""
        for contributions in view._adds.values():
            self._take(contributions)

    def _take(self, contributions: _Contributions) -> None:
        for value in contributions.values:
            self.add(contributions.key, value)

    # ---- JSON

    def to_json(self, *, indent: int | None = None) -> str:
        """The state as JSON text; `from_json` gives an equal state back.

        Raises SerializationError, naming key and type, for a value that would not come back equal.
        """
        values = self.snapshot()
        try:
            for name, value in values.items():
                _check_json(name, "a name in the state", [])
                _check_json(value, name, [])
            return json.dumps(values, indent=indent, ensure_ascii=False, allow_nan=False)
        except (ValueError, RecursionError) as error:  # an integer, or a nesting, beyond the interpreter's limit
            raise SerializationError("state", f"too large for JSON: {error}") from error

    @classmethod
    def from_json(cls, text: str | bytes, *, context: object = None) -> SharedState:
        """A state from the text of `to_json`. Raises SerializationError for anything but a JSON object."""
        try:
            values = json.loads(text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise SerializationError("state", f"not JSON: {error}") from error
        if not isinstance(values, dict):
            raise SerializationError("state", f"a JSON object is needed, not {type(values).__name__}")
        return cls(values, context=context)


_MISSING: Final = object()


class _Contributions:
    """What one view added to one key, in order."""

    __slots__ = ("key", "values")

    def __init__(self, key: Key[T]) -> None:
        self.key = cast("Key[object]", key)
        self.values: list[object] = []


def _check_conflicts(branches: Sequence[tuple[str, SharedState]]) -> None:
    assigned: dict[str, str] = {}
    added: dict[str, str] = {}
    for branch, view in branches:
        for name in view._data:
            adds = name in view._adds
            rival = assigned.get(name) or (None if adds else added.get(name))
            if rival is not None:
                raise StateConflict(name, rival, branch)
            (added if adds else assigned)[name] = branch


def _refuse_constant(word: str) -> object:
    raise ValueError(f"{word} is not JSON")


def _same(old: object, new: object) -> bool:
    if old is new:
        return True
    try:
        return bool(old == new)
    except Exception:  # noqa: BLE001 - values that cannot be compared (arrays, say) count as changed
        return False


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_json(value: object, path: str, parents: list[object]) -> None:
    """Refuse whatever JSON would drop, change or choke on. Exact types: a subclass would come back as its base."""
    kind = type(value)
    if kind in (int, bool) or value is None:
        return
    if kind is str:
        if not _is_text(cast("str", value)):
            raise SerializationError(path, "the str holds a lone surrogate, which no file can store")
        return
    if kind is float:
        if not math.isfinite(cast("float", value)):
            raise SerializationError(path, f"{value} is not a JSON number")
        return
    if kind not in (list, dict):
        raise SerializationError(path, f"a {kind.__name__} cannot be stored as JSON and come back equal")
    if any(value is parent for parent in parents):
        raise SerializationError(path, "the value contains itself")
    parents.append(value)
    if isinstance(value, dict):
        for name, inner in value.items():
            if type(name) is not str or not _is_text(name):
                raise SerializationError(path, f"a JSON object has str keys, not {type(name).__name__} {name!r}")
            _check_json(inner, f"{path}.{name}", parents)
    else:
        for index, inner in enumerate(cast("list[object]", value)):
            _check_json(inner, f"{path}[{index}]", parents)
    parents.pop()
