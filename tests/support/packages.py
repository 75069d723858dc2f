"""A task whose right answers nobody here made up: in which section of Debian a package is, by its one-line description.

described(1400, seed=0)      [("mail reader with threads", "mail"), …], one package a source, no section above its share

The lists are those of the machine's apt; `scripts/install-services` fetches them where it may.
"""

from __future__ import annotations

import random
import shutil
import subprocess
from collections import Counter
from functools import cache

from tests.conftest import missing_service

SECTIONS: tuple[str, ...] = (
    "database",
    "editors",
    "fonts",
    "games",
    "graphics",
    "mail",
    "science",
    "sound",
    "video",
    "web",
)


@cache
def _every() -> tuple[tuple[str, str], ...]:
    """Packages that are built of one source have almost the same description, so one of them is enough."""
    program = shutil.which("apt-cache")
    said = subprocess.run([program, "dumpavail"], capture_output=True, check=False).stdout if program else b""
    found: dict[str, tuple[str, str]] = {}
    for stanza in said.decode("utf-8", "replace").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in stanza.splitlines() if ": " in line and line[0] != " ")
        section = fields.get("Section", "").rpartition("/")[2]
        words = fields.get("Description") or fields.get("Description-en", "")
        if section in SECTIONS and words:
            found.setdefault(fields.get("Source", fields["Package"]).split()[0], (words, section))
    return tuple(sorted(set(found.values())))


def described(count: int, *, seed: int) -> list[tuple[str, str]]:
    """`count` descriptions and sections, in an order that the seed draws; skips where there are no lists."""
    every = list(_every())
    draw = random.Random(seed)
    draw.shuffle(every)
    room = Counter(dict.fromkeys(SECTIONS, count // len(SECTIONS) + 5))
    kept = []
    for words, section in every:
        if room[section]:
            room[section] -= 1
            kept.append((words, section))
    if len(kept) < count:
        missing_service(f"the lists of Debian's packages are not here ({len(kept)} descriptions): apt-get update")
    draw.shuffle(kept)
    return kept[:count]
