"""Questions for a cache of meaning: paraphrases by the hundred, near-duplicates that mean something else, who is right.

    FACTS   what can be asked (the capital of Kenya, 40 mg of a drug, …); the answer to a fact is its number
    phrased(fact, random)        one of its many wordings
    stream(seed, most)           questions in the order in which they are asked, popular ones often, none twice
    synthetic(seed, most)        the same without words: which entry, how similar, whether right

Each intent has slots whose values look alike (numbers, names, days, drugs, directions, with and without), so that of
two questions in the same words the one is often a trap for the other. All wordings are our own.
"""

from __future__ import annotations

import hashlib
import itertools
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ALTERNATIVES = re.compile(r"\[([^\[\]]*)\]")


@dataclass(frozen=True, slots=True)
class Fact:
    """What is asked: an intent, and what stands in its slots. `wordings` are grammars, `[this|that]` a choice."""

    number: int
    intent: str
    slots: Mapping[str, str]
    wordings: Sequence[str]


@dataclass(frozen=True, slots=True)
class Question:
    text: str
    fact: int


COUNTRIES = ("Kenya", "Peru", "Norway", "Nepal", "Chile", "Ghana", "Latvia", "Oman", "Fiji", "Laos")
CITIES = ("Oslo", "Lima", "Porto", "Quito", "Riga", "Dakar", "Busan", "Graz")
DAYS = ("Monday", "Wednesday", "Saturday", "Sunday")
DRUGS = ("ibuprofen", "paracetamol", "aspirin", "cetirizine")
DISHES = ("lentil soup", "pumpkin soup", "apple pie", "pecan pie", "fish tacos", "beef tacos")
ITEMS = ("a laptop", "a pair of boots", "a winter coat", "headphones", "a desk lamp", "a tent")
FEATURES = ("dark mode", "two-step login", "email alerts", "location sharing", "automatic updates")
LANGUAGES = ("Python", "Java", "Go", "Rust", "Ruby")
TOPICS = ("photosynthesis", "osmosis", "inflation", "recursion", "entropy", "gravity", "erosion", "compound interest")
ACCOUNTS = ("password", "email address", "phone number", "username", "billing address")

