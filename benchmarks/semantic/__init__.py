"""Questions for the semantic tier, and their replay; `benchmarks/semantic_cache.py` measures, the tests prove."""
