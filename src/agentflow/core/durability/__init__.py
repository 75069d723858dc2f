"""What survives a crash: runs whose every step is kept, so that they go on where they were.

Names alone: each is resolved when first used, so that a flow that is not durable loads none of it.
"""

from importlib import import_module

TYPE_CHECKING = False  # as in the face of the package
if TYPE_CHECKING:
    from agentflow.core.durability.history import CallHistory, StepHistory
    from agentflow.core.durability.interrupts import interrupt, interrupt_blocking
    from agentflow.core.durability.protocol import Body, Durability, Journal
    from agentflow.core.durability.records import Ending, Interrupt, Record, RunInfo, RunSpec
    from agentflow.core.durability.sqlite import SqliteDurability
    from agentflow.core.durability.timers import sleep
    from agentflow.core.durability.values import storable

__all__ = [
    "Body",
    "CallHistory",
    "Durability",
    "Ending",
    "Interrupt",
    "Journal",
    "Record",
    "RunInfo",
    "RunSpec",
    "SqliteDurability",
    "StepHistory",
    "interrupt",
    "interrupt_blocking",
    "sleep",
    "storable",
]

_HOMES = {
    "history": "CallHistory StepHistory",
    "interrupts": "interrupt interrupt_blocking",
    "protocol": "Body Durability Journal",
    "records": "Ending Interrupt Record RunInfo RunSpec",
    "sqlite": "SqliteDurability",
    "timers": "sleep",
    "values": "storable",
}
_HOME_OF = {name: f"{__name__}.{home}" for home, names in _HOMES.items() for name in names.split()}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in _HOME_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(_HOME_OF[name]), name)
        globals()[name] = value
        return value
