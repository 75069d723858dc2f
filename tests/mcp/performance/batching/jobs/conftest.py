"""A bench for batch jobs, one for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.support.batch_bench import BatchBench


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[BatchBench]:
    async with BatchBench(tmp_path) as made:
        yield made


@pytest.fixture(params=["openai", "anthropic", "google-file"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[BatchBench, str]]:
    """A bench, and a model of each kind of API: by files and names, without names, by files of the service's own."""
    async with placed(str(request.param), tmp_path) as made:
        yield made


@pytest.fixture(params=["openai", "anthropic", "google", "google-file", "moonshot"])
async def every_place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[BatchBench, str]]:
    """Every API; Google takes small batches inline and large ones as a file."""
    async with placed(str(request.param), tmp_path) as made:
        yield made


@asynccontextmanager
async def placed(name: str, folder: Path) -> AsyncIterator[tuple[BatchBench, str]]:
    kind, _, in_file = name.partition("-")
    async with BatchBench(folder, **({"google": {"batch_inline": 0}} if in_file else {})) as made:
        yield made, kind
