"""A model call as a node: the state fills the prompt, the answer goes back into the state.

LLMNode("gpt-4o", prompt="Write about {topic}.", reads=TOPIC, writes=DRAFT)

state[TOPIC] ─▶ "Write about tides." ─▶ model ─▶ state[DRAFT]
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from inspect import isawaitable
from string import Formatter
from typing import TYPE_CHECKING, Any, cast

from agentflow.core.checking import Score
from agentflow.core.graph import DEFAULT
from agentflow.core.node import AsyncNode, Keys, key_names
from agentflow.core.observability.scope import chunks_wanted
from agentflow.core.robustness.pipeline import Pipeline
from agentflow.core.robustness.retry import RetryPolicy
from agentflow.core.state import Key, SharedState, key_name
from agentflow.errors import GraphError
from agentflow.llm.agentflow import AgentFlow
from agentflow.llm.builder import LLMClientBuilder

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    T = TypeVar("T", default=str)
else:
    from typing import TypeVar

    T = TypeVar("T")

__all__ = ["LLMNode"]


class LLMNode(AsyncNode[str, T]):
    """Asks a model and writes its answer under `writes`: its text, or what the builder's `output` says.

    `model` is a name, a builder (`AgentFlow.model("gpt-4o").tools(search)`), or None for the configured default.
    `prompt` holds `{names}` of keys; `reads` may list them, and is otherwise taken from the prompt. A doubled brace
    stands for itself, and braces within the values are left alone. While the run is watched the answer is streamed, so
    that its pieces appear as `chunk` events.

    `check` says how good an answer is, from 0 to 1, for whoever watches.

    The client repeats failed calls by itself (see models.yml); `retry` here takes the place of that: one layer alone
    repeats.

    Raises GraphError when prompt and `reads` disagree.
    """

    def __init__(
        self,
        model: str | LLMClientBuilder[T] | None = None,
        *,
        prompt: str,
        writes: Key[T] | str,
        reads: Keys | None = None,
        system: str | None = None,
        name: str | None = None,
        retry: RetryPolicy | None = None,
        timeout: float | None = None,
        guard: Pipeline | None = None,
        check: Callable[[T], Score | Awaitable[Score]] | None = None,
    ) -> None:
        super().__init__(name=name or f"ask_{key_name(writes)}", retry=retry, timeout=timeout, guard=guard)
        named = AgentFlow.model(model) if model is None or isinstance(model, str) else model
        builder = cast("LLMClientBuilder[T]", named)
        self.builder = builder if system is None else builder.system(system)
        self.prompt = prompt
        self.output = key_name(writes)
        self._judge = check
        self.fields = _fields(prompt, self.name)
        unread = [field for field in self.fields if reads is not None and field not in key_names(reads)]
        if unread:
            raise GraphError(f"{self.name}: the prompt asks for {{{unread[0]}}}, which reads= does not list")
        self.inputs = self.fields if reads is None else key_names(reads)
        if len(self.fields) < len(set(self.inputs)):
            unused = next(name for name in self.inputs if name not in self.fields)
            raise GraphError(f"{self.name} reads {unused!r}, but its prompt has no {{{unused}}}")

    def keys_read(self) -> tuple[str, ...]:
        return self.inputs

    def keys_written(self) -> tuple[str, ...]:
        return (self.output,)

    def actions(self) -> frozenset[str]:
        return frozenset({DEFAULT})

    async def prep(self, state: SharedState) -> str:
        values: dict[str, Any] = {field: state[field] for field in self.fields}
        return self.prompt.format_map(values)

    async def exec(self, item: str) -> T:
        return await self.builder.prompt(item).streaming(chunks_wanted()).execute()

    async def check(self, result: T) -> Score:
        score = None if self._judge is None else self._judge(result)
        return await score if isawaitable(score) else score

    async def post(self, state: SharedState, item: str, result: T) -> None:
        state[self.output] = result


def _fields(prompt: str, node: str) -> tuple[str, ...]:
    """The names a prompt asks for, each once, in order."""
    try:
        found = [(field, form or "") for _, field, form, _ in Formatter().parse(prompt) if field is not None]
    except ValueError as error:
        raise GraphError(f"{node}: the prompt's braces do not match ({error}); write {{{{ for a brace") from error
    for field, form in found:
        if not field.isidentifier() or "{" in form:
            asked = f"{{{field}:{form}}}" if form else f"{{{field}}}"
            raise GraphError(f"{node}: {asked} is no name of a key; write {{{{ for a brace of the prompt's own")
    return tuple(dict.fromkeys([field for field, _ in found]))
