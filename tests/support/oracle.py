"""What an official SDK makes of an answer, as plain JSON. Runs in an environment of its own, and knows nothing of ours.

    python oracle.py openai      its version; then for each job, a line of input, a verdict, a line of output
    {"api": "chat", "base_url": "http://127.0.0.1:1/v1", "body": {…}, "stream": true}  ──▶  {"answer": {"text": …}}

APIs: chat, responses, embeddings; messages, count, also -beta; generate, embed, count, also -vertex.
A call goes through the SDK's public method wherever that has a word for what the body says; the rest of the body goes
by `extra_body`. Streams are added up by the SDK where it has something that does it. An error that the SDK raises for a
status is a verdict, {"status": 429, "retry_after": "7"}; any other exception of it is {"failed": "…"}.
"""

from __future__ import annotations

import base64
import inspect
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from typing import Any

Job = Mapping[str, Any]
Answer = dict[str, Any]

KEY = "key-of-nobody"
LIMIT = 60.0  # seconds


def main(sdk: str) -> None:
    call = {"openai": openai, "anthropic": anthropic, "google": google}[sdk]()
    print(json.dumps({"version": version("google-genai" if sdk == "google" else sdk)}), flush=True)
    for line in sys.stdin:
        try:
            verdict: Answer = {"answer": call(json.loads(line))}
        except Exception as error:
            verdict = failure(error)
        print(json.dumps(verdict), flush=True)


def failure(error: Exception) -> Answer:
    status = getattr(error, "status_code", None) or getattr(error, "code", None)
    if not isinstance(status, int):
        return {"failed": f"{type(error).__name__}: {error}"[:300]}
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    return {"status": status, "retry_after": headers.get("retry-after"), "message": str(error)[:300]}


def called(method: Callable[..., Any], body: Mapping[str, Any], **more: Any) -> Any:
    """The method with those fields of the body that it has a name for, and the rest as `extra_body`."""
    known = inspect.signature(method).parameters
    face = {name: value for name, value in body.items() if name in known and name != "stream"}
    rest = {name: value for name, value in body.items() if name not in known}
    return method(**face, **more, **({"extra_body": rest} if rest else {}))


def dumped(value: Any) -> Any:
    """One of the SDK's values as the JSON that it was read from, unknown fields included and defaults left out."""
    return None if value is None else value.to_dict(mode="json")


def parsed(arguments: str) -> Any:
    """The JSON text of a tool call's arguments; an empty text stands for none, and no JSON stays what it is."""
    try:
        return json.loads(arguments) if arguments.strip() else {}
    except ValueError:
        return arguments


# ---- openai --------------------------------------------------------------------------------------------------


def openai() -> Callable[[Job], Answer]:
    from openai import OpenAI

    root = OpenAI(api_key=KEY, base_url="http://127.0.0.1:9", max_retries=0, timeout=LIMIT)
    calls = {"chat": chat, "responses": responses, "embeddings": embeddings}
    return lambda job: calls[job["api"]](root.with_options(base_url=job["base_url"]), job)


def chat(client: Any, job: Job) -> Answer:
    create = client.chat.completions.create
    if not job["stream"]:
        return completion(called(create, job["body"]))
    from openai.lib.streaming.chat import ChatCompletionStreamState

    state, usage, tier = ChatCompletionStreamState(), None, None
    for chunk in called(create, job["body"], stream=True):
        state.handle_chunk(chunk)
        usage = spent(chunk) or usage  # the state forgets it where the last chunk has none
        tier = chunk.service_tier or tier  # the state has that of the first chunk
    return {**completion(state.current_completion_snapshot), "usage": usage, "service_tier": tier}


def completion(answer: Any) -> Answer:
    choices = sorted(answer.choices, key=lambda choice: choice.index or 0)
    return {
        "id": answer.id,
        "model": answer.model,
        "service_tier": answer.service_tier,
        "usage": spent(answer),
        "choices": [choice_of(choice) for choice in choices],
    }


def spent(answer: Any) -> Any:
    """Moonshot says it in the last choice; the SDK keeps what it has no field for."""
    extra = [(choice.model_extra or {}).get("usage") for choice in answer.choices or []]
    return dumped(answer.usage) or next((usage for usage in extra if usage), None)


