"""What went wrong with PostgreSQL or DBOS, in words that say what to do, and without any that may hold a secret.

    explained(error, "postgresql://db/runs")  ──▶  DurabilityError("postgresql://db/runs cannot be used: …")

The error itself is its cause. Kinds of errors and the codes of PostgreSQL decide, never texts.
"""

from __future__ import annotations

from agentflow.errors import AgentFlowError, DurabilityError, RunEndedError, RunHeldError

__all__ = ["explained"]

_FOREIGN = ("dbos", "sqlalchemy", "psycopg")


def explained(error: BaseException, where: str, run_id: str | None = None) -> BaseException:
    """The same as an error of ours, where it comes from DBOS, SQLAlchemy or psycopg; others stay what they are."""
    if isinstance(error, AgentFlowError) or type(error).__module__.partition(".")[0] not in _FOREIGN:
        return error
    made = _meant(error, where, run_id)
    made.__cause__ = error
    return made


def _meant(error: BaseException, where: str, run_id: str | None) -> DurabilityError:
    from dbos import error as kinds

    if isinstance(error, kinds.DBOSWorkflowCancelledError | kinds.DBOSAwaitedWorkflowCancelledError):
        return RunEndedError(run_id or "", "cancelled", "was cancelled")
    if isinstance(error, kinds.DBOSWorkflowConflictIDError):
        return RunHeldError(run_id or "", "another process, which took it over")
    return DurabilityError(f"{where} cannot be used ({_reason(error)}): see the cause of this error", run_id=run_id)


def _reason(error: BaseException) -> str:
    driver = getattr(error, "orig", None) or error
    code = getattr(driver, "sqlstate", None)
    return f"{type(driver).__name__}, SQLSTATE {code}" if code else type(driver).__name__
