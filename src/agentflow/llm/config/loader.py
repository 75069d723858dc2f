"""Reads models.yml from every place where one may lie and lays the files over each other.

    built-in  <  ~/.config/agentflow/models.yml  <  ./models.yml  <  AGENTFLOW_CONFIG  <  an explicit path
        └──── parse ── no key literal ── the right shape ──┘ each by itself, so an error names its own file

The merge is field by field within each entry under `providers:` and `models:`; entries of the stronger file come first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from agentflow.errors import ConfigurationError
from agentflow.llm.config.document import MalformedYaml, Place, locate, parse
from agentflow.llm.config.document import Path as DataPath
from agentflow.llm.config.keys import literal_key
from agentflow.llm.config.observability import Audit, Observability
from agentflow.llm.config.schema import (
    Defaults,
    Document,
    ModelEntry,
    ProviderEntry,
    overlay,
    problems,
)
from agentflow.llm.content import Json

__all__ = ["Configuration", "Layer", "load_configuration", "read_layer"]

BUILT_IN: Final = "built-in models.yml"

Entry = TypeVar("Entry", ProviderEntry, ModelEntry)


@dataclass(frozen=True, slots=True)
class Layer:
    """One file, parsed and checked. `source` is its path as messages show it."""

    source: str
    text: str
    document: Document

    def where(self, path: DataPath) -> str:
        return _at(self.source, locate(self.text, path))


@dataclass(frozen=True, slots=True)
class Configuration:
    """All files as one: what is in force."""

    defaults: Defaults
    providers: Mapping[str, ProviderEntry]
    models: Mapping[str, ModelEntry]
    layers: tuple[Layer, ...]
    observability: Observability
    audit: Audit | None

    @property
    def sources(self) -> tuple[str, ...]:
        """The files that were read, the weakest first."""
        return tuple(layer.source for layer in self.layers)

    def where(self, section: str, name: str) -> str | None:
        """`file:line:column` of an entry, in the strongest file that has it."""
        for layer in reversed(self.layers):
            if name in (getattr(layer.document, section) or {}):
                return layer.where((section, name))
        return None

    def folder_of(self, provider: str) -> Path | None:
        """Where the strongest file lies that gives options to a provider; None where none does."""
        for layer in reversed(self.layers):
            entry = (layer.document.providers or {}).get(provider)
            if entry is not None and entry.options is not msgspec.UNSET and layer.source != BUILT_IN:
                return Path(layer.source).parent
        return None

    def place(self, *path: str | int) -> str | None:
        """`file:line:column` of a field of `observability`, in the strongest file that sets it."""
        for layer in reversed(self.layers):
            if _sets(layer.document, path):
                return layer.where(path)
        return None


def _sets(found: object, path: DataPath) -> bool:
    for step in path:
        found = found.get(step) if isinstance(found, Mapping) else getattr(found, str(step), None)
        if found is None or found is msgspec.UNSET:
            return False
    return True


def load_configuration(
    path: str | Path | None, *, environ: Mapping[str, str], cwd: Path, home: Path | None
) -> Configuration:
    """Everything in force for a process in `cwd`. Raises ConfigurationError with `file:line:column`.

    The files of the home and the working folder may be missing; those that the environment or the caller names may not.
    """
    built_in = resources.files("agentflow.llm.config").joinpath("defaults.yml").read_text(encoding="utf-8")
    layers = [read_layer(BUILT_IN, built_in)]
    layers += [read_layer(str(file), _read(file)) for file in _files(path, environ=environ, cwd=cwd, home=home)]
    return _merge(tuple(layers))


def read_layer(source: str, text: str) -> Layer:
    """One file's text, checked by itself. Raises ConfigurationError."""
    data = _parse(source, text)
    leak = literal_key(data)
    if leak is not None:
        raise _leak(source, text, leak)
    try:
        document = msgspec.convert({} if data is None else data, Document)
    except msgspec.ValidationError as error:
        sentence = str(error)
    else:
        _check_alerts(source, text, document.observability)
        _check_patterns(source, text, document.audit)
        return Layer(source, text, document)
    raise _misfit(source, text, data, sentence)


def _check_alerts(source: str, text: str, said: Observability | None) -> None:
    if said is None or said.alerts is msgspec.UNSET:
        return
    from agentflow.llm.config.alerting import misfit  # who has no rules pays for no alerts

    found = misfit(said.alerts)
    if found is not None:
        raise ConfigurationError(found[1], source=_at(source, locate(text, found[0])))


