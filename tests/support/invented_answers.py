"""Answers that nobody recorded, written after the documented formats: what is rare on the wire, and what goes wrong.

INVENTED    one `Recording` each, which a test replays as it does recorded traffic
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from tests.support.recordings import Recording

__all__ = ["INVENTED"]

_OPENAI, _ANTHROPIC = "https://api.openai.com/v1", "https://api.anthropic.com/v1"
_GOOGLE = "https://generativelanguage.googleapis.com/v1beta/models/gemini-2.5-flash"
_VERTEX = "https://aiplatform.googleapis.com/v1/projects/p/locations/global/publishers/google/models/gemini-3-pro"

_USED = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}
_ASKED: Mapping[str, Mapping[str, Any]] = {
    "chat": {"model": "gpt-4o", "messages": [{"role": "user", "content": "?"}]},
    "responses": {"model": "gpt-5", "input": "?"},
    "messages": {"model": "claude-opus-4-5", "max_tokens": 9, "messages": [{"role": "user", "content": "?"}]},
    "generate": {"contents": [{"role": "user", "parts": [{"text": "?"}]}]},
}


def _whole(name: str, uri: str, asked: str, body: Any, status: int = 200, **headers: str) -> Recording:
    named = {"content-type": "application/json", **{key.replace("_", "-"): value for key, value in headers.items()}}
    return Recording(f"{asked}, {name}", uri, dict(_ASKED[asked]), status, named, json.dumps(body).encode())


def _streamed(name: str, uri: str, asked: str, events: Iterable[Mapping[str, Any]], *, done: str = "") -> Recording:
    """Events with a name where they have a type, as OpenAI's Responses and Anthropic have them."""
    lines = [
        (f"event: {event['type']}\n" if asked in ("responses", "messages") else "")
        + f"data: {json.dumps(event, ensure_ascii=False)}\n\n"
        for event in events
    ]
    body = ("".join(lines) + done).encode()
    request = {**_ASKED[asked], **({} if asked == "generate" else {"stream": True})}
    return Recording(f"{asked}, {name}", uri, request, 200, {"content-type": "text/event-stream"}, body)


# ---- chat ----------------------------------------------------------------------------------------------------

_CHAT = f"{_OPENAI}/chat/completions"
_DONE = "data: [DONE]\n\n"


def _token(token: str, logprob: float, *tops: tuple[str, float]) -> dict[str, Any]:
    others = [{"token": top, "logprob": number, "bytes": None} for top, number in tops]
    return {"token": token, "logprob": logprob, "bytes": list(token.encode()), "top_logprobs": others}


