"""Google's Gemini API and Vertex: what is written for a request, what is read of an answer, whole or as it comes."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from agentflow.llm.content import Audio, Document, Image, Raw, Reasoning, Text, ToolCall, ToolResult
from agentflow.llm.messages import (
    EmbeddingRequest,
    Message,
    ModelInfo,
    OutputFormat,
    PromptCache,
    Request,
    Response,
    StreamChunk,
    Thinking,
    TokenLogprob,
    Tool,
    Usage,
)
from agentflow.llm.providers.base import EmbeddingProvider, ModelLister, ProviderSettings, Secret, TokenCounter
from agentflow.llm.providers.failures import Source, read_error, wire_error
from agentflow.llm.providers.google.answers import GoogleReading
from agentflow.llm.providers.google.provider import GoogleApi, GoogleProvider
from agentflow.llm.providers.http import Answer
from agentflow.llm.streaming.join import join
from agentflow.llm.streaming.sse import ServerSentEvent

API = GoogleApi()
SOURCE = Source("google", "gemini-2.5-flash")
FLASH, LATE = "gemini-2.5-flash", "gemini-3-flash-preview"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = Tool("weather", "Says the weather.", SCHEMA)
PIXEL = b"\x89PNG\r\n\x1a\n"


def body_of(*messages: Message, model: str = FLASH, **more: Any) -> Any:
    """The body that a request makes, as JSON has it."""
    turns = messages or (Message("user", "Hello"),)
    return msgspec.json.decode(msgspec.json.encode(API.write(Request(model, turns, **more), stream=False).body))


def contents_of(*messages: Message, model: str = FLASH) -> Any:
    return body_of(*messages, model=model)["contents"]


def config_of(model: str = FLASH, **more: Any) -> Any:
    return body_of(model=model, **more).get("generationConfig")


def answer(*parts: Any, **more: Any) -> dict[str, Any]:
    """A body with one candidate."""
    candidate = {"content": {"role": "model", "parts": list(parts)}, "finishReason": "STOP", "index": 0}
    return {
        "candidates": [{**candidate, **more.pop("candidate", {})}],
        "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 2, "totalTokenCount": 5},
        "modelVersion": "gemini-2.5-flash-001",
        "responseId": "r1",
        **more,
    }


def read(body: Any) -> Response:
    return API.read(json.dumps(body).encode(), SOURCE)


def chunks_of(*events: Any) -> list[StreamChunk]:
    reading = API.reading(SOURCE)
    chunks = [chunk for event in events for chunk in reading.read(ServerSentEvent(json.dumps(event)))]
    assert reading.finished
    return [*chunks, *reading.end()]


def joined(*events: Any) -> Response:
    return join(chunks_of(*events), provider="google", model=FLASH)


def piece(*parts: Any, finish: str | None = None, **more: Any) -> dict[str, Any]:
    """One event of a stream."""
    body = answer(*parts, **more)
    if finish is None:
        del body["candidates"][0]["finishReason"]
    else:
        body["candidates"][0]["finishReason"] = finish
    return body


# ---- what is asked: turns ------------------------------------------------------------------------------------


def test_a_question_is_one_content_of_the_user() -> None:
    """Nothing is sent that nobody said."""
    assert body_of(Message("user", "Hello")) == {"contents": [{"role": "user", "parts": [{"text": "Hello"}]}]}


def test_an_assistant_is_called_model_on_the_wire() -> None:
    """The turns keep their order."""
    turns = contents_of(Message("user", "Hi"), Message("assistant", "Hello"), Message("user", "Bye"))
    assert [turn["role"] for turn in turns] == ["user", "model", "user"]


def test_system_turns_become_the_system_instruction_wherever_they_stand() -> None:
    """The API has one place for all of them, and developer is another word for system."""
    body = body_of(Message("system", "Be brief."), Message("user", "Hi"), Message("developer", "In Dutch."))
    assert body["systemInstruction"] == {"parts": [{"text": "Be brief."}, {"text": "In Dutch."}]}
    assert len(body["contents"]) == 1


def test_an_assistant_turn_without_a_word_is_left_out() -> None:
    """The API refuses empty turns, and a blocked answer is one."""
    assert len(contents_of(Message("user", "Hi"), Message("assistant", ""), Message("user", "Again"))) == 2


@pytest.mark.parametrize("empty", ["", (Text(""),)])
def test_empty_texts_are_not_sent(empty: Any) -> None:
    """They say nothing, and Vertex refuses them."""
    assert contents_of(Message("user", empty), Message("user", "q")) == [{"role": "user", "parts": [{"text": "q"}]}]


def test_blanks_are_text() -> None:
    """A model's line break between its calls goes back where it stood."""
    parts = [{"text": "\n"}, {"functionCall": {"name": "f", "args": {}}, "thoughtSignature": "s"}]
    assert contents_of(read(answer(*parts)).message)[0]["parts"] == parts
    assert contents_of(Message("user", " ")) == [{"role": "user", "parts": [{"text": " "}]}]


def test_arguments_that_are_no_json_go_back_inside_an_object() -> None:
    turn = contents_of(Message("user", "?"), Message("assistant", (ToolCall.parse("1", "f", "[1"),)))[1]
    assert turn["parts"][0]["functionCall"]["args"] == {"INVALID_JSON": "[1"}


