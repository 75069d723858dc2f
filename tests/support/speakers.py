"""One answer, said as each API documents it: whole, and as the events of its stream; and a request, read back.

    SPEAKERS["anthropic"].whole(Answer("Hi"))    {"type": "message", "content": [{"type": "text", "text": "Hi"}], …}
    SPEAKERS["google"].events(Answer("Hi"), {})  [b'data: {"candidates": […]}\\r\\n\\r\\n', …]
    SPEAKERS["chat"].asked(path, body)           Asked(system="Be brief.", turns=(("user", "Hi"),), …)

Written from the APIs' documentation, the types of their SDKs and recorded traffic; nothing here knows an adapter. What
one API has no word for, its speaker leaves out of the answer, as the API does.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

__all__ = ["SIGNATURE", "SPEAKERS", "Answer", "Asked", "Call", "Failed", "Media", "Speaker", "Spent"]

Json = dict[str, Any]

SIGNATURE = "c2lnbmVkIGFuZCBzZWFsZWQ="
"""What is not to be changed: Anthropic's signature, Gemini's thought signature, OpenAI's encrypted reasoning."""

CREATED = 1790000000


# ---- an answer, in no API's words ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Call:
    """The model calls a function."""

    name: str
    arguments: Json
    id: str = "call_a"

    @property
    def text(self) -> str:
        return json.dumps(self.arguments)


@dataclass(frozen=True)
class Spent:
    """Tokens, counted inclusively: `input` holds those that were cached or written, `output` those of thoughts."""

    input: int = 100
    cached: int = 0
    written: int = 0
    output: int = 50
    thought: int = 0


@dataclass(frozen=True)
class Answer:
    """What the model says. `others` are further answers to the same request, `tokens` log probabilities as (token,
    number, ((other, number), …)). `finish` is our word for the end; without one it is told from the calls."""

    text: str = ""
    thinking: str = ""
    calls: tuple[Call, ...] = ()
    finish: str = ""
    refusal: str = ""
    tokens: tuple[tuple[str, float, tuple[tuple[str, float], ...]], ...] = ()
    others: tuple[str, ...] = ()
    spent: Spent = Spent()

    @property
    def end(self) -> str:
        return self.finish or ("tool_calls" if self.calls else "stop")


@dataclass(frozen=True)
class Failed:
    """An error as it travels. `code` is the word for it that a program may read."""

    status: int
    body: Json
    headers: Mapping[str, str] = field(default_factory=dict)
    code: str | None = None
    retry_after: float | None = None


# ---- what was asked ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Media:
    """A file in a request: image, document or audio; by its bytes (in base64), its address, or as plain text."""

    kind: str
    media_type: str | None = None
    data: str | None = None
    url: str | None = None


@dataclass(frozen=True)
class Asked:
    """The facts of a request. `replies` are the model's own turns as they were spelled, `results` pairs of a call's
    name and what came of it, `cached` the places that ask to be kept, `more` the body itself."""

    model: str
    streamed: bool
    system: str = ""
    turns: tuple[tuple[str, str], ...] = ()
    media: tuple[Media, ...] = ()
    tools: Mapping[str, Json] = field(default_factory=dict)
    choice: object = None
    parallel: bool | None = None
    schema: Json | None = None
    results: tuple[tuple[str, str], ...] = ()
    replies: tuple[object, ...] = ()
    thinking: Json = field(default_factory=dict)
    sampling: Json = field(default_factory=dict)
    stop: tuple[str, ...] = ()
    seed: int | None = None
    n: int | None = None
    logprobs: int | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    cached: tuple[str, ...] = ()
    more: Json = field(default_factory=dict)


# ---- speakers ------------------------------------------------------------------------------------------------


class Speaker:
    """One API. `provider` is its entry in models.yml, `folder` what stands before its paths."""

    provider: ClassVar[str]
    folder: ClassVar[str] = "/v1"
    model: ClassVar[str]
    vectors: ClassVar[str] = "text-embedding-3-small"
    request_id: ClassVar[tuple[str, str] | None] = None
    ends: ClassVar[Mapping[str, str]]
    key: ClassVar[tuple[str, str]] = ("authorization", "Bearer key-of-nobody")

    def path(self, *, streamed: bool) -> str:
        raise NotImplementedError

    def whole(self, answer: Answer) -> Json:
        """The body of an answer in one piece."""
        raise NotImplementedError

    def events(self, answer: Answer, body: Json) -> list[bytes]:
        """The events of an answer to this request."""
        raise NotImplementedError

    def breaks(self) -> list[bytes]:
        """The events by which a stream ends in an error, in each of the shapes that were seen."""
        raise NotImplementedError

    def objects(self, body: Json) -> str | None:
        """Why the API refuses this request with status 400, as far as that is documented or was reported."""
        raise NotImplementedError

    def begun(self, answer: Answer) -> list[bytes]:
        """The words of a stream, and no end."""
        raise NotImplementedError

    def wrapped(self, failed: Failed, *, streamed: bool) -> object:
        """The body of an error where a stream was asked for, or was not."""
        return failed.body

    def reply(self, answer: Answer) -> object:
        """The answer as a turn of a later request, to the letter."""
        raise NotImplementedError

    def failed(self, name: str) -> Failed:
        """The error that stands for this class of ours."""
        raise NotImplementedError

    def asked(self, path: str, body: Json) -> Asked:
        raise NotImplementedError

    def listed(self, *models: str) -> Json:
        raise NotImplementedError

    def embedded(self, *vectors: Sequence[float]) -> Json:
        raise NotImplementedError

    def texts(self, body: Json) -> list[str]:
        """The texts of a request for vectors."""
        raise NotImplementedError

    def counted(self, tokens: int) -> Json:
        return {"input_tokens": tokens}


def halves(text: str) -> list[str]:
    """A text in two pieces."""
    middle = len(text) // 2
    return [piece for piece in (text[:middle], text[middle:]) if piece]


def data(event: Json, *, name: bool = False, end: str = "\n\n") -> bytes:
    """An event; with its type as its name where the API does so."""
    head = f"event: {event['type']}\n" if name else ""
    return f"{head}data: {json.dumps(event, ensure_ascii=False)}{end}".encode()


def files_of(uri: str) -> tuple[str | None, str | None, str | None]:
    """(media type, base64, address) of what is either a data: URI or an address."""
    if not uri.startswith("data:"):
        return None, None, uri
    head, _, payload = uri.removeprefix("data:").partition(";base64,")
    return head, payload, None


def filled(body: Mapping[str, Any], *names: str) -> Json:
    return {name: body[name] for name in names if name in body}


# ---- Chat Completions ----------------------------------------------------------------------------------------


