"""A model call as a node."""

from __future__ import annotations

import pytest

from agentflow.core import AsyncFlow, Each, Key, RetryPolicy, SharedState
from agentflow.errors import GraphError, NodeError, ServerError
from agentflow.llm.agentflow import AgentFlow
from agentflow.llm.builder import LLMClientBuilder
from agentflow.llm.config.registry import ModelRegistry
from agentflow.llm.node import LLMNode
from agentflow.llm.providers.scripted import ScriptedProvider

TOPIC, DRAFT, TOPICS, DRAFTS = Key[str]("topic"), Key[str]("draft"), Key[list[str]]("topics"), Key[list[str]]("drafts")


def scripted(provider: ScriptedProvider) -> LLMClientBuilder:
    """A builder whose one model is the given test double."""
    registry = ModelRegistry.load(environ={})
    registry.register_provider("double", lambda settings: provider)
    return AgentFlow.model("double/any", registry=registry)


async def test_the_state_fills_the_prompt_and_takes_the_answer() -> None:
    double = ScriptedProvider(["All about tides."])
    node = LLMNode(scripted(double), prompt="Write about {topic}.", reads=TOPIC, writes=DRAFT, system="Be brief.")

    result = await AsyncFlow(node).run({"topic": "tides"})

    assert result.state[DRAFT] == "All about tides."
    assert [(turn.role, turn.content) for turn in double.requests[0].messages] == [
        ("system", "Be brief."),
        ("user", "Write about tides."),
    ]


async def test_its_pieces_are_chunk_events_of_a_watched_run() -> None:
    node = LLMNode(scripted(ScriptedProvider(["one two three"])), prompt="Count.", writes=DRAFT, name="count")
    pieces: list[object] = []
    kinds: list[str] = []

    async with AsyncFlow(node, name="f").stream() as events:
        async for event in events:
            kinds.append(event.kind)
            if event.kind == "chunk":
                pieces.append(event.data["content"])
                assert event.path == "f/count#1"

    assert "".join(map(str, pieces)) == "one two three"
    assert len(pieces) > 1
    assert kinds[:3] == ["flow_start", "node_start", "model_start"]
    assert kinds[-3:] == ["model_success", "node_success", "flow_success"]


async def test_each_asks_once_for_every_item() -> None:
    double = ScriptedProvider(lambda request: request.prompt.upper())
    node = LLMNode(scripted(double), prompt="{topic}", writes=DRAFT)
    flow = AsyncFlow(Each(node, over=TOPICS, into=DRAFTS, item=TOPIC))

    result = await flow.run({"topics": ["a", "b", "c"]})

    assert result.state[DRAFTS] == ["A", "B", "C"]


async def test_braces_in_values_are_left_alone() -> None:
    double = ScriptedProvider(["ok"])
    node = LLMNode(scripted(double), prompt="{{literally}} {topic}", writes=DRAFT)

    await AsyncFlow(node).run({"topic": "{draft} {0}"})

    assert double.requests[0].prompt == "{literally} {draft} {0}"


async def test_a_failing_model_is_a_node_error_with_its_cause() -> None:
    builder = scripted(ScriptedProvider([ServerError("down")])).retry(RetryPolicy(max_attempts=1))

    with pytest.raises(NodeError) as caught:
        await AsyncFlow(LLMNode(builder, prompt="Hello", writes=DRAFT), name="f").run()

    assert isinstance(caught.value.__cause__, ServerError)
    assert caught.value.node == "f/ask_draft#1"


async def test_a_call_bears_the_tenant_of_its_run() -> None:
    node = LLMNode(scripted(ScriptedProvider(["x"])), prompt="Hello", writes=DRAFT)
    async with AsyncFlow(node).stream(tenant="acme") as events:
        starts = [event.data async for event in events if event.kind == "model_start"]
    assert starts[0]["tenant"] == "acme"


@pytest.mark.parametrize(
    ("prompt", "reads", "complaint"),
    [
        ("{topic} {other}", TOPIC, "reads= does not list"),
        ("no names", TOPIC, "has no {topic}"),
        ("{topic", None, "braces"),
        ("{topic.__class__}", None, "no name of a key"),
        ("{}", None, "no name of a key"),
        ("{topic:{other}}", None, "{topic:{other}} is no name of a key"),
    ],
)
def test_prompt_and_reads_must_agree(prompt: str, reads: Key[str] | None, complaint: str) -> None:
    with pytest.raises(GraphError, match=complaint):
        LLMNode("gpt-4o", prompt=prompt, reads=reads, writes=DRAFT)


async def test_a_missing_key_names_the_node() -> None:
    node = LLMNode(scripted(ScriptedProvider(["x"])), prompt="{topic}", writes=DRAFT)
    with pytest.raises(NodeError, match=r"ask_draft#1 failed in prep.*'topic'"):
        await AsyncFlow(node).run(SharedState({"topics": []}))
