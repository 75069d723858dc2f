"""The tables of durable runs, and how each version of them became the next.

    durable_runs ──< durable_records        one row for everything in a run that is not to happen twice

`number` of a record grows with every change, whichever run and process it comes from, so what is new can be told by it.
`seq` is the number that the record had when it was first saved, which is its place in the order.

The columns that are counted stand before `body`, so that counting does not read what is large. Times are seconds since
1970. A change appends a step to STEPS and never edits one that was released.
"""

from __future__ import annotations

from typing import Final

from agentflow.core.observability.store.database import Steps

__all__ = ["COMPONENT", "STEPS"]

COMPONENT: Final = "durability"
"""Its name in `meta`."""

_FIRST: Final = (
    """CREATE TABLE durable_runs(
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        flow TEXT NOT NULL,
        status TEXT NOT NULL,     -- running, waiting, done, failed, cancelled
        final INTEGER NOT NULL DEFAULT 0,        -- never goes on: done, or cancelled by request
        asked_to_end INTEGER NOT NULL DEFAULT 0, -- somebody has cancelled it while it ran
        owner TEXT,               -- who runs it, or ran it when it was last seen
        wake REAL,                -- when there is something to go on with
        created REAL NOT NULL,
        updated REAL NOT NULL,
        steps INTEGER NOT NULL DEFAULT 0,        -- as of its last end; counted anew while it runs
        cost REAL DEFAULT 0,      -- US dollars; NULL where nobody knows
        action TEXT,
        error TEXT,
        tenant TEXT,
        source TEXT,
        forked_from TEXT,
        forked_at TEXT,
        limits TEXT,
        interrupts TEXT,          -- what it waits for, as of its last end: JSON
        inputs TEXT NOT NULL,
        graph TEXT NOT NULL
    )""",
    "CREATE INDEX durable_runs_by_status ON durable_runs(status, number)",
    "CREATE INDEX durable_runs_by_flow ON durable_runs(flow, number)",
    "CREATE INDEX durable_runs_by_wake ON durable_runs(wake) WHERE wake IS NOT NULL",
    "CREATE INDEX durable_runs_to_end ON durable_runs(owner) WHERE asked_to_end = 1",
    """CREATE TABLE durable_records(
        number INTEGER PRIMARY KEY,
        seq INTEGER NOT NULL,
        run INTEGER NOT NULL,
        id TEXT NOT NULL,
        kind TEXT NOT NULL,
        at REAL NOT NULL,
        seconds REAL NOT NULL,
        attempts INTEGER NOT NULL,
        cost REAL,
        tokens INTEGER NOT NULL,
        large TEXT,               -- the SHA-256 of a body that stands in a file of its own
        body TEXT NOT NULL,
        UNIQUE(run, id)
    )""",
    "CREATE INDEX durable_records_by_large ON durable_records(large) WHERE large IS NOT NULL",
)

STEPS: Final[Steps] = (_FIRST,)
