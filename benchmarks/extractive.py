"""Does `local/extractive` beat the first three sentences? Documents that carry their own summary say.

    python benchmarks/extractive.py                          print the tables
    python benchmarks/extractive.py --write docs/extractive.md --json build/extractive.json

Every document is found on the machine and has a one-line summary by its author; the line is cut from what the
summariser reads:

    package   installed Python distributions: `Summary` of METADATA / the long description
    debian    installed Debian packages: the short / the long description
    module    modules and packages of the standard library: first line of the docstring / the rest of it
    manual    manual pages: the NAME line / the DESCRIPTION section

ROUGE-1 and ROUGE-2 F1 (Lin, "ROUGE", 2004) against that line, of the summariser and of lead-n (the first n sentences
of the same segmentation), both at n sentences and both cut to the same number of words. Differences carry the 95 %
interval of a paired bootstrap. Documents are split in halves by a hash of their name: weights were chosen on the first.
"""

from __future__ import annotations

import argparse
import ast
import gzip
import hashlib
import json
import os
import platform
import random
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email import message_from_string
from email.message import Message
from pathlib import Path

from agentflow.llm.extractive import Budget, read, summarise
from agentflow.llm.extractive.prior import is_quotable
from agentflow.llm.extractive.summary import quotable

SEED = 20_261_123
RESAMPLES = 10_000
PER_SOURCE = 120
SOURCES = ("package", "debian", "module", "manual")
SENTENCES = range(5, 400)  # of a document, after the cut
SUMMARY_WORDS = range(4, 30)


@dataclass(frozen=True, slots=True)
class Document:
    source: str
    name: str
    reference: str
    body: str

    @property
    def development(self) -> bool:
        return hashlib.sha256(self.name.encode()).digest()[0] % 2 == 0


# ---- ROUGE-N -----------------------------------------------------------------------------------------------------


def words(text: str) -> list[str]:
    """Lower case, runs of a-z and 0-9, no stemming: the tokens of the `rouge-score` package without its stemmer."""
    return re.findall(r"[a-z0-9]+", text.lower())


def rouge(reference: str, candidate: str, n: int) -> float:
    """F1 of the n-grams two texts share, each counted as often as both have it."""
    left, right = _grams(words(reference), n), _grams(words(candidate), n)
    shared = sum((left & right).values())
    return 2 * shared / (left.total() + right.total()) if shared else 0.0


