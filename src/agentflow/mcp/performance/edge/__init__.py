"""A model on this machine, called like any other.

Names alone: each is resolved when first used, for what runs a model comes with extras.
"""

from importlib import import_module

TYPE_CHECKING = False  # as in the face of the package
if TYPE_CHECKING:
    from agentflow.mcp.performance.edge.deployment import EdgeDeployment
    from agentflow.mcp.performance.edge.opening import open_embedder, open_labeller, open_runtime
    from agentflow.mcp.performance.edge.provider import EdgeProvider
    from agentflow.mcp.performance.edge.runtime import Decoding, Embedder, Labeller, Runtime
    from agentflow.mcp.performance.edge.tokenizer import EdgeTokenizer

__all__ = [
    "Decoding",
    "EdgeDeployment",
    "EdgeProvider",
    "EdgeTokenizer",
    "Embedder",
    "Labeller",
    "Runtime",
    "open_embedder",
    "open_labeller",
    "open_runtime",
]

_HOMES = {
    "deployment": "EdgeDeployment",
    "opening": "open_embedder open_labeller open_runtime",
    "provider": "EdgeProvider",
    "runtime": "Decoding Embedder Labeller Runtime",
    "tokenizer": "EdgeTokenizer",
}
_HOME_OF = {name: f"{__name__}.{home}" for home, names in _HOMES.items() for name in names.split()}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in _HOME_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_HOME_OF[name]), name)
        return value
