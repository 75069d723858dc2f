"""Who may ask, and from where."""

from __future__ import annotations

import logging
from pathlib import Path

import aiohttp
import openai
import pytest
from tests.support.served import registry_of, running

from agentflow.errors import ConfigurationError, UnknownModelError
from agentflow.llm.providers.scripted import ScriptedProvider
from agentflow.server import app
from agentflow.server.access import is_loopback

KEY = "s3cret-key-of-the-server"


async def test_only_the_right_key_is_let_in(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A wrong key is a 401 that does not repeat it, and no log has either."""
    caplog.set_level(logging.DEBUG)
    registry = registry_of(tmp_path, toy=ScriptedProvider(["Hello."]))
    async with running(registry, "toy/m", api_key=KEY) as server:
        async with server.client("wrong-key-wrong-key") as client:
            with pytest.raises(openai.AuthenticationError) as raised:
                await client.models.list()
        async with server.client(KEY) as client:
            assert [model.id for model in (await client.models.list()).data] == ["toy/m"]
        async with aiohttp.ClientSession() as session, session.get(f"{server.url}/v1/models") as answer:
            assert answer.status == 401
        async with aiohttp.ClientSession() as session, session.get(f"{server.url}/health") as answer:
            assert (answer.status, await answer.json()) == (200, {"status": "ok"})
    assert raised.value.code == "invalid_api_key"
    assert "wrong-key" not in raised.value.message
    ours = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("agentflow"))
    assert KEY not in ours


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8000", 200),
        ("127.0.0.1", 200),
        ("[::1]:8000", 200),
        ("LOCALHOST", 200),
        ("lab.example.org", 200),
        ("evil.example.org", 403),
        ("127.0.0.1.evil.example.org", 403),
        ("[::1", 403),
    ],
)
async def test_a_rebound_name_is_refused(tmp_path: Path, host: str, status: int) -> None:
    """A page whose name was pointed at 127.0.0.1 says that name in `Host`."""
    registry = registry_of(tmp_path, toy=ScriptedProvider([]))
    async with running(registry, "toy/m", hosts=["lab.example.org"]) as server:
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{server.url}/v1/models", headers={"Host": host}) as answer:
                assert answer.status == status


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_what_a_page_may_send_unasked_is_refused(tmp_path: Path, kind: str) -> None:
    """A browser sends such bodies to any address; JSON it sends only after it was allowed to."""
    toy = ScriptedProvider(["Hello."])
    body = b'{"model": "toy/m", "messages": [{"role": "user", "content": "Hi"}]}'
    async with running(registry_of(tmp_path, toy=toy), "toy/m") as server, aiohttp.ClientSession() as session:
        skip = ["Content-Type"] if not kind else []
        headers = {"Content-Type": kind} if kind else {}
        async with session.post(
            f"{server.url}/v1/chat/completions", data=body, headers=headers, skip_auto_headers=skip
        ) as answer:
            assert answer.status == 415
        async with session.options(
            f"{server.url}/v1/chat/completions", headers={"Origin": "https://evil.example.org"}
        ) as answer:
            assert answer.status == 405
            assert not [name for name in answer.headers if name.lower().startswith("access-control")]
    assert toy.requests == []


async def test_a_compressed_body_is_not_taken(tmp_path: Path) -> None:
    """A few bytes could otherwise become gigabytes."""
    async with running(registry_of(tmp_path, toy=ScriptedProvider([])), "toy/m") as server:
        async with aiohttp.ClientSession() as session:
            headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
            async with session.post(f"{server.url}/v1/embeddings", data=b"\x1f\x8b", headers=headers) as answer:
                assert answer.status in (400, 415)


@pytest.mark.parametrize(
    ("host", "here"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False)],
)
def test_loopback_is_told_from_the_rest(host: str, here: bool) -> None:
    """By what the address is; of names, localhost alone."""
    assert is_loopback(host) is here


def test_what_cannot_be_served_is_refused_at_once(tmp_path: Path) -> None:
    """Before anything listens."""
    registry = registry_of(tmp_path, toy=ScriptedProvider([]))
    with pytest.raises(UnknownModelError):
        app(models=["nobody-knows-this"], registry=registry)
    with pytest.raises(ConfigurationError, match="a list of names"):
        app(models="toy/m", registry=registry)
    with pytest.raises(ConfigurationError, match="empty"):
        app(models=["toy/m"], registry=registry, api_key=" ")
