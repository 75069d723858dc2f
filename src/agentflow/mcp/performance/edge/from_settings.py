"""`kind: edge` of models.yml: the plug-in `edge` of the group `agentflow.providers`.

    providers:
      support: {kind: edge, options: {folder: artifacts/support, threads: 2}}
    models:
      edge/support: {provider: support, capabilities: [schema], context: 4096}

Paths count from where the models.yml lies. The folder is held against its checksums, and an artifact that failed its
gate is refused, unless `verify: false` and `gate: false` say otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from agentflow.errors import ArtifactError, ConfigurationError
from agentflow.llm.providers.base import ProviderSettings
from agentflow.mcp.performance.edge.deployment import EdgeDeployment
from agentflow.mcp.performance.edge.provider import EdgeProvider

__all__ = ["from_settings"]

_WHERE: Final = "options: {folder: …}"


class _Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    folder: str
    runtime: str | None = None
    threads: int | None = None
    rows: int = 16
    price_per_hour: float | None = None
    verify: bool = True
    gate: bool = True


def from_settings(settings: ProviderSettings) -> EdgeProvider:
    """Raises ConfigurationError for options that do not fit, and where the folder is no model."""
    if "folder" not in settings.options:
        raise ConfigurationError(
            f"provider {settings.name!r} names no folder, and no deployment of that name is registered: add {_WHERE} "
            "to its entry in models.yml, or call EdgeDeployment(artifact).register(name) first"
        )
    try:
        said = msgspec.convert(dict(settings.options), _Options)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"provider {settings.name!r}: {_WHERE} does not fit: {error}") from error
    folder = (settings.folder or Path()) / Path(said.folder).expanduser()
    try:
        deployment = EdgeDeployment(
            folder,
            runtime=said.runtime,
            threads=said.threads,
            rows=said.rows,
            price_per_hour=said.price_per_hour,
            verify=said.verify,
            gate=None if said.gate else False,
        )
    except ArtifactError as error:
        raise ConfigurationError(f"provider {settings.name!r}: {error}") from error
    made: Callable[[str], EdgeProvider] = deployment.provider
    return made(settings.name)
