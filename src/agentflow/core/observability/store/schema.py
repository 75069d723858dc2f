"""The tables of the run store, and how each version of them became the next.

    processes ─┬─< runs ─┬─< events          one row an event, in the order in which they were told
               │         └─< usage           tokens and dollars of a run by hour and model
               └─< losses    spending        the same of runs that are gone, by flow and tenant
                   feedback                  how good a run's outcome was

Times are seconds since 1970, durations seconds, costs US dollars. A change appends a step to STEPS and never edits one
that was released.
"""

from __future__ import annotations

from typing import Final

from agentflow.core.observability.store.database import Steps

__all__ = ["COMPONENT", "COUNTS", "STEPS"]

COMPONENT: Final = "runs"
"""Its name in `meta`."""

COUNTS: Final = (
    "calls",
    "failed_calls",
    "unpriced",
    "input_tokens",
    "output_tokens",
    "cached_tokens",
    "reasoning_tokens",
    "cost",
)
"""The columns that add up, in `runs`, `usage` and `spending`."""

_COUNTS: Final = ", ".join(f"{name} {'REAL' if name == 'cost' else 'INTEGER'} NOT NULL DEFAULT 0" for name in COUNTS)

_FIRST: Final = (
    """CREATE TABLE processes(
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        pid INTEGER NOT NULL,
        began TEXT NOT NULL,      -- what tells it from another one that got its pid: ticks since the boot
        boot TEXT NOT NULL,
        namespace TEXT NOT NULL,
        machine TEXT NOT NULL,
        host TEXT NOT NULL,
        opened REAL NOT NULL      -- when it opened this file
    )""",
    f"""CREATE TABLE runs(
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        kind TEXT NOT NULL,       -- flow or call: a model call outside of any flow
        name TEXT NOT NULL,       -- the flow's, or the model's
        status TEXT NOT NULL,     -- running, waiting, done, failed, cancelled, lost
        started REAL NOT NULL,
        seen REAL NOT NULL,       -- when its last event happened
        duration REAL,
        error TEXT,
        error_type TEXT,
        tenant TEXT,
        parent_run TEXT,          -- the run that it was started in
        process INTEGER NOT NULL,
        events INTEGER NOT NULL DEFAULT 0,
        breakdown TEXT,           -- JSON: seconds by what they were spent on
        leaving INTEGER NOT NULL DEFAULT 0,   -- its events are being deleted
        {_COUNTS}                 -- unpriced: calls whose cost nobody knows; cost: that of the others
    )""",
    "CREATE INDEX runs_by_start ON runs(started)",
    "CREATE INDEX runs_going_on ON runs(process) WHERE status = 'running'",
    "CREATE INDEX runs_leaving ON runs(number) WHERE leaving",
    """CREATE TABLE events(
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        run INTEGER NOT NULL,     -- runs.number
        sequence INTEGER NOT NULL,
        kind TEXT NOT NULL,
        path TEXT NOT NULL,
        node TEXT,                -- this and visit: NULL where the end of the path says the same
        visit INTEGER,
        time REAL NOT NULL,
        at REAL NOT NULL,         -- seconds since the run began
        duration REAL,
        attempt INTEGER,          -- NULL: 1
        span INTEGER,             -- NULL: its own sequence
        parent INTEGER,
        data TEXT                 -- JSON; NULL: nothing
    )""",
    "CREATE INDEX events_by_run ON events(run)",
    f"""CREATE TABLE usage(
        run INTEGER NOT NULL,
        hour INTEGER NOT NULL,    -- hours since 1970 UTC, of the call's end
        model TEXT NOT NULL,
        provider TEXT NOT NULL,
        {_COUNTS},
        PRIMARY KEY (run, hour, model, provider)
    ) WITHOUT ROWID""",
    f"""CREATE TABLE spending(
        hour INTEGER NOT NULL,
        flow TEXT NOT NULL,
        model TEXT NOT NULL,
        provider TEXT NOT NULL,
        tenant TEXT NOT NULL,
        {_COUNTS},
        PRIMARY KEY (hour, flow, model, provider, tenant)
    ) WITHOUT ROWID""",
    """CREATE TABLE feedback(
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        run_id TEXT NOT NULL,     -- runs.id: feedback may come when the run is gone
        time REAL NOT NULL,
        score REAL,
        label TEXT,
        comment TEXT,
        source TEXT,
        path TEXT NOT NULL
    )""",
    "CREATE INDEX feedback_by_run ON feedback(run_id)",
    """CREATE TABLE losses(
        process INTEGER NOT NULL,
        reason TEXT NOT NULL,     -- queue, disk, bound, unwritable, closed, damaged
        note TEXT NOT NULL,
        events INTEGER NOT NULL,
        first REAL NOT NULL,
        last REAL NOT NULL,
        PRIMARY KEY (process, reason, note)
    ) WITHOUT ROWID""",
)

_SECOND: Final = (  # runs that are parked, and go on
    "ALTER TABLE runs ADD COLUMN stretch INTEGER NOT NULL DEFAULT 0",  # how often it has gone on
    "ALTER TABLE runs ADD COLUMN parked REAL NOT NULL DEFAULT 0",  # seconds in which nobody ran it
    "ALTER TABLE runs ADD COLUMN ended REAL",  # when its last stretch ended, in seconds since the first began
)

STEPS: Final[Steps] = (_FIRST, _SECOND)