def _check_patterns(source: str, text: str, said: Audit | bool | None) -> None:
    """The regular expressions of `audit.redact`, each by itself."""
    if not isinstance(said, Audit) or said.redact is msgspec.UNSET or said.redact.patterns is msgspec.UNSET:
        return
    from agentflow.core.observability.redaction.redactor import Redactor

    for name, pattern in said.redact.patterns.items():
        path = ("audit", "redact", "patterns", name)
        try:
            Redactor(patterns={name: pattern})
        except ConfigurationError as error:
            raise ConfigurationError(f"{'.'.join(path)}: {error}", source=_at(source, locate(text, path))) from None


def _parse(source: str, text: str) -> Json:
    try:
        return parse(text)
    except MalformedYaml as error:
        raise ConfigurationError(str(error), source=_at(source, error.place)) from None


def _leak(source: str, text: str, path: DataPath) -> ConfigurationError:
    return ConfigurationError(
        f"{'.'.join(map(str, path)) or 'this file'} holds what looks like a key: take it out (and replace the key, "
        "since it has stood in a file), put it in the environment or in .env, and name its variable in api_key_env",
        source=_at(source, locate(text, path)),
    )


def _misfit(source: str, text: str, data: Json, otherwise: str) -> ConfigurationError:
    """The first misfit in words of ours, and how many more there are; msgspec's own sentence where we find none."""
    found = list(problems(data))
    if not found:
        return ConfigurationError(otherwise, source=source)
    more = f" (and {len(found) - 1} more)" if found[1:] else ""
    return ConfigurationError(f"{found[0]}{more}", source=_at(source, locate(text, found[0].path)))


def _at(source: str, place: Place) -> str:
    return f"{source}:{place.line}:{place.column}"


# ---- which files, and how they become one --------------------------------------------------------------------


def _files(path: str | Path | None, *, environ: Mapping[str, str], cwd: Path, home: Path | None) -> Iterator[Path]:
    """The files to read, the weakest first, each once."""
    wanted = [cwd / "models.yml"]
    if home is not None:
        wanted.insert(0, home / ".config" / "agentflow" / "models.yml")
    files = [file for file in wanted if file.exists()]
    files += [cwd / _home(name, home) for name in (environ.get("AGENTFLOW_CONFIG"), path) if name]
    last = {file.resolve(): index for index, file in enumerate(files)}
    return (file for index, file in enumerate(files) if last[file.resolve()] == index)


def _home(name: str | Path, home: Path | None) -> Path:
    """`~/…` is the home that the caller of the loader gave, as everywhere else here."""
    parts = Path(name).parts
    return home.joinpath(*parts[1:]) if home is not None and parts[:1] == ("~",) else Path(name)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        reason = "there is no such file; `agentflow init` writes one"
    except UnicodeDecodeError as error:
        reason = f"it is not UTF-8 text (byte {error.start + 1})"
    except OSError as error:
        reason = f"it cannot be read: {error.strerror}"
    raise ConfigurationError(reason, source=str(file))


def _merge(layers: tuple[Layer, ...]) -> Configuration:
    defaults, observability, audit = Defaults(), Observability(), None
    providers: dict[str, ProviderEntry] = {}
    models: dict[str, ModelEntry] = {}
    for layer in layers:
        defaults = overlay(defaults, layer.document.defaults or Defaults())
        observability = overlay(observability, layer.document.observability or Observability())
        audit = _audit(audit, layer.document.audit)
        providers = _laid_over(providers, layer.document.providers, ProviderEntry())
        models = _laid_over(models, layer.document.models, ModelEntry())
    return Configuration(defaults, providers, models, layers, observability, audit)


def _audit(below: Audit | None, above: bool | Audit | None) -> Audit | None:
    """`true` turns on what a weaker file may have described, `false` turns it off, and nothing changes nothing."""
    if above is None:
        return below
    if isinstance(above, bool):
        return (below or Audit()) if above else None
    return above if below is None else overlay(below, above)


def _laid_over(below: dict[str, Entry], above: Mapping[str, Entry | None] | None, empty: Entry) -> dict[str, Entry]:
    """`above` first, so that "the first provider with a key" is one the user wrote down, if any."""
    merged = {name: entry or empty for name, entry in (above or {}).items()}
    merged |= {name: overlay(below[name], entry) for name, entry in merged.items() if name in below}
    return {**merged, **{name: entry for name, entry in below.items() if name not in merged}}
