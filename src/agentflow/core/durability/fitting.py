"""Whether a run and a flow fit together: the same name, the same graph, or a migration from the one to the other."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace

from agentflow.core.durability.changes import Migration, changes, moved, moved_id
from agentflow.core.durability.performing import Performer, graph_of
from agentflow.core.durability.protocol import Durability
from agentflow.core.durability.records import RunInfo, RunSpec
from agentflow.errors import DurabilityError, FlowChangedError, UnknownRunError

__all__ = ["fitting", "found", "refuse_changes"]


async def found(flow: Performer, engine: Durability, run_id: str) -> RunInfo:
    info = await engine.find(run_id)
    if info.spec.flow != flow.name:
        raise DurabilityError(
            f"run {info.run_id} is one of the flow {info.spec.flow!r}, not of {flow.name!r}", run_id=info.run_id
        )
    return info


async def fitting(flow: Performer, engine: Durability, info: RunInfo, migrate: Migration | None) -> RunInfo:
    """The run, if the flow is the one that it began with, or `migrate` says how the one becomes the other."""
    graph = graph_of(flow)
    if info.spec.graph == graph:
        return info
    different = changes(json.loads(info.spec.graph), json.loads(graph))
    if not different:
        return info
    if migrate is None:
        raise FlowChangedError(info.run_id, different)
    spec = replace(info.spec, graph=graph)
    await engine.rewrite(spec, moved(await engine.records(info.run_id), migrate))
    named = [(question, moved_id(question.id, migrate)) for question in info.interrupts]
    return replace(
        info, spec=spec, interrupts=tuple(replace(question, id=id) for question, id in named if id is not None)
    )


async def refuse_changes(engine: Durability, spec: RunSpec) -> None:
    """Raises FlowChangedError where there is such a run already, of another flow by this name."""
    with suppress(UnknownRunError):
        info = await engine.find(spec.run_id)
        if (info.run_id, info.spec.flow) != (spec.run_id, spec.flow):
            return  # the beginning of its id alone; or the engine says that it is another run
        different = changes(json.loads(info.spec.graph), json.loads(spec.graph))
        if different:
            raise FlowChangedError(info.run_id, different)