class Chat(Speaker):
    """platform.openai.com/docs/api-reference/chat, and openai 3.57's types."""

    provider = "kind: openai, dialect: openai"
    model = "gpt-4o-2024-08-06"
    request_id = ("x-request-id", "req_1")
    ends = {"stop": "stop", "length": "length", "tool_calls": "tool_calls", "content_filter": "content_filter"}
    shows = False  # whether thoughts are part of the answer
    none: ClassVar[str | None] = None  # the content of a turn of calls alone

    def path(self, *, streamed: bool) -> str:
        return f"{self.folder}/chat/completions"

    def head(self, kind: str) -> Json:
        return {"id": "chatcmpl-1", "object": kind, "created": CREATED, "model": self.model}

    def usage(self, spent: Spent) -> Json:
        return {
            "prompt_tokens": spent.input,
            "completion_tokens": spent.output,
            "total_tokens": spent.input + spent.output,
            "prompt_tokens_details": {
                "cached_tokens": spent.cached,
                "audio_tokens": 0,
                "cache_write_tokens": spent.written,
            },
            "completion_tokens_details": {"reasoning_tokens": spent.thought, "audio_tokens": 0},
        }

    def whole(self, answer: Answer) -> Json:
        answers = [answer, *(Answer(text) for text in answer.others)]
        choices = [
            {
                "index": at,
                "message": {"role": "assistant", "refusal": each.refusal or None, "annotations": [], **self.said(each)},
                "logprobs": self.logprobs(each),
                "finish_reason": self.ends.get(each.end, each.end),
                **self.beside(each),
            }
            for at, each in enumerate(answers)
        ]
        more = {"usage": self.usage(answer.spent), "system_fingerprint": "fp_1"}
        return {**self.head("chat.completion"), "choices": choices, **more}

    def beside(self, answer: Answer) -> Json:
        """What a choice says that is not of the model."""
        return {}

    def said(self, answer: Answer) -> Json:
        said: Json = {"content": answer.text or (self.none if answer.calls else None)}
        if answer.thinking and self.shows:
            said["reasoning_content"] = answer.thinking
        if answer.calls:
            said["tool_calls"] = [self.call(call) for call in answer.calls]
        return said

    def call(self, call: Call) -> Json:
        return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.text}}

    def logprobs(self, answer: Answer) -> Json | None:
        if not answer.tokens:
            return None
        return {"content": [self.token(*token) for token in answer.tokens], "refusal": None}

    def token(self, token: str, number: float, tops: Sequence[tuple[str, float]]) -> Json:
        others = [{"token": name, "logprob": prob, "bytes": list(name.encode())} for name, prob in tops]
        return {"token": token, "logprob": number, "bytes": list(token.encode()), "top_logprobs": others}

    def reply(self, answer: Answer) -> object:
        return {"role": "assistant", **self.said(answer)}

    # stream

    def events(self, answer: Answer, body: Json) -> list[bytes]:
        answers = [answer, *(Answer(text) for text in answer.others)]
        wanted = bool((body.get("stream_options") or {}).get("include_usage"))
        chunks = [*self.before(), *self.deltas(answers), *self.last(answers, wanted=wanted)]
        return [*(data(chunk) for chunk in chunks), b"data: [DONE]\n\n"]

    def before(self) -> Iterator[Json]:
        yield from ()

    def chunk(self, delta: Json | None, *, index: int = 0, usage: Json | None = None, **more: Any) -> Json:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None, **more}
        return {
            **self.head("chat.completion.chunk"),
            "system_fingerprint": "fp_1",
            "choices": [] if delta is None else [choice],
            "usage": usage,
        }

    def deltas(self, answers: Sequence[Answer]) -> Iterator[Json]:
        """The words of several answers interleaved, and so are the calls of one."""
        first = answers[0]
        for at, each in enumerate(answers):
            empty = self.none if each.calls and not each.text else ""
            yield self.chunk({"role": "assistant", "content": empty}, index=at)
        for piece in halves(first.thinking) if self.shows else []:
            yield self.chunk({"reasoning_content": piece, "content": None})
        texts = [halves(each.text) for each in answers]
        for step in range(2):
            for at, pieces in enumerate(texts):
                if step < len(pieces):
                    tokens = self.logprobs(answers[at]) if step == 0 else None
                    yield self.chunk({"content": pieces[step]}, index=at, logprobs=tokens)
        for piece in halves(first.refusal):
            yield self.chunk({"refusal": piece})
        for at, call in enumerate(first.calls):
            begin = {"index": at, **self.call(call), "function": {"name": call.name, "arguments": ""}}
            yield self.chunk({"tool_calls": [begin]})
        for step in range(2):
            for at, call in enumerate(first.calls):
                piece = halves(call.text)[step : step + 1]
                if piece:
                    yield self.chunk({"tool_calls": [{"index": at, "function": {"arguments": piece[0]}}]})

    def last(self, answers: Sequence[Answer], *, wanted: bool) -> Iterator[Json]:
        """The reasons, and a chunk without choices for usage, where it was asked for."""
        for at, each in enumerate(answers):
            yield self.chunk({}, index=at, finish_reason=self.ends.get(each.end, each.end))
        if wanted:
            yield self.chunk(None, usage=self.usage(answers[0].spent))

    def begun(self, answer: Answer) -> list[bytes]:
        return [data(chunk) for chunk in self.deltas([answer])]

    def breaks(self) -> list[bytes]:
        error = data({"error": self.stream_error()})
        return [error, b"event: error\n" + error]

    def objects(self, body: Json) -> str | None:
        open_calls: list[str] = []
        for turn in body["messages"]:
            if turn["role"] != "tool":
                if open_calls:
                    return f"no tool turn for {open_calls}"
                open_calls = [call["id"] for call in turn.get("tool_calls") or ()]
            elif turn["tool_call_id"] not in open_calls:
                return f"a tool turn for {turn['tool_call_id']}, which nobody called"
            else:
                open_calls.remove(turn["tool_call_id"])
        if "tools" not in body and ("tool_choice" in body or "parallel_tool_calls" in body):
            return "tool_choice and parallel_tool_calls are only allowed where there are tools"
        if "top_logprobs" in body and not body.get("logprobs"):
            return "top_logprobs without logprobs"
        return self.objects_too(body)

    def objects_too(self, body: Json) -> str | None:
        """langchaingo#1484, qwen-code#243, axonhub#1380: a label needs an answer that is stored."""
        if body.get("metadata") and not body.get("store"):
            return "The 'metadata' parameter is only allowed when 'store' is enabled."
        return None

    def stream_error(self) -> Json:
        return {"message": "The server had an error.", "type": "server_error", "param": None, "code": None}

    # errors

    def error(self, message: str, kind: str, code: str | None, param: str | None = None) -> Json:
        return {"error": {"message": message, "type": kind, "param": param, "code": code}}

    def failed(self, name: str) -> Failed:
        bad = "invalid_request_error"
        status, kind, code = {
            "AuthenticationError": (401, bad, "invalid_api_key"),
            "PermissionDeniedError": (403, "request_forbidden", "unsupported_country_region_territory"),
            "NotFoundError": (404, bad, "model_not_found"),
            "BadRequestError": (400, bad, "unsupported_value"),
            "ContextLengthError": (400, bad, "context_length_exceeded"),
            "ContentFilterError": (400, bad, "content_policy_violation"),
            "RateLimitError": (429, "requests", "rate_limit_exceeded"),
            "QuotaExceededError": (429, "insufficient_quota", "insufficient_quota"),
            "OverloadedError": (503, "server_error", None),
            "ServerError": (500, "server_error", None),
        }[name]
        told = {"retry-after": "7"} if name == "RateLimitError" else {}
        return Failed(status, self.error("No.", kind, code), told, code or kind, 7.0 if told else None)

    # requests

    def asked(self, path: str, body: Json) -> Asked:
        messages = body["messages"]
        names = {call["id"]: call["function"]["name"] for turn in messages for call in turn.get("tool_calls") or ()}
        spoken = [turn for turn in messages if turn["role"] in ("user", "assistant")]
        shape = body.get("response_format") or {}
        return Asked(
            body["model"],
            bool(body.get("stream")),
            "".join(self.words(turn) for turn in messages if turn["role"] in ("system", "developer")),
            tuple((turn["role"], self.words(turn)) for turn in spoken),
            tuple(
                media
                for turn in spoken
                for part in (turn["content"] if isinstance(turn.get("content"), list) else ())
                if (media := self.media(part))
            ),
            {tool["function"]["name"]: tool["function"].get("parameters", {}) for tool in body.get("tools", ())},
            self.choice(body.get("tool_choice")),
            body.get("parallel_tool_calls"),
            shape.get("json_schema", {}).get("schema"),
            tuple((names[turn["tool_call_id"]], self.words(turn)) for turn in messages if turn["role"] == "tool"),
            tuple(turn for turn in messages if turn["role"] == "assistant"),
            filled(body, "reasoning_effort", "thinking", "reasoning"),
            filled(body, "temperature", "top_p", "max_completion_tokens", "max_tokens"),
            tuple(body.get("stop", ())),
            body.get("seed"),
            body.get("n"),
            body.get("top_logprobs", 0) if body.get("logprobs") else None,
            body.get("metadata", {}),
            tuple(f"{name}={body[name]}" for name in ("prompt_cache_key", "prompt_cache_retention") if name in body),
            body,
        )

    def words(self, turn: Json) -> str:
        content = turn.get("content") or ""
        if isinstance(content, str):
            return content
        return "".join(part["text"] for part in content if part["type"] == "text")

    def media(self, part: Json) -> Media | None:
        if part["type"] == "image_url":
            return Media("image", *files_of(part["image_url"]["url"]))
        if part["type"] == "input_audio":
            return Media("audio", f"audio/{part['input_audio']['format']}", part["input_audio"]["data"])
        if part["type"] == "file":
            return Media("document", *files_of(part["file"]["file_data"]))
        return None

    def choice(self, said: Any) -> object:
        if not isinstance(said, dict):
            return said
        if said["type"] == "allowed_tools":
            return tuple(tool["function"]["name"] for tool in said["allowed_tools"]["tools"])
        return (said["function"]["name"],)

    # the rest

    def listed(self, *models: str) -> Json:
        entries = [{"id": name, "object": "model", "created": CREATED, "owned_by": "lab"} for name in models]
        return {"object": "list", "data": entries}

    def embedded(self, *vectors: Sequence[float]) -> Json:
        entries = [{"object": "embedding", "index": at, "embedding": list(each)} for at, each in enumerate(vectors)]
        used = {"prompt_tokens": 4, "total_tokens": 4}
        return {"object": "list", "data": entries[::-1], "model": self.vectors, "usage": used}

    def texts(self, body: Json) -> list[str]:
        return list(body["input"])


