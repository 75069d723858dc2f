"""An artifact registered as a model: from then on it is called by its name, as any other.

    with EdgeDeployment("artifacts/support").register("edge/support"):
        text = await AgentFlow.model("edge/support").prompt("Hello").execute()

    EdgeDeployment(artifact, gate=Gate(kl=0.05))          refuses what is worse
    await deployment.warm()                               opens the model before the first caller comes

Nothing is opened by registering; the first call does, after the files were held against the manifest's checksums. The
memory is given back by `unregister`, by `close` and at the end of a `with`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from agentflow.errors import ConfigurationError, QualityGateError
from agentflow.llm.agentflow import AgentFlow
from agentflow.llm.config.registry import ModelRegistry
from agentflow.llm.providers.base import ProviderSettings
from agentflow.mcp.compression.artifact.artifact import Artifact
from agentflow.mcp.compression.artifact.gate import Gate
from agentflow.mcp.performance.edge.facts import Facts

if TYPE_CHECKING:
    from agentflow.mcp.performance.edge.provider import EdgeProvider

__all__ = ["EdgeDeployment"]


class EdgeDeployment:
    """`artifact` is one, or the folder of one; a model's folder without a manifest may be deployed too, on trust.

    `runtime` names another than the one that fits (see `open_runtime`); `threads` are those of one step, `rows` the
    answers that are written at once, `price_per_hour` USD of an hour of the machine. `verify` False takes the files as
    they are. `gate` None keeps to what the manifest records of its gate, a `Gate` asks anew, False lets anything
    through.

    Raises MissingExtraError where the extra `edge` is not installed, ArtifactError where the folder is no model,
    QualityGateError where it is below its gate, ConfigurationError where one is asked of a folder without a manifest.
    """

    def __init__(
        self,
        artifact: Artifact | str | Path,
        *,
        runtime: str | None = None,
        threads: int | None = None,
        rows: int = 16,
        price_per_hour: float | None = None,
        verify: bool = True,
        gate: Gate | Literal[False] | None = None,
    ) -> None:
        self._kind = _provider()
        self.facts = Facts.of(artifact.folder if isinstance(artifact, Artifact) else artifact)
        _check_gate(self.facts, gate)
        if verify and self.facts.manifest is not None:
            Artifact.open(self.facts.folder, verify=False)  # what is missing or cut off is said at once
        self._runtime = runtime
        self._threads = threads
        self._rows = rows
        self._price = price_per_hour
        self._verify = verify
        self._made: list[EdgeProvider] = []
        self._registered: dict[str, ModelRegistry] = {}

    def register(
        self,
        name: str,
        *,
        registry: ModelRegistry | None = None,
        price: Mapping[str, float] | None = None,
    ) -> EdgeDeployment:
        """Make the model known by `name`, in the default registry unless another is given. `price` is USD per million
        tokens ("input", "output"); without one a call costs nothing, or its share of `price_per_hour`.

        Raises ConfigurationError where the name is taken by another model.
        """
        registry = AgentFlow.registry if registry is None else registry
        if name in registry.models():
            raise ConfigurationError(f"there is a model {name!r} already: unregister it, or choose another name")
        free = {"input": 0.0, "output": 0.0} if self._price is None else None
        registry.register_provider(name, self._build)
        registry.register_model(
            name,
            provider=name,
            model_id=name.rpartition("/")[2],
            capabilities={"generate": ("schema",), "classify": (), "embed": ("embed",)}[self.facts.task],
            context=self.facts.context_length,
            price=price or free,
            breaker=False,  # there is no server that could be down, or overrun
            shedder=False,
        )
        self._registered[name] = registry
        return self

    def unregister(self) -> None:
        """Take the model out of every registry it was put into, and free its memory. Safe to call twice."""
        while self._registered:
            name, registry = self._registered.popitem()
            registry.remove_model(name)
            registry.remove_provider(name)
        self.close()

    def provider(self, name: str = "edge") -> EdgeProvider:
        """The model without a registry. It is closed with the deployment, or by itself."""
        made = self._kind(
            self.facts.folder,
            name=name,
            runtime=self._runtime,
            threads=self._threads,
            rows=self._rows,
            price_per_hour=self._price,
            check=self._check,
        )
        self._made.append(made)
        return made

    async def warm(self) -> None:
        """Open the model now, and let it work once. Raises ConfigurationError where it is not registered, and what
        opening raises."""
        if not self._registered:
            raise ConfigurationError("register the deployment before warming it: deployment.register('edge/…')")
        for name, registry in self._registered.items():
            provider = registry.provider(name)
            assert isinstance(provider, self._kind)
            await provider.warm()

    def close(self) -> None:
        """Free the model's memory; what is being answered ends with a ModelError. The next call opens it again."""
        made, self._made = self._made, []
        for name, registry in self._registered.items():
            registry.register_provider(name, self._build)  # so that a fresh one is built
        for provider in made:
            provider.close()

    def __enter__(self) -> EdgeDeployment:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.unregister()

    async def __aenter__(self) -> EdgeDeployment:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.unregister)

    def _build(self, settings: ProviderSettings) -> EdgeProvider:
        return self.provider(settings.name)

    def _check(self) -> None:
        """In the model's thread, before it is opened: every file is read once."""
        if self._verify and self.facts.manifest is not None:
            Artifact.open(self.facts.folder)


def _provider() -> type[EdgeProvider]:
    """Loaded here, so that this module can be had where numpy is not. Raises MissingExtraError there."""
    from agentflow.mcp.performance.edge.provider import EdgeProvider

    return EdgeProvider


def _check_gate(facts: Facts, gate: Gate | Literal[False] | None) -> None:
    if gate is False:
        return
    manifest = facts.manifest
    if manifest is None:
        if gate is not None:
            raise ConfigurationError(f"{facts.folder} has no manifest.json, so that nothing can be held against a gate")
        return
    if gate is not None:
        gate.check(manifest)
    elif manifest.gate is not None and manifest.gate.failures:
        raise QualityGateError(manifest.name, manifest.gate.failures)
