"""The engines that `flow_overhead.py` compares, each building the same four shapes out of the same no-op nodes.

    chain      a >> b >> c >> …
    loop       a >> b, and back to a until b has counted far enough in the state
    map        one node over many items, results in a list
    branches   many nodes at once, then a join

An engine's library is imported when the engine is made, so that those which are installed can run without the others.
"""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Annotated, Any, Protocol, TypedDict

Run = Callable[[], Awaitable[None]]


class Counter:
    """What all nodes of all engines do: count that they ran."""

    def __init__(self) -> None:
        self.count = 0


ran = Counter()


class Engine(Protocol):
    """Builds each shape once; the returned function runs it once. None: the engine has no such shape."""

    name: str

    def chain(self, size: int) -> Run: ...
    def loop(self, size: int) -> Run: ...
    def map(self, size: int) -> Run: ...
    def branches(self, size: int) -> Run | None: ...


# ---- the engines -------------------------------------------------------------------------------------------------


class Bare:
    name = "asyncio"

    def chain(self, size: int) -> Run:
        nodes = [_BareNode() for _ in range(size)]
        for node, following in pairwise(nodes):
            node.edges[None] = following

        async def run() -> None:
            await _walk_bare(nodes[0], {})

        return run

    def loop(self, size: int) -> Run:
        first, second = _BareNode(), _BareCounting(size // 2)
        first.edges[None] = second
        second.edges["again"] = first

        async def run() -> None:
            await _walk_bare(first, {"n": 0})

        return run

    def map(self, size: int) -> Run:
        async def run() -> None:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(double(item)) for item in range(size)]
            assert [task.result() for task in tasks] == list(range(0, 2 * size, 2))

        return run

    def branches(self, size: int) -> Run:
        async def run() -> None:
            async with asyncio.TaskGroup() as group:
                for _ in range(size):
                    group.create_task(count())

        return run


async def double(item: int) -> int:
    ran.count += 1
    return 2 * item


async def count() -> None:
    ran.count += 1


class _BareNode:
    def __init__(self) -> None:
        self.edges: dict[str | None, _BareNode] = {}

    async def prep(self, state: dict[str, int]) -> None:
        return None

    async def exec(self, item: None) -> None:
        ran.count += 1

    async def post(self, state: dict[str, int], item: None, result: None) -> str | None:
        return None


class _BareCounting(_BareNode):
    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit

    async def post(self, state: dict[str, int], item: None, result: None) -> str | None:
        state["n"] = n = state["n"] + 1
        return "again" if n < self.limit else "stop"


async def _walk_bare(node: _BareNode | None, state: dict[str, int]) -> None:
    while node is not None:
        item = await node.prep(state)
        result = await node.exec(item)
        node = node.edges.get(await node.post(state, item, result))


class OurEngine:
    """AgentFlow, with the concurrency of `Each` either as it comes or as wide as the list."""

    name = "AgentFlow"

    def __init__(self) -> None:
        from agentflow.core import END, AsyncFlow, AsyncNode

        class Step(AsyncNode[None, None]):
            async def prep(self, state: Any) -> None:
                return None

            async def exec(self, item: None) -> None:
                ran.count += 1

            async def post(self, state: Any, item: None, result: None) -> None:
                return None

        class Counting(Step):
            limit = 0

            async def post(self, state: Any, item: None, result: None) -> str:  # type: ignore[override] # an action
                state["n"] = n = state["n"] + 1
                return "again" if n < self.limit else "stop"

        self._step, self._counting, self._end, self._flow = Step, Counting, END, AsyncFlow

    def chain(self, size: int) -> Run:
        path: Any = self._step(name="n0")
        for number_ in range(1, size):
            path = path >> self._step(name=f"n{number_}")
        return self._runs(self._flow(path))

    def loop(self, size: int) -> Run:
        first, second = self._step(name="first"), self._counting(name="second")
        second.limit = size // 2
        return self._runs(self._flow(first >> second.on("again") >> first, second.on("stop") >> self._end), n=0)

    def map(self, size: int) -> Run:
        from agentflow.core import AsyncFlow, Each

        flow = AsyncFlow(Each(double, over="items", into="doubled", concurrency=self._concurrency(size), name="each"))

        async def run() -> None:
            result = await flow.run({"items": list(range(size))})
            assert result.state["doubled"] == list(range(0, 2 * size, 2))

        return run

    def branches(self, size: int) -> Run | None:
        from agentflow.core import AsyncFlow, AsyncNode, Parallel

        class Branch(AsyncNode[None, None]):
            async def exec(self, item: None) -> None:
                ran.count += 1

        return self._runs(AsyncFlow(Parallel(*(Branch(name=f"n{number_}") for number_ in range(size)), name="all")))

    def _concurrency(self, size: int) -> int:
        return size

    def _runs(self, flow: Any, **state: int) -> Run:
        async def run() -> None:
            await flow.run(dict(state))

        return run


