"""What every benchmark needs: a line about the machine, tables with medians, promises held or not, a JSON file.

report = Report("flow_overhead", "Flows", "What a step costs.")
report.table("Chain", ["engine", "µs a node"], [["AgentFlow", "0.97"]])
report.promise("a step of a chain", limit=0.5, measured=0.34, unit="× PocketFlow")
report.finish(folder)                          prints Markdown, writes folder/flow_overhead.json

python benchmarks/results.py build/benchmarks --write docs/benchmarks.md      one page of PAGES
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "build" / "benchmarks"
PAGES = {
    "benchmarks.md": ("flow_overhead", "llm_overhead", "config", "robustness", "observability", "durability", "soak"),
    "benchmarks_savings.md": (
        "stack_overhead", "cache_overhead", "router_overhead", "budget", "batching", "cost_optimizer",
    ),
    "benchmarks_compression.md": ("edge_runtimes", "gguf_proof"),
    "benchmarks_gpu.md": ("compression_gpu", "distillation"),
}  # fmt: skip
"""Which benchmarks stand on which page of docs/, in their order."""


@dataclass(frozen=True, slots=True)
class Table:
    title: str
    columns: list[str]
    rows: list[list[str]]
    note: str = ""

    def markdown(self) -> str:
        """The first column is text, all others are numbers and stand to the right."""
        rule = ["---", *("---:" for _ in self.columns[1:])]
        lines = [f"| {' | '.join(cells)} |" for cells in (self.columns, rule, *self.rows)]
        return "\n\n".join([f"### {self.title}", *([self.note] if self.note else []), "\n".join(lines)])


@dataclass(frozen=True, slots=True)
class Promise:
    """A number to hold. `at_least` turns the comparison round; `measured` is None where it could not be measured.

    `beside` is what else the same run measured, and tells how fast the machine was where the number is no ratio.
    """

    what: str
    limit: float
    measured: float | None
    unit: str
    at_least: bool = False
    beside: str = ""

    @property
    def verdict(self) -> str:
        if self.measured is None:
            return "not measured"
        held = self.measured >= self.limit if self.at_least else self.measured <= self.limit
        return "held" if held else "**not held**"

    def row(self) -> list[str]:
        sign = "≥" if self.at_least else "≤"
        measured = "–" if self.measured is None else number(self.measured)
        beside = f" ({self.beside})" if self.beside else ""
        return [self.what, f"{sign} {number(self.limit)} {self.unit}", measured + beside, self.verdict]


@dataclass(slots=True)
class Report:
    """One benchmark's results. `raw` holds every single measurement, for whoever wants to look again."""

    name: str
    title: str
    intro: str
    tables: list[Table] = field(default_factory=list)
    promises: list[Promise] = field(default_factory=list)
    raw: dict[str, object] = field(default_factory=dict)
    machine: str = field(default_factory=lambda: machine())
    date: str = field(default_factory=lambda: datetime.now(UTC).strftime("%Y-%m-%d"))

    def table(self, title: str, columns: list[str], rows: list[list[str]], note: str = "") -> None:
        self.tables.append(Table(title, columns, rows, note))

    def promise(
        self,
        what: str,
        *,
        limit: float,
        measured: float | None,
        unit: str,
        at_least: bool = False,
        beside: str = "",
    ) -> None:
        self.promises.append(Promise(what, limit, measured, unit, at_least, beside))

    def markdown(self) -> str:
        parts = [f"## {self.title}", self.intro, *(table.markdown() for table in self.tables)]
        if self.promises:
            rows = [promise.row() for promise in self.promises]
            parts.append(Table("The numbers to hold", ["what", "promised", "measured", ""], rows).markdown())
        return "\n\n".join([*parts, f"Measured on {self.date} on {self.machine}."])

    def finish(self, folder: Path) -> None:
        print(self.markdown(), end="\n\n", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(asdict(self), ensure_ascii=False, indent=1)
        (folder / f"{self.name}.json").write_text(text + "\n", "utf-8")


def load(file: Path) -> Report:
    document = json.loads(file.read_text("utf-8"))
    document["tables"] = [Table(**table) for table in document["tables"]]
    document["promises"] = [Promise(**promise) for promise in document["promises"]]
    return Report(**document)


def machine() -> str:
    """Processor, cores, memory, Python: what a reader needs to judge the numbers."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass  # not Linux, or an architecture whose kernel gives no name
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{name}, {os.cpu_count()} cores{load}, {platform.system()}, Python {platform.python_version()}"


def number(value: float) -> str:
    """Three significant digits at most, thousands grouped: 0.97, 12.3, 4,398."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    text = f"{value:.{2 if abs(value) < 10 else 1}f}"
    return text.removesuffix(".00").removesuffix(".0") if value == int(value) else text


def median(values: Iterable[float]) -> float:
    return statistics.median(values)


def paired(values: Sequence[float], reference: Sequence[float]) -> float:
    """The median of the ratios of what was measured in the same round: drift of the machine cancels out."""
    return median(value / base for value, base in zip(values, reference, strict=False))


def note(text: str) -> None:
    """What is going on, for whoever waits."""
    print(text, file=sys.stderr, flush=True)


def options(description: str | None) -> argparse.ArgumentParser:
    """The options that all benchmarks share."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--tiny", action="store_true", help="the smallest sizes: shows that it runs, measures nothing")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="the folder for the JSON file (%(default)s)")
    return parser


TITLES = {
    "benchmarks.md": "Benchmarks",
    "benchmarks_savings.md": "Benchmarks of what saves",
    "benchmarks_compression.md": "Benchmarks of small models",
    "benchmarks_gpu.md": "Benchmarks on a GPU",
}
SMALL = """# {title}

Perplexity, KL and agreement are of texts that no model has seen, against the source in float32. Speeds and starts are
those of the machine that each table names, taken in fresh processes: compare them within one table only. What is lost
is listed like what is won.
"""
PAGE = """# {title}

Written by `scripts/bench --write`; run `make bench` (or `scripts/bench`) for the same tables from your machine.
It makes its environments in `.venvs/` and takes about {minutes} minutes.

Times are CPU time of the process that does the work (`time.process_time`), medians over several rounds in which the
candidates take turns. Single times on a shared machine mean little; ratios from one run mean something, so every
promise that can be one is a ratio; beside the others stands what tells how fast the machine was. What is lost is
listed like what is won. A table's ratio is the median of the ratios of single rounds, and so not always the quotient of
the two medians beside it.
"""


def page(reports: Sequence[Report], *, title: str = "Benchmarks", minutes: int = 35, head: str = PAGE) -> str:
    """All benchmarks on one page, what was promised first."""
    rows = [promise.row() for report in reports for promise in report.promises]
    summary = ["## Promised and measured", Table("", ["what", "promised", "measured", ""], rows).markdown()]
    summary = summary if rows else []
    text = "\n\n".join(
        [head.format(title=title, minutes=minutes).strip(), *summary, *(body(report) for report in reports)]
    )
    return text.replace("### \n\n", "") + "\n"


def body(report: Report) -> str:
    """A report without its own list of promises, which the page gathers at its head."""
    plain = Report(report.name, report.title, report.intro, report.tables, machine=report.machine, date=report.date)
    return plain.markdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=OUTPUT, help="where the JSON files lie (%(default)s)")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the page there instead of printing it")
    arguments = parser.parse_args()
    wanted = PAGES["benchmarks.md" if arguments.write is None else arguments.write.name]
    reports = [load(file) for name in wanted if (file := arguments.folder / f"{name}.json").exists()]
    if not reports:
        parser.error(f"{arguments.folder} holds no results: run scripts/bench first")
    if arguments.write:
        missing = [name for name in wanted if name not in {report.name for report in reports}]
        if missing:
            parser.error(f"the page would lose what {', '.join(missing)} measured: run these first")
        title = TITLES[arguments.write.name]
        head = SMALL if arguments.write.name in ("benchmarks_compression.md", "benchmarks_gpu.md") else PAGE
        arguments.write.write_text(page(reports, title=title, head=head), "utf-8")
    else:
        print(page(reports), end="")


if __name__ == "__main__":
    main()
