"""`agentflow serve --model NAME`: answers OpenAI's API with models of the registry, until Ctrl-C.

agentflow serve --model edge/support                     http://127.0.0.1:8000/v1, for this machine alone
agentflow serve --model a --model b --host 0.0.0.0 --api-key-env SERVER_KEY
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence
from types import TracebackType
from typing import Final

import click

from agentflow.cli.debug import debug_option, debugging
from agentflow.cli.durable.stopping import Stopping
from agentflow.cli.failures import keyless, one_line
from agentflow.cli.models import stand_in_notice
from agentflow.cli.recording import Recording
from agentflow.errors import MissingKeyError
from agentflow.llm.agentflow import AgentFlow
from agentflow.llm.providers.base import Secret
from agentflow.server.app import LARGEST_BODY
from agentflow.server.serving import serve

__all__ = ["command"]

_MEGABYTE: Final = 1024 * 1024
_LOG: Final = logging.getLogger("agentflow.server")


@click.command("serve", short_help="Answer OpenAI's API with these models.")
@click.option("-m", "--model", "models", metavar="NAME", multiple=True, help="A model to serve; may be said again.")
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Where to listen.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes one that is free."
)
@click.option("--api-key-env", metavar="VAR", help="The environment variable with the key that clients must give.")
@click.option("--max-concurrency", type=click.IntRange(min=1), metavar="N", help="At most so many requests at once.")
@click.option(
    "--max-body",
    type=click.IntRange(min=1),
    default=LARGEST_BODY // _MEGABYTE,
    show_default=True,
    metavar="MB",
    help="The largest request.",
)
@click.option(
    "--allow-host", "hosts", metavar="NAME", multiple=True, help="Another name of this machine, as behind a proxy."
)
@click.option(
    "--grace",
    type=click.FloatRange(min=0),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How long answers under way may take after Ctrl-C.",
)
@click.option("--no-record", is_flag=True, help="Do not record the calls for `agentflow trace`.")
@debug_option
def command(
    models: tuple[str, ...],
    host: str,
    port: int,
    api_key_env: str | None,
    max_concurrency: int | None,
    max_body: int,
    hosts: tuple[str, ...],
    grace: float,
    no_record: bool,
) -> None:
    """Answer OpenAI's API with models of models.yml: chats, completions, embeddings, streams, tools and schemas.

    Point any OpenAI client at http://127.0.0.1:8000/v1. Without --model it serves the default model. Ctrl-C lets what
    is under way come to an end; a second one ends at once.
    """
    names = tuple(dict.fromkeys(models)) or (_usual(),)
    key = None if api_key_env is None else _key(api_key_env)
    log = _Terminal(debugging=debugging(click.get_current_context()))

    async def main(stopping: Stopping) -> None:
        try:
            await serve(
                models=names,
                host=host,
                port=port,
                api_key=key,
                max_concurrency=max_concurrency,
                largest_body=max_body * _MEGABYTE,
                hosts=hosts,
                grace=grace,
                stop=stopping.event(),
                ready=lambda address: _tell(address, names, locked=key is not None),
            )
        finally:
            await AgentFlow.aclose()

    with log, Recording(wanted=not no_record) as recording, Stopping() as stopping:
        asyncio.run(main(stopping))
    if recording.trouble is not None:
        click.echo(f"note: {recording.trouble}", err=True)


def _usual() -> str:
    """The default model; said where nobody chose it."""
    name = AgentFlow.registry.default_model().name
    if (notice := stand_in_notice(name)) is not None:
        click.echo(notice, err=True)
    return name


def _key(variable: str) -> Secret:
    key = os.environ.get(variable, "").strip()
    if not key:
        raise MissingKeyError(f"{variable} is not set, so there is no key to ask clients for")
    return Secret(key)


def _tell(address: str, names: Sequence[str], *, locked: bool) -> None:
    click.echo(f"serving {', '.join(names)} at {address}{' to whoever has the key' if locked else ''}", err=True)
    click.echo("Ctrl-C ends when what is under way has ended", err=True)


class _Terminal(logging.Handler):
    """What the server logs, on one line each; a traceback only with --debug. In use inside `with`."""

    def __init__(self, *, debugging: bool) -> None:
        super().__init__(logging.WARNING)
        self._debugging = debugging

    def emit(self, record: logging.LogRecord) -> None:
        if self._debugging and record.exc_info:
            click.echo(keyless(logging.Formatter().formatException(record.exc_info)), err=True)
        click.echo(f"{record.levelname.lower()}: {one_line(keyless(record.getMessage()))}", err=True)

    def __enter__(self) -> None:
        _LOG.addHandler(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _LOG.removeHandler(self)
