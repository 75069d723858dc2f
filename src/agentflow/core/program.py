"""A flow as it is run: its graph compiled into steps, walked as a whole run, as a node, or for one item of an `Each`.

Graph ──Program──▶ steps, connected ──FlowRun──▶ walk(start, state, frame) ──▶ the last action
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from agentflow.core.graph import Dataflow, End, Graph, Parallel, Vertex
from agentflow.core.lifecycle import Executable, Place, failure_data, opened_in, remarked_in, told_to
from agentflow.core.node import BaseNode
from agentflow.core.observability.scope import Scope, current_scope, scope_within, step_out
from agentflow.core.parking import Parked
from agentflow.core.robustness.operation import Operation
from agentflow.core.robustness.pipeline import Pipeline
from agentflow.core.run import Frame, Redo, Run, Step, walk
from agentflow.core.schema import Validator
from agentflow.core.sections import DataflowRun, ParallelRun
from agentflow.core.state import SharedState
from agentflow.core.undoing import undo_all
from agentflow.errors import GraphError, InputError, StateError

__all__ = ["FlowRun", "Program", "Scoping"]


@dataclass(frozen=True, slots=True)
class Scoping:
    """Which names of a nested flow's own state meet which of its parent's: receiving name → giving name."""

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


class Program:
    """The graph of a flow, compiled: one step a vertex, connected."""

    def __init__(self, graph: Graph) -> None:
        self.steps = {vertex: Step(index, vertex.name) for index, vertex in enumerate(graph.vertices())}
        self.size = len(self.steps)
        self.start = self.steps[graph.start]
        self.works: dict[str, Executable] = {}
        """What stands in its nodes, by their names."""
        for vertex, step in self.steps.items():
            work = self._work(vertex, graph)
            step.visit, step.kept = work.visit, work.kept
            if not isinstance(work, ParallelRun | DataflowRun):
                self.works[vertex.name] = work
            targets = graph.edges[vertex]
            step.connect({name: self._step(target) for name, target in targets.items()})

    def _step(self, target: Vertex | End) -> Step | None:
        return None if isinstance(target, End) else self.steps[target]

    def _inside(self, section: Parallel, graph: Graph) -> list[Step]:
        """The steps of all its branches, those of sections within it included."""
        found: list[Step] = []
        for region in graph.branches[section]:
            for vertex in region.vertices:
                found.append(self.steps[vertex])
                if isinstance(vertex, Parallel):
                    found += self._inside(vertex, graph)
                elif isinstance(vertex, Dataflow):
                    found += [self.steps[node] for node in vertex.nodes]
        return found

    def _work(self, vertex: Vertex, graph: Graph) -> Executable | ParallelRun | DataflowRun:
        if isinstance(vertex, Parallel):
            branches = [(region.start.name, self.steps[region.start]) for region in graph.branches[vertex]]
            return ParallelRun(vertex, branches, self._inside(vertex, graph))
        if isinstance(vertex, Dataflow):
            return DataflowRun(vertex, {node: self.steps[node] for node in vertex.nodes})
        if isinstance(vertex, BaseNode):
            return vertex.executable()
        raise GraphError(f"{vertex.name} is a {type(vertex).__name__}, which has no work to do")


class FlowRun:
    """Runs a flow: as a whole run, as a node of another flow, or for one item of an Each."""

    kept = False  # its steps are kept

    def __init__(
        self,
        name: str,
        program: Program,
        max_steps: int,
        schema: Validator | None,
        scope: Scoping | None,
        guard: Pipeline | None,
    ) -> None:
        self._guard = guard
        self._name = name
        self._program = program
        self._max_steps = max_steps
        self._schema = schema
        self._scope = scope

    async def visit(self, state: SharedState, frame: Frame, number: int) -> str | None:
        return await self._nested(state, Place(frame, self._name, number))

    async def collect(self, item: object, state: SharedState, place: Place) -> object:
        return await self._nested(state, place)

    async def _nested(self, state: SharedState, place: Place) -> str:
        run = place.frame.run
        if self._scope is None:
            return await self.run(state, run, place.path, place.number)
        missing = [outer for outer in self._scope.inputs.values() if outer not in state]
        if missing:
            raise InputError(f"{place.path} takes {missing[0]!r}, which the state lacks", field=missing[0])
        inner = state.apart({own: state[outer] for own, outer in self._scope.inputs.items()})
        action = await self.run(inner, run, place.path, place.number)
        for outer, own in self._scope.outputs.items():
            if own not in inner:
                raise StateError(f"{place.path} gives {own!r} to {outer!r}, but did not write it")
            state[outer] = inner[own]
        return action

    def redo_at(self, place: Place, below: Sequence[str]) -> Redo | None:
        return self._redo_in(Frame(place.frame.run, self._name, place.path, 0, self._max_steps), below)

    def _redo_in(self, frame: Frame, below: Sequence[str]) -> Redo | None:
        name, _, number = below[0].rpartition("#") if below else ("", "", "")
        work = self._program.works.get(name)
        return None if work is None else work.redo_at(Place(frame, name, int(number)), below[1:])

    async def run(self, state: SharedState, run: Run, path: str, number: int, *, whole: bool = False) -> str:
        """Walk the flow in `state`. As a `whole` run, its input may hold nothing but what the schema names, and what it
        has done is undone where it fails."""
        frame = Frame(run, self._name, path, self._program.size, self._max_steps)
        walking = self._whole if whole else self._guarded
        if run.channel is None:
            return await walking(state, frame, None)
        scope = scope_within(run.channel, path, self._name, number, own="unattributed")
        nested = {} if run.tenant is None else {"tenant": run.tenant}
        start = run.origin if scope.outer is None else nested
        try:
            await scope.begin("flow_start", start)
            token = current_scope.set(scope)
            try:
                if whole and run.keeper is not None and (news := run.keeper.news()) is not None:
                    await scope.send(*news)
                action = await walking(state, frame, scope)
            finally:
                step_out(token)
        except Exception as error:
            await scope.end("flow_error", failure_data(error))
            raise
        except Parked:
            scope.leave("flow_interrupted")
            raise
        except BaseException:
            scope.leave("flow_cancelled")
            raise
        await scope.end("flow_success", {"action": action})
        return action

    async def _whole(self, state: SharedState, frame: Frame, scope: Scope | None) -> str:
        run = frame.run
        undoing = None if run.keeper is None else run.keeper.undoing  # since an earlier stretch
        try:
            action = await self._guarded(state, frame, scope, exact=True)
        except Exception as error:
            await undo_all(run, error, partial(self._redo_in, frame))
            raise
        except Parked:
            if undoing is None:
                raise
        else:
            if undoing is None:
                return action
        await undo_all(run, undoing, partial(self._redo_in, frame))
        raise undoing

    async def _guarded(self, state: SharedState, frame: Frame, scope: Scope | None, *, exact: bool = False) -> str:
        guard, run = self._guard, frame.run
        if guard is None:
            return await self._walk(state, frame, exact)
        tell = None if scope is None else told_to(scope)
        remark = None if scope is None else remarked_in(scope)
        operation = Operation(guard.deadline(), tenant=run.tenant, clock=run.clock, tell=tell, remark=remark)
        opening = guard.open if scope is None else partial(opened_in, scope, guard)
        try:
            held = await opening(lambda: self._walk(state, frame, exact), operation)
            held.succeed()
            return held.value
        finally:
            operation.deadline.close()

    async def _walk(self, state: SharedState, frame: Frame, exact: bool) -> str:
        self._check(state, exact)
        action = await walk(self._program.start, state, frame)
        await frame.run.count(frame.steps)
        return action

    def _check(self, state: SharedState, exact: bool) -> None:
        if self._schema is None:
            return
        given = state.snapshot()
        try:
            checked = self._schema.validate(given, partial=not exact)
        except InputError:
            raise
        except Exception as error:
            raise InputError(f"{self._name} refuses its input: {error}") from error
        for name, value in checked.items():
            if name not in given or given[name] is not value:
                state[name] = value
