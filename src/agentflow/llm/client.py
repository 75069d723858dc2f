"""One question to one model: what the caller said, over what models.yml says, to an answer.

    Call + ModelConfig ──▶ Request ──▶ checked, files read ──▶ Attempts ──▶ Response, or chunks
                                                           └─▶ Rounds, where tools or a typed answer may take several

What happens to a single request stands in `attempts`, what happens between them in `rounds`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct
from msgspec.structs import replace

from agentflow.core.limits import Ledger, Limits
from agentflow.core.observability.scope import Scope, current_scope, scope_outside
from agentflow.core.robustness.load_shedder import Priority
from agentflow.core.robustness.operation import Operation
from agentflow.core.robustness.retry import RetryPolicy
from agentflow.core.run import Run, current_run, new_run_id
from agentflow.errors import ConfigurationError, UnsupportedError
from agentflow.llm.attempts import Attempts, Substitute, Substitutes, ready
from agentflow.llm.caller import asking_as, caller_of
from agentflow.llm.config.capabilities import check
from agentflow.llm.config.model import ModelConfig, StandIn
from agentflow.llm.config.registry import ModelRegistry
from agentflow.llm.content import Content, Raw
from agentflow.llm.embedding import embedded
from agentflow.llm.guards import Guards, check_price
from agentflow.llm.messages import (
    EmbeddingRequest,
    Embeddings,
    Message,
    OutputFormat,
    PromptCache,
    Request,
    Response,
    Thinking,
    Tool,
)
from agentflow.llm.own_run import as_run, chunks_as_run, is_run
from agentflow.llm.providers.base import EmbeddingProvider, TokenCounter
from agentflow.llm.streaming.stream import StreamingResponse

if TYPE_CHECKING:  # loaded when a call needs them: most do not
    from agentflow.llm.rounds import Rounds

__all__ = ["Call", "LLMClient"]

_UNFORCED: Final = (None, "auto", "none")
_TOOL_ROUNDS = 10


class Call(Struct, frozen=True):
    """What the caller said; None where nothing was said, so that models.yml decides.

    A Struct, because a builder copies it with every word and `msgspec.structs.replace` is 20 × as fast as
    `dataclasses.replace`.
    """

    model: str | None = None
    system: Content | None = None
    messages: tuple[Message, ...] = ()
    prompt: Content | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] | None = None
    seed: int | None = None
    params: Mapping[str, Any] = {}
    timeout: float | None = None
    retry: RetryPolicy | None = None
    streaming: bool = False
    tenant: str | None = None
    top_k: int | None = None
    toolbox: Any = None  # a Toolbox: a name that is only loaded where it is needed
    hosted: tuple[Tool | Raw, ...] = ()  # what this process does not run: the provider's own, or the caller's
    tool_choice: str | tuple[str, ...] | None = None
    parallel_tool_calls: bool | None = None
    output: Any = None  # an OutputType
    output_strict: bool | None = None
    output_retries: int = 2
    format: OutputFormat | None = None  # asked for as it stands; the answer is not read
    thinking: Thinking | None = None
    cache: PromptCache | None = None
    n: int | None = None
    logprobs: int | None = None
    metadata: Mapping[str, str] = {}
    limits: Limits | None = None
    priority: Priority = Priority.NORMAL
    fallback: tuple[StandIn, ...] | None = None

    def request(self, config: ModelConfig) -> Request:
        """The request for this model. Raises ConfigurationError where there is nothing to ask."""
        return Request(
            config.model_id,
            self._turns(),
            config.temperature if self.temperature is None else self.temperature,
            config.top_p if self.top_p is None else self.top_p,
            config.max_tokens if self.max_tokens is None else self.max_tokens,
            config.stop if self.stop is None else self.stop,
            config.seed if self.seed is None else self.seed,
            {**config.params, **self.params},
            config.timeout if self.timeout is None else self.timeout,
            config.top_k if self.top_k is None else self.top_k,
            self._tools(),
            self.tool_choice,
            self.parallel_tool_calls,
            self.format,
            config.thinking if self.thinking is None else self.thinking,
            self.cache,
            self.n,
            self.logprobs,
            self.metadata,
        )

    def ledgers(self, outer: Ledger | None) -> tuple[Ledger, ...]:
        """What bounds this call: its own limits, and those of the run that it is part of."""
        if self.limits is None and self.toolbox is None:
            return () if outer is None else (outer,)
        own = self.limits or Limits()
        rounds = _TOOL_ROUNDS if own.tool_rounds is None else own.tool_rounds
        ledger = Ledger(Limits(own.requests, own.tokens, rounds, own.dollars))
        return (ledger,) if outer is None else (ledger, outer)

    def _tools(self) -> tuple[Any, ...]:
        return self.hosted if self.toolbox is None else (*self.toolbox.tools, *self.hosted)

    def _turns(self) -> tuple[Message, ...]:
        prompt, turns = self.prompt, self.messages
        if prompt is not None and (prompt.strip() if isinstance(prompt, str) else prompt):
            turns = (*turns, Message("user", prompt))
        elif not turns:
            raise ConfigurationError("there is nothing to ask: give .prompt(text) a text, or .messages([…]) a turn")
        return turns if self.system is None else (Message("system", self.system), *turns)


class LLMClient:
    """Carries out one `Call`, as often as it is asked to.

    client = AgentFlow.model("gpt-4o").prompt("Hello").build()
    reply = await client.execute()
    """

    __slots__ = ("_call", "_registry")

    def __init__(self, registry: ModelRegistry, call: Call) -> None:
        self._registry = registry
        self._call = call

    async def execute(self) -> Response:
        """The whole answer. With `streaming` it is streamed and added up, so that watchers see it grow.

        Raises a ModelError, UnknownModelError, UnsupportedError, MissingKeyError, or ConfigurationError; with tools and
        limits also ToolError and LimitExceededError, with a type also OutputError.
        """
        if self._call.streaming:
            async with self.execute_streaming() as stream:
                return await stream.collect()
        question = self._question()
        if is_run(question.guards):
            return await as_run(question.guards, question.whole())
        return await question.whole()

    def execute_streaming(self) -> StreamingResponse:
        """The answer in chunks. Nothing is sent before the first is asked for; a wrong name or key is an error here."""
        call, question = self._call, self._question()
        source = question.guards
        chunks = question.chunks()
        if is_run(source):
            chunks = chunks_as_run(source, chunks)
        return StreamingResponse(
            chunks,
            provider=source.config.provider,
            model=source.config.model_id,
            output=call.output,
            timing=lambda: question.timing,
            answered=lambda: question.answered,
            run_id=lambda: question.run_id,
        )

    async def embed(self, texts: Sequence[str], *, dimensions: int | None = None) -> Embeddings:
        """A vector for each text. Raises UnsupportedError where the provider has no embeddings."""
        guards = self._guards(endpoint="embeddings")
        provider, config, call = guards.provider, guards.config, self._call
        wanted = EmbeddingRequest(
            config.model_id,
            tuple(texts),
            dimensions,
            {**config.params, **call.params},
            config.timeout if call.timeout is None else call.timeout,
        )
        self._check(wanted, config)
        if guards.wrapped and isinstance(provider, EmbeddingProvider):
            with asking_as(caller_of(guards)):
                found = provider.embed(wanted)
                return await (as_run(guards, found) if is_run(guards) else found)
        if not isinstance(provider, EmbeddingProvider):
            able = self._registry.models_with("embed")
            raise UnsupportedError(
                f"provider {config.provider!r} has no embeddings"
                + (f"; models that have: {', '.join(able[:5])}" if able else "")
            )
        return await embedded(guards, provider, wanted)

    async def count_tokens(self) -> int:
        """How many input tokens the request has, by the provider's own count. Raises UnsupportedError where it has
        none."""
        guards = self._guards(itself=True)
        request = self._call.request(guards.config)
        if self._call.output is not None:
            request, _ = self._with_output(guards, request)
        self._check(request, guards.config)
        request, provider = await ready(request), guards.provider
        if not isinstance(provider, TokenCounter):
            raise UnsupportedError(f"provider {guards.config.provider!r} does not count tokens")
        deadline = guards.deadline(request.timeout)
        pipeline = self._registry.pipeline(guards.config, "token count")
        try:
            operation = Operation(deadline, tenant=guards.tenant, priority=guards.priority, policy=guards.policy)
            with asking_as(caller_of(guards)):  # by whom a router chooses
                held = await pipeline.open(lambda: provider.count_tokens(request), operation)
            held.succeed()
            return held.value
        finally:
            deadline.close()

    def _question(self) -> Attempts | Rounds:
        """One request, or as many as tools and a typed answer take."""
        guards, call = self._guards(), self._call
        request, by_tool = call.request(guards.config), None
        stand_ins = guards.config.fallback if call.fallback is None else call.fallback
        substitutes = self._substitutes(guards, stand_ins) if stand_ins else None
        if call.toolbox is None and call.output is None:
            self._check(request, guards.config)
            return Attempts(guards, request, substitutes=substitutes)
        from agentflow.llm.rounds import Plan, Rounds
        from agentflow.llm.tools import Toolbox

        request, by_tool = self._with_output(guards, request)
        self._check(request, guards.config)
        box = Toolbox() if call.toolbox is None else call.toolbox
        return Rounds(guards, request, Plan(self._check, box, call.output, by_tool, call.output_retries), substitutes)

    def _with_output(self, guards: Guards, request: Request) -> tuple[Request, str | None]:
        """The request that asks this model for the type, in its own way, and the tool that it answers through, if it
        does."""
        call = self._call
        if call.output is None:
            return request, None
        from agentflow.llm.rounds import with_output

        return with_output(request, call.output, native=_has_schemas(guards), strict=call.output_strict)

    def _substitutes(self, first: Guards, stand_ins: tuple[StandIn, ...]) -> Substitutes:
        """Those who are asked when a model has failed. Raises UnknownModelError for a name that nobody knows."""
        from agentflow.llm.stand_ins import StandIns

        for stand_in in stand_ins:
            self._registry.describe(stand_in.model)
        return StandIns(first.config.name, stand_ins, lambda model, request: self._substitute(model, request, first))

    def _substitute(self, model: str, request: Request, first: Guards) -> Substitute:
        """The same question for another model, which goes on with the conversation as far as it is. Raises
        UnsupportedError, MissingKeyError, ConfigurationError where it cannot be asked."""
        guards = self._guards(model, first=first)
        wanted = self._call.request(guards.config)
        if any(turn.role == "tool" for turn in request.messages[len(wanted.messages) :]):
            # A tool that had to be called was: forced again, the model would never answer.
            choice = wanted.tool_choice if wanted.tool_choice in _UNFORCED else "auto"
            wanted = replace(wanted, tool_choice=choice)
        wanted, by_tool = self._with_output(guards, replace(wanted, messages=request.messages))
        check(wanted, guards.config, self._registry.models_with)
        return Substitute(guards, wanted, by_tool)

    def _check(self, request: Request | EmbeddingRequest, config: ModelConfig) -> None:
        """Raises UnsupportedError for what the model cannot do, and says so where nobody chose it."""
        try:
            check(request, config, self._registry.models_with)
            return
        except UnsupportedError as error:
            found = self._registry.default_model()
            if self._call.model is not None or found.chosen:
                raise
            reason = f"{error} ({found.reason})"
        raise UnsupportedError(reason)

    def _guards(
        self,
        model: str | None = None,
        endpoint: str = "chat",
        first: Guards | None = None,
        *,
        itself: bool = False,
    ) -> Guards:
        """What guards the question; a stand-in shares the ledgers and the place in its run with the `first` model.
        With `itself` the model is meant, without what models.yml wraps it in; a router is nothing without it."""
        call, registry = self._call, self._registry
        name = model or call.model or registry.default_model().name
        config, provider = registry.resolve(name)
        run = current_run.get()
        if first is None:
            ledgers = call.ledgers(run.ledger if run else None)
            scope = current_scope.get() or scope_outside(registry.clock, config.name, new_run_id)
        else:
            ledgers, scope = first.ledgers, first.scope
        wrapped = bool(config.wrappers) and (config.routed or not itself)
        if wrapped:
            from agentflow.llm.wrapped_models import provider_of

            provider = provider_of(registry, config.name)
        elif ledgers:
            check_price(config, ledgers)
        return Guards(
            config,
            provider,
            registry.pipeline(config, endpoint),
            registry.pipelines.output,
            call.retry,
            registry.clock,
            call.tenant or (run.tenant if run else None),
            call.priority,
            call.timeout is None,
            ledgers,
            registry.suggestions,
            scope,
            _run_id(scope, run),
            run.flow if run else None,
            registry.key_used,
            wrapped,
        )


def _run_id(scope: Scope | None, run: Run | None) -> str | None:
    if scope is not None:
        return scope.channel.run_id
    return None if run is None else run.run_id


def _has_schemas(guards: Guards) -> bool:
    """Whether the answer is asked for by a schema: models.yml knows of the model, the provider of its API.

    A model that is known to have neither schemas nor tools is not asked at all, and the check will say why.
    """
    known = guards.config.capabilities
    if known is not None and not {"schema", "tools"} & known:
        return True
    return bool(getattr(guards.provider, "schemas", True)) and (known is None or "schema" in known)
