"""The semantic tier inside a cache: what it answers, asks, learns, keeps in its file, and when it holds its tongue."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from benchmarks.semantic.workload import lexical
from msgspec.structs import replace

from agentflow.clock import VirtualClock
from agentflow.errors import ConfigurationError
from agentflow.llm.caller import Caller, asking_as
from agentflow.llm.content import Image, Text
from agentflow.llm.messages import Message, Request, Response
from agentflow.llm.providers.scripted import ScriptedProvider
from agentflow.mcp.performance.caching import ResponseCache, SqliteStore
from agentflow.mcp.performance.caching.semantic import SameBy, SameText, SameVector, VerifiedTier
from agentflow.mcp.performance.caching.semantic.embedding import FunctionEmbedder
from agentflow.mcp.performance.caching.semantic_tier import Asked

PNG = b"\x89PNG\r\n\x1a\n" + bytes(16)


def request(text: str, **changes: Any) -> Request:
    return replace(Request("m", (Message("system", "Be brief."), Message("user", text)), temperature=0.0), **changes)


def tier(**said: Any) -> VerifiedTier:
    """One that is easily convinced: after a few right answers it gives them."""
    return VerifiedTier(**{"embedding": lexical, "delta": 0.3, "audit": 0.0, "clock": VirtualClock(seed=3), **said})


class Oracle:
    """A model that knows one answer a topic, whatever the words."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.wrong = False

    def __call__(self, asked: Request) -> str:
        self.asked.append(asked.prompt)
        topic = next(word for word in ("password", "invoice", "parcel") if word in asked.prompt)
        return f"call {len(self.asked)}" if self.wrong else f"All about your {topic}."


WAYS = [
    "{} how do I find my {topic}{}",
    "{} where can I find my {topic}{}",
    "{} my {topic}, where do I find it{}",
    "{} help me to find my {topic}{}",
    "{} please tell me where my {topic} is to be found{}",
]


def ways(topic: str) -> list[str]:
    return [
        way.format(hi, end, topic=topic) for way in WAYS for hi in ("hi", "hello", "hey") for end in ("", " thanks")
    ]


async def ask(cache: ResponseCache, texts: Sequence[str]) -> list[Response]:
    return [await cache.execute(request(text)) for text in texts]


def cached(oracle: Oracle, semantic: VerifiedTier, **said: Any) -> ResponseCache:
    return ResponseCache(ScriptedProvider(oracle, name="lab"), ttl=3600, semantic=semantic, **said)


async def test_a_question_in_other_words_is_answered_once_enough_was_seen() -> None:
    oracle, semantic = Oracle(), tier()
    answers = await ask(cached(oracle, semantic), ways("password"))
    assert answers[0].cache_hit is None
    assert answers[-1].cache_hit == "semantic"
    assert answers[-1].cost == 0.0
    assert {answer.text for answer in answers} == {"All about your password."}
    found = semantic.statistics()
    assert found.hits == len(answers) - len(oracle.asked) > 5
    assert found.asked == found.hits + found.explored


async def test_the_same_question_is_the_exact_tiers() -> None:
    oracle, semantic = Oracle(), tier()
    first, second = await ask(cached(oracle, semantic), ["hi, my password", "hi, my password"])
    assert (first.cache_hit, second.cache_hit) == (None, "exact")


async def test_events_and_statistics_say_why() -> None:
    told: list[tuple[str, Mapping[str, object]]] = []

    class Ear:
        async def send(self, kind: str, facts: Mapping[str, object]) -> None:
            told.append((kind, facts))

    cache = cached(Oracle(), tier())
    with asking_as(Caller(scope=Ear())):  # type: ignore[arg-type]
        await ask(cache, [*ways("password"), "hi how do I find my 2 password"])
    reasons = [(kind, facts["reason"]) for kind, facts in told]
    assert reasons[0] == ("cache_miss", "nothing_similar")
    assert reasons[1] == ("cache_miss", "exploring")
    assert ("cache_hit", "similar") in reasons
    assert reasons[-1] == ("cache_miss", "number_changed")
    assert all("similarity" in facts for _, facts in told[1:])


