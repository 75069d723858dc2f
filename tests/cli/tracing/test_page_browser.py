"""The page of a run in a real browser: drawn where it says it is, in the colours it says, without a complaint.

    agentflow run examples/digest.py ──▶ agentflow trace last --html ──▶ Chromium ──▶ a picture, sizes, complaints

A small flow's page would not do: this is the digest of the project's own documents.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.conftest import ROOT, missing_service
from tests.support.browser import Browser, browser_program
from tests.support.png import Picture
from tests.support.run_events import busy_run

from agentflow.cli.tracing.categories import CATEGORIES
from agentflow.cli.tracing.page import page_of
from agentflow.core.observability.trace.tree import trace_of

pytestmark = pytest.mark.service

BARS = """
[...document.querySelectorAll(".waterfall .bar rect")].map((rect) => {
  const box = rect.getBoundingClientRect();
  const row = rect.closest("tr");
  return {x: box.x, y: box.y, width: box.width, height: box.height, fill: getComputedStyle(rect).fill,
          name: rect.getAttribute("class"), critical: row.classList.contains("critical")};
})
"""


@pytest.fixture(autouse=True)
def program() -> None:
    if browser_program() is None:
        missing_service("Chromium is not installed")


@pytest.fixture
def digest(invoke, place: Path) -> Path:
    """The page of a run of the digest example over the project's own documents."""
    for name in ("docs", "examples"):
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__", "images"))
    ran = invoke("run", "-q", "examples/digest.py", "docs", "--output", "digest.md")
    assert ran.exit_code == 0, ran.stderr
    written = invoke("trace", "last", "--html", "page.html")
    assert (written.exit_code, written.stdout) == (0, "wrote page.html\n")
    return place / "page.html"


@pytest.fixture
def busy(tmp_path: Path) -> Path:
    """The page of a run made by hand, in which most kinds of waits occur and one item fails."""
    file = tmp_path / "busy.html"
    file.write_text(page_of(trace_of(busy_run(14, failing=2, content=True).events)), encoding="utf-8")
    return file


async def test_the_digest_s_page_is_drawn_as_it_says_and_answers_three_questions(digest: Path) -> None:
    async with Browser() as browser:
        await browser.open(digest)
        part = await browser.box(".waterfall")
        picture, bars = Picture(await browser.picture(part)), await browser.ask(BARS)
        answers = await browser.ask("[...document.querySelectorAll('.cards article')].map((each) => each.innerText)")
        sections = await browser.ask("[...document.querySelectorAll('main section')].map((each) => each.id)")
        nodes = await browser.ask(
            "[...document.querySelectorAll('.graph .node .title')].map((each) => each.textContent)"
        )
        wide = await browser.ask("[document.documentElement.scrollWidth, innerWidth]")
        lines = await browser.ask("document.querySelectorAll('.waterfall tbody tr').length")
    assert browser.complaints == []
    assert [each for each in browser.requests if not each.startswith(("file:", "data:"))] == []
    assert len(picture.colours()) > 8
    assert sections == ["waterfall", "graph", "time", "money", "places"]
    assert nodes == ["read", "summarise (each)", "combine", "judge", "shorten", "write"]
    assert wide[0] <= wide[1]
    assert lines > 20
    did, slow, cost = answers
    assert "digest ran to its end in" in did
    assert "went into" in slow
    assert "model calls" in cost
    _check_bars(bars, picture, part)


async def test_every_category_s_bar_stands_where_the_page_says_in_its_colour(busy: Path) -> None:
    async with Browser() as browser:
        await browser.open(busy)
        part = await browser.box(".waterfall")
        picture, bars = Picture(await browser.picture(part)), await browser.ask(BARS)
    assert browser.complaints == []
    assert {bar["name"] for bar in bars} >= {"c-limiter", "c-failed", "c-first_token", "c-generation", "c-own"}
    _check_bars(bars, picture, part)
    widest = max((bar for bar in bars if bar["critical"]), key=lambda bar: bar["width"])
    assert widest["name"] == "c-limiter"


def _check_bars(bars: list[dict], picture: Picture, part: dict[str, float]) -> None:
    """The picture has each bar's colour in the middle of each bar that is broad enough to have one."""
    seen = 0
    for bar in bars:
        if bar["width"] < 5 or not bar["critical"]:
            continue
        category = CATEGORIES[bar["name"].removeprefix("c-")]
        wanted = tuple(int(category.light[at : at + 2], 16) for at in (1, 3, 5))
        assert bar["fill"] == f"rgb({wanted[0]}, {wanted[1]}, {wanted[2]})"
        found = picture.at(bar["x"] + bar["width"] / 2 - part["x"], bar["y"] + bar["height"] / 2 - part["y"])
        assert found == wanted, f"{bar}: {found}"
        seen += 1
    assert seen >= 5


