"""What keys look like: the shapes that providers give them, and the words that stand before one.

    "Bearer sk-proj-4f9a…"   ──find──▶  (7, 42)      where the secret begins and ends, never what stands around it

    SHAPES          all of them; each has `hints`, of which one stands in every text that has such a secret

Each `find` looks at a text once: whatever is read again begins behind what was refused, so no text, however odd, takes
longer than its length allows.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

__all__ = ["SHAPES", "Finder", "Shape", "Span", "is_secret_field"]

Span: TypeAlias = tuple[int, int]
Finder: TypeAlias = Callable[[str], Iterator[Span]]


@dataclass(frozen=True, slots=True)
class Shape:
    """One sort of secret. `hints`: one of them stands in every text that has one; no hints: always look.

    With `folded`, hints are looked for in the text in lower case.
    """

    kind: str
    hints: tuple[str, ...]
    find: Finder
    folded: bool = False


# What a key may follow: nothing that could be part of it, but an escape (\n, %20, \u0020) of the text it was quoted in.
_START: Final = r"(?:(?<![A-Za-z0-9])|(?<=\\[nrtbf])|(?<=%[0-9A-Fa-f]{2})|(?<=\\u[0-9A-Fa-f]{4}))"
_ENTROPY: Final = 3.5  # bits a character: words have less, random base64 more
_LONG: Final = 20
_SHORT: Final = 8


def _whole(pattern: str, accept: Callable[[str], bool] | None = None) -> Finder:
    """Whatever the pattern matches. What `accept` refuses is skipped whole."""
    compiled = re.compile(pattern)

    def find(text: str) -> Iterator[Span]:
        for match in compiled.finditer(text):
            if accept is None or accept(match[0]):
                yield match.span()

    return find


def _is_random(text: str) -> bool:
    """A digit, or upper and lower case: words joined by hyphens have neither."""
    return any(character.isdigit() for character in text) or not (text.islower() or text.isupper())


def _entropy(text: str) -> float:
    """Shannon's, in bits a character."""
    total = len(text)
    return -sum(count / total * math.log2(count / total) for count in Counter(text).values())


# ---- bearer, PEM, URLs ---------------------------------------------------------------------------------------

_BEARER: Final = re.compile(rf"{_START}[Bb]earer\s{{1,8}}([A-Za-z0-9_\-.=+/~]{{8,}})")
_URL: Final = re.compile(r"://[^\s/:@]{0,256}:([^\s/@\[\]]{1,256})@")
_PEM_BEGIN: Final = "-----BEGIN "
_PEM_END: Final = re.compile(r"-----END [A-Z0-9 ]{1,64}-----")


def _bearers(text: str) -> Iterator[Span]:
    for match in _BEARER.finditer(text):
        if len(match[1]) >= _LONG or _is_random(match[1]):
            yield match.span(1)


def _url_passwords(text: str) -> Iterator[Span]:
    for match in _URL.finditer(text):
        yield match.span(1)


def _pem_blocks(text: str) -> Iterator[Span]:
    """From its first line to its last; one whose end was cut off goes to the end of the text."""
    start = text.find(_PEM_BEGIN)
    while start >= 0:
        end = _PEM_END.search(text, start)
        yield start, end.end() if end else len(text)
        start = text.find(_PEM_BEGIN, end.end()) if end else -1


# ---- what stands after a name --------------------------------------------------------------------------------

_ASSIGNED: Final = re.compile(
    r"""(?: (?P<sure>passw(?:or)?d|passphrase|pwd|authorization)
          | (?P<likely>(?:api|access|secret|private|auth|client|signing|encryption|subscription|account|session|refresh)
             [ _-]?(?:key|token|secret)|secret|credentials?)
          | (?P<bare>(?<![A-Za-z])(?:key|token|sig|signature))
        )
        (?:\ provided|\ is)? (?:\\?["'])? \s{0,8} (?:=>|[:=]) \s{0,8} (?P<quote>\\?["'])?
        (?:(?:bearer|basic|token)\s{1,8})?+
        (?P<value>(?!\[redacted:)[^\s"'\\,;&<>:=]+ ={0,2})""",
    re.VERBOSE | re.IGNORECASE,
)
_REST: Final = {  # what belongs to a value, by the quote before it
    None: re.compile(r"""[^\s"'\\,;&<>]*"""),
    '"': re.compile(r'(?:[^"\n\\]|\\.)*'),
    "'": re.compile(r"(?:[^'\n\\]|\\.)*"),
    '\\"': re.compile(r'[^"\n\\]*'),
    "\\'": re.compile(r"[^'\n\\]*"),
}
_NOTHING: Final = frozenset(("none", "null", "true", "false", "undefined", "missing", "required", "redacted"))


