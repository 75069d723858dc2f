"""Our reading of an answer and the official SDKs' reading of the same bytes, field by field.

    recorded answer ──7-byte pieces──▶ adapter ──▶ Response                ──▶  {"text": …, "calls": …, "usage": …}
                    ──7-byte chunks──▶ SDK, in a process of its own        ──▶  {"text": …, "calls": …, "usage": …}

Then the same with aimock in the place of the recordings. What an SDK makes of an answer says tests/support/oracle.py,
which knows nothing of ours. Where the two differ and ours is meant, `MEANT` says why; nothing else may differ.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import msgspec
import pytest
from tests.conftest import Tell
from tests.support import aimock as mock
from tests.support.invented_answers import INVENTED
from tests.support.oracle_facts import differences, our_facts, their_facts
from tests.support.programs import Oracle
from tests.support.recordings import Recording, Replay, recordings
from tests.support.replaying import Replayer

from agentflow.errors import BadRequestError, ModelError, StreamInterruptedError
from agentflow.llm.messages import EmbeddingRequest, Embeddings, Message, Request, Response
from agentflow.llm.providers.anthropic import AnthropicProvider
from agentflow.llm.providers.api import HTTPProvider
from agentflow.llm.providers.base import ProviderSettings, Secret
from agentflow.llm.providers.google import GoogleProvider
from agentflow.llm.providers.http import Transport
from agentflow.llm.providers.openai import OpenAIProvider
from agentflow.llm.streaming.join import join

pytestmark = pytest.mark.service

Verdict = Mapping[str, Any]
Oracles = Callable[[str], Oracle]
Place = tuple[str, Any, Any]
"""Where two readings differ: the path, and what ours and theirs say there."""

PIECE = 7  # bytes
ASK = Request("asked-for", (Message("user", "Hello"),))


@dataclass(frozen=True)
class Meant:
    """A difference that is meant: in which API ("" for each), at a path that matches `where`, and why. `when` is given
    what ours and theirs say there."""

    api: str
    where: str
    why: str
    when: Callable[[Any, Any], bool] = lambda ours, theirs: True

    def covers(self, api: str, path: str, ours: Any, theirs: Any) -> bool:
        return self.api in (api, "") and re.fullmatch(self.where, path) is not None and self.when(ours, theirs)


def _no_id(ours: Any, theirs: Any) -> bool:
    return theirs is None and bool(ours)


_CALL_ID = r"choices\[\d+\]\.calls\[\d+\]\[0\]"
MEANT = (
    Meant("", "model", "an answer that names no model has the one that was asked", lambda ours, theirs: theirs is None),
    Meant("", "end", "a stream that was cut is an error; an SDK hands on what there was", lambda _, it: not _ended(it)),
    Meant("chat", _CALL_ID, "a call without an id gets one, to tell its result", _no_id),
    Meant("chat", "answer", "the SDK breaks on what a compatible server sends", lambda _, theirs: "failed" in theirs),
    Meant("generate", _CALL_ID, "a call without an id gets one, to tell its result", _no_id),
    Meant("generate", "service_tier", "Google names the tier in usage, where the SDK has no field for it"),
    Meant(
        "generate",
        r"choices\[\d+\]\.calls",
        "arguments that come in pieces are put together; the SDK leaves them in pieces",
        lambda ours, theirs: any(len(call) == 4 for call in theirs),
    ),
)


# ---- the four APIs -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Format:
    """An API: whose SDK speaks it, where its paths end, and what comes before them in the SDK's own base address."""

    api: str
    sdk: str
    endings: tuple[str, ...]
    root: str = ""

    def job(self, recording: Recording, url: str) -> dict[str, Any]:
        """What the oracle is asked for a recording."""
        return {
            "api": self.api + _flavour(recording),
            "base_url": url + self.root,
            "body": {name: value for name, value in recording.request.items() if name != "encoding_format"},
            "stream": recording.streamed,
            "model": _model(recording),
        }

    def provider(self, recording: Recording, transport: Transport) -> HTTPProvider:
        address = recording.uri.partition("?")[0]
        base = re.sub("(/v1/messages(/count_tokens)?|/chat/completions|/responses|/embeddings)$", "", address)
        if self.sdk == "google":
            return GoogleProvider(_settings(re.sub(r"/(models|tunedModels|endpoints)/[^/]+$", "", base)), transport)
        if self.sdk == "anthropic":
            return AnthropicProvider(_settings(base), transport)
        return OpenAIProvider(_settings(base, api="responses" if self.api == "responses" else "chat"), transport)