def _grams(tokens: list[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(tokens[at : at + n]) for at in range(len(tokens) - n + 1))


def bootstrap(differences: Sequence[float], *, seed: int = SEED) -> tuple[float, float]:
    """The 95 % interval of the mean of paired differences (percentile bootstrap; Efron & Tibshirani 1993)."""
    chance = random.Random(seed)
    size = len(differences)
    means = sorted(sum(chance.choices(differences, k=size)) / size for _ in range(RESAMPLES))
    return means[int(RESAMPLES * 0.025)], means[int(RESAMPLES * 0.975) - 1]


# ---- documents ---------------------------------------------------------------------------------------------------


def packages() -> Iterator[Document]:
    """METADATA of every Python environment found under the usual places, one per distribution name."""
    seen: set[str] = set()
    for path in sorted(_metadata_files()):
        metadata: Message = message_from_string(path.read_text("utf-8", "replace"))
        name, summary = str(metadata.get("Name", "")).lower(), str(metadata.get("Summary", ""))
        body = metadata.get_payload() or metadata.get("Description", "")
        if name and name not in seen and isinstance(body, str):
            seen.add(name)
            yield Document("package", name, summary, body)


def _metadata_files() -> Iterator[Path]:
    roots = [
        Path(sys.prefix),
        Path(sys.base_prefix),
        Path("/usr/lib/python3"),
        Path("/usr/local/lib"),
        Path.home() / ".pyenv",
    ]
    for root in roots:
        if root.is_dir():
            yield from root.rglob("*.dist-info/METADATA")


def debian() -> Iterator[Document]:
    """One binary package of each source package (their texts share paragraphs): the shortest name."""
    listed = _output(["dpkg-query", "-W", "-f", "${Package}\t${source:Package}\t${Description}\x1e"])
    by_source: dict[str, tuple[str, str]] = {}
    for record in listed.split("\x1e"):
        name, _, rest = record.partition("\t")
        source, _, text = rest.partition("\t")
        if text and (source not in by_source or len(name) < len(by_source[source][0])):
            by_source[source] = (name, text)
    for _, (name, text) in sorted(by_source.items()):
        summary, _, body = text.partition("\n")
        yield Document("debian", name, summary, re.sub(r"(?m)^ \.?", "", body))


def modules() -> Iterator[Document]:
    """Docstrings of the standard library's modules and classes that open with one line and go on."""
    root = Path(os.__file__).parent
    for path in sorted(root.rglob("*.py")):
        where = str(path.relative_to(root))
        if re.search(r"site-packages|/test|^test|idlelib|lib2to3", where):
            continue
        try:
            tree = ast.parse(path.read_text("utf-8", "replace"))
        except SyntaxError:
            continue
        nodes: list[ast.Module | ast.ClassDef] = [tree]
        nodes += [item for item in tree.body if isinstance(item, ast.ClassDef)]
        for node in nodes:
            summary, _, body = (ast.get_docstring(node) or "").partition("\n")
            yield Document("module", f"{where}:{getattr(node, 'name', '')}", summary, body)


def manual() -> Iterator[Document]:
    """A seeded sample of pages in sections 1, 5, 7 and 8, at most 3 of a name's first word (git-…)."""
    pages = [path for section in "1578" for path in sorted(Path(f"/usr/share/man/man{section}").glob("*.gz"))]
    random.Random(SEED).shuffle(pages)
    families: Counter[str] = Counter()
    chosen: list[Path] = []
    for page in pages:
        family = re.split(r"[-_.:0-9]", page.name)[0][:5]
        if not page.is_symlink() and families[family] < 3 and b"\n.so " not in b"\n" + _start(page):
            families[family] += 1
            chosen.append(page)
    with ThreadPoolExecutor(2) as pool:
        for page, text in zip(chosen[: PER_SOURCE * 3], pool.map(_rendered, chosen[: PER_SOURCE * 3]), strict=False):
            sections = dict(re.findall(r"(?m)^([A-Z][A-Z ]+)\n((?:[ \t].*\n|\n)*)", text))
            line = " ".join(sections.get("NAME", "").split())
            summary = re.split(r"\s[-–—‐]+\s", line, maxsplit=1)[-1] if re.search(r"\s[-–—‐]+\s", line) else ""
            yield Document("manual", page.name, summary, sections.get("DESCRIPTION", ""))


def _start(page: Path) -> bytes:
    with gzip.open(page) as file:
        return file.read(200)


def _rendered(page: Path) -> str:
    environment = {**os.environ, "MANWIDTH": "100", "LC_ALL": "C.UTF-8", "MAN_KEEP_FORMATTING": ""}
    return _output(["man", "--nj", "--nh", "-E", "UTF-8", "-P", "cat", str(page)], environment)


def _output(command: list[str], environment: dict[str, str] | None = None) -> str:
    try:
        return subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace").stdout
    except FileNotFoundError:
        return ""


def usable(found: Iterable[Document]) -> Iterator[Document]:
    """The stated filters: English in ASCII words, a summary of 4 to 29 words, a body long enough, no twins."""
    bodies: set[str] = set()
    for document in found:
        reference = " ".join(document.reference.split())
        body = cut_summary(document.body, reference)
        opening = " ".join(words(body)[:40])
        if len(words(reference)) not in SUMMARY_WORDS or not is_english(body) or opening in bodies:
            continue
        if sum(map(is_quotable, read(body))) in SENTENCES:
            bodies.add(opening)
            yield Document(document.source, document.name, reference, body)


def cut_summary(body: str, reference: str) -> str:
    """The body without the summary line, wherever it repeats it word for word (in any case, over any line breaks)."""
    tokens = [re.escape(token) for token in reference.strip(" .").split()]
    return re.sub(r"(?i)\b" + r"\s+".join(tokens) + r"\b\.?", "", body) if tokens else body


def is_english(text: str) -> bool:
    """At least a tenth of the words are English function words."""
    found = words(text)
    common = sum(
        word in {"the", "of", "to", "and", "a", "is", "in", "for", "or", "with", "are", "it"} for word in found
    )
    return common * 10 >= len(found) > 0


def corpus() -> list[Document]:
    """At most `PER_SOURCE` usable documents of each source, a seeded sample."""
    chosen: list[Document] = []
    for source in (packages, debian, modules, manual):
        found = sorted(usable(source()), key=lambda document: document.name)
        chosen += random.Random(SEED).sample(found, min(PER_SOURCE, len(found)))
    return chosen


# ---- the comparison ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Score:
    """F1 of one document at n sentences: `ours` and `lead` as they are, `*_cut` both cut to the shorter one's words."""

    document: Document
    ours: float
    lead: float
    ours_cut: float
    lead_cut: float


def scores(documents: Sequence[Document], *, sentences: int) -> dict[int, list[Score]]:
    """For ROUGE-1 and ROUGE-2, a score a document."""
    found: dict[int, list[Score]] = {1: [], 2: []}
    for document in documents:
        ours = summarise(document.body, budget=Budget(sentences=sentences)).text
        lead = " ".join(sentence.text for sentence in quotable(read(document.body))[:sentences])
        least = min(len(ours.split()), len(lead.split()))
        cut = [" ".join(text.split()[:least]) for text in (ours, lead)]
        for n in found:
            found[n].append(Score(document, *(rouge(document.reference, text, n) for text in (ours, lead, *cut))))
    return found


HEAD = ("documents", "n", "metric", "ours", "lead-n", "difference", "95 % interval", "at equal words", "95 % interval")


def rows(documents: Sequence[Document]) -> Iterator[tuple[str, ...]]:
    """One row for each group, number of sentences and metric."""
    groups = {
        "all": documents,
        "held out": [document for document in documents if not document.development],
        "development": [document for document in documents if document.development],
        **{kind: [document for document in documents if document.source == kind] for kind in SOURCES},
    }
    for sentences in (3, 1):
        found = {
            n: {score.document: score for score in listed}
            for n, listed in scores(documents, sentences=sentences).items()
        }
        for name, group in groups.items():
            for n in (1, 2):
                yield row(f"{name} ({len(group)})", sentences, n, [found[n][document] for document in group])


def row(name: str, sentences: int, n: int, found: Sequence[Score]) -> tuple[str, ...]:
    plain = [score.ours - score.lead for score in found]
    equal = [score.ours_cut - score.lead_cut for score in found]
    means = [mean([score.ours for score in found]), mean([score.lead for score in found])]
    return (
        name,
        str(sentences),
        f"ROUGE-{n}",
        *(f"{100 * value:.2f}" for value in means),
        *(text for differences in (plain, equal) for text in judged(differences)),
    )


def judged(differences: Sequence[float]) -> tuple[str, str]:
    """The mean difference, in points, and its interval; a loss that is certain says so."""
    low, high = bootstrap(differences)
    verdict = " **better**" if low > 0 else " **worse**" if high < 0 else ""
    return f"{100 * mean(differences):+.2f}", f"{100 * low:+.2f} … {100 * high:+.2f}{verdict}"


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def timings(documents: Sequence[Document]) -> Iterator[tuple[str, ...]]:
    """CPU seconds for 1 MB of each kind of text, the answer 3 sentences and as many as 20,000 words hold."""
    chance = random.Random(SEED)
    lexicon = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(2, 9))) for _ in range(20_000)]
    signs = "的一是在不了有和人这中大为上个国我以要他时来用们"
    texts = {
        "the documents above, one after the other": "\n\n".join(document.body for document in documents) * 9,
        "two random words a sentence": " ".join(
            f"{chance.choice(lexicon).title()} {chance.choice(lexicon)}." for _ in range(90_000)
        ),
        "random words without a full stop": " ".join(chance.choice(lexicon) for _ in range(160_000)),
        "random Chinese signs, 20 a sentence": "".join(
            "".join(chance.choices(signs, k=20)) + "。" for _ in range(17_000)
        ),
        "one sentence over and over": "The moon pulls the sea. " * 42_000,
        "headings alone": "# a\n" * 250_000,
    }
    for name, text in texts.items():
        body = text.encode()[:1_000_000].decode(errors="ignore")
        yield name, *(f"{cpu_seconds(body, budget):.1f}" for budget in (Budget(), Budget(words=20_000)))


