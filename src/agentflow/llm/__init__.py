"""One async client for OpenAI, whatever follows its API, and local models.

The names below are resolved when first used, so that `import agentflow.llm` loads no HTTP client and no YAML parser.
"""

from importlib import import_module

TYPE_CHECKING = False  # type checkers take the name for true; importing `typing` would be most of this import's cost
if TYPE_CHECKING:
    from agentflow.llm.agentflow import AgentFlow
    from agentflow.llm.builder import LLMClientBuilder
    from agentflow.llm.client import LLMClient
    from agentflow.llm.config.model import ModelConfig
    from agentflow.llm.config.prices import PriceTable
    from agentflow.llm.config.registry import DefaultModel, ModelRegistry
    from agentflow.llm.content import (
        Audio,
        Content,
        Document,
        Image,
        Json,
        Part,
        Raw,
        Reasoning,
        Text,
        ToolCall,
        ToolResult,
    )
    from agentflow.llm.conversation import Conversation
    from agentflow.llm.media import attachment
    from agentflow.llm.messages import (
        Alternative,
        EmbeddingRequest,
        Embeddings,
        Message,
        ModelInfo,
        OutputFormat,
        PromptCache,
        Request,
        Response,
        StreamChunk,
        Thinking,
        TokenLogprob,
        Tool,
        ToolCallDelta,
        Usage,
    )
    from agentflow.llm.node import LLMNode
    from agentflow.llm.output import OutputType
    from agentflow.llm.providers.anthropic.provider import AnthropicProvider
    from agentflow.llm.providers.api import Api, Auth, HTTPProvider, Reading, Wire
    from agentflow.llm.providers.base import (
        EmbeddingProvider,
        LLMProvider,
        ModelLister,
        ProviderFactory,
        ProviderSettings,
        Secret,
        Timeouts,
        TokenCounter,
        TokenSource,
    )
    from agentflow.llm.providers.google.provider import GoogleProvider
    from agentflow.llm.providers.local import LocalProvider
    from agentflow.llm.providers.moonshot import MoonshotProvider
    from agentflow.llm.providers.openai.provider import OpenAIProvider
    from agentflow.llm.providers.scripted import ScriptedProvider
    from agentflow.llm.streaming.sse import SSEParser
    from agentflow.llm.streaming.stream import StreamingResponse
    from agentflow.llm.tools import FunctionTool, function_tool

__all__ = [
    "AgentFlow",
    "Alternative",
    "AnthropicProvider",
    "Api",
    "Audio",
    "Auth",
    "Content",
    "Conversation",
    "DefaultModel",
    "Document",
    "EmbeddingProvider",
    "EmbeddingRequest",
    "Embeddings",
    "FunctionTool",
    "GoogleProvider",
    "HTTPProvider",
    "Image",
    "Json",
    "LLMClient",
    "LLMClientBuilder",
    "LLMNode",
    "LLMProvider",
    "LocalProvider",
    "Message",
    "ModelConfig",
    "ModelInfo",
    "ModelLister",
    "ModelRegistry",
    "MoonshotProvider",
    "OpenAIProvider",
    "OutputFormat",
    "OutputType",
    "Part",
    "PriceTable",
    "PromptCache",
    "ProviderFactory",
    "ProviderSettings",
    "Raw",
    "Reading",
    "Reasoning",
    "Request",
    "Response",
    "SSEParser",
    "ScriptedProvider",
    "Secret",
    "StreamChunk",
    "StreamingResponse",
    "Text",
    "Thinking",
    "Timeouts",
    "TokenCounter",
    "TokenLogprob",
    "TokenSource",
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "ToolResult",
    "Usage",
    "Wire",
    "attachment",
    "function_tool",
]

_HOMES = {
    "agentflow": "AgentFlow",
    "builder": "LLMClientBuilder",
    "client": "LLMClient",
    "config.model": "ModelConfig",
    "config.registry": "DefaultModel ModelRegistry",
    "content": "Audio Content Document Image Json Part Raw Reasoning Text ToolCall ToolResult",
    "conversation": "Conversation",
    "media": "attachment",
    "messages": """
        Alternative EmbeddingRequest Embeddings Message ModelInfo OutputFormat PromptCache Request Response
        StreamChunk Thinking TokenLogprob Tool ToolCallDelta Usage
    """,
    "node": "LLMNode",
    "output": "OutputType",
    "config.prices": "PriceTable",
    "providers.anthropic": "AnthropicProvider",
    "providers.api": "Api Auth HTTPProvider Reading Wire",
    "providers.base": """
        EmbeddingProvider LLMProvider ModelLister ProviderFactory ProviderSettings Secret Timeouts
        TokenCounter TokenSource
    """,
    "providers.google": "GoogleProvider",
    "providers.local": "LocalProvider",
    "providers.moonshot": "MoonshotProvider",
    "providers.openai": "OpenAIProvider",
    "providers.scripted": "ScriptedProvider",
    "streaming.sse": "SSEParser",
    "streaming.stream": "StreamingResponse",
    "tools": "FunctionTool function_tool",
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
