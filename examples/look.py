"""A question about pictures, PDFs, texts or recordings: a prompt of several parts.

    python examples/look.py cat.png "What is this?"
    python examples/look.py before.jpg after.jpg "What has changed?" --model gpt-4o-mini
    agentflow run examples/look.py invoice.pdf "What is to be paid, and by when?"

    files, addresses ─▶ parts ─▶ ask

The last argument is the question, unless it names a file. It needs a model that takes what you show it: the default
one, or the one given with --model.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from agentflow import AgentFlow, AsyncFlow, Audio, Document, Image, Key, node
from agentflow.errors import AgentFlowError, DocumentError
from agentflow.llm import attachment

ARGS, OUTPUT = Key[list[str]]("args"), Key[str]("output")
PARTS, QUESTION = Key[list[Image | Document | Audio]]("parts"), Key[str]("question")

ADDRESSES = ("http://", "https://")
USUAL_QUESTION = "Describe what you see, hear or read here, in a few sentences."


@node(reads=ARGS, writes=(PARTS, QUESTION))
def see(args: list[str]) -> tuple[list[Image | Document | Audio], str]:
    *places, last = args or [""]
    if Path(last).is_file() or not places:
        places, last = [*places, last], USUAL_QUESTION
    return [part(place) for place in places], last


def part(place: str) -> Image | Document | Audio:
    """The part that a file, or an address, is by the end of its name. It is read when the request is made."""
    if not place:
        raise DocumentError('nothing to look at: name a file and a question, as in cat.png "What is this?"')
    if not place.startswith(ADDRESSES) and not Path(place).is_file():
        raise DocumentError(f"{place}: no such file; check the spelling, from {Path.cwd()}")
    return attachment(place)


@node(reads=(PARTS, QUESTION), writes=OUTPUT)
async def ask(parts: list[Image | Document | Audio], question: str) -> str:
    return await AgentFlow.model().prompt(*parts, question).streaming().execute()


flow = AsyncFlow(see >> ask, name="look")


async def main(args: list[str], model: str | None) -> None:
    """The words of the answer, as they come."""
    if model is not None:
        AgentFlow.registry.set_default(model)
    async with flow.stream({"args": args}) as events:
        async for event in events:
            if event.kind == "chunk":
                print(event.data["content"], end="", flush=True)
    print()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Ask a model about files.")
    parser.add_argument("args", nargs="+", metavar="FILE… QUESTION", help="files or addresses, and then the question")
    parser.add_argument("--model", help="one that takes such files; `agentflow models` lists them")
    said = parser.parse_args()
    try:
        asyncio.run(main(said.args, said.model))
    except AgentFlowError as error:
        sys.exit(f"error: {error.__cause__ or error}")
    except KeyboardInterrupt:
        sys.exit("\nstopped")
