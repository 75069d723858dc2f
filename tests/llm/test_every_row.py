"""What must work with every provider, row by row: through the public face, over a socket, whole and streamed.

    @row("seed", responses="left out", …)     one row of docs/conformance.md: ✓, or the word for what happens instead
    async def test_seed(lab): …               runs once for each API and each way to be answered

The server's words come from tests/support/speakers.py, which knows the APIs and nothing of ours. The last tests hold
the table in the page against the rows here.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import msgspec
import pytest
from msgspec.structs import replace
from tests.conftest import ROOT
from tests.support.speakers import SIGNATURE, SPEAKERS, Answer, Asked, Call, Failed, Media, Speaker, Spent

from agentflow import errors
from agentflow.core.robustness.retry import RetryPolicy
from agentflow.errors import (
    BadRequestError,
    ContentFilterError,
    DocumentError,
    LimitExceededError,
    ModelConnectionError,
    ModelError,
    ModelTimeoutError,
    OutputError,
    ProtocolError,
    StreamInterruptedError,
    UnsupportedError,
)
from agentflow.llm.agentflow import AgentFlow
from agentflow.llm.builder import LLMClientBuilder
from agentflow.llm.config.registry import ModelRegistry
from agentflow.llm.content import Audio, Document, Image
from agentflow.llm.conversation import Conversation
from agentflow.llm.media import LARGEST
from agentflow.llm.messages import Message, Response, StreamChunk, Tool, Usage
from agentflow.llm.providers.base import ModelLister
from agentflow.llm.streaming.stream import StreamingResponse

# ---- rows ----------------------------------------------------------------------------------------------------

TITLES = {
    "chat": "OpenAI Chat",
    "responses": "OpenAI Responses",
    "azure": "Azure",
    "deepseek": "DeepSeek (compatible)",
    "moonshot": "Moonshot",
    "anthropic": "Anthropic",
    "google": "Gemini",
    "vertex": "Vertex",
}
BOTH, WHOLE, STREAMED = ("whole", "streamed"), ("whole",), ("streamed",)
WORKS = "✓"


@dataclass(frozen=True)
class Row:
    """What must work, in which ways to be answered, and where another word stands instead of ✓."""

    name: str
    ways: tuple[str, ...]
    instead: Mapping[str, str]


@dataclass(frozen=True)
class Case:
    """One cell of the table, in one of the ways."""

    row: str
    kind: str
    way: str
    word: str


ROWS: list[Row] = []


def rows(table: Mapping[str, Mapping[str, str]], ways: tuple[str, ...] = BOTH) -> pytest.MarkDecorator:
    """Rows that one test proves."""
    found = [Row(name, ways, instead) for name, instead in table.items()]
    ROWS.extend(found)
    cases = [
        pytest.param(Case(each.name, kind, way, each.instead.get(kind, WORKS)), id=_id(each.name, kind, way, ways))
        for each in found
        for kind in TITLES
        for way in ways
    ]
    return pytest.mark.parametrize("lab", cases, indirect=True)


def row(name: str, ways: tuple[str, ...] = BOTH, **instead: str) -> pytest.MarkDecorator:
    return rows({name: instead}, ways)


def _id(name: str, kind: str, way: str, ways: tuple[str, ...]) -> str:
    return "-".join([name.replace(" ", "_"), kind, *([way] if len(ways) > 1 else [])])


# ---- the laboratory ------------------------------------------------------------------------------------------

Reply = Answer | Failed | dict[str, Any] | Callable[[Any], Awaitable[None]]

PIECE = 61  # bytes of a stream that travel together


@dataclass
class Lab:
    """One API on loopback, which says what it is told to, one reply for each request; the last one again and again."""

    case: Case
    speaker: Speaker
    server: Any
    registry: ModelRegistry
    folder: Path
    replies: list[Reply] = field(default_factory=list)
    tokens: int = 0

    @property
    def kind(self) -> str:
        return self.case.kind

    @property
    def row(self) -> str:
        return self.case.row

    @property
    def word(self) -> str:
        return self.case.word

    @property
    def works(self) -> bool:
        return self.case.word == WORKS

    @property
    def streamed(self) -> bool:
        return self.case.way == "streamed"

    def says(self, *replies: Reply) -> LLMClientBuilder:
        """The model, after its replies were laid down."""
        self.replies = list(replies)
        return self.model()

    def model(self, name: str = "usual") -> LLMClientBuilder:
        return AgentFlow.model(name, registry=self.registry)

    @property
    def requests(self) -> list[Any]:
        return list(self.server.requests)

    @property
    def asked(self) -> list[Asked]:
        return [self.speaker.asked(request.path, json.loads(request.body)) for request in self.requests]

    async def full(self, model: LLMClientBuilder[Any]) -> Response:
        """The whole answer, in this case's way."""
        if not self.streamed:
            return await model.execute_full()
        async with model.execute_streaming() as stream:
            return await stream.collect()

    async def value(self, model: LLMClientBuilder[Any]) -> Any:
        if not self.streamed:
            return await model.execute()
        async with model.execute_streaming() as stream:
            return await stream.value()

    async def refuses(self, model: LLMClientBuilder[Any], kind: type[Exception] = BadRequestError) -> None:
        """The question is an error before a byte is sent."""
        with pytest.raises(kind):
            await self.full(model)
        assert self.requests == []

    async def serve(self, exchange: Any) -> None:
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        named = dict([self.speaker.request_id]) if self.speaker.request_id else {}
        headers = {name.replace("-", "_"): value for name, value in named.items()}
        if isinstance(reply, Failed):
            told = {name.replace("-", "_"): value for name, value in reply.headers.items()}
            body = self.speaker.wrapped(reply, streamed=self.streamed)
            await exchange.respond(body, reply.status, **headers, **told)
        elif isinstance(reply, dict):
            await exchange.respond(reply, **headers)
        elif not isinstance(reply, Answer):
            await reply(exchange)
        else:
            await self.answer(exchange, reply, headers)

    async def answer(self, exchange: Any, reply: Answer, headers: Mapping[str, str]) -> None:
        body = json.loads(exchange.body)
        if problem := self.speaker.objects(body):
            await exchange.respond({"error": {"message": problem}}, 400, **headers)
        elif self.speaker.asked(exchange.path, body).streamed:
            await self.stream(exchange, self.speaker.events(reply, body), headers)
        else:
            await exchange.respond(self.speaker.whole(reply), **headers)

    async def stream(self, exchange: Any, events: Sequence[bytes], headers: Mapping[str, str] | None = None) -> None:
        await exchange.begin_stream(**headers or {})
        raw = b"".join(events)
        for start in range(0, len(raw), PIECE):
            await exchange.piece(raw[start : start + PIECE])
        await exchange.end_stream()


