"""Artifacts side by side: which is better in what, and which are worth having at all.

    comparison = compare([Artifact.open("a"), Artifact.open("b")])
    comparison.rows[0].values["kl"] · comparison.best("kl") · comparison.front · comparison.notes

A row is an artifact in one of the runtimes that it was measured in. `front` holds the rows that no other row beats in
size, quality and speed at once (Pareto's optimum). What cannot be compared is said in `notes`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from agentflow.errors import CompressionError
from agentflow.mcp.compression.artifact.artifact import Artifact
from agentflow.mcp.compression.artifact.manifest import Manifest, Measures

__all__ = ["COLUMNS", "Column", "Comparison", "Row", "bits_of", "compare", "values_of"]


@dataclass(frozen=True, slots=True)
class Column:
    """Something that artifacts are compared in; `better` says which end of it. `form` is a name in `amounts.FORMS`."""

    name: str
    title: str
    form: str
    better: Literal["low", "high"]

    def beats(self, one: float, other: float) -> bool:
        return one < other if self.better == "low" else one > other


COLUMNS: Final = (
    Column("bytes", "size", "size", "low"),
    Column("bits", "bits a weight", "number", "low"),
    Column("perplexity", "perplexity", "number", "low"),
    Column("perplexity_rise", "perplexity rise", "change", "low"),
    Column("kl", "KL", "number", "low"),
    Column("top1", "top-1", "share", "high"),
    Column("greedy", "greedy", "share", "high"),
    Column("accuracy", "accuracy", "share", "high"),
    Column("agreement", "agreement", "share", "high"),
    Column("cosine", "cosine", "number", "high"),
    Column("spearman", "Spearman", "number", "high"),
    Column("task", "task", "share", "high"),
    Column("tokens_per_second", "tokens/s", "rate", "high"),
    Column("time_to_first_token", "first token", "seconds", "low"),
    Column("cold_start", "cold start", "seconds", "low"),
    Column("resident_bytes", "memory", "size", "low"),
)
_BY_NAME: Final = {column.name: column for column in COLUMNS}
_QUALITIES: Final = ("kl", "perplexity_rise", "perplexity", "accuracy", "agreement", "spearman", "cosine", "task")
_MOVED: Final = frozenset({"bytes", "bits"})


@dataclass(frozen=True, slots=True)
class Row:
    """`values` holds what is known, by the columns' names; `passed` the gate's verdict, None where none was asked."""

    name: str
    format: str
    runtime: str
    values: Mapping[str, float]
    passed: bool | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """`quality` and `speed` are the columns that the front is about; None where the rows have none in common. `source`
    is what they were all made from, as it was measured; None where they were made from several."""

    rows: tuple[Row, ...]
    source: Row | None
    columns: tuple[Column, ...]
    quality: Column | None
    speed: Column | None
    front: tuple[int, ...]
    notes: tuple[str, ...]

    def best(self, column: str) -> tuple[int, ...]:
        """The rows that nobody beats in a column; none where all are alike, or fewer than two are known."""
        known = {index: row.values[column] for index, row in enumerate(self.rows) if column in row.values}
        if len(set(known.values())) < 2:
            return ()
        end = (min if _BY_NAME[column].better == "low" else max)(known.values())
        return tuple(index for index, value in known.items() if value == end)


def compare(artifacts: Sequence[Artifact]) -> Comparison:
    """Raises CompressionError where there is nothing to compare, or artifacts of different tasks."""
    if not artifacts:
        raise CompressionError("there is nothing to compare: give an artifact")
    tasks = sorted({each.manifest.task for each in artifacts})
    if len(tasks) > 1:
        raise CompressionError(f"artifacts that {' and '.join(tasks)} cannot be compared: they do different things")
    rows = tuple(
        row for artifact, name in zip(artifacts, _names(artifacts), strict=True) for row in _rows(artifact, name)
    )
    source = _source([each.manifest for each in artifacts])
    columns = tuple(column for column in COLUMNS if any(column.name in row.values for row in rows))
    quality = next((_BY_NAME[name] for name in _QUALITIES if all(name in row.values for row in rows)), None)
    speed = _BY_NAME["tokens_per_second"] if all("tokens_per_second" in row.values for row in rows) else None
    axes = [_BY_NAME["bytes"], *(axis for axis in (quality, speed) if axis is not None)]
    front = tuple(index for index, row in enumerate(rows) if not any(_dominates(other, row, axes) for other in rows))
    return Comparison(
        rows, source, columns, quality, speed, front, tuple(_notes([each.manifest for each in artifacts]))
    )


def values_of(manifest: Manifest, measures: Measures | None) -> dict[str, float]:
    """What is known of an artifact, by the columns' names."""
    found: dict[str, float | None] = {"bytes": manifest.bytes, "bits": bits_of(manifest)}
    if measures is not None:
        speed = measures.speed
        found |= {name: getattr(measures, name, None) for name in _BY_NAME if name not in _MOVED}
        found["perplexity_rise"] = _rise(manifest, measures)
        if speed is not None:
            found |= {name: getattr(speed, name) for name in _BY_NAME if hasattr(speed, name)}
    return {name: float(value) for name, value in found.items() if value is not None}


