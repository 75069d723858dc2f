"""A conversation in the terminal: the answer appears as it is written.

    python examples/chat.py [MODEL]          an empty line, `quit` or Ctrl-D ends it

    listen ─asked─▶ answer ─▶ listen …
      └────left───▶ END

Without a key the model is local/extractive, which quotes what it is told; name one that `agentflow models` lists.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Literal

from agentflow import END, AgentFlow, AsyncFlow, Key, Message, SharedState, node
from agentflow.errors import AgentFlowError

MODEL = Key[str | None]("model")
HISTORY = Key[list[Message]]("history")


@node
def listen(state: SharedState) -> Literal["asked", "left"]:
    """A sync node runs in a thread, so waiting for the keyboard stops nothing else."""
    try:
        said = input("you> ").strip()
    except EOFError:
        said = ""
    if said in ("", "quit", "exit"):
        return "left"
    state[HISTORY] = [*state[HISTORY], Message("user", said)]
    return "asked"


@node
async def answer(state: SharedState) -> None:
    talk = AgentFlow.model(state[MODEL]).system("You are a friendly companion. Be brief.")
    async with talk.messages(state[HISTORY]).execute_streaming() as chunks:
        print("\nit> ", end="", flush=True)
        async for chunk in chunks:
            print(chunk.content, end="", flush=True)
        print("\n")
        said = await chunks.text()
    state[HISTORY] = [*state[HISTORY], Message("assistant", said)]


flow = AsyncFlow(listen.on("asked") >> answer >> listen, listen.on("left") >> END, name="chat")


if __name__ == "__main__":
    try:
        asyncio.run(flow.run({"model": sys.argv[1] if sys.argv[1:] else None, "history": []}))
    except AgentFlowError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("\nbye")
