"""Tells a server of alerts: signed, tried again for a while, and never for longer.

    Webhook("https://example.org/hook", secret_env="HOOK_SECRET")
    alert ──▶ JSON ──sign──▶ POST ──▶ 2xx: done
                                 └──▶ 408, 429, 5xx, no answer: again, at most `max_attempts` times

Each attempt is signed anew (signature.py) and bears the same `webhook-id`, by which a receiver knows what it has had
already. The secret is read from the environment as it is needed, and kept and shown nowhere.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from agentflow.clock import Clock, SystemClock
from agentflow.core.observability.alerts.alert import Alert
from agentflow.core.observability.alerts.post import Target, post
from agentflow.core.observability.alerts.signature import signed
from agentflow.core.observability.redaction.redactor import redact
from agentflow.core.robustness.retry import RetryPolicy
from agentflow.core.robustness.retry_after import retry_after
from agentflow.errors import AlertActionError, ConfigurationError, OperationTimeoutError, describe

__all__ = ["Post", "Webhook"]

Post: TypeAlias = Callable[[Target, Mapping[str, str], bytes], Awaitable[tuple[int, dict[str, str]]]]
"""Sends a request; returns the answer's status and headers."""

_LONGEST_WAIT: Final = 60.0  # seconds that a receiver may ask for
_log = logging.getLogger("agentflow.alerts")
_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


@dataclass(frozen=True, slots=True)
class Webhook:
    """`url` is where to, or `url_env` the environment variable that says so, where the address itself is a secret.

    `secret_env` names the variable that holds the secret; None signs nothing. `headers_env` are further headers, each
    with the variable that holds its value. `timeout` is seconds for each attempt. The waits in between begin with
    `base_delay` seconds, double, and are never longer than `max_delay`, or than what the receiver asks for, up to a
    minute. Raises ConfigurationError where a variable is not set.
    """

    url: str | None = field(default=None, repr=False)
    url_env: str | None = field(default=None, kw_only=True)
    secret_env: str | None = field(default=None, kw_only=True)
    headers_env: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    timeout: float = field(default=10.0, kw_only=True)
    max_attempts: int = field(default=5, kw_only=True)
    base_delay: float = field(default=1.0, kw_only=True)
    max_delay: float = field(default=30.0, kw_only=True)
    clock: Clock = field(default_factory=SystemClock, kw_only=True, repr=False, compare=False)
    post: Post = field(default=post, kw_only=True, repr=False, compare=False)

    def __post_init__(self) -> None:
        if (self.url is None) == (self.url_env is None):
            raise ConfigurationError("a webhook has either url or url_env")
        if not 0 < self.timeout < float("inf"):
            raise ConfigurationError(f"timeout: found {self.timeout}, allowed is a finite number of seconds above 0")
        self._target()
        signed(self._secret() or "", "", b"", now=0.0)  # a secret that cannot be used is found here
        self._headers()
        self._policy()

    async def act(self, alert: Alert) -> None:
        body = json.dumps(alert.to_json(), ensure_ascii=True, separators=(",", ":")).encode("ascii")
        failed: list[Exception] = []

        async def attempt() -> None:
            try:
                await self._attempt(alert.id, body)
            except Exception as error:
                failed[:] = [error]
                raise

        try:
            await self._policy().run(attempt, clock=self.clock)
        except asyncio.CancelledError:
            if failed:  # it would have been tried again, and nobody else hears why it had to be
                _log.warning("a webhook was given up between two attempts: %s", redact(describe(failed[0]))[:500])
            raise

    async def _attempt(self, message_id: str, body: bytes) -> None:
        target, secret = self._target(), self._secret()
        headers = {"content-type": "application/json", "user-agent": "agentflow", **self._headers()}
        if secret is not None:
            headers |= signed(secret, message_id, body, now=self.clock.time())
        else:
            headers["webhook-id"] = message_id
        status, answer = await self._within(target, headers, body)
        if not 200 <= status < 300:
            wait = retry_after(answer, now=self.clock.time())
            raise AlertActionError(
                f"{target} answered {status}",
                retryable=status in (408, 429) or status >= 500,
                retry_after=None if wait is None else min(wait, _LONGEST_WAIT),
            )

    async def _within(self, target: Target, headers: Mapping[str, str], body: bytes) -> tuple[int, dict[str, str]]:
        limit = asyncio.timeout(self.timeout)
        try:
            async with limit:
                return await self.post(target, headers, body)
        except TimeoutError:
            if not limit.expired():
                raise
            raise OperationTimeoutError(f"a request to {target}", self.timeout) from None

    # ---- from the environment

    def _target(self) -> Target:
        return Target.of(self.url if self.url is not None else _variable("url_env", self.url_env or ""))

    def _secret(self) -> str | None:
        return None if self.secret_env is None else _variable("secret_env", self.secret_env)

    def _headers(self) -> dict[str, str]:
        found = {name: _variable("headers_env", variable) for name, variable in self.headers_env.items()}
        for name, value in found.items():
            if not _NAME.fullmatch(name) or not value.isprintable():
                raise ConfigurationError(f"headers_env: {name!r} or its value cannot be sent as a header")
        return found

    def _policy(self) -> RetryPolicy:
        try:
            return RetryPolicy(self.max_attempts, self.base_delay, self.max_delay, "equal")
        except ValueError as error:
            raise ConfigurationError(str(error)) from None


def _variable(field: str, name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise ConfigurationError(f"{field}: the environment variable {name} is not set")
    return value
