"""From a model's name to its configuration and its provider.

    registry = ModelRegistry.load()
    config, provider = registry.resolve("gpt-4o")        # a dictionary look-up after the first time

A registry is an ordinary object: several live in one process, one serves all threads and event loops. Providers are
built when first needed, one for each entry under `providers:`, so an unused one needs no key.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from msgspec import UNSET, UnsetType

from agentflow.core.robustness.retry import RetryPolicy
from agentflow.errors import ConfigurationError, UnknownModelError, describe
from agentflow.llm.config.keys import KeyRing
from agentflow.llm.config.loader import Configuration, load_configuration
from agentflow.llm.config.schema import ModelEntry, ProviderEntry, model_entry, phases, set_fields
from agentflow.llm.messages import Json
from agentflow.llm.providers.base import LLMProvider, ProviderFactory, ProviderSettings, Timeouts

if TYPE_CHECKING:
    from importlib.metadata import EntryPoints

__all__ = ["DefaultModel", "ModelConfig", "ModelRegistry"]

T = TypeVar("T")

PLUGINS: Final = "agentflow.providers"
OFFLINE_MODEL: Final = "local/extractive"


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """One model, resolved: None where models.yml says nothing, so that the provider decides.

    `name` is what callers say, `model_id` what the provider hears; `timeout` is the whole call's limit in seconds.
    """

    name: str
    provider: str
    model_id: str
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    params: Mapping[str, Json] = field(default_factory=dict)
    timeout: float | None = None
    retry: RetryPolicy = field(default_factory=RetryPolicy)


@dataclass(frozen=True, slots=True)
class DefaultModel:
    """The model that answers when nobody names one. `reason` is a line for the user; `chosen` is False where nothing
    was configured and the offline model stands in."""

    name: str
    reason: str
    chosen: bool = True


def _openai(settings: ProviderSettings) -> LLMProvider:
    from agentflow.llm.providers.openai import OpenAIProvider

    return OpenAIProvider(settings)


def _local(settings: ProviderSettings) -> LLMProvider:
    from agentflow.llm.providers.local import LocalProvider

    return LocalProvider(settings)


def _scripted(settings: ProviderSettings) -> LLMProvider:
    from agentflow.llm.providers.scripted import ScriptedProvider

    return ScriptedProvider.from_settings(settings)


_BUILT_IN: Final[Mapping[str, ProviderFactory]] = {"openai": _openai, "local": _local, "scripted": _scripted}


class ModelRegistry:
    """What `AgentFlow.model(name)` looks a name up in.

    `ModelRegistry.load()` reads the files; `register_provider` and `register_model` add what no file says. A name
    `provider/model_id` needs no entry under `models:` as long as the provider is known.
    """

    def __init__(self, configuration: Configuration, keys: KeyRing) -> None:
        self._configuration = configuration
        self._keys = keys
        self._provider_entries = dict(configuration.providers)
        self._model_entries = dict(configuration.models)
        self._factories: dict[str, ProviderFactory] = dict(_BUILT_IN)
        self._providers: dict[str, LLMProvider] = {}
        self._resolved: dict[str, tuple[ModelConfig, LLMProvider]] = {}
        self._default: DefaultModel | None = None
        self._lock = RLock()

    @classmethod
    def load(
        cls,
        path: str | Path | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        home: Path | None = None,
    ) -> ModelRegistry:
        """Built-in < ~/.config/agentflow/models.yml < ./models.yml < AGENTFLOW_CONFIG < `path`; keys from `environ`,
        then ./.env. Raises ConfigurationError with `file:line:column`."""
        environ = os.environ if environ is None else environ
        cwd = Path.cwd() if cwd is None else cwd
        configuration = load_configuration(path, environ=environ, cwd=cwd, home=home or _home())
        return cls(configuration, KeyRing(environ, cwd / ".env"))

    # ---- looking up ------------------------------------------------------------------------------------------

    @property
    def sources(self) -> tuple[str, ...]:
        """The files this registry was read from, the weakest first."""
        return self._configuration.sources

    def models(self) -> tuple[str, ...]:
        """The names under `models:`, those of your own files first."""
        return tuple(self._model_entries)

    def providers(self) -> tuple[str, ...]:
        """The names under `providers:`, those of your own files first."""
        return tuple(self._provider_entries)

    def describe(self, name: str) -> ModelConfig:
        """A model's configuration, without building its provider: no key is needed. Raises UnknownModelError."""
        entry = self._model_entries.get(name)
        return self._config(name, self._implied(name) if entry is None else entry)

    def settings(self, provider: str) -> ProviderSettings:
        """What a provider is built from, its key included. Raises MissingKeyError, ConfigurationError."""
        entry = self._provider_entry(provider)
        names = _names(entry.api_key_env)
        return ProviderSettings(
            name=provider,
            kind=provider if entry.kind is UNSET else entry.kind,
            base_url=_given(entry.base_url),
            api_key=self._keys.require(provider, names) if names else None,
            headers=_given(entry.headers) or {},
            timeouts=self._timeouts(entry),
            allow_http=_given(entry.allow_http) or False,
            options=_given(entry.options) or {},
        )

    def key_found(self, provider: str) -> bool | None:
        """Whether a provider's key is present; None where it needs none."""
        names = self.key_names(provider)
        return self._keys.find(names) is not None if names else None

    def key_names(self, provider: str) -> tuple[str, ...]:
        """The environment variables that may hold a provider's key, in the order they are tried."""
        return _names(self._provider_entry(provider).api_key_env)

    def base_url(self, provider: str) -> str | None:
        """Where a provider is asked; None for one that runs in this process or has an address of its own."""
        return _given(self._provider_entry(provider).base_url)

    def resolve(self, name: str) -> tuple[ModelConfig, LLMProvider]:
        """A model's configuration and its provider.

        Raises UnknownModelError with suggestions, MissingKeyError, or ConfigurationError for an unknown kind.
        """
        found = self._resolved.get(name)
        return self._resolve(name) if found is None else found

    def default_model(self) -> DefaultModel:
        """What `set_default` said; else `defaults.model`; else the first model of the first provider whose key is
        present; else the offline one."""
        if self._default is not None:
            return self._default
        configured = _given(self._configuration.defaults.model)
        if configured is not None:
            return DefaultModel(configured, "it is defaults.model in models.yml")
        for provider, entry in self._provider_entries.items():
            names = _names(entry.api_key_env)
            model = self._first_model(provider) if names and self._keys.find(names) else None
            if model is not None:
                return DefaultModel(model, f"a key for {provider} is set and models.yml names no default")
        return DefaultModel(
            OFFLINE_MODEL,
            f"no API key found: using {OFFLINE_MODEL}, which picks sentences and does not write; "
            "set OPENAI_API_KEY or run `agentflow init`",
            chosen=False,
        )

    def set_default(self, model: str, reason: str = "it was asked for") -> None:
        """Make `model` the one that answers when nobody names one, whatever the files say. Raises UnknownModelError."""
        self.describe(model)
        self._default = DefaultModel(model, reason)

    # ---- adding ----------------------------------------------------------------------------------------------

    def register_provider(self, name: str, factory: ProviderFactory) -> None:
        """Make `kind: name` known, and `name` itself a provider, so that `name/any-model` works at once.

        `factory` gets the entry under `providers:` as `ProviderSettings`. A provider already built from the name is
        forgotten, not closed: somebody may be using it.
        """
        with self._lock:
            self._factories[name] = factory
            self._provider_entries.setdefault(name, ProviderEntry())
            entries = self._provider_entries
            for provider in [p for p in self._providers if p == name or (p in entries and entries[p].kind == name)]:
                del self._providers[provider]
            self._resolved.clear()

    def register_model(
        self,
        name: str,
        *,
        provider: str,
        model_id: str | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        max_tokens: int | None = None,
        stop: Sequence[str] = (),
        seed: int | None = None,
        params: Mapping[str, Json] | None = None,
        timeout: float | None = None,
    ) -> None:
        """Add a model, or replace one, as an entry under `models:` would. Raises ConfigurationError."""
        given = {
            "provider": provider,
            "model_id": model_id,
            "temperature": temperature,
            "top_p": top_p,
            "max_tokens": max_tokens,
            "stop": list(stop) or None,
            "seed": seed,
            "params": None if params is None else dict(params),
            "timeout": timeout,
        }
        entry = model_entry(name, {key: value for key, value in given.items() if value is not None})
        with self._lock:
            self._model_entries[name] = entry
            self._resolved.pop(name, None)

    async def aclose(self) -> None:
        """Close every provider that was built; the registry builds new ones if it is used again."""
        with self._lock:
            built = list(self._providers.values())
            self._providers.clear()
            self._resolved.clear()
        for provider in built:
            await provider.aclose()

    # ---- the slow path ---------------------------------------------------------------------------------------

    def _resolve(self, name: str) -> tuple[ModelConfig, LLMProvider]:
        with self._lock:
            config = self.describe(name)
            self._resolved[name] = found = (config, self._provider(config.provider))
            return found

    def _provider(self, name: str) -> LLMProvider:
        provider = self._providers.get(name)
        if provider is None:
            settings = self.settings(name)
            provider = self._factory(settings.kind, name)(settings)
            if not isinstance(provider, LLMProvider):
                raise ConfigurationError(
                    f"provider {name!r}: the factory of kind {settings.kind!r} returned a {type(provider).__name__}, "
                    "which is no LLMProvider (name, execute, execute_streaming, aclose)"
                )
            self._providers[name] = provider
        return provider

    def _factory(self, kind: str, provider: str) -> ProviderFactory:
        factory = self._factories.get(kind) or _plugin(kind)
        if factory is None:
            known = sorted({*self._factories, *(entry.name for entry in _plugins())})
            raise ConfigurationError(
                f"provider {provider!r} has the unknown kind {kind!r}; {_choices(kind, known)} "
                "(a server that follows OpenAI's API is `kind: openai` with its base_url)",
                source=self._configuration.where("providers", provider),
            )
        self._factories[kind] = factory
        return factory

    def _implied(self, name: str) -> ModelEntry:
        """`provider/model_id` without an entry. Raises UnknownModelError."""
        provider, _, model_id = name.partition("/")
        if not model_id or (provider not in self._provider_entries and _plugin(provider) is None):
            raise UnknownModelError(name, self._suggestions(name))
        return ModelEntry(provider=provider, model_id=model_id)

    def _suggestions(self, name: str) -> list[str]:
        _, _, model_id = name.partition("/")
        spelled = [f"{provider}/{model_id}" for provider in self._provider_entries] if model_id else []
        return get_close_matches(name, [*self._model_entries, *spelled], n=3)

    def _provider_entry(self, name: str, *, wanted_by: str | None = None) -> ProviderEntry:
        entry = self._provider_entries.get(name)
        if entry is not None:
            return entry
        if _plugin(name) is not None:
            return ProviderEntry()
        raise ConfigurationError(
            (f"model {wanted_by!r} names the provider {name!r}" if wanted_by else f"provider {name!r} is asked for")
            + f", which is not configured; {_choices(name, self._provider_entries)}",
            source=self._configuration.where("models", wanted_by) if wanted_by else None,
        )

    def _config(self, name: str, entry: ModelEntry) -> ModelConfig:
        if entry.provider is UNSET:
            raise ConfigurationError(
                f"model {name!r} names no provider: add `provider:` to its entry",
                source=self._configuration.where("models", name),
            )
        provider = self._provider_entry(entry.provider, wanted_by=name)
        return ModelConfig(
            name=name,
            provider=entry.provider,
            model_id=_given(entry.model_id) or name,
            temperature=_given(entry.temperature),
            top_p=_given(entry.top_p),
            max_tokens=_given(entry.max_tokens),
            stop=_names(entry.stop),
            seed=_given(entry.seed),
            params=_given(entry.params) or {},
            timeout=self._timeouts(provider).total if entry.timeout is UNSET else entry.timeout,
            retry=self._retry(provider, entry),
        )

    def _timeouts(self, provider: ProviderEntry) -> Timeouts:
        return Timeouts(**phases(self._configuration.defaults.timeout, provider.timeout))

    def _retry(self, provider: ProviderEntry, model: ModelEntry) -> RetryPolicy:
        found: dict[str, Any] = {}
        for level in (self._configuration.defaults.retry, provider.retry, model.retry):
            found |= {} if level is UNSET else set_fields(level)
        return RetryPolicy(**found)

    def _first_model(self, provider: str) -> str | None:
        return next((name for name, entry in self._model_entries.items() if entry.provider == provider), None)


def _given(value: T | UnsetType | None) -> T | None:
    return None if value is UNSET else value


def _names(value: str | Sequence[str] | UnsetType | None) -> tuple[str, ...]:
    if value is UNSET or value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(value)


def _choices(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"


def _plugins() -> EntryPoints:
    from importlib.metadata import entry_points  # a third of this module's import; only plug-ins need it

    return entry_points(group=PLUGINS)


def _plugin(kind: str) -> ProviderFactory | None:
    """The factory that an installed package offers under this name."""
    for entry in _plugins():
        if entry.name == kind:
            try:
                factory = entry.load()
            except Exception as error:
                raise ConfigurationError(
                    f"the plug-in {entry.value} of kind {kind!r} does not load: {describe(error)}"
                ) from error
            return cast(ProviderFactory, factory)
    return None


def _home() -> Path | None:
    try:
        return Path.home()
    except RuntimeError:  # a process without a home folder, as in some containers
        return None