# ---- what may not meet ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "other",
    [
        {"model": "n"},
        {"temperature": 0.0, "max_tokens": 9},
        {"messages": (Message("system", "Be long."), Message("user", ways("password")[-1]))},
        {"messages": (Message("user", ways("password")[-1]),)},
        {"messages": (Message("system", "Be brief."), Message("user", (Text(ways("password")[-1]), Image(PNG))))},
        {"seed": 4},
    ],
)
async def test_what_differs_beside_the_words_is_another_question(other: dict[str, Any]) -> None:
    """Whatever was learned under one frame answers nothing under another."""
    semantic = tier()
    await ask(cached(Oracle(), semantic), ways("password")[:-1])
    verdict = await semantic.find(Asked(request(ways("password")[-1]), "lab"))
    assert verdict.key is not None
    verdict = await semantic.find(Asked(request(ways("password")[-1], **other), "lab"))
    assert (verdict.key, verdict.reason) == (None, "nothing_similar")


async def test_tenants_share_neither_answers_nor_lessons() -> None:
    semantic = tier()
    cache = cached(Oracle(), semantic)
    with asking_as(Caller(tenant="a")):
        await ask(cache, ways("password"))
    with asking_as(Caller(tenant="b")):
        [answer] = await ask(cache, ways("password")[:1])
    assert answer.cache_hit is None
    assert semantic.statistics("a").hits > 0
    assert semantic.statistics("b").asked == semantic.statistics().asked == 0


async def test_a_question_without_words_or_with_too_many_is_not_for_it() -> None:
    semantic = tier(longest=20)
    for messages, reason in [((Message("user", " "),), "no_question"), ((Message("user", "a" * 21),), "too_long")]:
        verdict = await semantic.find(Asked(Request("m", messages), "lab"))
        assert (verdict.key, verdict.reason) == (None, reason)


async def test_the_nearest_that_no_veto_speaks_against_answers() -> None:
    """Another number is more alike than other words; it is passed over, not only refused."""
    semantic = tier(floor=0.1)
    for place, text in enumerate(["find room 2 for me", "can you look up the location of room 1"]):
        asked = Asked(request(text), "lab")
        await semantic.find(asked)
        await semantic.keep(asked, str(place), Response(text, "m", "lab"))
    verdict = await semantic.find(Asked(request("find room 1 for me"), "lab"))
    assert verdict.reason == "exploring"


# ---- answers that change, leave, fail ------------------------------------------------------------------------


async def test_an_answer_that_expired_is_asked_for_again_and_its_lessons_stay() -> None:
    clock = VirtualClock(seed=3)
    oracle, semantic = Oracle(), tier(clock=clock)
    cache = ResponseCache(ScriptedProvider(oracle, name="lab"), ttl=60, jitter=0.0, semantic=semantic, clock=clock)
    await ask(cache, ways("password")[:-2])
    clock.advance(100)
    answers = await ask(cache, ways("password")[-2:])
    assert [answer.cache_hit for answer in answers] == [None, "semantic"]


async def test_an_answer_that_became_another_starts_from_nothing() -> None:
    semantic = tier()
    texts = ways("password")
    for place, text in enumerate(texts[:-1]):
        asked = Asked(request(text), "lab")
        if (await semantic.find(asked)).key is None:
            await semantic.keep(asked, str(place), Response("old", "m", "lab"))
    asked = Asked(request(texts[-1]), "lab")
    verdict = await semantic.find(asked)
    assert verdict.key is not None
    await semantic.keep(asked, verdict.key, Response("new", "m", "lab"))  # it was gone, and the model says otherwise
    assert (await semantic.find(asked)).reason == "exploring"


