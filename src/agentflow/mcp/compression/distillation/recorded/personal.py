"""Takes out of prompts and answers what belongs to a person: nobody's number is to come out of a small model again.

    Scrubber().scrub("ring +49 30 901820, pay to DE89 3704 0044 0532 0130 00")
        ──▶  "ring [redacted:phone], pay to [redacted:iban]"

E-mail addresses, cards (by Luhn's digit), keys and known secrets are what the run store's redactor finds; telephone
numbers and IBANs (ISO 13616, by their check digits) come on top. Names and addresses of houses are not found: no rule
knows them for sure. `patterns` are regular expressions of your own, by the name that then stands there.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Final

import msgspec

from agentflow.core.observability.redaction.redactor import Redactor
from agentflow.mcp.compression.distillation.recorded.answers import RecordedAnswer, Turn

__all__ = ["Scrubber"]

_MARK: Final = re.compile(r"\[redacted:([a-z0-9_\-]{1,32})\]")
_IBAN: Final = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![A-Za-z0-9])")
# By country code, as people write it at home behind a 0, and in North America by threes and a four.
_PHONE: Final = re.compile(
    r"""(?<![\w.+/\-])(?<!\d[ ])(?:
        (?:\+|00(?=[1-9]))[1-9]\d{0,2}[ ./\-]?(?:\(0\)[ ]?)?\(?\d{1,5}\)?(?:[ ./\-]?\d{2,5}){1,5}
      | \(?0[1-9]\d{1,4}\)?[ /\-]\d{2,5}(?:[ \-]?\d{2,5}){0,4}
      | (?:1[ .\-])?\(?[2-9]\d{2}\)?[ .\-][2-9]\d{2}[ .\-]\d{4}
    )(?![\w\-]|[.,:]\d)""",
    re.VERBOSE,
)
_DIGITS: Final = range(7, 16)  # of a telephone number (ITU-T E.164: fifteen at most)


class Scrubber:
    """`found` counts what was taken out, by kind, over all that was scrubbed. Serves one thread."""

    def __init__(self, patterns: Mapping[str, str] = {}) -> None:
        self._redactor = Redactor(patterns=patterns)
        self.found: Counter[str] = Counter()

    def scrub(self, text: str) -> str:
        """The text with `[redacted:kind]` for each such thing. What was scrubbed before stays as it is."""
        before = Counter(_MARK.findall(text))
        clean = _IBAN.sub(_iban, self._redactor.redact(text))
        clean = _PHONE.sub(_phone, clean)
        self.found += Counter(_MARK.findall(clean)) - before
        return clean

    def scrubbed(self, answer: RecordedAnswer) -> RecordedAnswer:
        """The same, all its texts scrubbed."""
        turns = tuple(Turn(turn.role, self.scrub(turn.content)) for turn in answer.messages)
        return msgspec.structs.replace(answer, messages=turns, answer=self.scrub(answer.answer))


def _iban(match: re.Match[str]) -> str:
    """Its check digits: moved to the end, letters as 10 to 35, the number is 1 modulo 97."""
    said = match[0].replace(" ", "")
    whole = 15 <= len(said) <= 34 and int("".join(str(int(sign, 36)) for sign in said[4:] + said[:4])) % 97 == 1
    return "[redacted:iban]" if whole else match[0]


def _phone(match: re.Match[str]) -> str:
    return "[redacted:phone]" if sum(map(str.isdigit, match[0])) in _DIGITS else match[0]
