"""A planted key is looked for in everything that any failure produces: nothing may hold it.

Every way to fail, of every kind of provider, whole and streamed; and then the text, the repr, the pickle, the chain of
causes, the traceback with the local variables of each frame, the log at its lowest level, the events of the run, the
addresses that were asked, and the repr of everything that a user can lay hands on.
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
import pickle
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from agentflow import AsyncFlow, LLMNode
from agentflow.core.robustness.retry import RetryPolicy
from agentflow.errors import AgentFlowError, ModelError
from agentflow.llm.agentflow import AgentFlow
from agentflow.llm.builder import LLMClientBuilder
from agentflow.llm.config.registry import ModelRegistry

KEY = "sk-SENTINEL-9f8e7d6c5b4a39281706f5e4d3c2b1a0"
PIECE = KEY[:16]  # a message may be cut short, and half a key is too much

KINDS = {
    "openai": "kind: openai",
    "responses": "kind: openai, options: {api: responses}",
    "anthropic": "kind: anthropic",
    "google": "kind: google",
    "moonshot": "kind: moonshot",
    "azure": "kind: openai, auth_header: api-key, query: {api-version: '2026-01-01'}",
}

Fail = Callable[[Any], Awaitable[None]]


def echo() -> dict[str, Any]:
    """An error in everybody's shape, whose texts all repeat the key."""
    said = {"message": f"bad key {KEY} in {KEY}", "type": KEY, "code": KEY, "param": KEY, "status": KEY}
    return {"type": "error", "error": said, "message": f"bad key {KEY}", "request_id": KEY}


def status(code: int) -> Fail:
    async def fail(exchange: Any) -> None:
        headers = {"x_request_id": KEY, "request_id": KEY, "retry_after": "0", "x_note": f"Bearer {KEY}"}
        await exchange.respond(echo(), code, **headers)

    return fail


async def page(exchange: Any) -> None:
    """HTML of a proxy that shows the request's headers."""
    await exchange.respond(f"<html>authorization: Bearer {KEY}</html>".encode(), 502, content_type="text/html")


async def nonsense(exchange: Any) -> None:
    await exchange.respond(f'{{"echo": "{KEY}"'.encode())


async def nothing_we_know(exchange: Any) -> None:
    await exchange.respond({"echo": KEY, "headers": {"authorization": f"Bearer {KEY}"}})


async def error_in_a_good_answer(exchange: Any) -> None:
    await exchange.respond(echo())


async def error_in_a_stream(exchange: Any) -> None:
    await exchange.begin_stream(x_request_id=KEY)
    await exchange.piece(f"event: error\ndata: {json.dumps(echo())}\n\n".encode())
    await exchange.end_stream()


async def broken_stream(exchange: Any) -> None:
    await exchange.begin_stream(x_request_id=KEY)
    await exchange.piece(f'data: {{"echo": "{KEY}"\n\n'.encode())
    await exchange.end_stream()


async def cut_stream(exchange: Any) -> None:
    await exchange.begin_stream(x_request_id=KEY)
    await exchange.piece(f'data: {{"echo": "{KEY}"}}\n\n: {KEY}\n\n'.encode())
    exchange.writer.close()


async def redirect(exchange: Any) -> None:
    await exchange.respond(b"", 302, location=f"http://127.0.0.1:9/?key={KEY}")


async def no_http(exchange: Any) -> None:
    await exchange.send(f"SSH-2.0 {KEY}\r\n\r\n".encode())
    exchange.writer.close()


async def hang_up(exchange: Any) -> None:
    exchange.writer.close()


async def silence(exchange: Any) -> None:
    await asyncio.Event().wait()


async def plain_refusal(exchange: Any) -> None:
    await exchange.respond({"error": {"message": "no", "type": "invalid_request_error"}}, 401)


async def half_a_body(exchange: Any) -> None:
    await exchange.head(200, content_type="application/json", content_length="1000")
    await exchange.send(f'{{"echo": "{KEY}'.encode())
    exchange.writer.close()


