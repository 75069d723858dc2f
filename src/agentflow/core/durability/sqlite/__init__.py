"""Runs kept in a SQLite file: SqliteDurability."""

from agentflow.core.durability.sqlite.engine import DEFAULT_PATH, SqliteDurability

__all__ = ["DEFAULT_PATH", "SqliteDurability"]
