"""SQLite as an engine does what every engine must do, in both ways of waiting for the disk."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.core.durability.engine_contract import EngineContract

from agentflow.core.durability.protocol import Durability
from agentflow.core.durability.sqlite import SqliteDurability


class TestNormal(EngineContract):
    @pytest.fixture
    async def engine(self, tmp_path: Path) -> AsyncIterator[Durability]:
        engine = SqliteDurability(tmp_path / "runs.db")
        yield engine
        await engine.close()


class TestFull(EngineContract):
    @pytest.fixture
    async def engine(self, tmp_path: Path) -> AsyncIterator[Durability]:
        engine = SqliteDurability(tmp_path / "runs.db", sync="full")
        yield engine
        await engine.close()
