"""aimock, a model server that this project did not write, with answers to a few questions in every API it speaks.

    with running(node, folder) as server:    server.root  http://127.0.0.1:PORT
    server.client("messages")                our provider for that API, on that server
    server.asked()                           what was asked, as aimock understood it

Known gaps of version 1.43: usage is zero, except in Chat Completions, unless a fixture names it, so most here do;
Gemini's reason to end is FUNCTION_CALL beside calls, where the real one is STOP; it has no `:batchEmbedContents`.
"""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conftest import ROOT, missing_service
from tests.support.programs import free_port, started

from agentflow.llm.messages import Message, Request, Tool
from agentflow.llm.providers.anthropic import AnthropicProvider
from agentflow.llm.providers.api import HTTPProvider
from agentflow.llm.providers.base import ProviderSettings, Secret
from agentflow.llm.providers.google import GoogleProvider
from agentflow.llm.providers.openai import OpenAIProvider

__all__ = ["APIS", "CUT", "DEGREES", "SUNNY", "Aimock", "Asked", "asking", "client", "running"]

APIS = ("chat", "responses", "messages", "generate")
MODELS = {"chat": "gpt-4o", "responses": "gpt-4o", "messages": "claude-sonnet-4-5", "generate": "gemini-2.5-flash"}
PATHS = {"chat": "/v1", "responses": "/v1", "messages": "/v1", "generate": "/v1beta"}

SUNNY = "It is sunny in Oslo – 19 °C, they say. ☀️"
CUT = "This is cut off somewhere in the middle, after some of its words."
DEGREES = Tool(
    "degrees",
    "How warm it is.",
    {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)

_BOTH = {
    "content": "Let me look.",
    "toolCalls": [
        {"id": "call_oslo", "name": "degrees", "arguments": {"city": "Oslo"}},
        {"id": "call_bergen", "name": "degrees", "arguments": {"city": "Bergen"}},
    ],
    "usage": {"prompt_tokens": 20, "completion_tokens": 9},
}
_ANSWERS: list[tuple[str, dict[str, Any]]] = [
    ("weather", {"content": SUNNY, "usage": {"prompt_tokens": 11, "completion_tokens": 7}}),
    ("think", {"content": "42", "reasoning": "Six times nine?"}),
    ("shape", {"content": {"city": "Oslo", "degrees": 19}}),
    (
        "lost",
        {"error": {"message": "No such model.", "type": "not_found_error", "code": "model_not_found"}, "status": 404},
    ),
    ("overload", {"error": {"message": "Overloaded.", "type": "overloaded_error"}, "status": 529}),
    (
        "busy",
        {
            "error": {"message": "Slow down.", "type": "rate_limit_error", "code": "rate_limit_exceeded"},
            "status": 429,
            "retryAfter": 7,
        },
    ),
]
FIXTURES: dict[str, Any] = {
    "fixtures": [
        *({"match": {"userMessage": word}, "response": response} for word, response in _ANSWERS),
        {"match": {"userMessage": "cut"}, "response": {"content": CUT}, "truncateAfterChunks": 8},
        {"match": {"userMessage": "warmer", "hasToolResult": True}, "response": {"content": "Oslo is warmer."}},
        {
            "match": {"userMessage": "warmer", "model": "gemini-2.5-flash"},
            "response": {**_BOTH, "finishReason": "stop"},
        },
        {"match": {"userMessage": "warmer"}, "response": _BOTH},
        {"match": {"inputText": "tree"}, "response": {"embedding": [0.25, -0.5, 1.0]}},
    ]
}


@dataclass(frozen=True)
class Asked:
    """One request as aimock understood it, whatever API it came by: its messages in the words of Chat Completions."""

    body: dict[str, Any]

    @property
    def tools(self) -> list[str]:
        return [tool["function"]["name"] for tool in self.body["tools"]]

    @property
    def calls(self) -> list[tuple[str, str]]:
        """The calls that the conversation holds, by their ids and names."""
        found = [call for message in self.body["messages"] for call in message.get("tool_calls", [])]
        return [(call["id"], call["function"]["name"]) for call in found]

    @property
    def results(self) -> dict[str, str]:
        """What tools gave, by the ids of the calls."""
        told = [message for message in self.body["messages"] if message["role"] == "tool"]
        return {message["tool_call_id"]: message["content"] for message in told}


@dataclass(frozen=True)
class Aimock:
    """A running aimock."""

    root: str

    def client(self, api: str) -> HTTPProvider:
        return client(api, self.root)

    def asked(self) -> list[Asked]:
        """All requests so far."""
        with urllib.request.urlopen(f"{self.root}/__aimock/journal") as answer:
            entries: list[dict[str, Any]] = json.load(answer)
        return [Asked(entry["body"]) for entry in entries]


def client(api: str, root: str, *, key: str = "key-of-nobody", below: str = "") -> HTTPProvider:
    """Our provider for an API, on a server that has all of them at their usual paths, or `below` those."""
    options = {"api": api} if api in ("chat", "responses") else {}
    address = root + PATHS[api] + below
    settings = ProviderSettings("tested", "tested", base_url=address, api_key=Secret(key), options=options)
    if api == "generate":
        return GoogleProvider(settings)
    return AnthropicProvider(settings) if api == "messages" else OpenAIProvider(settings)


def asking(api: str, prompt: str, **more: Any) -> Request:
    """A question for a model of this API."""
    messages = (Message("system", "Be brief."), Message("user", prompt))
    return Request(MODELS[api], messages, max_tokens=100, **more)


@contextmanager
def running(node: str, folder: Path) -> Iterator[Aimock]:
    """aimock from its start to its end; its fixtures and what it says lie in `folder`."""
    program = ROOT / ".tools" / "node_modules" / ".bin" / "llmock"
    if not program.exists():
        missing_service("aimock is not installed: run scripts/install-services")
    fixtures, port = folder / "fixtures.json", free_port()
    fixtures.write_text(json.dumps(FIXTURES))
    command = [node, program, "-p", str(port), "-f", fixtures, "--chunk-size", "6", "--latency", "2"]
    with started(command, port, folder / "log", environ=os.environ):
        yield Aimock(f"http://127.0.0.1:{port}")
