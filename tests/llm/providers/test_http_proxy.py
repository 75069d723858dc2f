"""Proxies on loopback: a tunnel for what is encrypted, plain forwarding for the rest, and who is asked to use one."""

from __future__ import annotations

import asyncio
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trustme

from agentflow.errors import ConfigurationError, ModelConnectionError, ModelTimeoutError
from agentflow.llm.providers.base import ProviderSettings, Secret, Timeouts
from agentflow.llm.providers.http import AiohttpTransport

KEY = "sk-very-secret-key-1234567890"
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


def transport(
    url: str, *, timeouts: Timeouts | None = None, environ: dict[str, str] | None = None, **settings: Any
) -> AiohttpTransport:
    return AiohttpTransport(
        ProviderSettings("lab", "openai", api_key=Secret(KEY), timeouts=timeouts or Timeouts(), **settings),
        base_url=url,
        headers={"authorization": f"Bearer {KEY}"},
        environ=environ or {},
    )


async def ask(client: AiohttpTransport, path: str = "/chat") -> bytes:
    try:
        return (await client.post(path, b"{}", model="m", total=5)).body
    finally:
        await client.aclose()


# ---- the other ends ------------------------------------------------------------------------------------------


@dataclass
class Server:
    """A socket on loopback that keeps what it is told in `heads`; subclasses say what it answers."""

    heads: list[bytes] = field(default_factory=list)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        assert self.server is not None
        return int(self.server.sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self, context: ssl.SSLContext | None = None) -> None:
        self.server = await asyncio.start_server(self._connected, "127.0.0.1", 0, ssl=context)

    async def stop(self) -> None:
        assert self.server is not None
        self.server.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.tasks.add(asyncio.ensure_future(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                self.heads.append(await reader.readuntil(b"\r\n\r\n"))
                await self.answer(reader, writer)
        except (asyncio.IncompleteReadError, OSError):
            pass  # the client has gone
        finally:
            writer.close()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers every request with `{}`."""
        await reader.readexactly(2)
        writer.write(ANSWER)


@dataclass
class Proxy(Server):
    """Tunnels to `target`, whatever host is asked for, and answers plain requests itself; or refuses with `status`."""

    target: int = 0
    status: int = 200

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.heads[-1].startswith(b"CONNECT "):
            await super().answer(reader, writer)
            return
        if self.status != 200:
            writer.write(b"HTTP/1.1 %d No\r\ncontent-length: 0\r\n\r\n" % self.status)
            return
        there, to_there = await asyncio.open_connection("127.0.0.1", self.target)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        try:
            await asyncio.gather(self._copy(reader, to_there), self._copy(there, writer))
        finally:
            to_there.close()

    async def _copy(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            target.write(data)
        target.close()


class SilentProxy(Server):
    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()


@dataclass
class Lab:
    """A server for https://api.test, an authority that vouches for it, and a proxy that finds it."""

    server: Server
    proxy: Proxy
    bundle: str
    authority: trustme.CA


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("api.test").configure_cert(context)
    server = Server()
    await server.start(context)
    proxy = Proxy(target=server.port)
    await proxy.start()
    yield Lab(server, proxy, str(tmp_path / "authority.pem"), authority)
    await proxy.stop()
    await server.stop()


# ---- tunnels -------------------------------------------------------------------------------------------------


async def test_an_encrypted_call_goes_through_a_tunnel_that_shows_only_the_host(lab: Lab) -> None:
    """aiohttp would tell the proxy a session's own headers, and send the key as the password for it."""
    client = transport("https://api.test/v1", proxy=lab.proxy.url, ca_bundle=lab.bundle)
    assert await ask(client) == b"{}"
    (head,) = lab.proxy.heads
    assert head.startswith(b"CONNECT api.test:443 HTTP/1.1\r\n")
    assert KEY.encode() not in head
    assert b"uthorization" not in head
    assert lab.server.heads[0].startswith(b"POST /v1/chat HTTP/1.1\r\n")
    assert f"authorization: Bearer {KEY}".encode() in lab.server.heads[0]


async def test_a_tunnel_is_used_again(lab: Lab) -> None:
    client = transport("https://api.test/v1", proxy=lab.proxy.url, ca_bundle=lab.bundle)
    for _ in range(3):
        await client.post("/chat", b"{}", model="m", total=5)
    assert (len(lab.proxy.heads), len(lab.server.heads)) == (1, 3)
    await client.aclose()


async def test_the_servers_certificate_is_verified_behind_a_proxy_as_well(lab: Lab) -> None:
    with pytest.raises(ModelConnectionError, match="TLS failed"):
        await ask(transport("https://other.test/v1", proxy=lab.proxy.url, ca_bundle=lab.bundle))
    with pytest.raises(ModelConnectionError, match="TLS failed"):
        await ask(transport("https://api.test/v1", proxy=lab.proxy.url))
    assert lab.server.heads == []


async def test_a_proxy_may_itself_be_encrypted(lab: Lab) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    lab.authority.issue_cert("localhost").configure_cert(context)
    proxy = Proxy(target=lab.server.port)
    await proxy.start(context)
    client = transport("https://api.test/v1", proxy=f"https://localhost:{proxy.port}", ca_bundle=lab.bundle)
    assert await ask(client) == b"{}"
    assert len(proxy.heads) == 1
    await proxy.stop()


# ---- passwords -----------------------------------------------------------------------------------------------


async def test_user_and_password_of_the_address_go_to_the_proxy_alone(lab: Lab) -> None:
    address = lab.proxy.url.replace("http://", "http://me:p%40ss@")
    assert await ask(transport("https://api.test/v1", proxy=address, ca_bundle=lab.bundle)) == b"{}"
    login = b64encode(b"me:p@ss")
    assert b"Basic " + login in lab.proxy.heads[0]
    assert login not in lab.server.heads[0]


async def test_a_proxy_that_refuses_is_named_without_its_password(lab: Lab) -> None:
    lab.proxy.status = 407
    address = lab.proxy.url.replace("http://", "http://me:hunter2@")
    client = transport("https://api.test/v1", proxy=address, ca_bundle=lab.bundle)
    with pytest.raises(
        ModelConnectionError, match=r"the proxy http://127.0.0.1:\d+ refuses it with HTTP 407"
    ) as caught:
        await ask(client)
    assert not caught.value.retryable
    assert "hunter2" not in repr(caught.value) + repr(vars(client)) + repr(caught.value.__context__)
    assert b64encode(b"me:hunter2").decode() not in repr(client._proxy)


async def test_a_proxy_in_trouble_may_be_asked_again(lab: Lab) -> None:
    lab.proxy.status = 502
    with pytest.raises(ModelConnectionError, match="refuses it with HTTP 502") as caught:
        await ask(transport("https://api.test/v1", proxy=lab.proxy.url, ca_bundle=lab.bundle))
    assert caught.value.retryable


# ---- plain requests ------------------------------------------------------------------------------------------


async def test_a_plain_request_names_the_whole_address_to_the_proxy() -> None:
    proxy = Proxy()
    await proxy.start()
    address = proxy.url.replace("http://", "http://me:pass@")
    client = transport("http://127.0.0.1:9/v1?tenant=a%2Fb", proxy=address)
    assert await ask(client, "/models/x:y") == b"{}"
    assert proxy.heads[0].startswith(b"POST http://127.0.0.1:9/v1/models/x:y?tenant=a%2Fb HTTP/1.1\r\n")
    assert b"proxy-authorization: Basic " + b64encode(b"me:pass") in proxy.heads[0]
    await proxy.stop()


# ---- proxies that are not there ------------------------------------------------------------------------------


async def test_a_proxy_that_does_not_run_is_named(lab: Lab) -> None:
    address = lab.proxy.url
    await lab.proxy.stop()
    with pytest.raises(ModelConnectionError, match=f"the proxy {address}: the server refuses it; .*is proxy right"):
        await ask(transport("https://api.test/v1", proxy=address))


async def test_a_proxy_without_an_address_is_named() -> None:
    client = transport("https://api.test/v1", proxy="http://no-such-proxy.invalid:3128")
    with pytest.raises(ModelConnectionError, match=r"the proxy http://no-such-proxy.invalid:3128: its host has no"):
        await ask(client)


async def test_connect_limits_the_wait_for_a_tunnel() -> None:
    proxy = SilentProxy()
    await proxy.start()
    client = transport("https://api.test/v1", proxy=proxy.url, timeouts=Timeouts(connect=0.1))
    with pytest.raises(ModelTimeoutError, match="connect took longer than"):
        await ask(client)
    await proxy.stop()


# ---- who is asked to use one ---------------------------------------------------------------------------------


def chosen(url: str, **environ: str) -> str | None:
    client = transport(url, allow_http=True, environ=environ)
    return None if client._proxy is None else str(client._proxy)


def test_the_environment_names_a_proxy_as_other_tools_read_it() -> None:
    assert chosen("https://api.test", HTTPS_PROXY="http://p:1") == "http://p:1"
    assert chosen("https://api.test", https_proxy="http://q:1", HTTPS_PROXY="http://p:1") == "http://q:1"
    assert chosen("https://api.test", HTTP_PROXY="http://p:1") is None
    assert chosen("https://api.test", ALL_PROXY="http://p:1") == "http://p:1"
    assert chosen("https://api.test", HTTPS_PROXY="p:3128") == "http://p:3128", "a missing scheme means http"
    assert chosen("http://api.test", HTTP_PROXY="http://me:pw@p:1", HTTPS_PROXY="http://q:1") == "http://p:1"
    assert chosen("https://api.test", HTTPS_PROXY="  ") is None
    assert chosen("https://api.test") is None


def test_in_a_cgi_program_http_proxy_may_be_a_strangers_header_and_is_not_believed() -> None:
    assert chosen("http://api.test", HTTP_PROXY="http://p:1", REQUEST_METHOD="GET") is None
    assert chosen("http://api.test", http_proxy="http://p:1", REQUEST_METHOD="GET") == "http://p:1"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "api.localhost"])
