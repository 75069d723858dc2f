"""One event loop's connections to the server; the only file that knows the `redis` package.

    connection = Connection(url)              opens nothing yet
    await connection.run(script, keys, arguments)
    await connection.run_all(messages)        in one round trip; an answer, or an error, for each

Scripts are called by their digest. A server that does not know one (it is new, or was told to forget) gets the text,
and knows it from then on. There is no time limit here: that is the store's business.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Sequence
from typing import Any, Final, Protocol, cast
from urllib.parse import urlsplit

from agentflow.errors import MissingExtraError
from agentflow.integrations.valkey.remote import Argument, Message
from agentflow.integrations.valkey.scripts import Script

__all__ = ["Connection", "checked_url", "reason_of", "require_redis", "shown_url"]

_SCHEMES: Final = {"redis": "redis", "rediss": "rediss", "unix": "unix", "valkey": "redis", "valkeys": "rediss"}


def require_redis(url: str) -> None:
    """Raises MissingExtraError where the `redis` package is not installed, ValueError for what it makes nothing of."""
    try:
        from redis.asyncio.connection import parse_url
    except ImportError:
        raise MissingExtraError("sharing limits", "valkey") from None
    try:
        parse_url(url)
    except Exception:  # noqa: BLE001 - its text may repeat the URL
        raise ValueError("url has a part or an option that cannot be read") from None


def checked_url(url: str) -> str:
    """The URL as the redis package spells it. No error repeats it, as it may hold a password."""
    scheme, found, rest = url.partition("://")
    if not found or scheme.lower() not in _SCHEMES:
        raise ValueError(f"url must begin with one of {', '.join(f'{name}://' for name in _SCHEMES)}")
    try:
        urlsplit(url).port  # noqa: B018 - a port that is no number raises here
    except ValueError:
        raise ValueError("url has a host or port that cannot be read") from None
    return f"{_SCHEMES[scheme.lower()]}://{rest}"


def shown_url(url: str) -> str:
    """What may be shown of it: no user, no password, no options."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if parts.hostname and ":" in parts.hostname else parts.hostname or ""
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{host}{port}{parts.path}"


def reason_of(error: BaseException) -> str:
    """What went wrong, in a word or two: the kind of error and the server's code, but not its text, which may quote."""
    from redis.exceptions import ResponseError

    kind = type(error).__name__
    code = str(error).split(" ")[0] if isinstance(error, ResponseError) else ""
    return f"{kind} {code}" if code.isupper() else kind


class Connection:
    """Made on the event loop that uses it. `cluster`: the URL names one node of a cluster."""

    def __init__(self, url: str, *, cluster: bool = False) -> None:
        self._client = _client(url, cluster)
        self._pid = os.getpid()

    @property
    def is_ours(self) -> bool:
        """False in a process that was forked off: two must not talk through one socket."""
        return self._pid == os.getpid()

    async def run(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
        """What the script answers. Raises the redis package's errors, and OSError."""
        from redis.exceptions import NoScriptError

        try:
            return await self._client.execute_command("EVALSHA", script.sha, len(keys), *keys, *arguments)
        except NoScriptError:
            return await self._client.execute_command("EVAL", script.text, len(keys), *keys, *arguments)

    async def run_all(self, messages: Sequence[Message]) -> list[Any]:
        """The answers, in their order; where a script failed, its error stands there instead."""
        from redis.exceptions import NoScriptError

        pipeline = self._client.pipeline(transaction=False)
        for message in messages:
            pipeline.execute_command(
                "EVALSHA", message.script.sha, len(message.keys), *message.keys, *message.arguments()
            )
        answers: list[Any] = await pipeline.execute(raise_on_error=False)
        for index, answer in enumerate(answers):
            if isinstance(answer, NoScriptError):
                message = messages[index]
                answers[index] = await self.run(message.script, message.keys, message.arguments())
        return answers

    async def ping(self) -> None:
        await self._client.execute_command("PING")

    async def close(self) -> None:
        await self._client.aclose()


class _Pipeline(Protocol):
    def execute_command(self, *words: Any) -> Any: ...

    async def execute(self, raise_on_error: bool) -> list[Any]: ...


class _Client(Protocol):
    """What is used of the package's two clients, whose own types are loose."""

    def execute_command(self, *words: Any) -> Awaitable[Any]: ...

    def pipeline(self, *, transaction: bool) -> _Pipeline: ...

    async def aclose(self) -> None: ...


def _client(url: str, cluster: bool) -> _Client:
    from redis.asyncio import Redis, RedisCluster
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    # Once more, at once: a connection that lay idle may have been closed. The scripts bear being run twice.
    again = Retry(NoBackoff(), 1)
    if cluster:
        return cast("_Client", RedisCluster.from_url(url, retry=again))
    return cast("_Client", Redis.from_url(url, retry=again, socket_timeout=None, socket_connect_timeout=None))
