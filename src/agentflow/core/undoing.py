"""The undoing of a run that has failed for good: what its steps have done is compensated, and watchers are told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeAlias

from agentflow.core.lifecycle import failure_data
from agentflow.core.observability.scope import current_scope, scope_within, step_out
from agentflow.core.run import Redo, Run
from agentflow.core.saga import Deed
from agentflow.errors import DurabilityError, NodeError, describe

__all__ = ["undo_all"]


Find: TypeAlias = Callable[[Sequence[str]], "Redo | None"]
"""Where in a flow a step stands, by its path below the flow, and how it is told what exec has done there."""


async def undo_all(run: Run, error: Exception, find: Find) -> None:
    """Undo what the run has done, because of `error`, which is told what could not be undone.

    A run that merely could not be kept has not failed for good: it can go on, and nothing of it is undone.
    """
    if isinstance(error, DurabilityError):
        return
    if run.keeper is not None:
        _remember(run, run.keeper.deeds(), find)
    if run.saga is None:
        return
    if run.keeper is not None:
        await run.keeper.give_up(error)
    failures = await run.saga.undo(partial(_told, run))
    for failure in failures:
        error.add_note(f"what was done could not be undone: {describe(failure)}")
    if failures and isinstance(error, NodeError):
        error.siblings += tuple(failures)


def _remember(run: Run, deeds: Mapping[str, tuple[object, object]], find: Find) -> None:
    """Earlier stretches have done something as well, also in branches and items that did not count, which are not
    walked again."""
    known = frozenset() if run.saga is None else frozenset(run.saga.order)
    for path, (item, result) in deeds.items():
        redo = None if path in known else find(path.split("/")[1:])
        if redo is not None:
            redo(item, result)
    if run.saga is not None:
        run.saga.arrange(list(deeds))


async def _told(run: Run, deed: Deed) -> None:
    if run.channel is None:
        return await _undone(run, deed)
    last = deed.path.rpartition("/")[2]
    name, _, number = last.partition("#")
    scope = scope_within(run.channel, deed.path, name, int(number) if number.isdecimal() else 1)
    await scope.begin("compensate_start")
    token = current_scope.set(scope)
    try:
        await _undone(run, deed)
    except Exception as error:
        await scope.end("compensate_error", failure_data(error))
        raise
    except BaseException:
        scope.leave("compensate_cancelled")
        raise
    finally:
        step_out(token)
    await scope.end("compensate_success")


async def _undone(run: Run, deed: Deed) -> None:
    if run.keeper is None:
        await deed.undo()
    else:
        await run.keeper.undo(deed)
