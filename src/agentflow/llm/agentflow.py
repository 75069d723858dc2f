"""The front door of the model client: `AgentFlow.model(name)` and the registry behind it.

AgentFlow.model("gpt-4o")  ──▶  LLMClientBuilder
AgentFlow.init("models.yml")    loads a configuration at once instead of on first use
AgentFlow.registry              the default ModelRegistry, one for the process
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Lock

from agentflow.core.flow import FlowResult
from agentflow.core.observability.feedback import feedback
from agentflow.errors import ConfigurationError
from agentflow.llm.builder import LLMClientBuilder
from agentflow.llm.client import Call
from agentflow.llm.config.registry import ModelRegistry
from agentflow.llm.messages import Response

__all__ = ["AgentFlow"]


class _Door(type):
    """Makes `registry` an attribute of the class itself."""

    _lock = Lock()
    _registry: ModelRegistry | None = None

    @property
    def registry(cls) -> ModelRegistry:
        """The default registry, loaded from the usual places on first use. May be set, as tests do."""
        return _Door._registry or cls._loaded()

    @registry.setter
    def registry(cls, registry: ModelRegistry) -> None:
        with _Door._lock:
            _Door._registry = registry

    def _loaded(cls) -> ModelRegistry:
        with _Door._lock:
            if _Door._registry is None:
                _Door._registry = ModelRegistry.load()
            return _Door._registry


class AgentFlow(metaclass=_Door):
    """Where every model call starts.

        text = await AgentFlow.model("gpt-4o").prompt("Hello").execute()

    Safe to use from all threads and event loops.
    """

    @staticmethod
    def model(name: str | None = None, *, registry: ModelRegistry | None = None) -> LLMClientBuilder:
        """A builder for the model of that name; without a name for `registry.default_model()`, whose reason is worth
        showing to a user. The name is looked up when the call is made."""
        return LLMClientBuilder(_default_registry if registry is None else _always(registry), Call(model=name))

    @staticmethod
    def init(path: str | Path | None = None) -> ModelRegistry:
        """Load the configuration, with `path` over the usual places, make it the default, and start what its
        `observability:` and `audit:` turn on; what an earlier default has started ends.

        Raises ConfigurationError with `file:line:column`. Calls that are under way keep the registry they started with.
        """
        registry = ModelRegistry.load(path)
        registry.observe()
        before, AgentFlow.registry = _Door._registry, registry
        if before is not None:
            before.observing.close()
        return registry

    @staticmethod
    def feedback(
        answer: Response | FlowResult | str,
        *,
        score: float | None = None,
        label: str | None = None,
        comment: str | None = None,
    ) -> None:
        """Record how good an answer or a run was: of a reply, of a flow's result, or by a run's id.

            reply = await AgentFlow.model("gpt-4o").prompt("Hello").execute_full()
            AgentFlow.feedback(reply, score=1.0, label="helpful")

        `score` is from 0 (useless) to 1. Raises ConfigurationError for a score that is none, and where nobody records,
        so that it would be lost.
        """
        run_id = answer if isinstance(answer, str) else answer.run_id
        if run_id is None:
            raise ConfigurationError(
                "this reply belongs to no run, since nobody watched it: turn the run store on with "
                "`observability: {runs: true}` in models.yml, or with observe(RunStore(…)), before the call"
            )
        feedback(run_id, score=score, label=label, comment=comment)

    @staticmethod
    async def aclose() -> None:
        """Close the connections of the default registry, if it was ever loaded; it may be used again."""
        if _Door._registry is not None:
            await _Door._registry.aclose()


def _default_registry() -> ModelRegistry:
    """For a call: what models.yml wants recorded begins with the first one."""
    registry = AgentFlow.registry
    if not registry.observing.running:
        registry.observe()
    return registry


def _always(registry: ModelRegistry) -> Callable[[], ModelRegistry]:
    return lambda: registry
