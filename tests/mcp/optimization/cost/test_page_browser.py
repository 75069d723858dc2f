"""The report in a real browser: on broad and slim pages, in the light and in the dark, without a complaint."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.conftest import missing_service
from tests.support.browser import Browser, browser_program

from agentflow.mcp.optimization.cost.findings import Findings
from agentflow.mcp.optimization.cost.writing import write_report

pytestmark = pytest.mark.service


@pytest.fixture(autouse=True)
def program() -> None:
    if browser_program() is None:
        missing_service("Chromium is not installed")


async def test_it_fits_every_page_asks_nobody_and_draws_one_front(tmp_path: Path, findings: Findings) -> None:
    write_report(findings, tmp_path / "out.html")
    papers = set()
    for dark in (False, True):
        async with Browser(dark=dark) as browser:
            for width in (420, 1280):
                await browser.open(tmp_path / "out.html", width=width)
                assert await browser.ask("document.documentElement.scrollWidth") == width
                drawings = "[...document.querySelectorAll('.drawing')]"
                assert await browser.ask(f"{drawings}.filter((each) => each.getClientRects().length).length") == 1
            papers.add(await browser.ask("getComputedStyle(document.body).backgroundColor"))
            assert browser.complaints == []
            assert [url for url in browser.requests if not url.startswith(("file:", "data:"))] == []
    assert len(papers) == 2
