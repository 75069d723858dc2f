"""Google's adapter against recorded traffic of the Gemini API and of Vertex: every answer, error and request of it.

Two readers stand here that share no code with the adapter. One takes a recorded answer apart with nothing but `json`
and strings. The other reads a recorded request into our `Request`, by the modelled field wherever there is one; what is
not modelled goes into a part's opaque data, a `Raw` or `params`. The adapter must then write the same JSON again.

Google reads every field's name in two spellings, `fileUri` and `file_uri`, and some recordings mix them; the adapter
writes the first. So requests are compared twice: with every field under its first spelling, and letter by letter, where
the reader knows no other spelling and hands what is spelled otherwise on as `Raw`.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from msgspec.structs import replace
from tests.support.recordings import Comparison, Recording, Replay, recordings, same_json

from agentflow.errors import (
    AuthenticationError,
    BadRequestError,
    ModelError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    ProtocolError,
    QuotaExceededError,
    RateLimitError,
    ServerError,
    StreamInterruptedError,
)
from agentflow.llm.content import Audio, Document, Image, Media, Part, Raw, Reasoning, Text, ToolCall, ToolResult
from agentflow.llm.messages import EmbeddingRequest, Message, OutputFormat, Request, Response, Thinking, Tool
from agentflow.llm.providers.base import ProviderSettings, Secret
from agentflow.llm.providers.google.provider import GoogleApi, GoogleProvider
from agentflow.llm.streaming.join import Joiner

pytestmark = pytest.mark.shared

API = "google"
ASK = Request("asked-for", (Message("user", "Hello"),))
GENERATE = (":generateContent", ":streamGenerateContent")
EMBED = (":embedContent", ":batchEmbedContents", ":predict")
COUNT = (":countTokens",)


def of_google(shared: Path, *methods: str) -> tuple[Recording, ...]:
    return recordings(shared / "cassettes", *methods)


def provider(recording: Recording, piece: int = 0) -> GoogleProvider:
    base = re.sub(r"/(models|tunedModels|endpoints)/[^/]+$", "", recording.uri.partition("?")[0])
    settings = ProviderSettings(name="google", kind="google", base_url=base, api_key=Secret("test-key-of-nobody"))
    return GoogleProvider(settings, Replay(recording, piece))


def model_of(recording: Recording) -> str:
    return unquote(recording.path.rpartition(":")[0].rpartition("/")[2])


def sent(adapter: GoogleProvider) -> tuple[str, Any]:
    """The path and the body of the one request that was made."""
    ((path, body),) = adapter._transport.sent
    return path, body


async def streamed(adapter: GoogleProvider, request: Request = ASK) -> Response:
    joiner = Joiner()
    async for chunk in adapter.execute_streaming(request):
        joiner.add(chunk)
    return joiner.response(provider="google", model="nobody said")


# ---- answers: a plain reading --------------------------------------------------------------------------------


def pieces_of(recording: Recording) -> list[dict[str, Any]]:
    if recording.streamed:
        return recording.events()
    body = recording.json
    return body if isinstance(body, list) else [body]


def answers_of(piece: Mapping[str, Any]) -> list[tuple[int, dict[str, Any]]]:
    """The candidates of a piece with their indexes, or else their places."""
    return [(one.get("index", at), one) for at, one in enumerate(piece.get("candidates") or [])]


def plain_parts(recording: Recording, index: int = 0) -> list[dict[str, Any]]:
    """The parts of one candidate, one after the other."""
    found = []
    for piece in pieces_of(recording):
        for at, candidate in answers_of(piece):
            if at == index:
                found += (candidate.get("content") or {}).get("parts") or []
    return found


def told_error(recording: Recording) -> dict[str, Any] | None:
    """The error that a recording holds, by its status or in an answer that had begun well."""
    if recording.status == 200:
        return next((piece["error"] for piece in pieces_of(recording) if "error" in piece), None)
    try:
        body = recording.json
    except ValueError:
        return {}
    body = body[0] if isinstance(body, list) else body
    return body["error"] if isinstance(body.get("error"), dict) else {}


def is_whole(recording: Recording) -> bool:
    """Whether it is an answer, and one that says why it ended."""
    if recording.status != 200 or told_error(recording) is not None:
        return False
    pieces = pieces_of(recording)
    ended = any(one.get("finishReason") for piece in pieces for _, one in answers_of(piece))
    blocked = any((piece.get("promptFeedback") or {}).get("blockReason") for piece in pieces)
    return ended or blocked or (not recording.streamed and bool(answers_of(pieces[0])))


def plain_calls(parts: Iterable[Mapping[str, Any]]) -> list[tuple[str, Any, str | None]]:
    """Name, arguments and id of each call; arguments in pieces are put together."""
    calls: list[list[Any]] = []
    for call in [part["functionCall"] for part in parts if "functionCall" in part]:
        if call.get("name"):
            calls.append([call["name"], dict(call.get("args") or {}), call.get("id")])
        for piece in call.get("partialArgs", []):
            plain_place(calls[-1][1], piece)
    return [tuple(call) for call in calls]


def plain_place(arguments: Any, piece: Mapping[str, Any]) -> None:
    *way, last = [int(step) if step.isdigit() else step for step in re.findall(r"\w+", piece["jsonPath"])]
    for step, following in zip(way, [*way[1:], last], strict=True):
        empty: Any = [] if isinstance(following, int) else {}
        if isinstance(step, int) and step == len(arguments):
            arguments.append(empty)
        arguments = arguments[step] if isinstance(step, int) else arguments.setdefault(step, empty)
    if "stringValue" in piece:
        old = arguments.get(last, "") if isinstance(arguments, dict) else ("".join(arguments[last : last + 1]))
        value: Any = old + piece["stringValue"]
    else:
        value = piece.get("numberValue", piece.get("boolValue"))
    if isinstance(last, int) and last == len(arguments):
        arguments.append(value)
    else:
        arguments[last] = value


def plain_usage(recording: Recording) -> dict[str, int] | None:
    usage: dict[str, Any] = {}
    for piece in pieces_of(recording):
        if {"promptTokenCount", "candidatesTokenCount"} & (piece.get("usageMetadata") or {}).keys():
            usage = piece["usageMetadata"]
    if not usage:
        return None
    thoughts = usage.get("thoughtsTokenCount", 0)

    def sound(*names: str) -> int:
        details = [one for name in names for one in usage.get(name, [])]
        return sum(one.get("tokenCount", 0) for one in details if one["modality"] == "AUDIO")

    return {
        "input": usage.get("promptTokenCount", 0) + usage.get("toolUsePromptTokenCount", 0),
        "output": usage.get("candidatesTokenCount", 0) + thoughts,
        "cached": usage.get("cachedContentTokenCount", 0),
        "reasoning": thoughts,
        "input_audio": sound("promptTokensDetails", "toolUsePromptTokensDetails"),
        "output_audio": sound("candidatesTokensDetails"),
    }


def plain_facts(recording: Recording) -> dict[str, Any]:
    pieces, parts = pieces_of(recording), plain_parts(recording)
    indexed = [pair for piece in pieces for pair in answers_of(piece)]
    candidates = [one for index, one in indexed if index == 0]
    reason = next((one["finishReason"] for one in reversed(candidates) if one.get("finishReason")), None)
    if not candidates:
        reason = next(piece["promptFeedback"]["blockReason"] for piece in pieces if "promptFeedback" in piece)
    texts = [part for part in parts if "text" in part]
    modelled = {"text", "functionCall", "inlineData", "fileData"}
    return {
        "text": "".join(part["text"] for part in texts if not part.get("thought")),
        "thoughts": "".join(part["text"] for part in texts if part.get("thought")),
        "calls": plain_calls(parts),
        "reason": reason,
        "model": next((piece["modelVersion"] for piece in reversed(pieces) if "modelVersion" in piece), None),
        "id": next((piece["responseId"] for piece in reversed(pieces) if "responseId" in piece), None),
        "tier": next((u["serviceTier"] for p in pieces if "serviceTier" in (u := p.get("usageMetadata", {}))), None),
        "usage": plain_usage(recording),
        "others": [part for part in parts if not modelled & part.keys() or is_drawn_thought(part)],
        "files": [part for part in parts if {"inlineData", "fileData"} & part.keys() and not is_drawn_thought(part)],
        "logprobs": [
            (token["token"], token.get("logProbability", 0.0))
            for one in candidates
            for token in (one.get("logprobsResult") or {}).get("chosenCandidates") or []
        ],
        "alternatives": [
            "".join(part.get("text", "") for part in plain_parts(recording, index) if not part.get("thought"))
            for index in sorted({index for index, _ in indexed} - {0})
        ],
    }


def is_drawn_thought(part: Mapping[str, Any]) -> bool:
    return bool(part.get("thought")) and "text" not in part and "functionCall" not in part


def our_facts(response: Response, plain: Mapping[str, Any]) -> dict[str, Any]:
    usage = response.usage
    given = [identity for _, _, identity in plain["calls"]]
    calls = response.tool_calls
    return {
        "text": response.text,
        "thoughts": response.reasoning,
        "calls": [  # an id that the API did not give is ours
            (call.name, dict(call.arguments), call.id if at < len(given) and given[at] else None)
            for at, call in enumerate(calls)
        ],
        "reason": response.raw_finish_reason,
        "model": response.model if plain["model"] else None,
        "id": response.id,
        "tier": response.service_tier,
        "usage": usage
        and {
            "input": usage.input_tokens,
            "output": usage.output_tokens,
            "cached": usage.cached_tokens,
            "reasoning": usage.reasoning_tokens,
            "input_audio": usage.input_audio_tokens,
            "output_audio": usage.output_audio_tokens,
        },
        "others": [dict(part.data) for part in response.parts if isinstance(part, Raw)],
        "files": [plain_file(part) for part in response.parts if isinstance(part, Media)],
        "logprobs": [(token.token, token.logprob) for token in response.logprobs],
        "alternatives": [other.text for other in response.alternatives],
    }


def plain_file(part: Media) -> dict[str, Any]:
    return {"inlineData": {"mimeType": part.kind, "data": part.data}, **part.opaque.get(API, {})}


NORMAL = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "SAFETY": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "RECITATION": "content_filter",
    "MALFORMED_FUNCTION_CALL": "error",
}


def agrees(response: Response, recording: Recording) -> str:
    """Why our reading differs from the plain one; empty where it does not."""
    plain = plain_facts(recording)
    ours = our_facts(response, plain)
    differing = [name for name in plain if ours[name] != plain[name]]
    reason = plain["reason"]
    wanted = "tool_calls" if reason == "STOP" and plain["calls"] else NORMAL.get(reason)
    if wanted is not None and response.finish_reason != wanted:
        differing.append("finish_reason")
    if len({call.id for call in response.tool_calls}) != len(response.tool_calls):
        differing.append("ids")
    return ", ".join(f"{name}: {ours.get(name)!r} for {plain.get(name)!r}" for name in differing)[:300]


async def test_every_recorded_answer_says_the_same_as_a_plain_reading_of_it(shared: Path, tell: Any) -> None:
    """Text, thoughts, calls, usage, reason, model, id, tier, logprobs and unmodelled parts; whole and in pieces."""
    table = Comparison("google: recorded answers, whole and in pieces of 7 bytes and 1 byte")
    for recording in filter(is_whole, of_google(shared, *GENERATE)):
        if recording.streamed:
            readings = [await streamed(provider(recording, piece)) for piece in (0, 7, 1)]
            assert readings[0] == readings[1] == readings[2]
        else:
            readings = [await provider(recording).execute(ASK), await streamed(provider(recording))]
        reasons = [reason for response in readings if (reason := agrees(response, recording))]
        table.note(recording.file, not reasons, "; ".join(reasons))
    tell(table.lines())
    assert table.compared
    assert table.share == 1.0, table.lines()


ERRORS = {
    400: BadRequestError,
    401: AuthenticationError,
    402: QuotaExceededError,
    403: PermissionDeniedError,
    404: NotFoundError,
    429: RateLimitError,
    500: ServerError,
    503: OverloadedError,
    504: ServerError,
}


async def test_a_recorded_answer_that_never_ends_is_an_error(shared: Path) -> None:
    """A stream that was cut, and a body that is no answer, are never taken for one."""
    for recording in of_google(shared, *GENERATE):
        if recording.status == 200 and told_error(recording) is None and not is_whole(recording):
            with pytest.raises((StreamInterruptedError, ProtocolError)):
                await streamed(provider(recording))


async def test_every_recorded_failure_is_the_error_that_its_status_names(shared: Path, tell: Any) -> None:
    """The class is that of the status, and the words of the server are in it; asked for whole and as a stream."""
    table = Comparison("google: recorded failures")
    for recording in of_google(shared, *GENERATE, *EMBED, *COUNT):
        told = told_error(recording)
        if told is None:
            continue
        wanted: type[ModelError] = ERRORS.get(told.get("code", recording.status), ModelError)
        adapter = provider(recording)
        whole = [] if recording.streamed else [adapter.execute(ASK)]
        for call in (*whole, streamed(adapter)):
            with pytest.raises(ModelError) as caught:
                await call
            good = isinstance(caught.value, wanted) and told.get("message", "")[:40] in str(caught.value)
            good = good and caught.value.code == told.get("status")
            table.note(recording.file, good, repr(caught.value))
    tell(table.lines())
    assert table.share == 1.0, table.lines()


# ---- answers, sent back --------------------------------------------------------------------------------------


def as_streamed(parts: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The parts of a stream as one turn: words go on where words of their kind stood, an empty text says nothing, and a
    call whose arguments came in pieces is one call."""
    found: list[dict[str, Any]] = []
    for part in parts:
        call = part.get("functionCall")
        if call is not None and "name" not in call:
            for piece in call.get("partialArgs", []):
                plain_place(found[-1]["functionCall"]["args"], piece)
            continue
        if call is not None and ("willContinue" in call or "partialArgs" in call):
            begun = {"args": {}, **without(call, "willContinue", "partialArgs")}
            found.append({**part, "functionCall": begun})
            for piece in call.get("partialArgs", []):
                plain_place(begun["args"], piece)
            continue
        alike = found and part.keys() == found[-1].keys() and part.keys() in ({"text"}, {"text", "thought"})
        if alike:
            found[-1] = {**found[-1], "text": found[-1]["text"] + part["text"]}
        elif part != {"text": ""}:
            found.append(dict(part))
    return found


