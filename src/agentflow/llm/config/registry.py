"""From a model's name to its configuration and its provider.

    registry = ModelRegistry.load()
    config, provider = registry.resolve("gpt-4o")        # a dictionary look-up after the first time

A registry is an ordinary object: several live in one process, one serves all threads and event loops. Providers are
built when first needed, so an unused one needs no key: one for each entry under `providers:`, and one more where models
of it speak another API of the same server (`api: responses`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cached_property, partial
from pathlib import Path
from threading import RLock
from typing import Final, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from agentflow.clock import Clock, SystemClock
from agentflow.core.observability.audit.seat import current_audit
from agentflow.core.robustness.pipeline import Pipeline
from agentflow.errors import ConfigurationError, UnknownModelError
from agentflow.llm.config.chains import Chains
from agentflow.llm.config.guarding import GUARDS, Guarding, guarding
from agentflow.llm.config.keys import KeyRing
from agentflow.llm.config.kinds import BUILT_IN, ONE_API, plugin, plugin_names
from agentflow.llm.config.loader import Configuration, load_configuration
from agentflow.llm.config.model import ROUTER, ModelConfig, StandIn, price_list, routed_to
from agentflow.llm.config.model_ids import bare, spellings
from agentflow.llm.config.nobody import Nobody
from agentflow.llm.config.observing import Observing
from agentflow.llm.config.pipelines import Pipelines
from agentflow.llm.config.prices import Price, Rates
from agentflow.llm.config.schema import (
    Capability,
    Defaults,
    FallbackEntry,
    ModelEntry,
    PriceEntry,
    ProviderEntry,
    Shared,
    ThinkingEntry,
    model_entry,
    phases,
    set_fields,
)
from agentflow.llm.config.sharing import SharedStore, open_store
from agentflow.llm.content import Json
from agentflow.llm.messages import Thinking
from agentflow.llm.providers.base import LLMProvider, ProviderFactory, ProviderSettings, Timeouts, TokenSource

__all__ = ["DefaultModel", "ModelConfig", "ModelRegistry"]

T = TypeVar("T")

OFFLINE_MODEL: Final = "local/extractive"
_USUAL_API: Final = "chat"
_IN_PROCESS: Final = ("local", "edge")
# What is true of a model by whatever name it is asked; parameters belong to an entry.
_FACTS: Final = ("api", "capabilities", "context", "max_output", "price", "regions")
_MOST_NAMES: Final = 4_096


@dataclass(frozen=True, slots=True)
class DefaultModel:
    """The model that answers when nobody names one. `reason` is a line for the user; `chosen` is False where nothing
    was configured and the offline model stands in."""

    name: str
    reason: str
    chosen: bool = True


@dataclass(frozen=True)
class _Models:
    """The entries under `models:`. They never change: whoever adds one makes others, and who reads them reads on."""

    entries: Mapping[str, ModelEntry]

    def with_entry(self, name: str, entry: ModelEntry) -> _Models:
        return _Models({**self.entries, name: entry})

    @cached_property
    def known(self) -> Mapping[tuple[str, str], ModelEntry]:
        """Those that are about the model whose name they bear, by provider and model."""
        return {
            (entry.provider, bare(name)): entry
            for name, entry in self.entries.items()
            if entry.provider is not UNSET and _given(entry.model_id) in (None, name)
        }


class ModelRegistry:
    """What `AgentFlow.model(name)` looks a name up in.

    `ModelRegistry.load()` reads the files; `register_provider` and `register_model` add what no file says. A name
    `provider/model_id` needs no entry under `models:` as long as the provider is known.
    """

    def __init__(
        self, configuration: Configuration, keys: KeyRing, *, clock: Clock | None = None, cwd: Path | None = None
    ) -> None:
        self.clock: Clock = clock or SystemClock()
        self.observing = Observing(configuration, keys, cwd=Path.cwd() if cwd is None else cwd, clock=self.clock)
        shared = configuration.defaults.shared
        self._lock = RLock()
        self.chains = Chains(self._lock, self.describe)
        self.folder = Path.cwd() if cwd is None else cwd
        """Where relative paths count from."""
        self.pipelines = Pipelines(self.clock, partial(self._store, shared) if isinstance(shared, Shared) else None)
        self._configuration = configuration
        self._keys = keys
        # These are replaced, never changed, so that whoever goes through them needs no lock.
        self._provider_entries: Mapping[str, ProviderEntry] = configuration.providers
        self._models = _Models(configuration.models)
        self._factories: Mapping[str, ProviderFactory] = BUILT_IN
        self._providers: dict[tuple[str, str], LLMProvider] = {}
        self._tokens: dict[str, TokenSource] = {}
        self._guardings: dict[str, tuple[ProviderEntry, Guarding]] = {}
        self._resolved: dict[str, tuple[ModelConfig, LLMProvider]] = {}
        self._described: dict[str, ModelConfig] = {}
        self._default: DefaultModel | None = None

    @classmethod
    def load(
        cls,
        path: str | Path | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        home: Path | None = None,
        clock: Clock | None = None,
    ) -> ModelRegistry:
        """Built-in < ~/.config/agentflow/models.yml < ./models.yml < AGENTFLOW_CONFIG < `path`; keys from `environ`,
        then ./.env. Calls wait and are timed by `clock`. Raises ConfigurationError with `file:line:column`."""
        environ = os.environ if environ is None else environ
        cwd = Path.cwd() if cwd is None else cwd
        configuration = load_configuration(path, environ=environ, cwd=cwd, home=home or _home())
        return cls(configuration, KeyRing(environ, cwd / ".env"), clock=clock, cwd=cwd)

    # ---- looking up ------------------------------------------------------------------------------------------

    @property
    def sources(self) -> tuple[str, ...]:
        """The files this registry was read from, the weakest first."""
        return self._configuration.sources

    @property
    def updated(self) -> str | None:
        """The date (YYYY-MM-DD) of what the built-in file says about models."""
        return _given(self._configuration.layers[0].document.updated)

    def models(self) -> tuple[str, ...]:
        """The names under `models:`, those of your own files first."""
        return tuple(self._models.entries)

    def providers(self) -> tuple[str, ...]:
        """The names under `providers:`, those of your own files first."""
        return tuple(self._provider_entries)

    def describe(self, name: str) -> ModelConfig:
        """A model's configuration, without building its provider: no key is needed. Raises UnknownModelError."""
        found = self._described.get(name)
        return self._describe(name) if found is None else found

    def settings(self, provider: str) -> ProviderSettings:
        """What a provider is built from, its key included. Raises MissingKeyError, ConfigurationError."""
        entry = self._provider_entry(provider)
        names = self.key_names(provider)
        return ProviderSettings(
            name=provider,
            kind=_kind(provider, entry),
            base_url=_given(entry.base_url),
            api_key=self._keys.require(provider, names) if names else None,
            headers=_given(entry.headers) or {},
            timeouts=self._timeouts(entry),
            allow_http=_given(entry.allow_http) or False,
            options=_options(entry),
            auth_header=_given(entry.auth_header),
            idempotency_header=_given(entry.idempotency_header),
            observe=partial(self.pipelines.observe, provider),
            query=_given(entry.query) or {},
            proxy=_given(entry.proxy),
            ca_bundle=_expanded(_given(entry.ca_bundle)),
            client_cert=_certificate(_given(entry.client_cert)),
            token=self._tokens.get(provider),
            folder=self.folder / (self._configuration.folder_of(provider) or ""),
        )

    def key_found(self, provider: str) -> bool | None:
        """Whether a provider's key is present; None where it needs none."""
        names = self.key_names(provider)
        return self._keys.find(names) is not None if names else None

    def key_names(self, provider: str) -> tuple[str, ...]:
        """The environment variables that may hold a provider's key, in the order they are tried; none where it needs
        no key, because it takes none or is given tokens."""
        return () if provider in self._tokens else _names(self._provider_entry(provider).api_key_env)

    def base_url(self, provider: str) -> str | None:
        """Where a provider is asked; None for one that runs in this process or has an address of its own."""
        return _given(self._provider_entry(provider).base_url)

    def provider(self, name: str) -> LLMProvider:
        """The provider of that name, built if need be. Raises MissingKeyError, ConfigurationError."""
        with self._lock:
            return self._provider(name, None)

    def models_with(self, capability: Capability) -> tuple[str, ...]:
        """The models under `models:` that are known to have it, those of your own files first."""
        return tuple(
            name for name, entry in self._models.entries.items() if capability in (_given(entry.capabilities) or ())
        )

    def problems(self) -> Iterator[str]:
        """What would fail only once it is used: a kind that nobody offers, a model without a provider, a broken .env.

        Each is a sentence that begins with its place. Providers may still be registered in code, which is why none of
        it is an error while loading.
        """
        for name, entry in self._provider_entries.items():
            yield from _told(partial(self._factory, _kind(name, entry), name))
        for name in self._models.entries:
            yield from _told(partial(self._checked, name))
        yield from _told(self._keys.check)

    def remarks(self) -> Iterator[str]:
        """What may be a mistake: lines of `.env` that assign nothing."""
        return self._keys.stray_lines()

    def resolve(self, name: str) -> tuple[ModelConfig, LLMProvider]:
        """A model's configuration and its provider.

        Raises UnknownModelError with suggestions, MissingKeyError, or ConfigurationError for an unknown kind.
        """
        found = self._resolved.get(name)
        return self._resolve(name) if found is None else found

    def pipeline(self, config: ModelConfig, endpoint: str = "chat") -> Pipeline:
        """The guards that calls of a model to an endpoint of its provider pass."""
        endpoint = config.api or endpoint if endpoint == _USUAL_API else endpoint
        return self.pipelines.get(config.name, config.provider, config.model_id, endpoint, config.guarding)

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
        _note_change("defaults.model", model=model)
        self._default = DefaultModel(model, reason)

    # ---- recording -------------------------------------------------------------------------------------------

    def observe(self, *, runs: bool = True) -> Observing:
        """Start what `observability:` and `audit:` of models.yml turn on; it is closed by its `close()`, the end of its
        `with`, or the end of the process. The default registry's is started by its first model call.

        With `runs=False` no run is kept. Raises ConfigurationError, MissingExtraError, AuditError.
        """
        if not self.observing.running:
            for provider in self._provider_entries:
                with suppress(ConfigurationError):  # of a key that cannot be one, whoever needs it is told
                    self.key_found(provider)  # what is loaded is known, and what is known is written down nowhere
            self.observing.start(runs=runs)
        return self.observing

    def key_used(self, provider: str, tenant: str | None = None, run: str | None = None) -> str | None:
        """The fingerprint of a provider's key, whose first use goes into the audit log; None without a log or a key.
        Raises AuditError where it must be recorded and cannot be."""
        names = self.key_names(provider)
        key = self._keys.find(names) if names and current_audit() is not None else None
        if key is None:
            return None
        from agentflow.core.observability.audit.recording import key_used

        return key_used(provider, key.reveal(), tenant=tenant, run=run)

    # ---- adding ----------------------------------------------------------------------------------------------

    def register_provider(self, name: str, factory: ProviderFactory) -> None:
        """Make `kind: name` known, and `name` itself a provider, so that `name/any-model` works at once.

        `factory` gets the entry under `providers:` as `ProviderSettings`. A provider already built from the name is
        forgotten, not closed: somebody may be using it.
        """
        _note_change(f"providers.{name}")
        with self._lock:
            self._factories = {**self._factories, name: factory}
            if name not in self._provider_entries:
                self._provider_entries = {**self._provider_entries, name: ProviderEntry()}
            self._forget({name, *(p for p, entry in self._provider_entries.items() if entry.kind == name)})

    def set_token(self, provider: str, source: TokenSource) -> None:
        """Have `source` asked for a fresh bearer token before each call to a provider, which then needs no key.

        registry.set_token("vertex", credentials.token)      # returns a str, or awaits one
        """
        self._provider_entry(provider)
        _note_change(f"providers.{provider}.token")
        with self._lock:
            self._tokens[provider] = source
            self._forget({provider})

    def register_model(
        self,
        name: str,
        *,
        provider: str | None = None,
        model_id: str | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        max_tokens: int | None = None,
        stop: Sequence[str] = (),
        seed: int | None = None,
        params: Mapping[str, Json] | None = None,
        timeout: float | None = None,
        api: str | None = None,
        top_k: int | None = None,
        thinking: Mapping[str, Json] | None = None,
        capabilities: Iterable[str] | None = None,
        context: int | None = None,
        max_output: int | None = None,
        regions: Sequence[str] = (),
        price: Mapping[str, float] | None = None,
        retry: Mapping[str, Json] | None = None,
        fallback: Sequence[str | Mapping[str, Json]] = (),
        hedge: Mapping[str, Json] | None = None,
        rate_limit: Mapping[str, Json] | None = None,
        breaker: Mapping[str, Json] | bool | None = None,
        shedder: Mapping[str, Json] | bool | None = None,
        cache: Mapping[str, Json] | None = None,
        budget: Mapping[str, Json] | None = None,
        router: Mapping[str, Json] | None = None,
        batch: Mapping[str, Json] | None = None,
    ) -> None:
        """Add a model, or replace one, as an entry under `models:` would. Raises ConfigurationError.

        What it says of guards holds from the next call on; a guard of which nothing else is said keeps what it knows.
        """
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
            "api": api,
            "top_k": top_k,
            "thinking": None if thinking is None else dict(thinking),
            "capabilities": None if capabilities is None else list(capabilities),
            "context": context,
            "max_output": max_output,
            "regions": list(regions) or None,
            "price": None if price is None else dict(price),
            "retry": _plain(retry),
            "fallback": [_plain(each) for each in fallback] or None,
            "hedge": _plain(hedge),
            "rate_limit": _plain(rate_limit),
            "breaker": _plain(breaker),
            "shedder": _plain(shedder),
            "cache": _plain(cache),
            "budget": _plain(budget),
            "router": _plain(router),
            "batch": _plain(batch),
        }
        entry = model_entry(name, {key: value for key, value in given.items() if value is not None})
        _note_change(f"models.{name}", provider=provider or ROUTER, model_id=model_id or name)
        with self._lock:
            self._models = self._models.with_entry(name, entry)
            self._resolved.clear()  # other names may stand for this model
            self._described.clear()
            self.pipelines.forget()
            self.chains.doubt()

    def remove_model(self, name: str) -> None:
        """Forget an entry under `models:`. Raises UnknownModelError where there is none."""
        _note_change(f"models.{name}")
        with self._lock:
            if name not in self._models.entries:
                raise UnknownModelError(name, self.suggestions(name))
            self._models = _Models({other: entry for other, entry in self._models.entries.items() if other != name})
            self._resolved.clear()
            self._described.clear()
            self.pipelines.forget()
            self.chains.doubt()

    def remove_provider(self, name: str) -> None:
        """Forget a provider and the kind of that name; a provider built from it is not closed. Does nothing where
        there is none."""
        _note_change(f"providers.{name}")
        with self._lock:
            self._factories = {kind: made for kind, made in self._factories.items() if kind != name}
            self._provider_entries = {other: said for other, said in self._provider_entries.items() if other != name}
            self._forget({name})

    async def aclose(self) -> None:
        """Close every provider that was built; the registry builds new ones if it is used again.

        One that fails keeps none of the others open; its error is raised when all are closed.
        """
        async with AsyncExitStack() as closing:
            closing.push_async_callback(self.pipelines.aclose)
            closing.push_async_callback(self._close_providers)
            closing.push_async_callback(self.chains.aclose)  # first: what waits in a batch is still to be asked

    async def _close_providers(self) -> None:
        with self._lock:
            built = list(self._providers.values())
            self._providers.clear()
            self._resolved.clear()
        async with AsyncExitStack() as closing:
            for provider in reversed(built):
                closing.push_async_callback(provider.aclose)

    # ---- the slow path ---------------------------------------------------------------------------------------

    def _describe(self, name: str) -> ModelConfig:
        with self._lock:
            entry = self._models.entries.get(name)
            config = self._config(name, self._implied(name) if entry is None else entry, self._models)
            if len(self._described) >= _MOST_NAMES:
                self._described.clear()
            self._described[name] = config
            return config

    def _resolve(self, name: str) -> tuple[ModelConfig, LLMProvider]:
        with self._lock:
            config = self._checked(name)
            found = config, Nobody() if config.routed else self._provider(config.provider, config.api)
            if len(self._resolved) >= _MOST_NAMES:  # whoever makes up `provider/any` shall not fill memory
                self._resolved.clear()
            self._resolved[name] = found
            return found

    def _provider(self, name: str, api: str | None) -> LLMProvider:
        """One object for each API of a provider: `chat` and `responses` of OpenAI share an entry and nothing else."""
        entry = self._provider_entry(name)
        usual = _options(entry).get("api", _USUAL_API)
        api = str(usual) if api is None else api
        provider = self._providers.get((name, api))
        if provider is None:
            settings = self.settings(name)
            if api != usual:
                settings = replace(settings, options={**settings.options, "api": api})
            provider = self._factory(settings.kind, name)(settings)
            if not isinstance(provider, LLMProvider):
                raise ConfigurationError(
                    f"provider {name!r}: the factory of kind {settings.kind!r} returned a {type(provider).__name__}, "
                    "which is no LLMProvider (name, execute, execute_streaming, aclose)"
                )
            self._providers[name, api] = provider
        return provider

    def _store(self, said: Shared) -> SharedStore:
        variable = _given(said.url_env)
        secret = None if variable is None else self._keys.find((variable,))
        if variable is not None and secret is None:
            raise ConfigurationError(f"defaults.shared: the environment variable {variable} is not set")
        return open_store(said, None if secret is None else secret.reveal())

    def _forget(self, providers: set[str]) -> None:
        """Build these anew when they are next needed. What was built is not closed: somebody may be using it."""
        for key in [key for key in self._providers if key[0] in providers]:
            del self._providers[key]
        self._resolved.clear()
        self._described.clear()
        self.chains.doubt()

    def _checked(self, name: str) -> ModelConfig:
        """A model's configuration, if its provider speaks the API it wants."""
        config = self.describe(name)
        if config.routed:
            self._check_candidates(config)
            return config
        kind = _kind(config.provider, self._provider_entry(config.provider))
        if config.api not in (None, _USUAL_API) and kind in ONE_API:
            raise ConfigurationError(
                f"model {config.name!r} has `api: {config.api}`, which a provider of kind {kind!r} does not speak; "
                "take it out",
                source=self._configuration.where("models", config.name),
            )
        for stand_in in config.fallback:
            self._check_stand_in(config.name, stand_in.model)
        return config

    def _check_candidates(self, config: ModelConfig) -> None:
        for candidate in routed_to(config):
            try:
                self.describe(candidate)
            except UnknownModelError as error:
                raise ConfigurationError(
                    f"model {config.name!r} routes to a candidate that nobody knows: {error}",
                    source=self._configuration.where("models", config.name),
                ) from error

    def _check_stand_in(self, name: str, stand_in: str) -> None:
        """A misspelled stand-in would be found out on the day it is needed."""
        try:
            self.describe(stand_in)
        except UnknownModelError as error:
            raise ConfigurationError(
                f"model {name!r} has a stand-in under `fallback` that nobody knows: {error}",
                source=self._configuration.where("models", name),
            ) from error

    def _factory(self, kind: str, provider: str) -> ProviderFactory:
        factory = self._factories.get(kind) or plugin(kind)
        if factory is None:
            known = sorted({*self._factories, *plugin_names()})
            raise ConfigurationError(
                f"provider {provider!r} has the unknown kind {kind!r}; {_choices(kind, known)} "
                "(a server that follows OpenAI's API is `kind: openai` with its base_url)",
                source=self._configuration.where("providers", provider),
            )
        return factory

    def _implied(self, name: str) -> ModelEntry:
        """`provider/model_id` without an entry. Raises UnknownModelError."""
        provider, _, model_id = name.partition("/")
        if not model_id or (provider not in self._provider_entries and plugin(provider) is None):
            raise UnknownModelError(name, self.suggestions(name), provider=provider if model_id else None)
        return ModelEntry(provider=provider, model_id=model_id)

    def suggestions(self, name: str) -> list[str]:
        """Names of other models that are like this one."""
        _, _, model_id = name.partition("/")
        spelled = [f"{provider}/{model_id}" for provider in self._provider_entries] if model_id else []
        return get_close_matches(name, [other for other in (*self._models.entries, *spelled) if other != name], n=3)

    def _provider_entry(self, name: str, *, wanted_by: str | None = None) -> ProviderEntry:
        entry = self._provider_entries.get(name)
        if entry is not None:
            return entry
        if name == ROUTER:
            return ProviderEntry(api_key_env=None)
        if plugin(name) is not None:
            return ProviderEntry()
        raise ConfigurationError(
            (f"model {wanted_by!r} names the provider {name!r}" if wanted_by else f"provider {name!r} is asked for")
            + f", which is not configured; {_choices(name, self._provider_entries)}",
            source=self._configuration.where("models", wanted_by) if wanted_by else None,
        )

    def _config(self, name: str, entry: ModelEntry, models: _Models) -> ModelConfig:
        if _given(entry.router) is not None:
            return self._router(name, entry)
        if entry.provider is UNSET:
            raise ConfigurationError(
                f"model {name!r} names no provider: add `provider:` to its entry",
                source=self._configuration.where("models", name),
            )
        asked = entry.provider
        provider = self._provider_entry(asked, wanted_by=name)
        model_id = _given(entry.model_id) or name
        entry = _with_facts(entry, asked, model_id, models)
        return ModelConfig(
            name=name,
            provider=asked,
            model_id=model_id,
            temperature=_given(entry.temperature),
            top_p=_given(entry.top_p),
            max_tokens=_given(entry.max_tokens),
            stop=_names(entry.stop),
            seed=_given(entry.seed),
            params=_given(entry.params) or {},
            timeout=self._timeouts(provider).total if entry.timeout is UNSET else entry.timeout,
            guarding=self._guarding(asked, provider, entry),
            fallback=tuple(map(_stand_in, _given(entry.fallback) or ())),
            api=_given(entry.api),
            top_k=_given(entry.top_k),
            thinking=_thinking(_given(entry.thinking)),
            capabilities=None if (words := _given(entry.capabilities)) is None else frozenset(words),
            context=_given(entry.context),
            max_output=_given(entry.max_output),
            regions=_names(entry.regions),
            price=_price(_given(entry.price)),
            price_list=price_list(asked, _kind(asked, provider), _given(provider.base_url), _given(provider.prices)),
            wrappers=_wrappers(entry, self._configuration.defaults),
        )

    def _router(self, name: str, entry: ModelEntry) -> ModelConfig:
        """An entry that is no model itself: it says who is asked. What a request needs, any candidate may have."""
        if entry.provider is not UNSET or _given(entry.model_id) is not None:
            raise ConfigurationError(
                f"model {name!r} has both a `router:` and a `provider:` or `model_id:`; a router is no model itself: "
                "give the model an entry of its own, and name that among the candidates",
                source=self._configuration.where("models", name),
            )
        return ModelConfig(
            name=name,
            provider=ROUTER,
            model_id=name,
            temperature=_given(entry.temperature),
            top_p=_given(entry.top_p),
            max_tokens=_given(entry.max_tokens),
            stop=_names(entry.stop),
            seed=_given(entry.seed),
            params=_given(entry.params) or {},
            timeout=_given(entry.timeout),
            fallback=tuple(map(_stand_in, _given(entry.fallback) or ())),
            top_k=_given(entry.top_k),
            thinking=_thinking(_given(entry.thinking)),
            wrappers=_wrappers(entry, Defaults()),
        )

    def _guarding(self, name: str, provider: ProviderEntry, model: ModelEntry) -> Guarding:
        """Most models say nothing of their guards, so what holds for their provider's models is worked out once."""
        plain = all(getattr(model, field) is UNSET for field in GUARDS)
        known = self._guardings.get(name) if plain else None
        if known is not None and known[0] is provider:
            return known[1]
        here = _kind(name, provider) in _IN_PROCESS
        found = guarding(self._configuration.defaults, provider, model, in_process=here)
        if plain:
            self._guardings[name] = provider, found
        return found

    def _timeouts(self, provider: ProviderEntry) -> Timeouts:
        return Timeouts(**phases(self._configuration.defaults.timeout, provider.timeout))

    def _first_model(self, provider: str) -> str | None:
        return next((name for name, entry in self._models.entries.items() if entry.provider == provider), None)