def test_a_block_that_comes_in_the_middle_of_an_answer_ends_it() -> None:
    reading = GoogleReading(SOURCE)
    chunks = reading.read_piece({"candidates": [{"content": {"role": "model", "parts": [{"text": "Hi"}]}}]})
    assert not reading.finished
    chunks += reading.read_piece({"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}})
    assert reading.finished
    told = join([*chunks, *reading.end()], provider="google", model="m")
    assert (told.text, told.finish_reason, told.raw_finish_reason) == ("Hi", "content_filter", "PROHIBITED_CONTENT")


def test_an_empty_text_with_a_signature_of_its_own_goes_back() -> None:
    """The API ends streams with one, and wants it again."""
    signed = {"text": "", "thoughtSignature": "s"}
    assert contents_of(read(answer({"text": "a"}, signed)).message)[0]["parts"] == [{"text": "a"}, signed]


@pytest.mark.parametrize("content", ["12 °C", (Text("12 °C"),), "", (ToolResult("1", "ok", "f"), Image(PIXEL))])
def test_a_tools_turn_is_made_of_results(content: Any) -> None:
    """Words alone answer no call."""
    turns = (Message("user", "?"), Message("assistant", (ToolCall("1", "f"),)), Message("tool", content))
    with pytest.raises(BadRequestError, match="ToolResult"):
        contents_of(*turns)


def test_an_unknown_role_goes_as_it_is_and_an_empty_one_is_left_out() -> None:
    """Roles are open: the API also takes contents without one."""
    assert contents_of(Message("function", "x"), Message("", "y")) == [
        {"role": "function", "parts": [{"text": "x"}]},
        {"parts": [{"text": "y"}]},
    ]


# ---- what is asked: media ------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [Image(source=PIXEL, media_type="image/png"), Audio(source=b"x", media_type="a/b")])
def test_bytes_go_as_inline_data(part: Image | Audio) -> None:
    """In base64, with their type."""
    (written,) = contents_of(Message("user", (part,)))[0]["parts"]
    assert written == {"inlineData": {"mimeType": part.kind, "data": part.data}}


def test_an_address_goes_as_file_data() -> None:
    """Also one of cloud storage; the type is sent where it is known."""
    parts = (Document(source="gs://bucket/a.pdf", media_type="application/pdf"), Image(source="https://x.example/a"))
    assert contents_of(Message("user", parts))[0]["parts"] == [
        {"fileData": {"fileUri": "gs://bucket/a.pdf", "mimeType": "application/pdf"}},
        {"fileData": {"fileUri": "https://x.example/a"}},
    ]


@pytest.mark.parametrize("name", ["abc", "files/abc", "https://generativelanguage.googleapis.com/v1beta/files/abc"])
def test_an_uploaded_file_goes_by_its_address(name: str) -> None:
    """Whether its id is given bare, as the API's list has it, or whole."""
    (part,) = contents_of(Message("user", (Document(source=f"file-id:{name}"),)))[0]["parts"]
    assert part == {"fileData": {"fileUri": "https://generativelanguage.googleapis.com/v1beta/files/abc"}}


@pytest.mark.parametrize("part", [Image(source=b"x"), Image(source="/tmp/never-read.png")])
def test_media_that_cannot_be_sent_is_refused_before_any_byte_leaves(part: Image) -> None:
    """Bytes without a type, and a path that nobody has read: the error says what to do."""
    with pytest.raises(BadRequestError, match=r"media_type|not been read"):
        body_of(Message("user", (part,)))


# ---- what is asked: reasoning, calls, results ----------------------------------------------------------------


def test_reasoning_of_another_api_is_left_out() -> None:
    """History moves between providers; thoughts and unmodelled parts stay with their own."""
    parts = (Reasoning("Hm", opaque={"anthropic": {"signature": "s"}}), Raw("anthropic", {"type": "x"}), Text("Yes"))
    assert contents_of(Message("user", "?"), Message("assistant", parts))[1]["parts"] == [{"text": "Yes"}]


def test_a_raw_part_goes_back_verbatim() -> None:
    """Such as code that ran there."""
    data = {"executableCode": {"language": "PYTHON", "code": "1"}, "thoughtSignature": "s"}
    assert contents_of(Message("assistant", (Raw("google", data),)))[0]["parts"] == [data]


def test_a_tool_result_is_a_function_response_with_the_name_of_the_call() -> None:
    """The name comes from the earlier call with that id; an id that AgentFlow made up is not sent."""
    call = ToolCall("ours-1", "weather", {"city": "Oslo"}, opaque={"google": {"thoughtSignature": "s"}})
    _, asked, told = contents_of(
        Message("user", "?"), Message("assistant", (call,)), Message("tool", (ToolResult("ours-1", "sunny"),))
    )
    assert asked["parts"] == [{"functionCall": {"name": "weather", "args": {"city": "Oslo"}}, "thoughtSignature": "s"}]
    assert told == {
        "role": "user",
        "parts": [{"functionResponse": {"name": "weather", "response": {"result": "sunny"}}}],
    }


def test_an_id_that_the_api_gave_goes_back_with_the_call_and_with_its_result() -> None:
    """It is what tells parallel calls apart."""
    call = read(answer({"functionCall": {"name": "weather", "args": {}, "id": "g7"}})).message
    _, asked, told = contents_of(Message("user", "?"), call, Message("tool", (ToolResult("g7", "sunny"),)))
    assert asked["parts"][0]["functionCall"]["id"] == "g7"
    assert told["parts"][0]["functionResponse"]["id"] == "g7"


def test_a_result_without_a_name_and_without_its_call_is_refused() -> None:
    """The error says which id, and what to say."""
    with pytest.raises(BadRequestError, match=r"'lost'.*name="):
        body_of(Message("tool", (ToolResult("lost", "x"),)))
    assert contents_of(Message("tool", (ToolResult("lost", "x", "weather"),)))


@pytest.mark.parametrize(
    ("result", "response"),
    [
        (ToolResult("1", "plain", "f"), {"result": "plain"}),
        (ToolResult("1", '{"a": 1}', "f"), {"a": 1}),
        (ToolResult("1", "[1]", "f"), {"result": "[1]"}),
        (ToolResult("1", "{broken", "f"), {"result": "{broken"}),
        (ToolResult("1", (Text("a"), Text("b")), "f"), {"result": "ab"}),
        (ToolResult("1", "it broke", "f", is_error=True), {"error": "it broke"}),
        (ToolResult("1", '{"code": 7}', "f", is_error=True), {"error": {"code": 7}}),
        (ToolResult("1", '{"error": "x"}', "f", is_error=True), {"error": "x"}),
    ],
)
def test_a_result_is_an_object_on_the_wire(result: ToolResult, response: Any) -> None:
    """A JSON object as it is, any other text under `result`, a failure under `error`."""
    assert contents_of(Message("tool", (result,)))[0]["parts"][0]["functionResponse"]["response"] == response


def test_results_in_successive_turns_become_one_content() -> None:
    """The API wants as many responses in one turn as there were calls."""
    calls = Message("assistant", (ToolCall("a", "f"), ToolCall("b", "g")))
    turns = contents_of(calls, Message("tool", (ToolResult("a", "1"),)), Message("tool", (ToolResult("b", "2"),)))
    assert [part["functionResponse"]["name"] for part in turns[1]["parts"]] == ["f", "g"]
    assert len(turns) == 2


def test_results_without_ids_stand_in_the_order_of_their_calls() -> None:
    """Two calls of one function differ in nothing but their place."""
    calls = Message("assistant", (ToolCall("a", "f", {"n": 1}), ToolCall("b", "f", {"n": 2})))
    turns = contents_of(calls, Message("tool", (ToolResult("b", "two"),)), Message("tool", (ToolResult("a", "one"),)))
    assert [part["functionResponse"]["response"]["result"] for part in turns[1]["parts"]] == ["one", "two"]


def test_media_in_a_result_stands_inside_it_for_gemini_3_and_behind_it_before() -> None:
    """Each model family takes it in its own place."""
    image = Image(source=PIXEL, media_type="image/png")
    inline = {"inlineData": {"mimeType": "image/png", "data": image.data}}
    turn = Message("tool", (ToolResult("1", (Text("see"), image), "draw"),))
    response = {"name": "draw", "response": {"result": "see"}}
    assert contents_of(turn, model=LATE)[0]["parts"] == [{"functionResponse": {**response, "parts": [inline]}}]
    assert contents_of(turn, model=FLASH)[0]["parts"] == [{"functionResponse": response}, inline]


def test_arguments_that_are_no_json_go_back_under_a_name_that_says_so() -> None:
    """Another model may have written them; the API takes objects alone."""
    call = ToolCall.parse("1", "f", "{oops")
    (part,) = contents_of(Message("assistant", (call,)))[0]["parts"]
    assert part == {"functionCall": {"name": "f", "args": {"INVALID_JSON": "{oops"}}}


def test_the_first_call_of_another_model_gets_the_documented_signature_for_gemini_3() -> None:
    """Gemini 3 refuses a step whose first call has none; the second, and earlier models, need nothing."""
    turn = Message("assistant", (ToolCall("a", "f"), ToolCall("b", "g")))
    signatures = [part.get("thoughtSignature") for part in contents_of(turn, model=LATE)[0]["parts"]]
    assert signatures == ["skip_thought_signature_validator", None]
    assert all("thoughtSignature" not in part for part in contents_of(turn, model=FLASH)[0]["parts"])


@pytest.mark.parametrize("lost", [{}, {"thoughtSignature": None}, {"thoughtSignature": ""}, {"thoughtSignature": 1}])
def test_a_first_call_without_a_signature_of_use_gets_the_documented_one_for_gemini_3(lost: dict[str, Any]) -> None:
    """Gemini 2.5 gives none, and gateways lose them; Gemini 3 refuses such a history."""
    call = {"functionCall": {"name": "f", "args": {}}}
    turn = read(answer({**call, **lost}, call)).message
    signatures = [part.get("thoughtSignature") for part in contents_of(turn, model=LATE)[0]["parts"]]
    assert signatures == ["skip_thought_signature_validator", None]
    assert "skip" not in json.dumps(contents_of(turn, model=FLASH))


def test_a_signature_that_came_with_a_call_goes_back_with_it() -> None:
    """On the first call, where the API puts it, and on no other."""
    signed = {"functionCall": {"name": "f", "args": {}}, "thoughtSignature": "s"}
    turn = read(answer(signed, {"functionCall": {"name": "g", "args": {}}})).message
    assert contents_of(turn, model=LATE)[0]["parts"] == [signed, {"functionCall": {"name": "g", "args": {}}}]


# ---- what is asked: tools, output, settings ------------------------------------------------------------------


def test_functions_share_one_entry_and_hosted_tools_stand_beside_it() -> None:
    """The schema goes as JSON Schema; another API's own tools are left out."""
    tools = (Raw("google", {"googleSearch": {}}), WEATHER, Raw("openai", {"type": "web_search"}), Tool("now"))
    assert body_of(tools=tools)["tools"] == [
        {"googleSearch": {}},
        {
            "functionDeclarations": [
                {"name": "weather", "description": "Says the weather.", "parametersJsonSchema": SCHEMA},
                {"name": "now", "description": ""},
            ]
        },
    ]


@pytest.mark.parametrize(
    ("choice", "config"),
    [
        ("auto", {"mode": "AUTO"}),
        ("none", {"mode": "NONE"}),
        ("required", {"mode": "ANY"}),
        ("weather", {"mode": "ANY", "allowedFunctionNames": ["weather"]}),
        (("weather", "now"), {"mode": "ANY", "allowedFunctionNames": ["weather", "now"]}),
    ],
)
def test_the_choice_of_tools_is_a_mode(choice: Any, config: Any) -> None:
    """A name, or several, are the only ones that may be called."""
    assert body_of(tools=(WEATHER,), tool_choice=choice)["toolConfig"] == {"functionCallingConfig": config}


def test_a_strict_tool_asks_for_validated_calls() -> None:
    """Unless a call is required, which keeps to the schema anyway; without either nothing is said."""
    strict = Tool("weather", parameters=SCHEMA, strict=True)
    assert body_of(tools=(strict,))["toolConfig"] == {"functionCallingConfig": {"mode": "VALIDATED"}}
    assert body_of(tools=(strict,), tool_choice="required")["toolConfig"] == {"functionCallingConfig": {"mode": "ANY"}}
    assert "toolConfig" not in body_of(tools=(WEATHER,))


def test_parallel_calls_cannot_be_forbidden() -> None:
    """The API has no word for it, so it is refused; allowing them is its habit."""
    with pytest.raises(BadRequestError, match="parallel_tool_calls"):
        body_of(parallel_tool_calls=False)
    assert body_of(parallel_tool_calls=True) == body_of()


def test_settings_stand_in_the_generation_config() -> None:
    """Each under its name on the wire."""
    found = config_of(temperature=0, top_p=0.5, top_k=7, max_tokens=9, n=2, seed=0, stop=("a", "b"))
    assert found == {
        "temperature": 0,
        "topP": 0.5,
        "topK": 7,
        "maxOutputTokens": 9,
        "candidateCount": 2,
        "seed": 0,
        "stopSequences": ["a", "b"],
    }
    assert config_of() is None


def test_log_probabilities_are_asked_for_with_or_without_alternatives() -> None:
    """0 asks for the chosen tokens alone."""
    assert config_of(logprobs=0) == {"responseLogprobs": True}
    assert config_of(logprobs=3) == {"responseLogprobs": True, "logprobs": 3}


def test_a_shape_is_asked_for_as_json_schema() -> None:
    """Without a schema any JSON will do."""
    assert config_of(output=OutputFormat("city", SCHEMA)) == {
        "responseMimeType": "application/json",
        "responseJsonSchema": SCHEMA,
    }
    assert config_of(output=OutputFormat("any")) == {"responseMimeType": "application/json"}


@pytest.mark.parametrize(
    ("model", "thinking", "config"),
    [
        (LATE, Thinking("low"), {"thinkingLevel": "LOW"}),
        (LATE, Thinking("max"), {"thinkingLevel": "HIGH"}),
        (LATE, Thinking("none"), {"thinkingLevel": "MINIMAL"}),
        (LATE, Thinking("xhigh"), {"thinkingLevel": "XHIGH"}),
        (LATE, Thinking(budget=512), {"thinkingBudget": 512}),
        (FLASH, Thinking("none"), {"thinkingBudget": 0}),
        (FLASH, Thinking("low"), {"thinkingBudget": 1024}),
        (FLASH, Thinking("medium"), {"thinkingBudget": 8192}),
        (FLASH, Thinking("high", show=True), {"thinkingBudget": 24576, "includeThoughts": True}),
        ("publishers/google/models/gemini-2.5-pro", Thinking("low", 77), {"thinkingBudget": 77}),
        (FLASH, Thinking(budget=0, show=False), {"thinkingBudget": 0, "includeThoughts": False}),
        ("tunedModels/mine", Thinking("medium"), {"thinkingLevel": "MEDIUM"}),
        (FLASH, Thinking(), None),
    ],
)
def test_thinking_goes_as_it_was_asked_for(model: str, thinking: Thinking, config: Any) -> None:
    """A level for an effort, a budget for a budget; models before Gemini 3 get the budget that an effort stands for."""
    found = config_of(model, thinking=thinking)
    assert found == (None if config is None else {"thinkingConfig": config})


def test_an_effort_that_stands_for_no_budget_is_refused() -> None:
    """Guessing a number would be worse."""
    with pytest.raises(BadRequestError, match="budget"):
        config_of(thinking=Thinking("colossal"))


def test_metadata_goes_as_labels() -> None:
    """Which bills can be split by."""
    assert body_of(metadata={"team": "search"})["labels"] == {"team": "search"}


def test_params_are_laid_over_the_body_field_by_field() -> None:
    """So everything that is not modelled can be said, and what is modelled can be overruled."""
    params = {
        "generationConfig": {"topP": 0.1, "responseModalities": ["TEXT"]},
        "safetySettings": [{"category": "X"}],
        "cachedContent": "cachedContents/7",
        "toolConfig": {"functionCallingConfig": {"streamFunctionCallArguments": True}},
        "systemInstruction": {"role": "user"},
        "labels": None,
    }
    body = body_of(
        Message("system", "S"), Message("user", "U"), params=params, top_p=0.9, seed=1, tool_choice="auto",
        metadata={"a": "b"},
    )  # fmt: skip
    assert body["generationConfig"] == {"topP": 0.1, "seed": 1, "responseModalities": ["TEXT"]}
    assert body["toolConfig"]["functionCallingConfig"] == {"mode": "AUTO", "streamFunctionCallArguments": True}
    assert body["systemInstruction"] == {"parts": [{"text": "S"}], "role": "user"}
    assert (body["cachedContent"], body["labels"], len(body["safetySettings"])) == ("cachedContents/7", None, 1)


def test_hints_that_the_api_has_no_word_for_change_nothing() -> None:
    """It caches by itself."""
    cached = Message("user", (Text("Hello", cache="1h"),))
    assert body_of(cached, cache=PromptCache("1h", "k")) == body_of()


# ---- addresses -----------------------------------------------------------------------------------------------

VERTEX = "/projects/p/locations/l/publishers/google"


@pytest.mark.parametrize(
    ("place", "model", "path"),
    [
        ("", "gemini-3-pro", "/models/gemini-3-pro"),
        ("", "models/gemini-3-pro", "/models/gemini-3-pro"),
        ("", "tunedModels/mine-7", "/tunedModels/mine-7"),
        ("", "odd name?alt=x#y", "/models/odd%20name%3Falt%3Dx%23y"),
        ("", "a:b", "/models/a%3Ab"),
        ("", "100%", "/models/100%25"),
        (VERTEX, "gemini-3-pro", f"{VERTEX}/models/gemini-3-pro"),
        (VERTEX, "gemini-1.5-pro@001", f"{VERTEX}/models/gemini-1.5-pro@001"),
        (VERTEX, "publishers/google/models/g", f"{VERTEX}/models/g"),
        (VERTEX, "publishers/meta/models/m", "/projects/p/locations/l/publishers/meta/models/m"),
        (VERTEX, "endpoints/7", "/projects/p/locations/l/endpoints/7"),
        (VERTEX, "projects/q/locations/k/endpoints/7", "/projects/q/locations/k/endpoints/7"),
        ("/publishers/google", "gemini-3-pro", "/publishers/google/models/gemini-3-pro"),
    ],
)
def test_a_model_has_its_own_address(place: str, model: str, path: str) -> None:
    """Bare, under its folder, tuned, of another publisher, as an endpoint; odd letters are encoded."""
    request = Request(model, (Message("user", "Hi"),))
    assert GoogleApi(place).write(request, stream=False).path == f"{path}:generateContent"
    assert GoogleApi(place).write(request, stream=True).path == f"{path}:streamGenerateContent?alt=sse"


@pytest.mark.parametrize("model", ["", "..", "models/../../secrets", "models/", "/x", "a//b", "./x"])
def test_no_model_id_leads_out_of_its_folder(model: str) -> None:
    """It is refused before any byte leaves."""
    with pytest.raises(BadRequestError, match="no model id"):
        API.write(Request(model, (Message("user", "Hi"),)), stream=False)


# ---- what is answered ----------------------------------------------------------------------------------------


def test_an_answer_is_read_whole() -> None:
    """Text, model, id, usage and why it ended."""
    found = read(answer({"text": "Hi"}))
    assert (found.text, found.content, found.model, found.id) == ("Hi", "Hi", "gemini-2.5-flash-001", "r1")
    assert (found.finish_reason, found.raw_finish_reason) == ("stop", "STOP")
    assert found.usage == Usage(3, 2)
    assert found.provider == "google"


def test_thoughts_are_reasoning() -> None:
    """And no part of the text."""
    found = read(answer({"text": "Hm", "thought": True}, {"text": "Hi", "thoughtSignature": "s"}))
    assert (found.text, found.reasoning) == ("Hi", "Hm")
    assert found.parts[1] == Text("Hi", opaque={"google": {"thoughtSignature": "s"}})


def test_a_call_makes_the_reason_tool_calls() -> None:
    """The API itself says STOP."""
    found = read(answer({"functionCall": {"name": "f", "args": {"a": 1.5}}}))
    (call,) = found.tool_calls
    assert (call.name, call.arguments, found.finish_reason, found.raw_finish_reason) == (
        "f", {"a": 1.5}, "tool_calls", "STOP",
    )  # fmt: skip


def test_calls_without_ids_get_stable_ones_of_their_own() -> None:
    """The same for the same answer, others for another call and another answer."""
    parts = [{"functionCall": {"name": "f", "args": {}}}] * 2
    ids = [call.id for call in read(answer(*parts)).tool_calls]
    assert ids == [call.id for call in read(answer(*parts)).tool_calls]
    assert len({*ids, *(call.id for call in read(answer(*parts, responseId="r2")).tool_calls)}) == 4


def test_calls_of_several_answers_have_different_ids() -> None:
    """Also where each answer makes the same call."""
    one = answer({"functionCall": {"name": "f"}})["candidates"][0]
    found = read(answer(candidates=[one, {**one, "index": 1}]))
    other = found.alternatives[0].content[0]
    assert isinstance(other, ToolCall)
    assert found.tool_calls[0].id != other.id
    assert all(re.fullmatch("[a-zA-Z0-9_-]{1,64}", call.id) for call in (found.tool_calls[0], other))


def test_a_call_beside_an_empty_text_is_a_call() -> None:
    """Gateways write every field of a part; the call must not be lost, and all goes back."""
    part = {"text": "", "functionCall": {"name": "f", "args": {"a": 1}}}
    for found in (read(answer(part)), joined(piece(part, finish="STOP"))):
        (call,) = found.tool_calls
        assert (call.name, call.arguments, found.finish_reason) == ("f", {"a": 1}, "tool_calls")
        assert contents_of(found.message)[0]["parts"] == [part]
    code = {"text": "", "executableCode": {"code": "1"}}
    assert read(answer(code)).parts == (Raw("google", code),)


def test_fields_that_say_nothing_make_no_part_of_their_own() -> None:
    """Gateways write that a text is no thought and has no signature; its pieces are one text all the same."""
    silent = {"thought": False, "thoughtSignature": None}
    events = [piece({"text": text, **silent}) for text in ("Hel", "lo")]
    found = joined(*events, piece({"text": "", **silent}, finish="STOP"))
    assert found.content == "Hello"
    assert read(answer({"text": "Hello", **silent})).content == "Hello"


def test_pictures_sounds_and_files_in_an_answer_are_parts() -> None:
    """With what came beside them."""
    found = read(
        answer(
            {"inlineData": {"mimeType": "image/png", "data": "aGk="}, "thoughtSignature": "s"},
            {"inlineData": {"mimeType": "audio/L16;rate=24000", "data": "aGk="}},
            {"fileData": {"mimeType": "application/pdf", "fileUri": "gs://b/x.pdf"}},
        )
    )
    image, audio, document = found.parts
    assert isinstance(image, Image)
    assert (image.kind, image.data, image.opaque) == ("image/png", "aGk=", {"google": {"thoughtSignature": "s"}})
    assert isinstance(audio, Audio)
    assert audio.kind == "audio/L16;rate=24000"
    assert isinstance(document, Document)
    assert document.url == "gs://b/x.pdf"


@pytest.mark.parametrize(
    "part",
    [
        {"executableCode": {"language": "PYTHON", "code": "1"}},
        {"codeExecutionResult": {"outcome": "OUTCOME_OK"}},
        {"toolCall": {"toolType": "GOOGLE_SEARCH_WEB", "id": "t"}, "thoughtSignature": "s"},
        {"toolResponse": {"id": "t", "response": {}}},
        {"functionResponse": {"name": "f", "response": {}}},
        {"thought": True, "inlineData": {"mimeType": "image/png", "data": "aGk="}},
        {"fileData": {"fileUri": "/etc/passwd"}},
        {"somethingNew": 1},
    ],
)
def test_what_is_not_modelled_is_a_raw_part(part: Any) -> None:
    """Also a picture that is a thought, and a file whose address is a path: nobody shall read that here."""
    assert read(answer(part)).parts == (Raw("google", part),)


REASONS = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    **dict.fromkeys(
        ("SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY", "MODEL_ARMOR"),
        "content_filter",
    ),
    **dict.fromkeys(("MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "OTHER", "NO_IMAGE"), "error"),
    "CONTINUATION": "paused",
    "A_NEW_ONE": "A_NEW_ONE",
}


@pytest.mark.parametrize(("raw", "reason"), REASONS.items())
def test_reasons_are_normalised_and_open(raw: str, reason: str) -> None:
    """Whole and streamed alike; the API's own word is kept."""
    for found in (read(answer(candidate={"finishReason": raw})), joined(piece(finish=raw))):
        assert (found.finish_reason, found.raw_finish_reason) == (reason, raw)


@pytest.mark.parametrize("content", [{}, {"content": {}}, {"content": None}])
def test_an_answer_may_be_without_content(content: Any) -> None:
    """As a blocked one is; what the API says of it is kept."""
    body = answer()
    del body["candidates"][0]["content"]
    body["candidates"][0] |= {**content, "finishReason": "SAFETY", "finishMessage": "no", "safetyRatings": [1]}
    for found in (read(body), joined(body)):
        assert (found.content, found.finish_reason) == ("", "content_filter")
        assert found.opaque["google"]["finishMessage"] == "no"


def test_a_blocked_prompt_is_an_answer_without_content() -> None:
    """The reason is that of the block, and its ratings are kept."""
    feedback = {"blockReason": "PROHIBITED_CONTENT", "safetyRatings": []}
    body = {"promptFeedback": feedback, "usageMetadata": {"promptTokenCount": 4}, "modelVersion": "g"}
    for found in (read(body), joined(body)):
        assert (found.content, found.finish_reason) == ("", "content_filter")
        assert found.raw_finish_reason == "PROHIBITED_CONTENT"
        assert found.opaque["google"]["promptFeedback"] == feedback
        assert found.usage == Usage(4)


def test_usage_counts_nothing_twice_and_leaves_nothing_out() -> None:
    """Thoughts belong to the output, what tools brought to the input, and cached tokens are within it."""
    usage = {
        "promptTokenCount": 100,
        "cachedContentTokenCount": 60,
        "toolUsePromptTokenCount": 20,
        "candidatesTokenCount": 7,
        "thoughtsTokenCount": 5,
        "totalTokenCount": 132,
        "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 30}, {"modality": "TEXT", "tokenCount": 70}],
        "candidatesTokensDetails": [{"modality": "AUDIO", "tokenCount": 4}],
        "serviceTier": "flex",
        "trafficType": "ON_DEMAND",
    }
    for found in (read(answer(usageMetadata=usage)), joined(answer(usageMetadata=usage))):
        assert found.usage == Usage(120, 12, 60, 5, input_audio_tokens=30, output_audio_tokens=4)
        assert found.usage.total_tokens == usage["totalTokenCount"]
        assert found.service_tier == "flex"
        assert found.opaque["google"]["usageMetadata"]["trafficType"] == "ON_DEMAND"


@pytest.mark.parametrize("usage", [None, {}, {"trafficType": "ON_DEMAND"}, {"promptTokenCount": None}])
def test_usage_that_says_nothing_is_none(usage: Any) -> None:
    """Or nought, where the field is there."""
    found = read(answer(usageMetadata=usage)).usage
    assert found is None or found == Usage()


def test_log_probabilities_are_read_with_their_alternatives() -> None:
    """A probability of 1 is left out by the API: its logarithm is 0."""
    result = {
        "chosenCandidates": [{"token": "2", "logProbability": -0.5, "tokenId": 9}, {"token": "!"}],
        "topCandidates": [{"candidates": [{"token": "2", "logProbability": -0.5}, {"token": "3"}]}],
    }
    wanted = (TokenLogprob("2", -0.5, (("2", -0.5), ("3", 0.0))), TokenLogprob("!", 0.0))
    body = answer({"text": "2!"}, candidate={"logprobsResult": result, "avgLogprobs": -0.25})
    for found in (read(body), joined(body)):
        assert found.logprobs == wanted
        assert found.opaque["google"]["avgLogprobs"] == -0.25


def test_several_answers_are_alternatives() -> None:
    """In the order of their indexes, whole and streamed."""
    one = answer({"text": "a"})["candidates"][0]
    two = {**one, "content": {"parts": [{"text": "b"}]}, "index": 1, "finishReason": "MAX_TOKENS"}
    for found in (read(answer(candidates=[two, one])), joined(answer(candidates=[two]), answer(candidates=[one]))):
        assert found.text == "a"
        assert [(other.text, other.finish_reason) for other in found.alternatives] == [("b", "length")]


def test_what_is_said_of_an_answer_is_kept() -> None:
    """Grounding, citations, dates: under the API's name, and never sent back as part of a turn."""
    said = {"groundingMetadata": {"webSearchQueries": ["q"]}, "citationMetadata": {"citationSources": [{"uri": "u"}]}}
    body = answer({"text": "Hi"}, candidate=said, createTime="2026-01-01T00:00:00Z")
    found = read(body)
    assert found.opaque == {"google": {**said, "createTime": "2026-01-01T00:00:00Z"}}
    assert contents_of(found.message) == [{"role": "model", "parts": [{"text": "Hi"}]}]


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"{}", b'{"candidates": []}', b"[]", b"7", b'"x"', b"\xff", b"[" * 5000]
)
def test_what_is_no_answer_is_an_error_that_quotes_it(body: bytes) -> None:
    """And asks whether the address is right."""
    with pytest.raises(ProtocolError, match="base_url"):
        API.read(body, SOURCE)


# ---- what is answered: streams -------------------------------------------------------------------------------


def test_pieces_of_text_are_one_part_in_a_stream() -> None:
    """Also where thoughts came first; a piece is handed on as soon as it is there."""
    events = [
        piece({"text": "Hm", "thought": True}),
        piece({"text": "!", "thought": True}),
        piece({"text": "He"}),
        piece({"text": "llo"}, finish="STOP"),
    ]
    chunks = chunks_of(*events)
    assert [chunk.reasoning for chunk in chunks if chunk.reasoning] == ["Hm", "!"]
    assert [chunk.content for chunk in chunks if chunk.content] == ["He", "llo"]
    found = join(chunks, provider="google", model="x")
    assert found.parts == (Reasoning("Hm!", opaque={"google": {"thought": True}}), Text("Hello"))
    assert found.model == "gemini-2.5-flash-001"


def test_a_part_with_a_signature_stays_a_part_of_its_own() -> None:
    """Also one of an empty text at the stream's end: it must go back just there."""
    events = [
        piece({"text": "a", "thoughtSignature": "s1"}),
        piece({"text": "b"}),
        piece({"text": ""}),
        piece({"text": "c"}),
        piece({"text": "", "thoughtSignature": "s2"}, finish="STOP"),
    ]
    found = joined(*events)
    assert found.text == "abc"
    assert contents_of(found.message)[0]["parts"] == [
        {"text": "a", "thoughtSignature": "s1"},
        {"text": "bc"},
        {"text": "", "thoughtSignature": "s2"},
    ]


def test_a_stream_is_finished_when_a_reason_has_come_and_never_done() -> None:
    """It has no end mark: what follows is read until the body ends."""
    reading = API.reading(SOURCE)
    reading.read(ServerSentEvent(json.dumps(piece({"text": "a"}))))
    assert not reading.finished
    reading.read(ServerSentEvent(json.dumps(piece({"text": "b"}, finish="STOP"))))
    assert reading.finished
    assert not reading.done


def test_an_unspecified_reason_is_none_yet() -> None:
    """Some servers send the enumeration's zero with every piece."""
    reading = API.reading(SOURCE)
    (chunk,) = reading.read(ServerSentEvent(json.dumps(piece({"text": "a"}, finish="FINISH_REASON_UNSPECIFIED"))))
    assert not reading.finished
    assert chunk.finish_reason is None


def test_several_answers_are_finished_together() -> None:
    """The reason of one says nothing of the other."""
    reading = API.reading(SOURCE)
    second = piece({"text": "b"}, candidate={"index": 1})
    second["candidates"][0]["index"] = 1
    for event, finished in ((piece({"text": "a"}), False), (second, False), (piece(finish="STOP"), False)):
        reading.read(ServerSentEvent(json.dumps(event)))
        assert reading.finished is finished
    second["candidates"][0]["finishReason"] = "STOP"
    reading.read(ServerSentEvent(json.dumps(second)))
    assert reading.finished


def test_the_last_usage_of_a_stream_counts() -> None:
    """Counts are cumulative; a piece may hold nothing else, and one without counts changes nothing."""
    found = joined(
        piece({"text": "a"}, usageMetadata={"promptTokenCount": 3, "candidatesTokenCount": 1}),
        piece({"text": "b"}, finish="STOP", usageMetadata={"promptTokenCount": 9, "candidatesTokenCount": 4}),
        {"usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 5}},
        {"usageMetadata": {"trafficType": "ON_DEMAND"}},
    )
    assert found.usage == Usage(9, 5)
    assert found.opaque["google"]["usageMetadata"] == {"trafficType": "ON_DEMAND"}


def test_parallel_calls_of_a_stream_stay_apart() -> None:
    """In one piece or in several, with or without ids."""
    call = {"functionCall": {"name": "f", "args": {"n": 1}}, "thoughtSignature": "s"}
    events = [
        piece(call, {"functionCall": {"name": "f", "args": {"n": 2}}}),
        piece({"functionCall": {"name": "g", "id": "g3"}}),
        piece({"text": ""}, finish="STOP"),
    ]
    found = joined(*events)
    assert [(one.name, one.arguments) for one in found.tool_calls] == [("f", {"n": 1}), ("f", {"n": 2}), ("g", {})]
    assert found.tool_calls[2].id == "g3"
    assert len({one.id for one in found.tool_calls}) == 3
    assert found.finish_reason == "tool_calls"
    assert contents_of(found.message)[0]["parts"] == [
        call,
        {"functionCall": {"name": "f", "args": {"n": 2}}},
        {"functionCall": {"name": "g", "id": "g3"}},
    ]


def argument(path: str, **value: Any) -> dict[str, Any]:
    return {"functionCall": {"partialArgs": [{"jsonPath": path, **value}], "willContinue": True}}


def test_arguments_that_come_in_pieces_are_put_together() -> None:
    """Vertex sends values at JSON paths, texts in several pieces; an empty call ends it."""
    found = joined(
        piece({"functionCall": {"name": "f", "willContinue": True}, "thoughtSignature": "s"}),
        piece(argument("$.city", stringValue="Os", willContinue=True)),
        piece(argument("$.city", stringValue="lo")),
        piece(argument("$.days[0]['at']", numberValue=3)),
        piece(argument("$.days[1]", boolValue=True)),
        piece(argument("$.none", nullValue="NULL_VALUE")),
        piece({"functionCall": {}}),
        piece({"functionCall": {"name": "g", "args": {"x": 1}}}, finish="STOP"),
    )
    first, second = found.tool_calls
    assert first.arguments == {"city": "Oslo", "days": [{"at": 3}, True], "none": None}
    assert (first.name, first.opaque["google"]["thoughtSignature"]) == ("f", "s")
    assert (second.name, second.arguments) == ("g", {"x": 1})
    assert found.finish_reason == "tool_calls"


def test_a_call_that_the_stream_leaves_open_is_closed_at_its_end() -> None:
    """With the arguments that have come."""
    found = joined(
        piece({"functionCall": {"name": "f", "willContinue": True}}),
        piece(argument("$.a", stringValue="x", willContinue=True), finish="MAX_TOKENS"),
    )
    assert (found.tool_calls[0].arguments, found.finish_reason) == ({"a": "x"}, "length")


@pytest.mark.parametrize("path", ["", "$", "city", "$.a[7]", "$..a", "$.a['b", "$.a" * 65, "$[99999999999999999999]"])
def test_an_argument_out_of_place_is_an_error(path: str) -> None:
    """A call with a wrong argument would be worse."""
    with pytest.raises(ProtocolError):
        joined(piece({"functionCall": {"name": "f", "willContinue": True}}), piece(argument(path, numberValue=1)))


def test_metadata_of_a_stream_is_put_together() -> None:
    """Lists that are told again are not doubled, lists that go on are one, and of the rest the last word wins."""
    events = [
        piece({"text": "a"}, candidate={"groundingMetadata": {}, "safetyRatings": [1]}),
        piece({"text": "b"}, candidate={"groundingMetadata": {"x": [1], "y": [1]}, "safetyRatings": [2]}),
        piece(finish="STOP", candidate={"groundingMetadata": {"x": [1, 2], "y": [3]}}),
    ]
    assert joined(*events).opaque["google"] == {
        "groundingMetadata": {"x": [1, 2], "y": [1, 3]},
        "safetyRatings": [2],
    }


def test_pieces_in_a_list_are_read_as_a_stream_is() -> None:
    """Without `alt=sse` the API sends one JSON list."""
    found = read([piece({"text": "a"}), piece({"text": "b"}, finish="STOP")])
    assert (found.content, found.finish_reason, found.usage) == ("ab", "stop", Usage(3, 2))
    with pytest.raises(ProtocolError):
        read([piece({"text": "a"})])


TEXT = st.text(min_size=1, max_size=8)
VALUES = st.recursive(st.none() | st.booleans() | st.integers(-9, 9) | TEXT, st.lists, max_leaves=3)
ARGUMENTS = st.dictionaries(TEXT, VALUES, max_size=3)
SIGNATURE = st.just({}) | TEXT.map(lambda text: {"thoughtSignature": text})
PARTS = st.one_of(
    st.builds(lambda text, more: {"text": text, **more}, TEXT, SIGNATURE),
    st.builds(lambda text, more: {"text": text, "thought": True, **more}, TEXT, SIGNATURE),
    TEXT.map(lambda text: {"text": "", "thoughtSignature": text}),
    st.builds(
        lambda name, args, id, more: {"functionCall": {"name": name, "args": args, **id}, **more},
        TEXT,
        ARGUMENTS,
        st.just({}) | TEXT.map(lambda text: {"id": text}),
        SIGNATURE,
    ),
    st.builds(lambda more: {"executableCode": {"code": "1"}, **more}, SIGNATURE),
    st.builds(lambda more: {"inlineData": {"mimeType": "image/png", "data": "aGk="}, **more}, SIGNATURE),
)


def plain_words(part: dict[str, Any]) -> bool:
    return part.keys() in ({"text"}, {"text", "thought"})


def apart(parts: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The parts without one that a stream would make one with the part before it."""
    found: list[dict[str, Any]] = []
    for part in parts:
        if not (found and plain_words(part) and part.keys() == found[-1].keys()):
            found.append(part)
    return found


def cut(parts: list[dict[str, Any]], draw: Any) -> list[dict[str, Any]]:
    """The events of a stream that says the same: words are cut, parts share an event or do not."""
    pieces: list[dict[str, Any]] = []
    for part in parts:
        if plain_words(part) and len(part["text"]) > 1:
            at = draw(st.integers(1, len(part["text"]) - 1))
            pieces += [{**part, "text": part["text"][:at]}, {**part, "text": part["text"][at:]}]
        else:
            pieces.append(part)
    events, at = [], 0
    while at < len(pieces):
        size = draw(st.integers(1, 3))
        events.append(piece(*pieces[at : at + size]))
        at += size
    return [*events, piece(finish="STOP")]


@given(st.lists(PARTS, max_size=6), st.data())
def test_a_stream_adds_up_to_what_the_same_answer_is_when_read_whole(parts: list[Any], data: st.DataObject) -> None:
    """However it is cut; and both go back to the API as they came, also after a trip through JSON."""
    parts = apart(parts)
    whole = read(answer(*parts))
    assert joined(*cut(parts, data.draw)) == whole
    again = Response.from_json(json.loads(json.dumps(whole.to_json())))
    assert again == whole
    for turn in (whole.message, again.message):
        written = contents_of(turn)
        assert [turn["parts"] for turn in written] == ([parts] if parts else [])


# ---- errors --------------------------------------------------------------------------------------------------


def failure(status: int, name: str, *details: Any, listed: bool = False) -> ModelError:
    error = {"error": {"code": status, "message": "Something is wrong.", "status": name, "details": list(details)}}
    return read_error(Answer(status, {}, json.dumps([error] if listed else error).encode()), SOURCE)


INFO = "type.googleapis.com/google.rpc."
KEY_INVALID = {"@type": f"{INFO}ErrorInfo", "reason": "API_KEY_INVALID", "domain": "googleapis.com"}
UNPAID = {"@type": f"{INFO}ErrorInfo", "reason": "BILLING_DISABLED"}
DAILY = {"@type": f"{INFO}QuotaFailure", "violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel"}]}
MINUTE = {"@type": f"{INFO}QuotaFailure", "violations": [{"quotaId": "GenerateRequestsPerMinutePerProject"}]}
WAIT = {"@type": f"{INFO}RetryInfo", "retryDelay": "34.4s"}


@pytest.mark.parametrize(
    ("status", "name", "details", "kind"),
    [
        (400, "INVALID_ARGUMENT", (), BadRequestError),
        (400, "INVALID_ARGUMENT", (KEY_INVALID,), AuthenticationError),
        (400, "FAILED_PRECONDITION", (), BadRequestError),
        (401, "UNAUTHENTICATED", (), AuthenticationError),
        (403, "PERMISSION_DENIED", (), PermissionDeniedError),
        (403, "PERMISSION_DENIED", (UNPAID,), QuotaExceededError),
        (404, "NOT_FOUND", (), NotFoundError),
        (429, "RESOURCE_EXHAUSTED", (), RateLimitError),
        (429, "RESOURCE_EXHAUSTED", (MINUTE, WAIT), RateLimitError),
        (429, "RESOURCE_EXHAUSTED", (DAILY, WAIT), QuotaExceededError),
        (499, "CANCELLED", (), ServerError),
        (500, "INTERNAL", (), ServerError),
        (503, "UNAVAILABLE", (), OverloadedError),
        (504, "DEADLINE_EXCEEDED", (), ServerError),
        (418, "A_NEW_ONE", (), BadRequestError),
    ],
)
@pytest.mark.parametrize("listed", [False, True])
def test_failures_are_told_apart_by_status_and_reason(
    status: int, name: str, details: Any, kind: type[ModelError], listed: bool
) -> None:
    """Also where a stream's failure comes in a list, and where it comes in an answer that had begun well."""
    error = failure(status, name, *details, listed=listed)
    assert type(error) is kind
    assert (error.status, error.code) == (status, name)
    inside = wire_error({"code": status, "status": name, "message": "x", "details": list(details)}, SOURCE)
    assert type(inside) is kind


def test_how_long_to_wait_stands_in_the_body() -> None:
    """The API sends no header for it; one that is there is believed first."""
    assert failure(429, "RESOURCE_EXHAUSTED", MINUTE, WAIT).retry_after == 34.4
    body = json.dumps({"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "details": [WAIT]}}).encode()
    assert read_error(Answer(429, {"retry-after": "2"}, body), SOURCE).retry_after == 2


@pytest.mark.parametrize("details", [None, 7, {}, [7], [{"violations": 7}], [{"retryDelay": 7}], [{"reason": []}]])
def test_details_of_another_shape_are_passed_over(details: Any) -> None:
    """The status still says what it is."""
    error = wire_error({"code": 429, "status": "RESOURCE_EXHAUSTED", "details": details}, SOURCE)
    assert type(error) is RateLimitError
    assert error.retry_after is None


def test_an_error_in_a_good_answer_is_raised_as_what_it_is() -> None:
    """In a body, in a list of pieces, and in an event."""
    error = {"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}}
    for body in (error, [error], [piece({"text": "a"}), error]):
        with pytest.raises(OverloadedError):
            read(body)
    with pytest.raises(OverloadedError):
        chunks_of(piece({"text": "a"}), error)


# ---- anything may arrive -------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(
            "candidates content parts text thought functionCall name args id partialArgs willContinue jsonPath "
            "stringValue inlineData fileData mimeType data fileUri finishReason index usageMetadata promptTokenCount "
            "promptTokensDetails logprobsResult chosenCandidates topCandidates token logProbability promptFeedback "
            "blockReason error code status details violations groundingMetadata modelVersion responseId".split()
        ),
        inner,
        max_size=4,
    ),
    max_leaves=20,
)  # fmt: skip
VALID = answer(
    {"text": "a", "thought": True},
    {"functionCall": {"name": "f", "args": {"a": 1}, "partialArgs": [{"jsonPath": "$.a", "stringValue": "x"}]}},
    {"inlineData": {"mimeType": "image/png", "data": "aGk="}},
    {"fileData": {"mimeType": "image/png", "fileUri": "gs://x"}},
    candidate={
        "logprobsResult": {"chosenCandidates": [{"token": "a"}], "topCandidates": [{"candidates": [{"token": "b"}]}]},
        "groundingMetadata": {"x": [1]},
    },
    promptFeedback={"blockReason": "SAFETY"},
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return found + [place for key, below in inner for place in places(below, (*path, key))]


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    changed = dict(value) if isinstance(value, dict) else list(value)
    changed[path[0]] = replaced(value[path[0]], path[1:], new)
    return changed


def survives(body: bytes) -> None:
    """A value or a ModelError, whole and as an event, and nothing else."""
    try:
        found = API.read(body, SOURCE)
        Response.from_json(found.to_json())
        API.write(Request(LATE, (Message("user", "?"), found.message)), stream=True)
    except ModelError:
        pass
    reading = API.reading(SOURCE)
    for _ in range(2):
        try:
            chunks = reading.read(ServerSentEvent(body.decode("utf-8", "replace")))
            join([*chunks, *reading.end()], provider="google", model="x")
        except ModelError:
            pass


@given(st.binary(max_size=60))
def test_any_bytes_are_an_answer_or_an_error(body: bytes) -> None:
    """Never another exception."""
    survives(body)


@given(JSON)
def test_any_json_is_an_answer_or_an_error(body: Any) -> None:
    """Never another exception."""
    survives(json.dumps(body).encode())


@given(st.sampled_from(places(VALID)), JSON)
def test_an_answer_with_anything_in_any_place_is_an_answer_or_an_error(path: tuple[Any, ...], new: Any) -> None:
    """Never another exception."""
    survives(json.dumps(replaced(VALID, path, new)).encode())


@given(st.integers(0, 400), st.integers(0, 400))
def test_a_torn_answer_is_an_answer_or_an_error(start: int, stop: int) -> None:
    """Never another exception."""
    whole = json.dumps(VALID).encode()
    survives(whole[:start] + whole[stop:])


@pytest.mark.parametrize("size", ["1" + "0" * 400, "-1" + "0" * 400, "1e300"])
def test_a_number_beyond_all_counts_is_none(size: str) -> None:
    """JSON's numbers have no limit, and floats have."""
    usage = {"promptTokenCount": "SIZE", "candidatesTokenCount": "SIZE"}
    tokens = {"chosenCandidates": [{"token": "a", "logProbability": "SIZE"}]}
    whole = answer({"text": "a"}, usageMetadata=usage, candidate={"logprobsResult": tokens})
    body = json.dumps(whole).replace('"SIZE"', size).encode()
    survives(body)
    found = API.read(body, SOURCE)
    assert (found.usage, found.logprobs) == (Usage(), (TokenLogprob("a", 0.0),))


@pytest.mark.parametrize("depth", [200, 400, 600, 900, 100_000])
@pytest.mark.parametrize("field", ["groundingMetadata", "citationMetadata", "x"])
def test_metadata_that_is_nested_deeply_is_read_or_an_error(depth: int, field: str) -> None:
    """It is told twice in a stream, and laid over itself."""
    deep = '{"a":' * depth + "[1]" + "}" * depth
    body = json.dumps(answer({"text": "a"}, candidate={field: "DEEP"})).replace('"DEEP"', deep)
    reading = API.reading(SOURCE)
    with contextlib.suppress(ProtocolError):
        API.read(body.encode(), SOURCE)
    with contextlib.suppress(ProtocolError):
        for _ in range(3):
            reading.read(ServerSentEvent(body))


# ---- over a socket -------------------------------------------------------------------------------------------


def provider_at(url: str, **more: Any) -> GoogleProvider:
    settings = ProviderSettings(name="google", kind="google", base_url=url, allow_http=True, **more)
    return GoogleProvider(settings)


ASK = Request(FLASH, (Message("system", "Be brief."), Message("user", "Hello")), tools=(WEATHER,))


async def test_the_key_goes_in_its_own_header_and_never_in_the_address(serve: Any) -> None:
    """Addresses end up in logs."""

    async def handle(exchange: Any) -> None:
        await exchange.respond(answer({"text": "Hi"}))

    server = await serve(handle)
    provider = provider_at(server.url, api_key=Secret("a-key-of-nobody"))
    assert (await provider.execute(ASK)).text == "Hi"
    (seen,) = server.requests
    assert seen.headers["x-goog-api-key"] == "a-key-of-nobody"
    assert "authorization" not in seen.headers
    assert seen.path == "/v1/models/gemini-2.5-flash:generateContent"
    await provider.aclose()


async def test_vertex_takes_a_token_that_is_asked_for_each_time(serve: Any) -> None:
    """As a bearer token, at the project's own address."""
    tokens = iter(["one", "two"])

    async def handle(exchange: Any) -> None:
        await exchange.respond(answer({"text": "Hi"}))

    server = await serve(handle)
    provider = provider_at(server.url + VERTEX, token=lambda: next(tokens))
    for _ in range(2):
        await provider.execute(ASK)
    assert [seen.headers["authorization"] for seen in server.requests] == ["Bearer one", "Bearer two"]
    assert server.requests[0].path == f"/v1{VERTEX}/models/gemini-2.5-flash:generateContent"
    await provider.aclose()


async def test_a_stream_is_read_as_it_comes(serve: Any) -> None:
    """Events end with CRLF twice, and nothing marks the end."""

    async def handle(exchange: Any) -> None:
        await exchange.begin_stream()
        for event in (piece({"text": "He"}), piece({"text": "llo"}, finish="STOP")):
            await exchange.piece(b"data: " + json.dumps(event).encode() + b"\r\n\r\n")
        await exchange.end_stream()

    server = await serve(handle)
    provider = provider_at(server.url)
    found = join([chunk async for chunk in provider.execute_streaming(ASK)], provider="google", model="x")
    assert (found.text, found.finish_reason, found.usage) == ("Hello", "stop", Usage(3, 2))
    assert server.requests[0].path.endswith(":streamGenerateContent?alt=sse")
    await provider.aclose()


def test_an_end_mark_that_a_gateway_adds_is_passed_over() -> None:
    """Google sends none."""
    assert API.reading(SOURCE).read(ServerSentEvent("[DONE]")) == []


@pytest.mark.parametrize("place", [VERTEX, f"{VERTEX}/", "/projects/p/locations/l", f"{VERTEX}?x=1"])
async def test_vertex_is_told_by_its_address(serve: Any, place: str) -> None:
    """Google's own publisher may be left out, and a query stays one."""
    reply = answer({"text": "Hi"})
    _, _, path = await asked(serve, reply, lambda provider: provider.execute(ASK), place)
    assert path.partition("?")[0] == f"{VERTEX}/models/gemini-2.5-flash:generateContent"
    assert path.partition("?")[2] == place.partition("?")[2]


async def test_a_stream_that_stops_before_its_reason_is_interrupted(serve: Any) -> None:
    """With what had come."""

    async def handle(exchange: Any) -> None:
        await exchange.begin_stream()
        await exchange.event(piece({"text": "He"}))
        await exchange.end_stream()

    server = await serve(handle)
    provider = provider_at(server.url)
    with pytest.raises(StreamInterruptedError) as caught:
        _ = [chunk async for chunk in provider.execute_streaming(ASK)]
    assert caught.value.partial == "He"
    await provider.aclose()


async def test_a_server_that_sends_a_list_instead_of_a_stream_is_understood(serve: Any) -> None:
    """Some ignore `alt=sse`."""

    async def handle(exchange: Any) -> None:
        await exchange.respond([piece({"text": "He"}), piece({"text": "llo"}, finish="STOP")])

    server = await serve(handle)
    provider = provider_at(server.url)
    found = join([chunk async for chunk in provider.execute_streaming(ASK)], provider="google", model="x")
    assert (found.text, found.finish_reason) == ("Hello", "stop")
    await provider.aclose()


async def test_an_error_within_a_stream_keeps_what_had_come(serve: Any) -> None:
    """It is raised as what it is."""

    async def handle(exchange: Any) -> None:
        await exchange.begin_stream()
        await exchange.event(piece({"text": "He"}))
        await exchange.event({"error": {"code": 503, "status": "UNAVAILABLE", "message": "m"}})
        await exchange.end_stream()

    server = await serve(handle)
    provider = provider_at(server.url)
    with pytest.raises(OverloadedError) as caught:
        _ = [chunk async for chunk in provider.execute_streaming(ASK)]
    assert caught.value.partial == "He"
    await provider.aclose()


# ---- what else the service does ------------------------------------------------------------------------------


async def test_the_provider_embeds_counts_and_lists() -> None:
    """So the client finds it by these protocols."""
    provider = provider_at("http://127.0.0.1:9/v1")
    assert isinstance(provider, EmbeddingProvider)
    assert isinstance(provider, TokenCounter)
    assert isinstance(provider, ModelLister)
    await provider.aclose()


async def asked(serve: Any, reply: Any, call: Any, place: str = "") -> tuple[Any, Any, str]:
    """What a call gives, and the body and path that it sent."""

    async def handle(exchange: Any) -> None:
        await exchange.respond(reply)

    server = await serve(handle)
    provider = provider_at(server.url + place)
    try:
        found = await call(provider)
    finally:
        await provider.aclose()
    return found, server.requests[0].json, server.requests[0].path.removeprefix("/v1")


async def test_texts_are_embedded_in_one_call(serve: Any) -> None:
    """In their order; what is said in params belongs to each text."""
    request = EmbeddingRequest("gemini-embedding-001", ("a", "b"), 2, {"taskType": "RETRIEVAL_QUERY"})
    reply = {"embeddings": [{"values": [1, 2]}, {"values": [3, 4]}], "usageMetadata": {"promptTokenCount": 7}}
    found, body, path = await asked(serve, reply, lambda provider: provider.embed(request))
    assert (found.vectors, found.usage, found.model) == (((1, 2), (3, 4)), Usage(7), "gemini-embedding-001")
    assert path == "/models/gemini-embedding-001:batchEmbedContents"
    assert body == {
        "requests": [
            {
                "model": "models/gemini-embedding-001",
                "content": {"parts": [{"text": text}]},
                "outputDimensionality": 2,
                "taskType": "RETRIEVAL_QUERY",
            }
            for text in "ab"
        ]
    }


@pytest.mark.parametrize(
    ("model", "inputs", "method", "body", "reply"),
    [
        (
            "gemini-embedding-2",
            ("a",),
            "embedContent",
            {"content": {"parts": [{"text": "a"}]}, "embedContentConfig": {"outputDimensionality": 2}},
            {"embedding": {"values": [1, 2]}, "usageMetadata": {"promptTokenCount": 4}},
        ),
        (
            "gemini-embedding-2",
            ("a", "b"),
            "batchEmbedContents",
            {
                "requests": [
                    {"content": {"parts": [{"text": text}]}, "embedContentConfig": {"outputDimensionality": 2}}
                    for text in "ab"
                ]
            },
            {"embeddings": [{"values": [1, 2]}] * 2, "usageMetadata": {"promptTokenCount": 4}},
        ),
        (
            "text-embedding-005",
            ("a", "b"),
            "predict",
            {"instances": [{"content": "a"}, {"content": "b"}], "parameters": {"outputDimensionality": 2}},
            {"predictions": [{"embeddings": {"values": [1, 2], "statistics": {"token_count": 2}}}] * 2},
        ),
    ],
)
async def test_vertex_embeds_in_its_own_shapes(
    serve: Any, model: str, inputs: Any, method: str, body: Any, reply: Any
) -> None:
    """By model: one text, several, and the older way."""
    request = EmbeddingRequest(model, inputs, 2)
    found, sent, path = await asked(serve, reply, lambda provider: provider.embed(request), VERTEX)
    assert (sent, path) == (body, f"{VERTEX}/models/{model}:{method}")
    assert found.vectors == ((1, 2),) * len(inputs)
    assert found.usage == Usage(4)


async def test_fewer_vectors_than_texts_are_an_error(serve: Any) -> None:
    """Nobody could tell which text has none."""
    request = EmbeddingRequest("e", ("a", "b"))
    with pytest.raises(ProtocolError, match="1 vectors for 2 texts"):
        await asked(serve, {"embeddings": [{"values": [1]}]}, lambda provider: provider.embed(request))


async def test_a_failed_embedding_is_its_error(serve: Any) -> None:
    """As everywhere."""

    async def handle(exchange: Any) -> None:
        await exchange.respond({"error": {"code": 404, "status": "NOT_FOUND", "message": "no"}}, status=404)

    server = await serve(handle)
    provider = provider_at(server.url)
    with pytest.raises(NotFoundError):
        await provider.embed(EmbeddingRequest("e", ("a",)))
    await provider.aclose()


async def test_tokens_are_counted_with_instructions_and_tools(serve: Any) -> None:
    """The Gemini API takes the whole request."""
    found, body, path = await asked(serve, {"totalTokens": 31}, lambda provider: provider.count_tokens(ASK))
    assert (found, path) == (31, "/models/gemini-2.5-flash:countTokens")
    whole = json.loads(msgspec.json.encode(API.write(ASK, stream=False).body))
    assert body == {"generateContentRequest": {"model": "models/gemini-2.5-flash", **whole}}


async def test_tokens_of_turns_alone_are_counted_as_they_are(serve: Any) -> None:
    """The short form of the same."""
    request = Request(FLASH, (Message("user", "Hello"),))
    found, body, _ = await asked(serve, {"totalTokens": 1}, lambda provider: provider.count_tokens(request))
    assert (found, body) == (1, {"contents": [{"role": "user", "parts": [{"text": "Hello"}]}]})


async def test_vertex_counts_what_it_counts(serve: Any) -> None:
    """It refuses fields that do not count."""
    request = Request(FLASH, ASK.messages, tools=ASK.tools, tool_choice="auto", seed=1)
    reply = {"totalTokens": 31}
    found, body, _ = await asked(serve, reply, lambda provider: provider.count_tokens(request), VERTEX)
    assert found == 31
    assert set(body) == {"contents", "systemInstruction", "tools", "generationConfig"}


async def test_a_count_without_a_number_is_an_error(serve: Any) -> None:
    """It is no answer of this API."""
    with pytest.raises(ProtocolError):
        await asked(serve, {}, lambda provider: provider.count_tokens(ASK))


async def test_models_are_listed_page_by_page(serve: Any) -> None:
    """Until there is no further page, or one comes again."""
    pages = [
        {"models": [{"name": "models/a", "displayName": "A", "inputTokenLimit": 9, "outputTokenLimit": 3}]},
        {"models": [{"name": "models/b"}, {}, {"name": "tunedModels/c"}]},
    ]

    async def handle(exchange: Any) -> None:
        second = "pageToken=t%2F1" in exchange.path
        await exchange.respond({**pages[second], "nextPageToken": "t/1"})

    server = await serve(handle)
    provider = provider_at(server.url)
    found = await provider.list_models()
    assert found == (ModelInfo("a", "A", 9, 3), ModelInfo("b"), ModelInfo("tunedModels/c"))
    assert server.requests[0].path == "/v1/models?pageSize=1000"
    await provider.aclose()


async def test_vertex_lists_the_models_of_the_publisher(serve: Any) -> None:
    """They belong to no project."""
    reply = {"publisherModels": [{"name": "publishers/google/models/gemini-3-pro"}]}

    async def handle(exchange: Any) -> None:
        await exchange.respond(reply)

    server = await serve(handle)
    provider = provider_at(server.url + VERTEX)
    assert await provider.list_models() == (ModelInfo("gemini-3-pro"),)
    assert server.requests[0].path == "/v1/publishers/google/models?pageSize=1000"
    await provider.aclose()
