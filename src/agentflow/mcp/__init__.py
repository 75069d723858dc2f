"""Model Compression & Performance (not the Model Context Protocol): what makes model calls cheaper, faster, smaller.

performance     caching, batching
optimization    router, budget, cost, benchmark

The names below are resolved when first used: numpy, scikit-learn and matplotlib are loaded by what needs them.
"""
