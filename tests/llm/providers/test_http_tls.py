"""TLS on loopback: certificates are verified, come what may, and a wrong file is found before the first request."""

from __future__ import annotations

import asyncio
import datetime
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trustme

from agentflow.errors import ConfigurationError, ModelConnectionError, ModelTimeoutError
from agentflow.llm.providers.base import ProviderSettings, Secret, Timeouts
from agentflow.llm.providers.http import AiohttpTransport

KEY = "sk-very-secret-key-1234567890"


def transport(url: str, *, timeouts: Timeouts | None = None, **settings: Any) -> AiohttpTransport:
    return AiohttpTransport(
        ProviderSettings("lab", "openai", api_key=Secret(KEY), timeouts=timeouts or Timeouts(), **settings),
        base_url=url,
        headers={"authorization": f"Bearer {KEY}"},
        environ={},
    )


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def bundle(authority: trustme.CA, tmp_path: Path) -> str:
    """The authority's own certificate, as a file that can be named in ca_bundle."""
    path = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(path)
    return str(path)


@dataclass
class TlsServer:
    """Answers every request with `{}`. `heads` holds what was asked, decrypted."""

    context: ssl.SSLContext
    heads: list[bytes] = field(default_factory=list)
    connections: int = 0
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        assert self.server is not None
        return int(self.server.sockets[0].getsockname()[1])

    async def start(self) -> None:
        self.server = await asyncio.start_server(self._connected, "127.0.0.1", 0, ssl=self.context)

    async def stop(self) -> None:
        assert self.server is not None
        self.server.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.tasks.add(asyncio.ensure_future(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                self.heads.append(await reader.readuntil(b"\r\n\r\n"))
                await reader.readexactly(2)
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        except (asyncio.IncompleteReadError, OSError):
            pass  # the client has gone, or was never satisfied with us
        finally:
            writer.close()


Start = Callable[..., Awaitable[TlsServer]]


@pytest.fixture
async def start(authority: trustme.CA) -> AsyncIterator[Start]:
    """Start a server with a certificate for `names`: `server = await start("localhost")`."""
    started: list[TlsServer] = []

    async def start(*names: str, clients: trustme.CA | None = None, **certificate: Any) -> TlsServer:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(*names, **certificate).configure_cert(context)
        if clients is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            clients.configure_trust(context)
        server = TlsServer(context)
        await server.start()
        started.append(server)
        return server

    yield start
    for server in started:
        await server.stop()


async def ask(client: AiohttpTransport) -> bytes:
    try:
        return (await client.post("/chat", b"{}", model="m", total=5)).body
    finally:
        await client.aclose()


# ---- servers -------------------------------------------------------------------------------------------------


async def test_a_certificate_of_an_unknown_authority_is_refused_and_nothing_is_sent(start: Start) -> None:
    server = await start("localhost")
    with pytest.raises(ModelConnectionError, match=r"TLS failed .*name it in ca_bundle") as caught:
        await ask(transport(f"https://localhost:{server.port}/v1"))
    assert server.heads == []
    assert KEY not in repr(caught.value)


async def test_an_authority_named_in_ca_bundle_is_trusted(start: Start, bundle: str) -> None:
    server = await start("localhost")
    assert await ask(transport(f"https://localhost:{server.port}/v1", ca_bundle=bundle)) == b"{}"


async def test_a_certificate_for_another_host_is_refused(start: Start, bundle: str) -> None:
    server = await start("elsewhere.test")
    with pytest.raises(ModelConnectionError, match=r"TLS failed \(Hostname mismatch.*does not fit base_url"):
        await ask(transport(f"https://localhost:{server.port}/v1", ca_bundle=bundle))
    assert server.heads == []


async def test_an_expired_certificate_is_refused(start: Start, bundle: str) -> None:
    server = await start(
        "localhost",
        not_before=datetime.datetime(2001, 1, 1, tzinfo=datetime.UTC),
        not_after=datetime.datetime(2002, 1, 1, tzinfo=datetime.UTC),
    )
    with pytest.raises(ModelConnectionError, match="TLS failed"):
        await ask(transport(f"https://localhost:{server.port}/v1", ca_bundle=bundle))


async def test_a_ca_bundle_replaces_the_systems_authorities(start: Start, tmp_path: Path) -> None:
    server = await start("localhost")
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(other)
    with pytest.raises(ModelConnectionError, match="TLS failed"):
        await ask(transport(f"https://localhost:{server.port}/v1", ca_bundle=str(other)))


async def test_connect_limits_a_handshake_that_never_ends(bundle: str) -> None:
    left = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        left.set()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = transport(f"https://localhost:{port}/v1", ca_bundle=bundle, timeouts=Timeouts(connect=0.1))
    with pytest.raises(ModelTimeoutError, match="connect took longer than"):
        await ask(client)
    await left.wait()
    server.close()


async def test_one_connection_serves_many_calls(start: Start, bundle: str) -> None:
    server = await start("localhost")
    client = transport(f"https://localhost:{server.port}/v1", ca_bundle=bundle)
    for _ in range(3):
        assert (await client.post("/chat", b"{}", model="m", total=5)).body == b"{}"
    assert (len(server.heads), server.connections) == (3, 1)
    await client.aclose()


# ---- clients' certificates -----------------------------------------------------------------------------------


@pytest.fixture
def own(authority: trustme.CA, tmp_path: Path) -> dict[str, str]:
    """The client's own certificate: in one file, and as a pair."""
    issued = authority.issue_cert("me@example.test")
    paths = {name: tmp_path / f"{name}.pem" for name in ("both", "certificate", "key")}
    issued.private_key_and_cert_chain_pem.write_to_path(paths["both"])
    issued.cert_chain_pems[0].write_to_path(paths["certificate"])
    issued.private_key_pem.write_to_path(paths["key"])
    return {name: str(path) for name, path in paths.items()}


@pytest.mark.parametrize("pair", [False, True])
async def test_a_client_certificate_is_shown(
    start: Start, authority: trustme.CA, bundle: str, own: dict[str, str], pair: bool
) -> None:
    server = await start("localhost", clients=authority)
    shown = (own["certificate"], own["key"]) if pair else own["both"]
    assert await ask(transport(f"https://localhost:{server.port}/v1", ca_bundle=bundle, client_cert=shown)) == b"{}"


async def test_a_server_that_misses_a_client_certificate_says_so(authority: trustme.CA, bundle: str) -> None:
    """In TLS 1.3 that comes late, when the client holds the connection for open and has sent its request."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    listening = socket.create_server(("127.0.0.1", 0))

    def refuse() -> None:
        connection, _ = listening.accept()
        with connection, connection.dup() as raw:
            with pytest.raises(ssl.SSLError):
                context.wrap_socket(connection, server_side=True).close()
            raw.shutdown(socket.SHUT_WR)
            while raw.recv(65536):  # or the client would see a reset instead of the reason
                pass

    refusing = asyncio.create_task(asyncio.to_thread(refuse))
    with pytest.raises(
        ModelConnectionError, match=r"TLS failed \(.*certificate required\); the server wants a client_cert"
    ):
        await ask(transport(f"https://localhost:{listening.getsockname()[1]}/v1", ca_bundle=bundle))
    await refusing
    listening.close()


# ---- wrong files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be read .*give the path of a PEM file"),
        (b"", "holds no certificate: give the path of a PEM file"),
        (b"not a certificate", "holds no certificate"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "holds no certificate"),
    ],
)
def test_a_ca_bundle_that_cannot_be_used_is_refused(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "bundle.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=f"provider 'lab': ca_bundle .*bundle.pem' {reason}"):
        transport("https://host/v1", ca_bundle=str(path))


def test_a_folder_and_an_empty_path_are_no_ca_bundle(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="provider 'lab': ca_bundle"):
        transport("https://host/v1", ca_bundle=str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"is empty: .*or leave it out to trust the system's"):
        transport("https://host/v1", ca_bundle="")


def test_a_client_certificate_that_cannot_be_used_is_refused(tmp_path: Path, own: dict[str, str]) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().issue_cert("a.test").private_key_pem.write_to_path(other)
    for wrong, reason in [
        (str(tmp_path / "missing.pem"), "cannot be read"),
        (own["certificate"], "cannot be used"),
        ((own["certificate"], str(other)), "cannot be used .key values mismatch"),
    ]:
        with pytest.raises(ConfigurationError, match=f"provider 'lab': client_cert .*{reason}"):
            transport("https://host/v1", client_cert=wrong)


def test_an_encrypted_key_is_refused_and_no_password_is_asked_for(tmp_path: Path, own: dict[str, str]) -> None:
    serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    key = serialization.load_pem_private_key(Path(own["key"]).read_bytes(), None)
    encrypted = tmp_path / "encrypted.pem"
    encrypted.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"hunter2"),
        )
    )
    with pytest.raises(ConfigurationError, match="holds an encrypted key: give it decrypted"):
        transport("https://host/v1", client_cert=(own["certificate"], str(encrypted)))


def test_the_files_are_read_once_for_all_event_loops(bundle: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    original = ssl.create_default_context

    def counting(*args: Any, **options: Any) -> ssl.SSLContext:
        read.append(options["cafile"])
        return original(*args, **options)

    monkeypatch.setattr(ssl, "create_default_context", counting)
    client = transport("https://127.0.0.1:1/v1", ca_bundle=bundle)
    for _ in range(2):
        with pytest.raises(ModelConnectionError):
            asyncio.run(client.post("/chat", b"{}", model="m", total=5))
    assert read == [bundle]
