"""What a manifest says, in words and rows, for whatever shows it: a terminal, a page.

stages_of(manifest)      [("1", "prune", "depth 0.5", "12.5 s", "2.2 M"), …] and what each must be read with
kinds_of(manifest)       the tensors summed up by how they are written: [("int4 g64", 28, 3_100_000, 4.25, 0.0), …]
measured_of(manifest)    [("perplexity", "39.1", "39.4", "+0.77 %"), …]: a measure before, after, and what that means
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from agentflow.mcp.compression.artifact.amounts import FORMS, change, count, seconds, size
from agentflow.mcp.compression.artifact.comparing import COLUMNS, Column, values_of
from agentflow.mcp.compression.artifact.manifest import Manifest, Measures, StageRecord

__all__ = ["Kind", "headline", "kinds_of", "measured_of", "settings_of", "stages_of"]

_NEUTRAL = frozenset({"perplexity_rise"})  # it stands beside perplexity already


@dataclass(frozen=True, slots=True)
class Kind:
    """Tensors that are written alike: `stored_bits` and `sparsity` are means over their weights."""

    type: str
    tensors: int
    weights: int
    bits: float
    stored_bits: float
    sparsity: float


def headline(manifest: Manifest) -> str:
    """What it is, in a line."""
    what = {"generate": "writes text", "classify": "labels texts", "embed": "turns texts into vectors"}[manifest.task]
    return f"{manifest.format}, {what}, {count(manifest.parameters)} parameters, {size(manifest.bytes)}"


def stages_of(manifest: Manifest) -> list[tuple[str, str, str, str]]:
    """Kind, settings, how long it took, parameters after it."""
    return [(each.kind, settings_of(each), seconds(each.seconds), count(each.parameters)) for each in manifest.recipe]


def settings_of(stage: StageRecord) -> str:
    """Those that say something: "scheme w4g64, method gptq"."""
    said = {name: value for name, value in stage.settings.items() if value not in (None, [], {}, "")}
    return ", ".join(f"{name} {_plain(value)}" for name, value in said.items())


def kinds_of(manifest: Manifest) -> list[Kind]:
    """Largest first."""
    by_type: dict[str, list[tuple[int, float, float, float]]] = {}
    for tensor in manifest.tensors:
        weights = 1
        for each in tensor.shape:
            weights *= each
        by_type.setdefault(tensor.type, []).append((weights, tensor.bits, tensor.stored_bits, tensor.sparsity))
    kinds = [_kind(name, rows) for name, rows in by_type.items()]
    return sorted(kinds, key=lambda kind: -kind.weights)


def measured_of(manifest: Manifest, after: Measures | None) -> list[tuple[str, str, str, str]]:
    """Title, before, after, and the change; "–" for what is not known."""
    was = {} if manifest.before is None else values_of(manifest, manifest.before)
    was |= {"bytes": float(manifest.source.bytes)}
    was["bits"] = 8.0 * manifest.source.bytes / max(1, manifest.source.parameters)
    now = values_of(manifest, after)
    return list(_measured(was, now))


def _measured(was: Mapping[str, float], now: Mapping[str, float]) -> Iterator[tuple[str, str, str, str]]:
    for column in COLUMNS:
        if column.name in _NEUTRAL or (column.name not in now and column.name not in was):
            continue
        form = FORMS[column.form]
        before, after = was.get(column.name), now.get(column.name)
        said = ["–" if value is None else form(value) for value in (before, after)]
        yield column.title, said[0], said[1], _changed(column, before, after)


def _changed(column: Column, before: float | None, after: float | None) -> str:
    if before is None or after is None or before == 0.0 or before == after:
        return ""
    if column.form == "share":
        return f"{(after - before) * 100:+.1f} points"
    if column.name in ("kl", "cosine", "spearman"):
        return f"{after - before:+.4g}"
    return change(after / before - 1.0) if column.name == "perplexity" else f"{after / before:.3g} ×"


def _kind(name: str, rows: Sequence[tuple[int, float, float, float]]) -> Kind:
    weights = sum(row[0] for row in rows)

    def mean(index: int) -> float:
        return sum(row[0] * row[index] for row in rows) / weights if weights else 0.0

    return Kind(name, len(rows), weights, mean(1), mean(2), mean(3))


def _plain(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return " ".join(map(_plain, value))
    return str(value)
