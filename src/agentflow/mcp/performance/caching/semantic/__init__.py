"""A cache that knows questions asked in other words, and holds itself to a bound on being wrong: `VerifiedTier`.

The names below are resolved when first used: they need NumPy, `pip install 'agentflow-engine[learn]'`.
"""

from importlib import import_module

from agentflow.errors import MissingExtraError

TYPE_CHECKING = False  # type checkers take the name for true
if TYPE_CHECKING:
    from agentflow.mcp.performance.caching.semantic.embedding import LocalEmbedder, ModelEmbedder
    from agentflow.mcp.performance.caching.semantic.realm import SemanticStatistics
    from agentflow.mcp.performance.caching.semantic.sameness import SameBy, SameText, SameVector
    from agentflow.mcp.performance.caching.semantic.tier import VerifiedTier

__all__ = [
    "LocalEmbedder",
    "ModelEmbedder",
    "SameBy",
    "SameText",
    "SameVector",
    "SemanticStatistics",
    "VerifiedTier",
]

_HOMES = {
    "embedding": "LocalEmbedder ModelEmbedder",
    "realm": "SemanticStatistics",
    "sameness": "SameBy SameText SameVector",
    "tier": "VerifiedTier",
}
_HOME_OF = {name: f"{__name__}.{home}" for home, names in _HOMES.items() for name in names.split()}

if not TYPE_CHECKING:  # a type checker that saw __getattr__ would believe in every name

    def __getattr__(name: str) -> object:
        if name not in _HOME_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        try:
            home = import_module(_HOME_OF[name])
        except ModuleNotFoundError as error:
            if error.name is None or error.name.split(".")[0] != "numpy":
                raise
            raise MissingExtraError("a cache of meaning", "learn") from None
        value = globals()[name] = getattr(home, name)
        return value

    def __dir__() -> list[str]:
        return [*globals(), *__all__]
