"""`agentflow cache`: what the files of caches hold and have saved, and purging them.

    agentflow cache stats
    agentflow cache purge --model gpt-4o --tag faq
    agentflow cache purge --all --file .agentflow/cache.db

The files are those of models.yml (`cache: {file: …}`), unless --file names one.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import click

from agentflow.cli.debug import debug_option
from agentflow.cli.tracing.amounts import dollars
from agentflow.cli.tracing.screen import screen
from agentflow.errors import AgentFlowError, ConfigurationError
from agentflow.mcp.performance.caching.inspecting import Contents, contents_of
from agentflow.mcp.performance.caching.keys import Keyring, model_label, secret_from_file
from agentflow.mcp.performance.caching.sqlite_store import SqliteStore

__all__ = ["command"]

_file_option = click.option("--file", "file", metavar="FILE", help="One file; else all that models.yml names.")


@click.group("cache", short_help="Say what caches hold and have saved; purge them.")
def command() -> None:
    """What the files of caches hold, and what they have saved."""


@command.command("stats", short_help="Say what is kept, and what that has saved.")
@_file_option
@click.option("--json", "wants_json", is_flag=True, help="Print a JSON list; amounts are in US dollars.")
@debug_option
def stats(file: str | None, wants_json: bool) -> None:
    """For each file: how many answers it holds, how large they are, how often they were found, and what the model calls
    would have cost that nobody had to make. Counts are added up whenever a process keeps an answer, and when it ends.
    """
    found = [contents_of(path) for path in _files(file)]
    if wants_json:
        click.echo(json.dumps([_facts(each) for each in found], indent=2))
        return
    for each in found:
        _print(each)


@command.command("purge", short_help="Remove answers.")
@_file_option
@click.option("--model", metavar="ID", help="Those of this model, by the id that its provider knows.")
@click.option("--tag", metavar="TAG", help="Those with this tag.")
@click.option("--prompt", metavar="TEXT", help="Those to these words, of --tenant or of nobody.")
@click.option("--tenant", metavar="NAME", help="Those of this tenant.")
@click.option("--all", "everything", is_flag=True, help="All of them.")
@click.option(
    "--secret-file", metavar="FILE", help="What the cache's keys are made with, if it is not beside its file."
)
@debug_option
def purge(
    file: str | None, model: str | None, tag: str | None, prompt: str | None, tenant: str | None, everything: bool,
    secret_file: str | None,
) -> None:  # fmt: skip
    """Remove the answers that fit all that is said. Processes that use the file hear of it within a second."""
    said = any(each is not None for each in (model, tag, prompt, tenant))
    if said == everything:
        raise click.UsageError("say what to remove: --model, --tag, --prompt, --tenant, or --all")
    gone = 0
    for path in _files(file):
        labels = [] if model is None else [model_label(model)]
        if tag is not None or prompt is not None or tenant is not None:
            ring = Keyring(secret_from_file(_secret_of(path, secret_file)))
            labels += [] if tag is None else [ring.tag_label(tag)]
            labels += [] if prompt is None else [ring.prompt_label(tenant, prompt)]
            labels += [] if tenant is None else [ring.tenant_label(tenant)]
        gone += asyncio.run(_purged(path, labels))
    click.echo(f"{gone:,} answers removed")


async def _purged(path: Path, labels: Sequence[str]) -> int:
    store = SqliteStore(path)
    try:
        gone = await store.purge(labels)
        if store.trouble is not None:
            raise ConfigurationError(f"{path} cannot be purged: {store.trouble}")
        return gone
    finally:
        await store.aclose()


def _secret_of(path: Path, named: str | None) -> Path:
    secret = path.with_name(path.name + ".key") if named is None else Path(named)
    if not secret.exists():
        raise click.UsageError(f"the keys of {path} cannot be made without their secret: name it with --secret-file")
    return secret


def _files(file: str | None) -> list[Path]:
    """Those that are there."""
    if file is not None:
        if not Path(file).is_file():
            raise click.UsageError(f"there is no file {file}")
        return [Path(file)]
    named = _configured()
    if not named:
        click.echo("no entry of models.yml has a cache with a file: {cache: {ttl: 3600, file: cache.db}}", err=True)
    return [path for path in named if path.is_file()]


def _configured() -> list[Path]:
    """The files of the caches in models.yml, each once."""
    from agentflow.llm.agentflow import AgentFlow

    registry, found = AgentFlow.registry, dict[Path, None]()
    for name in registry.models():
        try:
            section = registry.describe(name).wrappers.get("cache")
        except AgentFlowError:
            continue  # an entry that is broken has no cache
        file = getattr(section, "file", None)
        if isinstance(file, str):
            found[registry.folder / file] = None
    return list(found)


def _facts(found: Contents) -> dict[str, object]:
    return {
        "file": str(found.path), "entries": found.entries, "bytes": found.bytes, "hits": found.hits,
        "misses": found.misses, "saved": found.saved,
        "models": [
            {"model": each.model, "entries": each.entries, "bytes": each.bytes, "cost": each.cost}
            for each in found.models
        ],
    }  # fmt: skip


def _print(found: Contents) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Column, Table
    from rich.text import Text

    asked = found.hits + found.misses
    rate = f"{found.hits / asked:.0%} of {asked:,} questions found" if asked else "no question asked yet"
    click.echo(f"{found.path}: {found.entries:,} answers, {found.bytes:,} bytes; {rate}, {dollars(found.saved)} saved")
    if not found.models:
        return
    table = Table(
        Column("model", overflow="fold"), Column("answers", justify="right"), Column("bytes", justify="right"),
        Column("cost once", justify="right"), box=SIMPLE_HEAD, pad_edge=False, show_edge=False,
    )  # fmt: skip
    for each in found.models:
        table.add_row(Text(each.model), f"{each.entries:,}", f"{each.bytes:,}", dollars(each.cost))
    screen(otherwise=120).print(table)