CHAT = Format("chat", "openai", ("/chat/completions",), "/v1")
RESPONSES = Format("responses", "openai", ("/responses",), "/v1")
MESSAGES = Format("messages", "anthropic", ("/v1/messages",))
GENERATE = Format("generate", "google", (":generateContent", ":streamGenerateContent"))
FORMATS = (CHAT, RESPONSES, MESSAGES, GENERATE)
EMBEDDINGS = Format("embeddings", "openai", ("/embeddings",), "/v1")
EMBED = Format("embed", "google", (":batchEmbedContents", ":embedContent"))
COUNTS = (Format("count", "anthropic", ("/messages/count_tokens",)), Format("count", "google", (":countTokens",)))


def _settings(base_url: str, **options: str) -> ProviderSettings:
    return ProviderSettings("tested", "tested", base_url=base_url, api_key=Secret("key-of-nobody"), options=options)


def _flavour(recording: Recording) -> str:
    if "aiplatform" in recording.host:
        return "-vertex"
    return "-beta" if "beta=true" in recording.uri else ""


def _model(recording: Recording) -> str:
    """Google has the model in the path."""
    return str(recording.request.get("model") or unquote(recording.path.rpartition(":")[0].rpartition("/")[2]))


# ---- comparing -----------------------------------------------------------------------------------------------


@dataclass
class Table:
    """What was compared, row by row: how much of it agreed, and what did not."""

    title: str
    rows: dict[tuple[str, str, str], Counter[str]] = field(default_factory=dict)
    meant: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def note(self, row: tuple[str, str, str], what: str, api: str, found: Sequence[Place]) -> None:
        """Count an answer, with the places where the two readings of it differ."""
        counts = self.rows.setdefault(row, Counter())
        counts["compared"] += 1
        covered = [next((m.why for m in MEANT if m.covers(api, *place)), None) for place in found]
        for (path, ours, theirs), why in zip(found, covered, strict=True):
            if why is None:
                self.wrong.append(f"{what}: {api} {path}: {str(ours)[:90]!r} of ours, {str(theirs)[:90]!r} of theirs")
        self.meant.update({why for why in covered if why is not None})
        counts["agreed" if not found else "wrong" if None in covered else "meant"] += 1

    def lines(self) -> Iterator[str]:
        for (sdk, api, kind), counts in sorted(self.rows.items()):
            compared, agreed, meant = (counts[name] for name in ("compared", "agreed", "meant"))
            told = f"{compared:4} compared, {agreed:4} agree, {meant:3} but for what is meant"
            yield f"{self.title}: {sdk:17} {api:10} {kind:8} {told}"
        yield from (f"    {times} × {why}" for why, times in self.meant.items())
        yield from (f"    {line}" for line in self.wrong)


async def our_reading(client: HTTPProvider, request: Request, *, stream: bool) -> Response | ModelError:
    try:
        if not stream:
            return await client.execute(request)
        chunks = [chunk async for chunk in client.execute_streaming(request)]
        return join(chunks, provider="tested", model=request.model)
    except ModelError as error:
        return error
    finally:
        await client.aclose()


def compared(api: str, ours: Response | ModelError, verdict: Verdict, own: str) -> list[Place]:
    """Where the readings differ. Two that refuse agree, by status where the SDK has one that is none of success."""
    theirs = verdict.get("answer")
    if isinstance(ours, ModelError):
        if theirs is None or "error" in theirs:
            status, after = verdict.get("status", 200), verdict.get("retry_after")
            same = status in (200, ours.status) and (after is None or float(after) == ours.retry_after)
            return [] if same else [("error", repr(ours), verdict)]
        return [("end" if isinstance(ours, StreamInterruptedError) else "error", repr(ours), theirs)]
    if theirs is None:
        return [("answer", ours.text, verdict)]
    return list(differences(our_facts(api, ours, own), their_facts(api, theirs)))


def _ended(answer: Mapping[str, Any]) -> bool:
    """Whether the SDK knows why an answer ended."""
    choices = answer.get("choices") or [answer]
    return any(choice.get("finish") or choice.get("blocked") for choice in (answer, *choices))


