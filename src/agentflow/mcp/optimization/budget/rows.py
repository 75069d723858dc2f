"""The accounts as rows of a SQLite file: each function is a part of one transaction, and decides by what stands there.

slices    account, slice of time   ──▶  spent, reserved, when it ends
accounts  account                  ──▶  the limit that was named last, for whoever lists them
calls     call                     ──▶  what is reserved until when, and in which slices
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from typing import Final, NamedTuple

from agentflow.core.accounts import Charge, Held, Standing, Verdict

__all__ = ["STEPS", "forget", "held", "reserve", "settle", "standings"]

STEPS: Final = (
    (
        "CREATE TABLE budget_slices(account TEXT NOT NULL, slice INTEGER NOT NULL, ends REAL NOT NULL, "
        "spent INTEGER NOT NULL, reserved INTEGER NOT NULL, PRIMARY KEY(account, slice)) WITHOUT ROWID",
        "CREATE TABLE budget_accounts(account TEXT PRIMARY KEY, allowed INTEGER NOT NULL, hard INTEGER NOT NULL) "
        "WITHOUT ROWID",
        "CREATE TABLE budget_calls(call TEXT PRIMARY KEY, amount INTEGER NOT NULL, until REAL NOT NULL, "
        "lapsed INTEGER NOT NULL, charges TEXT NOT NULL) WITHOUT ROWID",
        "CREATE INDEX budget_leases ON budget_calls(lapsed, until)",
    ),
)


class _Sums(NamedTuple):
    spent: int
    reserved: int
    resets: float


def reserve(
    connection: sqlite3.Connection, call: str, amount: int, charges: Sequence[Charge], now: float, lease: float
) -> Verdict:
    before = [_sums(connection, charge.account, now) for charge in charges]
    sums = [_sums(connection, charge.account, now) for charge in charges] if _lapse(connection, now) else before
    for at, (charge, found) in enumerate(zip(charges, sums, strict=True)):
        if charge.hard and found.spent + found.reserved + amount > charge.limit:
            return Verdict(_standings(charges, before, sums), at)
    _write(connection, call, amount, charges, now + lease)
    after = [
        _Sums(found.spent, found.reserved + amount, max(found.resets, charge.ends))
        for charge, found in zip(charges, sums, strict=True)
    ]
    return Verdict(_standings(charges, before, after))


def settle(connection: sqlite3.Connection, call: str, amount: int, now: float) -> tuple[Standing, ...]:
    row = connection.execute("SELECT charges FROM budget_calls WHERE call = ?", (call,)).fetchone()
    if row is None:
        return ()
    places: list[tuple[str, int]] = [(str(account), int(number)) for account, number in json.loads(row[0])]
    charges = [_known(connection, account) for account, _ in places]
    before = [_sums(connection, account, now) for account, _ in places]
    _lapse(connection, now)
    reserved, lapsed = connection.execute("SELECT amount, lapsed FROM budget_calls WHERE call = ?", (call,)).fetchone()
    _move(connection, places, 0 if lapsed else reserved, amount - reserved if lapsed else amount)
    connection.execute("DELETE FROM budget_calls WHERE call = ?", (call,))
    return _standings(charges, before, [_sums(connection, account, now) for account, _ in places])


def standings(connection: sqlite3.Connection, now: float) -> tuple[Standing, ...]:
    _lapse(connection, now)
    with closing(connection.execute("SELECT account FROM budget_accounts ORDER BY account")) as rows:
        charges = [_known(connection, account) for (account,) in rows.fetchall()]
    sums = [_sums(connection, charge.account, now) for charge in charges]
    found = _standings(charges, [_Sums(0, 0, 0.0)] * len(charges), sums)
    return tuple(each for each in found if each.resets > now)


def held(connection: sqlite3.Connection, now: float) -> tuple[Held, ...]:
    _lapse(connection, now)
    question = "SELECT call, amount, until, lapsed, charges FROM budget_calls ORDER BY until"
    with closing(connection.execute(question)) as rows:
        return tuple(
            Held(call, amount, until, bool(lapsed), tuple(str(account) for account, _ in json.loads(charges)))
            for call, amount, until, lapsed, charges in rows.fetchall()
        )


def forget(connection: sqlite3.Connection, before: float) -> None:
    """Drop what ended before that moment."""
    connection.execute("DELETE FROM budget_slices WHERE ends < ?", (before,))
    connection.execute("DELETE FROM budget_calls WHERE lapsed = 1 AND until < ?", (before,))
    connection.execute("DELETE FROM budget_accounts WHERE account NOT IN (SELECT account FROM budget_slices)")


def _lapse(connection: sqlite3.Connection, now: float) -> bool:
    """What nobody has settled in time is spent. Whether there was any."""
    question = "SELECT call, amount, charges FROM budget_calls WHERE lapsed = 0 AND until <= ?"
    with closing(connection.execute(question, (now,))) as rows:
        late = rows.fetchall()
    for call, amount, charges in late:
        _move(connection, json.loads(charges), amount, amount)
        connection.execute("UPDATE budget_calls SET lapsed = 1 WHERE call = ?", (call,))
    return bool(late)


def _move(connection: sqlite3.Connection, places: Sequence[tuple[str, int]], reserved: int, spent: int) -> None:
    connection.executemany(
        "UPDATE budget_slices SET reserved = reserved - ?, spent = spent + ? WHERE account = ? AND slice = ?",
        [(reserved, spent, account, number) for account, number in places],
    )


def _write(connection: sqlite3.Connection, call: str, amount: int, charges: Sequence[Charge], until: float) -> None:
    connection.executemany(
        "INSERT INTO budget_slices VALUES (?, ?, ?, 0, ?) ON CONFLICT DO UPDATE SET "
        "reserved = reserved + excluded.reserved, ends = max(ends, excluded.ends)",
        [(charge.account, charge.slice, charge.ends, amount) for charge in charges],
    )
    connection.executemany(
        "INSERT INTO budget_accounts VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET "
        "allowed = excluded.allowed, hard = excluded.hard "
        "WHERE allowed != excluded.allowed OR hard != excluded.hard",
        [(charge.account, charge.limit, charge.hard) for charge in charges],
    )
    places = json.dumps([[charge.account, charge.slice] for charge in charges])
    connection.execute("INSERT INTO budget_calls VALUES (?, ?, ?, 0, ?)", (call, amount, until, places))


def _sums(connection: sqlite3.Connection, account: str, now: float) -> _Sums:
    question = "SELECT coalesce(sum(spent), 0), coalesce(sum(reserved), 0), max(ends) FROM budget_slices"
    spent, reserved, ends = connection.execute(f"{question} WHERE account = ? AND ends > ?", (account, now)).fetchone()
    return _Sums(int(spent), int(reserved), ends or 0.0)


def _known(connection: sqlite3.Connection, account: str) -> Charge:
    question = "SELECT allowed, hard FROM budget_accounts WHERE account = ?"
    row = connection.execute(question, (account,)).fetchone() or (0, 0)
    return Charge(account, 0, 0.0, row[0], bool(row[1]))


def _standings(charges: Sequence[Charge], before: Sequence[_Sums], after: Sequence[_Sums]) -> tuple[Standing, ...]:
    return tuple(
        Standing(charge.account, charge.limit, charge.hard, earlier.spent, now.spent, now.reserved, now.resets)
        for charge, earlier, now in zip(charges, before, after, strict=True)
    )