def bits_of(manifest: Manifest) -> float | None:
    """What a weight takes in the file on average, scales included. None where no tensor was read back."""
    counts = [_count(tensor.shape) for tensor in manifest.tensors]
    total = sum(counts)
    if not total:
        return None
    return sum(many * each.stored_bits for many, each in zip(counts, manifest.tensors, strict=True)) / total


def _count(shape: Sequence[int]) -> int:
    product = 1
    for each in shape:
        product *= each
    return product


def _rise(manifest: Manifest, measures: Measures) -> float | None:
    before = None if manifest.before is None else manifest.before.perplexity
    if not before or measures.perplexity is None:
        return None
    return measures.perplexity / before - 1.0


def _rows(artifact: Artifact, name: str) -> Iterator[Row]:
    manifest = artifact.manifest
    passed = None if manifest.gate is None else not manifest.gate.failures
    for measures in manifest.after or (None,):
        runtime = "" if measures is None else measures.runtime
        yield Row(name, manifest.format, runtime, values_of(manifest, measures), passed)


def _source(manifests: Sequence[Manifest]) -> Row | None:
    first = manifests[0]
    if first.before is None or len({each.source.sha256 for each in manifests}) > 1:
        return None
    values = {**values_of(first, first.before), "bytes": float(first.source.bytes), "perplexity_rise": 0.0}
    values["bits"] = 8.0 * first.source.bytes / max(1, first.source.parameters)
    if first.before.perplexity is None:
        del values["perplexity_rise"]
    return Row(first.source.name, "source", first.before.runtime, values, None)


def _names(artifacts: Sequence[Artifact]) -> list[str]:
    """Their own; with the folder where two have the same."""
    names = [each.name for each in artifacts]
    return [
        name if names.count(name) == 1 else f"{name} ({each.folder})"
        for name, each in zip(names, artifacts, strict=True)
    ]


def _dominates(one: Row, other: Row, axes: Sequence[Column]) -> bool:
    """As good in everything, and better in something."""
    pairs = [(axis, one.values[axis.name], other.values[axis.name]) for axis in axes]
    return not any(axis.beats(b, a) for axis, a, b in pairs) and any(axis.beats(a, b) for axis, a, b in pairs)


def _notes(manifests: Sequence[Manifest]) -> Iterator[str]:
    if len({each.source.sha256 for each in manifests}) > 1:
        yield "they were not made from the same source: KL and agreement are each against their own"
    if len({each.source.data_sha256 for each in manifests}) > 1:
        yield "they were not measured with the same texts: perplexities and scores cannot be compared"
    if len({str(each.machine.get("processor")) for each in manifests if each.after}) > 1:
        yield "they were not measured on the same processor: speeds cannot be compared"
    threads = {each.speed.threads for one in manifests for each in one.after if each.speed is not None}
    if len(threads) > 1:
        yield "they were not measured with as many threads: speeds cannot be compared"