async def laid_side_by_side(wire: Format, found: Sequence[Recording], oracle: Oracle, table: Table) -> None:
    """Replay each recording to us and to the SDK, and note in the table where the readings differ."""
    with Replayer(found, piece=PIECE) as server:
        for number, recording in enumerate(found):
            client = wire.provider(recording, Replay(recording, PIECE))
            ours = await our_reading(client, ASK, stream=recording.streamed)
            verdict = oracle.verdict(wire.job(recording, server.url(number)))
            row = (f"{oracle.sdk} {oracle.version}", wire.api, "streamed" if recording.streamed else "whole")
            table.note(row, recording.file, wire.api, compared(wire.api, ours, verdict, client.api.name))


@pytest.mark.parametrize("wire", FORMATS, ids=lambda wire: wire.api)
async def test_what_is_rare_and_what_goes_wrong_is_read_as_the_official_sdk_reads_it(
    oracles: Oracles, tell: Tell, wire: Format
) -> None:
    """Answers after the documented formats, for which no recording is needed."""
    table = Table("SDKs on invented answers")
    found = [each for each in INVENTED if each.path.endswith(wire.endings)]
    await laid_side_by_side(wire, found, oracles(wire.sdk), table)
    tell(table.lines())
    assert not table.wrong, "\n".join(table.wrong)


# ---- recordings ----------------------------------------------------------------------------------------------


@pytest.mark.shared
@pytest.mark.parametrize("wire", FORMATS, ids=lambda wire: wire.api)
async def test_every_recorded_answer_is_read_as_the_official_sdk_reads_it(
    shared: Path, oracles: Oracles, tell: Tell, wire: Format
) -> None:
    """Text, thoughts, calls, usage, reasons, ids, models, citations, signatures and errors, streamed and not."""
    table, found = Table("SDKs on recordings"), recordings(shared / "cassettes", *wire.endings)
    await laid_side_by_side(wire, found, oracles(wire.sdk), table)
    tell(table.lines())
    assert found
    assert not table.wrong, "\n".join(table.wrong)


@pytest.mark.shared
async def test_every_recorded_vector_is_the_one_that_the_official_sdk_reads(
    shared: Path, oracles: Oracles, tell: Tell
) -> None:
    """Each number of it, whether it came as a number or in Base64."""
    table = Table("SDKs on recordings")
    found = recordings(shared / "cassettes", "/embeddings", ":batchEmbedContents", ":embedContent")
    with Replayer(found, piece=PIECE) as server:
        for number, recording in enumerate(found):
            wire = EMBEDDINGS if recording.path.endswith("/embeddings") else EMBED
            oracle, texts = oracles(wire.sdk), _texts(recording)
            verdict = oracle.verdict({**wire.job(recording, server.url(number)), "texts": texts})
            ours = await our_vectors(wire, recording, len(texts))
            row = (f"{oracle.sdk} {oracle.version}", wire.api, "whole")
            table.note(row, recording.file, wire.api, _vectors_compared(ours, verdict))
    tell(table.lines())
    assert found
    assert not table.wrong, "\n".join(table.wrong)


async def our_vectors(wire: Format, recording: Recording, count: int) -> Embeddings | ModelError:
    client = wire.provider(recording, Replay(recording, PIECE))
    assert isinstance(client, OpenAIProvider | GoogleProvider)
    try:
        return await client.embed(EmbeddingRequest(_model(recording), ("?",) * count))
    except ModelError as error:
        return error


def _texts(recording: Recording) -> list[str]:
    """One text for each that was recorded: how many there are is all that matters for the answer."""
    sent = recording.request
    inputs = sent.get("input", sent.get("requests", [sent]))
    return ["?"] * (1 if isinstance(inputs, str) else len(inputs))


def _vectors_compared(ours: Embeddings | ModelError, verdict: Verdict) -> list[Place]:
    if isinstance(ours, ModelError) or "answer" not in verdict:
        refused = isinstance(ours, ModelError) and ours.status == verdict.get("status")
        return [] if refused else [("error", repr(ours), verdict)]
    theirs = verdict["answer"]
    facts: dict[str, Any] = {"vectors": [list(vector) for vector in ours.vectors]}
    if "usage" in theirs:  # Google's SDK has no field for what an embedding cost
        theirs = {**theirs, "usage": theirs["usage"].get("prompt_tokens") or theirs["usage"]["total_tokens"]}
        facts.update(model=ours.model, usage=ours.usage and ours.usage.input_tokens)
    return list(differences(facts, theirs))