async def test_details_open_by_their_link_alone_and_without_a_script(busy: Path) -> None:
    async with Browser(scripts=False) as browser:
        right = {"x": 740, "y": 0, "width": 500, "height": 600}
        await browser.open(busy, "#s25", height=1200)
        drawer = Picture(await browser.picture(right))
        await browser.open(busy, height=1200)
        closed = Picture(await browser.picture(right))
    assert browser.complaints == []
    assert drawer.at(20, 5) == (255, 255, 255) != closed.at(20, 5), "the drawer reaches to the top"
    assert {(232, 113, 10), (47, 111, 228), (31, 143, 87)} <= drawer.colours(step=2), "its breakdown is drawn in it"


async def test_keys_walk_through_the_lines_fold_them_and_close_the_details(busy: Path) -> None:
    async with Browser() as browser:
        await browser.open(busy, height=1200)
        shown = "[...document.querySelectorAll('.waterfall tbody tr')].filter((row) => !row.hidden).length"
        before = await browser.ask(shown)
        await browser.ask("document.querySelector('.waterfall tbody a').focus()")
        await browser.press("ArrowDown")
        await browser.press("ArrowDown")
        assert await browser.ask("document.activeElement.textContent") == "summarise"
        await browser.press("ArrowLeft")
        assert await browser.ask(shown) < before
        await browser.press("ArrowRight")
        assert await browser.ask(shown) == before
        await browser.ask("document.activeElement.click()")
        assert await browser.ask("document.querySelectorAll('.facts:target').length") == 1
        await browser.press("Escape")
        assert await browser.ask("document.querySelectorAll('.facts:target').length") == 0
        await browser.ask(
            "(() => { const box = document.querySelector('.tools input'); box.value = 'summarise[2]';"
            "box.dispatchEvent(new Event('input')); })()"
        )
        assert await browser.ask(shown) == 3
    assert browser.complaints == []


async def test_dark_is_dark(busy: Path) -> None:
    async with Browser(dark=True) as browser:
        await browser.open(busy, height=900)
        picture = Picture(await browser.picture({"x": 0, "y": 0, "width": 300, "height": 300}))
    assert sum(picture.at(3, 200)) < 120


@pytest.mark.parametrize("scripts", [True, False])
async def test_hostile_names_prompts_and_errors_stay_text(tmp_path: Path, scripts: bool) -> None:
    evil = "</script><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">\u202e"
    run = busy_run(2, content=True)
    for event in run.events:
        object.__setattr__(event, "path", event.path.replace("digest", evil))
        object.__setattr__(event, "node", event.node + evil)
        facts = {
            "error": evil,
            "answer": evil,
            "tenant": evil,
            "model": evil,
            "messages": [{"role": evil, "content": evil}],
        }
        facts["graph"] = {"nodes": [{"name": evil}], "edges": [[evil, evil, None]], "start": evil}
        object.__setattr__(event, "data", {**event.data, **facts, evil: evil})
    file = tmp_path / "evil.html"
    file.write_text(page_of(trace_of(run.events)), encoding="utf-8")
    async with Browser(scripts=scripts) as browser:
        await browser.open(file, height=900)
        await browser.picture()
        if scripts:
            assert "taken" not in (await browser.ask("document.title")).split("<")[0]
            assert await browser.ask("document.querySelectorAll('img').length") == 0
            assert await browser.ask("document.querySelectorAll('script').length") == 1
    assert browser.complaints == []
    assert {each.partition(":")[0] for each in browser.requests} <= {"file", "data"}


async def test_ten_thousand_items_stay_a_page_that_opens(tmp_path: Path) -> None:
    file = tmp_path / "big.html"
    file.write_text(page_of(trace_of(busy_run(10_000).events)), encoding="utf-8")
    assert file.stat().st_size < 3_000_000
    async with Browser() as browser:
        await browser.open(file, height=900)
        assert await browser.ask("document.querySelectorAll('.waterfall tbody tr').length") < 200
        assert "9,960 more × summarise" in await browser.ask("document.querySelector('.waterfall').innerText")
    assert browser.complaints == []
