"""The clients that are compared: each makes a model call, whole or streamed, as its own documentation shows it.

    client = CLIENTS["openai"]("http://127.0.0.1:8000")        its library is imported here
    await client.call("Explain the tides.")    →  the text
    client.stream("Explain the tides.")        →  the texts of the pieces
    await client.others("Explain the tides.")  →  the texts of Anthropic, Google and Moonshot, if it can switch to them

Each library lies in an environment of its own, so only that of the client is imported, and only when it is made.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

KEY = "sk-0123456789abcdef"
CONNECTIONS = 10_000
"""How many may be open at once, where one says it in a line; else a client has as many as it has by itself."""

ANTHROPIC, GOOGLE, MOONSHOT = "claude-sonnet-4-5", "gemini-2.5-flash", "kimi-k2-0905-preview"


class Client(Protocol):
    """Made once, for the address of a server; `close` at the end."""

    async def call(self, prompt: str) -> str: ...
    def stream(self, prompt: str) -> AsyncIterator[str]: ...

    async def others(self, prompt: str) -> list[str]:
        """One answer of each of three further providers; nothing where it has none."""
        ...

    async def close(self) -> None: ...


class OurClient:
    """The full way: registry, builder, client, provider, prices, with models.yml as a user writes it."""

    def __init__(self, server: str) -> None:
        from agentflow import AgentFlow, ModelRegistry

        models = f"""
providers:
  lab:
    kind: openai
    base_url: {server}/v1
    api_key_env: BENCHMARK_KEY
    prices: openai
    options: {{max_connections: {CONNECTIONS}}}
  anthropic: {{base_url: "{server}/v1", api_key_env: BENCHMARK_KEY}}
  google: {{base_url: "{server}/v1beta", api_key_env: BENCHMARK_KEY}}
  moonshot: {{base_url: "{server}/v1", api_key_env: BENCHMARK_KEY}}
models:
  bench: {{provider: lab, model_id: gpt-4o, temperature: 0.7}}
