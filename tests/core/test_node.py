"""Nodes in all their forms: classes with phases, functions, sync ones in threads; and what a failure says."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Literal

import pytest

from agentflow.core import (
    END,
    AsyncFlow,
    AsyncNode,
    BaseNode,
    Each,
    FunctionNode,
    Key,
    Node,
    RetryPolicy,
    SharedState,
    node,
)
from agentflow.errors import GraphError, NodeError, StateKeyError

if TYPE_CHECKING:
    from decimal import Decimal as NotThereAtRunTime

TOPIC, DRAFT, LENGTH = Key[str]("topic"), Key[str]("draft"), Key[int]("length")


async def run(vertex: BaseNode, **state: object) -> SharedState:
    return (await AsyncFlow(vertex).run(state)).state


# ---- the lifecycle


class Write(AsyncNode[str, str]):
    async def prep(self, state: SharedState) -> str:
        return state[TOPIC]

    async def exec(self, topic: str) -> str:
        return f"About {topic}."

    async def post(self, state: SharedState, topic: str, draft: str) -> str:
        state[DRAFT] = f"{topic}: {draft}"
        return "written"


class BlockingWrite(Node[str, str]):
    def prep(self, state: SharedState) -> str:
        return state[TOPIC]

    def exec(self, topic: str) -> str:
        return f"About {topic}."

    def post(self, state: SharedState, topic: str, draft: str) -> str:
        state[DRAFT] = f"{topic}: {draft}"
        return "written"


@pytest.mark.parametrize("kind", [Write, BlockingWrite])
async def test_prep_reads_exec_works_post_writes_and_returns_the_action(kind: type[BaseNode]) -> None:
    result = await AsyncFlow(kind()).run({"topic": "tides"})

    assert result.state[DRAFT] == "tides: About tides."
    assert result.action == "written"


@pytest.mark.parametrize("kind", [AsyncNode, Node])
async def test_a_node_without_phases_does_nothing_and_returns_default(kind: type[BaseNode]) -> None:
    result = await AsyncFlow(kind()).run({"a": 1})
    assert (result.state, result.action) == ({"a": 1}, "default")


async def test_a_class_needs_no_call_of_its_parents_init() -> None:
    class Put(AsyncNode[None, str]):
        def __init__(self, value: str) -> None:
            self.value = value

        async def exec(self, item: None) -> str:
            return self.value

        async def post(self, state: SharedState, item: None, result: str) -> None:
            state["put"] = result

    assert Put("x").name == "put"
    assert await run(Put("x")) == {"put": "x"}


def test_a_base_node_has_no_work_to_do() -> None:
    with pytest.raises(GraphError, match="derive from AsyncNode or Node"):
        AsyncFlow(BaseNode())


def test_a_sync_phase_in_an_async_node_is_refused_with_its_class() -> None:
    with pytest.raises(GraphError, match=r"Odd\.exec is a plain method: make it async, or derive from Node"):

        class Odd(AsyncNode[str, str]):
            def exec(self, item: str) -> str:  # type: ignore[override]  # on purpose
                return item


def test_an_async_phase_in_a_sync_node_is_refused_with_its_class() -> None:
    with pytest.raises(GraphError, match=r"Odd\.post is async: make it a plain method, or derive from AsyncNode"):

        class Odd(Node[str, str]):
            async def post(self, state: SharedState, item: str, result: str) -> str | None:  # type: ignore[override]
                return None


async def test_a_phase_may_be_static_or_decorated() -> None:
    def logged(function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        @functools.wraps(function)
        def call(*args: object) -> Awaitable[Any]:
            return function(*args)

        return call

    class Fetch(AsyncNode[None, str]):
        @staticmethod
        async def exec(item: None) -> str:  # type: ignore[override]  # without self
            return "fetched"

        @logged
        async def post(self, state: SharedState, item: None, result: str) -> None:
            state["got"] = result

    assert await run(Fetch()) == {"got": "fetched"}


# ---- function nodes that are exec


async def test_the_short_form_reads_its_argument_and_writes_its_result() -> None:
    @node(reads=TOPIC, writes=LENGTH)
    async def measure(topic: str) -> int:
        return len(topic)

    assert await run(measure, topic="tides") == {"topic": "tides", "length": 5}
    assert (measure.name, measure.keys_read(), measure.keys_written()) == ("measure", ("topic",), ("length",))


async def test_several_keys_arrive_as_several_arguments_and_leave_as_a_tuple() -> None:
    @node(reads=(TOPIC, "count"), writes=(DRAFT, "length"))
    async def write(topic: str, count: int) -> tuple[str, int]:
        return topic * count, len(topic) * count

    assert await run(write, topic="ab", count=2) == {"topic": "ab", "count": 2, "draft": "abab", "length": 4}


async def test_keys_are_given_as_key_or_str() -> None:
    @node(reads="topic", writes="draft")
    async def write(topic: str) -> str:
        return topic.upper()

    assert (await run(write, topic="x"))[DRAFT] == "X"


async def test_a_tuple_of_one_key_is_a_tuple_on_both_sides() -> None:
    @node(reads=("topic",), writes=("draft",))
    async def write(topic: str) -> tuple[str]:
        return (topic,)

    assert (await run(write, topic="x"))[DRAFT] == "x"


async def test_with_writes_alone_the_function_takes_nothing() -> None:
    @node(writes=TOPIC)
    async def choose() -> str:
        return "tides"

    assert await run(choose) == {"topic": "tides"}


async def test_with_reads_alone_the_result_is_the_action() -> None:
    @node(reads=TOPIC)
    async def route(topic: str) -> str:
        return f"to-{topic}"

    assert (await AsyncFlow(route).run({"topic": "a"})).action == "to-a"


@pytest.mark.parametrize("result", [("one",), ("one", 2, 3), ["one", 2], "on", None])
async def test_a_result_that_is_not_the_promised_tuple_is_refused(result: Any) -> None:
    @node(writes=(DRAFT, LENGTH))
    async def write() -> Any:
        return result

    with pytest.raises(NodeError, match="write writes 2 keys, so it returns a tuple of them") as caught:
        await run(write)
    assert caught.value.phase == "post"


async def test_a_key_that_is_not_there_fails_in_prep() -> None:
    @node(reads=TOPIC)
    async def read(topic: str) -> None: ...

    with pytest.raises(NodeError, match="the state has no 'topic'") as caught:
        await run(read)
    assert (caught.value.node, caught.value.phase) == ("flow/read#1", "prep")
    assert isinstance(caught.value.__cause__, StateKeyError)


# ---- function nodes that are the whole lifecycle


async def test_without_keys_the_function_gets_the_state_and_returns_the_action() -> None:
    @node
    async def judge(state: SharedState) -> Literal["accept", "rewrite"]:
        state["judged"] = True
        return "accept"

    result = await AsyncFlow(judge.on("accept") >> END).run()
    assert (result.action, result.state) == ("accept", {"judged": True})
    assert judge.actions() == {"accept", "rewrite"}


@pytest.mark.parametrize("parameters", ["bare", "called", "named"])
async def test_the_decorator_takes_options_or_none(parameters: str) -> None:
    async def put(state: SharedState) -> None:
        state["put"] = True

    made = {"bare": node, "called": node(), "named": node(name="other")}[parameters](put)  # type: ignore[operator]
    assert made.name == ("other" if parameters == "named" else "put")
    assert await run(made) == {"put": True}


def declared(function: Any) -> frozenset[str] | None:
    return node(function).actions()


Verdict = Literal["yes", "no"]


def test_declared_actions_are_read_from_the_return_annotation() -> None:
    async def alias(state: SharedState) -> Verdict: ...  # type: ignore[empty-body]
    async def optional(state: SharedState) -> Literal["again"] | None: ...
    async def nothing(state: SharedState) -> None: ...
    async def words(state: SharedState) -> str: ...  # type: ignore[empty-body]
    async def hidden(state: NotThereAtRunTime) -> Verdict: ...  # type: ignore[empty-body]
    async def unknown(state: SharedState) -> NotThereAtRunTime: ...  # type: ignore[empty-body]
    async def plain(state): ...  # type: ignore[no-untyped-def]

    assert declared(alias) == {"yes", "no"}
    assert declared(optional) == {"again", "default"}
    assert declared(nothing) == {"default"}
    assert declared(hidden) == {"yes", "no"}
    assert declared(words) is declared(unknown) is declared(plain) is None


def test_declared_actions_of_a_class_are_posts() -> None:
    class Judge(AsyncNode[str, str]):
        async def post(self, state: SharedState, item: str, result: str) -> Verdict:
            return "yes"

    assert Judge().actions() == {"yes", "no"}
    assert AsyncNode[str, str]().actions() == {"default"}
    assert Write().actions() is None


# ---- what cannot be a function node


def test_a_function_that_cannot_take_what_it_will_be_given_is_refused() -> None:
    async def none() -> None: ...
    async def one(a: object) -> None: ...
    async def two(a: object, b: object) -> None: ...
    async def keyword(*, a: object) -> None: ...

    for make in (
        lambda: node(none),
        lambda: node(two),
        lambda: node(reads=TOPIC)(two),  # type: ignore[arg-type]
        lambda: node(reads=("a", "b"))(one),
        lambda: node(writes=TOPIC)(one),  # type: ignore[arg-type]
        lambda: node(reads="a")(keyword),
    ):
        with pytest.raises(GraphError, match=r"argument\(s\) do not fit"):
            make()


async def test_defaults_and_stars_are_fine() -> None:
    @node(reads=("a", "b"), writes="c")
    async def total(*numbers: int) -> int:
        return sum(numbers)

    @node(reads="a", writes="d")
    async def scaled(number: int, factor: int = 10) -> int:
        return number * factor

    assert (await AsyncFlow(total >> scaled).run({"a": 1, "b": 2})).state == {"a": 1, "b": 2, "c": 3, "d": 10}


def test_what_is_no_function_is_refused() -> None:
    for wrong in (5, TOPIC, Write()):
        with pytest.raises(GraphError, match="@node makes a node of a function, not of"):
            node(wrong)  # type: ignore[call-overload]  # on purpose


def test_a_function_node_can_be_called_like_its_function() -> None:
    @node(reads=TOPIC, writes=LENGTH)
    def measure(topic: str) -> int:
        """How long it is."""
        return len(topic)

    assert measure("tides") == 5
    assert measure.__doc__ == "How long it is."
    assert repr(measure) == "<FunctionNode measure>"


def test_attributes_of_the_function_do_not_become_the_nodes() -> None:
    def work(state: SharedState) -> None: ...

    work.name = "other"  # type: ignore[attr-defined]
    work.timeout = -1.0  # type: ignore[attr-defined]
    made = node(work)

    assert (made.name, made.timeout) == ("work", None)


class Search:
    def __init__(self, site: str) -> None:
        self.site = site

    async def method(self, query: str) -> str:
        return f"{self.site}:{query}"

    async def __call__(self, query: str) -> str:
        return f"{self.site}:{query}"


async def test_anything_that_can_be_called_is_a_function() -> None:
    async def search(site: str, query: str) -> str:
        return f"{site}:{query}"

    async def answer(query: str) -> str:
        return await search("here", query)

    for function in (
        functools.partial(search, "here"),
        Search("here").method,
        Search("here"),
        lambda query: "here:" + query,
        lambda query: answer(query),
    ):
        made: FunctionNode[Any, Any] = node(reads="query", writes="found", name="search")(function)
        assert (await run(made, query="q"))["found"] == "here:q"


def test_a_function_nodes_name_is_its_functions() -> None:
    async def search(site: str, query: str) -> None: ...

    assert node(reads="q")(functools.partial(search, "here")).name == "search"
    assert node(reads="q")(Search("here")).name == "Search"


# ---- sync nodes run in threads


async def test_a_sync_function_runs_in_a_thread_and_an_inline_one_does_not() -> None:
    @node(writes="thread")
    def there() -> int:
        return threading.get_ident()

    @node(writes="inline", inline=True)
    def here() -> int:
        return threading.get_ident()

    state = (await AsyncFlow(there >> here).run()).state
    assert state["inline"] == threading.get_ident() != state["thread"]


async def test_all_phases_of_a_sync_node_run_in_threads() -> None:
    threads: list[int] = []

    class Watch(Node[None, None]):
        def prep(self, state: SharedState) -> None:
            threads.append(threading.get_ident())

        def exec(self, item: None) -> None:
            threads.append(threading.get_ident())
            raise ValueError("once")

        def fallback(self, item: None, error: Exception) -> None:
            threads.append(threading.get_ident())

        def post(self, state: SharedState, item: None, result: None) -> None:
            threads.append(threading.get_ident())

    await run(Watch())
    assert len(threads) == 4
    assert threading.get_ident() not in threads


async def test_sync_nodes_run_beside_each_other() -> None:
    meeting = threading.Barrier(2)

    def meet(name: str) -> BaseNode:
        @node(name=name)
        def wait(state: SharedState) -> None:
            meeting.wait(10)

        return wait

    await AsyncFlow((meet("a"), meet("b"))).run()


async def test_a_thread_sees_the_context_variables_of_its_run() -> None:
    import contextvars

    who: contextvars.ContextVar[str] = contextvars.ContextVar("who")
    who.set("me")

    @node(writes="who")
    def ask() -> str:
        return who.get()

    assert (await run(ask))["who"] == "me"


async def test_what_a_sync_function_writes_is_applied_when_it_returns() -> None:
    @node
    def put(state: SharedState) -> str:
        state["put"] = 1
        del state["gone"]
        return "done"

    result = await AsyncFlow(put).run({"gone": 1})
    assert (result.state, result.action) == ({"put": 1}, "done")


async def test_what_a_failing_sync_function_wrote_is_dropped() -> None:
    state = SharedState()

    @node
    def put(state: SharedState) -> str:
        state["put"] = 1
        raise ValueError("after writing")

    with pytest.raises(NodeError):
        await AsyncFlow(put).run(state)
    assert state == {}


async def test_what_a_late_sync_function_writes_is_dropped() -> None:
    state, started, release, finished = SharedState(), threading.Event(), threading.Event(), threading.Event()

    class Late(Node[None, None]):
        def prep(self, state: SharedState) -> None:
            started.set()
            release.wait(10)
            state["late"] = True
            finished.set()

    task = asyncio.ensure_future(AsyncFlow(Late()).run(state))
    while not started.is_set():
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    release.set()
    assert finished.wait(10)
    assert state == {}


# ---- what a failure says


def failing(phase: str, error: Exception, base: type[BaseNode]) -> BaseNode:
    async def fail(*_: object) -> None:
        raise error

    def fail_plainly(*_: object) -> None:
        raise error

    method = fail if base is AsyncNode else fail_plainly
    return type("Odd", (base,), {phase: method})(name="odd")  # type: ignore[no-any-return]


@pytest.mark.parametrize("base", [AsyncNode, Node])
@pytest.mark.parametrize("phase", ["prep", "exec", "post"])
async def test_a_node_error_chains_the_cause_and_says_path_phase_and_attempt(phase: str, base: type[BaseNode]) -> None:
    cause = ValueError("odd")
    inner = AsyncFlow(failing(phase, cause, base), name="inner")

    with pytest.raises(NodeError, match=f"^outer/inner#1/odd#1 failed in {phase}: ValueError: odd$") as caught:
        await AsyncFlow(inner, name="outer").run()
    error = caught.value
    assert (error.node, error.phase, error.attempt) == ("outer/inner#1/odd#1", phase, 1)
    assert error.__cause__ is cause


async def test_the_path_counts_visits() -> None:
    @node
    async def count(state: SharedState) -> str:
        state.modify("n", lambda n: int(str(n)) + 1)
        if state["n"] == 3:
            raise ValueError("third time")
        return "again"

    with pytest.raises(NodeError) as caught:
        await AsyncFlow(count.on("again") >> count, name="f").run({"n": 0})
    assert caught.value.node == "f/count#3"


async def test_a_node_error_of_a_flow_within_a_node_stays_its_cause() -> None:
    @node
    async def outer(state: SharedState) -> None:
        await AsyncFlow(failing("exec", ValueError("deep"), AsyncNode), name="own").run()

    with pytest.raises(NodeError) as caught:
        await AsyncFlow(outer, name="f").run()
    assert caught.value.node == "f/outer#1"
    assert isinstance(caught.value.__cause__, NodeError)
    assert caught.value.__cause__.node == "own/odd#1"


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_a_time_out_is_seconds_above_zero(timeout: float) -> None:
    for vertex in (
        Write(timeout=timeout),
        node(writes="x", timeout=timeout)(lambda: 1),
        Each(len, over="x", timeout=timeout),
    ):
        with pytest.raises(GraphError, match="timeout is seconds above 0"):
            AsyncFlow(vertex)


def test_options_come_from_the_class_or_the_argument() -> None:
    class Guarded(AsyncNode[str, str]):
        retry = RetryPolicy(max_attempts=5)
        timeout = 3.0

    assert (Guarded().retry, Guarded().timeout) == (RetryPolicy(max_attempts=5), 3.0)
    own = Guarded(retry=RetryPolicy(max_attempts=1), timeout=1.0)
    assert (own.retry, own.timeout) == (RetryPolicy(max_attempts=1), 1.0)
    assert Guarded().named("other").retry == RetryPolicy(max_attempts=5)
