"""What models.yml says of the providers that wrap a model: sections of its entry, obeyed by `agentflow.mcp`.

auto: {router: {candidates: [small, large], quality_floor: 0.9}, cache: {ttl: 3600}, budget: {per_day: 20.0}}
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType, field

from agentflow.llm.config.entry import Amount, Count, Delay, Entry, Name, Names, Seconds, Share, Variable

__all__ = [
    "AllowanceEntry",
    "BatchEntry",
    "BudgetEntry",
    "CacheEntry",
    "CanaryEntry",
    "CascadeEntry",
    "ExplorationEntry",
    "RouterEntry",
    "RuleEntry",
    "SemanticEntry",
]


class SemanticEntry(Entry, frozen=True):
    """`semantic:` of a cache, as in `VerifiedTier`: answers to questions in other words. Vectors come from the model
    `embedding`, or from the folder `local_model`. `same` says how a cached answer is compared with a fresh one: by its
    text, or by its embedding, with a cosine of at least `alike`. `vetoes` names the checks that hold, usually all."""

    embedding: Name | UnsetType = UNSET
    local_model: Name | UnsetType = UNSET
    delta: Annotated[float, Meta(gt=0, lt=1)] | UnsetType = UNSET
    per: Literal["hit", "request"] | UnsetType = UNSET
    same: Literal["text", "embedding"] | UnsetType = UNSET
    alike: Share | UnsetType = UNSET
    audit: Share | UnsetType = UNSET
    recovers: bool | UnsetType = UNSET
    vetoes: list[Name] | UnsetType = UNSET
    floor: Annotated[float, Meta(ge=0, lt=1)] | UnsetType = UNSET
    entries: Count | UnsetType = UNSET

    def __post_init__(self) -> None:
        if (self.embedding is UNSET) == (self.local_model is UNSET):
            raise ValueError("vectors come from a model or from a folder: say one of embedding and local_model")
        if self.alike is not UNSET and self.same != "embedding":
            raise ValueError("alike compares embeddings of answers: say same: embedding")


class CacheEntry(Entry, frozen=True):
    """`cache:`, as in `ResponseCache`. `ttl`, `stale` and `lease` are in seconds. `file` is a SQLite file; with
    `shared`, answers are kept in what processes share (`defaults.shared`), and without either in memory. The secret
    that keys are made with is in the environment variable `secret_env` or in the file `secret_file`; a SQLite file has
    its own beside it. `version` is changed to begin anew, as when another server stands at the address."""

    ttl: Annotated[float, Meta(gt=0)]
    jitter: Annotated[float, Meta(ge=0, lt=1)] | UnsetType = UNSET
    stale: Amount | UnsetType = UNSET
    memory_bytes: Annotated[int, Meta(ge=0)] | UnsetType = UNSET
    file: Name | UnsetType = UNSET
    file_bytes: Count | UnsetType = UNSET
    shared: bool | UnsetType = UNSET
    secret_env: Variable | UnsetType = UNSET
    secret_file: Name | UnsetType = UNSET
    share_tenants: bool | UnsetType = UNSET
    temperature: Literal["zero", "any"] | UnsetType = UNSET
    tools: Literal["never", "unused", "always"] | UnsetType = UNSET
    addresses: bool | UnsetType = UNSET
    replay: Literal["instant", "paced"] | UnsetType = UNSET
    lease: Annotated[float, Meta(ge=0.1, lt=3600)] | UnsetType = UNSET
    version: Name | UnsetType = UNSET
    semantic: SemanticEntry | UnsetType = UNSET

    def __post_init__(self) -> None:
        if self.shared is True and self.file is not UNSET:
            raise ValueError("answers are kept in a file or in what is shared: say one of file and shared")
        if self.file_bytes is not UNSET and self.file is UNSET:
            raise ValueError("file_bytes bounds a file: say which, with file")
        if self.secret_env is not UNSET and self.secret_file is not UNSET:
            raise ValueError("there is one secret: say one of secret_env and secret_file")
        if self.shared is True and self.secret_env is UNSET and self.secret_file is UNSET:
            raise ValueError("processes that share answers share a secret: say secret_env or secret_file")


_Dollars = Annotated[float, Meta(gt=0, le=1_000_000)]


class AllowanceEntry(Entry, frozen=True):
    """`per_tenant:` and `per_flow:` of a budget, as in `Allowance`: US dollars for each of them."""

    per_hour: _Dollars | UnsetType = UNSET
    per_day: _Dollars | UnsetType = UNSET
    per_month: _Dollars | UnsetType = UNSET


class BudgetEntry(Entry, frozen=True):
    """`budget:`, as in `Budget`; in US dollars. Entries with the same `account` and store spend the same money. `store`
    is a SQLite file; without it the accounts are kept in what processes share (`defaults.shared`), else in memory.
    `ceiling` is what a call is taken to cost at most where that cannot be told, `media_tokens` what a picture or a
    document may have."""

    per_hour: _Dollars | UnsetType = UNSET
    per_day: _Dollars | UnsetType = UNSET
    per_month: _Dollars | UnsetType = UNSET
    per_run: _Dollars | UnsetType = UNSET
    per_tenant: AllowanceEntry | UnsetType = UNSET
    per_flow: AllowanceEntry | UnsetType = UNSET
    mode: Literal["hard", "soft"] | UnsetType = UNSET
    soft: Share | list[Share] | UnsetType = UNSET
    window: Literal["calendar", "rolling"] | UnsetType = UNSET
    time_zone: Name | UnsetType = UNSET
    account: Name | UnsetType = UNSET
    store: Name | UnsetType = UNSET
    lease: Seconds | UnsetType = UNSET
    ceiling: _Dollars | UnsetType = UNSET
    media_tokens: Count | UnsetType = UNSET

    def __post_init__(self) -> None:
        limits = (self.per_hour, self.per_day, self.per_month, self.per_run, self.per_tenant, self.per_flow)
        if all(limit is UNSET for limit in limits):
            raise ValueError("it needs a limit: per_hour, per_day, per_month, per_run, per_tenant or per_flow")


_Quality = Annotated[float, Meta(ge=0, le=1)]
_Probability = Annotated[float, Meta(gt=0, lt=1)]
_OneOrMore = Name | Names


class RuleEntry(Entry, frozen=True):
    """One of a router's `rules:`, as in `Rule`: `use` is a model or several, all other fields are conditions."""

    use: _OneOrMore
    tenant: _OneOrMore | UnsetType = UNSET
    flow: _OneOrMore | UnsetType = UNSET
    text: Name | UnsetType = UNSET
    longer: Count | UnsetType = UNSET
    shorter: Count | UnsetType = UNSET
    metadata: dict[str, str] | UnsetType = UNSET
    tools: bool | UnsetType = UNSET
    name: Name | UnsetType = UNSET


