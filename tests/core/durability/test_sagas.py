"""What a run has done is undone, in reverse order, when a later step has failed for good."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.memory_durability import MemoryDurability

from agentflow.core import AsyncFlow, AsyncNode, Each, Flow, Limits, Node, Parallel, SharedState, node
from agentflow.core.durability.step import current_step
from agentflow.core.node import FunctionNode
from agentflow.core.observability.events import ExecutionEvent
from agentflow.core.robustness.retry import RetryPolicy
from agentflow.core.saga import Deed, Saga
from agentflow.errors import DurabilityError, GraphError, NodeError


class World:
    """What was done and undone; names in `broken` fail, `-name` is an undoing."""

    def __init__(self) -> None:
        self.deeds: list[str] = []
        self.broken: set[str] = set()

    def does(self, deed: str) -> None:
        self.deeds.append(deed)
        if deed in self.broken:
            raise ValueError(f"{deed} is broken")

    def book(self, name: str, **options: Any) -> FunctionNode[..., Any]:
        async def work() -> str:
            self.does(name)
            return f"ticket for {name}"

        async def undo(item: object, ticket: str) -> None:
            assert ticket == f"ticket for {name}"
            self.does(f"-{name}")

        return node(name=name, writes=name, compensate=undo, **options)(work)

    def plain(self, name: str) -> FunctionNode[..., Any]:
        async def work() -> str:
            self.does(name)
            return name

        return node(name=name, writes=name)(work)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture(params=[False, True], ids=["not kept", "kept"])
def engine(request: pytest.FixtureRequest) -> MemoryDurability | None:
    return MemoryDurability() if request.param else None


async def test_what_was_done_is_undone_in_reverse_order(world: World, engine: MemoryDurability | None) -> None:
    flow = AsyncFlow(
        world.book("flight") >> world.plain("tell") >> world.book("hotel") >> world.plain("pay"), durability=engine
    )
    world.broken = {"pay"}

    with pytest.raises(NodeError, match="pay is broken"):
        await flow.run()

    assert world.deeds == ["flight", "tell", "hotel", "pay", "-hotel", "-flight"]


async def test_what_went_well_stays_done(world: World, engine: MemoryDurability | None) -> None:
    await AsyncFlow(world.book("flight") >> world.plain("pay"), durability=engine).run()

    assert world.deeds == ["flight", "pay"]


async def test_a_deed_whose_post_failed_was_done_as_well(world: World, engine: MemoryDurability | None) -> None:
    class Book(AsyncNode[str, str]):
        async def prep(self, state: SharedState) -> str:
            return "seat 7"

        async def exec(self, seat: str) -> str:
            world.does("book")
            return "ticket"

        async def post(self, state: SharedState, seat: str, ticket: str) -> None:
            raise ValueError("no room in the state")

        async def compensate(self, seat: str, ticket: str) -> None:
            world.does(f"-{seat} {ticket}")

    with pytest.raises(NodeError, match="no room"):
        await AsyncFlow(Book(), durability=engine).run()

    assert world.deeds == ["book", "-seat 7 ticket"]


async def test_deeds_of_branches_items_and_nested_flows_are_undone(
    world: World, engine: MemoryDurability | None
) -> None:
    class Call(AsyncNode[int, int]):
        async def exec(self, item: int) -> int:
            world.does(f"call {item}")
            return item

        async def compensate(self, item: int, result: int) -> None:
            world.does(f"-call {result}")

    inner = AsyncFlow(world.book("inside"), name="inner")
    flow = AsyncFlow(
        Parallel(world.book("a"), world.book("b"))
        >> Each(Call(), over="items", concurrency=1)
        >> inner
        >> world.plain("last"),
        durability=engine,
    )
    world.broken = {"last"}

    with pytest.raises(NodeError):
        await flow.run({"items": [1, 2]})

    assert world.deeds[-5:-2] == ["-inside", "-call 2", "-call 1"]
    assert sorted(world.deeds[-2:]) == ["-a", "-b"]


async def test_an_undoing_is_tried_again_as_its_node_is(world: World, engine: MemoryDurability | None) -> None:
    tried: list[int] = []

    @node(writes="x")
    async def last() -> None:
        raise ValueError("for good")

    async def undo(item: object, result: object) -> None:
        tried.append(1)
        if len(tried) < 3:
            raise ConnectionError("down")

    first = node(name="first", writes="y", compensate=undo, retry=RetryPolicy(max_attempts=3, base_delay=0.0))
    with pytest.raises(NodeError) as caught:
        await AsyncFlow(first(_nothing) >> last, durability=engine).run()

    assert len(tried) == 3
    assert not hasattr(caught.value, "__notes__")


async def _nothing() -> None: ...


async def test_one_that_cannot_be_undone_keeps_no_other_from_it(world: World, engine: MemoryDurability | None) -> None:
    flow = AsyncFlow(world.book("a") >> world.book("b") >> world.plain("c"), durability=engine)
    world.broken = {"c", "-b"}

    with pytest.raises(NodeError, match="c is broken") as caught:
        await flow.run()

    assert world.deeds == ["a", "b", "c", "-b", "-a"]
    assert "-b is broken" in caught.value.__notes__[0]
    assert [str(each) for each in caught.value.siblings] == ["flow/b#1 failed in exec: ValueError: -b is broken"]


async def test_a_failure_that_a_section_puts_up_with_undoes_nothing(
    world: World, engine: MemoryDurability | None
) -> None:
    flow = AsyncFlow(
        world.book("a") >> Parallel(world.plain("b"), world.plain("c"), need=1, on_error="collect"), durability=engine
    )
    world.broken = {"b"}

    assert (await flow.run()).status == "done"
    assert world.deeds.count("-a") == 0


def test_sync_nodes_undo_as_well(world: World) -> None:
    class Book(Node[None, str]):
        def exec(self, item: None) -> str:
            return "ticket"

        def compensate(self, item: None, ticket: str) -> None:
            world.does(f"-{ticket}")

    world.broken = {"pay"}
    with pytest.raises(NodeError):
        Flow(Book() >> world.plain("pay")).run()

    assert world.deeds == ["pay", "-ticket"]


def test_a_whole_lifecycle_function_has_no_exec_to_undo() -> None:
    with pytest.raises(GraphError, match="compensate="):

        @node(compensate=_undo)  # type: ignore[call-overload]  # which is the point
        async def whole(state: SharedState) -> None: ...


async def _undo(item: object, result: object) -> None: ...


# ---- kept ----------------------------------------------------------------------------------------------------


async def test_an_undoing_that_was_cut_off_is_gone_on_with(world: World) -> None:
    engine = MemoryDurability()
    flow = AsyncFlow(
        world.book("a") >> world.book("b") >> world.book("c") >> world.plain("pay") >> world.plain("never"),
        durability=engine,
    )
    world.broken = {"pay", "-b"}
    with pytest.raises(NodeError):
        await flow.run(run_id="r")
    world.broken = set()
    world.deeds.clear()

    with pytest.raises(NodeError, match="pay is broken"):
        await flow.resume("r")

    assert world.deeds == ["-b"]  # neither pay nor what follows it is tried: the run is being undone
    world.deeds.clear()
    with pytest.raises(NodeError, match="pay is broken"):
        await flow.resume("r")
    assert world.deeds == []
    assert [step.status for step in await flow.history("r")][-3:] == ["undone", "undone", "undone"]


async def test_a_deed_whose_exec_is_kept_and_whose_post_never_ran_is_undone(world: World) -> None:
    engine = MemoryDurability()

    class Book(AsyncNode[str, str]):
        async def prep(self, state: SharedState) -> str:
            return "seat"

        async def exec(self, item: str) -> str:
            world.does("book")
            return "ticket"

        async def post(self, state: SharedState, item: str, result: str) -> None:
            world.does("post")

        async def compensate(self, item: str, result: str) -> None:
            world.does(f"-{item}")

    flow = AsyncFlow(Book(), durability=engine)
    world.broken = {"post", "-seat"}
    with pytest.raises(NodeError):
        await flow.run(run_id="r")
    world.broken = set()
    world.deeds.clear()

    with pytest.raises(NodeError):
        await flow.resume("r")

    assert world.deeds == ["-seat"]


async def test_a_run_that_could_not_be_kept_is_not_undone(world: World) -> None:
    engine = MemoryDurability()

    async def at_once(record: object) -> None: ...

    async def full(record: object) -> None:
        if getattr(record, "id", "") == "flow/b#1":
            raise DurabilityError("the disk is full")

    flow = AsyncFlow(world.book("a") >> world.book("b"), durability=engine)
    engine.before = full
    with pytest.raises(DurabilityError):
        await flow.run(run_id="r")
    engine.before = at_once

    assert (await flow.resume("r")).status == "done"
    assert world.deeds == ["a", "b", "b"]


async def test_what_undoing_asks_of_models_is_kept_in_a_step_of_its_own(world: World) -> None:
    engine = MemoryDurability()
    paths: list[str] = []

    async def undo(item: object, result: object) -> None:
        step = current_step.get()
        assert step is not None
        paths.append(step.path)

    @node(writes="a", compensate=undo)
    async def a() -> int:
        return 1

    world.broken = {"b"}
    with pytest.raises(NodeError):
        await AsyncFlow(a >> world.plain("b"), durability=engine).run(run_id="r", limits=Limits(requests=1))

    assert paths == ["flow/a#1!undo"]


async def test_whoever_watches_is_told_of_each_undoing(world: World) -> None:
    told: list[tuple[str, str]] = []

    class Watch:
        inline = True

        def observe(self, event: ExecutionEvent) -> None:
            told.append((event.kind, event.path))

    flow = AsyncFlow(world.book("a") >> world.book("b") >> world.plain("c"))
    world.broken = {"c", "-a"}
    with pytest.raises(NodeError):
        await flow.run(observers=[Watch()])

    assert told[-5:] == [
        ("compensate_start", "flow/b#1"),
        ("compensate_success", "flow/b#1"),
        ("compensate_start", "flow/a#1"),
        ("compensate_error", "flow/a#1"),
        ("flow_error", "flow"),
    ]


async def test_a_deed_that_cannot_be_stored_must_be(world: World) -> None:
    """The command line puts up with what cannot be stored, but not where it may have to be undone."""
    engine = MemoryDurability()

    async def undo(item: object, result: object) -> None:
        world.does("-a")

    @node(writes="a", compensate=undo)
    async def a() -> object:
        return object()

    flow = AsyncFlow(world.book("b") >> a, durability=engine)
    flow.strict = False

    with pytest.raises(NodeError, match="cannot be stored"):
        await flow.run()

    assert world.deeds == ["b", "-a", "-b"]


def test_a_deed_that_is_not_kept_stays_behind_the_one_it_was_done_after() -> None:
    saga = Saga()
    for path in ("car", "flight", "hotel"):
        saga.add(Deed(path, _nothing))

    saga.arrange(["hotel", "car"])
    assert saga.order == ["hotel", "car", "flight"]
