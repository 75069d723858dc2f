"""Who asks: what a provider that wraps others needs to know beside the request, and whom it tells what it decides.

    question ──asking_as(Caller)──▶ cache ──▶ budget ──▶ router ──▶ a model, guarded
                                     └── current_caller().tell("cache_hit", {…})

It travels in a context variable, for a provider is asked with a request alone. Where a wrapper is used without a client
there is nobody: the caller is empty, and what it is told goes nowhere.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from agentflow.clock import Clock
from agentflow.core.limits import Ledger
from agentflow.core.observability.scope import Scope, scope_outside
from agentflow.core.robustness.load_shedder import Priority
from agentflow.core.robustness.retry import RetryPolicy
from agentflow.core.robustness.timing import Timing
from agentflow.core.run import new_run_id
from agentflow.llm.guards import Guards
from agentflow.llm.streaming.stream import close

__all__ = ["Caller", "asking_as", "caller_of", "current_caller", "steps_as"]

T = TypeVar("T")


class Caller(Struct, frozen=True):
    """Who asks a question: for which `tenant`, in which `flow` and run, with what `priority`, and with the retries that
    the call itself asks for. Every request that is made for the answer is noted in the `ledgers`. `scope` is where in a
    run the question is asked, None where nobody watches; `patient` is False where the caller himself set the limit of
    time. `spent` is told where the time of each request went."""

    tenant: str | None = None
    flow: str | None = None
    run_id: str | None = None
    priority: Priority = Priority.NORMAL
    policy: RetryPolicy | None = None
    ledgers: tuple[Ledger, ...] = ()
    scope: Scope | None = None
    patient: bool = True
    spent: Callable[[Timing], None] | None = None

    @property
    def watched(self) -> bool:
        """Whether anybody hears what is told; where not, facts need not be gathered."""
        return self.scope is not None

    async def tell(self, kind: str, facts: Mapping[str, object]) -> None:
        """Tell whoever watches of a decision, with its reason."""
        if self.scope is not None:
            await self.scope.send(kind, facts)

    def charging(self, ledger: Ledger) -> Caller:
        """The same caller, whose requests are noted in one more ledger."""
        return replace(self, ledgers=(*self.ledgers, ledger))

    def apart(self, clock: Clock, model: str) -> Caller:
        """For the same tenant and flow, in a run of its own: whoever asked will not be there when it is over."""
        scope = scope_outside(clock, model, new_run_id)
        run_id = None if scope is None else scope.channel.run_id
        return Caller(self.tenant, self.flow, run_id, self.priority, scope=scope)


def caller_of(guards: Guards, spent: Callable[[Timing], None] | None = None) -> Caller:
    """Who asks a question that is guarded so."""
    return Caller(
        guards.tenant,
        guards.flow,
        guards.run_id,
        guards.priority,
        guards.policy,
        guards.ledgers,
        guards.scope,
        guards.patient,
        spent,
    )


_NOBODY: Final = Caller()
_current: ContextVar[Caller] = ContextVar("agentflow_caller", default=_NOBODY)


def current_caller() -> Caller:
    """Who asks, here and now. A stream asks when its first chunk is asked for."""
    return _current.get()


@contextmanager
def asking_as(caller: Caller) -> Iterator[None]:
    """For the body, `caller` asks. Not around a `yield` of a stream: see `steps_as`."""
    token = _current.set(caller)
    try:
        yield
    finally:
        _current.reset(token)


async def steps_as(caller: Caller, source: AsyncIterator[T]) -> AsyncGenerator[T, None]:
    """A stream whose every step is asked for by `caller`; between them, whoever reads it is himself again."""
    try:
        while True:
            with asking_as(caller):
                try:
                    piece = await anext(source)
                except StopAsyncIteration:
                    return
            yield piece
    finally:
        await close(source)  # type: ignore[arg-type]
