"""What compression is built on, and whether it is there: PyTorch in this process, others' programs in their own."""

from agentflow.mcp.compression.backends.llama_cpp import install_llama_cpp, llama_cpp_python
from agentflow.mcp.compression.backends.needs import needs_torch
from agentflow.mcp.compression.backends.worker import Command, run_worker

__all__ = ["Command", "install_llama_cpp", "llama_cpp_python", "needs_torch", "run_worker"]
