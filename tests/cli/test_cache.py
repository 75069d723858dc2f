"""`agentflow cache`: what is kept in the files of models.yml, what it has saved, and how it is removed."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from tests.support.costly import CENT, Costly, asked

from agentflow.llm.caller import Caller, asking_as
from agentflow.mcp.performance.caching import ResponseCache, SqliteStore

MODELS = """
providers: {lab: {kind: scripted, options: {answers: [fine]}}}
models:
  one: {provider: lab, temperature: 0, cache: {ttl: 3600, file: cache.db}}
  two: {provider: lab, temperature: 0, cache: {ttl: 3600, file: cache.db}}
  three: {provider: lab, cache: {ttl: 3600}}
  four: {provider: lab, temperature: 0, cache: {ttl: 3600, file: not-yet.db}}
"""


@pytest.fixture
def file(place: Path) -> Path:
    """Three answers of a cent each, of which one was found twice."""
    (place / "models.yml").write_text(MODELS)

    async def main() -> None:
        cache = ResponseCache(Costly(), ttl=3600, store=SqliteStore(place / "cache.db"))
        for _ in range(3):
            await cache.execute(asked("a"))
        await cache.execute(asked("b", metadata={"agentflow_cache_tags": "faq"}))
        with asking_as(Caller(tenant="acme")):
            await cache.execute(asked("a"))
        await cache.aclose()

    asyncio.run(main())
    return place / "cache.db"


@pytest.mark.parametrize("words", [(), ("--file", "cache.db")])
def test_stats_say_what_is_kept_and_what_that_has_saved(invoke, file: Path, words) -> None:
    """A file that two entries name is one file."""
    shown = invoke("cache", "stats", *words)
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.count("cache.db") == 1
    assert "3 answers" in shown.stdout
    assert "40% of 5 questions found, $0.0200 saved" in shown.stdout
    assert "tiny-1" in shown.stdout


def test_stats_as_json(invoke, file: Path) -> None:
    (found,) = json.loads(invoke("cache", "stats", "--json").stdout)
    assert (found["entries"], found["hits"], found["misses"]) == (3, 2, 3)
    assert found["saved"] == pytest.approx(2 * CENT)
    assert [(each["model"], each["entries"]) for each in found["models"]] == [("tiny-1", 3)]
    assert found["models"][0]["cost"] == pytest.approx(3 * CENT)


@pytest.mark.parametrize(
    ("words", "gone"),
    [
        (("--model", "tiny-1"), 3),
        (("--model", "other"), 0),
        (("--tag", "faq"), 1),
        (("--prompt", "a"), 1),
        (("--prompt", "a", "--tenant", "acme"), 1),
        (("--tenant", "acme"), 1),
        (("--tag", "faq", "--tenant", "acme"), 0),
        (("--all",), 3),
    ],
)
def test_purge_removes_what_fits_all_that_is_said(invoke, file: Path, words, gone: int) -> None:
    done = invoke("cache", "purge", *words)
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{gone} answers removed\n"
    (found,) = json.loads(invoke("cache", "stats", "--json").stdout)
    assert found["entries"] == 3 - gone


@pytest.mark.parametrize("words", [(), ("--all", "--model", "tiny-1")])
def test_purge_asks_what_to_remove(invoke, file: Path, words) -> None:
    assert invoke("cache", "purge", *words).exit_code == 2


def test_purge_by_what_is_not_written_down_needs_the_secret(invoke, file: Path) -> None:
    (file.parent / "cache.db.key").rename(file.parent / "elsewhere")
    assert "--secret-file" in invoke("cache", "purge", "--tag", "faq").output
    done = invoke("cache", "purge", "--tag", "faq", "--secret-file", "elsewhere")
    assert done.stdout == "1 answers removed\n"


def test_what_is_no_cache_is_said(invoke, place: Path) -> None:
    (place / "diary").write_text("Dear diary")
    assert invoke("cache", "stats", "--file", "diary").exit_code == 3
    assert invoke("cache", "stats", "--file", "nowhere").exit_code == 2
    assert invoke("cache", "purge", "--all", "--file", "diary").exit_code == 3
    assert (place / "diary").read_text() == "Dear diary"
    assert "no entry of models.yml" in invoke("cache", "stats").output


def test_a_question_of_the_command_line_is_answered_from_the_file(invoke, place: Path) -> None:
    """The scripted model has one answer; the second process gets it from the cache."""
    (place / "models.yml").write_text(MODELS)
    for _ in range(2):
        asked_ = invoke("ask", "--model", "one", "Hi")
        assert asked_.exit_code == 0, asked_.output
        assert "fine" in asked_.stdout
    (found,) = json.loads(invoke("cache", "stats", "--json").stdout)
    assert (found["entries"], found["hits"], found["misses"]) == (1, 1, 1)
