"""Functions as tools: their schema, their call, and who runs the calls of an answer."""

from agentflow.llm.tools.function import FunctionTool, function_tool, result_content
from agentflow.llm.tools.toolbox import Approve, Toolbox, toolbox

__all__ = ["Approve", "FunctionTool", "Toolbox", "function_tool", "result_content", "toolbox"]
