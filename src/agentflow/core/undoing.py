"""The undoing of a run that has failed for good: what its steps have done is compensated, and watchers are told."""

from __future__ import annotations

from functools import partial

from agentflow.core.lifecycle import failure_data
from agentflow.core.observability.scope import current_scope, scope_within, step_out
from agentflow.core.run import Run
from agentflow.core.saga import Deed
from agentflow.errors import DurabilityError, NodeError, describe

__all__ = ["undo_all"]


async def undo_all(run: Run, error: Exception) -> None:
    """Undo what the run has done, because of `error`, which is told what could not be undone.

    A run that merely could not be kept has not failed for good: it can go on, and nothing of it is undone.
    """
    if isinstance(error, DurabilityError) or not run.saga:
        return
    if run.keeper is not None:
        await run.keeper.give_up(error)
    failures = await run.saga.undo(partial(_told, run))
    for failure in failures:
        error.add_note(f"what was done could not be undone: {describe(failure)}")
    if failures and isinstance(error, NodeError):
        error.siblings += tuple(failures)


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