Slots = Mapping[str, Sequence[str]]
INTENTS: Sequence[tuple[str, Slots, Sequence[str]]] = (
    (
        "capital",
        {"country": COUNTRIES},
        (
            "[What is|What's|Tell me|Name] the capital [city of|of] {country}[?|, please]",
            "[Which|What] city is the [capital|seat of government] of {country}?",
            "{country}: [what is its capital|which city is the capital]?",
            "I [need|want] to know {country}'s capital [city|]",
        ),
    ),
    (
        "population",
        {"country": COUNTRIES},
        (
            "How many people [live|are living] in {country}[?| today?]",
            "[What is|What's|Tell me] the population of {country}[?|, please]",
            "[Give me|I need] the number of [inhabitants|residents] of {country}",
            "How [large|big] is the population of {country}?",
        ),
    ),
    (
        "hours",
        {"day": DAYS},
        (
            "[When do you open|What time do you open|What are your opening hours] on {day}[?|, please?]",
            "At what [time|hour] does the shop open on {day}?",
            "[Are you open on {day}, and from when?|{day} opening hours, please]",
            "From when [is the store|are you] open on {day}?",
        ),
    ),
    (
        "dose",
        {"dose": ("20", "40", "200", "400"), "drug": DRUGS},
        (
            "[Is it safe|Is it okay|Is it fine] to take {dose} mg of {drug} [every day|daily]?",
            "[Can|May] I take {dose} mg {drug} [each day|every day|daily]?",
            "Would {dose} mg of {drug} a day be [harmful|too much|a problem]?",
        ),
    ),
    (
        "convert",
        {
            "amount": ("5", "12", "26", "42", "100"),
            "what": ("km in miles", "miles in km", "kg in pounds", "pounds in kg"),
        },
        (
            "[Convert|Please convert] {amount} {what}",
            "[How much|What] is {amount} {what}?",
            "{amount} {what}[?| please]",
        ),
    ),
    (
        "flight",
        {"from": CITIES[:4], "to": CITIES[4:]},
        (
            "[How long is|What is the duration of] the flight from {from} to {to}?",
            "[How long does it take|How many hours does it take] to fly from {from} to {to}?",
            "Flying time [from|between] {from} [to|and] {to}[?|, please]",
        ),
    ),
    (
        "flight back",
        {"from": CITIES[:4], "to": CITIES[4:]},
        (
            "[How long is|What is the duration of] the flight from {to} to {from}?",
            "[How long does it take|How many hours does it take] to fly from {to} to {from}?",
        ),
    ),
    (
        "recipe",
        {"dish": DISHES},
        (
            "[How do I make|How do you cook|How can I prepare] {dish}[?| at home?]",
            "[Give me|I need|Can you share] a [simple|good|] recipe for {dish}[?|]",
            "What [do I need|ingredients do I need] [for|to make] {dish}?",
            "[Steps|Instructions] for [cooking|making] {dish}, please",
        ),
    ),
    (
        "return",
        {"item": ITEMS},
        (
            "[How do I|How can I|What do I have to do to] [return|send back] {item} [I bought|that I ordered]?",
            "I [bought|ordered] {item} and [want to return it|want my money back]. [What now?|How does that work?]",
            "[What is|What's] your return policy for {item}?",
        ),
    ),
    (
        "switch on",
        {"feature": FEATURES},
        (
            "[How do I|How can I] [enable|turn on|switch on] {feature} [in the app|]?",
            "[Where|In which menu] can I [enable|turn on|activate] {feature}?",
            "I [want|would like] to [turn on|enable] {feature}. [How?|What do I do?]",
        ),
    ),
    (
        "switch off",
        {"feature": FEATURES},
        (
            "[How do I|How can I] [disable|turn off|switch off] {feature} [in the app|]?",
            "[Where|In which menu] can I [disable|turn off|deactivate] {feature}?",
            "I [want|would like] to [turn off|disable] {feature}. [How?|What do I do?]",
        ),
    ),
    (
        "change account",
        {"what": ACCOUNTS},
        (
            "[How do I|How can I|Where do I] [change|update|edit] my {what}?",
            "I [need|want] to [change|update] my {what}[, how does that work?|. Please help]",
            "[What are the steps|What do I have to do] to [change|update] my {what}?",
        ),
    ),
    (
        "sort up",
        {"language": LANGUAGES},
        (
            "[How do I|How can I|How to] sort a list [in ascending order|ascending] in {language}?",
            "[Show me|I need] {language} code that sorts [a list|numbers] [in ascending order|ascending]",
            "{language}: sort [a list|an array] ascending",
        ),
    ),
    (
        "sort down",
        {"language": LANGUAGES},
        (
            "[How do I|How can I|How to] sort a list [in descending order|descending] in {language}?",
            "[Show me|I need] {language} code that sorts [a list|numbers] [in descending order|descending]",
            "{language}: sort [a list|an array] descending",
        ),
    ),
    (
        "explain",
        {"topic": TOPICS},
        (
            "[Explain|Describe] {topic} [in simple terms|simply|to a child]",
            "[What is|What's] {topic}[?|, in simple words?]",
            "[Can you|Could you|Please] explain [to me|] what {topic} is[?|]",
            "[How does {topic} work|Help me understand {topic}][?|]",
        ),
    ),
    (
        "with milk",
        {"dish": ("pancakes", "scones", "white sauce", "rice pudding")},
        (
            "[How do I|How can I] make {dish} with milk?",
            "[Give me|I need] a recipe for {dish} with milk",
            "What is a good way to [make|prepare] {dish} with milk?",
        ),
    ),
    (
        "without milk",
        {"dish": ("pancakes", "scones", "white sauce", "rice pudding")},
        (
            "[How do I|How can I] make {dish} without milk?",
            "[Give me|I need] a recipe for {dish} without milk",
            "What is a good way to [make|prepare] {dish} without milk?",
        ),
    ),
    (
        "cheapest",
        {"city": CITIES},
        (
            "[What is|What's] the cheapest [neighbourhood|part of town] in {city}?",
            "Where in {city} are [rents|flats] cheapest?",
            "[Find|Name] the least expensive [neighbourhood|district] of {city}",
        ),
    ),
    (
        "dearest",
        {"city": CITIES},
        (
            "[What is|What's] the most expensive [neighbourhood|part of town] in {city}?",
            "Where in {city} are [rents|flats] highest?",
            "[Find|Name] the priciest [neighbourhood|district] of {city}",
        ),
    ),
    (
        "may freeze",
        {"food": ("cooked rice", "soft cheese", "eggs", "yoghurt", "bread", "spinach")},
        (
            "[Can|May] I freeze {food}?",
            "[Is it okay|Is it safe|Is it fine] to freeze {food}?",
            "Does {food} [freeze well|survive the freezer]?",
            "[What happens|What will happen] if I [freeze|put] {food} [in the freezer|]?",
        ),
    ),
)
OPENINGS = ("", "", "", "Hi! ", "Hello, ", "Quick question: ", "Hey there. ")
ENDINGS = ("", "", "", " Thanks!", " Thank you.", " Cheers")


