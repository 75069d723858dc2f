"""The tables of the one SQLite file that batch jobs are kept in, and how they change from version to version."""

from __future__ import annotations

from typing import Final

from agentflow.core.observability.store.database import Steps

__all__ = ["COMPONENT", "STEPS"]

COMPONENT: Final = "batches"

STEPS: Final[Steps] = (
    (
        # direct: since when what is left is asked directly; cancelled: since when it is called off
        """CREATE TABLE batch_jobs(
            id TEXT PRIMARY KEY, model TEXT NOT NULL, provider TEXT NOT NULL, model_id TEXT NOT NULL,
            created REAL NOT NULL, deadline REAL, tenant TEXT, policy TEXT NOT NULL, digest TEXT NOT NULL,
            direct REAL, cancelled REAL)""",
        """CREATE TABLE batch_parts(
            id TEXT PRIMARY KEY, job TEXT NOT NULL REFERENCES batch_jobs(id), number INTEGER NOT NULL,
            state TEXT NOT NULL, requests INTEGER NOT NULL, file TEXT, batch TEXT, outcome TEXT,
            intent REAL, submitted REAL, ended REAL, done INTEGER, failed INTEGER,
            asked INTEGER NOT NULL DEFAULT 0, due REAL NOT NULL DEFAULT 0, hold TEXT,
            rejected TEXT NOT NULL DEFAULT '[]')""",
        "CREATE INDEX batch_parts_of_job ON batch_parts(job, number)",
        # state: open, asking (directly), answered, failed, cancelled; settled: in which order they were
        """CREATE TABLE batch_requests(
            job TEXT NOT NULL REFERENCES batch_jobs(id), seq INTEGER NOT NULL, custom_id TEXT NOT NULL,
            path TEXT NOT NULL, body BLOB NOT NULL, request TEXT NOT NULL,
            part TEXT REFERENCES batch_parts(id), state TEXT NOT NULL DEFAULT 'open',
            attempts INTEGER NOT NULL DEFAULT 0, via TEXT, answer TEXT, error TEXT, cost REAL, tokens INTEGER,
            at_risk INTEGER NOT NULL DEFAULT 0, billed_twice INTEGER NOT NULL DEFAULT 0, second_cost REAL,
            settled INTEGER, PRIMARY KEY(job, seq)) WITHOUT ROWID""",
        "CREATE UNIQUE INDEX batch_requests_by_id ON batch_requests(custom_id)",
        "CREATE INDEX batch_requests_of_part ON batch_requests(part)",
        "CREATE INDEX batch_requests_settled ON batch_requests(job, settled)",
        """CREATE TABLE batch_journal(
            id INTEGER PRIMARY KEY AUTOINCREMENT, job TEXT NOT NULL, part TEXT, at REAL NOT NULL,
            event TEXT NOT NULL, old TEXT, new TEXT, reason TEXT NOT NULL)""",
        "CREATE INDEX batch_journal_of_job ON batch_journal(job, id)",
    ),
)
