"""What an editor infers for the model client's face. Checked by mypy and pyright, never run."""

from dataclasses import dataclass
from typing import assert_type

from agentflow import (
    AgentFlow,
    AlertManager,
    AsyncFlow,
    Audio,
    AuditLog,
    Conversation,
    Document,
    Image,
    Key,
    Limits,
    LLMClient,
    LLMClientBuilder,
    LLMNode,
    Message,
    MetricsCollector,
    ModelRegistry,
    Response,
    RunStore,
    StreamChunk,
    Tool,
    ToolCall,
    Usage,
)
from agentflow.core import RetryPolicy
from agentflow.llm import Embeddings, Json, LLMProvider, ModelConfig, Raw, ScriptedProvider, StreamingResponse


@dataclass
class Person:
    name: str
    age: int


def weather(city: str) -> str:
    return city


async def search(query: str, *, limit: int = 10) -> list[str]:
    return [query] * limit


def approve(call: ToolCall) -> bool | str:
    return call.name == "search"


builder = AgentFlow.model("gpt-4o")
assert_type(builder, LLMClientBuilder)
assert_type(builder, LLMClientBuilder[str])
assert_type(AgentFlow.model(), LLMClientBuilder)
assert_type(AgentFlow.registry, ModelRegistry)
assert_type(AgentFlow.init("models.yml"), ModelRegistry)
with AgentFlow.registry.observe() as observing:
    assert_type(observing.metrics, MetricsCollector | None)
    assert_type(observing.runs, RunStore | None)
    assert_type(observing.alerts, AlertManager | None)
    assert_type(observing.audit, AuditLog | None)
assert_type(
    builder.system("Be brief.", cache="1h")
    .messages([Message("user", "Hi"), {"role": "assistant", "content": "Hello"}])
    .prompt("And then?", Image("cat.png"), Document(b"%PDF-"), Audio("talk.mp3"))
    .temperature(0)
    .max_tokens(100)
    .top_p(0.9)
    .top_k(40)
    .n(2)
    .logprobs(3)
    .stop("END", "STOP")
    .seed(7)
    .thinking("low")
    .thinking(budget=1024, show=True)
    .prompt_cache("1h", key="docs")
    .metadata(user_id="u1")
    .tools(weather, search, Tool("declared"), Raw("openai", {"type": "web_search"}), approve=approve)
    .tool_choice("required")
    .tool_choice(["weather", "search"])
    .parallel_tool_calls(False)
    .param("logit_bias", {"50256": -100})
    .timeout(30)
    .retry(RetryPolicy(max_attempts=5))
    .limits(requests=3, tokens=10_000, tool_rounds=5, dollars=0.1)
    .streaming(True)
    .tenant("acme"),
    LLMClientBuilder,
)
assert_type(builder.build(), LLMClient)
assert_type(builder.execute_sync(), str)
assert_type(builder.execute_full_sync(), Response)
assert_type(builder.execute_streaming(), StreamingResponse)
assert_type(builder.output(Person), LLMClientBuilder[Person])
assert_type(builder.output(Person).temperature(0).execute_sync(), Person)
assert_type(builder.output(list[str]).execute_sync(), list[str])


async def calls() -> None:
    assert_type(await builder.execute(), str)
    reply = await builder.execute_full()
    assert_type(reply, Response)
    assert_type(reply.text, str)
    assert_type(reply.usage, Usage | None)
    assert_type(reply.cost, float | None)
    assert_type(reply.tool_calls, tuple[ToolCall, ...])
    assert_type(reply.messages, tuple[Message, ...])
    async with builder.execute_streaming() as stream:
        async for chunk in stream:
            assert_type(chunk, StreamChunk)
            assert_type(chunk.content, str)
        assert_type(await stream.collect(), Response)
        assert_type(await stream.value(), str)
    assert_type(await builder.build().execute(), Response)


async def typed() -> None:
    assert_type(await builder.output(Person).execute(), Person)
    value, reply = await builder.output(Person).execute_both()
    assert_type(value, Person)
    assert_type(reply, Response)
    async with builder.output(Person).execute_streaming() as stream:
        async for partial in stream.partials():
            assert_type(partial, Json)
        assert_type(await stream.value(), Person)


async def vectors() -> None:
    assert_type(await builder.embed(["a", "b"], dimensions=256), list[list[float]])
    assert_type(await builder.embed_full(["a"]), Embeddings)
    assert_type(await builder.prompt("Hi").count_tokens(), int)


async def conversation() -> None:
    chat = Conversation(system="Be brief.", max_tokens=1000)
    assert_type(await chat.ask(builder, "Hi", Image("cat.png")), Response)
    assert_type(chat.messages, tuple[Message, ...])


async def nodes() -> None:
    draft, person = Key[str]("draft"), Key[Person]("person")
    ask = LLMNode("gpt-4o", prompt="Write.", writes=draft)
    assert_type(ask, LLMNode[str])
    extract = LLMNode(builder.output(Person), prompt="Who? {draft}", writes=person)
    assert_type(extract, LLMNode[Person])
    await AsyncFlow(ask >> extract).run({}, limits=Limits(dollars=1.0))


def registry() -> None:
    models = ModelRegistry.load(environ={"OPENAI_API_KEY": "…"})
    assert_type(models.resolve("gpt-4o"), tuple[ModelConfig, LLMProvider])
    assert_type(models.models(), tuple[str, ...])
    models.register_provider("toy", lambda settings: ScriptedProvider(["Hello"], name=settings.name))
    provider: LLMProvider = ScriptedProvider(["Hello"])
    assert_type(provider.name, str)


async def judged(text: LLMClientBuilder) -> None:
    AgentFlow.feedback(await text.execute_full(), score=1, label="helpful")
    AgentFlow.feedback("1a21bb219f10872273790", comment="too long")
