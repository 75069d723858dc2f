"""Which model servers run on this machine: asks the usual loopback ports for their list of models.

    127.0.0.1:11434 ──GET /v1/models──▶ {"data": [{"id": "llama3.2"}]}   →   Server ollama serves llama3.2

Plain sockets through `http.client`: proxies must not be asked, and half a second on loopback is plenty.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from typing import Final

__all__ = ["USUAL", "Answer", "Server", "probe"]

_PATIENCE: Final = 0.5
_MOST: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Server:
    """A server that follows OpenAI's API. `provider` is its name in the built-in models.yml."""

    provider: str
    title: str
    port: int

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"


USUAL: Final = (
    Server("ollama", "Ollama", 11434),
    Server("lmstudio", "LM Studio", 1234),
    Server("llamacpp", "llama.cpp", 8080),
    Server("vllm", "vLLM", 8000),
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a port said. `models` is None where nothing there speaks the API; `reached` tells silence from strangers."""

    server: Server
    reached: bool
    models: tuple[str, ...] | None


def probe(servers: Sequence[Server]) -> list[Answer]:
    """Ask all of them at once. Never raises: a port that does not answer is an answer."""
    if not servers:
        return []
    with ThreadPoolExecutor(len(servers)) as threads:
        return list(threads.map(_ask, servers))


def _ask(server: Server) -> Answer:
    connection = HTTPConnection("127.0.0.1", server.port, timeout=_PATIENCE)
    try:
        connection.request("GET", "/v1/models", headers={"accept": "application/json"})
        response = connection.getresponse()
        return Answer(server, True, _models(response.read(_MOST)) if response.status == 200 else None)
    except HTTPException:
        return Answer(server, True, None)
    except OSError:
        return Answer(server, False, None)
    finally:
        connection.close()


def _models(body: bytes) -> tuple[str, ...] | None:
    try:
        found = json.loads(body)
    except ValueError:
        return None
    data = found.get("data") if isinstance(found, dict) else None
    if not isinstance(data, list):
        return None
    return tuple(entry["id"] for entry in data if isinstance(entry, dict) and isinstance(entry.get("id"), str))
