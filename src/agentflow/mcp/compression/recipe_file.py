"""A recipe as a file of YAML, and a stage as plain data.

    stages:
      - prune: {depth: 0.5}
      - quantize: {scheme: w4g64, method: gptq}     ◀──▶   Recipe(Prune(depth=0.5), Quantize("w4g64", method="gptq"), …)
      - export: onnx                                        (one word is the stage's first setting)

Raises RecipeError with the stage's number for an unknown stage, an unknown setting or a value of the wrong type.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path

import msgspec

from agentflow.errors import ConfigurationError, RecipeError
from agentflow.llm.config.document import parse
from agentflow.llm.content import Json
from agentflow.mcp.compression.recipe import Distill, Export, Prune, Quantize, Recipe, Sparsify, Stage

__all__ = ["read_recipe", "recipe_of", "settings_of"]

_STAGES: Mapping[str, type[Stage]] = {kind.kind: kind for kind in (Prune, Sparsify, Distill, Quantize, Export)}


def read_recipe(path: str | Path) -> Recipe:
    """The recipe in a file. Raises RecipeError where it cannot be read, is no YAML, or is no recipe."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"the recipe {path} cannot be read: {error}") from error
    try:
        return recipe_of(parse(text))
    except ConfigurationError as error:
        raise RecipeError(f"the recipe {path} is no YAML: {error}") from error


def recipe_of(data: Json) -> Recipe:
    """The recipe that plain data describes: a mapping with `stages`, or the list itself."""
    if isinstance(data, dict):
        unknown = sorted(set(data) - {"stages"})
        if unknown:
            raise RecipeError(f"a recipe has `stages` and nothing else; {', '.join(unknown)} is not known")
        data = data.get("stages")
    if not isinstance(data, list) or not data:
        raise RecipeError("a recipe is a list of stages: `stages: [{prune: {depth: 0.5}}, …]`")
    return Recipe(*(_stage(entry, number) for number, entry in enumerate(data, start=1)))


def settings_of(stage: Stage) -> dict[str, object]:
    """What a stage says, as plain data that JSON can hold; its `kind` is not in it."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(stage).items()}


def _stage(entry: Json, number: int) -> Stage:
    match entry:
        case str(kind):
            given: Json = {}
        case dict() if len(entry) == 1:
            [(kind, given)] = entry.items()
        case _:
            raise RecipeError("a stage is one name and its settings, as in `prune: {depth: 0.5}`", stage=number)
    if kind not in _STAGES:
        raise RecipeError(f"{kind!r} is no stage: there are {', '.join(_STAGES)}", stage=number)
    made = _STAGES[kind]
    known = [field.name for field in fields(made)]
    if not isinstance(given, dict):
        given = {known[0]: given}
    try:
        _known(kind, given, known)
        return msgspec.convert(given, type=made)
    except (RecipeError, msgspec.ValidationError) as error:
        raise RecipeError(_said(kind, error), stage=number) from error


def _known(kind: str, given: Mapping[str, Json], known: list[str]) -> None:
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(known)}"
            raise RecipeError(f"{kind} has no setting {name!r}: {hint}")


def _said(kind: str, error: Exception) -> str:
    """msgspec says: Expected `int`, got `str` - at `$.steps`."""
    return str(error).replace("at `$.", f"at `{kind}.") if isinstance(error, msgspec.ValidationError) else str(error)
