"""What compression makes: a folder with a manifest that says what was lost.

Names alone: each is resolved when first used, because making an artifact needs PyTorch and reading one does not.
"""

from importlib import import_module

TYPE_CHECKING = False  # as in the face of the package
if TYPE_CHECKING:
    from agentflow.mcp.compression.artifact.artifact import Artifact
    from agentflow.mcp.compression.artifact.assembling import assemble, format_of, installed_versions, source_of
    from agentflow.mcp.compression.artifact.comparing import Comparison, compare
    from agentflow.mcp.compression.artifact.gate import Gate
    from agentflow.mcp.compression.artifact.manifest import Manifest

__all__ = [
    "Artifact",
    "Comparison",
    "Gate",
    "Manifest",
    "assemble",
    "compare",
    "format_of",
    "installed_versions",
    "source_of",
]

_HOMES = {
    "artifact": "Artifact",
    "assembling": "assemble format_of installed_versions source_of",
    "comparing": "Comparison compare",
    "gate": "Gate",
    "manifest": "Manifest",
}
_HOME_OF = {name: f"{__name__}.{home}" for home, names in _HOMES.items() for name in names.split()}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in _HOME_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_HOME_OF[name]), name)
        return value
