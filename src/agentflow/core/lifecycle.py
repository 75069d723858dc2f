"""One visit of one node: prep → exec → post, with attempts, time-outs, fallback, events and errors.

    state ─prep─▶ item ─exec─▶ result ─post─▶ state, action
                        ▲  │
                        └──┘ exec alone is tried again, so it sees no state

A node is compiled into a `Lifecycle` once, when its flow is built; all its phases are async there, whatever the node's
own methods are. It keeps nothing between visits.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from operator import itemgetter
from types import MappingProxyType
from typing import Any, NoReturn, Protocol, TypeVar

from agentflow.core.cancellation import failure_of
from agentflow.core.checking import Score, judge
from agentflow.core.observability.scope import Scope, current_scope, scope_within, step_out
from agentflow.core.parking import Parked
from agentflow.core.robustness.held import Held
from agentflow.core.robustness.operation import Operation, Remark, Tell
from agentflow.core.robustness.pipeline import Pipeline
from agentflow.core.robustness.retry import RetryPolicy
from agentflow.core.run import Frame, Keeper, Redo
from agentflow.core.saga import Deed
from agentflow.core.state import SharedState
from agentflow.errors import DurabilityError, FlowError, NodeError

__all__ = ["Executable", "Lifecycle", "Place", "StateFunction", "opened_in", "remarked_in", "told_to"]

R = TypeVar("R")

_NOTHING: Mapping[str, object] = MappingProxyType({})


class Place:
    """Where a visit stands in its run; its path is spelled out only when somebody asks."""

    __slots__ = ("frame", "name", "number", "within")

    def __init__(self, frame: Frame, name: str, number: int, within: Place | None = None) -> None:
        self.frame = frame
        self.name = name
        self.number = number
        self.within = within
        """The place this one stands in, below the frame: an item of an `Each`, whose own name is ""."""

    @property
    def path(self) -> str:
        around = self.frame.path if self.within is None else self.within.path
        return f"{around}/{self.name}#{self.number}" if self.name else f"{around}/{self.number}"

    def unkept(self) -> Place:
        """The same place, of whose work a durable run keeps nothing."""
        frame = copy.copy(self.frame)
        frame.run, frame.keeper = replace(frame.run, keeper=None), None
        return Place(frame, self.name, self.number, self.within)

    def scope(self) -> Scope | None:
        """What is told of this visit stands in it; None where nobody watches."""
        channel = self.frame.run.channel
        return None if channel is None else scope_within(channel, self.path, self.name or self._owner(), self.number)

    def _owner(self) -> str:
        return self.name or (self.within._owner() if self.within else "")


class Executable(Protocol):
    """What a vertex is compiled into. `kept` says whether a durable run keeps its work as one step."""

    @property
    def kept(self) -> bool: ...

    async def visit(self, state: SharedState, frame: Frame, number: int, /) -> str | None:
        """Do the vertex's work in `state` and return its action."""
        ...

    async def collect(self, item: object, state: SharedState, place: Place, /) -> object:
        """Do the vertex's work for one item of an `Each`, in the item's own view, and return what exec returned."""
        ...

    def redo_at(self, place: Place, below: Sequence[str], /) -> Redo | None:
        """How the step at the path `below` this place is told what its exec has done; None where that cannot be
        undone."""
        ...