def _facts() -> Iterator[Fact]:
    numbers = itertools.count()
    for intent, slots, wordings in INTENTS:
        for values in itertools.product(*slots.values()):
            yield Fact(next(numbers), intent, dict(zip(slots, values, strict=True)), wordings)


FACTS = tuple(_facts())


def phrased(fact: Fact, chance: random.Random) -> str:
    """One wording."""
    text = chance.choice(fact.wordings)
    while ALTERNATIVES.search(text):
        text = ALTERNATIVES.sub(lambda match: chance.choice(match[1].split("|")), text, count=1)
    text = " ".join(text.format(**fact.slots).replace(" ?", "?").split())
    opening, ending = chance.choice(OPENINGS), chance.choice(ENDINGS)
    if ending and text[-1].isalnum():
        text += "."
    first = text.split()[0].rstrip(":")
    if opening.endswith(", ") and first != "I" and not any(first in value for value in fact.slots.values()):
        text = text[0].lower() + text[1:]
    return f"{opening}{text}{ending}"


def stream(seed: int, most: int, *, facts: Sequence[Fact] = FACTS) -> list[Question]:
    """At most so many questions; popularity falls as 1 / rank^0.8. A text that came before is left out: the exact tier
    has it."""
    chance = random.Random(seed)
    order = chance.sample(facts, len(facts))
    weights = [1.0 / (rank + 1) ** 0.8 for rank in range(len(order))]
    seen: set[str] = set()
    asked = []
    for fact in chance.choices(order, weights, k=most * 3):
        text = phrased(fact, chance)
        if text not in seen:
            seen.add(text)
            asked.append(Question(text, fact.number))
    return asked[:most]


def pool(size: int) -> list[Question]:
    """As many different texts, for embeddings that take a while: streams are then drawn from these."""
    chance = random.Random(7)
    found: dict[str, Question] = {}
    while len(found) < size:
        fact = chance.choice(FACTS)
        text = phrased(fact, chance)
        found[text] = Question(text, fact.number)
    return list(found.values())


def stream_of(questions: Sequence[Question], seed: int, most: int) -> list[Question]:
    """A stream drawn from given texts, popular facts more often; none twice."""
    chance = random.Random(seed)
    rank = {fact: place for place, fact in enumerate(chance.sample(range(len(FACTS)), len(FACTS)))}
    # Weighted sampling without replacement (Efraimidis and Spirakis 2006): the greatest u^(1/w) first.
    keyed = [(chance.random() ** ((rank[each.fact] + 1) ** 0.8), number) for number, each in enumerate(questions)]
    return [questions[number] for _, number in sorted(keyed, reverse=True)[:most]]


# ---- vectors of letters --------------------------------------------------------------------------------------


def lexical(text: str, *, dimensions: int = 256) -> NDArray[np.float32]:
    """Counts of words and of triples of letters, hashed: what can be had without a model. Norm 1."""
    words = re.findall(r"\w+", text.lower())
    grams = [*words, *words, *(f"{word:_^{len(word) + 2}}"[at : at + 3] for word in words for at in range(len(word)))]
    made = np.zeros(dimensions, np.float32)
    for gram in grams:
        number = int.from_bytes(hashlib.blake2b(gram.encode(), digest_size=4).digest())
        made[number % dimensions] += 1.0 if number & 1 << 31 else -1.0
    return made / max(float(np.linalg.norm(made)), 1e-9)


# ---- without words -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Similar:
    """A question's nearest neighbour: which entry, how similar, and whether its answer is right for it."""

    entry: int
    similarity: float
    right: bool


def synthetic(seed: int, most: int, *, entries: int = 150, traps: float = 0.3, caught: float = 0.9) -> list[Similar]:
    """Entries that differ in how similar their paraphrases are (mean cosine 0.78 to 0.95, one in ten 0.70) and in how
    similar the traps are (0.70 to 0.97, often above the paraphrases). `traps` is the mean share of trap questions; of
    these, vetoes catch a share of `caught`, so they are no candidates. Popularity falls as 1 / rank^0.8."""
    chance = np.random.default_rng(seed)
    weights = 1.0 / np.arange(1, entries + 1) ** 0.8
    paraphrase = np.where(chance.random(entries) < 0.1, 0.70, chance.uniform(0.78, 0.95, entries))
    trap = chance.uniform(0.70, 0.97, entries)
    share = 2.0 * traps * chance.random(entries)
    found = []
    for entry in chance.choice(entries, most, p=weights / weights.sum()):
        if chance.random() < share[entry]:
            if chance.random() >= caught:
                found.append(Similar(int(entry), min(0.999, chance.normal(trap[entry], 0.03)), False))
        else:
            found.append(Similar(int(entry), min(0.999, chance.normal(paraphrase[entry], 0.04)), True))
    return found
