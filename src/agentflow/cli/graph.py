"""`agentflow graph FILE[:NAME]`: the flow as a Mermaid chart, without running it."""

from __future__ import annotations

import click

from agentflow.cli.debug import debug_option
from agentflow.cli.load import load_flow

__all__ = ["command"]


@click.command("graph", short_help="Print the flow in a file as a Mermaid chart.")
@click.argument("target", metavar="FILE[:NAME]")
@debug_option
def command(target: str) -> None:
    """Print the flow in FILE as a Mermaid chart, which GitHub, GitLab and mermaid.live draw."""
    click.echo(load_flow(target).mermaid(), nl=False)
