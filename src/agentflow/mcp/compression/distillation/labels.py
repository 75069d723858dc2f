"""What a teacher that sorts has to choose from, learnt from its answers: "Mail", "mail." and " mail" are one label.

labels = Labels.learnt(["mail", "Games", "games", "mail.", "I cannot say"])
labels.names          ("games", "mail")
labels.find("Mail")   1;  None for "I cannot say", which came once
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from agentflow.errors import CompressionError
from agentflow.mcp.compression.distillation.recorded.duplicates import normalised

__all__ = ["Labels"]

_AROUND: Final = re.compile(r"^[\s\"'`*_(\[{<:.,;!-]+|[\s\"'`*_)\]}>:.,;!-]+$")


@dataclass(frozen=True, slots=True)
class Labels:
    """`names` in the order of the alphabet, each as it was spelled most often. `rare` answers had none of them."""

    names: tuple[str, ...]
    rare: int
    _numbers: Mapping[str, int]

    @classmethod
    def learnt(cls, answers: Sequence[str], *, least: int = 2, most: int = 200) -> Labels:
        """Of answers that came `least` times. Raises CompressionError where these are fewer than two or more than
        `most`, or are not even half of all answers: then the teacher does not sort, it writes."""
        spellings: dict[str, Counter[str]] = defaultdict(Counter)
        for answer in answers:
            bare = _bare(answer)
            spellings[normalised(bare)][bare] += 1
        kept = {key: count for key, count in spellings.items() if key and count.total() >= least}
        covered = sum(count.total() for count in kept.values())
        if not 2 <= len(kept) <= most or covered * 2 < len(answers):
            raise CompressionError(
                f"the answers are no labels: {len(spellings):,} different ones among {len(answers):,}, {len(kept):,} of"
                f" which came {least} times or more, for {covered:,} questions; let a model learn to write them instead"
            )
        ordered = sorted(kept)
        names = tuple(kept[key].most_common(1)[0][0] for key in ordered)
        return cls(names, len(answers) - covered, {key: number for number, key in enumerate(ordered)})

    def find(self, answer: str) -> int | None:
        """The number of its label; None where it is none of them."""
        return self._numbers.get(normalised(_bare(answer)))

    def numbered(self, answers: Iterable[str]) -> list[int | None]:
        return [self.find(answer) for answer in answers]


def _bare(answer: str) -> str:
    return _AROUND.sub("", answer.strip())
