"""Who answers for an entry that is no model itself: nobody, so that a router has something to stand around."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NoReturn

from agentflow.errors import ConfigurationError
from agentflow.llm.config.model import ROUTER
from agentflow.llm.messages import Request, Response, StreamChunk

__all__ = ["Nobody"]


class Nobody:
    """A provider that is never asked, unless nothing was put around it."""

    name = ROUTER

    async def execute(self, request: Request) -> Response:
        """Raises ConfigurationError."""
        _nobody(request)

    def execute_streaming(self, request: Request) -> AsyncIterator[StreamChunk]:
        """Raises ConfigurationError."""
        _nobody(request)

    async def aclose(self) -> None:
        """There is nothing to close."""


def _nobody(request: Request) -> NoReturn:
    raise ConfigurationError(f"{request.model!r} is a router, and no model itself: ask it through a client")
