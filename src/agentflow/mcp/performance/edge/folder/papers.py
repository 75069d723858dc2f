"""What lies in a deployed folder beside the model and its program: README.md, NOTICE, requirements.txt, models.yml."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Mapping
from importlib import metadata
from typing import Final

from agentflow.mcp.compression.artifact.manifest import Manifest
from agentflow.mcp.performance.edge.folder.requirements import SERVING, extra_of, needed

__all__ = ["papers"]

_RUNTIMES: Final = {
    "onnxruntime-genai": "MIT",
    "onnxruntime": "MIT",
    "tokenizers": "Apache-2.0",
    "numpy": "BSD-3-Clause",
    "llama-cpp-python": "MIT, and so is the llama.cpp in it",
}
_CAPABILITIES: Final = {"generate": "schema", "classify": "", "embed": "embed"}
_CALLS: Final = {
    "generate": 'python run.py "A prompt"',
    "classify": 'python run.py "A text to label"',
    "embed": 'python run.py "A text to turn into a vector"',
}


def papers(manifest: Manifest, name: str, *, runs: bool) -> Mapping[str, str]:
    """Their texts by file name. `name` is what the model is to be called; `runs` whether there is a run.py."""
    packages = needed(manifest)
    return {
        "requirements.txt": "".join(f"{package}\n" for package in packages),
        "models.yml": _models_yml(manifest, name),
        "NOTICE": _notice(manifest, packages),
        "README.md": _readme(manifest, name, runs=runs),
    }


def _models_yml(manifest: Manifest, name: str) -> str:
    able = _CAPABILITIES[manifest.task]
    provider = json.dumps(name.replace("/", "-"))
    return (
        "# For a program with AgentFlow: copy these lines into its models.yml. `folder` counts from where that lies.\n"
        "providers:\n"
        f"  {provider}: {{kind: edge, options: {{folder: artifact}}}}\n"
        "models:\n"
        f"  {json.dumps(name)}: {{provider: {provider}, capabilities: [{able}], price: {{input: 0, output: 0}}}}\n"
    )


def _notice(manifest: Manifest, packages: tuple[str, ...]) -> str:
    source = manifest.source
    stages = ", ".join(stage.kind for stage in manifest.recipe) or "nothing"
    lines = [
        f"{manifest.name} is derived from {source.name} (sha256 {source.sha256}).",
        f"Licence of the source: {source.licence or 'its folder named none; ask whoever gave it to you'}.",
        f"What was done to it: {stages}. The whole of it stands in artifact/manifest.json.",
        *source.notes,
        "",
        f"Put together by {SERVING} {_own_version()} (MIT). It runs by these packages, which are no part of it:",
        *(f"  {package}: {_RUNTIMES[re.split('[=<>]', package)[0]]}" for package in packages),
    ]
    return "\n".join(lines) + "\n"


def _readme(manifest: Manifest, name: str, *, runs: bool) -> str:
    parts = [f"# {name}", _summary(manifest)]
    if runs:
        parts += [
            "## Run it",
            f"Python 3.11 or newer; the packages were tried with {platform.python_version()}.",
            f"```sh\npip install -r requirements.txt\n{_CALLS[manifest.task]}\n```",
            "It needs neither AgentFlow nor PyTorch, and no network.",
        ]
    serving = f"pip install '{SERVING}[{extra_of(manifest)}]'"
    told = f"```sh\n{serving}\npython run.py --serve\n```\n\n" if runs and manifest.task == "generate" else ""
    parts += [
        "## Call it from AgentFlow",
        f"{told}`{serving}`, and the lines of `models.yml` in your own: then `AgentFlow.model({name!r})` runs it in "
        "process, and `agentflow serve` answers OpenAI's API with it.",
        "## Check it",
        "```sh\nsha256sum -c SHA256SUMS\nagentflow deploy --verify .\n```",
        "`artifact/manifest.json` says what the model was made of, and what was measured before and after. `NOTICE` "
        "and the licence beside it say under which terms.",
    ]
    return "\n\n".join(parts) + "\n"


def _summary(manifest: Manifest) -> str:
    """One sentence, and a table of what was measured, where something was."""
    what = {"generate": "writes text", "classify": "labels texts", "embed": "turns texts into vectors"}[manifest.task]
    facts = f"{manifest.parameters:,} parameters in {manifest.bytes:,} bytes, {manifest.format}"
    said = f"A model that {what}: {facts}, made of {manifest.source.name}."
    rows = _rows(manifest)
    if not rows:
        return said
    table = "\n".join(f"| {label} | {before} | {after} |" for label, before, after in rows)
    return f"{said}\n\n| | before | after |\n| --- | --- | --- |\n{table}"


def _rows(manifest: Manifest) -> list[tuple[str, str, str]]:
    before, after = manifest.before, manifest.after[0] if manifest.after else None
    found = []
    for label, name in (
        ("perplexity", "perplexity"),
        ("KL from the source, nats a token", "kl"),
        ("likeliest token as the source's", "top1"),
        ("accuracy", "accuracy"),
        ("labels as the source's", "agreement"),
        ("cosine to the source's vectors", "cosine"),
        ("task score", "task"),
    ):
        old, new = getattr(before, name, None), getattr(after, name, None)
        if new is not None:
            found.append((label, "" if old is None else f"{old:.4g}", f"{new:.4g}"))
    return found


def _own_version() -> str:
    return metadata.version(SERVING)