@pytest.fixture
async def lab(request: pytest.FixtureRequest, serve: Any, tmp_path: Path) -> AsyncIterator[Lab]:
    """The API of a case, known to a registry by its models.yml: `usual`, `tooled` (no schemas), `vectors`."""
    case: Case = request.param
    speaker = SPEAKERS[case.kind]
    places: list[Lab] = []
    server = await serve(lambda exchange: places[0].serve(exchange))
    place = f"http://127.0.0.1:{server.port}{speaker.folder}"
    free = "null" if case.kind == "vertex" else "LAB_KEY"
    (tmp_path / "models.yml").write_text(
        f"""
providers:
  lab: {{{speaker.provider}, base_url: "{place}", api_key_env: {free}, retry: {{max_attempts: 1}}}}
models:
  usual: {{provider: lab, model_id: {speaker.model}, price: {{input: 2, output: 8, cached: 1, cache_write: 3}}}}
  tooled: {{provider: lab, model_id: {speaker.model}, capabilities: [tools, thinking]}}
  vectors: {{provider: lab, model_id: {speaker.vectors}, price: {{input: 2, output: 0}}}}
"""
    )
    registry = ModelRegistry.load(environ={"LAB_KEY": "key-of-nobody"}, cwd=tmp_path, home=tmp_path)
    made = Lab(case, speaker, server, registry, tmp_path)
    if case.kind == "vertex":

        def token() -> str:
            made.tokens += 1
            return f"token-of-{made.tokens}"

        registry.set_token("lab", token)
    places.append(made)
    yield made
    await registry.aclose()


# ---- words ---------------------------------------------------------------------------------------------------

GREETING = "Hei på deg! ☀️\u2028It is 19 °C."


@row("text")
async def test_a_text_is_answered_by_a_text(lab: Lab) -> None:
    """What was said arrives as it was said, and so does the answer."""
    reply = await lab.full(lab.says(Answer(GREETING)).prompt("How warm\u2028is it?"))
    assert (reply.text, reply.provider, reply.model) == (GREETING, "lab", lab.speaker.model)
    assert reply.id
    (asked,) = lab.asked
    assert (asked.model, asked.streamed) == (lab.speaker.model, lab.streamed)
    assert asked.turns == (("user", "How warm\u2028is it?"),)


@row("address, key, fixed headers")
async def test_a_call_goes_where_the_api_wants_it_with_its_key(lab: Lab) -> None:
    """Path, query, key or a fresh token for each call, and what the API insists on."""
    model = lab.says(Answer("Hei")).prompt("Hi")
    await lab.full(model)
    await lab.full(model)
    first, second = lab.requests
    assert first.path == lab.speaker.path(streamed=lab.streamed)
    header, value = lab.speaker.key
    assert first.headers[header] == value
    if lab.kind == "vertex":
        assert second.headers[header] == "Bearer token-of-2"
    if lab.kind == "anthropic":
        assert first.headers["anthropic-version"] == "2023-06-01"
    others = {"authorization", "x-api-key", "x-goog-api-key", "api-key"} - {header}
    assert not others & first.headers.keys()


@row("system text")
async def test_the_system_text_stands_where_the_api_has_it(lab: Lab) -> None:
    """It is no turn of the user's, whatever the API calls it."""
    await lab.full(lab.says(Answer("Hei")).system("Be brief.").prompt("Hi"))
    assert (lab.asked[0].system, lab.asked[0].turns) == ("Be brief.", (("user", "Hi"),))


@row("several turns")
async def test_earlier_turns_come_first(lab: Lab) -> None:
    """History keeps its order and its roles."""
    history = [{"role": "user", "content": "One?"}, {"role": "assistant", "content": "One."}]
    await lab.full(lab.says(Answer("Two.")).messages(history).prompt("Two?"))
    assert lab.asked[0].turns == (("user", "One?"), ("assistant", "One."), ("user", "Two?"))


@row("Conversation")
async def test_a_conversation_remembers(lab: Lab) -> None:
    """Each question is asked after all that was said before."""
    chat = Conversation(system="Be brief.")
    model = lab.says(Answer("Hei, Ada."), Answer("Ada.")).streaming(lab.streamed)
    await chat.ask(model, "I am Ada.")
    assert (await chat.ask(model, "Who am I?")).text == "Ada."
    assert lab.asked[1].system == "Be brief."
    assert lab.asked[1].turns == (("user", "I am Ada."), ("assistant", "Hei, Ada."), ("user", "Who am I?"))


@row("temperature, top_p, max_tokens")
async def test_sampling_is_said_in_the_api_s_words(lab: Lab) -> None:
    """Each under the name that the API has for it."""
    await lab.full(lab.says(Answer("Hei")).prompt("Hi").temperature(0.5).top_p(0.25).max_tokens(300))
    names = {
        "chat": ("temperature", "top_p", "max_completion_tokens"),
        "azure": ("temperature", "top_p", "max_completion_tokens"),
        "moonshot": ("temperature", "top_p", "max_completion_tokens"),
        "responses": ("temperature", "top_p", "max_output_tokens"),
        "google": ("temperature", "topP", "maxOutputTokens"),
        "vertex": ("temperature", "topP", "maxOutputTokens"),
    }.get(lab.kind, ("temperature", "top_p", "max_tokens"))
    assert lab.asked[0].sampling == dict(zip(names, (0.5, 0.25, 300), strict=True))


# ---- media ---------------------------------------------------------------------------------------------------

PNG = b"\x89PNG\r\n\x1a\n" + bytes(16)
PDF = b"%PDF-1.7\n" + bytes(16)
WAV = b"RIFF\x00\x00\x00\x00WAVE" + bytes(16)
FILES: dict[str, tuple[type[Image | Document | Audio], bytes, str, str]] = {
    "image": (Image, PNG, "cat.png", "image/png"),
    "document": (Document, PDF, "paper.pdf", "application/pdf"),
    "audio": (Audio, WAV, "talk.wav", "audio/wav"),
}
NO = "refused"
_NO_FILES = {"deepseek": NO, "moonshot": NO}
_DEAF = {**_NO_FILES, "anthropic": NO}


