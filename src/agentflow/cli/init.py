"""`agentflow init [FOLDER]`: writes a commented models.yml and a first flow, after asking which model to use.

a key in the environment?  ──yes──▶  its provider
  └ a server on a usual port?  ──yes──▶  that server
      └ neither  ──▶  local/extractive, until there is a key
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final

import click

from agentflow.cli.debug import debug_option
from agentflow.cli.files import write_whole
from agentflow.cli.servers import USUAL, Answer, probe
from agentflow.llm.config.keys import KeyRing
from agentflow.llm.config.loader import load_configuration
from agentflow.llm.config.registry import ModelRegistry

__all__ = ["command"]

_TEMPLATES: Final = {"models.yml": "models.yml.txt", "flow.py": "flow.py.txt"}
_DEFAULT_LINE: Final = "# model: gpt-4o-mini"


@dataclass(frozen=True, slots=True)
class Choice:
    """A model that could be the default, and the question that offers it."""

    model: str
    question: str


@click.command("init", short_help="Write a models.yml and a first flow.")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=Path())
@click.option("-y", "--yes", is_flag=True, help="Ask nothing; take the first that is offered.")
@click.option("--force", is_flag=True, help="Replace the files if they are there.")
@debug_option
def command(folder: Path, yes: bool, force: bool) -> None:
    """Write models.yml and flow.py into FOLDER (here, unless one is given).

    Offers each key that it sees in the environment and each model server that it finds on this machine. Where nobody
    can answer (stdin is no terminal) the first is taken, as with --yes. The key itself is not written anywhere.
    """
    _refuse_to_overwrite(folder, force=force)
    model = _chosen(_choices(folder), ask=not yes and sys.stdin.isatty())
    folder.mkdir(parents=True, exist_ok=True)
    for name, template in _TEMPLATES.items():
        write_whole(folder / name, _filled(template, model))
        click.echo(f"wrote {folder / name}")
    click.echo(f"Models: {model or 'local/extractive, which needs no key; see models.yml for others'}")
    there = "" if folder == Path() else f"cd {shlex.quote(str(folder))} && "
    click.echo(f"Try it: {there}agentflow run flow.py")


def _refuse_to_overwrite(folder: Path, *, force: bool) -> None:
    there = [str(folder / name) for name in _TEMPLATES if (folder / name).exists()]
    if there and not force:
        verb = "are" if there[1:] else "is"
        raise click.UsageError(f"{' and '.join(there)} {verb} there already: --force replaces, another FOLDER does not")


def _choices(folder: Path) -> list[Choice]:
    """Only built-in providers: a broken models.yml is what somebody may be here to replace."""
    built_in = load_configuration(None, environ={}, cwd=folder / "no such folder", home=None)
    registry = ModelRegistry(built_in, KeyRing(os.environ, folder / ".env"))
    return [*_with_key(registry), *_with_server(probe(USUAL))]


def _with_key(registry: ModelRegistry) -> list[Choice]:
    found = []
    for provider in registry.providers():
        if registry.key_found(provider):
            model = next(name for name in registry.models() if registry.describe(name).provider == provider)
            names = " or ".join(registry.key_names(provider))
            found.append(Choice(model, f"{names} is set. Use {provider} with {model}?"))
    return found


def _with_server(answers: Sequence[Answer]) -> list[Choice]:
    return [
        Choice(
            f"{answer.server.provider}/{answer.models[0]}",
            f"{answer.server.title} runs on port {answer.server.port}. Use its {answer.models[0]}?",
        )
        for answer in answers
        if answer.models
    ]


def _chosen(choices: Sequence[Choice], *, ask: bool) -> str | None:
    """The first that is wanted; None for no model but the built-in one."""
    return next((choice.model for choice in choices if not ask or click.confirm(choice.question, default=True)), None)


def _filled(template: str, model: str | None) -> str:
    text = resources.files("agentflow.cli.templates").joinpath(template).read_text(encoding="utf-8")
    return text if model is None else text.replace(_DEFAULT_LINE, f'model: "{model}"')