def _note_change(what: str, **facts: str) -> None:
    """For the audit log, where there is one. Raises AuditError, so that nothing changes unseen."""
    from agentflow.core.observability.audit import AuditAction, current_audit  # changes are rare, an audit log too

    log = current_audit()
    if log is not None:
        log.record(AuditAction.CONFIG_CHANGED, resource=what, data=facts)


def _with_facts(entry: ModelEntry, provider: str, model_id: str, models: _Models) -> ModelEntry:
    """What an alias, a snapshot or `provider/model` leaves out is what is known of the model it stands for."""
    for name in spellings(model_id):
        known = models.known.get((provider, name))
        if known is not None and known is not entry:
            facts = {fact: getattr(known, fact) for fact in _FACTS if getattr(entry, fact) is UNSET}
            return msgspec.structs.replace(entry, **facts)
    return entry


def _kind(name: str, entry: ProviderEntry) -> str:
    return name if entry.kind is UNSET else entry.kind


def _options(entry: ProviderEntry) -> dict[str, Json]:
    """The options of an entry, and those of its fields that only some providers know."""
    named = {name: _given(getattr(entry, name)) for name in ("dialect", "organization", "project", "max_connections")}
    return {**(_given(entry.options) or {}), **{name: value for name, value in named.items() if value is not None}}


