"""Runs in a file: RunStore records them, RunReader reads them while that goes on.

Names alone: each is resolved when first used, because durable runs need the file and none of what is recorded in it.
"""

from importlib import import_module

TYPE_CHECKING = False  # as in the face of the package
if TYPE_CHECKING:
    from agentflow.core.observability.store.records import CostRow, Feedback, LossRecord, Outcome, RunRecord
    from agentflow.core.observability.store.run_reader import Following, RunReader
    from agentflow.core.observability.store.run_store import DEFAULT_PATH, RunStore

__all__ = [
    "DEFAULT_PATH",
    "CostRow",
    "Feedback",
    "Following",
    "LossRecord",
    "Outcome",
    "RunReader",
    "RunRecord",
    "RunStore",
]

_HOMES = {
    "records": "CostRow Feedback LossRecord Outcome RunRecord",
    "run_reader": "Following RunReader",
    "run_store": "DEFAULT_PATH RunStore",
}
_HOME_OF = {name: f"{__name__}.{home}" for home, names in _HOMES.items() for name in names.split()}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in _HOME_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(_HOME_OF[name]), name)
        globals()[name] = value
        return value