class OurEngineAsItComes(OurEngine):
    name = "AgentFlow, 64 at once"

    def _concurrency(self, size: int) -> int:
        return 64


class PocketFlow:
    name = "PocketFlow"

    def __init__(self) -> None:
        import pocketflow

        class Step(pocketflow.AsyncNode):
            async def prep_async(self, shared: Any) -> None:
                return None

            async def exec_async(self, item: Any) -> None:
                ran.count += 1

            async def post_async(self, shared: Any, item: Any, result: Any) -> str | None:
                return None

        class Counting(Step):
            limit = 0

            async def post_async(self, shared: Any, item: Any, result: Any) -> str:
                shared["n"] = n = shared["n"] + 1
                return "again" if n < self.limit else "stop"

        class Map(pocketflow.AsyncParallelBatchNode):
            async def prep_async(self, shared: Any) -> Any:
                return shared["items"]

            async def exec_async(self, item: int) -> int:
                return await double(item)

            async def post_async(self, shared: Any, item: Any, result: Any) -> None:
                shared["doubled"] = result

        self._pocketflow, self._step, self._counting, self._map = pocketflow, Step, Counting, Map

    def chain(self, size: int) -> Run:
        nodes = [self._step() for _ in range(size)]
        for node, following in pairwise(nodes):
            node >> following
        return self._runs(nodes[0])

    def loop(self, size: int) -> Run:
        first, second, last = self._step(), self._counting(), self._pocketflow.AsyncNode()
        second.limit = size // 2
        first >> second
        second - "again" >> first
        second - "stop" >> last
        return self._runs(first, n=0)

    def map(self, size: int) -> Run:
        flow = self._pocketflow.AsyncFlow(start=self._map())

        async def run() -> None:
            shared: dict[str, Any] = {"items": list(range(size))}
            await flow.run_async(shared)
            assert shared["doubled"] == list(range(0, 2 * size, 2))

        return run

    def branches(self, size: int) -> Run | None:
        return None  # its batch node maps over data; it has no parallel branches

    def _runs(self, start: Any, **state: int) -> Run:
        flow = self._pocketflow.AsyncFlow(start=start)

        async def run() -> None:
            await flow.run_async(dict(state))

        return run


class LangGraph:
    name = "LangGraph"

    class State(TypedDict):
        n: int
        doubled: Annotated[list[int], operator.add]

    def chain(self, size: int) -> Run:
        from langgraph.graph import END, START, StateGraph

        graph: Any = StateGraph(self.State)
        names = [f"n{number_}" for number_ in range(size)]
        for name in names:
            graph.add_node(name, self._step)
        for source, target in zip([START, *names], [*names, END], strict=True):
            graph.add_edge(source, target)
        return self._runs(graph, size)

    def loop(self, size: int) -> Run:
        from langgraph.graph import END, START, StateGraph

        async def counting(state: LangGraph.State) -> dict[str, int]:
            ran.count += 1
            return {"n": state["n"] + 1}

        def following(state: LangGraph.State) -> str:
            return "first" if state["n"] < size // 2 else END

        graph: Any = StateGraph(self.State)
        graph.add_node("first", self._step)
        graph.add_node("second", counting)
        graph.add_edge(START, "first")
        graph.add_edge("first", "second")
        graph.add_conditional_edges("second", following, ["first", END])
        return self._runs(graph, size)

    def map(self, size: int) -> Run:
        from langgraph.graph import END, START, StateGraph
        from langgraph.types import Send

        async def work(item: int) -> dict[str, list[int]]:
            return {"doubled": [await double(item)]}

        def fan_out(state: LangGraph.State) -> list[Any]:
            return [Send("work", item) for item in range(size)]

        graph: Any = StateGraph(self.State)
        graph.add_node("work", work)
        graph.add_conditional_edges(START, fan_out, ["work"])
        graph.add_edge("work", END)
        compiled = graph.compile()

        async def run() -> None:
            state = await compiled.ainvoke({"n": 0, "doubled": []})
            assert state["doubled"] == list(range(0, 2 * size, 2))

        return run

    def branches(self, size: int) -> Run:
        from langgraph.graph import END, START, StateGraph

        graph: Any = StateGraph(self.State)
        for number_ in range(size):
            graph.add_node(f"n{number_}", self._step)
            graph.add_edge(START, f"n{number_}")
            graph.add_edge(f"n{number_}", END)
        return self._runs(graph, size)

    @staticmethod
    async def _step(state: LangGraph.State) -> dict[str, int]:
        ran.count += 1
        return {}

    def _runs(self, graph: Any, size: int) -> Run:
        compiled = graph.compile()

        async def run() -> None:
            await compiled.ainvoke({"n": 0, "doubled": []}, {"recursion_limit": size + 10})

        return run