def choice_of(choice: Any) -> Answer:
    message, logprobs = choice.message, choice.logprobs
    extra = message.model_extra or {}
    return {
        "text": message.content or "",
        "refusal": message.refusal or "",
        "thinking": extra.get("reasoning_content") or extra.get("reasoning") or "",
        "calls": [*map(call_of, message.tool_calls or []), *old_call(message.function_call)],
        "finish": choice.finish_reason or None,
        "annotations": [dumped(annotation) for annotation in message.annotations or []],
        "logprobs": tokens([*(logprobs.content or []), *(logprobs.refusal or [])] if logprobs else []),
    }


def call_of(call: Any) -> list[Any]:
    if call.type == "custom":
        return [call.id, call.custom.name, call.custom.input]
    return [call.id, call.function.name, parsed(call.function.arguments)]


def old_call(call: Any) -> list[Any]:
    """The one call of earlier days, which has no id."""
    return [] if call is None else [[None, call.name, parsed(call.arguments)]]


def tokens(found: Iterable[Any]) -> list[Any]:
    return [[each.token, each.logprob, [[top.token, top.logprob] for top in each.top_logprobs or []]] for each in found]


def responses(client: Any, job: Job) -> Answer:
    create = client.responses.create
    if not job["stream"]:
        return output(called(create, job["body"]))
    last = None
    for event in called(create, job["body"], stream=True):
        if event.type in ("response.completed", "response.incomplete", "response.failed"):
            last = event.response
    return {"unfinished": True} if last is None else output(last)


def output(answer: Any) -> Answer:
    if answer.error is not None:
        return {"error": answer.error.code}
    messages = [entry for item in answer.output if item.type == "message" for entry in item.content]
    said = [entry for entry in messages if entry.type == "output_text"]
    thoughts = [item for item in answer.output if item.type == "reasoning"]
    calls = [item for item in answer.output if item.type == "function_call"]
    details, known = answer.incomplete_details, ("message", "reasoning", "function_call")
    return {
        "id": answer.id,
        "model": answer.model,
        "service_tier": answer.service_tier,
        "usage": dumped(answer.usage),
        "text": answer.output_text,
        "refusal": "".join(entry.refusal for entry in messages if entry.type == "refusal"),
        "thinking": "".join(each.text for item in thoughts for each in [*(item.summary or []), *(item.content or [])]),
        "calls": [[call.call_id, call.name, parsed(call.arguments)] for call in calls],
        "finish": (details.reason if details is not None else None) or answer.status,
        "annotations": [dumped(annotation) for entry in said for annotation in entry.annotations or []],
        "logprobs": tokens(token for entry in said for token in entry.logprobs or []),
        "others": [dumped(item) for item in answer.output if item.type not in known or is_empty(item)],
    }


def is_empty(item: Any) -> bool:
    return bool(item.type == "message" and not item.content)


def embeddings(client: Any, job: Job) -> Answer:
    answer = called(client.embeddings.create, job["body"])
    return {"model": answer.model, "usage": dumped(answer.usage), "vectors": [each.embedding for each in answer.data]}


# ---- anthropic -----------------------------------------------------------------------------------------------


def anthropic() -> Callable[[Job], Answer]:
    from anthropic import Anthropic

    root = Anthropic(api_key=KEY, base_url="http://127.0.0.1:9", max_retries=0, timeout=LIMIT)

    def call(job: Job) -> Answer:
        client = root.with_options(base_url=job["base_url"])
        messages = client.beta.messages if job["api"].endswith("-beta") else client.messages
        if job["api"].startswith("count"):
            return {"input_tokens": called(messages.count_tokens, job["body"]).input_tokens}
        if not job["stream"]:
            return message(called(messages.create, job["body"]))
        body = {name: value for name, value in job["body"].items() if name != "stream"}
        with called(messages.stream, body) as stream:
            return message(stream.get_final_message())

    return call


def message(answer: Any) -> Answer:
    blocks = answer.content
    words = [block for block in blocks if block.type == "text"]
    return {
        "id": answer.id,
        "model": answer.model,
        "usage": dumped(answer.usage),
        "finish": answer.stop_reason,
        "stop_sequence": answer.stop_sequence,
        "text": "".join(block.text for block in words),
        "thinking": "".join(block.thinking for block in blocks if block.type == "thinking"),
        "signatures": [
            block.signature if block.type == "thinking" else block.data
            for block in blocks
            if block.type in ("thinking", "redacted_thinking")
        ],
        "calls": [[block.id, block.name, block.input] for block in blocks if block.type == "tool_use"],
        "citations": [dumped(citation) for block in words for citation in block.citations or []],
        "others": [
            dumped(block) for block in blocks if block.type not in ("text", "thinking", "redacted_thinking", "tool_use")
        ],
    }


