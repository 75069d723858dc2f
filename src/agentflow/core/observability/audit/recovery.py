"""Where a chain stands, read from its files when a process begins to write: what is whole, what was torn, what is lost.

    …{"seq":41,…}⏎{"seq":42,"ti            ──▶  State(seq=41, torn=14)
    head.json says 45                      ──▶  lost=4: the chain goes on behind the head, so that verify finds the gap

A line without an end at the end of the last file is what a killed process leaves behind. It is cut off and recorded.
A whole line that its seal does not fit is no accident.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agentflow.core.observability.audit.folder import Chain
from agentflow.core.observability.audit.keys import AuditKeys
from agentflow.core.observability.audit.record import LONGEST_LINE, NO_HASH, AuditRecord, digest_of, read_line, time_of
from agentflow.core.observability.audit.statements import Head
from agentflow.errors import AuditError

__all__ = ["State", "first_line", "key_id_of", "place_of", "recover", "tail_of"]

_BLOCK: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class State:
    """The end of a chain. `segment` is the number of its last file (0: there is none), `whole` that file's length in
    bytes without what is `torn` behind it, `begun` when it was begun, `last` the time of the last record, and `lost`
    how many records the head knows of that are not there. `damage` says what does not fit, where something does not."""

    seq: int = 0
    hash: str = NO_HASH
    segment: int = 0
    whole: int = 0
    torn: int = 0
    begun: float = 0.0
    last: float = 0.0
    key_id: str | None = None
    lost: int = 0
    chains: int = 1
    settings: str = ""
    damage: str | None = None


def place_of(log: str, chain: str) -> bytes:
    """What the seals of a chain's records are bound to."""
    return f"agentflow audit 1\0{log}\0{chain}\0".encode()


def recover(chain: Chain, log: str, keys: AuditKeys) -> State:
    """The chain's state. Raises AuditError where it was sealed with a key that is not among `keys`, OSError."""
    head, damage = _head(chain, log, keys)
    segments = chain.segments()
    if not segments:
        return _behind(State(damage=damage), head)
    newest = segments[-1][0]
    state = State()
    for here, file in reversed(segments):
        last, whole, torn = tail_of(file)
        if here == newest:
            state = State(segment=newest, whole=whole, torn=torn, damage=damage)
        if last is not None:
            return _behind(_continued(state, chain, here, file, last, log, keys), head)
    return _behind(state, head)


def _head(chain: Chain, log: str, keys: AuditKeys) -> tuple[Head | None, str | None]:
    try:
        line = chain.head.read_bytes()
    except FileNotFoundError:
        return None, None
    head = Head.read(line.removesuffix(b"\n"), keys)
    if head is None or (head.log, head.chain) != (log, chain.name):
        return None, f"{chain.name}/{chain.head.name} is not signed as it should be"
    return head, None


def _continued(state: State, chain: Chain, number: int, path: Path, last: bytes, log: str, keys: AuditKeys) -> State:
    first = first_line(path)
    key_id = key_id_of(first)
    key = keys.find(key_id)
    if key is None:
        raise AuditError(
            f"{chain.name}/{path.name} was sealed with the key {key_id or '?'}, which was not given: give it behind "
            "the new one, or begin a new log in another folder"
        )
    place = place_of(log, chain.name)
    begun, record = read_line(first, key, place), read_line(last, key, place)
    if begun is None or record is None:
        wrong = "first" if begun is None else "last"
        return _damaged(state, f"the {wrong} record of {chain.name}/{path.name} does not bear its seal", key_id)
    return State(
        seq=record.seq,
        hash=digest_of(last),
        segment=state.segment,
        whole=state.whole,
        torn=state.torn,
        begun=begun.seconds if number == state.segment else 0.0,
        last=record.seconds,
        key_id=key_id if number == state.segment else None,
        chains=_chains_of(begun),
        damage=state.damage,
    )


def _damaged(state: State, damage: str, key_id: str | None) -> State:
    return State(segment=state.segment, whole=state.whole, torn=state.torn, key_id=key_id, damage=damage)


def _behind(state: State, head: Head | None) -> State:
    """The state, or the head's where that is further: what lies between is lost, and seen to be."""
    if head is None:
        return state
    damage = state.damage
    if head.seq == state.seq and head.hash != state.hash and damage is None:
        damage = f"record {head.seq} is not the one that the head of {head.chain} knows"
    ahead = head.seq > state.seq
    return State(
        seq=head.seq if ahead else state.seq,
        hash=head.hash if ahead else state.hash,
        segment=max(state.segment, head.segment if state.segment == 0 else 0),
        whole=state.whole,
        torn=state.torn,
        begun=state.begun,
        last=max(state.last, time_of(head.time)) if ahead else state.last,
        key_id=state.key_id if state.segment else None,
        lost=head.seq - state.seq if ahead else 0,
        chains=max(state.chains, head.chains),
        settings=head.settings,
        damage=damage,
    )


def _chains_of(first: AuditRecord) -> int:
    chains = first.data.get("chains", 1)
    return chains if isinstance(chains, int) else 1


def first_line(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.readline(LONGEST_LINE).removesuffix(b"\n")


def key_id_of(first: bytes) -> str:
    """Which key a segment says it is sealed with: to be believed once its seal has been checked."""
    try:
        data = json.loads(first)["data"]
        return str(data["key_id"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return ""


def tail_of(path: Path) -> tuple[bytes | None, int, int]:
    """The last whole line without its end, the length of all whole lines, and that of what stands behind them."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        span = min(size, _BLOCK)
        while True:
            file.seek(size - span)
            data = file.read(span)
            end = data.rfind(b"\n")
            start = data.rfind(b"\n", 0, max(end, 0))
            if span == size or (end >= 0 and start >= 0) or span >= 2 * LONGEST_LINE:
                break
            span = min(size, span * 8)
    if end < 0:
        return None, 0 if span == size else size - span, size if span == size else span
    return data[start + 1 : end], size - span + end + 1, span - end - 1