class Azure(Chat):
    """learn.microsoft.com, Azure OpenAI v1: what its filters found stands beside the prompt and each answer."""

    provider = "kind: openai, dialect: azure, auth_header: api-key, query: {api-version: preview}"
    folder = "/openai/v1"
    key = ("api-key", "key-of-nobody")

    _SAFE: ClassVar[Json] = {"violence": {"filtered": False, "severity": "safe"}}

    def path(self, *, streamed: bool) -> str:
        return f"{super().path(streamed=streamed)}?api-version=preview"

    def whole(self, answer: Answer) -> Json:
        found = [{"prompt_index": 0, "content_filter_results": self._SAFE}]
        return {**super().whole(answer), "prompt_filter_results": found}

    def beside(self, answer: Answer) -> Json:
        return {"content_filter_results": self._SAFE}

    def objects_too(self, body: Json) -> str | None:
        return None

    def before(self) -> Iterator[Json]:
        found = [{"prompt_index": 0, "content_filter_results": self._SAFE}]
        yield {**self.chunk(None), "id": "", "model": "", "prompt_filter_results": found}

    def failed(self, name: str) -> Failed:
        own: dict[str, tuple[int, Json, str]] = {
            "AuthenticationError": (401, {"code": "401", "message": "Access denied."}, "401"),
            "NotFoundError": (404, {"code": "DeploymentNotFound", "message": "No such."}, "DeploymentNotFound"),
            "ContentFilterError": (
                400,
                {
                    "message": "The response was filtered.",
                    "type": None,
                    "param": "prompt",
                    "code": "content_filter",
                    "status": 400,
                    "innererror": {"code": "ResponsibleAIPolicyViolation"},
                },
                "content_filter",
            ),
            "RateLimitError": (429, {"code": "429", "message": "Retry after 7 seconds."}, "429"),
        }
        if name not in own:
            return super().failed(name)
        status, error, code = own[name]
        told = {"retry-after": "7"} if status == 429 else {}
        return Failed(status, {"error": error}, told, code, 7.0 if told else None)


