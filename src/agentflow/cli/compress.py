"""`agentflow compress MODEL`: from a local model folder to an artifact that is smaller, measured and can be called.

agentflow compress ./my-model --recipe recipe.yml --texts corpus/ --output small --deploy small-edge
agentflow compress ./my-model --quantize w4g64 --method gptq --export onnx --texts corpus/ --gate kl=0.05

Killed and started again, it goes on after the last stage that ended.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from agentflow.cli.debug import debug_option
from agentflow.errors import CompressionError, RecipeError
from agentflow.llm.content import Json

if TYPE_CHECKING:
    from agentflow.mcp.compression.artifact.artifact import Artifact
    from agentflow.mcp.compression.artifact.gate import Gate
    from agentflow.mcp.compression.recipe import Recipe

__all__ = ["command"]

_EPILOG: Final = (
    "\b\nA recipe:\n"
    "  stages:\n"
    "    - prune: {depth: 0.5}\n"
    "    - distill: {steps: 2000}\n"
    "    - quantize: {scheme: w4g64, method: gptq}\n"
    "    - export: onnx\n"
)


@click.command("compress", short_help="Make a local model smaller, and say what was lost.", epilog=_EPILOG)
@click.argument("model", metavar="MODEL")
@click.option("--recipe", "recipe_file", metavar="FILE", help="The stages, in YAML.")
@click.option("--quantize", "scheme", metavar="SCHEME", help="Instead of a recipe: w4g64, w8, w4g128-asym, w8a8, …")
@click.option("--method", default="gptq", show_default=True, help="How: rtn, gptq, awq, hqq, smoothquant.")
@click.option("--export", "target", metavar="TARGET", help="And for what: onnx, gguf:q4_k_m, compressed-tensors.")
@click.option(
    "--texts", multiple=True, required=True, metavar="PATH", help="Text to learn from: files, .jsonl, folders."
)
@click.option("--evaluation", multiple=True, metavar="PATH", help="Text to measure with, which no stage sees.")
@click.option(
    "--held-out", type=click.FloatRange(0.01, 0.9), default=0.1, show_default=True,
    help="Without --evaluation: the share of the texts that is kept for it.",
)  # fmt: skip
@click.option("--output", metavar="FOLDER", help="The artifact.  [default: MODEL-small, beside MODEL]")
@click.option("--deploy", "deployed", metavar="FOLDER", help="Also a folder that runs where nothing else is installed.")
@click.option(
    "--gate", "gates", multiple=True, metavar="NAME=LIMIT", help="As kl=0.05, perplexity_rise=0.01, top1=0.9."
)
@click.option("--length", type=click.IntRange(8), help="Tokens of a window.  [default: the context, 512 at most]")
@click.option("--windows", type=click.IntRange(1), default=128, show_default=True, help="Windows to calibrate with.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, mps.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--note", "notes", multiple=True, help="What the manifest shall say of the source: its terms, say.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@debug_option
def command(
    model: str,
    recipe_file: str | None,
    scheme: str | None,
    method: str,
    target: str | None,
    texts: tuple[str, ...],
    evaluation: tuple[str, ...],
    held_out: float,
    output: str | None,
    deployed: str | None,
    gates: tuple[str, ...],
    length: int | None,
    windows: int,
    device: str,
    seed: int,
    notes: tuple[str, ...],
    quiet: bool,
) -> None:
    """Take the model in the folder MODEL through a recipe, measure it beside the source, and write the artifact.

    MODEL is a folder in the layout of Hugging Face: config.json, weights as safetensors, a tokenizer.
    """
    from agentflow.cli.compressing.documents import documents, parted
    from agentflow.cli.compressing.watching import watching_on
    from agentflow.mcp.compression.compress import compress

    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # transformers has bars of its own, amid ours
    recipe, gate = _recipe(recipe_file, scheme, method, target), _gate(gates)
    _deployable(recipe, deployed)
    learnt = documents(texts)
    learnt, measured = (learnt, documents(evaluation)) if evaluation else parted(learnt, held_out)
    with watching_on(sys.stderr, quiet=quiet) as watching:
        artifact = asyncio.run(
            compress(
                model,
                recipe,
                calibration=learnt,
                evaluation=measured,
                output=output,
                gate=gate,
                length=length,
                calibration_windows=windows,
                device=device,
                seed=seed,
                notes=notes,
                progress=watching.see,
            )
        )
    _tell(artifact, deployed)


def _recipe(file: str | None, scheme: str | None, method: str, target: str | None) -> Recipe:
    """Of a file, or of the options that spell a short one."""
    from agentflow.mcp.compression.recipe_file import read_recipe, recipe_of

    if file is not None:
        if scheme is not None or target is not None:
            raise click.UsageError("--recipe says it all: leave --quantize and --export away")
        return read_recipe(file)
    stages: list[Json] = []
    if scheme is not None:
        stages.append({"quantize": {"scheme": scheme, "method": method}})
    if target is not None:
        stages.append({"export": target})
    if not stages:
        raise click.UsageError("say what is to be done: --recipe FILE, or --quantize SCHEME, or --export TARGET")
    return recipe_of(stages)


def _gate(words: tuple[str, ...]) -> Gate | None:
    from agentflow.mcp.compression.artifact.gate import Gate

    if not words:
        return None
    limits: dict[str, float] = {}
    known = Gate.__dataclass_fields__
    for word in words:
        name, _, limit = word.partition("=")
        if name not in known:
            raise click.BadParameter(f"{name!r} is none of {', '.join(known)}", param_hint="--gate")
        try:
            limits[name] = float(limit)
        except ValueError:
            raise click.BadParameter(f"{word!r}: write {name}=NUMBER", param_hint="--gate") from None
    return Gate(**limits)


def _deployable(recipe: Recipe, folder: str | None) -> None:
    """What would fail after hours fails now."""
    from agentflow.mcp.compression.recipe import Export

    if folder is None:
        return
    if Path(folder).exists():
        raise CompressionError(f"{folder} exists already; nothing is ever written over: give another --deploy")
    last = recipe.stages[-1]
    target = last.format if isinstance(last, Export) else "nothing"
    if target not in ("onnx", "gguf"):
        raise RecipeError(f"it exports {target}, and what is deployed is onnx or gguf: end with `export: onnx`")


def _tell(artifact: Artifact, deployed: str | None) -> None:
    """The artifact as `agentflow artifact show` has it, and how it is called from here on."""
    from agentflow.cli.artifacts.shown import show

    show(artifact, tensors=False, verified=True)
    if deployed is None:
        click.echo(f"next: agentflow deploy {artifact.folder} --output FOLDER")
        return
    from agentflow.mcp.performance.edge.folder import deploy

    made = deploy(artifact, deployed)
    click.echo(f"{made.folder}: {made.files} files, {made.bytes / 1e6:.1f} MB")
    click.echo(f"next: cd {made.folder} && agentflow ask --model {made.name} 'Hello'    (its models.yml names it)")
