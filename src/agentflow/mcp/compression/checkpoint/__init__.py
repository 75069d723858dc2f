"""Model folders in the layout of Hugging Face, read and written tensor by tensor."""

from agentflow.mcp.compression.checkpoint.reading import DECODERS, ENCODERS, Checkpoint, TensorFacts, matches
from agentflow.mcp.compression.checkpoint.writing import ShardWriter, copy_companions, writing

__all__ = [
    "DECODERS",
    "ENCODERS",
    "Checkpoint",
    "ShardWriter",
    "TensorFacts",
    "copy_companions",
    "matches",
    "writing",
]
