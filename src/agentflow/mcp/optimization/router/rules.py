r"""What is decided by rule, before anything learned is asked: the first rule that fits says which models may answer.

    Rule("large", tenant="acme")
    Rule("large", text=r"(?i)\b(contract|lawsuit)\b")
    Rule(("small", "medium"), shorter=200, tools=False)        the policy chooses between these two

A rule is a law: where none of its models may answer, the request fails, and is not sent elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from agentflow.errors import ConfigurationError
from agentflow.llm.messages import Request
from agentflow.mcp.optimization.router.demands import Demands

__all__ = ["Rule", "first_match"]


@dataclass(frozen=True, slots=True)
class Rule:
    """`use` is a model, or several among which the router goes on choosing. All conditions must hold; without any, the
    rule always does.

    `text` is a regular expression, looked for in the user's last turn. `longer` and `shorter` are tokens of the whole
    prompt, estimated: at least so many, less than so many. `metadata` must be among the request's. `tools` says whether
    there are tools. `tenant` and `flow` are who asks. Raises ConfigurationError for an expression that is none.
    """

    use: str | tuple[str, ...]
    tenant: str | tuple[str, ...] = ()
    flow: str | tuple[str, ...] = ()
    text: str | None = None
    longer: int | None = None
    shorter: int | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    tools: bool | None = None
    name: str = ""
    _pattern: re.Pattern[str] | None = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        if not self.models:
            raise ConfigurationError("a rule names at least one model in `use`")
        try:
            pattern = None if self.text is None else re.compile(self.text)
        except re.error as error:
            raise ConfigurationError(f"a rule's `text` {self.text!r} is no regular expression: {error}") from error
        object.__setattr__(self, "_pattern", pattern)

    @property
    def models(self) -> tuple[str, ...]:
        return _several(self.use)

    def holds(self, request: Request, asked: Demands, *, tenant: str | None, flow: str | None) -> bool:
        """Whether it is about this request."""
        return (
            (not self.tenant or tenant in _several(self.tenant))
            and (not self.flow or flow in _several(self.flow))
            and (self.tools is None or self.tools == bool(request.tools))
            and (self.longer is None or asked.input_tokens >= self.longer)
            and (self.shorter is None or asked.input_tokens < self.shorter)
            and all(request.metadata.get(key) == value for key, value in self.metadata.items())
            and (self._pattern is None or self._pattern.search(asked.text) is not None)
        )


def first_match(
    rules: tuple[Rule, ...], request: Request, asked: Demands, *, tenant: str | None, flow: str | None
) -> tuple[int, Rule] | None:
    """The first rule that holds, and its number from 1."""
    for number, rule in enumerate(rules, 1):
        if rule.holds(request, asked, tenant=tenant, flow=flow):
            return number, rule
    return None


def _several(names: str | tuple[str, ...]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names