def _completion(*choices: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    numbered = [{"index": at, "logprobs": None, "finish_reason": "stop", **choice} for at, choice in enumerate(choices)]
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-4o-2024-11-20"}
    return {**head, "choices": numbered, "usage": _USED, **more}


def _chunk(delta: Mapping[str, Any] | None = None, *, index: int = 0, **more: Any) -> dict[str, Any]:
    choice = {key: more.pop(key) for key in ("finish_reason", "logprobs") if key in more}
    choices = [] if delta is None else [{"index": index, "delta": delta, "finish_reason": None, **choice}]
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o"}
    return {**head, "choices": choices, **more}


def _piece(index: int, arguments: str, **more: Any) -> dict[str, Any]:
    name = {"name": more.pop("name")} if "name" in more else {}
    return {"tool_calls": [{"index": index, **more, "function": {**name, "arguments": arguments}}]}


_CHATS = (
    _whole(
        "several answers with log probabilities",
        _CHAT,
        "chat",
        _completion(
            {"message": {"role": "assistant", "content": "Hei"}, "logprobs": {"content": [_token("Hei", -0.5)]}},
            {
                "message": {"role": "assistant", "content": "Å"},
                "logprobs": {"content": [_token("Å", -1.5, ("A", -2.0))]},
            },
            service_tier="default",
        ),
    ),
    _whole(
        "a refusal",
        _CHAT,
        "chat",
        _completion({"message": {"role": "assistant", "content": None, "refusal": "I cannot help with that."}}),
    ),
    _whole(
        "usage of every kind",
        _CHAT,
        "chat",
        _completion(
            {"message": {"role": "assistant", "content": "ok"}, "finish_reason": "length"},
            usage={
                "prompt_tokens": 100,
                "completion_tokens": 50,
                "total_tokens": 150,
                "prompt_tokens_details": {"cached_tokens": 30, "audio_tokens": 4},
                "completion_tokens_details": {"reasoning_tokens": 20, "audio_tokens": 2},
            },
        ),
    ),
    _whole(
        "arguments that are no JSON",
        _CHAT,
        "chat",
        _completion(
            {
                "message": {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"x": '}},
                        {"id": "call_2", "type": "function", "function": {"name": "g", "arguments": ""}},
                    ],
                },
                "finish_reason": "tool_calls",
            }
        ),
    ),
    _whole(
        "a 429",
        _CHAT,
        "chat",
        {"error": {"message": "Slow.", "type": "requests", "code": "rate_limit_exceeded"}},
        429,
        retry_after="3",
    ),
    _streamed(
        "two calls whose pieces are mixed",
        _CHAT,
        "chat",
        [
            _chunk({"role": "assistant", "content": None}),
            _chunk(_piece(0, "", id="call_1", type="function", name="f")),
            _chunk(_piece(1, "", id="call_2", type="function", name="g")),
            _chunk(_piece(1, '{"y":')),
            _chunk(_piece(0, '{"x": "Å')),
            _chunk(_piece(1, "2}")),
            _chunk(_piece(0, '\\u2028"}')),
            _chunk({}, finish_reason="tool_calls"),
            _chunk(usage=_USED),
        ],
        done=_DONE,
    ),
    _streamed(
        "several answers, a refusal, log probabilities",
        _CHAT,
        "chat",
        [
            _chunk({"role": "assistant", "content": ""}),
            _chunk({"role": "assistant", "content": ""}, index=1),
            _chunk({"content": "Hei"}, logprobs={"content": [_token("Hei", -0.5)]}),
            _chunk({"refusal": "I can"}, index=1),
            _chunk({"content": " på\u2028deg"}, logprobs={"content": [_token(" på\u2028deg", -0.25, (" du", -3.0))]}),
            _chunk({"refusal": "not."}, index=1),
            _chunk({}, finish_reason="stop"),
            _chunk({}, index=1, finish_reason="stop"),
            _chunk(usage=_USED),
        ],
        done=_DONE,
    ),
    _streamed(
        "usage in the last choice",
        "https://api.moonshot.ai/v1/chat/completions",
        "chat",
        [
            _chunk({"role": "assistant", "reasoning_content": "Hm."}),
            _chunk({"content": "3"}),
            {
                **_chunk(),
                "choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "usage": {**_USED, "cached_tokens": 4}}],
            },
        ],
        done=_DONE,
    ),
    _streamed("a stream without an end", _CHAT, "chat", [_chunk({"role": "assistant", "content": "Once"})]),
    _streamed(
        "an error in a stream",
        _CHAT,
        "chat",
        [_chunk({"content": "Once"}), {"error": {"message": "Gone.", "type": "server_error", "code": None}}],
    ),
)

# ---- responses -----------------------------------------------------------------------------------------------

_RESPONSES = f"{_OPENAI}/responses"


