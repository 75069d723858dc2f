"""Reads outcome tables from CSV, JSON Lines and JSON: one column a model, or one row for each text and model.

    prompt,small,large,small|total_cost,large_response       wide: quality by model; costs, lengths, answers beside it
    text,model,score,cost,output_tokens,propensity           long: `model_column="model"`, as traffic is logged

    table = read_table("outcomes/")                                  every file in the folder; each is a group
    table = read_table("log.jsonl", Columns(text="q", model="model", quality="score"))

What is not said is guessed from the names and values of the columns; `Columns` says it. A quality is a number, or yes
or no; empty, null and nan are unknown. Rows without a text are left out.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np

from agentflow.errors import ConfigurationError
from agentflow.mcp.optimization.router.learning.table import OutcomeTable, token_estimate

__all__ = ["Columns", "read_table"]

Row: TypeAlias = Mapping[str, object]

_TEXTS: Final = ("prompt", "text", "question", "query", "input", "instruction", "request", "problem", "content")
_ENDINGS: Final = (".csv", ".tsv", ".jsonl", ".ndjson", ".json")
_YES: Final = {"true", "yes", "y", "t", "correct", "pass", "passed"}
_NO: Final = {"false", "no", "n", "f", "incorrect", "wrong", "fail", "failed"}
_UNKNOWN: Final = {"", "nan", "null", "none", "na", "n/a", "-"}
_COSTS: Final = ("cost", "total_cost", "cost_usd", "price")
_TOKENS: Final = ("output_tokens", "completion_tokens", "tokens")
_ANSWERS: Final = ("response", "model_response", "answer", "output", "completion")
_SEPARATORS: Final = ("|", "_", ":", "/", ".", " ", "-")


@dataclass(frozen=True, slots=True)
class Columns:
    """Which column is what; None is guessed, or is not there.

    `models` are the columns of qualities in a wide table (a mapping gives them other names: {"fast": "column"}).
    `model` and `quality` make it a long one. `scale` is the best quality, where that is not 1. `group` is what rows
    belong together by; without it, by the file they stand in.
    """

    text: str | None = None
    models: Sequence[str] | Mapping[str, str] | None = None
    group: str | None = None
    input_tokens: str | None = None
    scale: float = 1.0
    model: str | None = None
    quality: str | None = None
    cost: str | None = None
    output_tokens: str | None = None
    propensity: str | None = None


@dataclass(slots=True)
class _Gathered:
    """Columns as they grow; a value of a model is found by (row, model)."""

    texts: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    input_tokens: list[float] = field(default_factory=list)
    models: dict[str, None] = field(default_factory=dict)
    values: dict[str, dict[tuple[int, str], float]] = field(
        default_factory=lambda: {"quality": {}, "cost": {}, "output_tokens": {}, "propensity": {}}
    )

    def row(self, text: str, group: str, input_tokens: float) -> int:
        self.texts.append(text)
        self.groups.append(group)
        self.input_tokens.append(token_estimate(text) if math.isnan(input_tokens) else input_tokens)
        return len(self.texts) - 1

    def put(self, row: int, model: str, **values: float) -> None:
        self.models.setdefault(model)
        for name, value in values.items():
            if not math.isnan(value):
                self.values[name][row, model] = value

    def table(self) -> OutcomeTable:
        models = tuple(self.models)
        places = {model: place for place, model in enumerate(models)}
        matrices = {}
        for name, values in self.values.items():
            matrix = np.full((len(self.texts), len(models)), np.nan)
            for (row, model), value in values.items():
                matrix[row, places[model]] = value
            matrices[name] = matrix
        return OutcomeTable(
            tuple(self.texts),
            models,
            matrices["quality"],
            matrices["cost"],
            matrices["output_tokens"],
            np.array(self.input_tokens, float),
            matrices["propensity"],
            tuple(self.groups),
        )


def read_table(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], columns: Columns | None = None
) -> OutcomeTable:
    """A file, several, or folders of them. Raises ConfigurationError, naming the file, for what is no such table."""
    said = columns or Columns()
    sources = [source] if isinstance(source, str | os.PathLike) else list(source)
    gathered = _Gathered()
    for path in _files(sources):
        rows = _rows(path)
        if not rows:
            continue
        try:
            (_read_long if said.model else _read_wide)(rows, path.stem, said, gathered)
        except ConfigurationError as error:
            raise ConfigurationError(f"{path}: {error}") from error
    if not gathered.texts:
        raise ConfigurationError(f"no rows were found in {', '.join(map(str, sources))}")
    return gathered.table()


# ---- files to rows ---------------------------------------------------------------------------------------------


def _files(sources: Sequence[str | os.PathLike[str]]) -> Iterator[Path]:
    for source in map(Path, sources):
        if source.is_dir():
            yield from (path for path in sorted(source.rglob("*")) if path.suffix.lower() in _ENDINGS)
        elif source.is_file():
            yield source
        else:
            raise ConfigurationError(f"there is no file or folder {source}")


def _rows(path: Path) -> list[Row]:
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read as UTF-8 text: {error}") from error
    try:
        if path.suffix.lower() in (".csv", ".tsv"):
            return _separated(text, "\t" if path.suffix.lower() == ".tsv" else ",")
        if path.suffix.lower() == ".json":
            found = json.loads(text)
        else:
            found = [json.loads(line) for line in text.split("\n") if line.strip()]
    except (ValueError, csv.Error) as error:
        raise ConfigurationError(f"{path} is not what its ending says: {error}") from error
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise ConfigurationError(f"{path} is not a list of objects")
    return found


def _separated(text: str, separator: str) -> list[Row]:
    before = csv.field_size_limit(sys.maxsize)  # prompts are longer than the 128 KiB that csv expects
    try:
        return list(csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, restkey="", restval=""))
    finally:
        csv.field_size_limit(before)


# ---- rows to outcomes ------------------------------------------------------------------------------------------


def _read_wide(rows: Sequence[Row], file: str, said: Columns, gathered: _Gathered) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row if name))
    text = _text_column(rows, names, said)
    models = _model_columns(rows, names, text, said)
    beside = {model: _beside(column, names) for model, column in models.items()}
    for row in rows:
        asked = row.get(text)
        if not isinstance(asked, str) or not asked:
            continue
        number = gathered.row(asked, _group(row, file, said), _number(row.get(said.input_tokens or "")))
        for model, column in models.items():
            cost, tokens, answer = beside[model]
            gathered.put(
                number,
                model,
                quality=_number(row.get(column)) / said.scale,
                cost=_number(row.get(cost)) if cost else math.nan,
                output_tokens=_number(row.get(tokens)) if tokens else _length(row.get(answer) if answer else None),
            )


def _read_long(rows: Sequence[Row], file: str, said: Columns, gathered: _Gathered) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row if name))
    text = _text_column(rows, names, said)
    quality = said.quality or _first(("quality", "score", "correct", "reward", "label", "grade"), names)
    if quality is None or said.model not in names:
        raise ConfigurationError(
            f"a long table has a column of models and one of qualities; there are {', '.join(names)}"
        )
    cost = said.cost or _first(_COSTS, names)
    tokens = said.output_tokens or _first(_TOKENS, names)
    chance = said.propensity or _first(("propensity",), names)
    places: dict[tuple[str, str], int] = {}
    for row in rows:
        asked, model = row.get(text), row.get(said.model or "")
        if not isinstance(asked, str) or not asked or not isinstance(model, str) or not model:
            continue
        group = _group(row, file, said)
        number = places.get((asked, group))
        if number is None or chance is not None or (number, model) in gathered.values["quality"]:
            # Each logged decision is a row of its own; without propensities, models that answered one text share it.
            number = gathered.row(asked, group, _number(row.get(said.input_tokens or "")))
            places[asked, group] = number
        gathered.put(
            number,
            model,
            quality=_number(row.get(quality)) / said.scale,
            cost=_number(row.get(cost)) if cost else math.nan,
            output_tokens=_number(row.get(tokens)) if tokens else math.nan,
            propensity=_number(row.get(chance)) if chance else math.nan,
        )


def _text_column(rows: Sequence[Row], names: Sequence[str], said: Columns) -> str:
    if said.text is not None:
        if said.text not in names:
            raise ConfigurationError(f"there is no column {said.text!r}; there are {', '.join(names)}")
        return said.text
    found = _first(_TEXTS, names)
    if found is None:
        raise ConfigurationError(f"which column is the text? There are {', '.join(names)}")
    return found


def _model_columns(rows: Sequence[Row], names: Sequence[str], text: str, said: Columns) -> dict[str, str]:
    """Columns by the model's name: as said, or all whose values are qualities and which stand beside no other one."""
    if said.models is not None:
        pairs = said.models if isinstance(said.models, Mapping) else {name: name for name in said.models}
        missing = [column for column in pairs.values() if column not in names]
        if missing:
            raise ConfigurationError(f"there is no column {missing[0]!r}; there are {', '.join(names)}")
        return dict(pairs)
    taken = {text, said.group, said.input_tokens}
    graded = [name for name in names if name not in taken and _is_quality([row.get(name) for row in rows], said.scale)]
    further = {other for name in graded for other in _beside(name, names) if other}
    found = {name: name for name in graded if name not in further and name.lower() not in ("", "id", "index")}
    if not found:
        raise ConfigurationError(f"which columns are the models'? None holds qualities; there are {', '.join(names)}")
    return found