def test_the_environments_proxy_never_stands_before_loopback(host: str) -> None:
    assert chosen(f"http://{host}:8000/v1", HTTP_PROXY="http://p:1", ALL_PROXY="http://p:1") is None
    assert chosen(f"https://{host}:8000/v1", HTTPS_PROXY="http://p:1") is None


@pytest.mark.parametrize(
    ("no_proxy", "direct"),
    [
        ("*", True),
        ("api.test", True),
        ("API.TEST", True),
        ("test", True),
        (".test", True),
        ("*.test", True),
        ("other, api.test", True),
        ("api.test:443", True),
        ("api.test:8443", False),
        ("pi.test", False),
        ("api.test.evil", False),
        ("10.0.0.0/8", False),
        ("", False),
        (" , ", False),
    ],
)
def test_no_proxy_names_hosts_and_domains(no_proxy: str, direct: bool) -> None:
    assert (chosen("https://api.test/v1", HTTPS_PROXY="http://p:1", NO_PROXY=no_proxy) is None) == direct


@pytest.mark.parametrize(
    ("host", "no_proxy", "direct"),
    [
        ("10.1.2.3", "10.0.0.0/8", True),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3", "10.1.2.3:443", True),
        ("11.1.2.3", "10.0.0.0/8", False),
        ("[fd00::1]", "fd00::/8", True),
        ("[fd00::1]", "[fd00::1]", True),
        ("[fd00::1]", "10.0.0.0/8", False),
    ],
)
def test_no_proxy_names_addresses_and_networks(host: str, no_proxy: str, direct: bool) -> None:
    assert (chosen(f"https://{host}/v1", https_proxy="http://p:1", no_proxy=no_proxy) is None) == direct