async def test_every_recorded_answer_goes_back_as_it_came(shared: Path, tell: Any) -> None:
    """Signatures, ids and unmodelled parts stand where they stood, also after a trip through JSON."""
    table = Comparison("google: recorded answers written back as history")
    for recording in filter(is_whole, of_google(shared, *GENERATE)):
        adapter = provider(recording)
        response = await (streamed(adapter) if recording.streamed else adapter.execute(ASK))
        parts = plain_parts(recording)
        wanted = as_streamed(parts) if recording.streamed else [part for part in parts if part != {"text": ""}]
        for turn in (response.message, Response.from_json(json.loads(json.dumps(response.to_json()))).message):
            request = Request(model_of(recording), (Message("user", "?"), turn, Message("user", "!")))
            body: Any = GoogleApi().write(request, stream=False).body
            back = [one["parts"] for one in body["contents"] if one["role"] == "model"]
            same = same_json(back, [wanted] if wanted else [])
            table.note(recording.file, same, "" if same else json.dumps(back)[:200])
    tell(table.lines())
    assert table.share == 1.0, table.lines()


# ---- requests: a plain reading -------------------------------------------------------------------------------

USER_DATA = {"args", "response", "parameters", "labels", "customMetadata", "argsJson"}


def first_spelling(value: Any, name: str = "") -> Any:
    """The same message with every field under its camelCase name; what belongs to the user is left alone."""
    if isinstance(value, list):
        return [first_spelling(item, name) for item in value]
    if not isinstance(value, dict) or name in USER_DATA or name.endswith("Schema"):
        return value
    return {(camel := to_camel(key)): first_spelling(item, camel) for key, item in value.items()}