@rows(
    {
        "image by path": {"deepseek": NO},
        "image by bytes": {"deepseek": NO},
        "image by address": {"deepseek": NO},
        "document by path": _NO_FILES,
        "document by bytes": _NO_FILES,
        "document by address": {**_NO_FILES, "chat": NO, "azure": NO},
        "audio by path": _DEAF,
        "audio by bytes": _DEAF,
        "audio by address": {**_DEAF, "chat": NO, "azure": NO, "responses": NO},
    }
)
async def test_a_file_goes_as_the_api_takes_it(lab: Lab) -> None:
    """Bytes and paths go by value with their type, addresses as they are; what an API cannot take is refused."""
    what, _, source = lab.row.partition(" by ")
    kind, content, name, media_type = FILES[what]
    (lab.folder / name).write_bytes(content)
    address = f"https://example.org/{name}"
    given: Any = {"path": lab.folder / name, "bytes": content, "address": address}[source]
    model = lab.says(Answer("A cat.")).prompt("What is this?", kind(given))
    if not lab.works:
        await lab.refuses(model)
        return
    assert await lab.value(model) == "A cat."
    ((media,), turns) = lab.asked[0].media, lab.asked[0].turns
    assert turns == (("user", "What is this?"),)
    if source == "address":
        assert (media.url, media.data) == (address, None)
        assert media.kind in (what, "unnamed")  # Gemini is told a type only where one is known
    else:
        found = {"audio/wav": "audio/wav", "audio/mp3": "audio/mpeg"}.get(media.media_type or "", media.media_type)
        assert media == Media(what, found, base64.b64encode(content).decode())
        assert found == media_type


@row("file too large, empty, or of another kind")
async def test_a_file_that_cannot_be_sent_is_an_error_first(lab: Lab) -> None:
    """Size and type are looked at before a byte is sent."""
    large = lab.folder / "large.png"
    with large.open("wb") as file:
        file.write(PNG)
        file.truncate(LARGEST + 1)
    (lab.folder / "empty.png").write_bytes(b"")
    (lab.folder / "paper.png").write_bytes(PDF)
    model = lab.says(Answer("Hei"))
    for name in ("large.png", "empty.png", "paper.png", "lost.png"):
        await lab.refuses(model.prompt("?", Image(lab.folder / name)), DocumentError)


# ---- tools ---------------------------------------------------------------------------------------------------


def weather(city: str) -> str:
    """How the weather is.

    Args:
        city: where
    """
    return f"sunny in {city}"


OSLO, BERGEN = Call("weather", {"city": "Oslo"}, "call_a"), Call("weather", {"city": "Bergen"}, "call_b")
NAMED = [Tool(name, f"The {name}.", {"type": "object", "properties": {}}) for name in ("hour", "day", "year")]
ELSEWHERE = Tool("weather", "How the weather is.", {"type": "object", "properties": {"city": {"type": "string"}}})


@row("tools")
async def test_a_tool_is_described_called_and_its_result_sent_back(lab: Lab) -> None:
    """The model's call goes back as it came, with the result beside it, and the answer follows."""
    called = Answer("Let me look.", calls=(OSLO,))
    reply = await lab.full(lab.says(called, Answer("It is sunny.")).prompt("Weather?").tools(weather))
    first, second = lab.asked
    assert first.tools["weather"]["properties"]["city"]["type"] == "string"
    assert second.results == (("weather", "sunny in Oslo"),)
    assert second.replies == (lab.speaker.reply(called),)
    assert (reply.text, reply.finish_reason) == ("It is sunny.", "stop")
    assert [turn.role for turn in reply.turns] == ["assistant", "tool"]


@row("parallel calls")
async def test_calls_of_one_answer_all_come_back(lab: Lab) -> None:
    """Two calls of one function, two results in their order."""
    called = Answer(calls=(OSLO, BERGEN))
    reply = await lab.full(lab.says(called, Answer("Sun.")).prompt("Weather?").tools(weather))
    assert reply.text == "Sun."
    assert lab.asked[1].results == (("weather", "sunny in Oslo"), ("weather", "sunny in Bergen"))
    assert lab.asked[1].replies == (lab.speaker.reply(called),)
    calls = [call for turn in reply.turns[:1] for call in turn.parts]
    assert len({call.id for call in calls}) == 2  # type: ignore[union-attr]


@row("one call at a time", google=NO, vertex=NO)
async def test_parallel_calls_can_be_forbidden(lab: Lab) -> None:
    """Said in the API's words; an API without a word for it does not promise what it cannot keep."""
    model = lab.says(Answer("Hei")).prompt("Hi").tools(weather).parallel_tool_calls(False)
    if not lab.works:
        await lab.refuses(model)
        return
    await lab.full(model)
    assert lab.asked[0].parallel is False


_ONLY = {"deepseek": "it sees only those", "moonshot": "it sees only those"}


@rows(
    {
        "forced call of any tool": {},
        "forced call of one tool": {},
        "forced call of one of several": {**_ONLY, "anthropic": NO},
        "no call": {},
    }
)
async def test_a_call_is_forced_or_forbidden(lab: Lab) -> None:
    """`tool_choice` in the API's words."""
    choices = {
        "forced call of any tool": ("required", "required"),
        "forced call of one tool": ("day", ("day",)),
        "forced call of one of several": (["hour", "day"], ("hour", "day")),
        "no call": ("none", "none"),
    }
    said, expected = choices[lab.row]
    model = lab.says(Answer("Hei")).prompt("Hi").tools(*NAMED).tool_choice(said)
    if lab.word == NO:
        await lab.refuses(model)
        return
    await lab.full(model)
    (asked,) = lab.asked
    assert asked.choice == (expected if lab.works else "required")
    assert set(asked.tools) == ({"hour", "day", "year"} if lab.works else {"hour", "day"})


@row("after a forced call, an answer")
async def test_a_forced_call_is_forced_once(lab: Lab) -> None:
    """A model that must call a tool again and again would never answer."""
    model = lab.says(Answer(calls=(OSLO,)), Answer("Sun.")).prompt("Weather?").tools(weather)
    assert await lab.value(model.tool_choice("required")) == "Sun."
    assert [asked.choice for asked in lab.asked] == ["required", "auto"]


# ---- typed answers -------------------------------------------------------------------------------------------


@dataclass
class Person:
    """Somebody."""

    name: str
    age: int | None = None


class Human(TypedDict):
    """Somebody."""

    name: str
    age: int | None


class Being(msgspec.Struct):
    """Somebody."""

    name: str
    age: int | None = None


ADA = {"name": "Ada Lovelace", "age": 36}
_TYPES = ("dataclass", "TypedDict", "msgspec.Struct", "pydantic model")
_BY_TOOL = {"deepseek": "through a tool"}


def typed(name: str) -> tuple[Any, Any]:
    """The type of that name, and Ada as one."""
    if name == "dataclass":
        return Person, Person(**ADA)  # type: ignore[arg-type]
    if name == "TypedDict":
        return Human, ADA
    if name == "msgspec.Struct":
        return Being, Being(**ADA)  # type: ignore[arg-type]
    pydantic = pytest.importorskip("pydantic")
    model = pydantic.create_model("Somebody", name=(str, ...), age=(int | None, None))
    return model, model(**ADA)


def typed_answer(kind: Any, *, by_tool: bool) -> Answer:
    if not by_tool:
        return Answer(json.dumps(ADA))
    return Answer(calls=(Call(kind.__name__, ADA),))