@pytest.mark.shared
async def test_recorded_counts_of_tokens_are_those_that_the_official_sdk_reads(
    shared: Path, oracles: Oracles, tell: Tell
) -> None:
    table = Table("SDKs on recordings")
    found = recordings(shared / "cassettes", *(ending for wire in COUNTS for ending in wire.endings))
    with Replayer(found, piece=PIECE) as server:
        for number, recording in enumerate(found):
            wire = next(each for each in COUNTS if recording.path.endswith(each.endings))
            oracle, client = oracles(wire.sdk), wire.provider(recording, Replay(recording))
            verdict = oracle.verdict(wire.job(recording, server.url(number)))
            assert isinstance(client, AnthropicProvider | GoogleProvider)
            ours = {"input_tokens": await client.count_tokens(ASK)}
            row = (f"{oracle.sdk} {oracle.version}", wire.api, "whole")
            table.note(row, recording.file, wire.api, list(differences(ours, verdict.get("answer"))))
    tell(table.lines())
    assert not table.wrong, "\n".join(table.wrong)


# ---- aimock --------------------------------------------------------------------------------------------------

PROMPTS = ("weather", "think", "which is warmer?", "shape", "busy", "overload", "lost", "cut")


@pytest.mark.parametrize("wire", FORMATS, ids=lambda wire: wire.api)
async def test_the_official_sdk_can_send_what_we_send_and_gets_the_same_answer(
    aimock: mock.Aimock, oracles: Oracles, tell: Tell, wire: Format
) -> None:
    """Our request's body goes through the SDK's own method; ids that the server makes up anew are left aside."""
    oracle, table = oracles(wire.sdk), Table("SDKs on aimock")
    for prompt in PROMPTS:
        for stream in (False, True):
            client = aimock.client(wire.api)
            request = mock.asking(wire.api, prompt, tools=(mock.DEGREES,))
            body = json.loads(msgspec.json.encode(client.api.write(request, stream=stream).body))
            job = {"api": wire.api, "body": body, "model": request.model, "stream": stream}
            verdict = oracle.verdict({**job, "base_url": aimock.root + wire.root})
            found = compared(wire.api, await our_reading(client, request, stream=stream), verdict, client.api.name)
            row = (f"{oracle.sdk} {oracle.version}", wire.api, "streamed" if stream else "whole")
            table.note(row, prompt, wire.api, [place for place in found if place[0] != "id"])
    tell(table.lines())
    assert not table.wrong, "\n".join(table.wrong)


async def test_vectors_of_a_server_are_those_that_the_official_sdk_reads(aimock: mock.Aimock, oracles: Oracles) -> None:
    client = aimock.client("chat")
    assert isinstance(client, OpenAIProvider)
    ours = await client.embed(EmbeddingRequest("text-embedding-3-small", ("a tree", "two trees")))
    body = {"model": "text-embedding-3-small", "input": ["a tree", "two trees"]}
    verdict = oracles("openai").verdict({"api": "embeddings", "base_url": f"{aimock.root}/v1", "body": body})
    await client.aclose()
    assert [list(vector) for vector in ours.vectors] == verdict["answer"]["vectors"] == [[0.25, -0.5, 1.0]] * 2


# ---- whether a difference would be seen ----------------------------------------------------------------------


def test_what_differs_is_found_where_it_is() -> None:
    """A comparison that never fails would prove nothing."""
    ours = {"text": "a", "calls": [["1", "f", {"x": 1}]], "usage": {"input_tokens": 3}, "n": 1}
    theirs = {"text": "b", "calls": [["1", "f", {"x": 2}]], "usage": None, "n": 1.0}
    assert list(differences(ours, theirs)) == [
        ("calls[0][2].x", 1, 2),
        ("text", "a", "b"),
        ("usage", {"input_tokens": 3}, None),
    ]


def test_every_field_of_an_answer_is_compared() -> None:
    """An empty answer of ours differs from a full one of theirs in every field."""
    words = dict.fromkeys(("text", "thinking", "refusal", "finish", "id", "model", "service_tier"), "said")
    lists = {name: [["said"]] for name in ("calls", "annotations", "logprobs", "others")}
    theirs = their_facts("responses", {**words, **lists, "usage": {"input_tokens": 1, "output_tokens": 2}})
    empty = Response("", "", "tested")
    assert {path for path, *_ in differences(our_facts("responses", empty, "responses"), theirs)} == theirs.keys()
    assert compared("responses", BadRequestError("no", provider="p", model="m", status=400), {"status": 401}, "")
    assert compared("responses", empty, {"failed": "TypeError"}, "")
