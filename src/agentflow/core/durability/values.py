"""The values that durable runs keep, as JSON text: what is stored comes back equal and of the same type.

    encode({"when": date(2026, 11, 27)}, "state")  ──▶  '{"when":{"$date":"2026-11-27"}}'  ──▶  decode(…)

What JSON knows is stored as it is. Anything else is an object of one key, a tag that begins with "$": ours for types
of the standard library (`standard_forms.py`) and our errors (`error_forms.py`), "$:name" for what a program registers
with `@storable` (`type_registry.py`). A dict that looks like that is stored in pairs, as is one with other keys than
texts: {"$dict": [[1, "one"]]}. So no value can pass for another, and no text can name a thing that was not registered.

Refused is what would not come back equal: an unregistered type, and a subclass of a registered one. Two references to
one value become two values. An equal value has the same text in every process, as far as its dicts have the same order.
A value must not be changed while it is being stored.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from types import NoneType
from typing import Final, cast

from agentflow.core.durability.error_forms import StoredCause
from agentflow.core.durability.forms import Form, Misfit, full_name, listed, text_of
from agentflow.core.durability.put_off import catch_up
from agentflow.core.durability.type_registry import REGISTERED, registry, storable
from agentflow.errors import SerializationError, describe

__all__ = ["StoredCause", "decode", "encode", "storable"]

_DEEPEST: Final = 200
"""How many values may stand within each other: what is written in a shallow stack is to be read in a deep one."""

_PAIRS: Final = "$dict"
_FLOAT: Final = "$float"  # nan and the infinities, which are no numbers in JSON

_QUICK: Final[frozenset[type]] = frozenset({str, int, float, bool, NoneType})
"""Stored as they are; that a few of them cannot be shows in the text as a whole."""
_CAREFUL: Final[frozenset[type]] = frozenset({bool, NoneType})

_LEAVES: Final = _QUICK - _CAREFUL

_dumps = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")).encode


def encode(value: object, path: str) -> str:
    """The value as JSON text. Raises SerializationError, naming where in `path` it is that something cannot be stored,
    its type, and what to do."""
    try:
        text = _dumps(_tree(value, 0, _QUICK))
        if not text.isascii():
            text.encode()
        return text
    except (Misfit, ValueError):  # a leaf that JSON has no word for is looked for now, and not in each value
        return _encode_carefully(value, path)
    except RuntimeError as error:
        raise SerializationError(path, f"cannot be stored: {error}") from error


def _encode_carefully(value: object, path: str) -> str:
    try:
        text = _dumps(_tree(value, 0, _CAREFUL))
        text.encode()
        return text
    except Misfit as misfit:
        raise misfit.told_of(path) from misfit.__cause__
    except (RuntimeError, ValueError) as error:  # too deep for what is left of the stack, or changed meanwhile
        raise SerializationError(path, f"cannot be stored: {error}") from error


def decode(text: str, path: str = "value") -> object:
    """The value that `encode` made the text of. Raises SerializationError for a damaged text, for a name that nothing
    is registered by, and for a stored value that no longer fits its class; `path` says which text it is."""
    try:
        return _read_tagged(text) if '"$' in text else _read(text)
    except Misfit as misfit:
        raise SerializationError(path, misfit.message) from misfit.__cause__
    except RecursionError as error:
        raise SerializationError(path, f"nested too deep to be read: {error}") from error
    except ValueError as error:
        raise SerializationError(path, f"damaged, as it is no JSON: {error}") from error


# ---- writing


def _tree(value: object, depth: int, plain: frozenset[type]) -> object:
    """The value as JSON knows it; itself where it is all JSON already."""
    kind = type(value)
    if kind in plain:
        return value
    if kind in _LEAVES:
        return _leaf(value)
    if depth > _DEEPEST:
        raise Misfit(f"nested more than {_DEEPEST} levels deep", endless=True)
    if kind is dict:
        return _mapping(cast("dict[object, object]", value), depth + 1, plain)
    if kind is list:
        return _sequence(cast("list[object]", value), depth + 1, plain)
    return _tagged(value, depth + 1, plain)


def _mapping(value: dict[object, object], depth: int, plain: frozenset[type]) -> object:
    changed = value
    key: object = None
    try:
        for key, item in value.items():
            if type(key) is not str:
                break
            if plain is _CAREFUL:
                _leaf(key)
            if type(item) not in plain and (tree := _tree(item, depth, plain)) is not item:
                if changed is value:
                    changed = value.copy()
                changed[key] = tree
        else:
            if len(value) != 1 or cast("str", key)[:1] != "$":
                return changed
    except Misfit as misfit:
        misfit.trail.append((f".{key}", value))
        raise
    return _pairs(value, depth + 2, plain)


def _pairs(value: Mapping[object, object], depth: int, plain: frozenset[type]) -> object:
    pairs: list[object] = []
    key: object = None
    try:
        for key, item in value.items():
            pairs.append([_tree(key, depth, plain), _tree(item, depth, plain)])
    except Misfit as misfit:
        misfit.trail.append((f"[{_short(key)}]", value))
        raise
    return {_PAIRS: pairs}


def _sequence(value: list[object], depth: int, plain: frozenset[type]) -> object:
    changed = value
    index = 0
    try:
        for index, item in enumerate(value):
            if type(item) not in plain and (tree := _tree(item, depth, plain)) is not item:
                if changed is value:
                    changed = value.copy()
                changed[index] = tree
    except Misfit as misfit:
        misfit.trail.append((f"[{index}]", value))
        raise
    return changed


def _tagged(value: object, depth: int, plain: frozenset[type]) -> object:
    form = registry.by_type.get(type(value)) or _late(type(value))
    if form is None:
        raise Misfit(_refusal(type(value)))
    try:
        return {form.tag: form.apart(value, lambda part: _tree(part, depth + 1, plain))}
    except Misfit as misfit:
        misfit.trail.append(("", value))
        raise
    except RecursionError:
        raise
    except Exception as error:  # a program's own `to`, or property, may raise anything
        raise Misfit(f"a {full_name(type(value))} cannot be taken apart: {describe(error)}") from error


def _late(kind: type) -> Form | None:
    """The form of a type whose registration was put off."""
    catch_up()
    return registry.by_type.get(kind)


def _leaf(value: object) -> object:
    """Look closely at a leaf: most are as JSON has them, some need a tag, and some have no text at all."""
    try:
        if isinstance(value, float):
            return value if math.isfinite(value) else {_FLOAT: repr(value)}
        str(value).encode()
    except UnicodeEncodeError:
        raise Misfit("the str holds a lone surrogate, which no file can store") from None
    except ValueError as error:
        raise Misfit(f"the int is too large for JSON: {error}") from None
    return value


def _refusal(kind: type) -> str:
    base = next((base for base in kind.__mro__[1:] if base in registry.by_type or base in _QUICK | {dict, list}), None)
    as_base = f"it would come back as a mere {full_name(base)}; " if base else ""
    return (
        f"a value of type {full_name(kind)} cannot be stored and come back equal: "
        f"{as_base}register it with @storable, or keep it in the run's context"
    )


def _short(key: object) -> str:
    """A key as a path shows it: it may be anything, and one without a short text is named by its type."""
    if type(key) in _QUICK and not (isinstance(key, int) and key.bit_length() > 64):
        return repr(key)
    return f"a {type(key).__name__}"


# ---- reading


def _revive(stored: dict[str, object]) -> object:
    """What an object of the text stands for: itself, unless its only key is a tag."""
    if len(stored) != 1:
        return stored
    (tag,) = stored
    if tag[:1] != "$":
        return stored
    try:
        return _together(tag, stored[tag])
    except (Misfit, RecursionError):
        raise
    except Exception as error:  # a program's own `back` may raise anything
        raise Misfit(
            f"what was stored as {tag.removeprefix(REGISTERED)!r} cannot be read: {describe(error)}"
        ) from error


def _together(tag: str, stored: object) -> object:
    form = registry.by_tag.get(tag)
    if form is not None:
        return form.together(stored)
    if tag == _PAIRS:
        return _from_pairs(listed(stored))
    if tag == _FLOAT:
        return float(text_of(stored))
    if tag.startswith(REGISTERED):
        catch_up()
        if tag in registry.by_tag:
            return registry.by_tag[tag].together(stored)
        name = tag.removeprefix(REGISTERED)
        raise Misfit(f"no type is registered as {name!r}: register it with @storable before the run is resumed")
    raise Misfit(f"{tag!r} is no tag of this version: the text is damaged, or a newer version wrote it")


def _from_pairs(pairs: list[object]) -> dict[object, object]:
    made: dict[object, object] = {}
    for pair in pairs:
        key, item = listed(pair)
        made[key] = item
    return made


def _refuse_constant(word: str) -> object:
    raise ValueError(f"{word} is not JSON")


_read = json.JSONDecoder(parse_constant=_refuse_constant).decode
_read_tagged = json.JSONDecoder(object_hook=_revive, parse_constant=_refuse_constant).decode
