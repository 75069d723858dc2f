"""The report in a real browser: it complains of nothing, asks for nothing, and fits narrow and wide windows."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.conftest import missing_service
from tests.support.browser import Browser, browser_program
from tests.support.known_latencies import KnownLatencies, numbered

from agentflow.clock import VirtualClock
from agentflow.errors import RateLimitError
from agentflow.mcp.optimization.benchmark import Benchmark, Objective, Poisson

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models with long names, one of which stalls and fails now and then."""
    clock = VirtualClock()
    errors: dict[int, Exception] = {number: RateLimitError("too fast") for number in range(0, 500, 40)}
    benchmark = Benchmark(
        ("a-model-with-a-name-that-is-longer-than-most-names-of-models", KnownLatencies(clock, price=0.001)),
        ("stalling", KnownLatencies(clock, stall=(45.0, 47.0), failing=errors, price=0.002)),
        dataset=numbered(500),
        arrivals=Poisson(10.0),
        duration=15.0,
        objective=Objective(ttft=0.3),
        clock=clock,
    )
    file = tmp_path_factory.mktemp("page") / "report.html"
    clock.run(benchmark.run()).write(html_file=file)
    return file


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
async def test_the_page_stands_in_a_browser(page: Path, width: int, dark: bool) -> None:
    if browser_program() is None:
        missing_service("no Chromium is installed")
    async with Browser(dark=dark) as browser:
        await browser.open(page, width=width)
        assert browser.complaints == []
        assert browser.requests == [page.as_uri()]
        assert await browser.ask("document.documentElement.scrollWidth") <= width
        assert await browser.ask("document.querySelectorAll('svg.plot polyline').length") >= 12
        spilled = "[...document.querySelectorAll('svg.plot text')].filter(text => text.getBBox().x < -0.5).length"
        assert await browser.ask(spilled) == 0
        styled = "getComputedStyle(document.body).backgroundColor"
        assert await browser.ask(styled) == ("rgb(17, 20, 27)" if dark else "rgb(246, 247, 249)")