def to_camel(name: str) -> str:
    return re.sub(r"_([a-z0-9])", lambda match: match[1].upper(), name)


def own(rest: Mapping[str, Any]) -> dict[str, Any]:
    return {API: dict(rest)} if rest else {}


def without(value: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: item for name, item in value.items() if name not in names}


class Reader:
    """Reads one recorded body into a Request."""

    def __init__(self, model: str) -> None:
        self.late = not re.search(r"gemini-[12]", model)
        self.model = model
        self.calls: list[tuple[str, str, bool]] = []  # our id, name, whether the API gave it

    def request(self, body: Mapping[str, Any]) -> Request:
        params: dict[str, Any] = without(
            body, "contents", "systemInstruction", "tools", "toolConfig", "generationConfig", "labels"
        )
        fields: dict[str, Any] = {}
        messages = self.system(body.get("systemInstruction"), params)
        for content in body.get("contents", []):
            messages.append(self.turn(content, messages))
        tools = list(self.tools(body.get("tools", [])))
        modelled = any(isinstance(tool, Tool) for tool in tools)
        if self.choice(body.get("toolConfig"), modelled, params, fields):
            tools = [replace(tool, strict=True) if isinstance(tool, Tool) else tool for tool in tools]
        fields["tools"] = tuple(tools)
        self.settings(body.get("generationConfig"), params, fields)
        if body.get("labels"):
            fields["metadata"] = body["labels"]
        return Request(self.model, tuple(messages), params=params, **fields)

    def system(self, wire: Any, params: dict[str, Any]) -> list[Message]:
        if wire is None:
            return []
        if not isinstance(wire.get("parts"), list) or not wire["parts"]:
            params["systemInstruction"] = wire
            return []
        if rest := without(wire, "parts"):
            params["systemInstruction"] = rest
        return [Message("system", self.content(wire["parts"]))]

    def turn(self, wire: Mapping[str, Any], before: list[Message]) -> Message:
        parts, role = wire.get("parts", []), wire.get("role", "")
        if role == "model":
            return Message("assistant", tuple(self.part(part) for part in parts))
        results = bool(parts) and all("functionResponse" in part for part in parts)
        if role == "user" and results and not (before and before[-1].role == "tool"):
            return Message("tool", tuple(self.part(part) for part in parts))
        return Message(role, self.content(parts))

    def content(self, parts: list[Mapping[str, Any]]) -> str | tuple[Part, ...]:
        if len(parts) == 1 and parts[0].keys() == {"text"}:
            return str(parts[0]["text"])
        return tuple(self.part(part) for part in parts)

    def part(self, wire: Mapping[str, Any]) -> Part:
        if isinstance(wire.get("text"), str):
            rest = without(wire, "text")
            return (Reasoning if wire.get("thought") is True else Text)(text=wire["text"], opaque=own(rest))
        for name, read in (
            ("functionCall", self.call),
            ("functionResponse", self.result),
            ("inlineData", self.inline),
            ("fileData", self.file),
        ):
            if isinstance(wire.get(name), dict):
                return read(wire[name], without(wire, name)) or Raw(API, wire)
        return Raw(API, wire)

    def call(self, wire: Mapping[str, Any], rest: dict[str, Any]) -> Part | None:
        if not wire.get("name"):
            return None
        identity = wire.get("id") or f"ours-{len(self.calls)}"
        self.calls.append((identity, wire["name"], "id" in wire))
        inner = without(wire, "name", "args")
        opaque = {API: {**rest, "functionCall": inner} if inner else rest}
        raw = json.dumps(wire["args"]) if "args" in wire else ""
        return ToolCall(identity, wire["name"], wire.get("args", {}), raw, opaque=opaque)

    def result(self, wire: Mapping[str, Any], rest: dict[str, Any]) -> Part | None:
        if not wire.get("name") or not isinstance(wire.get("response"), dict):
            return None
        inner = without(wire, "name", "response")
        called = [identity for identity, name, given in self.calls if name == wire["name"] and not given]
        identity = called[0] if called and "id" not in wire else wire.get("id", "")
        self.calls = [call for call in self.calls if call[0] != identity or call[2]]
        if any(call[0] == wire.get("id") and call[2] for call in self.calls):
            del inner["id"]
        media = [self.part(part) for part in inner.get("parts") or []] if self.late else []
        if media and all(isinstance(one, Media) for one in media):
            del inner["parts"]
        else:
            media = []
        text, is_error = self.outcome(wire["response"])
        content: Any = (Text(text), *media) if media else text
        opaque = own({**rest, "functionResponse": inner} if inner else rest)
        return ToolResult(identity, content, wire["name"], is_error, opaque=opaque)

    def outcome(self, response: Mapping[str, Any]) -> tuple[str, bool]:
        for name in ("result", "error"):
            text = response.get(name)
            if response.keys() == {name} and isinstance(text, str) and not text.lstrip().startswith("{"):
                return text, name == "error"
        return json.dumps(response), False

    def inline(self, wire: Mapping[str, Any], rest: dict[str, Any]) -> Part | None:
        if not wire.get("mimeType") or "data" not in wire:
            return None
        return self.media(f"data:;base64,{wire['data']}", wire, "inlineData", rest)

    def file(self, wire: Mapping[str, Any], rest: dict[str, Any]) -> Part | None:
        if "://" not in wire.get("fileUri", "")[:32]:
            return None
        return self.media(wire["fileUri"], wire, "fileData", rest)

    def media(self, source: str, wire: Mapping[str, Any], name: str, rest: dict[str, Any]) -> Part:
        kind = wire.get("mimeType")
        inner = without(wire, "mimeType", "data", "fileUri")
        opaque = own({**rest, name: inner} if inner else rest)
        part = {"image": Image, "audio": Audio}.get(str(kind).partition("/")[0], Document)
        return part(source=source, media_type=kind, opaque=opaque)

    def tools(self, wires: Iterable[Mapping[str, Any]]) -> Iterator[Tool | Raw]:
        modelled = True
        for wire in wires:
            declarations = wire.get("functionDeclarations", [])
            known = all(one.keys() <= {"name", "description", "parametersJsonSchema"} for one in declarations)
            if wire.keys() == {"functionDeclarations"} and declarations and known and modelled:
                modelled = False
                for one in declarations:
                    yield Tool(one["name"], one.get("description", ""), one.get("parametersJsonSchema", {}))
            else:
                yield Raw(API, wire)

    def choice(self, wire: Any, modelled: bool, params: dict[str, Any], fields: dict[str, Any]) -> bool:
        """What the model is to do with the tools; True where it must keep to their schemas."""
        if wire is None:
            return False
        config = dict(wire.get("functionCallingConfig", {}))
        mode, names = config.get("mode"), config.get("allowedFunctionNames")
        strict = mode == "VALIDATED" and not names and modelled
        if mode == "ANY" and names:
            fields["tool_choice"] = names[0] if len(names) == 1 else tuple(names)
        elif mode in ("AUTO", "NONE", "ANY") and not names:
            fields["tool_choice"] = {"AUTO": "auto", "NONE": "none", "ANY": "required"}[mode]
        elif not strict:
            params["toolConfig"] = wire
            return False
        config = without(config, "mode", "allowedFunctionNames")
        rest = {**without(wire, "functionCallingConfig"), **({"functionCallingConfig": config} if config else {})}
        if rest:
            params["toolConfig"] = rest
        return strict

    def settings(self, wire: Any, params: dict[str, Any], fields: dict[str, Any]) -> None:
        if wire is None:
            return
        rest = dict(wire)
        for name, field, kind in (
            ("temperature", "temperature", (int, float)),
            ("topP", "top_p", (int, float)),
            ("topK", "top_k", int),
            ("maxOutputTokens", "max_tokens", int),
            ("candidateCount", "n", int),
            ("seed", "seed", int),
        ):
            if isinstance(rest.get(name), kind):
                fields[field] = rest.pop(name)
        if rest.get("stopSequences"):
            fields["stop"] = tuple(rest.pop("stopSequences"))
        if rest.get("responseLogprobs") is True:
            del rest["responseLogprobs"]
            fields["logprobs"] = rest.pop("logprobs", 0)
        if rest.get("responseMimeType") == "application/json" and "responseSchema" not in rest:
            del rest["responseMimeType"]
            fields["output"] = OutputFormat("answer", rest.pop("responseJsonSchema", None))
        if thinking := self.thinking(rest.get("thinkingConfig") or {}):
            fields["thinking"] = thinking
            del rest["thinkingConfig"]
        if rest or not wire:
            params["generationConfig"] = rest

    def thinking(self, wire: Mapping[str, Any]) -> Thinking | None:
        level = wire.get("thinkingLevel")
        named = level is None or (self.late and level in ("MINIMAL", "LOW", "MEDIUM", "HIGH", "XHIGH"))
        if not wire or not named or not wire.keys() <= {"thinkingLevel", "thinkingBudget", "includeThoughts"}:
            return None
        return Thinking(level and level.lower(), wire.get("thinkingBudget"), wire.get("includeThoughts"))


