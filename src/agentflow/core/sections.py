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
from agentflow.core.parking import Parked
from agentflow.core.run import Frame, Join, Step, walk
from agentflow.core.state import SharedState
from agentflow.core.tasks import raise_first, run_together
from agentflow.errors import AgentFlowError, InputError, JoinError, StateError

__all__ = ["DataflowRun", "ParallelRun"]


class ParallelRun:
    """Runs the branches of a `Parallel` and joins them."""

    kept = False  # what is inside is kept, and how it was joined

    def __init__(self, section: Parallel, branches: Sequence[tuple[str, Step]], inside: Sequence[Step]) -> None:
        self._section = section
        self._branches = branches
        self._inside = inside
        self._tolerant = section.on_error == "collect"
        self._chooses = self._tolerant or section.need is not None

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
        section, keeper = self._section, place.frame.run.keeper
        views = [state.view() for _ in self._branches]
        join = None if keeper is None or not self._chooses else keeper.joined(place.path)
        if join is None:
            join = await self._race(views, place)
            if keeper is not None and self._chooses:
                await keeper.join(place.path, join)
        else:
            await self._again(join, views, place)
        state.join([(self._branches[index][0], views[index]) for index in join.winners])
        if section.errors is not None:
            state[section.errors] = list(join.failures)

    async def _race(self, views: Sequence[SharedState], place: Place) -> Join:
        """All branches at the same time, and which of them count. Raises what failed, JoinError, Parked."""
        section, frame = self._section, place.frame
        outcome = await run_together(
            [walk(step, view, frame) for (_, step), view in zip(self._branches, views, strict=True)],
            enough=section.need,
            tolerate=self._tolerant,
        )
        won, need = len(outcome.winners), section.need or 1
        if outcome.failures and not self._tolerant and won != section.need:
            raise_first(outcome.failures)
        if outcome.parked and won != section.need and won + len(outcome.parked) >= need:
            raise Parked.together(outcome.parked)
        if won < need:
            raise JoinError(place.path, need, outcome.failures) from outcome.failures[0]
        failures = [collected(error, place) for error in outcome.failures]
        known = () if frame.keeper is None else self._inside
        return Join(sorted(outcome.winners), failures, {step.name: frame.visits[step.index] for step in known})

    async def _again(self, join: Join, views: Sequence[SharedState], place: Place) -> None:
        """The branches that counted, as they were; those that did not are counted as visited all the same."""
        frame = place.frame
        outcome = await run_together([walk(self._branches[index][1], views[index], frame) for index in join.winners])
        if outcome.failures:
            raise_first(outcome.failures)
        if outcome.parked:
            raise Parked.together(outcome.parked)
        for step in self._inside:
            missing = max(0, join.visits.get(step.name, 0) - frame.visits[step.index])
            frame.visits[step.index] += missing
            frame.steps += missing


class DataflowRun:
    """Runs the nodes of a `Dataflow`, each as soon as what it reads has been written."""

    kept = False  # what is inside is kept

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
                if earlier not in views:
                    raise Parked  # what it reads will be written by a later stretch of the run
            try:
                views[node] = await self._run_node(node, state, views, frame)
            except Parked:
                written[node].set()
                raise
            written[node].set()

        outcome = await run_together([run(node) for node in self._section.nodes])
        if outcome.failures:
            raise_first(outcome.failures)
        if outcome.parked:
            raise Parked.together(outcome.parked)
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
        place, keeper = Place(frame, node.name, frame.visits[step.index]), frame.run.keeper
        forked = () if keeper is None else keeper.updated(place.path)
        if problem := _undeclared(node, view.own_writes().difference(forked)):
            blame(StateError(problem), "post", place)
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
