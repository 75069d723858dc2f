"""What it means that one request of a batch has failed: the same errors as of a direct call."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from agentflow.errors import ModelError
from agentflow.llm.providers.api import decoded
from agentflow.llm.providers.batches.endpoint import BatchAnswer
from agentflow.llm.providers.failures import Source, wire_error

__all__ = ["failure_of"]

_ANY: Final[msgspec.json.Decoder[Any]] = msgspec.json.Decoder()


def failure_of(answer: BatchAnswer, source: Source) -> ModelError:
    """The error that an answer with the outcome `failed` stands for."""
    return wire_error(decoded(_ANY, answer.body, source), source, status=answer.status)