class DeepSeek(Chat):
    """api-docs.deepseek.com: thoughts are shown and go back; usage comes with the reason; errors tell by status."""

    provider = "kind: openai, dialect: deepseek"
    model = "deepseek-reasoner"
    request_id = None
    shows = True
    none = ""

    def reply(self, answer: Answer) -> object:
        """As it was said; a turn that calls tools without thoughts bears a blank one, which these APIs ask for."""
        said = super().reply(answer)
        assert isinstance(said, dict)
        bare = said.get("tool_calls") and not said.get("reasoning_content")
        return {**said, "reasoning_content": " "} if bare else said

    def usage(self, spent: Spent) -> Json:
        return {
            "prompt_tokens": spent.input,
            "completion_tokens": spent.output,
            "total_tokens": spent.input + spent.output,
            "prompt_cache_hit_tokens": spent.cached,
            "prompt_cache_miss_tokens": spent.input - spent.cached,
            "completion_tokens_details": {"reasoning_tokens": spent.thought},
        }

    def objects_too(self, body: Json) -> str | None:
        """guides/thinking_mode: a turn that called tools is sent back with its thoughts."""
        return unthinking(body, on=body.get("thinking") == {"type": "enabled"})

    def last(self, answers: Sequence[Answer], *, wanted: bool) -> Iterator[Json]:
        end = self.ends.get(answers[0].end, answers[0].end)
        used = self.usage(answers[0].spent) if wanted else None
        yield self.chunk({"content": "", "reasoning_content": None}, finish_reason=end, usage=used)

    def failed(self, name: str) -> Failed:
        bad = "invalid_request_error"
        status, kind = {
            "AuthenticationError": (401, "authentication_error"),
            "PermissionDeniedError": (403, "permission_error"),
            "NotFoundError": (404, bad),
            "QuotaExceededError": (402, "unknown_error"),
            "RateLimitError": (429, "rate_limit_reached"),
            "OverloadedError": (503, "service_unavailable_error"),
            "ServerError": (500, "internal_error"),
        }.get(name, (400, bad))
        told = {"retry-after": "7"} if name == "RateLimitError" else {}
        return Failed(status, self.error("No.", kind, bad), told, bad, 7.0 if told else None)


class Moonshot(Chat):
    """platform.kimi.ai/docs: thoughts are shown and go back; in a stream usage sits inside the last choice."""

    provider = "kind: moonshot"
    model = "kimi-k3"
    request_id = None
    shows = True
    none = ""

    def reply(self, answer: Answer) -> object:
        """As it was said; a turn that calls tools without thoughts bears a blank one, which these APIs ask for."""
        said = super().reply(answer)
        assert isinstance(said, dict)
        bare = said.get("tool_calls") and not said.get("reasoning_content")
        return {**said, "reasoning_content": " "} if bare else said

    def usage(self, spent: Spent) -> Json:
        return {
            "prompt_tokens": spent.input,
            "completion_tokens": spent.output,
            "total_tokens": spent.input + spent.output,
            "cached_tokens": spent.cached,
            "completion_tokens_details": {"reasoning_tokens": spent.thought},
        }

    def last(self, answers: Sequence[Answer], *, wanted: bool) -> Iterator[Json]:
        used = self.usage(answers[0].spent)
        for at, each in enumerate(answers):
            end = self.ends.get(each.end, each.end)
            chunk = self.chunk({}, index=at, finish_reason=end, **({} if at else {"usage_": used}))
            for choice in chunk["choices"]:
                if "usage_" in choice:
                    choice["usage"] = choice.pop("usage_")
            yield chunk

    def objects_too(self, body: Json) -> str | None:
        """inspect_ai#3137: a turn that called tools is sent back with its thoughts."""
        return unthinking(body, on="reasoning_effort" in body)

    def stream_error(self) -> Json:
        return {"message": "The engine is overloaded.", "type": "engine_overloaded_error"}

    def failed(self, name: str) -> Failed:
        status, kind = {
            "AuthenticationError": (401, "invalid_authentication_error"),
            "PermissionDeniedError": (403, "permission_denied_error"),
            "NotFoundError": (404, "resource_not_found_error"),
            "ContentFilterError": (400, "content_filter"),
            "RateLimitError": (429, "rate_limit_reached_error"),
            "QuotaExceededError": (429, "exceeded_current_quota_error"),
            "OverloadedError": (429, "engine_overloaded_error"),
            "ServerError": (500, "server_error"),
        }.get(name, (400, "invalid_request_error"))
        told = {"retry-after": "7"} if name == "RateLimitError" else {}
        return Failed(status, {"error": {"message": "No.", "type": kind}}, told, kind, 7.0 if told else None)


def unthinking(body: Json, *, on: bool) -> str | None:
    for at, turn in enumerate(body["messages"]):
        if on and turn.get("tool_calls") and not turn.get("reasoning_content"):
            return f"thinking is enabled but reasoning_content is missing in assistant tool call message at index {at}"
    return None


# ---- Responses -----------------------------------------------------------------------------------------------


