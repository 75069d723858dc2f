"""What a training costs, counted the same for all: so that students can be compared at equal compute.

A token costs 2 operations a weight forwards and 4 more backwards (Kaplan et al., arXiv:2001.08361, section 2.1), and in
each layer 2 · length · width for attention that looks back. An embedding is looked up and costs nothing; a head counts.
"""

from __future__ import annotations

from dataclasses import dataclass

from agentflow.mcp.compression.checkpoint import Checkpoint

__all__ = ["Cost"]


@dataclass(frozen=True, slots=True)
class Cost:
    """Floating-point operations a token of one model, in texts of `length` tokens."""

    forward: float

    @classmethod
    def of(cls, checkpoint: Checkpoint, length: int) -> Cost:
        config = checkpoint.config
        looked_up = sum(each.count for name, each in checkpoint.tensors.items() if _is_looked_up(name))
        head = 0 if "lm_head.weight" in checkpoint.tensors or not checkpoint.is_decoder else looked_up  # tied
        attention = 2 * checkpoint.layers * length * int(config["hidden_size"])
        return cls(2.0 * (checkpoint.parameters - looked_up + head) + attention)

    @property
    def training(self) -> float:
        """Forwards and backwards."""
        return 3 * self.forward

    def distilling(self, teacher: Cost, *, on_policy: float = 0.0) -> float:
        """Of a student of this cost: the teacher reads each token, too, and the student writes a share of them."""
        return self.training + teacher.forward + on_policy * self.forward


def _is_looked_up(name: str) -> bool:
    return "embed_tokens" in name or ".embeddings." in f".{name}"
