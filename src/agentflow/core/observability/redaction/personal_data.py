"""E-mail addresses and card numbers in texts.

    "write to ada@example.org"      ──emails──▶  (9, 24)
    "4111 1111 1111 1111, 12/29"    ──cards──▶   (0, 19)      by the issuers' numbers and Luhn's check digit

A number of thirteen digits that is no card, such as a time in milliseconds, is left alone. Both take time in proportion
to the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from agentflow.core.observability.redaction.secret_shapes import Shape, Span

__all__ = ["CARDS", "EMAILS", "is_card"]

_LOCAL: Final = re.compile(r"[\w.%+\-]+")
_DOMAIN: Final = re.compile(r"(?:[\w\-]+\.)+[^\W\d_]{2,}")
_DIGITS: Final = re.compile(r"[0-9](?:[ \-]?[0-9]){11,}")
_GROUP: Final = re.compile(r"[0-9]+")
_ISSUERS: Final = re.compile(
    r"""4(?:.{12}|.{15}|.{18})                                          # Visa
      | (?:5[1-5].{2}|222[1-9]|22[3-9].|2[3-6].{2}|27[01].|2720).{12}   # Mastercard
      | 3[47].{13}                                                      # American Express
      | (?:6011|64[4-9].|65.{2}).{12,15}                                # Discover
      | 35(?:2[89]|[3-8].).{12,15}                                      # JCB
      | (?:30[0-5].|3095|36.{2}|3[89].{2}).{10,15}                      # Diners Club
      | 62.{14,17}                                                      # UnionPay
      | (?:50[123]8|5020|5893|6304|6759|676[123]).{8,15}                 # Maestro
    """,
    re.VERBOSE,
)
_NEAR: Final = 16  # characters on either side that tell a number from a part of a digest
_HEX: Final = frozenset("0123456789abcdefABCDEF")


def _emails(text: str) -> Iterator[Span]:
    """Around each @, backwards to the one before it and forwards: nothing is read twice."""
    behind = 0
    at = text.find("@")
    while at >= 0:
        local = _LOCAL.match(text[behind:at][::-1])
        domain = _DOMAIN.match(text, at + 1)
        if local and domain:
            yield at - local.end(), domain.end()
        behind = domain.end() if local and domain else at + 1
        at = text.find("@", behind)


def _cards(text: str) -> Iterator[Span]:
    for match in _DIGITS.finditer(text):
        if not _in_digest(text, match.start(), match.end()):
            yield from _cards_in([group.span() for group in _GROUP.finditer(text, match.start(), match.end())], text)


def _cards_in(groups: list[Span], text: str) -> Iterator[Span]:
    """A card is whole groups of digits that follow each other; what stands behind it may be a date or a code."""
    first = 0
    while first < len(groups):
        last = _last_group(groups, first, text)
        if last is not None:
            yield groups[first][0], groups[last][1]
        first = first + 1 if last is None else last + 1


def _last_group(groups: list[Span], first: int, text: str) -> int | None:
    digits = ""
    for last in range(first, len(groups)):
        start, end = groups[last]
        if len(digits) + end - start > 19:
            return None
        digits += text[start:end]
        if is_card(digits):
            return last
    return None


def is_card(digits: str) -> bool:
    """Whether these are the digits of a payment card: an issuer's number, and the check digit fits."""
    return len(digits) >= 12 and _ISSUERS.fullmatch(digits) is not None and _luhn(digits)


def _luhn(digits: str) -> bool:
    total = 0
    for place, digit in enumerate(map(int, reversed(digits))):
        total += digit if place % 2 == 0 else digit * 2 - (9 if digit > 4 else 0)
    return total % 10 == 0


def _in_digest(text: str, start: int, end: int) -> bool:
    """Whether the digits stand among hexadecimal letters, as in a digest or an id."""
    before = text[max(0, start - _NEAR) : start]
    after = text[end : end + _NEAR]
    left = next((before[n:] for n in range(len(before)) if before[n:].isalnum()), "")
    right = next((after[:n] for n in range(len(after), 0, -1) if after[:n].isalnum()), "")
    return bool(left or right) and _HEX.issuperset(left + right)


EMAILS: Final = Shape("email", ("@",), _emails)
CARDS: Final = Shape("card", (), _cards)
