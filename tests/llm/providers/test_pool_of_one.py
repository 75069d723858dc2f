"""A stream that is left, cancelled or forgotten frees its connection: with a pool of one, the next call needs it."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from agentflow.llm.agentflow import AgentFlow
from agentflow.llm.builder import LLMClientBuilder
from agentflow.llm.config.registry import ModelRegistry
from agentflow.llm.streaming.stream import StreamingResponse

KINDS = {
    "openai": "kind: openai",
    "responses": "kind: openai, options: {api: responses}",
    "anthropic": "kind: anthropic",
    "google": "kind: google",
    "moonshot": "kind: moonshot",
}


def chat(text: str, *, last: bool = False) -> dict[str, Any]:
    finish = "stop" if last else None
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]}


def responses(text: str, *, last: bool = False) -> dict[str, Any]:
    if last:
        part = {"type": "output_text", "text": "a" + text, "annotations": []}
        item = {"type": "message", "id": "m1", "role": "assistant", "status": "completed", "content": [part]}
        return {"type": "response.completed", "response": {"id": "r1", "status": "completed", "output": [item]}}
    return {"type": "response.output_text.delta", "item_id": "m1", "output_index": 0, "content_index": 0, "delta": text}


def gemini(text: str, *, last: bool = False) -> dict[str, Any]:
    finish = {"finishReason": "STOP"} if last else {}
    return {"candidates": [{"index": 0, "content": {"role": "model", "parts": [{"text": text}]}, **finish}]}


def anthropic_start() -> list[dict[str, Any]]:
    usage = {"input_tokens": 1, "output_tokens": 1}
    message = {"id": "m1", "type": "message", "role": "assistant", "model": "m", "content": [], "usage": usage}
    block = {"type": "text", "text": ""}
    return [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": block},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a"}},
    ]


def anthropic_end() -> list[dict[str, Any]]:
    return [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "b"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
        {"type": "message_stop"},
    ]


# What each API sends for "a", and then for "b" and the end.
EVENTS: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]]]] = {
    "openai": ([chat("a")], [chat("b", last=True)]),
    "moonshot": ([chat("a")], [chat("b", last=True)]),
    "responses": ([responses("a")], [responses("b"), responses("b", last=True)]),
    "anthropic": (anthropic_start(), anthropic_end()),
    "google": ([gemini("a")], [gemini("b", last=True)]),
}


@pytest.fixture
async def asking(serve: Any, tmp_path: Path) -> AsyncIterator[Callable[[str], Awaitable[LLMClientBuilder]]]:
    """A builder for a model of a kind, whose pool has one place. The server holds streams open whose prompt says so."""
    made: list[ModelRegistry] = []

    async def ask(kind: str) -> LLMClientBuilder:
        begin, end = EVENTS[kind]

        async def answer(exchange: Any) -> None:
            await exchange.begin_stream()
            for event in begin:
                await exchange.piece(f"event: {event.get('type', '')}\ndata: {json.dumps(event)}\n\n".encode())
            if b"hold" in exchange.body:
                await asyncio.Event().wait()
            for event in end:
                await exchange.piece(f"event: {event.get('type', '')}\ndata: {json.dumps(event)}\n\n".encode())
            if kind in ("openai", "moonshot"):
                await exchange.piece(b"data: [DONE]\n\n")
            await exchange.end_stream()

        server = await serve(answer)
        (tmp_path / "models.yml").write_text(
            f'providers: {{lab: {{{KINDS[kind]}, base_url: "{server.url}", max_connections: 1, api_key_env: null}}}}'
        )
        made.append(ModelRegistry.load(environ={}, cwd=tmp_path, home=tmp_path))
        return AgentFlow.model("lab/m", registry=made[-1])

    yield ask
    for registry in made:
        await registry.aclose()


async def leave(stream: StreamingResponse) -> None:
    async with stream:
        await anext(stream)


async def cancel(stream: StreamingResponse) -> None:
    async def read() -> None:
        async for _ in stream:
            begun.set()

    begun = asyncio.Event()
    task = asyncio.create_task(read())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def forget(stream: StreamingResponse) -> None:
    await anext(stream)


async def close(stream: StreamingResponse) -> None:
    await anext(stream)
    await stream.aclose()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("end", [leave, cancel, forget, close], ids=lambda end: end.__name__)
async def test_the_next_call_gets_the_only_connection(
    asking: Callable[[str], Awaitable[LLMClientBuilder]], kind: str, end: Callable[[StreamingResponse], Awaitable[None]]
) -> None:
    """However a stream ends early, and several times in a row."""
    model = await asking(kind)
    for _ in range(3):
        await end(model.prompt("hold").execute_streaming())
        gc.collect()
        await asyncio.sleep(0)
        reply = await asyncio.wait_for(model.prompt("go").execute_streaming().collect(), 5)
        assert (reply.text, reply.finish_reason) == ("ab", "stop")
