"""What an artifact has kept of its source, and what it costs to run: quality, speed, size, measured.

Names alone: each is resolved when first used, so that the process which times a start loads nothing but what it needs.
`loaders` and `machine` are not among them: they are called as their modules are.
"""

from importlib import import_module

TYPE_CHECKING = False  # as in the face of the package
if TYPE_CHECKING:
    from agentflow.mcp.compression.measurement.encoders import labels_said, vectors_said
    from agentflow.mcp.compression.measurement.examples import Examples
    from agentflow.mcp.compression.measurement.measuring import (
        measure,
        measure_classifier,
        measure_embedder,
        measure_source,
        quality_in,
    )
    from agentflow.mcp.compression.measurement.reference import Reference
    from agentflow.mcp.compression.measurement.source_model import SourceModel
    from agentflow.mcp.compression.measurement.speed import SpeedPlan, try_out

__all__ = [
    "Examples",
    "Reference",
    "SourceModel",
    "SpeedPlan",
    "labels_said",
    "measure",
    "measure_classifier",
    "measure_embedder",
    "measure_source",
    "quality_in",
    "try_out",
    "vectors_said",
]

_HOMES = {
    "encoders": "labels_said vectors_said",
    "examples": "Examples",
    "measuring": "measure measure_classifier measure_embedder measure_source quality_in",
    "reference": "Reference",
    "source_model": "SourceModel",
    "speed": "SpeedPlan try_out",
}
_HOME_OF = {name: f"{__name__}.{home}" for home, names in _HOMES.items() for name in names.split()}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in _HOME_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_HOME_OF[name]), name)
        return value
