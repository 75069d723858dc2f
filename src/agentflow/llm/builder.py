"""The fluent face: words about one model call, each of which gives a new builder.

    AgentFlow.model("gpt-4o").system("Be brief.").prompt("Hello").temperature(0.2)  ──execute()──▶  str
                                                                                    ──execute_full()──▶  Response
                                                                                    ──execute_streaming()──▶  chunks

A builder is a value: keep one, share it among tasks and threads, and add to it as often as you like. What it says wins
over models.yml, and a value out of range is an error where it is said.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from agentflow.clock import Clock, SystemClock
from agentflow.core.portal import run_blocking
from agentflow.core.robustness.retry import RetryPolicy
from agentflow.errors import ConfigurationError, ContentFilterError
from agentflow.llm.client import Call, LLMClient
from agentflow.llm.config.registry import ModelRegistry
from agentflow.llm.config.schema import checked
from agentflow.llm.messages import Json, Message, Response
from agentflow.llm.streaming.stream import StreamingResponse

__all__ = ["LLMClientBuilder"]

_SYSTEM_CLOCK = SystemClock()


@dataclass(frozen=True, slots=True)
class LLMClientBuilder:
    """Made by `AgentFlow.model(name)`; every method but the last six returns a new builder.

    `registry` is asked for when a call is made, so a builder may be written down before the configuration is loaded.
    """

    registry: Callable[[], ModelRegistry]
    call: Call
    clock: Clock = _SYSTEM_CLOCK

    def prompt(self, text: str) -> LLMClientBuilder:
        """The user's turn. It follows what `messages` gave."""
        return self._with(replace(self.call, prompt=checked("prompt", text)))

    def system(self, text: str) -> LLMClientBuilder:
        """Instructions that come before everything else."""
        return self._with(replace(self.call, system=checked("system", text)))

    def messages(self, history: Sequence[Message | Mapping[str, str]]) -> LLMClientBuilder:
        """Earlier turns, oldest first: `Message`s, or mappings with `role` and `content`."""
        return self._with(
            replace(self.call, messages=tuple(_message(index, turn) for index, turn in enumerate(history)))
        )

    def temperature(self, value: float) -> LLMClientBuilder:
        """0 to 2: how freely the model chooses its words."""
        return self._with(replace(self.call, temperature=checked("temperature", value)))

    def max_tokens(self, count: int) -> LLMClientBuilder:
        """At most so many tokens of answer."""
        return self._with(replace(self.call, max_tokens=checked("max_tokens", count)))

    def top_p(self, value: float) -> LLMClientBuilder:
        """0 to 1: choose among the likeliest words that together have this probability."""
        return self._with(replace(self.call, top_p=checked("top_p", value)))

    def stop(self, *words: str) -> LLMClientBuilder:
        """The answer ends before any of these; none takes away what models.yml says."""
        return self._with(replace(self.call, stop=tuple(checked("stop", list(words)))))

    def seed(self, value: int) -> LLMClientBuilder:
        """Ask for the same answer each time, as far as the provider can."""
        return self._with(replace(self.call, seed=checked("seed", value)))

    def param(self, name: str, value: Json) -> LLMClientBuilder:
        """Anything else the provider knows, sent as it stands under this name."""
        return self._with(replace(self.call, params={**self.call.params, checked("param", name): value}))

    def timeout(self, seconds: float) -> LLMClientBuilder:
        """The whole call's limit in seconds, all attempts and the waits between them included."""
        return self._with(replace(self.call, timeout=checked("timeout", seconds)))

    def retry(self, policy: RetryPolicy) -> LLMClientBuilder:
        """How often to try again; `RetryPolicy(max_attempts=1)` never does."""
        if not isinstance(policy, RetryPolicy):
            raise ConfigurationError(
                f"retry: found a {type(policy).__name__}, allowed is a RetryPolicy(max_attempts=…)"
            )
        return self._with(replace(self.call, retry=policy))

    def streaming(self, on: bool = True) -> LLMClientBuilder:
        """Let `execute` and its kin stream the answer too, and add it up; `execute_streaming` streams in any case."""
        return self._with(replace(self.call, streaming=checked("streaming", on)))

    def tenant(self, label: str) -> LLMClientBuilder:
        """On whose behalf the call is made; it stands in the call's events."""
        return self._with(replace(self.call, tenant=checked("tenant", label)))

    async def execute(self) -> str:
        """The answer's text. Raises ContentFilterError where the provider blocked all of it; else as `execute_full`."""
        return _unblocked(await self.execute_full())

    async def execute_full(self) -> Response:
        """The whole answer: text, usage, finish reason. Raises ModelError and ConfigurationError."""
        return await self.build().execute()

    def execute_streaming(self) -> StreamingResponse:
        """The answer as it comes: `async for chunk in …`, best inside `async with`. Not awaited itself."""
        return self.build().execute_streaming()

    def execute_sync(self) -> str:
        """`execute` without await; also inside a running event loop, which stands still meanwhile."""
        return run_blocking(self.execute)

    def execute_full_sync(self) -> Response:
        """`execute_full` without await."""
        return run_blocking(self.execute_full)

    def build(self) -> LLMClient:
        """The client that makes this call, as often as it is asked to."""
        return LLMClient(self.registry(), self.call, clock=self.clock)

    def _with(self, call: Call) -> LLMClientBuilder:
        return LLMClientBuilder(self.registry, call, self.clock)


def _message(index: int, turn: Message | Mapping[str, str]) -> Message:
    if isinstance(turn, Message):
        return turn
    where = f"messages[{index}]"
    if not isinstance(turn, Mapping):
        raise ConfigurationError(f"{where}: found a {type(turn).__name__}, allowed is a Message or a mapping")
    if not {"role", "content"} <= turn.keys() <= {"role", "content", "name"}:
        raise ConfigurationError(f"{where}: a turn has role, content and perhaps name, not {', '.join(map(str, turn))}")
    for field, text in turn.items():
        if not isinstance(text, str):
            raise ConfigurationError(f"{where}.{field}: found a {type(text).__name__}, allowed is a text")
    return Message(turn["role"], turn["content"], turn.get("name"))


def _unblocked(response: Response) -> str:
    if response.finish_reason == "content_filter" and not response.text:
        raise ContentFilterError(
            "the provider blocked the answer: change the prompt, or ask another model",
            provider=response.provider,
            model=response.model,
            request_id=response.request_id,
        )
    return response.text