async def test_the_settings_proxy_wins_over_the_environment_and_over_no_proxy(lab: Lab) -> None:
    client = transport(
        "https://api.test/v1",
        proxy=lab.proxy.url,
        ca_bundle=lab.bundle,
        environ={"HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "*"},
    )
    assert await ask(client) == b"{}"


async def test_the_processs_own_environment_is_asked_by_default(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", lab.proxy.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    settings = ProviderSettings("lab", "openai", ca_bundle=lab.bundle)
    assert await ask(AiohttpTransport(settings, base_url="https://api.test/v1", headers={})) == b"{}"
    assert len(lab.proxy.heads) == 1


@pytest.mark.parametrize(
    "address",
    ["", "http://", "http://me:hunter2@", "http://me:hunter2@host:port", "http://me:hunter2", "http://h\nost:1", "::"],
)
def test_what_is_no_address_of_a_proxy_is_refused_without_repeating_it(address: str) -> None:
    with pytest.raises(ConfigurationError, match="provider 'lab': proxy is not an address like") as caught:
        transport("https://api.test/v1", proxy=address)
    assert "hunter2" not in str(caught.value)


def test_a_socks_proxy_is_refused_and_not_passed_over() -> None:
    with pytest.raises(ConfigurationError, match="proxy is of a kind that is not supported: name an HTTP proxy"):
        transport("https://api.test/v1", proxy="socks5://me:hunter2@host:1080")
    with pytest.raises(ConfigurationError, match="the environment variable ALL_PROXY is of a kind"):
        transport("https://api.test/v1", environ={"ALL_PROXY": "socks5://host:1080"})


def test_an_address_of_a_proxy_is_parsed_only_where_one_is_used() -> None:
    """A broken variable must not stop a model on this machine."""
    assert chosen("http://localhost:11434", HTTP_PROXY="socks5://host") is None
