"""What a check of a log found: the first fault of each chain, what retention removed, and what is worth knowing.

verification = verify(path, keys)
if not verification.sound: print(verification.faults[0])
  chain-1/audit-00000002.jsonl line 17: record 117 is missing: 118 stands in its place
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from agentflow.core.observability.audit.statements import Tombstone
from agentflow.core.observability.plain import Plain

__all__ = ["Fault", "FaultKind", "Verification"]

FaultKind: TypeAlias = Literal["altered", "missing", "reordered", "truncated", "replaced"]
"""altered: the bytes do not bear their seal. missing: it stood here, and what follows is there. reordered: it stands
somewhere else, or a second time. truncated: it stood at the end, as a signed head or an anchor knows. replaced: sealed
with the right key, but not what stood here first, as after an old copy was put back and written on."""


@dataclass(frozen=True, slots=True)
class Fault:
    """The first thing that is wrong with a chain. `seq` is the number of the record that is concerned, `line` counts
    from 1; a fault beside the records has neither."""

    kind: FaultKind
    file: str
    line: int | None
    seq: int | None
    message: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file} line {self.line}"
        return f"{place}: {self.message}"


@dataclass(frozen=True, slots=True)
class Verification:
    """`faults` holds one for each chain that has one, `removed` the tombstones of what retention took, `gaps` the
    number of acts that were done and could not be recorded, `notes` what is no fault."""

    records: int
    segments: int
    chains: int
    faults: tuple[Fault, ...]
    removed: tuple[Tombstone, ...]
    gaps: int
    notes: tuple[str, ...]

    @property
    def sound(self) -> bool:
        return not self.faults

    def plain(self) -> dict[str, Plain]:
        """As JSON."""
        return {
            "sound": self.sound,
            "records": self.records,
            "segments": self.segments,
            "chains": self.chains,
            "faults": [
                {"kind": fault.kind, "file": fault.file, "line": fault.line, "seq": fault.seq, "message": fault.message}
                for fault in self.faults
            ],
            "removed": [
                {
                    "chain": stone.chain,
                    "segment": stone.segment,
                    "first": stone.first,
                    "last": stone.last,
                    "first_time": stone.first_time,
                    "last_time": stone.last_time,
                    "removed": stone.removed,
                    "reason": stone.reason,
                }
                for stone in self.removed
            ],
            "gaps": self.gaps,
            "notes": list(self.notes),
        }