async def written(recording: Recording, request: Request) -> tuple[str, Any]:
    """Where the adapter sends a request, and what; whatever comes back."""
    adapter = provider(recording)
    with suppress(ModelError):
        if recording.path.endswith(COUNT):
            await adapter.count_tokens(request)
        elif ":stream" in recording.path:
            async for _ in adapter.execute_streaming(request):
                pass
        else:
            await adapter.execute(request)
    return sent(adapter)


def whole_address(recording: Recording) -> str:
    return recording.path + ("?" + urlsplit(recording.uri).query if urlsplit(recording.uri).query else "")


def difference(left: Any, right: Any, path: str = "") -> str:
    """The first place where two bodies differ."""
    if isinstance(left, dict) and isinstance(right, dict):
        for name in [*left, *right]:
            if name not in left or name not in right:
                return f"{path}.{name} is in one alone"
            if not same_json(left[name], right[name]):
                return difference(left[name], right[name], f"{path}.{name}")
    if isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        for at, (one, other) in enumerate(zip(left, right, strict=True)):
            if not same_json(one, other):
                return difference(one, other, f"{path}[{at}]")
    return f"{path}: {json.dumps(left)[:60]} for {json.dumps(right)[:60]}"


@pytest.mark.parametrize("spelled", [True, False], ids=["first spelling", "letter by letter"])
async def test_recorded_requests_are_written_again_as_they_were(shared: Path, tell: Any, spelled: bool) -> None:
    """At least 95 of 100 are the same JSON at the same address; the rest is listed with a reason."""
    how = "each field under its first spelling" if spelled else "letter by letter, other spellings as Raw"
    table = Comparison(f"google: recorded requests, {how}")
    unmodelled: Counter[str] = Counter()
    for recording in of_google(shared, *GENERATE, *COUNT):
        body = first_spelling(recording.request) if spelled else recording.request
        request = Reader(model_of(recording)).request(body)
        path, wire = await written(recording, request)
        same = same_json(wire, body)
        at_home = whole_address(recording).endswith(path)
        table.note(recording.file, same and at_home, path if same else difference(wire, body))
        unmodelled.update(of_params(request))
    tell([*table.lines(), f"    in params: {dict(unmodelled)}"])
    assert table.compared
    assert table.share >= 0.95, table.lines()


