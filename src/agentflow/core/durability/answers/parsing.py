"""What a person types in a terminal, as the answer that is meant.

    "y"          yes/no                        ──▶  True
    "2", "dis"   publish | discard             ──▶  "discard"
    "12.5"       a number                      ──▶  12.5
    "3 of 4"     text                          ──▶  "3 of 4"
    '{"a": 1}'   an object, or anything        ──▶  {"a": 1}

A text is never taken apart where a text is wanted. Where it is one of several things that will do, the others come
first: `int | str` makes a number of "12" and a text of "twelve", `str | None` nothing of "none" and of an empty line.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NoReturn

from agentflow.core.durability.answers.checking import check_at
from agentflow.core.durability.answers.choices import Schema, choices_of, is_choice, options_of, spelled
from agentflow.core.durability.answers.describing import describe_schema
from agentflow.core.durability.answers.misfit import Misfit, listed, shown
from agentflow.core.durability.answers.shapes import whatever
from agentflow.errors import AnswerError

__all__ = ["parse_answer"]

_YES_NO: Final = {"y": True, "yes": True, "true": True, "n": False, "no": False, "false": False}
_NOTHING: Final = ("", "null", "none")


def parse_answer(text: str, schema: Mapping[str, object] | None) -> object:
    """A JSON value that fits the schema. Raises AnswerError, which says what would do."""
    wanted: Schema = schema or {}
    try:
        for meant in _meanings(text, wanted):
            if _fits(meant, wanted):
                return meant
    except Misfit as misfit:
        raise AnswerError(str(misfit)) from None
    _refuse(text, wanted)


def _meanings(text: str, schema: Schema) -> Iterator[object]:
    """What the text may mean, the likeliest first. Raises Misfit where two choices begin so."""
    others = [option for option in options_of(schema) if not is_choice(option)]
    yield from _chosen(text, choices_of(schema), guess=all(_how_vague(option) < 2 for option in others))
    for option in sorted(others, key=_how_vague):
        kinds = option.get("type", "")
        for kind in kinds if isinstance(kinds, list) else [kinds]:
            yield from _READ.get(kind, _anything)(text)


def _how_vague(option: Schema) -> int:
    """A date or the digits of an amount are told from other texts, and any text at all comes last."""
    if option.get("type") in ("string", None):
        return 0 if "format" in option else 2
    return 1


def _chosen(text: str, choices: Sequence[Sequence[object]], *, guess: bool) -> Iterator[object]:
    """The choice that is written so. To `guess` is to take its number or its beginning, too."""
    typed = text.strip()
    word = typed.casefold()
    spelt = [(spelled(way), ways[0]) for ways in choices for way in ways]
    yield from (choice for way, choice in spelt if way == typed)
    yield from (choice for way, choice in spelt if way.casefold() == word)
    if guess and word:
        if not any(way.lstrip("+-")[:1].isdecimal() for way, _ in spelt):
            yield from (ways[0] for number, ways in enumerate(choices, 1) if str(number) == word)
        yield from _begun(word, choices)


def _begun(word: str, choices: Sequence[Sequence[object]]) -> Iterator[object]:
    begun = [ways[0] for ways in choices if any(spelled(way).casefold().startswith(word) for way in ways)]
    if len(begun) > 1:
        raise Misfit(f"{shown(word)} may be {listed(map(spelled, begun), 'or')}: write more of it")
    yield from begun


# ---- by the type that is wanted --------------------------------------------------------------------------------


def _yes_or_no(text: str) -> Iterator[object]:
    word = text.strip().casefold()
    if word in _YES_NO:
        yield _YES_NO[word]


def _nothing(text: str) -> Iterator[object]:
    if text.strip().casefold() in _NOTHING:
        yield None


def _text(text: str) -> Iterator[object]:
    yield text
    if text != text.strip():
        yield text.strip()  # a date with a space behind it


def _json(text: str) -> Iterator[object]:
    try:
        value = json.loads(text)
        whatever(value, "answer")
    except (ValueError, RecursionError, Misfit):  # also NaN, which Python reads and JSON does not have
        return
    yield value


def _anything(text: str) -> Iterator[object]:
    yield from _json(text)
    yield text


_READ: Final[Mapping[str, Callable[[str], Iterator[object]]]] = {
    "boolean": _yes_or_no,
    "null": _nothing,
    "string": _text,
    "integer": _json,
    "number": _json,
    "array": _json,
    "object": _json,
}


def _fits(value: object, schema: Schema) -> bool:
    try:
        check_at("answer", schema, value)
    except (Misfit, RecursionError):
        return False
    return True


def _refuse(text: str, schema: Schema) -> NoReturn:
    """Where it is a list or an object, the place in it says more than the whole."""
    for value in _json(text):
        if isinstance(value, list | dict):
            try:
                check_at("answer", schema, value)
            except Misfit as misfit:
                raise AnswerError(f"{misfit}; wanted is {describe_schema(schema)}") from None
    raise AnswerError(f"{shown(text)} will not do; wanted is {describe_schema(schema)}")
