"""The shape of models.yml: what may stand where, and the error when something else does.

    defaults:   {model, timeout, retry, breaker, shedder, shared}
    providers:  name → {kind, base_url, api_key_env, auth_header, headers, query, …, timeout, retry, rate_limit, …}
    models:     name → {provider, model_id, temperature, …, capabilities, price, timeout, retry, fallback, hedge, …}
    observability, audit:     what is recorded, and where (`observability.py`)

Every field may be left out: files are laid over each other, field by field (`overlay`).

msgspec checks a whole file at once; only when it refuses does `problems` (`misfits`) walk the data for paths and words.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Annotated, Any, Final, Literal, TypeAlias, TypeVar, cast, get_args

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec import inspect as shapes

from agentflow.errors import ConfigurationError
from agentflow.llm.config.entry import (
    Amount,
    Count,
    Delay,
    Entry,
    Name,
    Rate,
    Seconds,
    Share,
    Variable,
    Words,
)
from agentflow.llm.config.misfits import Problem, misfits
from agentflow.llm.config.observability import SECTIONS, Audit, Observability
from agentflow.llm.config.wrappers import BatchEntry, BudgetEntry, CacheEntry, RouterEntry

__all__ = [
    "CAPABILITIES",
    "PRICE_LISTS",
    "Breaker",
    "Capability",
    "Condition",
    "Defaults",
    "Document",
    "FallbackEntry",
    "HedgeEntry",
    "ModelEntry",
    "Phases",
    "PriceEntry",
    "ProviderEntry",
    "RateLimit",
    "Retry",
    "RetryBudgetEntry",
    "Shared",
    "Shedder",
    "checked",
    "model_entry",
    "overlay",
    "phases",
    "problems",
    "set_fields",
]

T = TypeVar("T")
S = TypeVar("S", bound=Struct)

_Temperature = Annotated[float, Meta(ge=0, le=2)]
_TopP = Annotated[float, Meta(ge=0, le=1)]
_MaxTokens = Annotated[int, Meta(ge=1)]
_Url = Annotated[
    str,
    Meta(
        pattern=r"\Ahttps?://[^\s/@?#]+(/[^\s@?#]*)?\Z",
        description="an http:// or https:// address with its version segment, without user name, password or query",
    ),
]
_Address = Annotated[
    str,
    Meta(
        pattern=r"\Ahttps?://[^\s/@?#]+/?\Z",
        description="an http:// or https:// address without user name, password or path",
    ),
]
_Header = Annotated[
    str,
    Meta(pattern=r"\A[A-Za-z0-9!#$%&'*+.^_`|~\-]+\Z", description="the name of an HTTP header, as in api-key"),
]
_CertAndKey = Annotated[list[Name], Meta(min_length=2, max_length=2)]

Capability = Literal["image", "document", "audio", "tools", "schema", "thinking", "embed"]
CAPABILITIES: Final[tuple[Capability, ...]] = get_args(Capability)
PriceList = Literal[
    "openai",
    "anthropic",
    "google",
    "moonshot",
    "deepseek",
    "zai",
    "groq",
    "mistral",
    "xai",
    "together",
    "fireworks",
    "cerebras",
]
PRICE_LISTS: Final[tuple[PriceList, ...]] = get_args(PriceList)
Dialect = Literal[
    "openai",
    "azure",
    "moonshot",
    "deepseek",
    "zai",
    "openrouter",
    "groq",
    "mistral",
    "xai",
    "together",
    "fireworks",
    "cerebras",
    "ollama",
    "vllm",
    "compatible",
]


class Phases(Entry, frozen=True):
    """`timeout:` in its long form, seconds a phase; null is no limit."""

    pool: Seconds | UnsetType | None = UNSET
    connect: Seconds | UnsetType | None = UNSET
    first_byte: Seconds | UnsetType | None = UNSET
    idle: Seconds | UnsetType | None = UNSET
    total: Seconds | UnsetType | None = UNSET


class RetryBudgetEntry(Entry, frozen=True):
    """`retry.budget:`, as in `RetryBudget`; all calls to a provider share one."""

    ratio: Annotated[float, Meta(ge=0, le=10)] | UnsetType = UNSET
    minimum: Annotated[int, Meta(ge=0)] | UnsetType = UNSET


class Retry(Entry, frozen=True):
    """`retry:`, as in `RetryPolicy`."""

    max_attempts: Count | UnsetType = UNSET
    base_delay: Delay | UnsetType = UNSET
    max_delay: Delay | UnsetType = UNSET
    jitter: Literal["full", "equal", "decorrelated", "none"] | UnsetType = UNSET
    after_first_chunk: bool | UnsetType = UNSET
    budget: bool | RetryBudgetEntry | UnsetType = UNSET


class Breaker(Entry, frozen=True):
    """`breaker:`, as in `CircuitBreaker`. `window` is a number of calls, `window_seconds` a time instead."""

    window: Count | UnsetType = UNSET
    window_seconds: Seconds | UnsetType = UNSET
    min_calls: Count | UnsetType = UNSET
    failure_rate: Share | UnsetType = UNSET
    slow_call: Seconds | UnsetType | None = UNSET
    slow_rate: Share | UnsetType = UNSET
    open_for: Seconds | UnsetType = UNSET
    max_open: Seconds | UnsetType = UNSET
    half_open_calls: Count | UnsetType = UNSET
    half_open_wait: Seconds | UnsetType = UNSET


class Shedder(Entry, frozen=True):
    """`shedder:`, as in `LoadShedder`; `initial`, `minimum` and `maximum` are calls at once."""

    algorithm: Literal["aimd", "gradient2", "fixed"] | UnsetType = UNSET
    initial: Count | UnsetType = UNSET
    minimum: Count | UnsetType = UNSET
    maximum: Count | UnsetType = UNSET
    max_queue: Annotated[int, Meta(ge=0)] | UnsetType | None = UNSET
    target_wait: Seconds | UnsetType = UNSET
    max_lag: Seconds | UnsetType | None = UNSET


class RateLimit(Entry, frozen=True):
    """`rate_limit:`, as in `RateLimiter`; of a provider it counts all its models together."""

    requests_per_minute: Rate | UnsetType | None = UNSET
    tokens_per_minute: Rate | UnsetType | None = UNSET
    input_tokens_per_minute: Rate | UnsetType | None = UNSET
    output_tokens_per_minute: Rate | UnsetType | None = UNSET
    concurrency: Count | UnsetType | None = UNSET
    burst: Annotated[float, Meta(gt=0, le=10)] | UnsetType = UNSET
    on_limit: Literal["wait", "raise"] | UnsetType = UNSET


class HedgeEntry(Entry, frozen=True):
    """`hedge:`, as in `Hedge`: a second request after so many seconds, or after a percentile of what calls take."""

    after: Seconds | UnsetType | None = UNSET
    percentile: Share | UnsetType = UNSET
    budget: Share | UnsetType = UNSET


Condition = Literal[
    "rate_limit", "quota", "overloaded", "server_error", "timeout", "connection", "context_length", "auth", "not_found",
    "bad_request", "content_filter", "refused", "any",
]  # fmt: skip


class FallbackEntry(Entry, frozen=True):
    """A model of `fallback:` and what it stands in for; without `when`, for all that another model may not have."""

    model: Name
    when: Annotated[list[Condition], Meta(min_length=1)] | UnsetType = UNSET


class Shared(Entry, frozen=True):
    """`shared:`, limits that several processes keep together, through a store that an integration knows.

    `url_env` names the environment variable with the store's address, which may hold a password; `replicas` is how many
    processes share the limits, for while the store is down.
    """

    integration: Name | UnsetType = UNSET
    url: Name | UnsetType = UNSET
    url_env: Variable | UnsetType = UNSET
    replicas: Count | UnsetType = UNSET
    prefix: Name | UnsetType = UNSET


class Defaults(Entry, frozen=True):
    """`defaults:`, what providers and models start from. `cache` and `budget` hold for every model that says nothing of
    its own, and for no router."""

    model: Name | UnsetType | None = UNSET
    timeout: Seconds | Phases | UnsetType = UNSET
    retry: Retry | UnsetType = UNSET
    breaker: bool | Breaker | UnsetType = UNSET
    shedder: bool | Shedder | UnsetType = UNSET
    shared: Shared | UnsetType | None = UNSET
    cache: CacheEntry | UnsetType | None = UNSET
    budget: BudgetEntry | UnsetType | None = UNSET


class ProviderEntry(Entry, frozen=True):
    """One server: `kind` is its name where left out, `base_url` holds the version segment (`…/v1`).

    `auth_header` carries the bare key instead of the API's usual header. `prices` names the provider whose price list
    holds here, for a server in front of another. `max_connections` is how many calls may be under way at once.
    `idempotency_header` carries a key that all attempts of one call have in common, for servers that know what to do
    with it.
    """

    kind: Name | UnsetType = UNSET
    base_url: _Url | UnsetType | None = UNSET
    api_key_env: str | list[Variable] | UnsetType | None = UNSET
    auth_header: _Header | UnsetType | None = UNSET
    headers: dict[str, str] | UnsetType | None = UNSET
    query: dict[str, str] | UnsetType | None = UNSET
    dialect: Dialect | UnsetType | None = UNSET
    organization: Name | UnsetType | None = UNSET
    project: Name | UnsetType | None = UNSET
    proxy: _Address | UnsetType | None = UNSET
    ca_bundle: Name | UnsetType | None = UNSET
    client_cert: Name | _CertAndKey | UnsetType | None = UNSET
    max_connections: Count | UnsetType | None = UNSET
    prices: PriceList | UnsetType | None = UNSET
    allow_http: bool | UnsetType = UNSET
    options: dict[str, Any] | UnsetType | None = UNSET
    timeout: Seconds | Phases | UnsetType = UNSET
    retry: Retry | UnsetType = UNSET
    rate_limit: RateLimit | UnsetType | None = UNSET
    breaker: bool | Breaker | UnsetType = UNSET
    shedder: bool | Shedder | UnsetType = UNSET
    hedge: HedgeEntry | UnsetType | None = UNSET
    idempotency_header: _Header | UnsetType | None = UNSET

    def __post_init__(self) -> None:
        # Not `Variable | list[Variable]`: in a union of a text with a pattern and a container, msgspec (0.22) takes
        # one pointer for the other, and the garbage collector crashes on it.
        if isinstance(self.api_key_env, str):
            msgspec.convert(self.api_key_env, Variable)


class PriceEntry(Entry, frozen=True):
    """`price:`, in USD per million tokens. Other sorts cost as plain input and output do where they are left out;
    `batch` is the factor that a batch costs."""

    input: Amount
    output: Amount | UnsetType = UNSET
    cached: Amount | UnsetType = UNSET
    cache_write: Amount | UnsetType = UNSET
    cache_write_1h: Amount | UnsetType = UNSET
    input_audio: Amount | UnsetType = UNSET
    output_audio: Amount | UnsetType = UNSET
    batch: Amount | UnsetType = UNSET


class ThinkingEntry(Entry, frozen=True):
    """`thinking:`, as in `Thinking`."""

    effort: Name | UnsetType = UNSET
    budget: Annotated[int, Meta(ge=0)] | UnsetType = UNSET
    show: bool | UnsetType = UNSET


class ModelEntry(Entry, frozen=True):
    """One model or an alias: `model_id` is the provider's own name, the entry's name where left out.

    `capabilities` is what the model can do beside text; where it is left out nothing is checked. `context` and
    `max_output` are its limits in tokens. `regions` are all places where what it is told may be worked on, in words of
    yours: a router keeps to them (`residency`).
    """

    provider: Name | UnsetType = UNSET
    model_id: Name | UnsetType = UNSET
    temperature: _Temperature | UnsetType | None = UNSET
    top_p: _TopP | UnsetType | None = UNSET
    top_k: Count | UnsetType | None = UNSET
    max_tokens: _MaxTokens | UnsetType | None = UNSET
    stop: Name | Words | UnsetType | None = UNSET
    seed: int | UnsetType | None = UNSET
    thinking: ThinkingEntry | UnsetType | None = UNSET
    params: dict[str, Any] | UnsetType | None = UNSET
    timeout: Seconds | UnsetType = UNSET
    retry: Retry | UnsetType = UNSET
    api: Literal["chat", "responses"] | UnsetType = UNSET
    capabilities: list[Capability] | UnsetType | None = UNSET
    context: Count | UnsetType | None = UNSET
    max_output: Count | UnsetType | None = UNSET
    regions: Words | UnsetType | None = UNSET
    price: PriceEntry | UnsetType | None = UNSET
    router: RouterEntry | UnsetType | None = UNSET
    cache: CacheEntry | UnsetType | None = UNSET
    budget: BudgetEntry | UnsetType | None = UNSET
    fallback: list[Name | FallbackEntry] | UnsetType | None = UNSET
    hedge: HedgeEntry | UnsetType | None = UNSET
    rate_limit: RateLimit | UnsetType | None = UNSET
    breaker: bool | Breaker | UnsetType = UNSET
    shedder: bool | Shedder | UnsetType = UNSET
    batch: BatchEntry | UnsetType | None = UNSET


class Document(Entry, frozen=True):
    """A whole models.yml. A section or an entry with nothing in it is the same as none."""

    updated: str | UnsetType = UNSET
    defaults: Defaults | None = None
    providers: dict[str, ProviderEntry | None] | None = None
    models: dict[str, ModelEntry | None] | None = None
    observability: Observability | None = None
    audit: bool | Audit | None = None


# ---- laying files over each other ----------------------------------------------------------------------------


def overlay(base: S, top: S) -> S:
    """`base` with every field that `top` sets; `retry` and `timeout` are laid over field by field too."""
    changes = {name: _over(getattr(base, name), new) for name, new in set_fields(top).items()}
    return msgspec.structs.replace(base, **changes) if changes else base


def set_fields(entry: Struct) -> dict[str, Any]:
    """The fields that a file sets, by name."""
    return {name: value for name in entry.__struct_fields__ if (value := getattr(entry, name)) is not UNSET}


def phases(*levels: float | Phases | UnsetType) -> dict[str, float | None]:
    """Time-outs by phase, of which later levels win; a bare number is the total."""
    found: dict[str, float | None] = {}
    for level in levels:
        if isinstance(level, Phases):
            found |= set_fields(level)
        elif level is not UNSET:
            found["total"] = level
    return found


def _over(old: object, new: object) -> object:
    if isinstance(old, Phases) or isinstance(new, Phases):
        sides = [side for side in (old, new) if isinstance(side, (float, Phases))]
        return Phases(**phases(*sides))
    return overlay(old, new) if isinstance(old, _LAID_OVER) and type(new) is type(old) else new


_LAID_OVER: Final = (Retry, RetryBudgetEntry, Breaker, Shedder, RateLimit, HedgeEntry, Shared, *SECTIONS)


# ---- values, checked ------------------------------------------------------------------------------------------


# Aliases, because a type checker reads `|` between an Annotated and None only where it knows that a type is meant.
_NameOrNot: TypeAlias = Name | None
_CountOrNot: TypeAlias = Count | None
_AmountOrNot: TypeAlias = Annotated[int, Meta(ge=0)] | None

_PARAMETERS: Final[dict[str, Any]] = {
    "prompt": str,
    "system": str,
    "tenant": str,
    "streaming": bool,
    "temperature": _Temperature,
    "top_p": _TopP,
    "max_tokens": _MaxTokens,
    "stop": Words,
    "seed": int,
    "timeout": Seconds,
    "param": Name,
    "top_k": Count,
    "n": Count,
    "logprobs": Annotated[int, Meta(ge=0, le=20)],
    "effort": _NameOrNot,
    "budget": _AmountOrNot,
    "ttl": Literal["5m", "1h", "24h"] | None,
    "cache": Literal["5m", "1h"] | None,
    "key": _NameOrNot,
    "metadata": dict[str, str],
    "tool_choice": Name | Annotated[tuple[Name, ...], Meta(min_length=1)],
    "parallel_tool_calls": bool,
    "fallback": Words,
    "priority": Literal["critical", "high", "normal", "low"],
    "retries": Annotated[int, Meta(ge=0)],
    "dimensions": _CountOrNot,
}


def checked(name: str, value: T) -> T:
    """`value` if it is allowed for the parameter of that name, as in models.yml. Raises ConfigurationError."""
    return cast(T, _converted(name, value, _PARAMETERS[name]))


def model_entry(name: str, fields: dict[str, Any]) -> ModelEntry:
    """An entry under `models:` from its fields. Raises ConfigurationError."""
    return cast(ModelEntry, _converted(f"models.{name}", fields, ModelEntry))


def _converted(name: str, value: object, shape: Any) -> object:
    try:
        return msgspec.convert(value, shape)
    except msgspec.ValidationError as error:
        otherwise = Problem((name,), str(error))
    raise ConfigurationError(str(next(misfits(value, shapes.type_info(shape), (name,)), otherwise)))


def problems(value: object) -> Iterator[Problem]:
    """Everything in a parsed models.yml that `Document` does not allow."""
    return misfits(value, _document_shape(), (), {"api_key_env": _key_names_shape()})


@cache
def _document_shape() -> shapes.Type:
    return shapes.type_info(Document)


@cache
def _key_names_shape() -> shapes.Type:
    """What `api_key_env` holds, in full."""
    return shapes.UnionType((*map(shapes.type_info, (Variable, list[Variable])), shapes.NoneType()))
