"""What a dear model has answered, as texts to teach a small one with."""

from agentflow.mcp.compression.distillation.recorded.answers import RecordedAnswer, Turn, read_answers, write_answers
from agentflow.mcp.compression.distillation.recorded.consent import Consent, may_train
from agentflow.mcp.compression.distillation.recorded.gathering import Selection
from agentflow.mcp.compression.distillation.recorded.personal import Scrubber
from agentflow.mcp.compression.distillation.recorded.preparing import Prepared, prepare
from agentflow.mcp.compression.distillation.recorded.report import Report

__all__ = [
    "Consent",
    "Prepared",
    "RecordedAnswer",
    "Report",
    "Scrubber",
    "Selection",
    "Turn",
    "may_train",
    "prepare",
    "read_answers",
    "write_answers",
]