class Responses(Chat):
    """platform.openai.com/docs/api-reference/responses; the lists, vectors and errors are those of Chat."""

    provider = "kind: openai, options: {api: responses}"
    model = "gpt-5-2025-08-07"
    ends = {
        "stop": "completed",
        "tool_calls": "completed",
        "length": "max_output_tokens",
        "content_filter": "content_filter",
    }

    def path(self, *, streamed: bool) -> str:
        return f"{self.folder}/responses"

    def usage(self, spent: Spent) -> Json:
        return {
            "input_tokens": spent.input,
            "input_tokens_details": {"cached_tokens": spent.cached, "cache_write_tokens": spent.written},
            "output_tokens": spent.output,
            "output_tokens_details": {"reasoning_tokens": spent.thought},
            "total_tokens": spent.input + spent.output,
        }

    def response(self, answer: Answer, *, begun: bool = False) -> Json:
        end = self.ends.get(answer.end, answer.end)
        status = "in_progress" if begun else "completed" if end == "completed" else "incomplete"
        return {
            "id": "resp_1",
            "object": "response",
            "created_at": CREATED,
            "model": self.model,
            "status": status,
            "error": None,
            "incomplete_details": {"reason": end} if status == "incomplete" else None,
            "output": [] if begun else self.items(answer),
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "usage": None if begun else self.usage(answer.spent),
            "service_tier": "default",
        }

    def whole(self, answer: Answer) -> Json:
        return self.response(answer)

    def items(self, answer: Answer) -> list[Json]:
        items: list[Json] = []
        if answer.thinking:
            summary = [{"type": "summary_text", "text": answer.thinking}]
            items.append({"type": "reasoning", "id": "rs_1", "summary": summary, "encrypted_content": SIGNATURE})
        if answer.text or answer.refusal:
            head = {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant"}
            items.append({**head, "content": [self.words_of(answer)]})
        items += [self.function(at, call) for at, call in enumerate(answer.calls)]
        return items

    def words_of(self, answer: Answer) -> Json:
        if answer.refusal:
            return {"type": "refusal", "refusal": answer.refusal}
        tokens = [self.token(*token) for token in answer.tokens]
        return {"type": "output_text", "text": answer.text, "annotations": [], "logprobs": tokens}

    def function(self, at: int, call: Call) -> Json:
        named = {"id": f"fc_{at}", "call_id": call.id, "name": call.name}
        return {"type": "function_call", **named, "arguments": call.text, "status": "completed"}

    def reply(self, answer: Answer) -> object:
        return self.items(answer)

    def events(self, answer: Answer, body: Json) -> list[bytes]:
        end = {"type": "response.completed", "response": self.response(answer)}
        if end["response"]["status"] == "incomplete":
            end["type"] = "response.incomplete"
        return self.numbered([*self.opening(answer), end])

    def begun(self, answer: Answer) -> list[bytes]:
        """Up to the last piece of the words, without what repeats them."""
        return self.numbered(self.opening(answer)[:-3])

    def breaks(self) -> list[bytes]:
        """An error by itself, nested as it was recorded or flat as the SDK has it, or a response that failed."""
        error = {"code": "server_error", "message": "The server had an error.", "param": None}
        gone = {**self.response(Answer()), "status": "failed", "error": error, "output": [], "usage": None}
        shapes: list[Json] = [
            {"type": "error", "error": {"type": "server_error", **error}},
            {"type": "error", **error},
            {"type": "response.failed", "response": gone},
        ]
        return [data({**shape, "sequence_number": 9}, name=True) for shape in shapes]

    def objects(self, body: Json) -> str | None:
        """Results need their calls, and thoughts what they led to."""
        items = body["input"] if isinstance(body["input"], list) else []
        called = {item["call_id"] for item in items if item.get("type") == "function_call"}
        answered = {item["call_id"] for item in items if item.get("type") == "function_call_output"}
        if called != answered:
            return f"calls {sorted(called)}, but results for {sorted(answered)}"
        for item, following in zip(items, [*items[1:], {}], strict=True):
            led_on = self.by_model(following) or following.get("role") == "assistant"
            if item.get("type") == "reasoning" and not led_on:
                return "a reasoning item was provided without its required following item"
        return None

    def numbered(self, events: Sequence[Json]) -> list[bytes]:
        return [data({**event, "sequence_number": at}, name=True) for at, event in enumerate(events)]

    def opening(self, answer: Answer) -> list[Json]:
        start = self.response(answer, begun=True)
        events: list[Json] = [
            {"type": "response.created", "response": start},
            {"type": "response.in_progress", "response": start},
        ]
        for at, item in enumerate(self.items(answer)):
            pieces = {"reasoning": self.thought, "message": self.message, "function_call": self.called}[item["type"]]
            events += pieces(at, item)
            events.append({"type": "response.output_item.done", "output_index": at, "item": item})
        return events

    def thought(self, at: int, item: Json) -> list[Json]:
        place = {"item_id": item["id"], "output_index": at, "summary_index": 0}
        part = item["summary"][0]
        deltas = [
            {"type": "response.reasoning_summary_text.delta", **place, "delta": piece} for piece in halves(part["text"])
        ]
        return [
            {"type": "response.output_item.added", "output_index": at, "item": {**item, "summary": []}},
            {"type": "response.reasoning_summary_part.added", **place, "part": {**part, "text": ""}},
            *deltas,
            {"type": "response.reasoning_summary_text.done", **place, "text": part["text"]},
            {"type": "response.reasoning_summary_part.done", **place, "part": part},
        ]

    def message(self, at: int, item: Json) -> list[Json]:
        place = {"item_id": item["id"], "output_index": at, "content_index": 0}
        part = item["content"][0]
        kind, key = ("refusal", "refusal") if part["type"] == "refusal" else ("output_text", "text")
        tokens = {"logprobs": part["logprobs"]} if part.get("logprobs") else {}
        deltas = [
            {
                "type": f"response.{kind}.delta",
                **place,
                "delta": piece,
                "obfuscation": "x7",
                **(tokens if not n else {}),
            }
            for n, piece in enumerate(halves(part[key]))
        ]
        empty = {**part, key: "", **({"logprobs": []} if tokens else {})}
        return [
            {
                "type": "response.output_item.added",
                "output_index": at,
                "item": {**item, "status": "in_progress", "content": []},
            },
            {"type": "response.content_part.added", **place, "part": empty},
            *deltas,
            {"type": f"response.{kind}.done", **place, key: part[key], **tokens},
            {"type": "response.content_part.done", **place, "part": part},
        ]

    def called(self, at: int, item: Json) -> list[Json]:
        place = {"item_id": item["id"], "output_index": at}
        deltas = [
            {"type": "response.function_call_arguments.delta", **place, "delta": piece}
            for piece in halves(item["arguments"])
        ]
        return [
            {
                "type": "response.output_item.added",
                "output_index": at,
                "item": {**item, "arguments": "", "status": "in_progress"},
            },
            *deltas,
            {"type": "response.function_call_arguments.done", **place, "arguments": item["arguments"]},
        ]

    def failed(self, name: str) -> Failed:
        if name != "ContentFilterError":
            return super().failed(name)
        return Failed(400, self.error("No.", "invalid_request_error", "invalid_prompt"), {}, "invalid_prompt")

    def asked(self, path: str, body: Json) -> Asked:
        items = [{"role": "user", "content": body["input"]}] if isinstance(body["input"], str) else body["input"]
        names = {item["call_id"]: item["name"] for item in items if item.get("type") == "function_call"}
        spoken = [item for item in items if item.get("type", "message") == "message"]
        own = [item for item in items if item.get("role") == "assistant" or self.by_model(item)]
        shape = (body.get("text") or {}).get("format") or {}
        tools = [tool for tool in body.get("tools", ()) if tool["type"] == "function"]
        include = body.get("include", ())
        return Asked(
            body["model"],
            bool(body.get("stream")),
            body.get("instructions", ""),
            tuple((item["role"], self.words(item)) for item in spoken),
            tuple(
                media
                for item in spoken
                for part in (item["content"] if isinstance(item["content"], list) else ())
                if (media := self.media(part))
            ),
            {tool["name"]: tool["parameters"] for tool in tools},
            self.choice(body.get("tool_choice")),
            body.get("parallel_tool_calls"),
            shape.get("schema"),
            tuple(
                (names[item["call_id"]], item["output"]) for item in items if item.get("type") == "function_call_output"
            ),
            (own,) if own else (),
            filled(body, "reasoning"),
            filled(body, "temperature", "top_p", "max_output_tokens"),
            tuple(body.get("stop", ())),
            body.get("seed"),
            body.get("n"),
            body.get("top_logprobs", 0) if "message.output_text.logprobs" in include else None,
            body.get("metadata", {}),
            tuple(f"{name}={body[name]}" for name in ("prompt_cache_key", "prompt_cache_retention") if name in body),
            body,
        )

    def by_model(self, item: Json) -> bool:
        return item.get("type") in ("reasoning", "function_call")

    def words(self, turn: Json) -> str:
        content = turn["content"]
        if isinstance(content, str):
            return content
        return "".join(part["text"] for part in content if part["type"] in ("input_text", "output_text"))

    def media(self, part: Json) -> Media | None:
        if part["type"] == "input_image":
            return Media("image", *files_of(part["image_url"]))
        if part["type"] == "input_audio":
            return Media("audio", f"audio/{part['input_audio']['format']}", part["input_audio"]["data"])
        if part["type"] == "input_file":
            return Media("document", *files_of(part.get("file_data") or part["file_url"]))
        return None

    def choice(self, said: Any) -> object:
        if not isinstance(said, dict):
            return said
        if said["type"] == "allowed_tools":
            return tuple(tool["name"] for tool in said["tools"])
        return (said["name"],)

    def counted(self, tokens: int) -> Json:
        return {"object": "response.input_tokens", "input_tokens": tokens}


# ---- Messages ------------------------------------------------------------------------------------------------


class Anthropic(Speaker):
    """docs.anthropic.com/en/api/messages, and anthropic 2.14's types."""

    provider = "kind: anthropic"
    model = "claude-opus-4-7"
    key = ("x-api-key", "key-of-nobody")
    request_id = ("request-id", "req_1")
    ends = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}

    def path(self, *, streamed: bool) -> str:
        return "/v1/messages"

    def usage(self, spent: Spent) -> Json:
        """`input_tokens` leaves out what was read from the cache and what was written to it."""
        hour = spent.written // 2
        return {
            "input_tokens": spent.input - spent.cached - spent.written,
            "cache_creation_input_tokens": spent.written,
            "cache_read_input_tokens": spent.cached,
            "cache_creation": {
                "ephemeral_5m_input_tokens": spent.written - hour,
                "ephemeral_1h_input_tokens": hour,
            },
            "output_tokens": spent.output,
            "output_tokens_details": {"thinking_tokens": spent.thought},
            "service_tier": "standard",
        }

    def blocks(self, answer: Answer) -> list[Json]:
        blocks: list[Json] = []
        if answer.thinking:
            blocks.append({"type": "thinking", "thinking": answer.thinking, "signature": SIGNATURE})
        if answer.text or answer.refusal:
            blocks.append({"type": "text", "text": answer.text or answer.refusal})
        blocks += [{"type": "tool_use", "id": c.id, "name": c.name, "input": c.arguments} for c in answer.calls]
        return blocks

    def message(self, answer: Answer, **more: Any) -> Json:
        head = {"id": "msg_1", "type": "message", "role": "assistant", "model": self.model}
        return {**head, "content": self.blocks(answer), **self.end(answer), "usage": self.usage(answer.spent), **more}

    def end(self, answer: Answer) -> Json:
        return {"stop_reason": self.ends.get(answer.end, answer.end), "stop_sequence": None}

    def whole(self, answer: Answer) -> Json:
        return self.message(answer)

    def reply(self, answer: Answer) -> object:
        return {"role": "assistant", "content": self.blocks(answer)}

    def opening(self, answer: Answer) -> list[Json]:
        begin = {"input_tokens": 1, "output_tokens": 1}
        events: list[Json] = [
            {
                "type": "message_start",
                "message": self.message(answer, content=[], stop_reason=None, usage=begin),
            },
            {"type": "ping"},
        ]
        for at, block in enumerate(self.blocks(answer)):
            empty, deltas = self.pieces(block)
            events.append({"type": "content_block_start", "index": at, "content_block": empty})
            events += [{"type": "content_block_delta", "index": at, "delta": delta} for delta in deltas]
            events.append({"type": "content_block_stop", "index": at})
        return events

    def pieces(self, block: Json) -> tuple[Json, list[Json]]:
        if block["type"] == "thinking":
            deltas = [{"type": "thinking_delta", "thinking": piece} for piece in halves(block["thinking"])]
            signed = {"type": "signature_delta", "signature": block["signature"]}
            return {**block, "thinking": "", "signature": ""}, [*deltas, signed]
        if block["type"] == "text":
            return {**block, "text": ""}, [{"type": "text_delta", "text": piece} for piece in halves(block["text"])]
        pieces = ["", *halves(json.dumps(block["input"]))]
        return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]

    def events(self, answer: Answer, body: Json) -> list[bytes]:
        last = {"type": "message_delta", "delta": self.end(answer), "usage": self.usage(answer.spent)}
        return [data(event, name=True) for event in [*self.opening(answer), last, {"type": "message_stop"}]]

    def begun(self, answer: Answer) -> list[bytes]:
        return [data(event, name=True) for event in self.opening(answer)]

    def breaks(self) -> list[bytes]:
        error = {"type": "overloaded_error", "message": "Overloaded", "details": None}
        return [data({"type": "error", "error": error, "request_id": "req_1"}, name=True)]

    def failed(self, name: str) -> Failed:
        status, kind = {
            "AuthenticationError": (401, "authentication_error"),
            "PermissionDeniedError": (403, "permission_error"),
            "NotFoundError": (404, "not_found_error"),
            "RateLimitError": (429, "rate_limit_error"),
            "QuotaExceededError": (402, "billing_error"),
            "OverloadedError": (529, "overloaded_error"),
            "ServerError": (500, "api_error"),
        }.get(name, (400, "invalid_request_error"))
        body = {"type": "error", "error": {"type": kind, "message": "No."}, "request_id": "req_1"}
        told = {"retry-after": "7"} if name == "RateLimitError" else {}
        return Failed(status, body, told, kind, 7.0 if told else None)

    def objects(self, body: Json) -> str | None:
        """What the reference says of limits, thinking and tool results."""
        if "max_tokens" not in body:
            return "max_tokens: Field required"
        thinking = body.get("thinking") or {}
        if thinking.get("type") == "enabled" and not 1024 <= thinking["budget_tokens"] < body["max_tokens"]:
            return "budget_tokens is at least 1024 and less than max_tokens"
        if thinking.get("type") in ("enabled", "adaptive") and (body.get("tool_choice") or {}).get("type") in (
            "any",
            "tool",
        ):
            return "thinking may not be enabled when tool_choice forces tool use"
        waiting: set[str] = set()
        for turn in body["messages"]:
            blocks = self.content(turn["content"])
            if waiting != {block["tool_use_id"] for block in blocks if block["type"] == "tool_result"}:
                return f"tool_use ids {sorted(waiting)} want their tool_result blocks in the next turn"
            waiting = {block["id"] for block in blocks if block["type"] == "tool_use"}
            if not blocks or any(block["type"] == "text" and not block["text"] for block in blocks):
                return "text content blocks must be non-empty"
        return None

    def asked(self, path: str, body: Json) -> Asked:
        turns = [(turn["role"], self.content(turn["content"])) for turn in body["messages"]]
        blocks = [block for _, content in turns for block in content]
        names = {block["id"]: block["name"] for block in blocks if block["type"] == "tool_use"}
        config = body.get("output_config") or {}
        choice = body.get("tool_choice") or {}
        system = self.content(body.get("system", ""))
        one = choice.get("disable_parallel_tool_use")
        effort = {"output_config": {"effort": config["effort"]}} if "effort" in config else {}
        marks = [("system", system), ("turn", blocks), ("tool", body.get("tools", ()))]
        return Asked(
            body["model"],
            bool(body.get("stream")),
            self.words(system),
            tuple((role, self.words(content)) for role, content in turns if not self.is_results(content)),
            tuple(media for block in blocks if (media := self.media(block))),
            {tool["name"]: tool["input_schema"] for tool in body.get("tools", ())},
            (choice["name"],) if choice.get("type") == "tool" else {"any": "required"}.get(*[choice.get("type")] * 2),
            None if one is None else not one,
            (config.get("format") or {}).get("schema"),
            tuple(
                (names[block["tool_use_id"]], block["content"]) for block in blocks if block["type"] == "tool_result"
            ),
            tuple({"role": role, "content": content} for role, content in turns if role == "assistant"),
            {**filled(body, "thinking"), **effort},
            filled(body, "temperature", "top_p", "max_tokens"),
            tuple(body.get("stop_sequences", ())),
            body.get("seed"),
            body.get("n"),
            None,
            body.get("metadata", {}),
            tuple(
                f"{where}={block['cache_control'].get('ttl', '5m')}"
                for where, blocks in [("request", [body]), *marks]
                for block in blocks
                if "cache_control" in block
            ),
            body,
        )

    def content(self, content: Any) -> list[Json]:
        if isinstance(content, str):
            return [{"type": "text", "text": content}] if content else []
        return list(content)

    def words(self, content: Sequence[Json]) -> str:
        return "".join(block["text"] for block in content if block["type"] == "text")

    def is_results(self, content: Sequence[Json]) -> bool:
        return bool(content) and all(block["type"] == "tool_result" for block in content)

    def media(self, block: Json) -> Media | None:
        if block["type"] not in ("image", "document"):
            return None
        source = block["source"]
        return Media(block["type"], source.get("media_type"), source.get("data"), source.get("url"))

    def listed(self, *models: str) -> Json:
        entries = [
            {"type": "model", "id": name, "display_name": name.upper(), "created_at": "2026-02-01T00:00:00Z"}
            for name in models
        ]
        return {"data": entries, "has_more": False, "first_id": models[0], "last_id": models[-1]}


