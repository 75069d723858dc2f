"""A call's demand for places, and labels for AgentFlow, are told to no provider, of which some would refuse them."""

from __future__ import annotations

from typing import Any

import pytest

from agentflow.llm.messages import Message, Request
from agentflow.llm.providers.anthropic.provider import AnthropicProvider
from agentflow.llm.providers.base import ProviderSettings, Secret
from agentflow.llm.providers.google.provider import GoogleProvider
from agentflow.llm.providers.moonshot import MoonshotProvider
from agentflow.llm.providers.openai.provider import OpenAIProvider


def bodies(kind: Any, **options: Any) -> Any:
    """What the provider's API writes for a request with these labels."""
    settings = ProviderSettings("openai", "openai", api_key=Secret("k" * 8), options=options)
    api = kind(settings).api

    def body(**labels: str) -> object:
        request = Request("m", (Message("user", "Hi"),), max_tokens=5, params={}, metadata=labels)
        return api.write(request, stream=False).body

    return body


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (OpenAIProvider, {}),
        (OpenAIProvider, {"api": "responses"}),
        (AnthropicProvider, {}),
        (GoogleProvider, {}),
        (MoonshotProvider, {}),
    ],
)
def test_the_demand_is_not_sent(kind: Any, options: dict[str, Any]) -> None:
    body = bodies(kind, **options)
    assert body(residency="eu", agentflow_kind="law") == body()


def test_other_labels_go_with_it() -> None:
    request = Request("m", (), metadata={"user_id": "u", "residency": "eu", "agentflow_cache": "off"})
    assert request.labels == {"user_id": "u"}
    assert Request("m", (), metadata={"user_id": "u"}).labels == {"user_id": "u"}
