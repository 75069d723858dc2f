"""Prompt → task: what to summarise, how long the summary may be, and what it should be about.

    Summarise what it says about retries in 2 sentences:      ← instruction: Budget(sentences=2), query "retries"
                                                              ← a blank line
    # The client                                              ← the text, to the end

The first of these that holds tells the instruction from the text; else the whole prompt is text:

1. the first paragraph ends with a colon (100 words at most);
2. the first line begins like a request ("Summarise", "Condense", "Write", …) and has a colon, as in
   "Summarise in one sentence: The moon …": what follows the colon is text;
3. the first paragraph begins like a request or ends with a question mark (60 words at most);
4. the last paragraph begins like a request (60 words at most).

System text is instruction as a whole. Lengths and the question are read from the instruction, never from the text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from agentflow.llm.extractive.summary import Budget
from agentflow.llm.extractive.terms import terms

__all__ = ["Task", "read_budget", "read_query", "read_task", "split_prompt"]


@dataclass(frozen=True, slots=True)
class Task:
    """`text` is to be summarised within `budget`, leaning towards `query` ("" for no question)."""

    text: str
    budget: Budget
    query: str = ""


_BLANK_LINE = re.compile(r"\n[ \t]*\n")
_REQUEST = re.compile(
    r"[\s\W]*(?:please|kindly|can you|could you|summari[sz]e|summary|sum up|tl;?dr|condense|shorten|compress|abridge|"
    r"combine|merge|digest|distil|extract|reduce|rewrite|write|give|list|tell|describe|explain|state|answer|read|"
    r"in (?:\d+|an?|one|two|three|four|five) (?:short )?(?:sentences?|words)|you are|your task|"
    r"résume[rz]?|resum[ae]|resumen|riassumi|fasse|fass|vat|samenvat\w*|резюмируй\w*|суммируй\w*|кратко|"
    r"总结|概括|摘要|請總結|请总结|要約)(?![a-z])",
    re.IGNORECASE,
)
_COLON = re.compile(r"[:：](?=\s|\Z)|：")

_ENGLISH = "one two three four five six seven eight nine ten eleven twelve"
_NUMBERS = {word: number for number, word in enumerate(_ENGLISH.split(), 1)}
_NUMBERS |= {"a": 1, "an": 1, "single": 1, "a single": 1, "a couple of": 2, "a few": 3, "few": 3, "several": 4}
_NUMBERS |= {"une": 1, "deux": 2, "trois": 3, "quatre": 4, "cinq": 5}
_NUMBERS |= {"ein": 1, "einem": 1, "zwei": 2, "drei": 3, "vier": 4, "fünf": 5}
_NUMBERS |= {"una": 1, "dos": 2, "tres": 3, "cuatro": 4, "cinco": 5, "due": 2, "tre": 3, "quattro": 4, "cinque": 5}
_NUMBERS |= {sign: number for number, sign in enumerate("一二三四五六七八九十", 1)} | {"两": 2}
_NUMBER = r"(?:[1-9][\d,]{0,8}|" + "|".join(sorted(_NUMBERS, key=len, reverse=True)) + ")"
_LIMIT = (
    r"(?P<least>at least |(?<!no )more than |over |minimum (?:of )?)?(?P<below>under |below |fewer than |less than )?"
    rf"(?<![a-zà-ÿ0-9,.])(?:{_NUMBER}\s*(?:-|–|to|or|bis|à)\s*)?(?P<number>{_NUMBER})"
)
_SENTENCES = re.compile(
    _LIMIT + r"(?:[\s-]+(?:(?:short|concise|brief|complete|plain|simple|clear|full|single|good)[\s,]+){0,2}"
    r"(?:sentences?|phrases?|sätzen?|satz|frases?|frasi|oraciones|oración|zinnen|zin|предложени\w*)(?!\w)|\s*(?:句|文|문장))",
    re.IGNORECASE,
)
_WORDS = re.compile(
    _LIMIT + r"(?:[\s-]+(?:words?|mots?|wörtern?|wort|palabras?|parole|woorden|слова?)(?!\w)|\s*(?:个字|字|자))",
    re.IGNORECASE,
)
_ABOUT = re.compile(
    r"\b(?:about|regarding|concerning|focus(?:ing|ed)? on|with respect to|related to|relevant to)\b([^\n]{1,300})",
    re.IGNORECASE,
)
_QUESTION = re.compile(r"[^.!?\n]{3,400}\?")
_NO_SUBJECT = frozenset(
    terms(
        "summarise summarize summary sentence word text document following article passage page file paragraph below "
        "short concise brief reader please question answer one two three four five six seven eight nine ten most"
    )
)


def read_task(prompt: str, *, system: str = "") -> Task:
    """Read a prompt as the module's rules say. `text` is empty where the prompt has an instruction and no text."""
    instruction, text = split_prompt(prompt)
    own, general = read_budget(instruction), read_budget(system)
    budget = general if own == Budget() else own
    return Task(text, budget, read_query(instruction) or read_query(system))


def split_prompt(prompt: str) -> tuple[str, str]:
    """(instruction, text); either may be empty."""
    whole = prompt.strip()
    blank = _BLANK_LINE.search(whole)
    head, rest = (whole[: blank.start()], whole[blank.end() :]) if blank else (whole, "")
    size = len(head[:2000].split())
    if head.endswith((":", "：")) and size <= 100 and not head.startswith("#"):
        return head, rest
    if _REQUEST.match(head):
        line = head.split("\n", 1)[0][:400]
        colon = _COLON.search(line)
        if colon:
            return whole[: colon.end()], whole[colon.end() :].strip()
        if rest and size <= 60:
            return head, rest
    if rest and size <= 60 and head.endswith(("?", "？", "؟")):
        return head, rest
    return _split_end(whole)


def _split_end(whole: str) -> tuple[str, str]:
    at = whole.rfind("\n\n")
    tail = whole[at:].strip()
    if at > 0 and len(tail) < 600 and len(tail.split()) <= 60 and _REQUEST.match(tail):
        return tail, whole[:at]
    return "", whole


def read_budget(instruction: str) -> Budget:
    """The sentences and words an instruction allows: "in two sentences", "under 50 words", "200字以内"."""
    return Budget(sentences=_read_limit(_SENTENCES, instruction), words=_read_limit(_WORDS, instruction))


def _read_limit(pattern: re.Pattern[str], instruction: str) -> int | None:
    for found in pattern.finditer(instruction):
        if found["least"]:
            continue
        word = found["number"].lower()
        number = _NUMBERS.get(word) or int(word.replace(",", ""))
        return max(1, number - 1) if found["below"] else number
    return None


def read_query(instruction: str) -> str:
    """What an instruction asks about, or "": what follows "about", "focus on" and the like, or its question."""
    about = _ABOUT.search(instruction)
    question = _QUESTION.search(instruction)
    asked = about[1] if about else question[0] if question else ""
    subject = dict.fromkeys(term for term in terms(asked) if term not in _NO_SUBJECT and not term.isdigit())
    return " ".join(subject)
