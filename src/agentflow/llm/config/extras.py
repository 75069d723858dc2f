"""Which optional packages the sections of models.yml need, and whether they are there, before anything is started.

EXTRAS["prometheus"].present          whether its packages are installed; nothing of them is imported
EXTRAS["prometheus"].require()        MissingExtraError, with the command that installs it, where they are not
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Final

from agentflow.errors import MissingExtraError

__all__ = ["EXTRAS", "Extra"]


@dataclass(frozen=True, slots=True)
class Extra:
    """`pip install 'agentflow-engine[name]'`, which `feature` needs for these modules."""

    name: str
    feature: str
    modules: tuple[str, ...]

    @property
    def present(self) -> bool:
        return all(map(_is_there, self.modules))

    def require(self) -> None:
        if not self.present:
            raise MissingExtraError(self.feature, self.name)


EXTRAS: Final[Mapping[str, Extra]] = {
    "prometheus": Extra("prometheus", "Prometheus", ("prometheus_client",)),
    "opentelemetry": Extra("otel", "OpenTelemetry", ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")),
    "aes_gcm": Extra("audit", "encrypted content in the audit log", ("cryptography",)),
}
"""By the integration's name."""


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):  # what it is part of is not there; a module that says nothing of itself
        return False
