"""A real process that is killed (SIGKILL) at edges of a job's course, and another one that goes on from the file."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.batch_api_server import BatchApiServer

ROOT = Path(__file__).resolve().parents[5]
REQUESTS = 4


@pytest.fixture
async def server() -> AsyncIterator[BatchApiServer]:
    async with BatchApiServer(time.time) as made:
        made.takes = 0.3
        yield made


async def life(server: BatchApiServer, folder: Path, model: str, edge: str) -> tuple[int, list[str]]:
    """The exit status of a process, and what it said."""
    configuration = folder / "models.yml"
    configuration.write_text(server.models_yml(), encoding="utf-8")
    words = [str(folder / "batches.db"), str(configuration), model, edge, str(REQUESTS)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.batch_life", *words, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode().splitlines()


@pytest.mark.parametrize(
    ("model", "edges"),
    [
        ("openai", ["after upload", "after create", "between answers"]),
        ("anthropic", ["after create"]),
        ("google", ["after create"]),
    ],
)
async def test_what_a_killed_process_had_begun_is_found_and_finished(
    server: BatchApiServer, tmp_path: Path, model: str, edges: list[str]
) -> None:
    for edge in edges:
        status, _ = await life(server, tmp_path, model, edge)
        assert status == -9
    status, said = await life(server, tmp_path, model, "")

    assert status == 0
    assert sorted(said) == [f"{number} re: question {number}" for number in range(REQUESTS)]
    assert server.billed == {f"question {number}": 1 for number in range(REQUESTS)}
