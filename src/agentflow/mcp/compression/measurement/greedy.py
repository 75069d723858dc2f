"""What a model writes when it always takes the likeliest token, and how much of it is what another one writes.

Each model goes on from its own words, so one early difference counts for all that follows: this is how the answers of a
compressed model drift from the source's, which perplexity hides. An end-of-text token ends nothing here; both models
write equally many tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

from agentflow.mcp.performance.edge.runtime import Runtime

__all__ = ["agreement", "continuation"]


def continuation(runtime: Runtime, prompt: Sequence[int], tokens: int) -> tuple[int, ...]:
    """`tokens` ids after `prompt`."""
    written: list[int] = []
    decoding = runtime.open([prompt])
    try:
        while len(written) < tokens:
            if written:
                decoding.append([written[-1]])
            written.append(int(decoding.logits()[0].argmax()))
    finally:
        decoding.close()
    return tuple(written)


def agreement(ones: Sequence[Sequence[int]], others: Sequence[Sequence[int]]) -> float | None:
    """The share of places with the same token; None where there are none."""
    pairs = [pair for one, other in zip(ones, others, strict=True) for pair in zip(one, other, strict=True)]
    return sum(one == other for one, other in pairs) / len(pairs) if pairs else None