class Attempts:
    """How one piece of a node's work is guarded: what of it is repeated, how long it may take, what else is around."""

    __slots__ = ("_pipeline", "_retry")

    def __init__(
        self, operation: str, retry: RetryPolicy | None, timeout: float | None, guard: Pipeline | None = None
    ) -> None:
        pipeline = Pipeline(operation) if guard is None else guard
        self._pipeline = pipeline.having(operation, retry=retry, attempt_timeout=timeout)
        self._retry = retry

    async def run(
        self,
        work: Callable[[], Awaitable[R]],
        place: Place,
        fallback: Callable[[Exception], Awaitable[R]] | None = None,
    ) -> R:
        """The first success, else the fallback's answer, else a NodeError that names the last attempt."""
        scope = current_scope.get() if place.frame.watched else None
        operation = self._operation(place, scope)
        if (keeper := place.frame.run.keeper) is not None:
            work = _tried(keeper, work)
        failure: Exception | None = None
        try:
            opening = self._pipeline.open if scope is None else partial(opened_in, scope, self._pipeline)
            held = await opening(work, operation)
            held.succeed()
            return held.value
        except Exception as error:
            if isinstance(error, DurabilityError):
                raise
            if fallback is None:
                raise NodeError(place.path, "exec", max(1, operation.attempts), error) from error
            failure = error
        finally:
            operation.deadline.close()
            if keeper is not None:
                keeper.tried(max(1, operation.attempts))
        try:
            return await fallback(failure)
        except Exception as error:
            if error is not failure and error.__context__ is None:
                error.__context__ = failure  # what the fallback had to answer for
            raise NodeError(place.path, "exec", max(1, operation.attempts), error) from error
        finally:
            failure = None  # its traceback knows this frame

    def _operation(self, place: Place, scope: Scope | None) -> Operation:
        run = place.frame.run
        operation = Operation(
            self._pipeline.deadline(),
            tenant=run.tenant,
            policy=self._retry,
            clock=run.clock,
            tell=None if scope is None else told_to(scope),
            remark=None if scope is None else remarked_in(scope),
        )
        if run.keeper is not None:
            operation.key = run.keeper.key
        return operation


def _tried(keeper: Keeper, work: Callable[[], Awaitable[R]]) -> Callable[[], Awaitable[R]]:
    """The work, and a durable run gets to know of each attempt at it."""

    def attempt() -> Awaitable[R]:
        keeper.trying()
        return work()

    return attempt


def told_to(scope: Scope) -> Tell:
    """Takes the decisions of guards to whoever watches the node."""

    async def tell(kind: str, facts: Mapping[str, object], attempt: int) -> None:
        await scope.send(kind, facts, attempt=attempt)

    return tell


def remarked_in(scope: Scope) -> Remark:
    """The same for what may not wait."""

    def remark(kind: str, facts: Mapping[str, object], attempt: int) -> None:
        scope.remark(kind, facts, attempt=attempt)

    return remark


async def opened_in(
    scope: Scope, pipeline: Pipeline, work: Callable[[], Awaitable[R]], operation: Operation
) -> Held[R]:
    """`pipeline.open`, and the scope gets to know what was waited for there."""
    clock = scope.channel.clock
    started, inside = clock.monotonic(), 0.0

    async def timed() -> R:
        nonlocal inside
        begun = clock.monotonic()
        try:
            return await work()
        finally:
            inside += clock.monotonic() - begun

    try:
        return await pipeline.open(timed, operation)
    finally:
        waits = operation.waits()
        rest = clock.monotonic() - started - inside - sum(waits.values())
        scope.waited({**waits, "unattributed": rest} if rest > 0.0 else waits)


