"""The fluent face: words about one model call, each of which gives a new builder.

    AgentFlow.model("gpt-4o").system("Be brief.").prompt("Hello").temperature(0.2)  ──execute()──▶  str
                                                                                    ──execute_full()──▶  Response
                                                                                    ──execute_streaming()──▶  chunks
    … .prompt("Who?", Image("team.png")).output(Person)                             ──execute()──▶  Person

A builder is a value: keep one, share it among tasks and threads, and add to it as often as you like. What it says wins
over models.yml, and a value out of range is an error where it is said.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, cast

from msgspec.structs import replace

from agentflow.core.limits import Limits
from agentflow.core.portal import run_blocking
from agentflow.core.robustness.load_shedder import Priority
from agentflow.core.robustness.retry import RetryPolicy
from agentflow.errors import ConfigurationError
from agentflow.llm.answer import text_of, value_of
from agentflow.llm.client import Call, LLMClient
from agentflow.llm.config.model import StandIn
from agentflow.llm.config.registry import ModelRegistry
from agentflow.llm.config.schema import checked
from agentflow.llm.content import Audio, Content, Document, Image, Json, Raw, Text, content_of
from agentflow.llm.messages import Embeddings, Message, PromptCache, Response, Thinking, Tool
from agentflow.llm.streaming.stream import StreamingResponse

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    from agentflow.llm.tools.function import FunctionTool
    from agentflow.llm.tools.toolbox import Approve

    T = TypeVar("T", default=str)
    V = TypeVar("V")
else:
    from typing import TypeVar

    T = TypeVar("T")

__all__ = ["LLMClientBuilder"]

_PARTS: Final = (Text, Image, Document, Audio, Raw)


@dataclass(frozen=True, slots=True)
class LLMClientBuilder(Generic[T]):
    """Made by `AgentFlow.model(name)`; every method but the last ones returns a new builder.

    `T` is what `execute` gives: a str, or what `output` said. `registry` is asked for when a call is made, so a builder
    may be written down before the configuration is loaded.
    """

    registry: Callable[[], ModelRegistry]
    call: Call

    # ---- what the model gets ---------------------------------------------------------------------------------

    def prompt(self, *parts: str | Text | Image | Document | Audio | Raw) -> LLMClientBuilder[T]:
        """The user's turn: a text, or texts and media in their order. It follows what `messages` gave."""
        return self._with(replace(self.call, prompt=_content("prompt", parts)))

    def system(self, text: str, *, cache: str | None = None) -> LLMClientBuilder[T]:
        """Instructions that come before everything else. `cache` ("5m", "1h") marks their end for a prompt cache."""
        said = checked("system", text)
        content: Content = said if cache is None else (Text(said, checked("cache", cache)),)
        return self._with(replace(self.call, system=content))

    def messages(self, history: Sequence[Message | Mapping[str, str]]) -> LLMClientBuilder[T]:
        """Earlier turns, oldest first: `Message`s, or mappings with `role` and `content`."""
        return self._with(
            replace(self.call, messages=tuple(_message(index, turn) for index, turn in enumerate(history)))
        )

    # ---- how it answers --------------------------------------------------------------------------------------

    def temperature(self, value: float) -> LLMClientBuilder[T]:
        """0 to 2: how freely the model chooses its words."""
        return self._with(replace(self.call, temperature=checked("temperature", value)))

    def max_tokens(self, count: int) -> LLMClientBuilder[T]:
        """At most so many tokens of answer."""
        return self._with(replace(self.call, max_tokens=checked("max_tokens", count)))

    def top_p(self, value: float) -> LLMClientBuilder[T]:
        """0 to 1: choose among the likeliest words that together have this probability."""
        return self._with(replace(self.call, top_p=checked("top_p", value)))

    def stop(self, *words: str) -> LLMClientBuilder[T]:
        """The answer ends before any of these; none takes away what models.yml says."""
        return self._with(replace(self.call, stop=tuple(checked("stop", list(words)))))

    def seed(self, value: int) -> LLMClientBuilder[T]:
        """Ask for the same answer each time, as far as the provider can."""
        return self._with(replace(self.call, seed=checked("seed", value)))

    def top_k(self, count: int) -> LLMClientBuilder[T]:
        """Choose among the so many likeliest tokens, where the provider knows that."""
        return self._with(replace(self.call, top_k=checked("top_k", count)))

    def n(self, count: int) -> LLMClientBuilder[T]:
        """So many answers at once: the first is the response, the others are its `alternatives`."""
        return self._with(replace(self.call, n=checked("n", count)))

    def logprobs(self, top: int = 0) -> LLMClientBuilder[T]:
        """The log probability of each token, and of its `top` likeliest alternatives."""
        return self._with(replace(self.call, logprobs=checked("logprobs", top)))

    def thinking(
        self, effort: str | None = None, *, budget: int | None = None, show: bool | None = None
    ) -> LLMClientBuilder[T]:
        """How much the model thinks first: an effort (none, minimal, low, medium, high, xhigh, max), or a budget in
        tokens. `show` asks for a summary of the thoughts, which comes as `reasoning`."""
        if effort is not None and budget is not None:
            raise ConfigurationError("thinking takes an effort or a budget, not both")
        said = Thinking(checked("effort", effort), checked("budget", budget), show)
        return self._with(replace(self.call, thinking=said))

    def prompt_cache(self, ttl: str | None = None, *, key: str | None = None) -> LLMClientBuilder[T]:
        """The beginning of this prompt will be used again: for "5m", "1h" or "24h". `key` groups such requests."""
        return self._with(replace(self.call, cache=PromptCache(checked("ttl", ttl), checked("key", key))))

    def metadata(self, **labels: str) -> LLMClientBuilder[T]:
        """Labels that the provider keeps with the request (`user_id` at Anthropic)."""
        return self._with(replace(self.call, metadata={**self.call.metadata, **checked("metadata", labels)}))

    def output(self, kind: type[V], *, retries: int = 2, strict: bool | None = None) -> LLMClientBuilder[V]:
        """The answer as a dataclass, TypedDict, msgspec.Struct, pydantic model, or a plain type such as `list[str]`.

        The schema goes to the provider, in its own words or as a tool; `strict` False keeps it from being written so
        that the provider can hold the model to it. An answer that does not fit is asked for again,
        at most `retries` times, with the reason; then `execute` raises OutputError.
        """
        from agentflow.llm.output import OutputType

        call = replace(
            self.call, output=OutputType.of(kind), output_strict=strict, output_retries=checked("retries", retries)
        )
        return LLMClientBuilder(self.registry, call)

    # ---- tools -----------------------------------------------------------------------------------------------

    def tools(
        self,
        *tools: Callable[..., object] | FunctionTool | Tool | Raw,
        on_error: Literal["return", "raise"] = "return",
        approve: Approve | None = None,
    ) -> LLMClientBuilder[T]:
        """What the model may call. Functions are run, the calls of one answer at the same time, and their results go
        back, until it answers; at most 10 rounds, or `Limits(tool_rounds=…)`.

        The schema comes from signature and docstring; a sync function runs in a thread. What it raises goes to the
        model as the result, or to you with `on_error="raise"`. `approve` is asked before each call: True lets it run,
        False or a text refuses it. A `Tool` has no function: an answer that calls it comes back to you. A `Raw` is a
        tool of the provider's own. None takes all tools away.
        """
        from agentflow.llm.tools.toolbox import toolbox

        hosted = tuple([tool for tool in tools if isinstance(tool, Raw)])
        ours = [tool for tool in tools if not isinstance(tool, Raw)]
        box = toolbox(ours, on_error=on_error, approve=approve) if ours else None
        return self._with(replace(self.call, toolbox=box, hosted=hosted))

    def tool_choice(self, choice: str | Sequence[str]) -> LLMClientBuilder[T]:
        """ "auto", "none", "required", a tool's name, or several names of which one is to be called."""
        said = choice if isinstance(choice, str) else tuple(choice)
        return self._with(replace(self.call, tool_choice=checked("tool_choice", said)))

    def parallel_tool_calls(self, on: bool = True) -> LLMClientBuilder[T]:
        """Whether one answer may call several tools."""
        return self._with(replace(self.call, parallel_tool_calls=checked("parallel_tool_calls", on)))

    # ---- the call itself -------------------------------------------------------------------------------------

    def param(self, name: str, value: Json) -> LLMClientBuilder[T]:
        """Anything else the provider knows, sent as it stands under this name."""
        return self._with(replace(self.call, params={**self.call.params, checked("param", name): value}))

    def timeout(self, seconds: float) -> LLMClientBuilder[T]:
        """The whole call's limit in seconds, all attempts and the waits between them included."""
        return self._with(replace(self.call, timeout=checked("timeout", seconds)))

    def retry(self, policy: RetryPolicy) -> LLMClientBuilder[T]:
        """How often to try again; `RetryPolicy(max_attempts=1)` never does."""
        if not isinstance(policy, RetryPolicy):
            raise ConfigurationError(
                f"retry: found a {type(policy).__name__}, allowed is a RetryPolicy(max_attempts=…)"
            )
        return self._with(replace(self.call, retry=policy))

    def streaming(self, on: bool = True) -> LLMClientBuilder[T]:
        """Let `execute` and its kin stream the answer too, and add it up; `execute_streaming` streams in any case."""
        return self._with(replace(self.call, streaming=checked("streaming", on)))

    def limits(
        self,
        *,
        requests: int | None = None,
        tokens: int | None = None,
        tool_rounds: int | None = None,
        dollars: float | None = None,
    ) -> LLMClientBuilder[T]:
        """What one `execute` may spend, all its rounds together; past a limit the next request is a
        LimitExceededError."""
        try:
            allowed = Limits(requests, tokens, tool_rounds, dollars)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"limits: {error}") from None
        return self._with(replace(self.call, limits=allowed))

    def priority(self, level: Literal["critical", "high", "normal", "low"]) -> LLMClientBuilder[T]:
        """How important the call is where there is too much to do: who waits, and who is refused first."""
        return self._with(replace(self.call, priority=Priority[checked("priority", level).upper()]))

    def fallback(self, *models: str) -> LLMClientBuilder[T]:
        """The models that answer instead when this one has failed for good, in order; none takes away what models.yml
        says. They are asked for all that another model may not have: limits, outages, time-outs, a wrong key."""
        names = checked("fallback", list(models))
        return self._with(replace(self.call, fallback=tuple(map(StandIn, names))))

    def tenant(self, label: str) -> LLMClientBuilder[T]:
        """On whose behalf the call is made; it stands in the call's events, and no tenant crowds out another."""
        return self._with(replace(self.call, tenant=checked("tenant", label)))

    # ---- asking ----------------------------------------------------------------------------------------------

    async def execute(self) -> T:
        """The answer: its text, or a value of the type that `output` named.

        Raises ContentFilterError where the provider blocked all of it; else as `execute_full`.
        """
        return self._value(await self.build().execute())

    async def execute_full(self) -> Response:
        """The whole answer: text, usage, cost, finish reason. Raises ModelError and ConfigurationError; OutputError,
        ToolError and LimitExceededError where types, tools or limits were asked for."""
        return await self.build().execute()

    async def execute_both(self) -> tuple[T, Response]:
        """The answer, and all that is known of it."""
        response = await self.execute_full()
        return self._value(response), response

    def execute_streaming(self) -> StreamingResponse[T]:
        """The answer as it comes: `async for chunk in …`, best inside `async with`. Not awaited itself."""
        return cast("StreamingResponse[T]", self.build().execute_streaming())

    def execute_sync(self) -> T:
        """`execute` without await; also inside a running event loop, which stands still meanwhile."""
        return run_blocking(self.execute)

    def execute_full_sync(self) -> Response:
        """`execute_full` without await."""
        return run_blocking(self.execute_full)

    async def embed(self, texts: Sequence[str], *, dimensions: int | None = None) -> list[list[float]]:
        """A vector for each text, in their order. Raises UnsupportedError where the model has none."""
        found = await self.embed_full(texts, dimensions=dimensions)
        return [list(vector) for vector in found.vectors]

    async def embed_full(self, texts: Sequence[str], *, dimensions: int | None = None) -> Embeddings:
        """The vectors, their usage and their cost."""
        if isinstance(texts, str):
            raise ConfigurationError("embed takes a list of texts, not one text: put it in a list")
        return await self.build().embed(texts, dimensions=checked("dimensions", dimensions))

    async def count_tokens(self) -> int:
        """How many input tokens this request has, as the provider counts. Raises UnsupportedError."""
        return await self.build().count_tokens()

    def build(self) -> LLMClient:
        """The client that makes this call, as often as it is asked to."""
        return LLMClient(self.registry(), self.call)

    def _value(self, response: Response) -> T:
        output = self.call.output
        return cast("T", text_of(response) if output is None else value_of(response, output))

    def _with(self, call: Call) -> LLMClientBuilder[T]:
        return LLMClientBuilder(self.registry, call)


def _content(where: str, parts: Sequence[Any]) -> Content:
    if len(parts) == 1 and not isinstance(parts[0], _PARTS):
        text: str = parts[0]
        return text if type(text) is str else checked(where, text)
    return content_of([part if isinstance(part, _PARTS) else Text(checked(where, part)) for part in parts])


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
