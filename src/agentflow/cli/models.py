"""`agentflow models`: what can be asked, what it can do and costs, where, and whether its key is there.

Keys themselves are never shown.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Final, TypedDict

import click

from agentflow.cli.debug import debug_option
from agentflow.cli.failures import FAILED
from agentflow.errors import MissingKeyError
from agentflow.llm.agentflow import AgentFlow
from agentflow.llm.config.prices import PriceTable, Rates
from agentflow.llm.config.registry import ModelConfig, ModelRegistry
from agentflow.llm.config.schema import CAPABILITIES, set_fields
from agentflow.llm.wrapping import ORDER

if TYPE_CHECKING:
    from agentflow.cli.model_lists import Comparison

__all__ = ["command", "stand_in_notice", "use_model"]

_LETTERS: Final = {
    "image": "i",
    "document": "d",
    "audio": "a",
    "tools": "t",
    "schema": "s",
    "thinking": "r",
    "embed": "e",
}
_LEGEND: Final = (
    "can: i images, d documents, a audio, t tools, s answers to a schema, r reasoning, e embeddings; ? unknown\n"
    "context: tokens; price: USD per million tokens, input/output"
)
_MOST_NAMES: Final = 20


class _Line(TypedDict):
    """One model. `key` is None where none is needed; capabilities, limits and price where they are unknown."""

    name: str
    provider: str
    model_id: str
    key: bool | None
    key_names: list[str]
    base_url: str | None
    default: bool
    capabilities: list[str] | None
    context: int | None
    max_output: int | None
    price: dict[str, float] | None


@click.command("models", short_help="List the models that can be asked.")
@click.option("--json", "wants_json", is_flag=True, help="Print a JSON list.")
@click.option("--refresh", is_flag=True, help="Ask the providers which models they have now.")
@click.option("--guards", "guarded", metavar="MODEL", help="Show instead what a model's calls pass, in order.")
@debug_option
def command(wants_json: bool, refresh: bool, guarded: str | None) -> None:
    """List the models of models.yml and the built-in ones, yours first; * is the default.

    Besides these, PROVIDER/MODEL names any model of a provider, as in ollama/llama3.2. With --refresh it says instead
    which of these models their providers no longer have, and which others they have.
    """
    registry = AgentFlow.registry
    if guarded is not None:
        _print_guards(registry, guarded)
        return
    if refresh:
        _refresh(registry, wants_json)
        return
    lines = _lines(registry)
    if wants_json:
        click.echo(json.dumps(lines, indent=2))
        return
    _print_lines(lines)
    default = registry.default_model()
    click.echo(f"\nDefault: {default.name}, because {default.reason}" if default.chosen else f"\n{default.reason}")
    click.echo(
        f"Built-in models are those of {registry.updated}, prices those of {PriceTable.built_in().updated}; "
        "--refresh asks the providers."
    )


def use_model(name: str) -> None:
    """Make a model the default of this process. Raises UnknownModelError, MissingKeyError."""
    registry = AgentFlow.registry
    registry.resolve(name)
    registry.set_default(name, "--model names it")


def stand_in_notice(model: str) -> str | None:
    """What to tell the user when `model` answers only because nothing is configured; else None."""
    default = AgentFlow.registry.default_model()
    return None if default.chosen or default.name != model else f"note: {default.reason}"


def _print_guards(registry: ModelRegistry, name: str) -> None:
    config = registry.describe(name)
    for wrapper in ORDER:
        if wrapper in config.wrappers:
            said = ", ".join(f"{field} {value}" for field, value in set_fields(config.wrappers[wrapper]).items())
            click.echo(f"{wrapper}: {said}")
    if not config.routed:
        click.echo(registry.pipeline(config).describe())
    if config.timeout is not None:
        click.echo(f"all of it within {config.timeout:g} s")
    for stand_in in config.fallback:
        when = f" ({', '.join(stand_in.when)})" if stand_in.when else ""
        click.echo(f"and then {stand_in.model}{when}")


# ---- the list ------------------------------------------------------------------------------------------------


def _lines(registry: ModelRegistry) -> list[_Line]:
    default = registry.default_model().name
    names = list(registry.models())
    if default not in names:
        names.insert(0, default)
    return [_line(registry, name, default) for name in names]


def _line(registry: ModelRegistry, name: str, default: str) -> _Line:
    config = registry.describe(name)
    known = config.capabilities
    return {
        "name": name,
        "provider": config.provider,
        "model_id": config.model_id,
        "key": registry.key_found(config.provider),
        "key_names": list(registry.key_names(config.provider)),
        "base_url": registry.base_url(config.provider),
        "default": name == default,
        "capabilities": None if known is None else [each for each in CAPABILITIES if each in known],
        "context": config.context,
        "max_output": config.max_output,
        "price": _price(config),
    }


def _price(config: ModelConfig) -> dict[str, float] | None:
    """The usual rates, those that are known."""
    price = config.current_price()
    rates = price and price.usual
    if not rates:
        return None
    return {name: rate for name in Rates.__struct_fields__ if (rate := getattr(rates, name)) is not None}


def _print_lines(lines: Sequence[_Line]) -> None:
    """Models, and below them the providers they are of: what is the same for all models of one is said once."""
    _print_table(
        ["", "model", "provider", "can", "context", "price"],
        (
            [
                "*" if line["default"] else "",
                line["name"],
                line["provider"],
                _abilities(line["capabilities"]),
                _tokens(line["context"]),
                _rates(line["price"]),
            ]
            for line in lines
        ),
    )
    click.echo(_LEGEND + "\n")
    for line in {line["provider"]: line for line in lines}.values():
        click.echo(f"{line['provider']}: {line['base_url'] or 'in this process'}, {_key(line)}")


def _print_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    # A name is there to be copied, so it is never cut.
    columns = [Column(title, no_wrap=title == "model", overflow="fold") for title in titles]
    table = Table(*columns, box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    for row in rows:
        table.add_row(*map(escape, row))
    # Into a pipe whole lines go, however wide: what reads them cuts them as it likes.
    width = None if sys.stdout.isatty() else 200
    Console(file=sys.stdout, width=width, highlight=False).print(table)


def _abilities(known: Sequence[str] | None) -> str:
    if known is None:
        return "?"
    return "".join(letter if name in known else "-" for name, letter in _LETTERS.items())


def _tokens(count: int | None) -> str:
    if count is None:
        return "?"
    if count >= 1_000_000:
        return f"{count / 1_000_000:.3g}M"
    return f"{count / 1000:.3g}k" if count >= 1000 else str(count)


def _rates(price: dict[str, float] | None) -> str:
    if price is None:
        return "?"
    return "/".join(f"{price[name]:g}" for name in ("input", "output") if name in price)


def _key(line: _Line) -> str:
    if line["key"] is None:
        return "no key needed"
    return "key present" if line["key"] else f"no {line['key_names'][0]}"


# ---- what the providers say ----------------------------------------------------------------------------------


def _refresh(registry: ModelRegistry, wants_json: bool) -> None:
    """Exit code 1 where a provider did not answer, or a configured model is gone."""
    from agentflow.cli.model_lists import compare

    found = asyncio.run(compare(registry))
    if not found:
        raise MissingKeyError(
            "there is no provider to ask: set a key, as in OPENAI_API_KEY; `agentflow doctor` lists them"
        )
    if wants_json:
        click.echo(json.dumps([asdict(each) for each in found], indent=2))
    else:
        for each in found:
            _tell(each)
    if any(each.error or each.gone for each in found):
        raise click.exceptions.Exit(FAILED)


def _tell(found: Comparison) -> None:
    if found.error:
        named = found.error.startswith(found.provider)  # as the errors of calls are
        click.echo(found.error if named else f"{found.provider}: {found.error}", err=True)
    elif found.models is None:
        click.echo(f"{found.provider}: has no list of models")
    else:
        count = len(found.models)
        click.echo(f"{found.provider}: {count} model{'s' * (count != 1)}")
        _tell_names("gone", found.gone)
        _tell_names("new", found.new)


def _tell_names(title: str, names: Sequence[str]) -> None:
    if names:
        more = f" and {len(names) - _MOST_NAMES} more" if names[_MOST_NAMES:] else ""
        click.echo(f"  {title}: {', '.join(names[:_MOST_NAMES])}{more}")
