"""The unit of work: prep reads the state, exec does the work, post writes what it found and says what comes next.

    class Write(AsyncNode[str, str]):               # what exec takes, what it returns
        async def prep(self, state): return state[TOPIC]
        async def exec(self, topic): ...            # no state here, so it can be retried
        async def post(self, state, topic, draft): state[DRAFT] = draft

    @node(reads=TOPIC, writes=DRAFT)                # the same in short: exec alone
    async def write(topic: str) -> str: ...

    @node                                           # or the whole lifecycle in one function of the state
    async def judge(state) -> Literal["accept", "rewrite"]: ...

A node keeps nothing of a run, so one node serves many flows and runs at once.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Awaitable, Callable
from typing import (
    Any,
    ClassVar,
    Final,
    Generic,
    Literal,
    ParamSpec,
    TypeAlias,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
    overload,
)

from agentflow.core.checking import Check, Score
from agentflow.core.graph import DEFAULT, Vertex
from agentflow.core.lifecycle import Executable, Lifecycle, StateFunction
from agentflow.core.processes.calls import ProcessCall, check_travels
from agentflow.core.robustness.pipeline import Pipeline
from agentflow.core.robustness.retry import RetryPolicy
from agentflow.core.state import Key, SharedState, key_name
from agentflow.core.threads import call_in_thread
from agentflow.errors import GraphError

__all__ = ["AsyncNode", "BaseNode", "FunctionNode", "Keys", "Node", "node"]

In = TypeVar("In")
Out = TypeVar("Out")
P = ParamSpec("P")
R = TypeVar("R")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")

Keys: TypeAlias = "Key[Any] | str | tuple[Key[Any] | str, ...]"
"""One key or several, each a `Key` or its name."""

Compensate: TypeAlias = Callable[[Any, Any], Awaitable[None] | None]
"""Takes what exec took and what it returned, and undoes it."""

Elsewhere: TypeAlias = Literal["process"]
"""Where exec runs that does not run here."""

Names: TypeAlias = "str | tuple[Key[Any] | str, ...]"
Work: TypeAlias = Callable[..., Any]

_PHASES: Final = ("prep", "exec", "post", "fallback", "check", "compensate")


class BaseNode(Vertex):
    """What every node has, whatever does its work.

    `retry`, `timeout` (seconds, per attempt) and `guard` (a pipeline with all that there is beside: limiter, breaker,
    …) are around exec alone; all are class attributes or arguments, and the first two win over the guard's own. `reads`
    and `writes` name keys of the state: a dataflow section is ordered by them. The name is the class's in snake case
    unless one is given. With `durable=False` a durable run keeps nothing of the node: it runs again whenever the run is
    resumed, so it must come to the same each time.

    With `on="process"` exec runs in a worker process; a class may say so, too: `class Crunch(Node, on="process")`.
    """

    retry: RetryPolicy | None = None
    timeout: float | None = None
    guard: Pipeline | None = None
    durable: bool = True
    runs_on: Elsewhere | None = None
    reads: ClassVar[Keys] = ()
    writes: ClassVar[Keys] = ()

    def __init__(
        self,
        *,
        name: str | None = None,
        retry: RetryPolicy | None = None,
        timeout: float | None = None,
        guard: Pipeline | None = None,
        durable: bool | None = None,
        on: Elsewhere | None = None,
    ) -> None:
        if name is not None:
            self.name = name
        if on is not None:
            self.runs_on = on
        if durable is not None:
            self.durable = durable
        if retry is not None:
            self.retry = retry
        if timeout is not None:
            self.timeout = timeout
        if guard is not None:
            self.guard = guard

    def keys_read(self) -> tuple[str, ...]:
        return key_names(self.reads)

    def keys_written(self) -> tuple[str, ...]:
        return key_names(self.writes)

    def executable(self) -> Executable:
        """What a flow runs for this node; called once, when the flow is built. Raises GraphError."""
        raise GraphError(f"{type(self).__name__} has no work to do: derive from AsyncNode or Node")

    def has_own(self, method: str, base: type) -> bool:
        """Whether a subclass, or this object, brings its own `method`."""
        return method in self.__dict__ or getattr(type(self), method) is not getattr(base, method)

    def _checked_timeout(self) -> float | None:
        if self.timeout is not None and not self.timeout > 0:
            raise GraphError(f"{self.name}: timeout is seconds above 0, not {self.timeout!r}")
        return self.timeout


class AsyncNode(BaseNode, Generic[In, Out]):
    """A node whose phases are async. Override what you need; `exec` is the one that is retried."""

    def __init_subclass__(cls, *, on: Elsewhere | None = None) -> None:
        super().__init_subclass__()
        _check_phases(cls, wants_async=True)
        if on is not None:
            cls.runs_on = on

    async def prep(self, state: SharedState, /) -> In:
        """Read from the state what exec needs."""
        return cast("In", None)

    async def exec(self, item: In, /) -> Out:
        """Do the work. It sees no state, so it can be tried again without doing harm twice."""
        return cast("Out", None)

    async def post(self, state: SharedState, item: In, result: Out, /) -> str | None:
        """Write what exec found; return the action that says where to go (None is "default")."""
        return None

    async def fallback(self, item: In, error: Exception, /) -> Out:
        """The answer when exec has finally failed."""
        raise error

    async def check(self, result: Out, /) -> Score:
        """How good the result is, from 0 to 1, for whoever watches; it changes nothing. None says nothing."""
        return None

    async def compensate(self, item: In, result: Out, /) -> None:
        """Undo what exec has done, as a later step of the run has failed for good. It gets what exec took and
        returned, is retried as exec is, and must stand being called twice."""

    def actions(self) -> frozenset[str] | None:
        return _declared(self.post) if self.has_own("post", AsyncNode) else frozenset({DEFAULT})

    def executable(self) -> Executable:
        return Lifecycle(
            self.name,
            prep=self.prep if self.has_own("prep", AsyncNode) else None,
            exec=self.exec if self.runs_on is None else in_process(ProcessCall(self, "exec"), self),
            post=self.post if self.has_own("post", AsyncNode) else None,
            fallback=self.fallback if self.has_own("fallback", AsyncNode) else None,
            retry=self.retry,
            timeout=self._checked_timeout(),
            guard=self.guard,
            check=self.check if self.has_own("check", AsyncNode) else None,
            compensate=self.compensate if self.has_own("compensate", AsyncNode) else None,
            kept=self.durable,
        )


class Node(BaseNode, Generic[In, Out]):
    """A node whose phases are plain functions; each runs in a thread, so it may block.

    prep and post work on a view of the state that is applied when they return. A cancelled or timed-out call is not
    waited for: its thread finishes, and what it returns late is dropped.
    """

    def __init_subclass__(cls, *, on: Elsewhere | None = None) -> None:
        super().__init_subclass__()
        _check_phases(cls, wants_async=False)
        if on is not None:
            cls.runs_on = on

    def prep(self, state: SharedState, /) -> In:
        """Read from the state what exec needs."""
        return cast("In", None)

    def exec(self, item: In, /) -> Out:
        """Do the work. It sees no state, so it can be tried again without doing harm twice."""
        return cast("Out", None)

    def post(self, state: SharedState, item: In, result: Out, /) -> str | None:
        """Write what exec found; return the action that says where to go (None is "default")."""
        return None

    def fallback(self, item: In, error: Exception, /) -> Out:
        """The answer when exec has finally failed."""
        raise error

    def check(self, result: Out, /) -> Score:
        """How good the result is, from 0 to 1, for whoever watches; it changes nothing. None says nothing."""
        return None

    def compensate(self, item: In, result: Out, /) -> None:
        """Undo what exec has done, as a later step of the run has failed for good. It gets what exec took and
        returned, is retried as exec is, and must stand being called twice."""

    def actions(self) -> frozenset[str] | None:
        return _declared(self.post) if self.has_own("post", Node) else frozenset({DEFAULT})

    def executable(self) -> Executable:
        return Lifecycle(
            self.name,
            prep=_on_view(self.prep) if self.has_own("prep", Node) else None,
            exec=threaded(self.exec) if self.runs_on is None else in_process(ProcessCall(self, "exec"), self),
            post=_on_view(self.post) if self.has_own("post", Node) else None,
            fallback=threaded(self.fallback) if self.has_own("fallback", Node) else None,
            retry=self.retry,
            timeout=self._checked_timeout(),
            guard=self.guard,
            check=threaded(self.check) if self.has_own("check", Node) else None,
            compensate=threaded(self.compensate) if self.has_own("compensate", Node) else None,
            kept=self.durable,
        )


class FunctionNode(BaseNode, Generic[P, R]):
    """A node made of one function by `@node`. Calling it calls the function, as in a test of its own."""

    def __init__(
        self,
        function: Callable[P, R],
        *,
        name: str | None = None,
        reads: Keys | None = None,
        writes: Keys | None = None,
        retry: RetryPolicy | None = None,
        timeout: float | None = None,
        guard: Pipeline | None = None,
        check: Check | None = None,
        compensate: Compensate | None = None,
        durable: bool | None = None,
        inline: bool = False,
        on: Elsewhere | None = None,
    ) -> None:
        super().__init__(
            name=name or _function_name(function), retry=retry, timeout=timeout, guard=guard, durable=durable, on=on
        )
        functools.update_wrapper(self, function, updated=())
        self.function = function
        self.whole = reads is None and writes is None
        self.inputs = key_names(reads or ())
        self.outputs = key_names(writes or ())
        self.single_output = not isinstance(writes, tuple)
        self.threaded = not is_async(function) and not inline
        self.check = check
        self.compensate = compensate
        _check_parameters(self)
        if check is not None and self.whole:
            raise GraphError(f"{self.name}: check= looks at what exec returns; a whole-lifecycle function has no exec")
        if compensate is not None and self.whole:
            raise GraphError(f"{self.name}: compensate= undoes an exec; a whole-lifecycle function has none")
        if on is not None and self.whole:
            raise GraphError(
                f'{self.name}: on="process" is for exec, and a whole-lifecycle function has none: '
                f"the state stays here, so say with reads= and writes= what the function takes and gives"
            )
        if on is not None and inline:
            raise GraphError(f'{self.name}: inline=True runs it on the event loop, on="process" in a process: say one')

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<FunctionNode {self.name}>"

    def keys_read(self) -> tuple[str, ...]:
        return self.inputs

    def keys_written(self) -> tuple[str, ...]:
        return self.outputs

    def actions(self) -> frozenset[str] | None:
        return frozenset({DEFAULT}) if self.outputs else _declared(self.function)

    def executable(self) -> Executable:
        work = self._awaited()
        if self.whole:
            return StateFunction(
                self.name,
                work,
                threaded=self.threaded,
                retry=self.retry,
                timeout=self._checked_timeout(),
                guard=self.guard,
                kept=self.durable,
            )
        return Lifecycle(
            self.name,
            prep=self._read if self.inputs else None,
            exec=_spread(work, len(self.inputs)),
            post=self._write if self.outputs else _action_of_result,
            retry=self.retry,
            timeout=self._checked_timeout(),
            guard=self.guard,
            check=None if self.check is None else awaited(self.check, inline=not is_async(self.check)),
            compensate=None if self.compensate is None else awaited(self.compensate),
            kept=self.durable,
            own_post=True,
        )

    def _awaited(self) -> Callable[..., Awaitable[Any]]:
        if self.runs_on is not None:
            return in_process(self.function, self)
        return awaited(self.function, inline=not self.threaded)

    async def _read(self, state: SharedState) -> object:
        if len(self.inputs) == 1:
            return state[self.inputs[0]]
        return tuple(state[name] for name in self.inputs)

    async def _write(self, state: SharedState, item: object, result: object) -> None:
        if self.single_output:
            state[self.outputs[0]] = result
            return
        if not isinstance(result, tuple) or len(result) != len(self.outputs):
            found = f"{len(result)} values" if isinstance(result, tuple) else type(result).__name__
            raise TypeError(f"{self.name} writes {len(self.outputs)} keys, so it returns a tuple of them, not {found}")
        for name, value in zip(self.outputs, result, strict=True):
            state[name] = value


# What `@node` returns depends on what it decorates and on the keys it is given. A key of type A must meet a parameter
# that takes an A; that is checked for one key on either side, and for names (str) nothing is known.


@overload
def node(function: Callable[P, R], /) -> FunctionNode[P, R]: ...
@overload
def node(
    *,
    name: str | None = None,
    retry: RetryPolicy | None = None,
    timeout: float | None = None,
    guard: Pipeline | None = None,
    durable: bool | None = None,
    inline: bool = False,
) -> Callable[[Callable[P, R]], FunctionNode[P, R]]: ...
@overload
def node(
    *,
    reads: Key[A],
    writes: Key[B],
    name: str | None = None,
    retry: RetryPolicy | None = None,
    timeout: float | None = None,
    guard: Pipeline | None = None,
    check: Check | None = None,
    compensate: Compensate | None = None,
    durable: bool | None = None,
    inline: bool = False,
    on: Elsewhere | None = None,
) -> Callable[[Callable[[A], Awaitable[B] | B]], FunctionNode[[A], Awaitable[B] | B]]: ...
@overload
def node(
    *,
    reads: Key[A],
    name: str | None = None,
    retry: RetryPolicy | None = None,
    timeout: float | None = None,
    guard: Pipeline | None = None,
    check: Check | None = None,
    compensate: Compensate | None = None,
    durable: bool | None = None,
    inline: bool = False,
    on: Elsewhere | None = None,
) -> Callable[[Callable[[A], R]], FunctionNode[[A], R]]: ...
@overload
def node(
    *,
    writes: Key[B],
    name: str | None = None,
    retry: RetryPolicy | None = None,
    timeout: float | None = None,
    guard: Pipeline | None = None,
    check: Check | None = None,
    compensate: Compensate | None = None,
    durable: bool | None = None,
    inline: bool = False,
    on: Elsewhere | None = None,
) -> Callable[[Callable[[], Awaitable[B] | B]], FunctionNode[[], Awaitable[B] | B]]: ...
@overload
def node(
    *,
    reads: Names,
    writes: Keys | None = None,
    name: str | None = None,
    retry: RetryPolicy | None = None,
    timeout: float | None = None,
    guard: Pipeline | None = None,
    check: Check | None = None,
    compensate: Compensate | None = None,
    durable: bool | None = None,
    inline: bool = False,
    on: Elsewhere | None = None,
) -> Callable[[Callable[P, R]], FunctionNode[P, R]]: ...
@overload
def node(
    *,
    reads: Keys | None = None,
    writes: Names,
    name: str | None = None,
    retry: RetryPolicy | None = None,
    timeout: float | None = None,
    guard: Pipeline | None = None,
    check: Check | None = None,
    compensate: Compensate | None = None,
    durable: bool | None = None,
    inline: bool = False,
    on: Elsewhere | None = None,
) -> Callable[[Callable[P, R]], FunctionNode[P, R]]: ...
def node(
    function: Work | None = None,
    /,
    *,
    reads: Keys | None = None,
    writes: Keys | None = None,
    name: str | None = None,
    retry: RetryPolicy | None = None,
    timeout: float | None = None,
    guard: Pipeline | None = None,
    check: Check | None = None,
    compensate: Compensate | None = None,
    durable: bool | None = None,
    inline: bool = False,
    on: Elsewhere | None = None,
) -> FunctionNode[..., Any] | Callable[[Work], FunctionNode[..., Any]]:
    """Make a node of an async or a sync function.

    With `reads` or `writes` the function is exec: it gets the values of the keys it reads as arguments and returns what
    is written (a tuple where `writes` is a tuple of keys); without `writes` it returns the action. With neither, it is
    the whole lifecycle: it gets the state and returns the action.

    A sync function runs in a thread; `inline=True` runs it on the event loop, for tiny ones that never block. `check`
    gets what exec returned and says how good it is, from 0 to 1, for whoever watches: a plain one runs in place.
    `compensate` gets what exec took and returned, and undoes it where a later step fails for good. `durable=False`
    keeps nothing of it in a durable run, which runs it again whenever it is resumed. `on="process"` runs it in a worker
    process, which suits one that computes: it stands at the top level of a module, and takes and returns plain data.
    """

    def make(work: Work) -> FunctionNode[..., Any]:
        return FunctionNode(
            work,
            name=name,
            reads=reads,
            writes=writes,
            retry=retry,
            timeout=timeout,
            guard=guard,
            check=check,
            compensate=compensate,
            durable=durable,
            inline=inline,
            on=on,
        )

    return make if function is None else make(function)


def key_names(keys: Keys) -> tuple[str, ...]:
    return tuple(map(key_name, keys)) if isinstance(keys, tuple) else (key_name(keys),)


def awaited(function: Work, *, inline: bool = False) -> Callable[..., Awaitable[Any]]:
    """The function in async form: as it is, in a thread, or called in place."""
    if is_async(function):
        return function
    return _in_place(function) if inline else threaded(function)


def is_async(function: object) -> bool:
    """Whether calling it gives an awaitable: a coroutine function, a partial of one, an object whose call is one."""
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


def threaded(function: Work) -> Callable[..., Awaitable[Any]]:
    async def call(*args: object) -> Any:
        result = await call_in_thread(function, *args)
        return await result if inspect.isawaitable(result) else result  # `lambda item: search(item)` is sync, too

    return call


def in_process(work: Work, node: BaseNode) -> Callable[..., Awaitable[Any]]:
    """The work in a worker process, which has to find it there. Raises GraphError."""
    if node.runs_on != "process":
        raise GraphError(f'{node.name}: on is "process" or None, not {node.runs_on!r}')
    from agentflow.core.processes.pool import call_in_process  # multiprocessing is slow to import, and seldom needed

    check_travels(work, node.name)
    return functools.partial(call_in_process, work)


def _spread(work: Callable[..., Awaitable[Any]], count: int) -> Callable[[Any], Awaitable[Any]]:
    """Give a function of `count` arguments the one item that exec gets."""
    if count == 1:
        return work
    return (lambda items: work(*items)) if count else (lambda _: work())


def _in_place(function: Work) -> Callable[..., Awaitable[Any]]:
    async def call(*args: object) -> Any:
        result = function(*args)
        return await result if inspect.isawaitable(result) else result

    return call


def _on_view(phase: Work) -> Callable[..., Awaitable[Any]]:
    """Run a phase in a thread on a view, so that a late one cannot write into a state that has moved on."""

    async def call(state: SharedState, *args: object) -> Any:
        view = state.view()
        result = await call_in_thread(phase, view, *args)
        state.apply(view)
        return result

    return call


async def _action_of_result(state: SharedState, item: object, result: Any) -> Any:
    return result  # the walker refuses what is no action; an Each collects whatever it is


def _function_name(function: Work) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    return str(getattr(function, "__name__", type(function).__name__))


def _check_phases(cls: type, *, wants_async: bool) -> None:
    for phase in filter(cls.__dict__.__contains__, _PHASES):
        method = getattr(cls, phase)
        if wants_async and not is_async(inspect.unwrap(method)):  # a decorator's wrapper may be plain
            raise GraphError(f"{cls.__name__}.{phase} is a plain method: make it async, or derive from Node")
        if not wants_async and is_async(method):
            raise GraphError(f"{cls.__name__}.{phase} is async: make it a plain method, or derive from AsyncNode")


def _check_parameters(made: FunctionNode[P, R]) -> None:
    """Refuse a function that cannot take what it will be given."""
    if not callable(made.function):
        raise GraphError(f"@node makes a node of a function, not of {type(made.function).__name__} {made.function!r}")
    wanted = 1 if made.whole else len(made.inputs)
    try:
        signature = inspect.signature(made.function)
    except (TypeError, ValueError):  # a builtin without a signature: the call itself will tell
        return
    try:
        signature.bind(*[None] * wanted)
    except TypeError:
        given = "the state" if made.whole else f"{', '.join(made.inputs) or 'nothing'} (from reads=)"
        raise GraphError(f"{made.name}{signature} is called with {given}: {wanted} argument(s) do not fit") from None


def _declared(function: Work) -> frozenset[str] | None:
    """The actions that a return annotation lists: `Literal["a", "b"]`, None for "default"; None if it lists none."""
    names = getattr(inspect.unwrap(function), "__globals__", {})
    returned = getattr(function, "__annotations__", {}).get("return", Any)
    try:  # the return alone: the parameters' types are often imported for type checkers only
        hint = get_type_hints(types.SimpleNamespace(__annotations__={"return": returned}), names)["return"]
    except Exception:  # noqa: BLE001 - an annotation that cannot be evaluated declares nothing
        return None
    found: set[str] = set()
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    for option in options:
        if option is None or option is type(None):
            found.add(DEFAULT)
        elif get_origin(option) is Literal:
            found |= {DEFAULT if value is None else value for value in get_args(option)}
        else:
            return None
    return frozenset(found)