class Lifecycle:
    """prep → exec → post of one node. A phase that the node does not have is None and costs nothing.

    With `own_post` nothing of the user's runs after exec, so that a durable run has to keep the whole visit alone.
    """

    __slots__ = (
        "_attempts",
        "_bare",
        "_check",
        "_compensation",
        "_saved",
        "exec",
        "fallback",
        "kept",
        "name",
        "post",
        "prep",
    )

    def __init__(
        self,
        name: str,
        *,
        prep: Callable[[SharedState], Awaitable[Any]] | None,
        exec: Callable[[Any], Awaitable[Any]],
        post: Callable[[SharedState, Any, Any], Awaitable[str | None]] | None,
        fallback: Callable[[Any, Exception], Awaitable[Any]] | None = None,
        retry: RetryPolicy | None = None,
        timeout: float | None = None,
        guard: Pipeline | None = None,
        check: Callable[[Any], Awaitable[Score]] | None = None,
        compensate: Callable[[Any, Any], Awaitable[Any]] | None = None,
        kept: bool = True,
        own_post: bool = False,
    ) -> None:
        self.name = name
        self.kept = kept
        self.prep = prep
        self._check = check
        self.exec = exec
        self.post = post
        self.fallback = fallback
        self._saved = kept and (compensate is not None or not (post is None or own_post))
        self._compensation = None if compensate is None else _Compensation(name, compensate, retry)
        plain = retry is None and timeout is None and fallback is None and guard is None
        self._attempts = None if plain else Attempts(f"exec of {name}", retry, timeout, guard)
        self._bare = plain and compensate is None

    async def visit(self, state: SharedState, frame: Frame, number: int) -> str | None:
        if frame.watched:
            place = Place(frame, self.name, number)
            work = partial(self._phases, None, state, frame, number, place)
            return (await watched(place, work, action=itemgetter(1)))[1]
        return (await self._phases(None, state, frame, number))[1]

    @property
    def stateless(self) -> bool:
        """Whether neither prep nor post looks at a state."""
        return self.prep is None and self.post is None

    async def collect(self, item: object, state: SharedState, place: Place) -> object:
        frame, number = place.frame, place.number
        if frame.watched:
            return (await watched(place, partial(self._phases, item, state, frame, number, place)))[0]
        return (await self._phases(item, state, frame, number, place))[0]

    async def _phases(
        self, item: object, state: SharedState, frame: Frame, number: int, place: Place | None = None
    ) -> tuple[Any, str | None]:
        """(what exec returned, the action). Without prep, exec gets `item`."""
        phase = "prep"
        try:
            if self.prep is not None:
                item = await self.prep(state)
            phase = "exec"
            if self._bare and frame.keeper is None:
                result = await self.exec(item)
            else:
                place = place or Place(frame, self.name, number)
                result = await self._executed(item, place)
            if self._check is not None:
                await judge(self._check, result)
            phase = "post"
            return result, None if self.post is None else await self.post(state, item, result)
        except (Exception, asyncio.CancelledError, BaseExceptionGroup) as error:  # noqa: BLE001 - blame raises
            blame(error, phase, place or Place(frame, self.name, number))

    async def _executed(self, item: object, place: Place) -> Any:
        """What exec returns, tried as often as it may be, kept where the run is durable."""
        keeper = place.frame.keeper
        if keeper is None or not self._saved:
            return await self._done(item, place)
        undoable = self._compensation is not None
        return await keeper.result(item, partial(self._done, item, place), undoable=undoable)

    async def _done(self, item: object, place: Place) -> Any:
        """It counts as done from when exec returns, also where keeping that is cut off."""
        result = await self._tried(item, place)
        if self._compensation is not None:
            self._compensation.note(place, item, result)
        return result

    def redo_at(self, place: Place, below: Sequence[str]) -> Redo | None:
        return None if below or self._compensation is None else partial(self._compensation.note, place)

    def _tried(self, item: object, place: Place) -> Awaitable[Any]:
        if self._attempts is None:
            return self.exec(item)
        fallback = self.fallback
        answer = None if fallback is None else lambda error: fallback(item, error)
        return self._attempts.run(lambda: self.exec(item), place, answer)


class _Compensation:
    """How what exec has done is undone."""

    __slots__ = ("_attempts", "_undo")

    def __init__(self, name: str, undo: Callable[[Any, Any], Awaitable[Any]], retry: RetryPolicy | None) -> None:
        self._undo = undo
        self._attempts = Attempts(f"compensation of {name}", retry, None)

    def note(self, place: Place, item: object, result: object) -> None:
        """Exec has done it: should the run fail for good, it is to be undone."""
        undo = self._undo
        place.frame.run.did(Deed(place.path, lambda: self._attempts.run(lambda: undo(item, result), place)))


