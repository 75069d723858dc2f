"""Checks a log: every seal, every link, every head that is known, and that nothing is missing.

    verification = verify(".agentflow/audit", key, anchors=["/mnt/elsewhere/heads.jsonl"])
    verification.sound, verification.faults

Reads the files one line at a time and changes none of them. A log may be checked while it is written. Without an anchor
somebody who can write the folder could put an older state of all of it in its place; with one, that is found.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from agentflow.core.observability.audit.anchors import heads_in
from agentflow.core.observability.audit.chain_check import ChainCheck
from agentflow.core.observability.audit.findings import Fault, Verification
from agentflow.core.observability.audit.folder import Folder
from agentflow.core.observability.audit.keys import AuditKeys
from agentflow.core.observability.audit.naming import read_name
from agentflow.core.observability.audit.statements import Head
from agentflow.errors import AuditError

__all__ = ["verify"]


def verify(
    path: str | os.PathLike[str], key: str | bytes | AuditKeys, *, anchors: Sequence[str | os.PathLike[str]] = ()
) -> Verification:
    """What is found. Raises AuditError where there is no log at all, OSError where it cannot be read."""
    folder = Folder(Path(path))
    keys = key if isinstance(key, AuditKeys) else AuditKeys(key)
    places = {path: path.stat().st_size for path in map(Path, anchors)}  # what comes later is about what comes later
    if not folder.chains() and not folder.name_file.exists():
        raise AuditError(f"there is no audit log in {folder.path}")
    name, fault = _name(folder, keys)
    if name is None:
        return Verification(0, 0, len(folder.chains()), (fault,) if fault else (), (), 0, ())
    checks = [ChainCheck(chain, name, keys, _heads(places, name, chain.name, keys)) for chain in folder.chains()]
    for check in checks:
        check.run()
    wrong_anchors, half_anchors = _wrong_anchors(places, keys)
    return Verification(
        records=sum(check.records for check in checks),
        segments=sum(check.segments for check in checks),
        chains=len(checks),
        faults=(
            *(check.fault for check in checks if check.fault is not None),
            *_missing_chains(folder, checks, places, name, keys),
            *wrong_anchors,
        ),
        removed=tuple(stone for check in checks for stone in check.removed),
        gaps=sum(check.gaps for check in checks),
        notes=(*(note for check in checks for note in check.notes), *half_anchors),
    )


def _name(folder: Folder, keys: AuditKeys) -> tuple[str | None, Fault | None]:
    file = folder.name_file.name
    try:
        name = read_name(folder, keys)
    except FileNotFoundError:
        return None, Fault("missing", file, None, None, "the log's name is missing, which every seal is bound to")
    if name is None:
        return None, Fault(
            "altered", file, None, None, "it is not signed with the key given: altered, or another key's"
        )
    return name, None


def _heads(places: Mapping[Path, int], name: str, chain: str, keys: AuditKeys) -> Iterator[Head]:
    """The anchored heads of a chain, in the order of their files."""
    for place, size in places.items():
        for _, line in heads_in(place, size):
            head = Head.read(line, keys)
            if head is not None and (head.log, head.chain) == (name, chain):
                yield head


def _missing_chains(
    folder: Folder, checks: Sequence[ChainCheck], places: Mapping[Path, int], name: str, keys: AuditKeys
) -> Iterator[Fault]:
    """A chain that another one, or an anchor, knows of."""
    known = max([check.chains for check in checks], default=1)
    for place, size in places.items():
        for _, line in heads_in(place, size):
            head = Head.read(line, keys)
            if head is not None and head.log == name:
                known = max(known, head.chains)
    there = {chain.number for chain in folder.chains()}
    for number in range(1, known + 1):
        if number not in there:
            missing = folder.chain(number).name
            yield Fault("missing", missing, None, 1, f"{missing} is missing with all its records")


def _wrong_anchors(places: Mapping[Path, int], keys: AuditKeys) -> tuple[list[Fault], list[str]]:
    """The first head of each file that is not signed as it should be; half lines, which a full disk leaves, are no
    heads."""
    faults, notes = [], []
    for place, size in places.items():
        wrong = [(number, line) for number, line in heads_in(place, size) if Head.read(line, keys) is None]
        whole = [number for number, line in wrong if line.endswith(b"}")]
        if whole:
            message = "an anchored head is not signed as it should be"
            faults.append(Fault("altered", place.name, whole[0], None, message))
        notes += [f"{place.name} line {number} is half a head" for number, line in wrong if not line.endswith(b"}")]
    return faults, notes
