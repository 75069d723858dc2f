"""The store in which several processes keep their limits together, from `defaults.shared` of models.yml.

    shared: {integration: valkey, url_env: VALKEY_URL, replicas: 4}
        ──entry point of the group agentflow.integrations──▶  SharedStore ──▶ limiters, breakers

An integration is a function of settings (`url`, `replicas`, `prefix`, …) and a listener that returns a store. That the
store is down, or is back, is said by the logger `agentflow.shared`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final, Protocol, cast

from agentflow.core.robustness.circuit_breaker import CircuitBreaker
from agentflow.core.robustness.decision import Decision, Listener
from agentflow.core.robustness.limiting import Breaker, Limiter
from agentflow.errors import AgentFlowError, ConfigurationError, describe
from agentflow.llm.config.integrations import integration
from agentflow.llm.config.schema import Shared, set_fields

__all__ = ["SharedStore", "open_store"]

_USUAL: Final = "valkey"
_log: Final = logging.getLogger("agentflow.shared")


class SharedStore(Protocol):
    """What an integration of this kind gives."""

    def limiter(self, key: str, **limits: Any) -> Limiter:
        """The limiter of that key, with the limits that `RateLimiter` has."""
        ...

    def share_breaker(self, key: str, breaker: Callable[[Listener], CircuitBreaker], /) -> Breaker:
        """The breaker that is made with a listener, open where another process's is."""
        ...

    async def aclose(self) -> None: ...


def open_store(said: Shared, url: str | None) -> SharedStore:
    """The store, which connects when it is first asked. Raises ConfigurationError, MissingExtraError."""
    settings = {name: value for name, value in set_fields(said).items() if name not in ("integration", "url_env")}
    if url is not None:
        settings["url"] = url
    name = _USUAL if "integration" not in set_fields(said) else str(said.integration)
    try:
        return cast("SharedStore", integration(name, "defaults.shared")(settings, listener=_tell))
    except AgentFlowError:
        raise
    except Exception as error:
        raise ConfigurationError(f"defaults.shared: the integration {name!r} failed: {describe(error)}") from error


def _tell(decision: Decision) -> None:
    """What changes for everybody is worth a line; single waits and refusals are events of their calls."""
    facts = ", ".join(f"{name} {value}" for name, value in decision.data.items())
    if decision.kind in ("store_down", "store_lost"):
        _log.warning("%s: %s (%s)", decision.guard, decision.kind.replace("_", " "), facts)
    elif decision.kind == "store_up":
        _log.info("%s: store up (%s)", decision.guard, facts)