def _assigned(text: str) -> Iterator[Span]:
    """`api_key=…`, `"token": "…"`, `Authorization: Basic …`: the value, where it is one that nobody would choose."""
    at = 0
    while match := _ASSIGNED.search(text, at):
        start, end = match.span("value")
        at = start  # a name may stand where the value was: `token=api_key=…`
        if _is_secret(match):
            rest = _REST[match["quote"]].match(text, end)
            at = rest.end() if rest else end
            yield start, at


def _is_secret(match: re.Match[str]) -> bool:
    value = match["value"]
    if value.lower() in _NOTHING or set(value) <= set("*.…x"):
        return False
    if match["sure"]:
        return len(value) >= 4
    digit = any(character.isdigit() for character in value)
    letter = any(character.isalpha() for character in value)
    if match["likely"] and digit and letter and len(value) >= _SHORT:
        return True
    return letter and len(value) >= (_LONG - 4 if digit else _LONG) and _entropy(value) >= (3.0 if digit else _ENTROPY)


_FIELDS: Final = re.compile(
    "x?(api|access|auth|authorization|bearer|client|encryption|id|private|refresh|secret|session|signing|subscription)"
    "(key|token|secret)|.*(apikey|secretkey|accesskey|privatekey|accesstoken|authtoken|clientsecret)"
    "|secret|passwd|.*password|pwd|passphrase|bearer|(proxy)?authorization|credentials?|(set)?cookie"
)


def is_secret_field(name: str) -> bool:
    """Whether what stands under this name is a secret, whatever it looks like."""
    if len(name) > 64:
        return False
    return _FIELDS.fullmatch(name.lower().replace("_", "").replace("-", "").replace(" ", "")) is not None


# ---- all of them ---------------------------------------------------------------------------------------------

_DASHED: Final = ("sk", "pk", "rk", "xai", "pplx", "nvapi", "csk", "glpat", "pypi", "GOCSPX")
_SCORED: Final = ("sk", "pk", "rk", "gsk", "r8", "hf", "fw", "jina", "npm", "whsec", "dop_v1", "tgp_v1", "lsv2")

SHAPES: Final[tuple[Shape, ...]] = (
    Shape("pem", (_PEM_BEGIN,), _pem_blocks),
    Shape("bearer", ("earer",), _bearers),
    Shape("jwt", ("eyJ",), _whole(r"(?:(?<![A-Za-z0-9_\-])|(?<=\\[nrtbf])|(?<=%[0-9A-Fa-f]{2}))"
                                  r"eyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{8,}(?:\.[A-Za-z0-9_\-]*)?")),
    Shape("key", tuple(f"{word}-" for word in _DASHED) + tuple(f"{word}_" for word in _SCORED),
          _whole(rf"{_START}(?:(?:{'|'.join(_DASHED)})-|(?:{'|'.join(_SCORED)})_)[A-Za-z0-9_\-]{{16,}}", _is_random)),
    Shape("google", ("AIza", "ya29."),
          _whole(rf"{_START}(?:AIza[A-Za-z0-9_\-]{{30,}}|ya29\.[A-Za-z0-9_\-]{{20,}})")),
    Shape("aws", ("AKIA", "ASIA", "AROA", "AIDA", "ABIA", "ACCA"),
          _whole(rf"{_START}(?:AKIA|ASIA|AROA|AIDA|ABIA|ACCA)[A-Z0-9]{{16}}(?![A-Za-z0-9])")),
    Shape("github", ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
          _whole(rf"{_START}(?:gh[pousr]_|github_pat_)[A-Za-z0-9_]{{16,}}")),
    Shape("slack", ("xox",), _whole(rf"{_START}xox[abeoprs]-[A-Za-z0-9\-]{{10,}}", _is_random)),
    Shape("sendgrid", ("SG.",), _whole(rf"{_START}SG\.[A-Za-z0-9_\-]{{16,}}\.[A-Za-z0-9_\-]{{16,}}")),
    Shape("password", ("://",), _url_passwords),
    Shape("secret", ("key", "token", "secret", "passw", "passphrase", "pwd", "credential", "authorization", "sig"),
          _assigned, folded=True),
)  # fmt: skip