def _is_quality(values: Sequence[object], scale: float) -> bool:
    """Whether all are yes, no, a number from 0 to `scale`, or unknown, and one of them is known."""
    known = False
    for value in values:
        if _is_unknown(value):
            continue
        number = _number(value)
        if not 0 <= number <= scale:  # which NaN is not, either
            return False
        known = True
    return known


def _beside(column: str, names: Sequence[str]) -> tuple[str | None, str | None, str | None]:
    """The columns of a model's cost, output tokens and answer, by the usual ways to name them."""

    def named(endings: Sequence[str]) -> str | None:
        tried = [
            name
            for ending in endings
            for separator in _SEPARATORS
            for name in (f"{column}{separator}{ending}", f"{ending}{separator}{column}")
        ]
        return _first(tried, names)

    return named(_COSTS), named(_TOKENS), named(_ANSWERS)


def _first(wanted: Sequence[str], names: Sequence[str]) -> str | None:
    by_lower = {name.lower(): name for name in reversed(names)}
    return next((by_lower[each.lower()] for each in wanted if each.lower() in by_lower), None)


def _group(row: Row, file: str, said: Columns) -> str:
    return file if said.group is None else str(row.get(said.group, ""))


def _is_unknown(value: object) -> bool:
    return (
        value is None
        or (isinstance(value, str) and value.strip().lower() in _UNKNOWN)
        or (isinstance(value, float) and math.isnan(value))
    )


def _number(value: object) -> float:
    """NaN for what is no number, and for what is not finite."""
    if isinstance(value, bool | int | float):
        return float(value) if math.isfinite(value) else math.nan
    if not isinstance(value, str):
        return math.nan
    word = value.strip().lower()
    if word in _YES or word in _NO:
        return float(word in _YES)
    try:
        found = float(word)
    except ValueError:
        return math.nan
    return found if math.isfinite(found) else math.nan


def _length(answer: object) -> float:
    return float(token_estimate(answer)) if isinstance(answer, str) and answer else math.nan
