"""Findings as one page: whether they can be trusted first, then what was found, then how it was measured.

    page_of(findings)  ──▶  "<!doctype html>…"

It needs no network and no script; its policy (Content-Security-Policy) allows its own style and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import Final

from agentflow.mcp.optimization.benchmark.amounts import between, dollars, per_cent, seconds
from agentflow.mcp.optimization.benchmark.findings import Findings, Run
from agentflow.mcp.optimization.benchmark.markup import Markup, element, styled
from agentflow.mcp.optimization.benchmark.measures import TIMES, Distribution, Measures
from agentflow.mcp.optimization.benchmark.page_comparison import comparison_table
from agentflow.mcp.optimization.benchmark.page_parts import COLOURS, figure, named, scrolling, section
from agentflow.mcp.optimization.benchmark.page_tables import errors_section, generator_section, numbers_section
from agentflow.mcp.optimization.benchmark.percentiles import Estimate
from agentflow.mcp.optimization.benchmark.plots import Line, load_plot, percentile_plot, time_plot

__all__ = ["page_of"]


def page_of(findings: Findings) -> str:
    """The whole file."""
    style = _style()
    names = ", ".join(run.name for run in findings.runs)
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_policy(style)),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("link", rel="icon", href="data:,"),
        element("title", f"{names} · AgentFlow benchmark"),
        styled(style),
    )
    body = element("body", _header(findings, names), element("main", _sections(findings)), _footer(findings))
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def _header(findings: Findings, names: str) -> Markup:
    setting = findings.setting
    pill = element(
        "span", "valid" if findings.valid else "not valid", class_=f"pill {'good' if findings.valid else 'bad'}"
    )
    about = (
        f"{setting.dataset} · {setting.arrivals} arrivals, {setting.rate:.3g} a second · "
        f"{setting.duration:g} s measured after {setting.warmup:g} s of warm-up · good is: {setting.objective}"
        + (f", passed by {', '.join(setting.checkers)}" if setting.checkers else "")
    )
    return element(
        "header",
        element("p", "AgentFlow benchmark", class_="brand"),
        element("h1", f"{names} ", pill),
        element("p", about, class_="about"),
        _notes(findings),
        element("div", [_card(run, number) for number, run in enumerate(findings.runs)], class_="cards"),
    )


def _notes(findings: Findings) -> Markup | None:
    """What is wrong, what failed, what should be known."""
    notes = [element("li", doubt, class_="bad") for doubt in findings.doubts]
    notes += [element("li", str(each), class_="bad" if each.failed else "good") for each in findings.verdicts]
    for run in findings.runs:
        remarks = run.remarks(findings.setting)
        notes += [element("li", f"{run.name}: {remark}", class_="soft") for remark in remarks]
    return element("ul", notes, class_="notes") if notes else None


def _card(run: Run, number: int) -> Markup:
    measures = run.measures
    facts: list[tuple[str, str, str | None]] = [
        ("goodput", f"{measures.goodput:.3g}/s", f"of {measures.offered:.3g}/s offered"),
        ("good", *_shared(measures.good_share)),
        ("p99 to first token", *_p99(measures.times["ttft"])),
        ("p99 end to end", *_p99(measures.times["e2e"])),
        ("errors", *_shared(measures.error_share)),
    ]
    if measures.cost is not None:
        facts.append(
            ("a million good tokens", dollars(measures.cost_per_million_good), f"{dollars(measures.cost)} in all")
        )
    facts += [(f"quality: {name}", *_shared(mark)) for name, mark in measures.quality.items()]
    rows = [
        part
        for name, value, below in facts
        for part in (element("dt", name), element("dd", value, element("small", below) if below else None))
    ]
    return element("article", element("h2", named(number, run.name)), element("dl", rows))


def _p99(times: Distribution) -> tuple[str, str | None]:
    found = times.percentiles.get("p99")
    return ("–", None) if found is None else (seconds(found.value), between(found))


def _shared(share: Estimate | None) -> tuple[str, str | None]:
    if share is None:
        return "–", None
    return per_cent(share.value), f"{per_cent(share.low)} to {per_cent(share.high)}"


# ---- the sections --------------------------------------------------------------------------------------------


def _sections(findings: Findings) -> list[Markup]:
    measures = [run.measures for run in findings.runs]
    return [
        part
        for part in (
            _latencies(findings),
            _over_time(measures),
            *(
                section(f"{each.before} → {each.after}", _COMPARED[each.paired], scrolling(comparison_table(each)))
                for each in findings.comparisons
            ),
            numbers_section(findings),
            errors_section(measures),
            generator_section(findings),
        )
        if part is not None
    ]


_COMPARED: Final = {
    True: "The same requests at the same moments, compared in pairs. Bars are 95% intervals of the change, relative "
    "to what was before; p is corrected for the number of metrics (Holm). “same” means that it may be chance.",
    False: "The requests were not the same, so only their sums are compared. Bars are 95% intervals of the change, "
    "relative to what was before; p is corrected for the number of metrics (Holm). “same” means that it may be chance.",
}


def _latencies(findings: Findings) -> Markup | None:
    figures = [_latency(findings, time, title) for time, title in (("ttft", TIMES["ttft"]), ("e2e", TIMES["e2e"]))]
    figures += [_plain(findings, time) for time in ("itl", "tpot")]
    return section(
        "Latency",
        "Counted from the moment each request was meant to be sent. Every nine takes the same room, so the tail can be "
        "read; bars are 95% intervals. Where the dashed line, which counts from the moment a request was really sent, "
        "lies below the other, a closed loop would have missed the difference.",
        _legend(findings),
        element("div", [figure for figure in figures if figure is not None], class_="pair"),
    )


def _latency(findings: Findings, time: str, title: str) -> Markup | None:
    lines = [
        line
        for number, run in enumerate(findings.runs)
        for line in (
            Line(run.name, number % COLOURS, run.measures.times[time]),
            Line(run.name, number % COLOURS, run.measures.sent_times[time], dashed=True),
        )
    ]
    return figure(title, percentile_plot(lines))


def _plain(findings: Findings, time: str) -> Markup | None:
    lines = [Line(run.name, number % COLOURS, run.measures.times[time]) for number, run in enumerate(findings.runs)]
    return figure(TIMES[time], percentile_plot(lines))


def _over_time(measures: Sequence[Measures]) -> Markup | None:
    figures = [
        figure("each request, end to end, at its intended moment; crosses have failed", time_plot(measures)),
        figure("requests under way, over the arrivals (grey)", load_plot(measures)),
    ]
    return section(
        "Over time",
        "Shaded is what keeps the load up and does not count: warm-up and cool-down.",
        element("div", [figure for figure in figures if figure is not None], class_="pair"),
    )


def _legend(findings: Findings) -> Markup | None:
    if len(findings.runs) < 2:
        return None
    names = [element("span", named(number, run.name)) for number, run in enumerate(findings.runs)]
    return element("p", names, class_="legend")


def _footer(findings: Findings) -> Markup:
    began = [datetime.fromtimestamp(run.began, UTC) for run in findings.runs]
    when = f"Measured {began[0]:%Y-%m-%d %H:%M} UTC. " if began else ""
    return element("footer", f"{when}This page asks nothing of any server.")


@cache
def _style() -> str:
    return resources.files("agentflow.mcp.optimization.benchmark").joinpath("page.css").read_text(encoding="utf-8")


def _policy(style: str) -> str:
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