class PydanticGraph:
    name = "pydantic-graph"

    def chain(self, size: int) -> Run:
        builder = self._builder()
        steps = [builder.step(_pydantic_step, node_id=f"n{number_}") for number_ in range(size)]
        for source, target in zip([builder.start_node, *steps], [*steps, builder.end_node], strict=True):
            builder.add(builder.edge_from(source).to(target))
        return self._runs(builder)

    def loop(self, size: int) -> Run:
        async def counting(context: Any) -> str:
            ran.count += 1
            context.state["n"] = n = context.state["n"] + 1
            return "again" if n < size // 2 else "stop"

        builder = self._builder()
        first = builder.step(_pydantic_step, node_id="first")
        second = builder.step(counting, node_id="second")
        decision = builder.decision()
        decision = decision.branch(builder.match(str, matches=lambda word: word == "again").to(first))
        decision = decision.branch(builder.match(str, matches=lambda word: word == "stop").to(builder.end_node))
        for source, target in ((builder.start_node, first), (first, second), (second, decision)):
            builder.add(builder.edge_from(source).to(target))
        return self._runs(builder, n=0)

    def map(self, size: int) -> Run:
        import pydantic_graph

        async def items(context: Any) -> list[int]:
            return list(range(size))

        async def work(context: Any) -> int:
            return await double(context.inputs)

        builder = self._builder()
        source, each = builder.step(items, node_id="items"), builder.step(work, node_id="work")
        join = builder.join(pydantic_graph.reduce_list_append, initial_factory=list)
        builder.add(builder.edge_from(builder.start_node).to(source))
        builder.add(builder.edge_from(source).map().to(each))
        builder.add(builder.edge_from(each).to(join))
        builder.add(builder.edge_from(join).to(builder.end_node))
        graph = builder.build()

        async def run() -> None:
            assert sorted(await graph.run(state={})) == list(range(0, 2 * size, 2))

        return run

    def branches(self, size: int) -> Run:
        import pydantic_graph

        builder = self._builder()
        steps = [builder.step(_pydantic_step, node_id=f"n{number_}") for number_ in range(size)]
        join = builder.join(pydantic_graph.reduce_null, initial=None)
        builder.add(builder.edge_from(builder.start_node).to(*steps))
        builder.add(builder.edge_from(*steps).to(join))
        builder.add(builder.edge_from(join).to(builder.end_node))
        return self._runs(builder)

    def _builder(self) -> Any:
        import pydantic_graph

        return pydantic_graph.GraphBuilder(state_type=dict, output_type=object)

    def _runs(self, builder: Any, **state: int) -> Run:
        graph = builder.build()

        async def run() -> None:
            await graph.run(state=dict(state))

        return run


async def _pydantic_step(context: Any) -> None:
    ran.count += 1


ENGINES: dict[str, tuple[type[Any], str]] = {
    "agentflow": (OurEngine, "agentflow"),
    "agentflow-64": (OurEngineAsItComes, "agentflow"),
    "asyncio": (Bare, "asyncio"),
    "pocketflow": (PocketFlow, "pocketflow"),
    "pydantic-graph": (PydanticGraph, "pydantic_graph"),
    "langgraph": (LangGraph, "langgraph"),
}
"""By the name on the command line: what builds its shapes, and the module it needs."""
