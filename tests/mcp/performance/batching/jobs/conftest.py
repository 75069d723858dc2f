"""A bench for batch jobs, one for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.batch_bench import BatchBench


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[BatchBench]:
    async with BatchBench(tmp_path) as made:
        yield made


@pytest.fixture(params=["openai", "anthropic", "google", "google-file", "moonshot"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[BatchBench, str]]:
    """A bench, and a model of each API; Google takes small batches inline and large ones as a file."""
    kind, _, in_file = str(request.param).partition("-")
    async with BatchBench(tmp_path, **({"google": {"batch_inline": 0}} if in_file else {})) as made:
        yield made, kind
