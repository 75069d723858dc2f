"""A real run in Arize Phoenix: it shows the tree, and knows a model call, its tokens and texts for what they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.phoenix import Phoenix, phoenix
from tests.support.telling import MODEL, Telling

from agentflow import AgentFlow, AsyncFlow, node
from agentflow.core.observability import observe
from agentflow.integrations.opentelemetry import from_settings

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Phoenix]:
    with phoenix(tmp_path_factory.mktemp("phoenix")) as server:
        yield server


@pytest.mark.timeout(300)  # until it has started
async def test_phoenix_shows_a_run_as_the_tree_that_it_was(running: Phoenix) -> None:
    @node
    async def tell(state: dict[str, Any]) -> None:
        await AgentFlow.model("local/extractive").prompt("The sea rises.").execute()

    observer = from_settings({"endpoint": running.endpoint, "content": "SPAN_ONLY", "metrics": False, "timeout": 30})
    with observe(observer):
        await AsyncFlow(tell, name="article").run({})
    failing = Telling(observer, "failing", wall=1_790_000_000.0)
    model = failing.begin("model_start", "fast", MODEL)
    failing.end("model_error", model, {"error": "too many", "error_type": "RateLimitError"})
    observer.flush()
    observer.close()
    assert not observer.losses

    spans = {span["name"]: span for span in running.spans(5)}
    assert set(spans) == {"invoke_workflow article", "node tell", "chat extractive", "attempt", "chat gpt-4o"}
    for child, parent in (
        ("attempt", "chat extractive"),
        ("chat extractive", "node tell"),
        ("node tell", "invoke_workflow article"),
    ):
        assert spans[child]["parent_id"] == spans[parent]["context"]["span_id"]
        assert spans[child]["context"]["trace_id"] == spans[parent]["context"]["trace_id"]

    chat = spans["chat extractive"]
    said = chat["attributes"]
    assert said["gen_ai.operation.name"] == "chat"
    assert said["gen_ai.provider.name"] == "local"
    assert said["gen_ai.usage.output_tokens"] > 0
    assert said["agentflow.wait.generation"] > 0.0
    assert chat["span_kind"] == "LLM"  # Phoenix's own word, made of the conventions'
    assert said["llm.model_name"] == "extractive"
    assert said["llm.token_count.completion"] == said["gen_ai.usage.output_tokens"]
    assert "The sea rises." in str([value for name, value in said.items() if name.startswith("llm.input_messages")])
    assert (spans["chat gpt-4o"]["status_code"], spans["chat gpt-4o"]["status_message"]) == ("ERROR", "too many")