@rows({f"{name}, by a schema": _BY_TOOL for name in _TYPES})
async def test_a_type_is_asked_for_by_its_schema(lab: Lab) -> None:
    """In the API's own words where it has some, else through a tool; the value has the type."""
    kind, ada = typed(lab.row.removesuffix(", by a schema"))
    found = await lab.value(lab.says(typed_answer(kind, by_tool=not lab.works)).prompt("Who?").output(kind))
    assert found == ada
    (asked,) = lab.asked
    schema = asked.schema if lab.works else asked.tools[kind.__name__]
    assert schema is not None
    assert set(schema["properties"]) == {"name", "age"}
    assert (asked.schema is None) is not lab.works


@rows({f"{name}, through a tool": {} for name in _TYPES})
async def test_a_type_is_asked_for_through_a_tool(lab: Lab) -> None:
    """A model that is known to have no schemas answers by calling a tool, which it must."""
    kind, ada = typed(lab.row.removesuffix(", through a tool"))
    lab.says(typed_answer(kind, by_tool=True))
    assert await lab.value(lab.model("tooled").prompt("Who?").output(kind)) == ada
    (asked,) = lab.asked
    assert set(asked.tools[kind.__name__]["properties"]) == {"name", "age"}
    assert (asked.schema, asked.choice) == (None, (kind.__name__,))


def misfit(kind: str) -> Answer:
    wrong = {"name": "Ada", "age": "old"}
    return Answer(calls=(Call("Person", wrong),)) if kind == "deepseek" else Answer(json.dumps(wrong))


@row("a misfit is asked again")
async def test_an_answer_that_does_not_fit_is_asked_for_again(lab: Lab) -> None:
    """With the reason, and with what the model had said; the usage is that of both."""
    good = typed_answer(Person, by_tool=lab.kind == "deepseek")
    model = lab.says(misfit(lab.kind), good).prompt("Who?").output(Person)
    reply = await lab.full(model)
    assert len(lab.requests) == 2
    asked = lab.asked[1]
    assert asked.replies == (lab.speaker.reply(misfit(lab.kind)),)
    told = asked.results[0][1] if lab.kind == "deepseek" else asked.turns[-1][1]
    assert "does not fit" in told
    assert "age" in told
    assert reply.usage == Usage(200, 100)


@row("a bounded number of times, then OutputError")
async def test_an_answer_that_never_fits_is_an_error(lab: Lab) -> None:
    """Asked once more, as was said, and no further; the error holds the text."""
    with pytest.raises(OutputError) as failure:
        await lab.value(lab.says(misfit(lab.kind)).prompt("Who?").output(Person, retries=1))
    assert json.loads(failure.value.raw) == {"name": "Ada", "age": "old"}
    assert (failure.value.provider, failure.value.model) == ("lab", lab.speaker.model)
    assert len(lab.requests) == 2


@row("a cut answer is not asked again")
async def test_an_answer_that_was_cut_off_is_not_asked_again(lab: Lab) -> None:
    """It would be cut off again."""
    with pytest.raises(OutputError, match="max_tokens"):
        await lab.value(lab.says(Answer('{"name": "Ada', finish="length")).prompt("Who?").output(Person))
    assert len(lab.requests) == 1


@rows(
    {
        "partial objects": {**_BY_TOOL},
        "partial objects, through a tool": {"google": "in one piece", "vertex": "in one piece"},
    },
    STREAMED,
)
async def test_an_object_can_be_watched_as_it_grows(lab: Lab) -> None:
    """The JSON so far, more each time, and the value at the end."""
    by_tool = lab.row != "partial objects" or lab.kind == "deepseek"
    model = lab.says(typed_answer(Person, by_tool=by_tool))
    model = lab.model("tooled") if lab.row != "partial objects" else model
    async with model.prompt("Who?").output(Person).execute_streaming() as stream:
        seen = [part async for part in stream.partials()]
        assert await stream.value() == Person("Ada Lovelace", 36)
    assert seen[-1] == ADA
    assert len(seen) == 1 if lab.word == "in one piece" else len(seen) > 1
    assert all(part["name"] in "Ada Lovelace" for part in seen if "name" in part)  # type: ignore[operator]


# ---- thinking ------------------------------------------------------------------------------------------------