# ---- google --------------------------------------------------------------------------------------------------


def google() -> Callable[[Job], Answer]:
    from google import genai
    from google.genai import types

    gemini = genai.Client(api_key=KEY, http_options=types.HttpOptions(base_url="http://127.0.0.1:9"))
    vertex = genai.Client(vertexai=True, api_key=KEY, http_options=types.HttpOptions(base_url="http://127.0.0.1:9"))

    def call(job: Job) -> Answer:
        client = vertex if job["api"].endswith("-vertex") else gemini
        body, model = dict(job["body"]), job["model"]
        limit = int(LIMIT * 1000)
        options = types.HttpOptions(base_url=job["base_url"], api_version="v1beta", extra_body=body, timeout=limit)
        models = client.models
        if job["api"].startswith("embed"):
            options.extra_body = None
            config = types.EmbedContentConfig(http_options=options)
            return vectors(models.embed_content(model=model, contents=job["texts"], config=config))
        if job["api"].startswith("count"):
            options.extra_body = None
            config = types.CountTokensConfig(http_options=options)
            return {"input_tokens": models.count_tokens(model=model, contents="?", config=config).total_tokens}
        try:
            contents: Any = [types.Content.model_validate(content) for content in body["contents"]]
            del body["contents"]
        except (ValueError, TypeError):  # a field that the SDK has no word for goes by extra_body
            contents = "?"
        config = types.GenerateContentConfig(http_options=options)
        if job["stream"]:
            return candidates(list(models.generate_content_stream(model=model, contents=contents, config=config)))
        return candidates([models.generate_content(model=model, contents=contents, config=config)])

    return call


def candidates(chunks: list[Any]) -> Answer:
    """Pieces of an answer as one: parts go on, and of everything else the last word counts."""
    usage = [chunk.usage_metadata for chunk in chunks if chunk.usage_metadata is not None]
    blocked = [chunk.prompt_feedback.block_reason for chunk in chunks if chunk.prompt_feedback is not None]
    found: dict[int, list[Any]] = {}
    for chunk in chunks:
        for at, candidate in enumerate(chunk.candidates or []):
            found.setdefault(at if candidate.index is None else candidate.index, []).append(candidate)
    return {
        "id": last(chunk.response_id for chunk in chunks),
        "model": last(chunk.model_version for chunk in chunks),
        "blocked": last(reason and reason.value for reason in blocked),
        "usage": usage[-1].model_dump(mode="json", exclude_none=True) if usage else None,
        "choices": [candidate_of(pieces) for _, pieces in sorted(found.items())],
    }


def last(values: Iterable[Any]) -> Any:
    return next((value for value in reversed(list(values)) if value is not None), None)


def candidate_of(pieces: list[Any]) -> Answer:
    parts = [part for piece in pieces if piece.content is not None for part in piece.content.parts or []]
    words = [part for part in parts if part.text is not None]
    return {
        "finish": last(piece.finish_reason and piece.finish_reason.value for piece in pieces),
        "text": "".join(part.text for part in words if not part.thought),
        "thinking": "".join(part.text for part in words if part.thought),
        "signatures": [base64.b64encode(part.thought_signature).decode() for part in parts if part.thought_signature],
        "calls": [function_call(part.function_call) for part in parts if part.function_call is not None],
        "media": [base64.b64encode(media.inline_data.data or b"").decode() for media in media_of(parts)],
        "code": [[part.executable_code.language, part.executable_code.code] for part in parts if part.executable_code],
        "outcomes": [
            [part.code_execution_result.outcome, part.code_execution_result.output or ""]
            for part in parts
            if part.code_execution_result
        ],
        "logprobs": [
            [chosen.token, chosen.log_probability]
            for piece in pieces
            if piece.logprobs_result is not None
            for chosen in piece.logprobs_result.chosen_candidates or []
        ],
    }


def media_of(parts: list[Any]) -> list[Any]:
    """Pictures and sound; a picture that is a thought is none of the answer."""
    return [part for part in parts if part.inline_data is not None and not part.thought]


def function_call(call: Any) -> list[Any]:
    """A call, marked where it is only a piece of one."""
    return [call.id, call.name, call.args or {}, *(["a piece"] if call.partial_args or call.will_continue else [])]


def vectors(answer: Any) -> Answer:
    return {"vectors": [embedding.values for embedding in answer.embeddings or []]}


if __name__ == "__main__":
    main(sys.argv[1])
