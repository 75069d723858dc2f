"""From recorded runs to two files of answers: consented, scrubbed, distinct, split by time, and accounted for.

RunReader ─▶ gather ─▶ scrub ─▶ without_duplicates ─▶ split_by_time ─▶ Prepared.write(folder)
                                                                        train.jsonl  held_out.jsonl  report.json

with RunReader() as reader:
    prepared = prepare(reader, Selection(flows=("sorting",)), teacher_terms="our contract of May, §4")
prepared.report.dropped
prepared.write(Path("answers"))
"""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import mkdtemp

import msgspec

from agentflow.core.observability.store import RunReader
from agentflow.errors import CompressionError, ConfigurationError
from agentflow.mcp.compression.distillation.recorded.answers import RecordedAnswer, write_answers
from agentflow.mcp.compression.distillation.recorded.consent import Consent
from agentflow.mcp.compression.distillation.recorded.duplicates import Distinct, without_duplicates
from agentflow.mcp.compression.distillation.recorded.gathering import Gathered, Selection, gather
from agentflow.mcp.compression.distillation.recorded.personal import Scrubber
from agentflow.mcp.compression.distillation.recorded.report import TERMS, Report
from agentflow.mcp.compression.distillation.recorded.splitting import split_by_time

__all__ = ["Prepared", "prepare"]

_ANY = Selection()
_ASKED = Consent()


@dataclass(frozen=True, slots=True)
class Prepared:
    """Answers to learn from, those to judge by, both in the order of time, and the account of them."""

    train: tuple[RecordedAnswer, ...]
    held_out: tuple[RecordedAnswer, ...]
    report: Report

    def acknowledged(self) -> Prepared:
        """Itself. Raises ConfigurationError where nobody has said that the teacher's answers may be used, or none are
        left to use."""
        if not (self.report.teacher_terms or "").strip():
            raise ConfigurationError(f"teacher_terms is missing. {TERMS}")
        if not self.train:
            left = "; ".join(f"{reason}: {count:,}" for reason, count in self.report.dropped.items())
            raise CompressionError(
                f"no answer is left to learn from, of {self.report.calls:,} calls" + (f" ({left})" if left else "")
            )
        return self

    def write(self, folder: str | Path) -> Path:
        """Into the new folder `folder`, all of it or nothing. Raises CompressionError where it exists already."""
        self.acknowledged()
        target = Path(folder)
        if target.exists():
            raise CompressionError(f"{target} exists already; nothing is ever written over: give another place")
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(mkdtemp(prefix=f".{target.name}.partial-", dir=target.parent))
        try:
            write_answers(partial / "train.jsonl", self.train)
            write_answers(partial / "held_out.jsonl", self.held_out)
            report = msgspec.json.format(msgspec.json.encode(self.report), indent=2)
            (partial / "report.json").write_bytes(report + b"\n")
            partial.rename(target)  # readable by its owner alone: these are people's words
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return target


def prepare(
    reader: RunReader,
    selection: Selection = _ANY,
    *,
    teacher_terms: str | None,
    consent: Consent = _ASKED,
    scrubber: Scrubber | None = None,
    held_out: float = 0.2,
    near: float | None = 0.8,
) -> Prepared:
    """What may be learnt from. `teacher_terms` says on what ground the teacher's answers may be used for that; with
    None the counts can be looked at, and nothing can be written or trained on.

    `held_out` is the share of the newest that is kept back. `near` is how alike two questions are that count as one, 0
    to 1; None compares them exactly. Raises RunStoreError, ConfigurationError.
    """
    if near is not None and not 0.0 < near <= 1.0:
        raise ConfigurationError(f"near is a share above 0 and up to 1, or None, not {near!r}")
    scrubber = scrubber or Scrubber()
    gathered = gather(reader, selection, consent)
    distinct = without_duplicates([scrubber.scrubbed(answer) for answer in gathered.answers], near=near)
    train, held = split_by_time(distinct.kept, held_out)
    report = _report(reader, selection, consent, teacher_terms, gathered, distinct)
    report = msgspec.structs.replace(
        report,
        scrubbed=dict(scrubber.found),
        train=len(train),
        held_out=len(held),
        boundary=held[0].at if held else None,
    )
    return Prepared(tuple(train), tuple(held), report)


def _report(
    reader: RunReader, selection: Selection, consent: Consent, terms: str | None, gathered: Gathered, distinct: Distinct
) -> Report:
    kept = distinct.kept
    return Report(
        source=str(reader.path),
        selection={name: value for name, value in asdict(selection).items() if value not in ((), None)},
        consent={"required": consent.required, "tenants": sorted(consent.tenants)},
        teacher_terms=terms,
        runs=gathered.runs,
        calls=gathered.calls,
        dropped=_dropped(gathered, distinct),
        contradicting=distinct.contradicting,
        models=dict(Counter(answer.model for answer in kept).most_common()),
        first=kept[0].at if kept else None,
        last=kept[-1].at if kept else None,
        cost=sum(answer.cost or 0.0 for answer in kept),
        unpriced=sum(answer.cost is None for answer in kept),
        input_tokens=sum(answer.input_tokens for answer in kept),
        output_tokens=sum(answer.output_tokens for answer in kept),
    )


def _dropped(gathered: Gathered, distinct: Distinct) -> dict[str, int]:
    every = Counter(gathered.dropped)
    every["it was asked before, word for word"] = distinct.repeated
    every["it is nearly what was asked before"] = distinct.near
    return {reason: count for reason, count in every.most_common() if count}
