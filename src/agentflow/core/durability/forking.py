"""A new run that goes off from the middle of another: which step is meant, and what is changed as that one finds it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

from agentflow.clock import Clock
from agentflow.core.durability.bodies import writes_body
from agentflow.core.durability.fitting import fitting, found
from agentflow.core.durability.performing import Performer, performed, terms_of
from agentflow.core.durability.protocol import Durability
from agentflow.core.durability.records import Record, RunInfo
from agentflow.core.observability.audit.seat import current_audit
from agentflow.core.observability.scope import Reader
from agentflow.core.result import FlowResult
from agentflow.core.run import new_run_id
from agentflow.core.state import Inputs, Writes, key_name
from agentflow.core.terms import Terms
from agentflow.errors import DurabilityError

__all__ = ["forked"]


async def forked(
    flow: Performer,
    engine: Durability,
    run_id: str,
    at: str,
    update: Inputs | None,
    terms: Terms,
    reader: Reader | None = None,
) -> FlowResult:
    """A new run that has done what the other had done before its step `at`, and goes on from there."""
    info = await fitting(flow, engine, await found(flow, engine, run_id), None)
    first, path = _step_named(at, info, await engine.records(info.run_id))
    new = terms.run_id or new_run_id()
    source = flow.source or info.spec.source
    spec = replace(info.spec, run_id=new, forked_from=info.run_id, forked_at=first, source=source)
    if current_audit() is not None:
        from agentflow.core.auditing import run_forked

        await run_forked(flow.name, new, spec.tenant, source=info.run_id, at=path)
    await engine.fork(spec, _update(path, update, flow.clock))
    return await performed(flow, engine, spec, terms_of(spec, terms), reader)


def _step_named(at: str, info: RunInfo, records: Sequence[Record]) -> tuple[str, str]:
    """The first record that belongs to a step, and the step's whole path. `write#2`, or `write` for its first visit,
    are enough where no other step ends so."""
    paths = list(dict.fromkeys(path for record in records if (path := record.id.partition("!")[0])))
    around = list(dict.fromkeys("/".join(path.split("/")[:depth]) for path in paths for depth in _depths(path)))
    exact = [path for path in around if path == at]
    near = exact or [path for path in around if path.endswith((f"/{at}", f"/{at}#1"))]
    if len(near) != 1:
        which = f"single step {at!r}: several end so: {', '.join(near[:5])}"
        none = f"step {at!r}: its steps are {', '.join(paths[-5:])}"
        raise DurabilityError(f"run {info.run_id} has no {which if near else none}", run_id=info.run_id)
    inside = (f"{near[0]}/", f"{near[0]}!")
    first = next(record.id for record in records if record.id == near[0] or record.id.startswith(inside))
    return first, near[0]


def _depths(path: str) -> range:
    """Where a path may be cut off so that a step is left: nested flows, sections and Eachs are steps, too."""
    return range(2, path.count("/") + 2)


def _update(path: str, update: Inputs | None, clock: Clock) -> Record | None:
    if update is None:
        return None
    if "#" not in path.rpartition("/")[2]:
        raise DurabilityError(f"{path} is an item, which sees no state: fork at the step within it, or at its Each")
    values: dict[str, object] = {key_name(cast("Any", key)): value for key, value in update.items()}
    return Record(f"{path}!update", "update", writes_body(Writes(values)), clock.time())
