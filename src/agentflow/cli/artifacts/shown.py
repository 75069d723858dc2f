"""An artifact, or several, as tables on the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.padding import Padding
from rich.table import Column, Table
from rich.text import Text

from agentflow.cli.tracing.screen import screen
from agentflow.mcp.compression.artifact import Artifact, Comparison
from agentflow.mcp.compression.artifact.amounts import FORMS, count, number, share, size
from agentflow.mcp.compression.artifact.comparing import Row
from agentflow.mcp.compression.artifact.facts import headline, kinds_of, measured_of, stages_of
from agentflow.mcp.compression.artifact.manifest import Manifest, Measures

__all__ = ["show", "show_comparison"]

_PIPED: Final = 160


def show(artifact: Artifact, *, tensors: bool, verified: bool) -> None:
    """What it is, where from, how it was made, what was lost, what is in it."""
    manifest, console = artifact.manifest, screen(otherwise=_PIPED)
    console.print(Text(manifest.name, style="bold"), Text(headline(manifest)), sep="  ")
    console.print(_facts(artifact, verified))
    _titled(console, "how it was made", _stages(manifest))
    for after in manifest.after or (None,):
        _titled(console, "what was lost and gained" + _where(after), _measures(manifest, after))
    if manifest.tensors:
        _titled(console, "what is in its files", _every_tensor(manifest) if tensors else _kinds(manifest))
    for words, style in _verdict(manifest):
        console.print(Text(words, style=style))


def show_comparison(comparison: Comparison) -> None:
    """A row a measure, a column an artifact; where that is too wide, a row an artifact and a block a measure less."""
    console = screen(otherwise=_PIPED)
    for note in comparison.notes:
        console.print(Text(f"note: {note}", style="yellow"))
    rows = ([] if comparison.source is None else [comparison.source]) + list(comparison.rows)
    for start in range(0, len(rows), _fitting(console.width)):
        console.print(_side_by_side(comparison, rows[start : start + _fitting(console.width)]))
    _say_front(console, comparison)


def _fitting(width: int) -> int:
    """Columns of 18 signs, beside the titles."""
    return max(2, (width - 18) // 20)


def _side_by_side(comparison: Comparison, rows: Sequence[Row]) -> Table:
    names = [Text.assemble(row.name, "\n", (row.runtime or "not measured", "dim")) for row in rows]
    heads = [Column(name, justify="right", overflow="fold", max_width=28) for name in names]
    table = _table(Column("", no_wrap=True), *heads)
    for column in comparison.columns:
        form, best = FORMS[column.form], [comparison.rows[index] for index in comparison.best(column.name)]
        cells = [
            Text("–", style="dim")
            if column.name not in row.values
            else Text(
                form(row.values[column.name]) + (" *" if row in best else "  "),
                style="bold green" if row in best else "",
            )
            for row in rows
        ]
        table.add_row(column.title, *cells)
    if any(row.passed is not None for row in rows):
        table.add_row(
            "gate",
            *(
                {None: Text(""), True: Text("passed  "), False: Text("missed  ", style="red")}[row.passed]
                for row in rows
            ),
        )
    return table


def _say_front(console: Console, comparison: Comparison) -> None:
    if any(comparison.best(column.name) for column in comparison.columns):
        console.print(Text("* the best of its row", style="dim"))
    if len(comparison.rows) < 2:
        return
    axes = ["size", *(column.title for column in (comparison.quality, comparison.speed) if column is not None)]
    names = dict.fromkeys(_called(comparison.rows[index], comparison) for index in comparison.front)
    console.print(Text(f"not beaten in {', '.join(axes)} at once: {', '.join(names)}"))


def _called(row: Row, comparison: Comparison) -> str:
    several = sum(each.name == row.name for each in comparison.rows) > 1
    return f"{row.name} in {row.runtime}" if several else row.name


def _facts(artifact: Artifact, verified: bool) -> Padding:
    manifest, source = artifact.manifest, artifact.manifest.source
    looked = (
        f"{len(manifest.files):,} files, every checksum right"
        if verified
        else f"{len(manifest.files):,} files, not verified"
    )
    loaded = ", ".join(f"{name} {version}" for name, version in manifest.loaded_by.items())
    flags = manifest.machine.get("flags")
    machine = [str(manifest.machine.get("processor", "")), " ".join(map(str, flags)) if isinstance(flags, list) else ""]
    rows = [
        ("path", str(artifact.folder)),
        (
            "source",
            f"{source.name}, {source.architecture}, {count(source.parameters)} parameters, {size(source.bytes)}",
        ),
        ("licence", source.licence or "not stated"),
        ("files", looked),
        ("loaded by", loaded or "nothing yet"),
        ("labels", ", ".join(manifest.labels)),
        ("measured on", "; ".join(part for part in machine if part)),
        ("created", manifest.created),
        ("sha256", f"source {source.sha256[:12]}… recipe {manifest.recipe_sha256[:12]}…"),
    ]
    table = Table.grid(Column(style="dim", no_wrap=True), Column(overflow="fold"), padding=(0, 2, 0, 0))
    for title, words in rows:
        if words:
            table.add_row(title, Text(words))
    return Padding(table, (0, 0, 0, 2), expand=False)


def _stages(manifest: Manifest) -> Table:
    table = _table("stage", Column("settings", overflow="fold"), _right("took"), _right("parameters"))
    for stage, row in zip(manifest.recipe, stages_of(manifest), strict=True):
        table.add_row(*(Text(each) for each in row))
        for note in stage.notes:
            table.add_row("", Text(f"! {note}", style="yellow"), "", "")
    for note in manifest.source.notes:
        table.add_row("source", Text(f"! {note}", style="yellow"), "", "")
    return table


def _where(after: Measures | None) -> str:
    if after is None:
        return " (not measured)"
    return f", in {after.runtime} {after.runtime_version}" + (f" on {after.tokens:,} tokens" if after.tokens else "")


def _measures(manifest: Manifest, after: Measures | None) -> Table:
    before = "source" if manifest.before is None else f"source, {manifest.before.runtime}"
    table = _table("", _right(before), _right("artifact"), _right("change"))
    for row in measured_of(manifest, after):
        table.add_row(*(Text(each) for each in row))
    return table


def _kinds(manifest: Manifest) -> Table:
    table = _table("written as", *map(_right, ("tensors", "weights", "bits a code", "bits a weight", "zeros")))
    for each in kinds_of(manifest):
        numbers = (f"{each.tensors:,}", count(each.weights), number(each.bits), number(each.stored_bits))
        table.add_row(Text(each.type), *numbers, share(each.sparsity))
    return table


def _every_tensor(manifest: Manifest) -> Table:
    table = _table(
        Column("tensor", overflow="fold"),
        "shape",
        "written as",
        *map(_right, ("bits a code", "bits a weight", "zeros")),
    )
    for each in manifest.tensors:
        shape = "×".join(map(str, each.shape))
        table.add_row(
            Text(each.name), shape, Text(each.type), number(each.bits), number(each.stored_bits), share(each.sparsity)
        )
    return table


def _verdict(manifest: Manifest) -> Iterator[tuple[str, str]]:
    if manifest.gate is None:
        return
    asked = ", ".join(f"{name} {number(limit)}" for name, limit in manifest.gate.limits.items())
    if not manifest.gate.failures:
        yield f"gate passed: {asked}", "green"
        return
    yield f"gate missed: {asked}", "bold red"
    for failure in manifest.gate.failures:
        yield f"  {failure}", "red"


def _titled(console: Console, title: str, table: Table) -> None:
    console.print()
    console.print(Text(title, style="bold"))
    console.print(Padding(table, (0, 0, 0, 2), expand=False))


def _right(title: str) -> Column:
    return Column(title, justify="right", no_wrap=True)


def _table(*columns: Column | str) -> Table:
    return Table(*columns, box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 2, 0, 0))
