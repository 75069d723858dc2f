"""Artifacts as one page: a file that asks nothing of any server, with the picture, the table and what each one is.

page_of(comparison, manifests)  ──▶  "<!doctype html>…"

Its policy allows its own style sheet, by its digest, pictures that lie within it, and nothing else; there is no script.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import resources

from agentflow.mcp.compression.artifact.amounts import FORMS, count, number, share
from agentflow.mcp.compression.artifact.comparing import Column, Comparison, Row
from agentflow.mcp.compression.artifact.facts import headline, kinds_of, stages_of
from agentflow.mcp.compression.artifact.manifest import Manifest
from agentflow.mcp.compression.artifact.picture import picture_of
from agentflow.mcp.optimization.cost.markup import Html, element

__all__ = ["page_of"]

_MOST = 200  # tensors that a page shows


def page_of(comparison: Comparison, manifests: Sequence[Manifest]) -> str:
    """The whole file. Raises MissingExtraError without matplotlib (extra `report`)."""
    style, names = _style(), ", ".join(dict.fromkeys(row.name for row in comparison.rows))
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_policy(style)),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="referrer", content="no-referrer"),
        element("link", rel="icon", href="data:,"),
        element("title", f"{names} · AgentFlow artifacts"),
        element("style", Html(style)),
    )
    body = element(
        "body",
        element(
            "header",
            element("p", "AgentFlow artifacts", class_="brand"),
            element("h1", names),
            element("p", _about(manifests), class_="about"),
            element("ul", (element("li", note) for note in comparison.notes), class_="notes")
            if comparison.notes
            else None,
        ),
        element("main", *_sections(comparison, manifests)),
        element("footer", "This page asks nothing of any server."),
    )
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def _about(manifests: Sequence[Manifest]) -> str:
    sources = dict.fromkeys(f"{each.source.name} ({each.source.architecture})" for each in manifests)
    machines = dict.fromkeys(str(each.machine["processor"]) for each in manifests if "processor" in each.machine)
    where = f" · measured on {', '.join(machines)}" if machines else ""
    return f"made from {', '.join(sources)}{where}"


def _sections(comparison: Comparison, manifests: Sequence[Manifest]) -> Iterator[Html]:
    picture = base64.b64encode(picture_of(comparison, "svg")).decode("ascii")
    words = "Quality by size and by speed, each artifact a dot; the same numbers stand in the table below"
    yield _section("picture", "At a glance", element("img", src=f"data:image/svg+xml;base64,{picture}", alt=words))
    yield _section("table", "Side by side", _scrolling(_table(comparison)))
    for index, manifest in enumerate(manifests):
        yield _section(f"artifact-{index}", manifest.name, *_artifact(manifest))


def _section(name: str, title: str, *parts: Html) -> Html:
    return element("section", element("h2", title, id=f"h-{name}"), *parts, id=name, aria_labelledby=f"h-{name}")


def _scrolling(part: Html) -> Html:
    """Wide things scroll by themselves; the keyboard reaches them."""
    return element("div", part, class_="scrolling", tabindex="0")


def _table(comparison: Comparison) -> Html:
    """A row a measure, a column an artifact."""
    rows = ([] if comparison.source is None else [comparison.source]) + list(comparison.rows)
    lines = [
        element(
            "tr",
            element("th", column.title, scope="row"),
            *(_cell(comparison, row, column) for row in rows),
        )
        for column in comparison.columns
    ]
    if any(row.passed is not None for row in comparison.rows):
        lines.append(element("tr", element("th", "gate", scope="row"), *(_verdict(row) for row in rows)))
    names = [element("th", row.name, _runtime(row), scope="col", class_="number") for row in rows]
    return element("table", element("thead", element("tr", element("th", ""), *names)), element("tbody", *lines))


def _runtime(row: Row) -> Html:
    return element("div", row.runtime or "not measured", class_="soft")


def _cell(comparison: Comparison, row: Row, column: Column) -> Html:
    value = row.values.get(column.name)
    said = "–" if value is None else FORMS[column.form](value)
    best = any(comparison.rows[index] is row for index in comparison.best(column.name))
    return element("td", said, class_="number best" if best else "number")


def _verdict(row: Row) -> Html:
    if row.passed is None:
        return element("td", "", class_="number")
    return element("td", "passed" if row.passed else "missed", class_=f"number {'passed' if row.passed else 'missed'}")


def _artifact(manifest: Manifest) -> Iterator[Html]:
    yield element("p", headline(manifest), class_="about")
    if manifest.gate is not None:
        failures = manifest.gate.failures
        yield element("p", "; ".join(failures) or "passed its gate", class_="missed" if failures else "passed")
    notes = [*manifest.source.notes, *(note for stage in manifest.recipe for note in stage.notes)]
    if notes:
        yield element("ul", (element("li", note) for note in notes), class_="notes")
    yield element("h3", "How it was made")
    yield _scrolling(_plain_table(("stage", "settings", "took", "parameters"), stages_of(manifest)))
    if manifest.tensors:
        kinds = [
            (each.type, f"{each.tensors:,}", count(each.weights), number(each.stored_bits), share(each.sparsity))
            for each in kinds_of(manifest)
        ]
        yield element("h3", "What is in its files")
        yield _scrolling(_plain_table(("written as", "tensors", "weights", "bits a weight", "zeros"), kinds))
        yield _tensors(manifest)
    yield element("h3", "Where it comes from")
    facts = [
        ("source", manifest.source.name), ("licence", manifest.source.licence or "not stated"),
        ("source, SHA-256", manifest.source.sha256), ("texts, SHA-256", manifest.source.data_sha256 or "–"),
        ("recipe, SHA-256", manifest.recipe_sha256), ("created", manifest.created or "–"),
        ("loaded by", ", ".join(f"{name} {version}" for name, version in manifest.loaded_by.items()) or "nothing yet"),
    ]  # fmt: skip
    yield _scrolling(_plain_table(("", ""), facts))


def _tensors(manifest: Manifest) -> Html:
    rows = [
        (each.name, " × ".join(map(str, each.shape)), each.type, number(each.stored_bits), share(each.sparsity))
        for each in manifest.tensors[:_MOST]
    ]
    more = len(manifest.tensors) - len(rows)
    table = _plain_table(("tensor", "shape", "written as", "bits a weight", "zeros"), rows)
    left_out = element("p", f"and {more:,} more, in manifest.json", class_="soft") if more > 0 else None
    return element("details", element("summary", f"all {len(manifest.tensors):,} tensors"), _scrolling(table), left_out)


def _plain_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> Html:
    head = element("thead", element("tr", *(element("th", title, scope="col") for title in titles)))
    lines = (
        element("tr", element("th", row[0], scope="row"), *(element("td", each) for each in row[1:])) for row in rows
    )
    return element("table", head if any(titles) else None, element("tbody", *lines))


@cache
def _style() -> str:
    return resources.files("agentflow.mcp.compression.artifact").joinpath("page.css").read_text(encoding="utf-8")


def _policy(style: str) -> str:
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