# ---- generateContent -----------------------------------------------------------------------------------------


class Google(Speaker):
    """ai.google.dev/api/generate-content, and google-genai 3.6's types."""

    provider = "kind: google"
    folder = "/v1beta"
    model = "gemini-3-pro"
    vectors = "gemini-embedding-001"
    key = ("x-goog-api-key", "key-of-nobody")
    place: ClassVar[str] = "/v1beta"
    ends = {"stop": "STOP", "length": "MAX_TOKENS", "tool_calls": "STOP", "content_filter": "SAFETY"}

    def path(self, *, streamed: bool) -> str:
        method = "streamGenerateContent?alt=sse" if streamed else "generateContent"
        return f"{self.place}/models/{self.model}:{method}"

    def usage(self, spent: Spent) -> Json:
        """Thoughts are not among the candidates' tokens."""
        return {
            "promptTokenCount": spent.input,
            "cachedContentTokenCount": spent.cached,
            "candidatesTokenCount": spent.output - spent.thought,
            "thoughtsTokenCount": spent.thought,
            "totalTokenCount": spent.input + spent.output,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": spent.input}],
        }

    def parts(self, answer: Answer) -> list[Json]:
        """Thoughts, words, calls; the first call is signed."""
        parts: list[Json] = []
        if answer.thinking:
            parts.append({"text": answer.thinking, "thought": True})
        if answer.text or answer.refusal:
            parts.append({"text": answer.text or answer.refusal})
        for at, call in enumerate(answer.calls):
            signed = {"thoughtSignature": SIGNATURE} if at == 0 else {}
            parts.append({"functionCall": {"name": call.name, "args": call.arguments}, **signed})
        return parts

    def body(self, *candidates: Json, spent: Spent, **more: Any) -> Json:
        return {
            "candidates": list(candidates),
            "usageMetadata": self.usage(spent),
            "modelVersion": self.model,
            "responseId": "resp1",
            **more,
        }

    def candidate(self, parts: Sequence[Json], at: int = 0, **more: Any) -> Json:
        return {"content": {"role": "model", "parts": list(parts)} if parts else {}, "index": at, **more}

    def ending(self, answer: Answer) -> Json:
        said: Json = {"finishReason": self.ends.get(answer.end, answer.end)}
        if answer.tokens:
            said["logprobsResult"] = {
                "chosenCandidates": [{"token": name, "logProbability": prob} for name, prob, _ in answer.tokens],
                "topCandidates": [
                    {"candidates": [{"token": name, "logProbability": prob} for name, prob in tops]}
                    for _, _, tops in answer.tokens
                ],
            }
        return said

    def whole(self, answer: Answer) -> Json:
        if answer.finish == "blocked prompt":
            return self.blocked(answer)
        answers = [answer, *(Answer(text) for text in answer.others)]
        candidates = [self.candidate(self.parts(each), at, **self.ending(each)) for at, each in enumerate(answers)]
        return self.body(*candidates, spent=answer.spent)

    def blocked(self, answer: Answer) -> Json:
        """A prompt that was blocked: status 200, and no candidates."""
        feedback = {"blockReason": "PROHIBITED_CONTENT", "safetyRatings": []}
        used = {"promptTokenCount": answer.spent.input, "totalTokenCount": answer.spent.input}
        return {"promptFeedback": feedback, "usageMetadata": used, "modelVersion": self.model, "responseId": "resp1"}

    def reply(self, answer: Answer) -> object:
        return {"role": "model", "parts": self.parts(answer)}

    def events(self, answer: Answer, body: Json) -> list[bytes]:
        if answer.finish == "blocked prompt":
            return [data(self.blocked(answer), end="\r\n\r\n")]
        answers = [answer, *(Answer(text) for text in answer.others)]
        last = [
            self.body(self.candidate([{"text": ""}], at, **self.ending(each)), spent=answer.spent)
            for at, each in enumerate(answers)
        ]
        return [*self.begun(answer), *(data(event, end="\r\n\r\n") for event in last)]

    def begun(self, answer: Answer) -> list[bytes]:
        answers = [answer, *(Answer(text) for text in answer.others)]
        pieces = [[self.candidate([part], at) for part in self.pieces(each)] for at, each in enumerate(answers)]
        longest = max(map(len, pieces))
        mixed = [row[step] for step in range(longest) for row in pieces if step < len(row)]
        return [data(self.body(each, spent=Spent(answer.spent.input, output=0)), end="\r\n\r\n") for each in mixed]

    def pieces(self, answer: Answer) -> list[Json]:
        """Words come in pieces, a call in one."""
        found = []
        for part in self.parts(answer):
            words = halves(part["text"]) if "text" in part else []
            found += [{**part, "text": piece} for piece in words] or [part]
        return found

    def breaks(self) -> list[bytes]:
        error = {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}
        return [data({"error": error}, end="\r\n\r\n")]

    def objects(self, body: Json) -> str | None:
        """Gemini 3 wants the signature of each turn's first call, and as many results as calls."""
        waiting = 0
        for turn in body["contents"]:
            calls = [part for part in turn["parts"] if "functionCall" in part]
            results = [part for part in turn["parts"] if "functionResponse" in part]
            if len(results) != waiting:
                return "as many function response parts as function call parts are wanted"
            if calls and not calls[0].get("thoughtSignature"):
                return "Function call is missing a thought_signature in functionCall parts"
            waiting = len(calls)
        return None

    def wrapped(self, failed: Failed, *, streamed: bool) -> object:
        """A stream's error stands in a list, as its pieces would."""
        return [failed.body] if streamed else failed.body

    def failed(self, name: str) -> Failed:
        rpc = "type.googleapis.com/google.rpc."
        retry = {"@type": f"{rpc}RetryInfo", "retryDelay": "34.4s"}

        def quota(which: str) -> Json:
            return {"@type": f"{rpc}QuotaFailure", "violations": [{"quotaId": f"GenerateRequests{which}PerProject"}]}

        known: dict[str, tuple[int, str, list[Json]]] = {
            "AuthenticationError": (
                400,
                "INVALID_ARGUMENT",
                [{"@type": f"{rpc}ErrorInfo", "reason": "API_KEY_INVALID", "domain": "googleapis.com"}],
            ),
            "PermissionDeniedError": (403, "PERMISSION_DENIED", []),
            "NotFoundError": (404, "NOT_FOUND", []),
            "RateLimitError": (429, "RESOURCE_EXHAUSTED", [quota("PerMinute"), retry]),
            "QuotaExceededError": (429, "RESOURCE_EXHAUSTED", [quota("PerDay"), retry]),
            "OverloadedError": (503, "UNAVAILABLE", []),
            "ServerError": (500, "INTERNAL", []),
        }
        status, word, details = known.get(name, (400, "INVALID_ARGUMENT", []))
        error = {"code": status, "message": "No.", "status": word, **({"details": details} if details else {})}
        return Failed(status, {"error": error}, {}, word, 34.4 if retry in details else None)

    def asked(self, path: str, body: Json) -> Asked:
        contents, config = body["contents"], body.get("generationConfig", {})
        calling = (body.get("toolConfig") or {}).get("functionCallingConfig") or {}
        names = calling.get("allowedFunctionNames")
        modes = {"AUTO": "auto", "ANY": "required", "NONE": "none", "VALIDATED": "auto"}
        spoken = [turn for turn in contents if not any("functionResponse" in part for part in turn["parts"])]
        declared = [each for tool in body.get("tools", ()) for each in tool.get("functionDeclarations", ())]
        results = [
            part["functionResponse"] for turn in contents for part in turn["parts"] if "functionResponse" in part
        ]
        return Asked(
            path.rpartition("/models/")[2].partition(":")[0],
            ":streamGenerateContent?alt=sse" in path,
            "".join(part["text"] for part in body.get("systemInstruction", {}).get("parts", ())),
            tuple(({"model": "assistant"}.get(turn["role"], turn["role"]), self.words(turn)) for turn in spoken),
            tuple(media for turn in contents for part in turn["parts"] if (media := self.media(part))),
            {each["name"]: each.get("parametersJsonSchema", {}) for each in declared},
            tuple(names) if names else modes.get(calling.get("mode", "")),
            None,
            config.get("responseJsonSchema"),
            tuple((each["name"], each["response"].get("result", each["response"])) for each in results),
            tuple(turn for turn in contents if turn["role"] == "model"),
            config.get("thinkingConfig", {}),
            filled(config, "temperature", "topP", "maxOutputTokens"),
            tuple(config.get("stopSequences", ())),
            config.get("seed"),
            config.get("candidateCount"),
            config.get("logprobs", 0) if config.get("responseLogprobs") else None,
            body.get("labels", {}),
            tuple(filled(body, "cachedContent")),
            body,
        )

    def words(self, turn: Json) -> str:
        return "".join(part["text"] for part in turn["parts"] if "text" in part and not part.get("thought"))

    def media(self, part: Json) -> Media | None:
        if "inlineData" in part:
            kind = part["inlineData"]["mimeType"]
            return Media(self.kind(kind), kind, part["inlineData"]["data"])
        if "fileData" in part:
            kind = part["fileData"].get("mimeType")
            return Media(self.kind(kind), kind, url=part["fileData"]["fileUri"])
        return None

    def kind(self, media_type: str | None) -> str:
        top = (media_type or "").partition("/")[0]
        return top if top in ("image", "audio") else "document" if media_type else "unnamed"

    def listed(self, *models: str) -> Json:
        entries = [{"name": f"models/{name}", "displayName": name.upper(), "inputTokenLimit": 1000} for name in models]
        return {"models": entries}

    def embedded(self, *vectors: Sequence[float]) -> Json:
        return {"embeddings": [{"values": list(vector)} for vector in vectors]}

    def texts(self, body: Json) -> list[str]:
        return [part["text"] for each in body["requests"] for part in each["content"]["parts"]]

    def counted(self, tokens: int) -> Json:
        return {"totalTokens": tokens, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": tokens}]}


class Vertex(Google):
    """cloud.google.com/vertex-ai: the same under a project's address, with a token instead of a key."""

    folder = "/v1/projects/p/locations/global/publishers/google"
    place = folder
    vectors = "text-embedding-005"
    key = ("authorization", "Bearer token-of-1")

    def failed(self, name: str) -> Failed:
        if name != "AuthenticationError":
            return super().failed(name)
        error = {"code": 401, "message": "No.", "status": "UNAUTHENTICATED"}
        return Failed(401, {"error": error}, {}, "UNAUTHENTICATED")

    def listed(self, *models: str) -> Json:
        return {"publisherModels": [{"name": f"publishers/google/models/{name}"} for name in models]}

    def embedded(self, *vectors: Sequence[float]) -> Json:
        counted = {"statistics": {"token_count": 2, "truncated": False}}
        return {"predictions": [{"embeddings": {"values": list(vector), **counted}} for vector in vectors]}

    def texts(self, body: Json) -> list[str]:
        return [each["content"] for each in body["instances"]]


SPEAKERS: Mapping[str, Speaker] = {
    "chat": Chat(),
    "responses": Responses(),
    "azure": Azure(),
    "deepseek": DeepSeek(),
    "moonshot": Moonshot(),
    "anthropic": Anthropic(),
    "google": Google(),
    "vertex": Vertex(),
}
