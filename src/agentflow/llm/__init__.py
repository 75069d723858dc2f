"""One async client for OpenAI, whatever follows its API, and local models.

The names below are resolved when first used, so that `import agentflow.llm` loads no HTTP client and no YAML parser.
"""

from importlib import import_module

TYPE_CHECKING = False  # type checkers take the name for true; importing `typing` would be most of this import's cost
if TYPE_CHECKING:
    from agentflow.llm.agentflow import AgentFlow
    from agentflow.llm.builder import LLMClientBuilder
    from agentflow.llm.client import LLMClient
    from agentflow.llm.config.registry import DefaultModel, ModelConfig, ModelRegistry
    from agentflow.llm.config.schema import ConfigurationWarning
    from agentflow.llm.messages import Json, Message, Request, Response, StreamChunk, Usage
    from agentflow.llm.node import LLMNode
    from agentflow.llm.providers.base import LLMProvider, ProviderFactory, ProviderSettings, Secret, Timeouts
    from agentflow.llm.providers.local import LocalProvider
    from agentflow.llm.providers.openai import OpenAIProvider
    from agentflow.llm.providers.scripted import ScriptedProvider
    from agentflow.llm.streaming.sse import SSEParser
    from agentflow.llm.streaming.stream import StreamingResponse

__all__ = [
    "AgentFlow",
    "ConfigurationWarning",
    "DefaultModel",
    "Json",
    "LLMClient",
    "LLMClientBuilder",
    "LLMNode",
    "LLMProvider",
    "LocalProvider",
    "Message",
    "ModelConfig",
    "ModelRegistry",
    "OpenAIProvider",
    "ProviderFactory",
    "ProviderSettings",
    "Request",
    "Response",
    "SSEParser",
    "ScriptedProvider",
    "Secret",
    "StreamChunk",
    "StreamingResponse",
    "Timeouts",
    "Usage",
]

_HOMES = {
    "agentflow": "AgentFlow",
    "builder": "LLMClientBuilder",
    "client": "LLMClient",
    "config.registry": "DefaultModel ModelConfig ModelRegistry",
    "config.schema": "ConfigurationWarning",
    "messages": "Json Message Request Response StreamChunk Usage",
    "node": "LLMNode",
    "providers.base": "LLMProvider ProviderFactory ProviderSettings Secret Timeouts",
    "providers.local": "LocalProvider",
    "providers.openai": "OpenAIProvider",
    "providers.scripted": "ScriptedProvider",
    "streaming.sse": "SSEParser",
    "streaming.stream": "StreamingResponse",
}
_HOME_OF = {name: f"{__name__}.{home}" for home, names in _HOMES.items() for name in names.split()}

if not TYPE_CHECKING:  # a type checker that saw __getattr__ would believe in every name

    def __getattr__(name: str) -> object:
        if name not in _HOME_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_HOME_OF[name]), name)
        return value

    def __dir__() -> list[str]:
        return [*globals(), *__all__]
