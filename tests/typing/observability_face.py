"""What an editor knows of the watching part of the face; checked by mypy and pyright, never run."""

from __future__ import annotations

from typing import assert_type

from agentflow import AgentFlow, AsyncFlow, LLMNode, Response, SharedState, node
from agentflow.core import ExecutionEvent, Flow, FlowResult, Observation, Observer, observe


class Printing:
    inline = True

    def observe(self, event: ExecutionEvent) -> None:
        print(event.kind, event.run_id, event.data.get("model"))


@node
async def work(state: SharedState) -> None:
    state["x"] = 1


@node(reads="topic", writes="draft", check=lambda draft: len(draft) > 10)
async def write(topic: str) -> str:
    return topic


async def judged(draft: str) -> float:
    return 0.5


async def watching() -> None:
    watcher: Observer = Printing()
    with observe(watcher) as observation:
        assert_type(observation, Observation)
        assert_type(observation.dropped, int)
    flow = AsyncFlow(work >> write)
    assert_type(await flow.run({}, observers=[watcher]), FlowResult)
    assert_type(Flow(work).run({}, observers=[Printing()]), FlowResult)
    LLMNode("gpt-4o", prompt="Hi", writes="draft", check=judged)


async def answers() -> None:
    reply = await AgentFlow.model("gpt-4o").prompt("Hi").execute_full()
    assert_type(reply, Response)
    assert_type(reply.run_id, str | None)
