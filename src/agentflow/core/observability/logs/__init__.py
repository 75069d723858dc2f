"""Standard logging that knows which run it is in: set up, written as lines, and fed with what runs do."""

from agentflow.core.observability.logs.lines import JsonLines, TextLines
from agentflow.core.observability.logs.run_log import RunLog
from agentflow.core.observability.logs.setup import BindScope, configure_logging

__all__ = ["BindScope", "JsonLines", "RunLog", "TextLines", "configure_logging"]
