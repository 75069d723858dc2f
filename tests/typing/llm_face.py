"""What an editor infers for the model client's face. Checked by mypy and pyright, never run."""

from typing import assert_type

from agentflow import AgentFlow, LLMClient, LLMClientBuilder, Message, ModelRegistry, Response, StreamChunk, Usage
from agentflow.core import RetryPolicy
from agentflow.llm import LLMProvider, ModelConfig, ScriptedProvider, StreamingResponse

builder = AgentFlow.model("gpt-4o")
assert_type(builder, LLMClientBuilder)
assert_type(AgentFlow.model(), LLMClientBuilder)
assert_type(AgentFlow.registry, ModelRegistry)
assert_type(AgentFlow.init("models.yml"), ModelRegistry)
assert_type(
    builder.system("Be brief.")
    .messages([Message("user", "Hi"), {"role": "assistant", "content": "Hello"}])
    .prompt("And then?")
    .temperature(0)
    .max_tokens(100)
    .top_p(0.9)
    .stop("END", "STOP")
    .seed(7)
    .param("logit_bias", {"50256": -100})
    .timeout(30)
    .retry(RetryPolicy(max_attempts=5))
    .streaming(True)
    .tenant("acme"),
    LLMClientBuilder,
)
assert_type(builder.build(), LLMClient)
assert_type(builder.execute_sync(), str)
assert_type(builder.execute_full_sync(), Response)
assert_type(builder.execute_streaming(), StreamingResponse)


async def calls() -> None:
    assert_type(await builder.execute(), str)
    reply = await builder.execute_full()
    assert_type(reply, Response)
    assert_type(reply.text, str)
    assert_type(reply.usage, Usage | None)
    assert_type(reply.cost, float | None)
    async with builder.execute_streaming() as stream:
        async for chunk in stream:
            assert_type(chunk, StreamChunk)
            assert_type(chunk.content, str)
        assert_type(await stream.collect(), Response)
    assert_type(await builder.build().execute(), Response)


def registry() -> None:
    models = ModelRegistry.load(environ={"OPENAI_API_KEY": "…"})
    assert_type(models.resolve("gpt-4o"), tuple[ModelConfig, LLMProvider])
    assert_type(models.models(), tuple[str, ...])
    models.register_provider("toy", lambda settings: ScriptedProvider(["Hello"], name=settings.name))
    provider: LLMProvider = ScriptedProvider(["Hello"])
    assert_type(provider.name, str)
