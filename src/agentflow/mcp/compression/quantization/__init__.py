"""Fewer bits a weight: RTN, GPTQ, AWQ, HQQ, SmoothQuant, and bits by sensitivity."""
