"""What may be cached: decided from the question before the cache is asked, and from the answer before it is kept.

    policy.refuses(request, mode)  ──▶  None, or why the question is not for the cache
    policy.spurns(response)        ──▶  None, or why the answer is not kept

Every reason is one word, and stands in the event and in the statistics.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from msgspec import Struct

from agentflow.llm.content import Raw
from agentflow.llm.messages import Request, Response
from agentflow.mcp.performance.caching.canonical import has_address
from agentflow.mcp.performance.caching.wishes import Mode

__all__ = ["Policy", "Temperature", "Tools"]

Temperature: TypeAlias = Literal["zero", "any"]
Tools: TypeAlias = Literal["never", "unused", "always"]

_TOOL_PARAMS: Final = ("tools", "functions", "tool_choice", "mcp_servers", "web_search_options", "plugins")


class Policy(Struct, frozen=True):
    """`temperature` "zero" caches what is asked at temperature 0, "any" everything: then one answer of many possible
    ones is given again. `default_temperature` is what holds where a request says nothing.

    `tools` is about requests that offer tools, because what an answer makes happen would not happen again: "never"
    caches none of them, "unused" those whose answer calls no tool, "always" all of them. A tool that the provider runs
    itself (`Raw`, a web search) is only cached with "always". `addresses` allows questions about what stands at an
    address, which may change while the question does not.
    """

    temperature: Temperature = "zero"
    default_temperature: float | None = None
    tools: Tools = "never"
    addresses: bool = False

    def refuses(self, request: Request, mode: Mode) -> str | None:
        """Why this question is not for the cache."""
        if mode == "off":
            return "bypass"
        if self.temperature == "zero" and mode == "usual" and self._heat(request) != 0:
            return "temperature"
        if self._offers_tools(request):
            return "tools"
        if not self.addresses and has_address(request):
            return "address"
        return None

    def spurns(self, answer: Response) -> str | None:
        """Why this answer is not kept: only a whole one that ended by itself is."""
        reasons = (answer.finish_reason, *[other.finish_reason for other in answer.alternatives])
        for reason in reasons:
            if reason == "tool_calls":
                if self.tools != "always":
                    return "tool_calls"
            elif reason != "stop":
                return reason or "unfinished"
        if answer.tool_calls and self.tools != "always":
            return "tool_calls"
        return None if answer.parts else "empty"

    def _heat(self, request: Request) -> object:
        """The temperature that counts; what stands in `params` wins, as it does on the wire."""
        if "temperature" in request.params:
            return request.params["temperature"]
        return self.default_temperature if request.temperature is None else request.temperature

    def _offers_tools(self, request: Request) -> bool:
        if self.tools == "always":
            return False
        hosted = any(name in request.params for name in _TOOL_PARAMS) if request.params else False
        if self.tools == "never":
            return hosted or bool(request.tools)
        return hosted or any(isinstance(tool, Raw) for tool in request.tools)