class StateFunction:
    """The whole lifecycle in one function of the state, which returns the action.

    An attempt that may be repeated, raced against another, cut off by a time-out or finish late in a thread works on a
    view; the writes of the one that counts are applied when it has returned in time, all others are dropped.
    """

    __slots__ = ("_attempts", "_on_view", "function", "kept", "name")

    def __init__(
        self,
        name: str,
        function: Callable[[SharedState], Awaitable[str | None]],
        *,
        threaded: bool,
        retry: RetryPolicy | None,
        timeout: float | None,
        guard: Pipeline | None,
        kept: bool = True,
    ) -> None:
        self.name = name
        self.kept = kept
        self.function = function
        self._on_view = threaded or retry is not None or timeout is not None or guard is not None
        self._attempts = Attempts(name, retry, timeout, guard)

    async def visit(self, state: SharedState, frame: Frame, number: int) -> str | None:
        if frame.watched:
            return await watched(
                Place(frame, self.name, number), partial(self._call, state, frame, number), action=_itself
            )
        return await self._call(state, frame, number)

    async def _call(self, state: SharedState, frame: Frame, number: int) -> str | None:
        try:
            if self._on_view:
                action, view = await self._attempts.run(lambda: self._apart(state), Place(frame, self.name, number))
                state.apply(view)
                return action
            return await self.function(state)
        except (Exception, asyncio.CancelledError, BaseExceptionGroup) as error:  # noqa: BLE001 - blame raises
            blame(error, "exec", Place(frame, self.name, number))

    async def _apart(self, state: SharedState) -> tuple[str | None, SharedState]:
        view = state.view()
        return await self.function(view), view

    async def collect(self, item: object, state: SharedState, place: Place) -> object:
        raise AssertionError("Each refuses whole-lifecycle functions when it is built")

    def redo_at(self, place: Place, below: Sequence[str]) -> Redo | None:
        return None


async def watched(
    place: Place,
    work: Callable[[], Awaitable[R]],
    start: Mapping[str, object] = _NOTHING,
    action: Callable[[R], object] | None = None,
) -> R:
    """Do one node's work with its events around it, and let `emit` in it know where it stands.

    `start` is the data of its start event; `action` finds the action in the outcome.
    """
    scope = place.scope()
    assert scope is not None
    alone = scope.channel.reader is None  # nobody is to be waited for
    try:
        if alone:
            scope.enter("node_start", start)
        else:
            await scope.begin("node_start", start)
        token = current_scope.set(scope)
        try:
            outcome = await work()
        finally:
            step_out(token)
    except FlowError as error:
        await scope.end("node_error", failure_data(error), attempt=error.attempt if isinstance(error, NodeError) else 1)
        raise
    except Parked:
        scope.leave("node_interrupted")
        raise
    except BaseException:
        scope.leave("node_cancelled")
        raise
    taken = None if action is None else action(outcome)
    end = {"action": taken} if isinstance(taken, str) else _NOTHING
    if alone:
        scope.leave("node_success", end)
    else:
        await scope.end("node_success", end)
    return outcome


def _itself(outcome: R) -> R:
    return outcome


def blame(error: BaseException, phase: str, place: Place) -> NoReturn:
    """Raise the NodeError for what went wrong at `place`; what already is it, or a cancellation, passes unchanged.

    So does what could not be kept of a durable run: that is no failure of the node.
    """
    if isinstance(error, DurabilityError):
        raise error
    failure = failure_of(error)
    path = place.path
    try:
        if isinstance(failure, NodeError) and failure.node == path:
            raise failure
        raise NodeError(path, phase, 1, failure) from error
    finally:
        del failure, error  # the traceback knows this frame


def collected(error: Exception, place: Place) -> NodeError:
    """The NodeError that stands for a failure where failures are collected; the cause is chained."""
    if isinstance(error, NodeError):
        return error
    failure = NodeError(place.path, "exec", 1, error)
    failure.__cause__ = error
    return failure


def failure_data(error: BaseException) -> Mapping[str, object]:
    """What an error event says of an error."""
    cause = error.__cause__ if isinstance(error, NodeError) and error.__cause__ is not None else error
    return {"error": str(error), "error_type": type(cause).__name__}