NEAREST = "nearest effort"
EFFORT: dict[str, Any] = {
    "chat": {"reasoning_effort": "low"},
    "azure": {"reasoning_effort": "low"},
    "responses": {"reasoning": {"effort": "low"}},
    "deepseek": {"thinking": {"type": "enabled"}, "reasoning_effort": "low"},
    "moonshot": {"reasoning_effort": "low"},
    "anthropic": {"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}},
    "google": {"thinkingLevel": "LOW"},
    "vertex": {"thinkingLevel": "LOW"},
}
BUDGET: dict[str, Any] = {
    "chat": {"reasoning_effort": "medium"},
    "azure": {"reasoning_effort": "medium"},
    "responses": {"reasoning": {"effort": "medium"}},
    "deepseek": {"thinking": {"type": "enabled"}, "reasoning_effort": "high"},
    "moonshot": {"reasoning_effort": "high"},
    "anthropic": {"thinking": {"type": "enabled", "budget_tokens": 2048}},
    "google": {"thinkingBudget": 2048},
    "vertex": {"thinkingBudget": 2048},
}
WITH_BUDGETS = {"anthropic": "claude-sonnet-4-5", "google": "gemini-2.5-flash", "vertex": "gemini-2.5-flash"}


@row("thinking by effort")
async def test_thinking_is_asked_for_by_an_effort(lab: Lab) -> None:
    """In the words of the API, and of the model's generation."""
    await lab.full(lab.says(Answer("42")).prompt("?").thinking("low"))
    assert lab.asked[0].thinking == EFFORT[lab.kind]


@row("thinking by budget", **dict.fromkeys(("chat", "responses", "azure", "deepseek", "moonshot"), NEAREST))
async def test_thinking_is_asked_for_by_a_budget(lab: Lab) -> None:
    """An API that knows only efforts gets the one nearest above."""
    lab.says(Answer("42"))
    model = lab.model(f"lab/{WITH_BUDGETS[lab.kind]}" if lab.works else "usual")
    await lab.full(model.prompt("?").thinking(budget=2048))
    assert lab.asked[0].thinking == BUDGET[lab.kind]


HIDDEN = "the API shows none"
THOUGHT = Answer("42", thinking="Six times nine? No: seven.", spent=Spent(100, output=50, thought=20))


@row("thoughts, as `reasoning`", chat=HIDDEN, azure=HIDDEN)
async def test_thoughts_are_told_from_words(lab: Lab) -> None:
    """They come as `reasoning`, piece by piece in a stream, and are no part of the text."""
    model = lab.says(THOUGHT).prompt("?").thinking("low", show=True)
    if lab.streamed:
        async with model.execute_streaming() as stream:
            chunks = [chunk async for chunk in stream]
            reply = await stream.collect()
        pieces = [chunk.reasoning for chunk in chunks if chunk.reasoning]
        assert len(pieces) == (2 if lab.works else 0)
        assert "".join(chunk.content for chunk in chunks) == "42"
    else:
        reply = await lab.full(model)
    assert (reply.text, reply.reasoning) == ("42", THOUGHT.thinking if lab.works else "")
    assert reply.usage is not None
    assert reply.usage.reasoning_tokens == 20


@row("thoughts go back through tools, unchanged", chat=HIDDEN, azure=HIDDEN)
async def test_thoughts_go_back_to_the_letter(lab: Lab) -> None:
    """Signatures, reasoning_content and encrypted reasoning stand in the next request as they came."""
    thoughtful = Answer("Let me look.", thinking=THOUGHT.thinking, calls=(OSLO, BERGEN))
    model = lab.says(thoughtful, Answer("Sun.")).prompt("Weather?").tools(weather).thinking("low")
    if lab.kind == "responses":
        model = model.param("store", False)
    assert await lab.value(model) == "Sun."
    assert lab.asked[1].replies == (lab.speaker.reply(thoughtful),)
    body = lab.requests[1].body.decode()
    if lab.works:
        assert (SIGNATURE if lab.kind not in ("deepseek", "moonshot") else THOUGHT.thinking) in body
    if lab.kind == "responses":
        assert lab.asked[0].more["include"] == ["reasoning.encrypted_content"]


# ---- parameters ----------------------------------------------------------------------------------------------

OUT = "left out"
_CACHES = {
    "chat": ("prompt_cache_key=house", "prompt_cache_retention=24h"),
    "azure": ("prompt_cache_key=house", "prompt_cache_retention=24h"),
    "responses": ("prompt_cache_key=house", "prompt_cache_retention=24h"),
    "moonshot": ("prompt_cache_key=house",),
    "anthropic": ("request=1h",),
}


@row("prompt cache, of a request", deepseek=OUT, google=OUT, vertex=OUT)
async def test_a_prompt_is_asked_to_be_kept(lab: Lab) -> None:
    """By key and lifetime as far as the API has words; it is a hint, so nothing is refused."""
    await lab.full(lab.says(Answer("Hei")).prompt("Hi").prompt_cache("24h", key="house"))
    assert lab.asked[0].cached == _CACHES.get(lab.kind, ())


_NOT_MARKED = dict.fromkeys(("chat", "responses", "azure", "deepseek", "moonshot", "google", "vertex"), OUT)


@row("prompt cache, by a mark", **_NOT_MARKED)
async def test_the_end_of_what_is_kept_can_be_marked(lab: Lab) -> None:
    """Only where the API has such marks; the words arrive everywhere."""
    await lab.full(lab.says(Answer("Hei")).system("Be brief.", cache="1h").prompt("Hi"))
    (asked,) = lab.asked
    assert asked.system == "Be brief."
    assert asked.cached == (("system=1h",) if lab.works else ())


@row("stop", responses=NO)
async def test_words_end_the_answer(lab: Lab) -> None:
    """`stop` in the API's words."""
    model = lab.says(Answer("1, 2")).prompt("Count.").stop("3", "\n")
    if not lab.works:
        await lab.refuses(model)
        return
    await lab.full(model)
    assert lab.asked[0].stop == ("3", "\n")


@row("seed", responses=OUT, deepseek=OUT, moonshot=OUT, anthropic=OUT)
async def test_the_same_answer_is_asked_for(lab: Lab) -> None:
    """A seed is a wish, so an API without one is asked without it."""
    await lab.full(lab.says(Answer("Hei")).prompt("Hi").seed(7))
    assert lab.asked[0].seed == (7 if lab.works else None)
    if not lab.works:
        assert "seed" not in lab.asked[0].more


@row("logprobs", moonshot=NO, anthropic=NO)
async def test_the_probability_of_each_token_is_told(lab: Lab) -> None:
    """The chosen tokens and the likeliest others, in the same shape everywhere."""
    told = (("Hei", -0.5, (("Hei", -0.5), ("Hallo", -1.5))), ("!", -0.25, (("!", -0.25), (".", -2.0))))
    model = lab.says(Answer("Hei!", tokens=told)).prompt("Hi").logprobs(2)
    if not lab.works:
        await lab.refuses(model)
        return
    reply = await lab.full(model)
    assert lab.asked[0].logprobs == 2
    assert [(each.token, each.logprob, each.alternatives) for each in reply.logprobs] == list(told)


ONE = {"responses": NO, "anthropic": NO, "deepseek": NO}


@row("n, and alternatives", **ONE)
async def test_several_answers_come_at_once(lab: Lab) -> None:
    """The first is the response, the others are its alternatives, each with its own end."""
    model = lab.says(Answer("Hei på deg", others=("Hallo du", "God dag"))).prompt("Hi").n(3)
    if not lab.works:
        await lab.refuses(model)
        return
    reply = await lab.full(model)
    assert lab.asked[0].n == 3
    assert [reply.text, *(each.text for each in reply.alternatives)] == ["Hei på deg", "Hallo du", "God dag"]
    assert [each.finish_reason for each in reply.alternatives] == ["stop", "stop"]


@row("interleaved choices in a stream", STREAMED, **ONE)
async def test_answers_that_come_mixed_are_told_apart(lab: Lab) -> None:
    """Every chunk says which answer it belongs to."""
    model = lab.says(Answer("Hei på deg", others=("Hallo du",))).prompt("Hi").n(2)
    if not lab.works:
        await lab.refuses(model)
        return
    async with model.execute_streaming() as stream:
        chunks = [chunk async for chunk in stream]
    assert [chunk.index for chunk in chunks if chunk.content] == [0, 1, 0, 1]
    texts = ["".join(chunk.content for chunk in chunks if chunk.index == at) for at in (0, 1)]
    assert texts == ["Hei på deg", "Hallo du"]


@row("metadata", deepseek=NO, moonshot=NO, anthropic="user_id alone", chat="with store")
async def test_a_request_is_labelled(lab: Lab) -> None:
    """Under the API's name for it; labels that it would not keep are refused."""
    model = lab.says(Answer("Hei")).prompt("Hi")
    if lab.word != WORKS:
        await lab.refuses(model.metadata(team="search"))
    if lab.word == NO:
        return
    await lab.full((model.param("store", True) if lab.word == "with store" else model).metadata(user_id="u1"))
    assert lab.asked[0].metadata == {"user_id": "u1"}


@row("param, for everything else")
async def test_anything_else_goes_through_as_it_stands(lab: Lab) -> None:
    """Also over what was said by name, and inside what the API nests."""
    name = "generationConfig" if lab.kind in ("google", "vertex") else "new_setting"
    value: Any = {"newSetting": [1, {"deep": None}]}
    await lab.full(lab.says(Answer("Hei")).prompt("Hi").temperature(0.5).param(name, value))
    more = lab.asked[0].more
    assert {**more[name], **value} == more[name]
    assert lab.asked[0].sampling["temperature"] == 0.5


# ---- limits --------------------------------------------------------------------------------------------------


@rows({f"limit of {name}": {} for name in ("requests", "tokens", "tool_rounds", "dollars")})
async def test_a_limit_stops_the_next_request(lab: Lab) -> None:
    """What reaches the limit is finished, and what would come after it is an error."""
    name = lab.row.removeprefix("limit of ")
    limit: Any = {name: {"requests": 1, "tokens": 10, "tool_rounds": 1, "dollars": 0.0001}[name]}
    model = lab.says(Answer(calls=(OSLO,))).prompt("Weather?").tools(weather).limits(**limit)
    with pytest.raises(LimitExceededError) as failure:
        await lab.full(model)
    assert failure.value.limit == name
    assert len(lab.requests) == (2 if name == "tool_rounds" else 1)


# ---- what is said of an answer -------------------------------------------------------------------------------

FULL = Spent(input=100, cached=30, written=20, output=50, thought=20)
_NO_WRITES = dict.fromkeys(("deepseek", "moonshot", "google", "vertex"), "✓, no cache writes")


@row("usage, normalised", **_NO_WRITES)
async def test_tokens_are_counted_the_same_way(lab: Lab) -> None:
    """Input with what was cached and written, output with thoughts, however the API counts."""
    reply = await lab.full(lab.says(Answer("Hei", spent=FULL)).prompt("Hi"))
    assert reply.usage is not None
    hour = 10 if lab.kind == "anthropic" else 0
    assert reply.usage == Usage(100, 50, 30, 20, 20 if lab.works else 0, hour)
    assert reply.usage.total_tokens == 150


@row("cost")
async def test_an_answer_knows_what_it_cost(lab: Lab) -> None:
    """By the price in models.yml: plain, cached, written and output tokens each have theirs."""
    reply = await lab.full(lab.says(Answer("Hei", spent=FULL)).prompt("Hi"))
    written = 0 if lab.kind in _NO_WRITES else 20
    plain = 100 - 30 - written
    assert reply.cost == pytest.approx((plain * 2 + 30 * 1 + written * 3 + 50 * 8) / 1e6)


_LATER = "new_reason"


@rows({f"finish reason: {name}": {} for name in ("stop", "length", "tool_calls", "content_filter", "one yet unknown")})
async def test_why_an_answer_ended_is_told_in_our_word_and_in_theirs(lab: Lab) -> None:
    """A word that nobody knows yet stays what it is."""
    wanted = lab.row.removeprefix("finish reason: ")
    calls = (Call("hour", {}),) if wanted == "tool_calls" else ()
    wanted = _LATER if wanted == "one yet unknown" else wanted
    reply = await lab.full(lab.says(Answer("Hei", calls=calls, finish=wanted)).prompt("Hi").tools(*NAMED))
    assert reply.finish_reason == wanted
    assert reply.raw_finish_reason == lab.speaker.ends.get(wanted, wanted)


@row("blocked answer in a 200")
async def test_an_answer_that_was_blocked_is_told(lab: Lab) -> None:
    """The whole response says so; whoever wants the text, or a value, gets an error."""
    model = lab.says(Answer(finish="content_filter")).prompt("?")
    reply = await lab.full(model)
    assert (reply.text, reply.finish_reason) == ("", "content_filter")
    for wanted in (model, model.output(Person)):
        with pytest.raises(ContentFilterError) as failure:
            await lab.value(wanted)
        assert (failure.value.provider, failure.value.model) == ("lab", lab.speaker.model)


_STATUS = dict.fromkeys(("chat", "responses", "azure", "moonshot"), "status 400")


@row("blocked prompt in a 200", **_STATUS, deepseek="BadRequestError", anthropic="as a blocked answer")
async def test_a_prompt_that_was_blocked_is_told(lab: Lab) -> None:
    """Gemini answers with 200 and no candidates; the others have other ways."""
    if lab.works:
        reply = await lab.full(lab.says(Answer(finish="blocked prompt")).prompt("?"))
        assert (reply.text, reply.finish_reason) == ("", "content_filter")
        assert reply.raw_finish_reason == "PROHIBITED_CONTENT"
        assert reply.usage == Usage(100)
    said = {"anthropic": Answer(finish="content_filter"), "google": Answer(finish="blocked prompt")}
    replied = said.get("google" if lab.works else lab.kind, lab.speaker.failed("ContentFilterError"))
    expected = BadRequestError if lab.word == "BadRequestError" else ContentFilterError
    with pytest.raises(ModelError) as failure:
        await lab.value(lab.says(replied).prompt("?"))
    assert type(failure.value) is expected


@row("refusal in words")
async def test_the_words_of_a_refusal_are_kept(lab: Lab) -> None:
    """They are the text, and the end says what they are."""
    refused = Answer(refusal="I cannot help with that.", finish="content_filter")
    if lab.kind in ("chat", "azure", "responses"):
        refused = Answer(refusal=refused.refusal)  # a field or entry of its own, and the end is a plain stop
    if lab.kind in ("deepseek", "moonshot"):
        refused = Answer(refused.refusal, finish="content_filter")
    reply = await lab.full(lab.says(refused).prompt("?"))
    assert (reply.text, reply.finish_reason) == ("I cannot help with that.", "content_filter")


@row("opaque data through to_json")
async def test_history_survives_a_trip_to_json(lab: Lab) -> None:
    """A response and its turns are written, read, and sent again: the API sees its own words to the letter."""
    thoughtful = Answer("Let me look.", thinking=THOUGHT.thinking, calls=(OSLO,))
    model = lab.says(thoughtful, Answer("Sun.")).prompt("Weather?").tools(weather).thinking("low")
    reply = await lab.full(model)
    assert Response.from_json(json.loads(json.dumps(reply.to_json()))) == reply
    turns = [Message.from_json(json.loads(json.dumps(turn.to_json()))) for turn in reply.messages]
    assert tuple(turns) == reply.messages
    again = lab.says(Answer("Yes.")).messages([Message("user", "Weather?"), *turns]).prompt("Sure?").tools(weather)
    await lab.full(again.thinking("low"))
    first, last = lab.asked[1].replies, lab.asked[2].replies
    if lab.kind == "responses":
        assert last[0][: len(first[0])] == first[0] == lab.speaker.reply(thoughtful)  # type: ignore[index]
    else:
        assert last[:1] == first == (lab.speaker.reply(thoughtful),)


# ---- errors --------------------------------------------------------------------------------------------------

_PLAIN = "BadRequestError"  # the API tells it by its words alone
_FAILURES: dict[str, dict[str, str]] = {
    "AuthenticationError": {},
    "PermissionDeniedError": {},
    "NotFoundError": {},
    "BadRequestError": {},
    "ContextLengthError": dict.fromkeys(("deepseek", "moonshot", "anthropic", "google", "vertex"), _PLAIN),
    "ContentFilterError": {"deepseek": _PLAIN, "anthropic": _PLAIN, "google": "in a 200", "vertex": "in a 200"},
    "RateLimitError": {},
    "QuotaExceededError": {},
    "OverloadedError": {},
    "ServerError": {},
}
_AGAIN = {"RateLimitError", "OverloadedError", "ServerError"}


@rows(_FAILURES)
async def test_an_error_is_known_by_its_code_and_status(lab: Lab) -> None:
    """Its class, and provider, model, status, code, when to try again, and whether that helps."""
    if lab.word == "in a 200":
        with pytest.raises(ContentFilterError):
            await lab.value(lab.says(Answer(finish="blocked prompt")).prompt("Hi"))
        return
    failed = lab.speaker.failed(lab.row)
    wanted = lab.row if lab.works else lab.word
    with pytest.raises(ModelError) as failure:
        await lab.full(lab.says(failed).prompt("Hi"))
    error = failure.value
    assert type(error) is getattr(errors, wanted)
    assert (error.provider, error.model, error.status) == ("lab", lab.speaker.model, failed.status)
    assert error.code == failed.code
    assert error.retryable is (wanted in _AGAIN)
    if lab.row == "RateLimitError":
        assert error.retry_after == failed.retry_after is not None
    assert "key-of-nobody" not in str(error)
    assert len(lab.requests) == 1


_NAMELESS = dict.fromkeys(("deepseek", "moonshot", "google", "vertex"), "none documented")


@row("request id, of an answer and of an error", **_NAMELESS)
async def test_the_provider_s_name_for_the_request_is_told(lab: Lab) -> None:
    """What support asks for first."""
    reply = await lab.full(lab.says(Answer("Hei")).prompt("Hi"))
    with pytest.raises(ModelError) as failure:
        await lab.full(lab.says(lab.speaker.failed("ServerError")).prompt("Hi"))
    wanted = "req_1" if lab.works else None
    assert (reply.request_id, failure.value.request_id) == (wanted, wanted)


@row("a retryable error is repeated")
async def test_what_may_help_is_tried_again(lab: Lab) -> None:
    """An overloaded server is asked again, one that refuses the key is not."""
    patient = RetryPolicy(3, base_delay=0)
    model = lab.says(lab.speaker.failed("OverloadedError"), Answer("Hei")).prompt("Hi").retry(patient)
    assert await lab.value(model) == "Hei"
    assert len(lab.requests) == 2
    with pytest.raises(errors.AuthenticationError):
        await lab.full(lab.says(lab.speaker.failed("AuthenticationError")).prompt("Hi").retry(patient))
    assert len(lab.requests) == 3


@row("error inside a 200 stream", STREAMED)
async def test_an_error_in_a_stream_is_raised(lab: Lab) -> None:
    """As the class that its code stands for, with the words that had come, and after the chunks before it."""

    overloaded = lab.kind in ("moonshot", "anthropic", "google", "vertex")
    for event in lab.speaker.breaks():

        async def break_off(exchange: Any, event: bytes = event) -> None:
            await lab.stream(exchange, [*lab.speaker.begun(Answer("Once upon a time")), event])

        stream = lab.says(break_off).prompt("Hi").execute_streaming()
        seen = ""
        with pytest.raises(ModelError) as failure:
            async for chunk in stream:
                seen += chunk.content
        assert type(failure.value) is (errors.OverloadedError if overloaded else errors.ServerError)
        assert seen == failure.value.partial == "Once upon a time"
        assert (failure.value.provider, failure.value.model) == ("lab", lab.speaker.model)
        with pytest.raises(StreamInterruptedError):
            await stream.collect()


@row("error as the first event of a stream is repeated", STREAMED)
async def test_an_error_before_the_first_word_may_be_repeated(lab: Lab) -> None:
    """Nothing was delivered, so the same request is sent again."""

    async def break_off(exchange: Any) -> None:
        await lab.stream(exchange, lab.speaker.breaks()[:1])

    model = lab.says(break_off, Answer("Hei")).prompt("Hi").retry(RetryPolicy(2, base_delay=0))
    assert await lab.value(model) == "Hei"
    assert len(lab.requests) == 2


@row("stream that ends early", STREAMED)
async def test_a_stream_that_ends_early_is_no_answer(lab: Lab) -> None:
    """What had come is in the error."""

    async def cut(exchange: Any) -> None:
        await lab.stream(exchange, lab.speaker.begun(Answer("Once upon a time")))

    with pytest.raises(StreamInterruptedError) as failure:
        await lab.full(lab.says(cut).prompt("Hi"))
    assert failure.value.partial == "Once upon a time"


@row("body that is no answer")
async def test_a_page_instead_of_an_answer_is_a_protocol_error(lab: Lab) -> None:
    """With status 200, as a proxy sends it."""

    async def page(exchange: Any) -> None:
        await exchange.respond(b"<html>Sign in</html>", content_type="text/html")

    with pytest.raises(ProtocolError, match="Sign in"):
        await lab.full(lab.says(page).prompt("Hi"))


@row("connection that breaks")
async def test_a_connection_that_breaks_is_told(lab: Lab) -> None:
    """Before the answer began: the request may be repeated."""

    async def gone(exchange: Any) -> None:
        exchange.writer.close()

    with pytest.raises(ModelConnectionError) as failure:
        await lab.full(lab.says(gone).prompt("Hi"))
    assert failure.value.retryable


@row("no answer in time")
async def test_a_server_that_says_nothing_is_left(lab: Lab) -> None:
    """After the time limit that the caller set."""

    async def silence(exchange: Any) -> None:
        await asyncio.Event().wait()

    with pytest.raises(ModelTimeoutError):
        await lab.full(lab.says(silence).prompt("Hi").timeout(0.05))


# ---- streams -------------------------------------------------------------------------------------------------


@row("StreamingResponse: iterator, context manager, collect, text", STREAMED)
async def test_a_stream_is_iterated_left_collected(lab: Lab) -> None:
    """Each of the ways to read it gives the same answer."""
    model = lab.says(Answer("Hei på deg")).prompt("Hi")
    stream: StreamingResponse[str] = model.execute_streaming()
    assert lab.requests == []  # nothing is sent before it is read
    assert "".join([chunk.content async for chunk in stream]) == "Hei på deg"
    reply = await stream.collect()
    async with model.execute_streaming() as stream:
        await anext(stream)
        again = await stream.collect()
        assert replace(again, timing=reply.timing) == reply  # but for the time that it took
    assert await model.execute_streaming().text() == "Hei på deg"
    async with model.execute_streaming() as stream:
        assert (await anext(stream)) is not None
    with pytest.raises(StreamInterruptedError):
        await stream.collect()
    whole = await model.execute_full()
    for name in ("content", "usage", "cost", "finish_reason", "raw_finish_reason", "model", "id", "request_id"):
        assert getattr(whole, name) == getattr(reply, name)


PIECES = "in one piece"


@row("chunks: usage, tool deltas, thoughts, the last reason", STREAMED, chat="no thoughts", azure="no thoughts")
async def test_everything_of_an_answer_comes_as_chunks(lab: Lab) -> None:
    """Thoughts before calls before the end, usage once it is known."""
    said = Answer(thinking=THOUGHT.thinking, calls=(OSLO, BERGEN), spent=Spent(100, output=50, thought=20))
    async with lab.says(said).prompt("?").tools(ELSEWHERE).execute_streaming() as stream:
        chunks: list[StreamChunk] = [chunk async for chunk in stream if chunk.round == 0]
    assert "".join(chunk.reasoning for chunk in chunks) == (THOUGHT.thinking if lab.works else "")
    deltas = [delta for chunk in chunks for delta in chunk.tool_calls]
    places = dict.fromkeys(delta.index for delta in deltas)
    for at, call in zip(places, (OSLO, BERGEN), strict=True):
        mine = [delta for delta in deltas if delta.index == at]
        assert [delta.name for delta in mine if delta.name] == [call.name]
        assert sum(bool(delta.id) for delta in mine) == 1
        assert json.loads("".join(delta.arguments for delta in mine)) == call.arguments
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == ["tool_calls"]
    usages = [chunk.usage for chunk in chunks if chunk.usage is not None]
    assert usages[-1] == Usage(100, 50, reasoning_tokens=20)


@row("arguments of a call as they come", STREAMED, google=PIECES, vertex=PIECES)
async def test_arguments_come_in_pieces(lab: Lab) -> None:
    """As the API sends them; Gemini's calls are whole."""
    async with lab.says(Answer(calls=(OSLO,))).prompt("?").tools(ELSEWHERE).execute_streaming() as stream:
        pieces = [delta.arguments async for chunk in stream for delta in chunk.tool_calls if delta.arguments]
    assert json.loads("".join(pieces)) == OSLO.arguments
    assert (len(pieces) > 1) is lab.works


# ---- what else a provider has --------------------------------------------------------------------------------


@row("model list", WHOLE)
async def test_a_provider_lists_its_models(lab: Lab) -> None:
    """By their ids, as they are asked for."""
    lab.says(lab.speaker.listed("one", "two"))
    provider = lab.registry.provider("lab")
    assert isinstance(provider, ModelLister)
    assert [model.id for model in await provider.list_models()] == ["one", "two"]
    assert "/models" in lab.requests[0].path


NONE = "UnsupportedError"


@row("embeddings", WHOLE, anthropic=NONE, moonshot=NONE, deepseek="NotFoundError")
async def test_texts_become_vectors(lab: Lab) -> None:
    """One for each text, in their order, whatever order the server sends."""
    model = lab.model("vectors")
    if lab.word == NONE:
        with pytest.raises(UnsupportedError):
            await model.embed(["a", "b"])
        assert lab.requests == []
        return
    if not lab.works:  # other servers of the kind have them, so this one is asked
        lab.says(lab.speaker.failed("NotFoundError"))
        with pytest.raises(errors.NotFoundError):
            await model.embed(["a", "b"])
        return
    lab.says(lab.speaker.embedded([0.5, -1.0], [0.25, 2.0]))
    found = await model.embed_full(["a", "b"])
    assert found.vectors == ((0.5, -1.0), (0.25, 2.0))
    assert lab.speaker.texts(json.loads(lab.requests[0].body)) == ["a", "b"]
    if lab.kind == "google":
        assert found.usage is None  # the API counts nothing here
    else:
        assert found.usage == Usage(4)
        assert found.cost == pytest.approx(4 * 2 / 1e6)


@row("token count", WHOLE, chat=NONE, azure=NONE, deepseek=NONE, moonshot=NONE)
async def test_tokens_are_counted_by_the_provider(lab: Lab) -> None:
    """System text, turns and tools included; nothing is guessed where the provider does not count."""
    lab.says(lab.speaker.counted(42))
    counting = lab.model().system("Be brief.").prompt("Hi").tools(weather).count_tokens()
    if not lab.works:
        with pytest.raises(UnsupportedError):
            await counting
        assert lab.requests == []
        return
    assert await counting == 42
    body = lab.requests[0].body.decode()
    assert all(word in body for word in ("Be brief.", "Hi", "weather"))


# ---- the page ------------------------------------------------------------------------------------------------

PAGE = ROOT / "docs" / "conformance.md"
BEGIN, END = "<!-- rows: begin -->", "<!-- rows: end -->"


def table() -> str:
    """The rows as a Markdown table, in their order here."""
    lines = [f"| what must work | ways | {' | '.join(TITLES.values())} |", "| --- " * (len(TITLES) + 2) + "|"]
    for each in ROWS:
        cells = [each.instead.get(kind, WORKS) for kind in TITLES]
        lines.append(f"| {each.name} | {' '.join(way[0] for way in each.ways)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def written(page: str) -> str:
    """The table that stands in the page."""
    return page.partition(BEGIN)[2].partition(END)[0].strip()


def test_the_page_shows_these_rows_and_no_others() -> None:
    """The table in docs/conformance.md is the one that these tests are made of."""
    assert written(PAGE.read_text(encoding="utf-8")) == table(), f"put this into {PAGE.name}:\n{table()}"


def test_every_row_has_its_own_name_and_known_providers() -> None:
    """A row that is told twice, or a provider that nobody knows, would be a lie in the table."""
    names = [each.name for each in ROWS]
    assert len(names) == len(set(names))
    assert set(TITLES) == set(SPEAKERS)
    assert all(set(each.instead) <= set(TITLES) for each in ROWS)


def _marked() -> Iterator[pytest.Mark]:
    for name, test in globals().items():
        if name.startswith("test_"):
            yield from getattr(test, "pytestmark", ())


def test_every_row_is_proved_by_a_test() -> None:
    """For each provider, in each of its ways."""
    cases = {param.values[0] for mark in _marked() for param in mark.args[1]}
    wanted = {
        Case(each.name, kind, way, each.instead.get(kind, WORKS))
        for each in ROWS
        for kind in TITLES
        for way in each.ways
    }
    assert cases == wanted
