"""Model Compression & Performance (not the Model Context Protocol): what makes model calls cheaper, faster, smaller.

compression     quantise, prune, distil, export; the artifact and what was lost
performance     caching, batching, edge: a model on this machine, called like any other
optimization    router, budget, cost, benchmark

The names below are resolved when first used: PyTorch, numpy, scikit-learn and matplotlib are loaded by what needs them.
"""

from importlib import import_module

TYPE_CHECKING = False  # type checkers take the name for true; importing `typing` would be most of this import's cost
if TYPE_CHECKING:
    from agentflow.mcp.compression.artifact.artifact import Artifact
    from agentflow.mcp.compression.artifact.gate import Gate
    from agentflow.mcp.compression.artifact.manifest import Manifest
    from agentflow.mcp.compression.compress import compress
    from agentflow.mcp.compression.measurement.examples import Examples
    from agentflow.mcp.compression.recipe import (
        Distill,
        Export,
        Prune,
        Quantize,
        Recipe,
        Sparsify,
    )
    from agentflow.mcp.optimization.benchmark import (
        Benchmark,
        BenchmarkReport,
        Checker,
        Dataset,
        Objective,
        Trace,
    )
    from agentflow.mcp.optimization.budget import (
        AccountStatus,
        Allowance,
        Budget,
        BudgetedProvider,
        MemoryAccounts,
        SqliteAccounts,
    )
    from agentflow.mcp.optimization.cost import (
        CostOptimizer,
        PriceSnapshot,
        UsageLog,
    )
    from agentflow.mcp.optimization.router import (
        Canary,
        Candidate,
        Cascade,
        Decision,
        Exploration,
        ModelRouter,
        Rule,
    )
    from agentflow.mcp.performance.batching import (
        BatchingProvider,
        RequestBatcher,
    )
    from agentflow.mcp.performance.batching.jobs import (
        BatchJob,
        BatchPolicy,
        BatchResult,
        BatchStatus,
    )
    from agentflow.mcp.performance.caching import (
        CacheStatistics,
        ResponseCache,
        SemanticTier,
        SqliteStore,
    )
    from agentflow.mcp.performance.edge.deployment import EdgeDeployment
    from agentflow.mcp.performance.edge.folder import deploy

__all__ = [
    "AccountStatus",
    "Allowance",
    "Artifact",
    "BatchJob",
    "BatchPolicy",
    "BatchResult",
    "BatchStatus",
    "BatchingProvider",
    "Benchmark",
    "BenchmarkReport",
    "Budget",
    "BudgetedProvider",
    "CacheStatistics",
    "Canary",
    "Candidate",
    "Cascade",
    "Checker",
    "CostOptimizer",
    "Dataset",
    "Decision",
    "Distill",
    "EdgeDeployment",
    "Examples",
    "Exploration",
    "Export",
    "Gate",
    "Manifest",
    "MemoryAccounts",
    "ModelRouter",
    "Objective",
    "PriceSnapshot",
    "Prune",
    "Quantize",
    "Recipe",
    "RequestBatcher",
    "ResponseCache",
    "Rule",
    "SemanticTier",
    "Sparsify",
    "SqliteAccounts",
    "SqliteStore",
    "Trace",
    "UsageLog",
    "compress",
    "deploy",
]

_HOMES = {
    "compression.artifact.artifact": "Artifact",
    "compression.artifact.gate": "Gate",
    "compression.artifact.manifest": "Manifest",
    "compression.compress": "compress",
    "compression.measurement.examples": "Examples",
    "compression.recipe": "Distill Export Prune Quantize Recipe Sparsify",
    "optimization.benchmark": "Benchmark BenchmarkReport Checker Dataset Objective Trace",
    "optimization.budget": "AccountStatus Allowance Budget BudgetedProvider MemoryAccounts SqliteAccounts",
    "optimization.cost": "CostOptimizer PriceSnapshot UsageLog",
    "optimization.router": "Candidate Canary Cascade Decision Exploration ModelRouter Rule",
    "performance.batching": "BatchingProvider RequestBatcher",
    "performance.batching.jobs": "BatchJob BatchPolicy BatchResult BatchStatus",
    "performance.caching": "CacheStatistics ResponseCache SemanticTier SqliteStore",
    "performance.edge.deployment": "EdgeDeployment",
    "performance.edge.folder": "deploy",
}
_HOME_OF = {name: f"{__name__}.{home}" for home, names in _HOMES.items() for name in names.split()}

if not TYPE_CHECKING:  # a type checker that saw __getattr__ would believe in every name

    def __getattr__(name: str) -> object:
        if name not in _HOME_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_HOME_OF[name]), name)
        return value

    def __dir__() -> list[str]:
        return [*globals(), *__all__]
