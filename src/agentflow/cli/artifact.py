"""`agentflow artifact`: what an artifact is, what was lost, and which of several is better.

agentflow artifact show artifacts/support --tensors
agentflow artifact compare artifacts/int4 artifacts/int8 --png quality.png --html report.html

Every file is held against its checksum first; one that is damaged is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from agentflow.cli.debug import debug_option
from agentflow.cli.files import write_whole
from agentflow.cli.writable import Writable

if TYPE_CHECKING:
    from agentflow.mcp.compression.artifact import Artifact, Comparison

__all__ = ["command"]

F = TypeVar("F", bound=Callable[..., object])


def handing_options(function: F) -> F:
    for option in reversed(
        (
            click.option("--json", "wants_json", is_flag=True, help="Print all of it as JSON."),
            click.option("--html", "page", type=Writable(), metavar="FILE", help="Write a page for a browser."),
            click.option("--png", "picture", type=Writable(), metavar="FILE", help="Write size × quality × speed."),
            click.option("--no-verify", is_flag=True, help="Look at names and sizes of files, not at every byte."),
        )
    ):
        function = option(function)
    return function


@click.group("artifact", short_help="Show what compression made; compare it.")
@debug_option
def command() -> None:
    """Artifacts that `agentflow compress` made: what they are, where they come from, what was lost on the way."""


@command.command("show", short_help="What an artifact is, and what was lost.")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--tensors", is_flag=True, help="List every tensor as it is written.")
@handing_options
@debug_option
def show_command(
    path: Path, tensors: bool, wants_json: bool, page: Path | None, picture: Path | None, no_verify: bool
) -> None:
    """What the artifact in the folder PATH is: its source, its stages, its sizes, measures before and after, its
    tensors as they were found in the written files, and what its gate said."""
    from agentflow.cli.artifacts.shown import show
    from agentflow.mcp.compression.artifact import Artifact, compare
    from agentflow.mcp.compression.artifact.as_json import shown_as_json

    artifact = Artifact.open(path, verify=not no_verify)
    if wants_json:
        click.echo(shown_as_json(artifact, verified=not no_verify))
    else:
        show(artifact, tensors=tensors, verified=not no_verify)
    _write([artifact], compare([artifact]), page, picture, quiet=wants_json)


@command.command("compare", short_help="Which of several artifacts is better, and in what.")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PATH...")
@handing_options
@debug_option
def compare_command(
    paths: Sequence[Path], wants_json: bool, page: Path | None, picture: Path | None, no_verify: bool
) -> None:
    """Put artifacts side by side. The best in each row is marked, and so are the artifacts that none of the others
    beats in size, quality and speed at once."""
    from agentflow.cli.artifacts.shown import show_comparison
    from agentflow.mcp.compression.artifact import Artifact, compare
    from agentflow.mcp.compression.artifact.as_json import compared_as_json

    artifacts = [Artifact.open(path, verify=not no_verify) for path in dict.fromkeys(paths)]
    comparison = compare(artifacts)
    if wants_json:
        click.echo(compared_as_json(comparison))
    else:
        show_comparison(comparison)
    _write(artifacts, comparison, page, picture, quiet=wants_json)


def _write(
    artifacts: Sequence[Artifact], comparison: Comparison, page: Path | None, picture: Path | None, *, quiet: bool
) -> None:
    written = []
    if page is not None:
        from agentflow.mcp.compression.artifact.page import page_of

        write_whole(page, page_of(comparison, [each.manifest for each in artifacts]))
        written.append(page)
    if picture is not None:
        from agentflow.mcp.compression.artifact.picture import write_picture

        write_picture(comparison, picture)
        written.append(picture)
    if written and not quiet:
        click.echo("wrote " + ", ".join(map(str, written)))
