"""The guards that a model's calls pass: one pipeline for each provider, endpoint and model.

    Guarding (what models.yml says)  ──Pipelines.get──▶  Pipeline(shedder, hedge, retry, limiter, breaker)

An entry under `providers:` has one address and one credential, so there is a breaker for each of its models and
endpoints: one model that is down closes no other. A rate limit that stands at the provider is shared by all its models,
one that stands at the model is that model's; what the server says holds for the model it was asked for. With
`defaults.shared` the limits with numbers, and until when a breaker is open, are shared with other processes.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from threading import RLock
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from agentflow.clock import Clock
from agentflow.core.robustness.adaptive_limit import AIMD, Fixed, Gradient2, Limit
from agentflow.core.robustness.breaker_window import CountWindow, TimeWindow
from agentflow.core.robustness.circuit_breaker import CircuitBreaker
from agentflow.core.robustness.decision import Listener
from agentflow.core.robustness.limiting import Breaker, Limiter
from agentflow.core.robustness.load_shedder import LoadShedder
from agentflow.core.robustness.output_estimate import OutputEstimate
from agentflow.core.robustness.pipeline import Pipeline
from agentflow.core.robustness.rate_limiter import RateLimiter, ServerLimits
from agentflow.core.robustness.retry_budget import RetryBudget
from agentflow.errors import ModelError
from agentflow.llm.config.guarding import Guarding, Options
from agentflow.llm.config.sharing import SharedStore

if TYPE_CHECKING:  # few models are hedged
    from agentflow.core.robustness.hedging import Hedge

__all__ = ["Pipelines"]

_PLACES: Final = 1_000  # calls at once to one remote model, until the server shows what it takes
_MOST_PLACES: Final = 10_000
_OPEN_FOR, _MAX_OPEN = 3.0, 60.0  # seconds, as a breaker has them without a word; each gives way to the other
_LOCAL_FIRST: Final = 20
_LOCAL_PLACES: Final = 200
_MOST_NAMES: Final = 4_096

T = TypeVar("T")


class Pipelines:
    """The guards of one registry. They are made when first needed and kept, because they know how a model is doing.

    Entries that stand for the same model of the same provider share its breaker, limiter and shedder; what the first of
    them says of these holds. Retries and hedges are each entry's own. Where entries have changed (`forget`), a guard
    begins anew if the entry whose word holds says something else of it; all others go on with what they know.
    """

    def __init__(self, clock: Clock, open_shared: Callable[[], SharedStore] | None = None) -> None:
        self.output = OutputEstimate()
        self._clock = clock
        self._open = open_shared
        self._store: SharedStore | None = None
        self._pipelines: dict[tuple[str, str], Pipeline] = {}
        self._breakers: dict[str, _Kept[Breaker]] = {}
        self._shedders: dict[str, _Kept[LoadShedder]] = {}
        self._limiters: dict[str, _Kept[Limiter]] = {}
        self._common: dict[str, _Kept[Limiter]] = {}  # of whole providers
        self._budgets: dict[str, _Kept[RetryBudget]] = {}
        self._hedges: dict[str, _Kept[Hedge]] = {}
        self._lock = RLock()

    def get(self, name: str, provider: str, model_id: str, endpoint: str, said: Guarding) -> Pipeline:
        """The pipeline for the entry `name`, whose calls go to an endpoint (`chat`, `embeddings`, …) of a model."""
        found = self._pipelines.get((name, endpoint))
        return self._make(name, provider, model_id, endpoint, said) if found is None else found

    def observe(self, provider: str, model_id: str, limits: Mapping[str, float]) -> None:
        """What a server said of its limits in the head of an answer: see `server_limits`."""
        kept = self._limiters.get(f"{provider}/{model_id}")
        if kept is not None and isinstance(kept.guard, RateLimiter):
            kept.guard.observe(ServerLimits(**limits))

    def forget(self, names: Container[str] | None = None) -> None:
        """Make the pipelines of these entries anew, all of them without names: what is said of them has changed. What
        is known of the models is kept where the same is said of their guards."""
        with self._lock:
            for key in [key for key in self._pipelines if names is None or key[0] in names]:
                del self._pipelines[key]

    def shared_store(self) -> SharedStore | None:
        """The store that processes share, opened when it is first asked for; None where models.yml names none."""
        with self._lock:
            if self._store is None and self._open is not None:
                self._store = self._open()
            return self._store

    async def aclose(self) -> None:
        """Tell the store that processes share what is still to be told."""
        if self._store is not None:
            await self._store.aclose()

    def _make(self, name: str, provider: str, model_id: str, endpoint: str, said: Guarding) -> Pipeline:
        model = f"{provider}/{model_id}"
        place = model if endpoint == "chat" else f"{model} ({endpoint})"
        with self._lock:
            pipeline = Pipeline(
                place,
                shedder=_kept(self._shedders, name, model, said.shedder, self._shedder),
                hedge=_kept(self._hedges, name, f"{name} {endpoint}", said.hedge, self._hedge),
                retry=said.retry,
                budget=_kept(self._budgets, name, provider, said.retry_budget, self._budget),
                repeats=(ModelError,),
                limiter=self._limiter(name, provider, model, said),
                breaker=_kept(self._breakers, name, place, said.breaker, self._breaker),
                clock=self._clock,
            )
            if len(self._pipelines) >= _MOST_NAMES:  # whoever makes up `provider/any` shall not fill memory
                self._clear()
            self._pipelines[name, endpoint] = pipeline
            return pipeline

    def _clear(self) -> None:
        """What belongs to a whole provider stays: nobody gets around its limits by making names up."""
        for kept in (self._pipelines, self._breakers, self._shedders, self._limiters, self._hedges):
            kept.clear()

    def _limiter(self, by: str, provider: str, model: str, said: Guarding) -> Limiter:
        """What a provider's entry limits, its models do together; what the server says is said of one of them."""
        if not said.shares_limit:
            return self._own(by, model, said.rate_limit)
        from agentflow.core.robustness.limiter_chain import LimiterChain

        own = {name: value for name, value in said.rate_limit.items() if name == "on_limit"}
        return LimiterChain(self._own(by, model, own), self._limiter_of(self._common, by, provider, said.rate_limit))

    def _own(self, by: str, name: str, said: Options) -> Limiter:
        return self._limiter_of(self._limiters, by, name, said)

    def _limiter_of(self, known: dict[str, _Kept[Limiter]], by: str, name: str, said: Options) -> Limiter:
        limiter = _kept(known, by, name, said, self._new_limiter)
        assert limiter is not None
        return limiter

    def _new_limiter(self, name: str, said: Options) -> Limiter:
        numbers = [value for field, value in said.items() if field not in ("on_limit", "burst") and value is not None]
        store = self.shared_store() if numbers else None
        return RateLimiter(name=name, clock=self._clock, **said) if store is None else store.limiter(name, **said)

    def _breaker(self, name: str, said: Options) -> Breaker:
        store = self.shared_store()
        if store is None:
            return self._own_breaker(name, said, None)
        return store.share_breaker(name, lambda listener: self._own_breaker(name, said, listener))

    def _own_breaker(self, name: str, said: Options, listener: Listener | None) -> CircuitBreaker:
        options = dict(said)
        count, seconds = options.pop("window", 50), options.pop("window_seconds", None)
        window = CountWindow(count) if seconds is None else TimeWindow(seconds)
        if isinstance(window, CountWindow):
            options["min_calls"] = min(options.get("min_calls", 10), count)
        options.setdefault("max_open", max(_MAX_OPEN, options.get("open_for", 0.0)))
        options["open_for"] = min(options.get("open_for", _OPEN_FOR), options["max_open"])
        return CircuitBreaker(name=name, window=window, clock=self._clock, listener=listener, **options)

    def _shedder(self, name: str, said: Options) -> LoadShedder:
        options = {"target_wait": None, **said}  # a batch of ten thousand may wait: a service that may not says so
        limit = _limit(options.pop("algorithm", "aimd"), options)
        return LoadShedder(name=name, limit=limit, clock=self._clock, **options)

    def _budget(self, name: str, said: Options) -> RetryBudget:
        return RetryBudget(clock=self._clock, **said)

    def _hedge(self, name: str, said: Options) -> Hedge:
        from agentflow.core.robustness.hedging import Hedge

        return Hedge(name=name, clock=self._clock, **said)