def cpu_seconds(text: str, budget: Budget) -> float:
    start = time.process_time()
    summarise(text, budget=budget)
    return time.process_time() - start


# ---- the report --------------------------------------------------------------------------------------------------


def table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def report(documents: Sequence[Document]) -> str:
    counts = Counter(document.source for document in documents)
    found = ", ".join(f"{counts[kind]} {kind}" for kind in SOURCES)
    return (
        f"{len(documents)} documents ({found}); F1 in points of 100; {RESAMPLES:,} resamples, seed {SEED}.\n\n"
        f"{table(HEAD, rows(documents))}\n\n"
        f"CPU seconds for 1 MB on {platform.machine()}, Python {platform.python_version()}:\n\n"
        f"{table(('text', '3 sentences', '20,000 words'), timings(documents))}\n"
    )


START, END = "<!-- begin: benchmarks/extractive.py --write -->", "<!-- end -->"


def write(path: Path, text: str) -> None:
    """Put the tables between the marks of a Markdown file, whole or not at all."""
    page = path.read_text("utf-8")
    before, _, rest = page.partition(START)
    _, end, after = rest.partition(END)
    if not end:
        raise SystemExit(f"{path} has no lines {START!r} … {END!r} to write between")
    fresh = path.with_suffix(".new")
    fresh.write_text(f"{before}{START}\n{text}\n{END}{after}", "utf-8")
    fresh.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the tables into this Markdown file")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every document's scores here")
    options = parser.parse_args()
    documents = corpus()
    if len(documents) < 50:
        raise SystemExit(f"only {len(documents)} documents with a summary of their own on this machine; 50 are needed")
    text = report(documents)
    print(text)
    if options.write:
        write(options.write, text)
    if options.json:
        options.json.write_text(json.dumps(listed(documents), indent=1), "utf-8")


def listed(documents: Sequence[Document]) -> list[dict[str, str | int | float | bool]]:
    return [
        {
            "source": score.document.source,
            "name": score.document.name,
            "development": score.document.development,
            "sentences": sentences,
            "rouge": n,
            "ours": round(score.ours, 4),
            "lead": round(score.lead, 4),
        }
        for sentences in (1, 3)
        for n, found in scores(documents, sentences=sentences).items()
        for score in found
    ]


if __name__ == "__main__":
    main()