async def test_an_embedding_that_fails_costs_a_miss_and_a_line(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(text: str) -> list[float]:
        raise ConnectionError("no route")

    oracle = Oracle()
    with caplog.at_level(logging.WARNING, "agentflow.cache"):
        [answer] = await ask(cached(oracle, tier(embedding=broken)), ["my password"])
    assert answer.text == "All about your password."
    assert "no route" in caplog.text


@pytest.mark.parametrize("made", [[0.0, 0.0], [float("nan"), 1.0]])
async def test_a_vector_without_direction_is_none(made: list[float]) -> None:
    verdict = await tier(embedding=lambda text: made).find(Asked(request("hello"), "lab"))
    assert (verdict.key, verdict.reason) == (None, "embedding_failed")


async def test_an_embedding_that_changes_its_length_begins_anew() -> None:
    lengths = iter([3, 3, 5, 5])
    semantic = tier(embedding=lambda text: [1.0] * next(lengths))
    reasons = []
    for text in ("my password", "where is my password", "find my password", "is that my password"):
        asked = Asked(request(text), "lab")
        reasons.append((await semantic.find(asked)).reason)
        await semantic.keep(asked, text, Response("x", "m", "lab"))
    assert reasons == ["nothing_similar", "exploring", "nothing_similar", "exploring"]


async def test_a_judge_that_fails_costs_a_label_and_a_line(caplog: pytest.LogCaptureFixture) -> None:
    def broken(one: str, other: str) -> bool:
        raise RuntimeError("no opinion")

    with caplog.at_level(logging.WARNING, "agentflow.cache"):
        answers = await ask(cached(Oracle(), tier(same=broken)), ways("password")[:3])
    assert [answer.cache_hit for answer in answers] == [None, None, None]
    assert "no opinion" in caplog.text


async def test_what_is_remembered_is_bounded() -> None:
    semantic = tier(entries=5)
    for number in range(12):
        asked = Asked(request(f"question {number}"), "lab")
        await semantic.find(asked)
        await semantic.keep(asked, str(number), Response(f"answer {number}", "m", "lab"))
    assert len(semantic) == 5


@pytest.mark.parametrize(
    "said",
    [
        {"delta": 0.0},
        {"delta": 1.0},
        {"alpha": 0.0},
        {"audit": 1.5},
        {"caution": -1.0},
        {"per": "week"},
        {"vetoes": ["colour"]},
        {"embedding": 4},
        {"embedding": Path("nowhere")},
    ],
)
def test_what_makes_no_sense_is_refused(said: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        tier(**said)


# ---- what is the same ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("It is 42.", "it is  42", True),
        ("**Yes**, it is", "Yes it is!", True),
        ("1.5 m", "15 m", False),
        ("-3", "3", False),
        ("yes", "no", False),
        ("a<b", "a>b", False),
        ("2 * 3", "2 + 3", False),
        ("* yes", "yes", True),
        ("1/2", "1 2", False),
        ("Straße", "STRASSE", True),
    ],
)
async def test_texts_are_the_same_but_for_ornament(one: str, other: str, same: bool) -> None:
    judge = SameText()
    kept = await judge.digest(Response(one, "m", "lab"))
    assert await judge.same(kept, Response(other, "m", "lab")) is same


async def test_vectors_of_prose_may_differ_a_little_but_not_in_a_number() -> None:
    judge = SameVector(FunctionEmbedder(lexical), least=0.8)
    kept = await judge.digest(Response("The trip from here takes 3 hours by train.", "m", "lab"))
    assert await judge.same(kept, Response("By train, the trip from here takes 3 hours.", "m", "lab"))
    assert not await judge.same(kept, Response("The trip from here takes 4 hours by train.", "m", "lab"))
    assert not await judge.same(kept, Response("I do not know.", "m", "lab"))


async def test_a_function_may_decide_sync_or_async() -> None:
    async def alike(one: str, other: str) -> bool:
        return one[0] == other[0]

    for function in (alike, lambda one, other: one[0] == other[0]):
        judge = SameBy(function)
        kept = await judge.digest(Response("abc", "m", "lab"))
        assert await judge.same(kept, Response("axx", "m", "lab"))
        assert not await judge.same(kept, Response("xbc", "m", "lab"))


# ---- audits, off and on --------------------------------------------------------------------------------------


async def test_a_share_of_hits_is_audited_and_compared() -> None:
    semantic = tier(audit=0.5)
    await ask(cached(Oracle(), semantic), ways("password"))
    found = semantic.statistics()
    assert found.audited > 0
    assert (found.wrong, found.error) == (0, 0.0)
    assert found.error_interval[0] == 0.0


async def test_a_model_that_drifts_makes_it_switch_itself_off_and_say_so(caplog: pytest.LogCaptureFixture) -> None:
    """What was true is not any more: audits see it, nothing is given from then on, and everybody is told once."""
    told: list[tuple[str, Mapping[str, object]]] = []

    class Ear:
        async def send(self, kind: str, facts: Mapping[str, object]) -> None:
            told.append((kind, facts))

    oracle, semantic = Oracle(), tier(audit=0.5, delta=0.1)
    cache = cached(oracle, semantic)
    await ask(cache, [f"{way} {end}" for end in ("ok", "bye", "cheers", "now") for way in ways("invoice")])
    assert semantic.statistics().state == "on"
    hits = semantic.statistics().hits
    oracle.wrong = True
    with caplog.at_level(logging.WARNING, "agentflow.cache"), asking_as(Caller(scope=Ear())):  # type: ignore[arg-type]
        for end in ("soon", "there", "again", "today", "then", "well"):
            await ask(cache, [f"{way} {end}" for way in ways("invoice")])
    found = semantic.statistics()
    assert found.state == "off"
    assert "audited answers were wrong: more than 0.1" in found.since
    assert found.hits - hits < 30
    [state] = [facts for kind, facts in told if kind == "cache_state"]
    assert state == {"tier": "semantic", "from": "on", "to": "off", "reason": found.since}
    assert "the semantic tier is off" in caplog.text