def _response(*output: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    head = {"id": "resp_1", "object": "response", "created_at": 1, "model": "gpt-5-2025-08-07", "status": "completed"}
    usage = {
        "input_tokens": 12,
        "input_tokens_details": {"cached_tokens": 8},
        "output_tokens": 30,
        "output_tokens_details": {"reasoning_tokens": 20},
        "total_tokens": 42,
    }
    rest = {"parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "error": None, "incomplete_details": None}
    return {**head, **rest, "output": list(output), "usage": usage, "service_tier": "default", **more}


def _said(*content: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": list(content)}


_CITED = {"type": "url_citation", "url": "https://example.org", "title": "An example", "start_index": 0, "end_index": 3}
_THOUGHT = {
    "type": "reasoning",
    "id": "rs_1",
    "summary": [{"type": "summary_text", "text": "First."}, {"type": "summary_text", "text": "Then."}],
    "encrypted_content": "Zm9v",
}
_SEARCH = {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "x"}}
_CALL = {
    "type": "function_call",
    "id": "fc_1",
    "call_id": "call_1",
    "name": "f",
    "arguments": '{"x":1}',
    "status": "completed",
}
_WORDS = {"type": "output_text", "text": "Oslo.", "annotations": [_CITED], "logprobs": []}


_PLACE = {"item_id": "msg_1", "output_index": 2, "content_index": 0}


def _summary(index: int, text: str) -> list[dict[str, Any]]:
    place = {"item_id": "rs_1", "output_index": 0, "summary_index": index}
    part = {"type": "summary_text", "text": text}
    return [
        {"type": "response.reasoning_summary_part.added", **place, "part": {**part, "text": ""}},
        {"type": "response.reasoning_summary_text.delta", **place, "delta": text[:3]},
        {"type": "response.reasoning_summary_text.delta", **place, "delta": text[3:]},
        {"type": "response.reasoning_summary_text.done", **place, "text": text},
        {"type": "response.reasoning_summary_part.done", **place, "part": part},
    ]


_RESPONSE = _response(_THOUGHT, _SEARCH, _said(_WORDS), _CALL)
_OUTPUTS = (
    _whole("thoughts, a search, a citation and a call", _RESPONSES, "responses", _RESPONSE),
    _whole("a refusal", _RESPONSES, "responses", _response(_said({"type": "refusal", "refusal": "No."}))),
    _whole(
        "an answer that is too long",
        _RESPONSES,
        "responses",
        _response(
            _said({**_WORDS, "annotations": []}),
            status="incomplete",
            incomplete_details={"reason": "max_output_tokens"},
        ),
    ),
    _whole(
        "an answer that failed",
        _RESPONSES,
        "responses",
        _response(status="failed", error={"code": "server_error", "message": "Gone."}),
    ),
    _streamed(
        "thoughts, words and a call in pieces",
        _RESPONSES,
        "responses",
        [
            {"type": "response.created", "sequence_number": 0, "response": _response(status="in_progress", usage=None)},
            {"type": "response.output_item.added", "output_index": 0, "item": {**_THOUGHT, "summary": []}},
            *(event for at, text in enumerate(("First.", "Then.")) for event in _summary(at, text)),
            {"type": "response.output_item.done", "output_index": 0, "item": _THOUGHT},
            {"type": "response.output_item.added", "output_index": 1, "item": _SEARCH},
            {"type": "response.output_item.done", "output_index": 1, "item": _SEARCH},
            {"type": "response.output_item.added", "output_index": 2, "item": {**_said(), "status": "in_progress"}},
            {"type": "response.content_part.added", **_PLACE, "part": {**_WORDS, "text": "", "annotations": []}},
            {"type": "response.output_text.delta", **_PLACE, "delta": "Os", "obfuscation": "xx"},
            {"type": "response.output_text.delta", **_PLACE, "delta": "lo."},
            {"type": "response.output_text.annotation.added", **_PLACE, "annotation_index": 0, "annotation": _CITED},
            {"type": "response.output_text.done", **_PLACE, "text": "Oslo."},
            {"type": "response.content_part.done", **_PLACE, "part": _WORDS},
            {"type": "response.output_item.done", "output_index": 2, "item": _said(_WORDS)},
            {"type": "response.output_item.added", "output_index": 3, "item": {**_CALL, "arguments": ""}},
            {"type": "response.function_call_arguments.delta", "item_id": "fc_1", "output_index": 3, "delta": '{"x"'},
            {"type": "response.function_call_arguments.delta", "item_id": "fc_1", "output_index": 3, "delta": ":1}"},
            {
                "type": "response.function_call_arguments.done",
                "item_id": "fc_1",
                "output_index": 3,
                "arguments": '{"x":1}',
            },
            {"type": "response.output_item.done", "output_index": 3, "item": _CALL},
            {"type": "response.something_new", "sequence_number": 30},
            {"type": "response.completed", "sequence_number": 31, "response": _RESPONSE},
        ],
    ),
    _streamed(
        "an answer that failed, as a stream",
        _RESPONSES,
        "responses",
        [
            {"type": "response.created", "response": _response(status="in_progress", usage=None)},
            {
                "type": "response.failed",
                "response": _response(status="failed", error={"code": "server_error", "message": "Gone."}),
            },
        ],
    ),
)

# ---- messages ------------------------------------------------------------------------------------------------

_MESSAGES = f"{_ANTHROPIC}/messages"


def _message(*content: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-opus-4-5-20251101"}
    usage = {
        "input_tokens": 10,
        "output_tokens": 20,
        "cache_read_input_tokens": 300,
        "cache_creation_input_tokens": 50,
        "cache_creation": {"ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 30},
        "service_tier": "standard",
    }
    return {**head, "content": list(content), "stop_reason": "end_turn", "stop_sequence": None, "usage": usage, **more}


_CITATION = {
    "type": "char_location",
    "cited_text": "The grass.",
    "document_index": 0,
    "document_title": None,
    "start_char_index": 0,
    "end_char_index": 10,
    "file_id": None,
}
_HOSTED = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}}
_FOUND = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []}


def _block(index: int, block: Mapping[str, Any], *deltas: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"type": "content_block_start", "index": index, "content_block": block},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


_BLOCKS = (
    _whole(
        "thoughts in the clear and in cipher, hosted tools, citations",
        _MESSAGES,
        "messages",
        _message(
            {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"},
            {"type": "redacted_thinking", "data": "Y2lwaGVy"},
            _HOSTED,
            _FOUND,
            {"type": "text", "text": "It is ", "citations": None},
            {"type": "text", "text": "green.", "citations": [_CITATION]},
            {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}},
            stop_reason="tool_use",
        ),
    ),
    _whole(
        "a word that stops it",
        _MESSAGES,
        "messages",
        _message({"type": "text", "text": "1, 2"}, stop_reason="stop_sequence", stop_sequence="3"),
    ),
    _whole(
        "a 529",
        _MESSAGES,
        "messages",
        {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}, "request_id": "req_1"},
        529,
    ),
    _streamed(
        "every kind of block",
        _MESSAGES,
        "messages",
        [
            {"type": "message_start", "message": _message(stop_reason=None)},
            {"type": "ping"},
            *_block(
                0,
                {"type": "thinking", "thinking": "", "signature": ""},
                {"type": "thinking_delta", "thinking": "H"},
                {"type": "thinking_delta", "thinking": "m."},
                {"type": "signature_delta", "signature": "c2ln"},
            ),
            *_block(1, {"type": "redacted_thinking", "data": "Y2lwaGVy"}),
            *_block(
                2,
                {**_HOSTED, "input": {}},
                {"type": "input_json_delta", "partial_json": '{"query":'},
                {"type": "input_json_delta", "partial_json": '"x"}'},
            ),
            *_block(3, _FOUND),
            *_block(
                4,
                {"type": "text", "text": "", "citations": []},
                {"type": "text_delta", "text": "gr\u2028e"},
                {"type": "citations_delta", "citation": _CITATION},
                {"type": "text_delta", "text": "en."},
            ),
            *_block(
                5,
                {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}},
                {"type": "input_json_delta", "partial_json": ""},
                {"type": "input_json_delta", "partial_json": '{"x": [1,'},
                {"type": "input_json_delta", "partial_json": " 2]}"},
            ),
            *_block(6, {"type": "tool_use", "id": "toolu_2", "name": "g", "input": {}}),
            {
                "type": "message_delta",
                "delta": {"stop_reason": "tool_use", "stop_sequence": None},
                "usage": {"output_tokens": 77},
            },
            {"type": "message_stop"},
        ],
    ),
    _streamed(
        "an error in a stream",
        _MESSAGES,
        "messages",
        [
            {"type": "message_start", "message": _message(stop_reason=None)},
            *_block(0, {"type": "text", "text": ""}, {"type": "text_delta", "text": "Once"}),
            {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
        ],
    ),
)

