"""`agentflow deploy ARTIFACT --output FOLDER`: a folder that runs on a machine without AgentFlow's training extras.

agentflow deploy artifacts/support --target onnx --output deployed/support
agentflow deploy --verify deployed/support            its checksums, and a token from a fresh process
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

import click

from agentflow.cli.debug import debug_option

if TYPE_CHECKING:
    from agentflow.mcp.compression.artifact.artifact import Artifact

__all__ = ["command"]

_MEGABYTE: Final = 1e6


@click.command("deploy", short_help="Make a folder that runs a model elsewhere.")
@click.argument("artifact", required=False, type=click.Path(path_type=Path))
@click.option(
    "--target",
    type=click.Choice(["onnx", "gguf"]),
    help="The format; the artifact's own, unless it is said. Another is exported first.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FOLDER", help="Where to; not there yet.")
@click.option("--name", metavar="NAME", help="What the model is called there; else edge/ and the artifact's name.")
@click.option(
    "--verify",
    "checked",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Check a deployed folder instead: its checksums, and that it runs.",
)
@debug_option
def command(
    artifact: Path | None, target: str | None, output: Path | None, name: str | None, checked: Path | None
) -> None:
    """Make of an ARTIFACT a folder with the model, a program that runs it, what it needs, checksums and licences.

    The folder runs by wheels alone: neither AgentFlow nor PyTorch has to be there.
    """
    if checked is not None:
        if artifact is not None or output is not None or target is not None or name is not None:
            raise click.UsageError("--verify FOLDER stands alone.")
        _verify(checked)
        return
    if artifact is None or output is None:
        raise click.UsageError("Say what to deploy and where to: agentflow deploy ARTIFACT --output FOLDER.")
    if output.exists():
        raise click.BadParameter(f"{output} is there already: name a folder that is not.", param_hint="--output")
    _deploy(artifact, target, output, name)


def _deploy(folder: Path, target: str | None, output: Path, name: str | None) -> None:
    from agentflow.mcp.compression.artifact.artifact import Artifact
    from agentflow.mcp.performance.edge.folder import deploy

    artifact = Artifact.open(folder)
    if target is None or target == artifact.manifest.format:
        made = deploy(artifact, output, name=name)
    else:
        output.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=output.parent, prefix=f".{output.name}-") as place:
            made = deploy(_converted(artifact, target, Path(place) / "artifact"), output, name=name)
    click.echo(f"wrote {made.folder}: {made.name}, {made.files} files, {made.bytes / _MEGABYTE:.1f} MB")
    click.echo(f"check it with `agentflow deploy --verify {made.folder}`, run it by its run.py")


def _converted(artifact: Artifact, target: str, place: Path) -> Artifact:
    """The artifact in the other format. Raises MissingExtraError where the compression extra is not installed."""
    from agentflow.mcp.compression.backends import needs_torch

    needs_torch()
    from agentflow.mcp.compression.converting import convert

    old = artifact.manifest.format
    click.echo(f"exporting from {old} to {target}; what was measured in {old} is not carried over", err=True)
    return convert(artifact, target, place)


def _verify(folder: Path) -> None:
    from agentflow.mcp.performance.edge.folder import verify

    found = verify(folder, python=_python(folder))
    click.echo(f"{found.files} files are as they were written")
    click.echo(f"run.py runs by {found.runtime} {found.version}; its first words came after {found.seconds:.2f} s")


def _python(folder: Path) -> str:
    """The one that runs the model: of llama.cpp, which is often compiled elsewhere, the one that has it."""
    from agentflow.mcp.compression.backends import llama_cpp_python

    return llama_cpp_python() if any((folder / "artifact" / "model").glob("*.gguf")) else sys.executable