FAILURES: dict[str, Fail] = {
    **{f"status {code}": status(code) for code in (400, 401, 402, 403, 404, 408, 409, 413, 422, 429, 500, 503, 529)},
    **{
        fail.__name__: fail
        for fail in (page, nonsense, nothing_we_know, error_in_a_good_answer, error_in_a_stream, broken_stream)
    },
    **{fail.__name__: fail for fail in (cut_stream, redirect, no_http, half_a_body)},
    **{fail.__name__: fail for fail in (hang_up, silence, plain_refusal)},
}
SILENT_ABOUT_IT = {"hang_up", "silence", "plain_refusal"}
"""Who does not repeat the key. What a server sends stands in the variables of whoever reads it, which cannot be helped;
the key that we hold does not."""


# ---- looking for the key -------------------------------------------------------------------------------------


def everything_about(error: BaseException, *, frames: bool = True) -> Iterator[str]:
    """All that an error and those behind it can show; with `frames`, the local variables on its way too."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        waiting += [each.__cause__, each.__context__]
        yield from (str(each), repr(each), repr(each.args), repr(vars(each)), repr(getattr(each, "__notes__", "")))
    shown = traceback.TracebackException.from_exception(error, capture_locals=frames)
    yield "".join(shown.format())
    with suppress(TypeError, AttributeError, pickle.PicklingError):
        yield repr(pickle.dumps(error))


def assert_clean(where: str, texts: Iterator[str]) -> None:
    for text in texts:
        at = text.find(PIECE)
        assert at < 0, f"{where}: …{text[max(0, at - 600) : at + 80]}…"


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Everything that anybody logs, at the lowest level."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    root, level = logging.getLogger(), logging.getLogger().level
    root.addHandler(handler)
    root.setLevel(1)
    yield stream
    root.removeHandler(handler)
    root.setLevel(level)


def registry_for(kind: str, url: str, folder: Path) -> ModelRegistry:
    (folder / "models.yml").write_text(
        "defaults: {timeout: {connect: 5, first_byte: 0.2, idle: 0.2, total: 5}}\n"
        f'providers:\n  lab: {{{KINDS[kind]}, base_url: "{url}", api_key_env: LAB_KEY}}\n'
        "models:\n  m: {provider: lab}\n"
    )
    return ModelRegistry.load(environ={"LAB_KEY": KEY}, cwd=folder, home=folder)


@pytest.fixture
async def registries(tmp_path: Path) -> AsyncIterator[Callable[[str, str], ModelRegistry]]:
    made: list[ModelRegistry] = []

    def make(kind: str, url: str) -> ModelRegistry:
        made.append(registry_for(kind, url, tmp_path))
        return made[-1]

    yield make
    for registry in made:
        await registry.aclose()


async def failing(model: LLMClientBuilder) -> AgentFlowError:
    with pytest.raises(ModelError) as caught:
        await model.execute_full()
    return caught.value


async def left_by_caller(model: LLMClientBuilder) -> BaseException:
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(0.2):
            await model.execute()
    return caught.value


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("failure", FAILURES)
async def test_no_failure_shows_the_key(
    serve: Any, registries: Callable[[str, str], ModelRegistry], log: io.StringIO, kind: str, failure: str
) -> None:
    """Whole and streamed: the error in every form, and the log."""
    server = await serve(FAILURES[failure])
    registry = registries(kind, server.url)
    once = AgentFlow.model("m", registry=registry).prompt("Hi").retry(RetryPolicy(max_attempts=2, base_delay=0))
    for streaming in (False, True):
        error = await failing(once.streaming(streaming))
        shown = everything_about(error, frames=failure in SILENT_ABOUT_IT)
        assert_clean(f"{kind}, {failure}, streaming={streaming}", shown)
    assert_clean("the log", iter([log.getvalue()]))
    assert server.requests
    for exchange in server.requests:
        assert PIECE not in exchange.path, "the key stands in the address"
        assert any(KEY in value for value in exchange.headers.values()), "the key was not sent at all"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:9/v1", "https://127.0.0.1:9/v1", "https://nowhere.invalid/v1"], ids=str
)
async def test_no_failure_to_connect_shows_the_key(
    registries: Callable[[str, str], ModelRegistry], log: io.StringIO, kind: str, address: str
) -> None:
    registry = registries(kind, address)
    once = AgentFlow.model("m", registry=registry).prompt("Hi").retry(RetryPolicy(max_attempts=1))
    for streaming in (False, True):
        assert_clean(f"{kind} {address}", everything_about(await failing(once.streaming(streaming))))
    assert_clean("the log", iter([log.getvalue()]))


@pytest.mark.parametrize("kind", KINDS)
async def test_events_of_a_run_do_not_show_the_key(
    serve: Any, registries: Callable[[str, str], ModelRegistry], kind: str
) -> None:
    server = await serve(status(500))
    model = AgentFlow.model("m", registry=registries(kind, server.url)).retry(RetryPolicy(2, 0))
    flow = AsyncFlow(LLMNode(model, prompt="Hi", writes="answer"))
    seen: list[str] = []
    with pytest.raises(AgentFlowError) as caught:
        async with flow.stream({}) as events:
            async for event in events:
                seen.append(repr(event))
    assert any("retry" in event for event in seen)
    assert_clean("an event", iter(seen))
    assert_clean("the error", everything_about(caught.value, frames=False))


@pytest.mark.parametrize("kind", KINDS)
async def test_nothing_that_a_user_can_hold_shows_the_key(
    registries: Callable[[str, str], ModelRegistry], kind: str
) -> None:
    """Reprs, the settings included, and what can be pickled of them."""
    registry = registries(kind, "http://127.0.0.1:9/v1")
    config, provider = registry.resolve("m")
    model = AgentFlow.model("m", registry=registry).prompt("Hi")
    held = [
        registry,
        config,
        provider,
        registry.settings("lab"),
        registry.settings("lab").api_key,
        model,
        model.build(),
    ]
    assert_clean("a repr", (text for each in held for text in (repr(each), str(each))))
    assert_clean("an inside", (repr(value) for value in vars(provider).values()))
    for each in held:
        with suppress(TypeError, AttributeError, pickle.PicklingError):
            assert_clean("a pickle", iter([repr(pickle.dumps(each))]))


async def test_a_token_that_is_made_for_each_call_is_no_less_secret(
    serve: Any, registries: Callable[[str, str], ModelRegistry]
) -> None:
    """As Vertex wants it: the callable's token goes into the header and nowhere else."""
    server = await serve(plain_refusal)
    registry = registries("google", server.url)
    registry.set_token("lab", lambda: KEY)
    model = AgentFlow.model("m", registry=registry).prompt("Hi")
    for streaming in (False, True):
        assert_clean("a token", everything_about(await failing(model.streaming(streaming))))
    assert all(exchange.headers["authorization"] == f"Bearer {KEY}" for exchange in server.requests)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("ended_by", ["the limit of the call", "the caller"])