def of_params(request: Request) -> list[str]:
    """What of a request went into params, field by field, and how many of its parts and tools are Raw."""
    names = []
    for name, value in request.params.items():
        inner = [f"{name}.{below}" for below in value] if isinstance(value, dict) and value else [name]
        names += inner
    parts = [part for message in request.messages for part in message.parts]
    for what, values in (("part", parts), ("tool", request.tools)):
        names += [f"Raw {what}: {next(iter(one.data))}" for one in values if isinstance(one, Raw)]
    return names


# ---- embeddings ----------------------------------------------------------------------------------------------


def read_embedding(recording: Recording) -> EmbeddingRequest:
    body = recording.request
    items = body.get("requests", [body])
    texts = tuple(item["content"]["parts"][0]["text"] for item in items)
    rest = without(items[0], "content", "model", "outputDimensionality")
    return EmbeddingRequest(model_of(recording), texts, items[0].get("outputDimensionality"), rest)


async def test_recorded_embeddings_are_asked_for_as_they_were_and_read(shared: Path, tell: Any) -> None:
    """The same JSON at the same address; vectors and tokens are those of the body."""
    table = Comparison("google: recorded embeddings, requests and vectors")
    for recording in of_google(shared, ":embedContent", ":batchEmbedContents"):
        adapter = provider(recording)
        if recording.status != 200:
            with pytest.raises(NotFoundError):
                await adapter.embed(read_embedding(recording))
            continue
        found = await adapter.embed(read_embedding(recording))
        path, wire = sent(adapter)
        body = recording.json
        vectors = [one["values"] for one in body.get("embeddings", [body.get("embedding")])]
        good = whole_address(recording).endswith(path) and same_json(wire, recording.request)
        tokens = body.get("usageMetadata", {}).get("promptTokenCount")
        read = found.usage.input_tokens if found.usage else None
        good = good and [list(vector) for vector in found.vectors] == vectors and read == tokens
        table.note(recording.file, good, difference(wire, recording.request))
    tell(table.lines())
    assert table.share == 1.0, table.lines()