class CascadeEntry(Entry, frozen=True):
    """`cascade:` of a router, as in `Cascade` and `Accept`. `check` is the name of an installed checker, in the entry
    point group `agentflow.checkers`."""

    stages: Names | UnsetType = UNSET
    finish: bool | UnsetType = UNSET
    schema: bool | UnsetType = UNSET
    check: Name | UnsetType = UNSET
    enough: _Quality | UnsetType = UNSET
    mean_logprob: Annotated[float, Meta(le=0)] | UnsetType = UNSET
    min_logprob: Annotated[float, Meta(le=0)] | UnsetType = UNSET
    min_margin: Annotated[float, Meta(ge=0)] | UnsetType = UNSET
    samples: Annotated[int, Meta(ge=1, le=32)] | UnsetType = UNSET
    agreement: Share | UnsetType = UNSET
    temperature: Annotated[float, Meta(gt=0, le=2)] | UnsetType = UNSET


class CanaryEntry(Entry, frozen=True):
    """`canary:` of a router, as in `Canary`; `policy` is a folder."""

    policy: Name
    fraction: _Probability | UnsetType = UNSET
    error: _Probability | UnsetType = UNSET


class ExplorationEntry(Entry, frozen=True):
    """`exploration:` of a router, as in `Exploration`."""

    least: Annotated[float, Meta(ge=0, lt=0.5)] | UnsetType = UNSET


class RouterEntry(Entry, frozen=True):
    """`router:`, as in `ModelRouter`. At most one of `quality_floor`, `budget_per_call` and `lambda` (the latter two in
    US dollars) says what is aimed at. `policy` and `shadow` are folders; `quality` is what is stated of candidates,
    from 0 to 1. `max_cost` is what a call may cost at most."""

    candidates: Names
    quality_floor: _Quality | UnsetType = UNSET
    budget_per_call: _Dollars | UnsetType = UNSET
    value: _Dollars | UnsetType = field(default=UNSET, name="lambda")
    policy: Name | UnsetType = UNSET
    quality: dict[str, _Quality] | UnsetType = UNSET
    rules: list[RuleEntry] | UnsetType = UNSET
    cascade: bool | CascadeEntry | UnsetType = UNSET
    residency: Names | UnsetType = UNSET
    max_cost: _Dollars | UnsetType = UNSET
    sessions: Literal["conversation", "tools", "never"] | UnsetType = UNSET
    shadow: Name | UnsetType = UNSET
    canary: CanaryEntry | UnsetType = UNSET
    exploration: bool | ExplorationEntry | UnsetType = UNSET

    def __post_init__(self) -> None:
        aims = {
            "quality_floor": self.quality_floor,
            "budget_per_call": self.budget_per_call,
            "lambda": self.value,
        }
        said = [name for name, value in aims.items() if value is not UNSET]
        if len(said) > 1:
            raise ValueError(f"it can aim at one thing alone, not at {' and '.join(said)}")


class BatchEntry(Entry, frozen=True):
    """`batch:`, as in `RequestBatcher`. `latency_budget` is in seconds."""

    max_size: Count | UnsetType = UNSET
    max_tokens: Count | UnsetType = UNSET
    latency_budget: Delay | UnsetType = UNSET
    in_flight: Count | UnsetType = UNSET
    padded: bool | UnsetType = UNSET