async def test_a_call_that_is_ended_while_it_waits_does_not_show_the_key(
    serve: Any, tmp_path: Path, streaming: bool, ended_by: str
) -> None:
    """The wait is cancelled deep inside the HTTP client, in frames that hold the headers."""
    server = await serve(silence)
    (tmp_path / "models.yml").write_text(
        f'providers:\n  lab: {{{KINDS["openai"]}, base_url: "{server.url}", api_key_env: LAB_KEY}}\n'
    )
    registry = ModelRegistry.load(environ={"LAB_KEY": KEY}, cwd=tmp_path, home=tmp_path)
    model = AgentFlow.model("lab/m", registry=registry).prompt("Hi").streaming(streaming)
    error = await (left_by_caller(model) if ended_by == "the caller" else failing(model.timeout(0.2)))
    assert server.requests
    assert_clean(ended_by, everything_about(error))
    await registry.aclose()


def test_a_test_that_finds_nothing_would_find_a_key() -> None:
    """The search itself: a key in a local variable, in a cause and in a message is found."""

    def plant() -> None:
        headers = {"authorization": f"Bearer {KEY}"}
        raise ValueError(len(headers))

    for make in (lambda: plant(), lambda: (_ for _ in ()).throw(ValueError(KEY))):
        with pytest.raises(ValueError) as caught:
            make()
        with pytest.raises(AssertionError):
            assert_clean("planted", everything_about(caught.value))
