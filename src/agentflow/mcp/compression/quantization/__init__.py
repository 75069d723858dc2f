"""Fewer bits a weight: RTN, GPTQ, AWQ, HQQ, SmoothQuant, and bits by sensitivity."""

from agentflow.mcp.compression.quantization.packed import QuantizedWeight, read_quantized
from agentflow.mcp.compression.quantization.stage import quantize

__all__ = ["QuantizedWeight", "quantize", "read_quantized"]