class _Kept(Generic[T]):
    """A guard, what was said of it when it was made, and by which entry."""

    __slots__ = ("by", "guard", "said")

    def __init__(self, guard: T, said: Options, by: str) -> None:
        self.guard = guard
        self.said = said
        self.by = by


def _kept(
    known: dict[str, _Kept[T]], by: str, name: str, said: Options | None, make: Callable[[str, Options], T]
) -> T | None:
    """The guard of that name, made where it is new or the entry whose word holds has changed; None where it is
    switched off."""
    if said is None:
        return None
    kept = known.get(name)
    if kept is None or (kept.by == by and kept.said != said):
        kept = known[name] = _Kept(make(name, said), said, by)
    return kept.guard


def _limit(algorithm: str, options: dict[str, Any]) -> Limit:
    """The algorithm that decides how many calls there may be at once; its options are taken out of `options`."""
    minimum, initial, maximum = (options.pop(name, None) for name in ("minimum", "initial", "maximum"))
    if algorithm == "fixed":
        return Fixed(maximum or initial or _PLACES)
    remote = algorithm == "aimd"
    most = maximum or max(initial or 0, minimum or 0, _MOST_PLACES if remote else _LOCAL_PLACES)
    first = initial or min(most, max(minimum or 1, _PLACES if remote else _LOCAL_FIRST))
    kind = AIMD if remote else Gradient2
    return kind(initial=first, minimum=minimum or 1, maximum=most)
