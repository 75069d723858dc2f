"""Fewer bits a weight: RTN, GPTQ, AWQ, HQQ, SmoothQuant, and bits by sensitivity."""

from agentflow.mcp.compression.quantization.packed import QuantizedWeight, read_quantized

__all__ = ["QuantizedWeight", "read_quantized"]
