"""What is really in a written model, tensor by tensor: read from its files, whatever their names and settings claim."""

from agentflow.mcp.compression.export.readback.folder import tensors_of

__all__ = ["tensors_of"]
