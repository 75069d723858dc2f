"""`agentflow models`: what can be asked, where, and whether its key is there. Keys themselves are never shown."""

from __future__ import annotations

import json
import sys
from typing import TypedDict

import click

from agentflow.cli.debug import debug_option
from agentflow.llm.agentflow import AgentFlow
from agentflow.llm.config.registry import ModelRegistry

__all__ = ["command", "stand_in_notice", "use_model"]


class _Line(TypedDict):
    """One model. `key` is None where none is needed."""

    name: str
    provider: str
    model_id: str
    key: bool | None
    key_names: list[str]
    base_url: str | None
    default: bool


@click.command("models", short_help="List the models that can be asked.")
@click.option("--json", "wants_json", is_flag=True, help="Print a JSON list.")
@debug_option
def command(wants_json: bool) -> None:
    """List the models of models.yml and the built-in ones, yours first; * is the default.

    Besides these, PROVIDER/MODEL names any model of a provider, as in ollama/llama3.2.
    """
    registry = AgentFlow.registry
    lines = _lines(registry)
    if wants_json:
        click.echo(json.dumps(lines, indent=2))
        return
    _print_table(lines)
    default = registry.default_model()
    click.echo(f"\nDefault: {default.name}, because {default.reason}" if default.chosen else f"\n{default.reason}")


def use_model(name: str) -> None:
    """Make a model the default of this process. Raises UnknownModelError, MissingKeyError."""
    registry = AgentFlow.registry
    registry.resolve(name)
    registry.set_default(name, "--model names it")


def stand_in_notice(model: str) -> str | None:
    """What to tell the user when `model` answers only because nothing is configured; else None."""
    default = AgentFlow.registry.default_model()
    return None if default.chosen or default.name != model else f"note: {default.reason}"


def _lines(registry: ModelRegistry) -> list[_Line]:
    default = registry.default_model().name
    names = list(registry.models())
    if default not in names:
        names.insert(0, default)
    return [_line(registry, name, default) for name in names]


def _line(registry: ModelRegistry, name: str, default: str) -> _Line:
    config = registry.describe(name)
    return {
        "name": name,
        "provider": config.provider,
        "model_id": config.model_id,
        "key": registry.key_found(config.provider),
        "key_names": list(registry.key_names(config.provider)),
        "base_url": registry.base_url(config.provider),
        "default": name == default,
    }


def _print_table(lines: list[_Line]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    model = Column("model", no_wrap=True, overflow="fold")  # it is there to be copied
    table = Table(
        "", model, "provider", "key", "address", box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0)
    )
    for line in lines:
        mark = "*" if line["default"] else ""
        words = [line["name"], line["provider"], _key(line), line["base_url"] or "this process"]
        table.add_row(mark, *map(escape, words))
    # Into a pipe whole lines go, however wide: what reads them cuts them as it likes.
    width = None if sys.stdout.isatty() else 200
    Console(file=sys.stdout, width=width, highlight=False).print(table)


def _key(line: _Line) -> str:
    if line["key"] is None:
        return "none needed"
    return "present" if line["key"] else f"no {line['key_names'][0]}"
