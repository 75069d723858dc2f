"""Resident memory of a process that makes one model call, then one through each of many further providers.

    python benchmarks/config_memory.py asyncio|aiohttp|agentflow PORT [PROVIDERS]      prints JSON, megabytes and KB

It imports nothing that the call does not need, so that the number is the library's.
"""

import asyncio
import os
import sys


def resident() -> float:
    """Bytes of this process that lie in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def asyncio_alone(url: str, providers: int) -> None:
    said({"resident": resident() / 1e6})


async def aiohttp(url: str, providers: int) -> None:
    import aiohttp

    async with aiohttp.ClientSession() as session, session.post(f"{url}/chat/completions", data=b"{}") as response:
        await response.read()
    said({"resident": resident() / 1e6})


async def agentflow(url: str, providers: int) -> None:
    from agentflow import AgentFlow
    from agentflow.llm.providers.base import ProviderSettings
    from agentflow.llm.providers.openai.provider import OpenAIProvider

    def made(settings: ProviderSettings) -> OpenAIProvider:
        return OpenAIProvider(ProviderSettings(name=settings.name, kind="openai", base_url=url))

    async def call(name: str) -> None:
        AgentFlow.registry.register_provider(name, made)
        assert await AgentFlow.model(f"{name}/gpt-4o").prompt("Explain the tides.").execute()

    await call("first")
    first = resident()
    for number in range(providers):
        await call(f"lab{number}")
    said({"resident": first / 1e6, "provider": (resident() - first) / max(providers, 1) / 1e3})
    await AgentFlow.aclose()


def said(facts: dict[str, float]) -> None:
    import json

    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    kinds = {"asyncio": asyncio_alone, "aiohttp": aiohttp, "agentflow": agentflow}
    count = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    asyncio.run(kinds[sys.argv[1]](f"http://127.0.0.1:{sys.argv[2]}/v1", count))