def _thinking(entry: ThinkingEntry | None) -> Thinking | None:
    return None if entry is None else Thinking(**set_fields(entry))


def _plain(value: object) -> object:
    """What msgspec takes for a mapping: a dict."""
    return dict(value) if isinstance(value, Mapping) else value


def _wrappers(entry: ModelEntry, defaults: Defaults) -> dict[str, msgspec.Struct]:
    """The sections of what is put around a model. Those that hold for all models hold for no router: its candidates
    are models."""
    found: dict[str, msgspec.Struct] = {}
    for name in ("cache", "budget", "router", "batch"):
        own = getattr(entry, name)
        section = getattr(defaults, name, UNSET) if own is UNSET else own
        if isinstance(section, msgspec.Struct):
            found[name] = section
    return found


def _stand_in(entry: str | FallbackEntry) -> StandIn:
    return StandIn(entry) if isinstance(entry, str) else StandIn(entry.model, tuple(_given(entry.when) or ()))


def _price(entry: PriceEntry | None) -> Price | None:
    if entry is None:
        return None
    stated = set_fields(entry)
    batch = stated.pop("batch", None)
    return Price.flat(Rates.stated(**stated), batch=batch)


def _certificate(value: str | Sequence[str] | None) -> str | tuple[str, str] | None:
    if value is None or isinstance(value, str):
        return _expanded(value)
    certificate, key = map(os.path.expanduser, value)
    return certificate, key


def _expanded(path: str | None) -> str | None:
    return None if path is None else os.path.expanduser(path)


def _told(check: Callable[[], object]) -> Iterator[str]:
    """The error that a check ends with, if it does."""
    try:
        check()
    except ConfigurationError as error:
        yield str(error)


def _given(value: T | UnsetType | None) -> T | None:
    return None if value is UNSET else value


def _names(value: str | Sequence[str] | UnsetType | None) -> tuple[str, ...]:
    if value is UNSET or value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(value)


def _choices(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"


def _home() -> Path | None:
    try:
        return Path.home()
    except RuntimeError:  # a process without a home folder, as in some containers
        return None