"""
        os.environ["BENCHMARK_KEY"] = KEY
        with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
            file.write(models)
            file.flush()
            self._registry = ModelRegistry.load(file.name)
        self._model = AgentFlow.model

    async def call(self, prompt: str) -> str:
        return await self._model("bench", registry=self._registry).prompt(prompt).execute()

    async def stream(self, prompt: str) -> AsyncIterator[str]:
        async with self._model("bench", registry=self._registry).prompt(prompt).execute_streaming() as chunks:
            async for chunk in chunks:
                if chunk.content:
                    yield chunk.content

    async def others(self, prompt: str) -> list[str]:
        names = (f"anthropic/{ANTHROPIC}", f"google/{GOOGLE}", f"moonshot/{MOONSHOT}")
        return [await self._model(name, registry=self._registry).prompt(prompt).execute() for name in names]

    async def close(self) -> None:
        await self._registry.aclose()


class BareAiohttp:
    """A session, `json`, and a dozen lines that cut a stream into events: what one writes without a library."""

    def __init__(self, server: str) -> None:
        import aiohttp

        self._session = aiohttp.ClientSession(
            headers={"authorization": f"Bearer {KEY}", "content-type": "application/json"},
            connector=aiohttp.TCPConnector(limit=CONNECTIONS),
        )
        self._url = f"{server}/v1/chat/completions"

    async def call(self, prompt: str) -> str:
        async with self._session.post(self._url, data=_body(prompt)) as response:
            assert response.status == 200
            return json.loads(await response.read())["choices"][0]["message"]["content"]

    async def stream(self, prompt: str) -> AsyncIterator[str]:
        async with self._session.post(self._url, data=_body(prompt, stream=True)) as response:
            assert response.status == 200
            rest = b""
            async for data in response.content.iter_any():
                *events, rest = (rest + data).split(b"\n\n")
                for event in events:
                    if event.startswith(b"data: {"):
                        for choice in json.loads(event[6:])["choices"]:
                            if content := choice["delta"].get("content"):
                                yield content

    async def others(self, prompt: str) -> list[str]:
        return []

    async def close(self) -> None:
        await self._session.close()


def _body(prompt: str, *, stream: bool = False) -> bytes:
    body: dict[str, object] = {"model": "gpt-4o", "messages": _messages(prompt), "temperature": 0.7}
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return json.dumps(body).encode()


def _messages(prompt: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}]


class OpenAISDK:
    def __init__(self, server: str) -> None:
        from openai import AsyncOpenAI

        self._client = AsyncOpenAI(base_url=f"{server}/v1", api_key=KEY)

    async def call(self, prompt: str) -> str:
        made: Any = await self._client.chat.completions.create(
            model="gpt-4o", messages=_messages(prompt), temperature=0.7
        )
        return made.choices[0].message.content

    async def stream(self, prompt: str) -> AsyncIterator[str]:
        chunks: Any = await self._client.chat.completions.create(
            model="gpt-4o",
            messages=_messages(prompt),
            temperature=0.7,
            stream=True,
            stream_options={"include_usage": True},
        )
        async for content in _contents(chunks):
            yield content

    async def others(self, prompt: str) -> list[str]:
        return []

    async def close(self) -> None:
        await self._client.close()


class LiteLLM:
    def __init__(self, server: str) -> None:
        os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it fetches its price list when imported
        import litellm

        litellm.telemetry = False
        self._complete: Any = litellm.acompletion
        self._server = server
        self._options = {"model": "openai/gpt-4o", "api_base": f"{server}/v1", "api_key": KEY, "temperature": 0.7}

    async def call(self, prompt: str) -> str:
        made = await self._complete(messages=_messages(prompt), **self._options)
        return made.choices[0].message.content

    async def stream(self, prompt: str) -> AsyncIterator[str]:
        asked = {"stream": True, "stream_options": {"include_usage": True}}
        chunks = await self._complete(messages=_messages(prompt), **asked, **self._options)
        async for content in _contents(chunks):
            yield content

    async def others(self, prompt: str) -> list[str]:
        places = {
            f"anthropic/{ANTHROPIC}": self._server,
            f"gemini/{GOOGLE}": f"{self._server}/v1beta",
            f"moonshot/{MOONSHOT}": f"{self._server}/v1",
        }
        return [
            (await self._complete(model=model, api_base=base, api_key=KEY, messages=_messages(prompt)))
            .choices[0]
            .message.content
            for model, base in places.items()
        ]

    async def close(self) -> None:
        return None


class PydanticAI:
    """Its requests to a model (`pydantic_ai.direct`), without an agent around them."""

    def __init__(self, server: str) -> None:
        from pydantic_ai import direct
        from pydantic_ai.messages import ModelRequest
        from pydantic_ai.models.openai import OpenAIChatModel
        from pydantic_ai.providers.openai import OpenAIProvider

        self._server = server
        self._direct: Any = direct
        self._turn: Any = ModelRequest.user_text_prompt
        self._model = OpenAIChatModel("gpt-4o", provider=OpenAIProvider(base_url=f"{server}/v1", api_key=KEY))
        self._settings = {"temperature": 0.7}

    async def call(self, prompt: str) -> str:
        made = await self._direct.model_request(self._model, [self._turn(prompt)], model_settings=self._settings)
        return made.text

    async def stream(self, prompt: str) -> AsyncIterator[str]:
        asked = self._direct.model_request_stream(self._model, [self._turn(prompt)], model_settings=self._settings)
        async with asked as events:
            async for event in events:
                if event.event_kind == "part_start":
                    yield event.part.content
                elif event.event_kind == "part_delta":
                    yield event.delta.content_delta

    async def others(self, prompt: str) -> list[str]:
        from openai import AsyncOpenAI
        from pydantic_ai.models.anthropic import AnthropicModel
        from pydantic_ai.models.google import GoogleModel
        from pydantic_ai.models.openai import OpenAIChatModel
        from pydantic_ai.providers.anthropic import AnthropicProvider
        from pydantic_ai.providers.google import GoogleProvider
        from pydantic_ai.providers.moonshotai import MoonshotAIProvider

        moonshot = MoonshotAIProvider(openai_client=AsyncOpenAI(base_url=f"{self._server}/v1", api_key=KEY))
        models = (
            AnthropicModel(ANTHROPIC, provider=AnthropicProvider(base_url=self._server, api_key=KEY)),
            GoogleModel(GOOGLE, provider=GoogleProvider(base_url=self._server, api_key=KEY)),
            OpenAIChatModel(MOONSHOT, provider=moonshot),
        )
        return [(await self._direct.model_request(model, [self._turn(prompt)])).text for model in models]

    async def close(self) -> None:
        return None


class AnyLLM:
    def __init__(self, server: str) -> None:
        from any_llm import AnyLLM

        self._made: Any = AnyLLM.create
        self._server = server
        self._client: Any = AnyLLM.create("openai", api_key=KEY, api_base=f"{server}/v1")

    async def call(self, prompt: str) -> str:
        made = await self._client.acompletion(model="gpt-4o", messages=_messages(prompt), temperature=0.7)
        return made.choices[0].message.content

    async def stream(self, prompt: str) -> AsyncIterator[str]:
        chunks = await self._client.acompletion(
            model="gpt-4o",
            messages=_messages(prompt),
            temperature=0.7,
            stream=True,
            stream_options={"include_usage": True},
        )
        async for content in _contents(chunks):
            yield content

    async def others(self, prompt: str) -> list[str]:
        places = (
            ("anthropic", ANTHROPIC, self._server),
            ("gemini", GOOGLE, self._server),
            ("moonshot", MOONSHOT, f"{self._server}/v1"),
        )
        texts = []
        for provider, model, base in places:
            client = self._made(provider, api_key=KEY, api_base=base)
            made = await client.acompletion(model=model, messages=_messages(prompt))
            texts.append(made.choices[0].message.content)
        return texts

    async def close(self) -> None:
        return None


class LangChain:
    def __init__(self, server: str) -> None:
        from langchain_openai import ChatOpenAI

        self._model: Any = ChatOpenAI(
            model="gpt-4o", base_url=f"{server}/v1", api_key=KEY, temperature=0.7, stream_usage=True
        )

    async def call(self, prompt: str) -> str:
        return (await self._model.ainvoke([("user", prompt)])).text

    async def stream(self, prompt: str) -> AsyncIterator[str]:
        async for chunk in self._model.astream([("user", prompt)]):
            if chunk.text:
                yield chunk.text

    async def others(self, prompt: str) -> list[str]:
        return []  # a package for each provider, and a class of its own

    async def close(self) -> None:
        return None


async def _contents(chunks: Any) -> AsyncIterator[str]:
    async for chunk in chunks:
        if chunk.choices and (content := chunk.choices[0].delta.content):
            yield content


CLIENTS: dict[str, Callable[[str], Client]] = {
    "agentflow": OurClient,
    "aiohttp": BareAiohttp,
    "openai": OpenAISDK,
    "any-llm": AnyLLM,
    "pydantic-ai": PydanticAI,
    "langchain-openai": LangChain,
    "litellm": LiteLLM,
}