async def test_by_hand_it_is_on_again_and_learns_anew() -> None:
    oracle, semantic = Oracle(), tier(delta=0.15)
    cache = cached(oracle, semantic)
    await ask(cache, ways("parcel")[:-3])
    assert semantic.statistics().hits > 0
    await semantic.switch_off(reason="maintenance")
    assert semantic.statistics().state == "off"
    [answer] = await ask(cache, ways("parcel")[-3:-2])
    assert answer.cache_hit is None
    await semantic.switch_on(reason="done")
    assert (semantic.statistics().state, semantic.statistics().since) == ("on", "done")
    [answer] = await ask(cache, ways("parcel")[-2:-1])
    assert answer.cache_hit is None, "labels of before are gone"


async def test_while_off_would_be_hits_are_compared_until_it_may_be_on_again() -> None:
    semantic = tier(recovers=True, delta=0.3)
    cache = cached(Oracle(), semantic)
    await semantic.switch_off()
    texts = [f"{way} {end}" for end in ("ok", "bye") for way in ways("parcel")]
    answers = await ask(cache, texts)
    assert semantic.statistics().state == "on"
    assert "answers that it would have given were wrong" in semantic.statistics().since
    assert answers[5].cache_hit is None
    assert answers[-1].cache_hit == "semantic"


async def test_one_tenants_breach_is_not_anothers() -> None:
    semantic = tier()
    await semantic.switch_off("a")
    assert (semantic.statistics("a").state, semantic.statistics("b").state) == ("off", "on")


# ---- the file ------------------------------------------------------------------------------------------------


async def test_what_was_learned_outlives_the_process(tmp_path: Path) -> None:
    """In the exact tier's own file: answers, wordings, labels."""
    path, texts = tmp_path / "cache.db", ways("password")
    for begins, part in ((True, texts[:-1]), (False, texts[-1:])):
        oracle, semantic = Oracle(), tier(path=path)
        cache = cached(oracle, semantic, store=SqliteStore(path))
        answers = await ask(cache, part)
        assert bool(oracle.asked) is begins
        await cache.aclose()  # and the tier with it
    assert answers[-1].cache_hit == "semantic"


async def test_off_outlives_the_process(tmp_path: Path) -> None:
    first = tier(path=tmp_path / "cache.db")
    await first.switch_off("a", reason="maintenance")
    await first.aclose()
    second = tier(path=tmp_path / "cache.db")
    await second.find(Asked(request("hello"), "lab", "a"))
    assert (second.statistics("a").state, second.statistics("a").since) == ("off", "maintenance")
    await second.aclose()


async def test_vectors_of_another_embedding_are_dropped(tmp_path: Path) -> None:
    def other(text: str) -> list[float]:
        return [1.0, float(len(text))]

    for embedding, expected in ((lexical, 0), (other, 0), (other, 1)):
        semantic = tier(path=tmp_path / "cache.db", embedding=embedding)
        asked = Asked(request("my password"), "lab")
        await semantic.find(asked)
        assert len(semantic) == expected
        if not len(semantic):
            await semantic.keep(asked, "key", Response("x", "m", "lab"))
        await semantic.aclose()


async def test_the_file_holds_no_words(tmp_path: Path) -> None:
    path = tmp_path / "cache.db"
    semantic = tier(path=path)
    asked = Asked(request("where does Angela keep 4711"), "lab", "acme")
    await semantic.find(asked)
    await semantic.keep(asked, "key", Response("in the drawer", "m", "lab"))
    await semantic.aclose()
    written = b"".join(each.read_bytes() for each in tmp_path.iterdir())
    assert b"semantic_wordings" in written
    for word in (b"Angela", b"angela", b"4711", b"acme", b"drawer"):
        assert word not in written


async def test_a_file_that_cannot_be_used_costs_what_was_learned_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("these are mine, leave them alone")
    with caplog.at_level(logging.WARNING, "agentflow.cache"):
        oracle, semantic = Oracle(), tier(path=path)
        answers = await ask(cached(oracle, semantic), ways("password"))
        await semantic.aclose()
    assert answers[-1].cache_hit == "semantic"
    assert path.read_text() == "these are mine, leave them alone"
    assert len(caplog.records) == 1
