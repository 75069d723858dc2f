"""Removes whole segments that are older, or more, than the policy wants, and leaves a signed tombstone for each.

    segment ──check its seals──▶ record audit.removed ──▶ tombstone in removed.jsonl ──▶ delete the file

In this order, so that a crash in between leaves a segment too many and never one too few. A segment whose seals do not
fit is evidence: it stays, and so does what is younger.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from agentflow.core.observability.audit.folder import Chain, lines_of, replace_file
from agentflow.core.observability.audit.keys import AuditKeys
from agentflow.core.observability.audit.policies import Retention, Span
from agentflow.core.observability.audit.record import AuditRecord, digest_of, read_line, time_of, time_text
from agentflow.core.observability.audit.recovery import first_line, key_id_of, place_of, tail_of
from agentflow.core.observability.audit.statements import Tombstone
from agentflow.core.observability.plain import Plain

__all__ = ["remove_due", "tombstones_of"]

_log = logging.getLogger("agentflow.audit")


def remove_due(
    chain: Chain,
    log: str,
    current: int,
    keys: AuditKeys,
    retention: Retention,
    now: float,
    record: Callable[[dict[str, Plain]], None],
) -> list[Tombstone]:
    """Remove what may go of the segments before `current`; `record` writes that down first. Raises OSError."""
    buried = {stone.segment for stone in tombstones_of(chain, keys) if stone is not None}
    old = [(number, path) for number, path in chain.segments() if number < current]
    for number, path in old:
        if number in buried:  # a crash came between its tombstone and its end
            path.unlink()
    if retention.age is None and retention.size is None:
        return []
    files = {number: path for number, path in old if number not in buried}
    spans = [Span(number, path.stat().st_size, _youngest(path)) for number, path in files.items()]
    removed = []
    for span, reason in retention.leaving(spans, now):
        stone = _examined(files[span.number], span.number, chain, log, keys, now, reason)
        if stone is None:
            _log.error("%s/%s is not removed: its seals do not fit", chain.name, files[span.number].name)
            break
        record(_facts(stone))
        _bury(chain, stone, keys)
        files[span.number].unlink()
        removed.append(stone)
    return removed


def tombstones_of(chain: Chain, keys: AuditKeys) -> list[Tombstone | None]:
    """All of a chain's, in their order; None for a line that is not signed as it should be."""
    try:
        return [Tombstone.read(line, keys) for _, line, whole in lines_of(chain.removed) if whole]
    except FileNotFoundError:
        return []


def _youngest(path: Path) -> float:
    """The time of its last record, which is believed only as far as `_examined` finds its seal sound."""
    last, _, _ = tail_of(path)
    try:
        return time_of(json.loads(last or b"")["time"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return float("inf")


def _examined(
    path: Path, number: int, chain: Chain, log: str, keys: AuditKeys, now: float, reason: str
) -> Tombstone | None:
    """The segment's tombstone, if each of its records bears its seal and follows the one before."""
    key = keys.find(key_id_of(first_line(path)))
    if key is None:
        return None
    place = place_of(log, chain.name)
    digest = hashlib.sha256()
    first: AuditRecord | None = None
    last: AuditRecord | None = None
    hash_before = ""
    for _, line, whole in lines_of(path):
        record = read_line(line, key, place) if whole else None
        if record is None or (last is not None and (record.seq, record.prev) != (last.seq + 1, hash_before)):
            return None
        first, last, hash_before = first or record, record, digest_of(line)
        digest.update(line + b"\n")
    if first is None or last is None:
        return None
    chains = first.data.get("chains", 1)
    return Tombstone(
        log=log,
        chain=chain.name,
        segment=number,
        first=first.seq,
        last=last.seq,
        first_time=first.time,
        last_time=last.time,
        last_hash=hash_before,
        chains=chains if isinstance(chains, int) else 1,
        file_digest=digest.hexdigest(),
        removed=time_text(now),
        reason=reason,
    )


def _facts(stone: Tombstone) -> dict[str, Plain]:
    facts: dict[str, Plain] = asdict(stone)
    return {
        name: facts[name] for name in ("segment", "first", "last", "first_time", "last_time", "file_digest", "reason")
    }


def _bury(chain: Chain, stone: Tombstone, keys: AuditKeys) -> None:
    """Put the tombstone behind the others. The file is replaced whole, so that none is ever half written."""
    before = b""
    if chain.removed.exists():
        before = b"".join(line + b"\n" for _, line, whole in lines_of(chain.removed) if whole)
    replace_file(chain.removed, before + stone.signed(keys.current) + b"\n", sync=True)
