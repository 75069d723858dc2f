"""The command line's words → the state a run starts with.

    docs README.md --input words=200 --input-json more.json   →   {"args": ["docs", "README.md"], "words": 200, …}

`--input` wins over `--input-json`. What cannot be read is an InputError, or click's own error where a word is wrong.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from agentflow.cli.load import AnyFlow
from agentflow.core.schema import FieldValidator
from agentflow.errors import InputError

__all__ = ["read_input", "read_pairs"]

ARGS: Final = "args"


def read_input(flow: AnyFlow, *, args: Sequence[str], pairs: Sequence[str], json_file: str | None) -> dict[str, object]:
    """The state to start with. `args` is left out where the flow's schema does not want it and none were given.

    Raises InputError, and click.UsageError for words that make no sense.
    """
    state = {} if json_file is None else _object(json_file)
    state |= read_pairs(pairs, "--input")
    if ARGS in state and args:
        raise click.UsageError(f"{ARGS} is given twice: as arguments, and as input")
    if args or (ARGS not in state and _takes_args(flow)):
        _check_takes_args(flow)
        state[ARGS] = list(args)
    return state


def _takes_args(flow: AnyFlow) -> bool:
    schema = flow.schema
    return schema is None or (isinstance(schema, FieldValidator) and ARGS in schema.types)


def _check_takes_args(flow: AnyFlow) -> None:
    schema = flow.schema
    if isinstance(schema, FieldValidator) and ARGS not in schema.types:
        example = next(iter(schema.types), "key")
        raise InputError(
            f"{flow.name} takes no arguments; give its input by name ({', '.join(schema.types)}), "
            f"as in --input {example}=…",
            field=ARGS,
        )


def read_pairs(pairs: Sequence[str], option: str) -> dict[str, object]:
    """What KEY=VALUE, given several times, says. Raises click.BadParameter."""
    values: dict[str, object] = {}
    for pair in pairs:
        key, sign, text = pair.partition("=")
        if not sign or not key:
            raise click.BadParameter(f"{pair!r} is not KEY=VALUE, as in topic=tides", param_hint=option)
        if key in values:
            raise click.BadParameter(f"{key} is given twice", param_hint=option)
        values[key] = _value(text)
    return values


def _value(text: str) -> object:
    """JSON where it is JSON: 3, true, null, [1, 2], "3". Everything else is text."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except ValueError:
        return text


def _object(file: str) -> dict[str, object]:
    name = "standard input" if file == "-" else file
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise InputError(f"{name}: {error.strerror}; --input-json takes a file with a JSON object, or -") from error
    try:
        values = json.loads(data.decode("utf-8-sig"), parse_constant=_refuse)
    except json.JSONDecodeError as error:
        raise InputError(f"{name}:{error.lineno}:{error.colno}: this is not JSON: {error.msg}") from error
    except ValueError as error:
        raise InputError(f"{name}: this is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f'{name}: a JSON object is needed, as in {{"topic": "tides"}}, not {type(values).__name__}')
    return values


def _refuse(word: str) -> object:
    raise ValueError(f"{word} is no JSON number")