# ---- generateContent -----------------------------------------------------------------------------------------


def _content(*parts: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {"content": {"role": "model", "parts": list(parts)}, "index": 0, **more}


def _generated(*candidates: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    usage = {
        "promptTokenCount": 10,
        "candidatesTokenCount": 5,
        "totalTokenCount": 38,
        "thoughtsTokenCount": 16,
        "toolUsePromptTokenCount": 7,
        "cachedContentTokenCount": 3,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 8}, {"modality": "AUDIO", "tokenCount": 2}],
    }
    head = {"usageMetadata": usage, "modelVersion": "gemini-2.5-flash", "responseId": "resp1"}
    return {"candidates": list(candidates), **head, **more}


_SIGNED = {"functionCall": {"name": "f", "args": {"x": [1, {"y": None}]}, "id": "call1"}, "thoughtSignature": "c2ln"}
_CODE = {"executableCode": {"language": "PYTHON", "code": "print(1)"}}
_OUTCOME = {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1\n"}}
_PICTURE = {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}}
_CHOSEN = {"chosenCandidates": [{"token": "Hei", "tokenId": 1, "logProbability": -0.5}]}


_CANDIDATES = (
    _whole(
        "parts of every kind",
        f"{_GOOGLE}:generateContent",
        "generate",
        _generated(
            _content(
                {"text": "Hm.", "thought": True},
                _CODE,
                _OUTCOME,
                {"text": "Hei"},
                _PICTURE,
                _SIGNED,
                finishReason="STOP",
            )
        ),
    ),
    _whole(
        "several answers with log probabilities",
        f"{_GOOGLE}:generateContent",
        "generate",
        _generated(
            _content({"text": "Hei"}, finishReason="STOP", logprobsResult=_CHOSEN),
            {**_content({"text": "Hallo"}, finishReason="MAX_TOKENS"), "index": 1},
        ),
    ),
    _whole(
        "a prompt that was blocked",
        f"{_GOOGLE}:generateContent",
        "generate",
        {
            key: value
            for key, value in _generated(promptFeedback={"blockReason": "SAFETY"}).items()
            if key != "candidates"
        },
    ),
    _whole(
        "a 429",
        f"{_GOOGLE}:generateContent",
        "generate",
        {"error": {"code": 429, "message": "Slow.", "status": "RESOURCE_EXHAUSTED"}},
        429,
    ),
    _streamed(
        "thoughts, words and calls in pieces",
        f"{_GOOGLE}:streamGenerateContent?alt=sse",
        "generate",
        [
            _generated(_content({"text": "H", "thought": True})),
            _generated(_content({"text": "m.", "thought": True})),
            _generated(_content({"text": "He"})),
            _generated(_content({"text": "i\u2028", "thoughtSignature": "c2ln"}, _SIGNED)),
            _generated(_content({"functionCall": {"name": "g"}})),
            _generated(_content({"text": ""}, finishReason="STOP")),
        ],
    ),
    _streamed(
        "arguments that come piece by piece",
        f"{_VERTEX}:streamGenerateContent?alt=sse",
        "generate",
        [
            _generated(_content({"functionCall": {"name": "f", "willContinue": True}})),
            _generated(
                _content(
                    {
                        "functionCall": {
                            "partialArgs": [{"jsonPath": "$.x", "stringValue": "O", "willContinue": True}],
                            "willContinue": True,
                        }
                    }
                )
            ),
            _generated(
                _content(
                    {"functionCall": {"partialArgs": [{"jsonPath": "$.x", "stringValue": "slo"}], "willContinue": True}}
                )
            ),
            _generated(_content({"functionCall": {}})),
            _generated(_content(finishReason="STOP")),
        ],
    ),
    _streamed(
        "a stream without an end",
        f"{_GOOGLE}:streamGenerateContent?alt=sse",
        "generate",
        [_generated(_content({"text": "Once"}))],
    ),
)

INVENTED: tuple[Recording, ...] = (*_CHATS, *_OUTPUTS, *_BLOCKS, *_CANDIDATES)
