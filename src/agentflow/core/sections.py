"""How parallel sections run: each branch on its own view of the state, joined at the end.

         ┌─ view ─ branch ─┐
state ───┼─ view ─ branch ─┼── join: all conflicts found, then all writes applied, in branch order
         └─ view ─ branch ─┘
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from agentflow.core.graph import Dataflow, Parallel, Vertex
from agentflow.core.lifecycle import Place, blame, collected
from agentflow.core.run import Frame, Step, walk
from agentflow.core.state import SharedState
from agentflow.core.tasks import raise_first, run_together
from agentflow.errors import AgentFlowError, InputError, JoinError, StateError

__all__ = ["DataflowRun", "ParallelRun"]


class ParallelRun:
    """Runs the branches of a `Parallel` and joins them."""

    def __init__(self, section: Parallel, branches: Sequence[tuple[str, Step]]) -> None:
        self._section = section
        self._branches = branches
        self._tolerant = section.on_error == "collect"

    async def visit(self, state: SharedState, frame: Frame, number: int) -> str | None:
        place = Place(frame, self._section.name, number)
        try:
            await self._run(state, place)
        except AgentFlowError:
            raise
        except Exception as error:  # noqa: BLE001 - a branch that cancelled itself, a failing reducer; blame raises
            blame(error, "join", place)
        return None

    async def _run(self, state: SharedState, place: Place) -> None:
        section, frame = self._section, place.frame
        views = [state.view() for _ in self._branches]
        outcome = await run_together(
            [walk(step, view, frame) for (_, step), view in zip(self._branches, views, strict=True)],
            enough=section.need,
            tolerate=self._tolerant,
        )
        won, need = len(outcome.winners), section.need or 1
        if outcome.failures and not self._tolerant and won != section.need:
            raise_first(outcome.failures)
        if won < need:
            raise JoinError(place.path, need, outcome.failures) from outcome.failures[0]
        state.join([(self._branches[index][0], views[index]) for index in sorted(outcome.winners)])
        if section.errors is not None:
            state[section.errors] = [collected(error, place) for error in outcome.failures]


class DataflowRun:
    """Runs the nodes of a `Dataflow`, each as soon as what it reads has been written."""

    def __init__(self, section: Dataflow, steps: Mapping[Vertex, Step]) -> None:
        self._section = section
        self._steps = steps

    async def visit(self, state: SharedState, frame: Frame, number: int) -> str | None:
        self._check_inputs(state, frame)
        written = {node: asyncio.Event() for node in self._section.nodes}
        views: dict[Vertex, SharedState] = {}

        async def run(node: Vertex) -> None:
            for earlier in self._section.needs[node]:
                await written[earlier].wait()
            views[node] = await self._run_node(node, state, views, frame)
            written[node].set()

        outcome = await run_together([run(node) for node in self._section.nodes])
        if outcome.failures:
            raise_first(outcome.failures)
        for node in self._section.nodes:
            state.apply(views[node])
        return None

    async def _run_node(
        self, node: Vertex, state: SharedState, views: Mapping[Vertex, SharedState], frame: Frame
    ) -> SharedState:
        """The node's view, holding what it wrote. It sees what it declares to read, and the state at the entrance."""
        writer = self._section.writer
        read = {key: views[writer[key]][key] for key in node.keys_read() if key in writer}
        view = state.view(read).view()
        step = self._steps[node]
        await walk(step, view, frame)
        if problem := _undeclared(node, view.own_writes()):
            blame(StateError(problem), "post", Place(frame, node.name, frame.visits[step.index]))
        return view

    def _check_inputs(self, state: SharedState, frame: Frame) -> None:
        for node in self._section.nodes:
            for key in node.keys_read():
                if key not in self._section.writer and key not in state:
                    problem = f"{node.name} reads {key!r}, which no node of the section writes and the state lacks"
                    raise InputError(f"{frame.path}/{self._section.name}: {problem}", field=key)


def _undeclared(node: Vertex, wrote: frozenset[str]) -> str | None:
    """What is wrong with what a node wrote: others wait for exactly what it declares."""
    declared = frozenset(node.keys_written())
    if extra := wrote - declared:
        return f"it wrote {', '.join(map(repr, sorted(extra)))}, which its writes= does not declare"
    if absent := declared - wrote:
        return f"it did not write {', '.join(map(repr, sorted(absent)))}, which its writes= declares"
    return None
