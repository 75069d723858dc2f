"""Invoices out of running text, as typed values: a model reads, a dataclass says what is wanted.

    python examples/extract.py mail.txt letters/
    cat mail.txt | python examples/extract.py - --model gpt-4o-mini
    agentflow run examples/extract.py mail.txt --output invoices.json

    read ─▶ extract from each (4 at a time) ─▶ lay out

Prints JSON: one list of all invoices found. On a terminal they are shown as they grow. To extract something else, write
other dataclasses: their names, docstrings and comments in `Annotated` are what the model is told. An answer that does
not fit them is asked for again, with the reason.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from dataclasses import asdict, dataclass
from datetime import date
from decimal import Decimal
from typing import Annotated

from rich.console import Console
from rich.json import JSON
from rich.live import Live

from agentflow import AgentFlow, AsyncFlow, Each, Key, SharedState, emit, node, storable
from agentflow.errors import AgentFlowError
from documents import Document, gather

ARGS, OUTPUT = Key[list[str]]("args"), Key[str]("output")
DOCUMENTS = Key[list[Document]]("documents")


# ---- what is wanted ------------------------------------------------------------------------------------------


@storable
@dataclass(frozen=True, slots=True)
class Item:
    """One thing that is charged for."""

    description: str
    quantity: Decimal
    unit_price: Decimal


@storable
@dataclass(frozen=True, slots=True)
class Invoice:
    """An invoice, as far as the text tells it; what the text does not say is null."""

    source: Annotated[str, "the name of the file, as it was given"]
    number: str | None
    seller: str | None
    buyer: str | None
    issued: date | None
    due: date | None
    currency: Annotated[str | None, "three letters, such as EUR"]
    items: list[Item]
    tax: Decimal | None
    total: Annotated[Decimal | None, "what is to be paid, tax included"]

    def __post_init__(self) -> None:
        """What cannot be true is refused; the model reads why, and answers again."""
        if self.issued and self.due and self.due < self.issued:
            raise ValueError("due is before issued")


FOUND = Key[list[list[Invoice]]]("found")


# ---- the flow ------------------------------------------------------------------------------------------------


@node(reads=ARGS, writes=DOCUMENTS)
def read(args: list[str]) -> list[Document]:
    return gather(args).documents


async def extract(document: Document) -> list[Invoice]:
    """The invoices of one text. Whoever watches the run sees them grow."""
    wanted = AgentFlow.model().output(list[Invoice])
    prompt = f"List the invoices in the text below; the list is empty where there are none.\n\n{document.name}:\n"
    async with wanted.prompt(prompt + document.text).execute_streaming() as answer:
        async for partial in answer.partials():
            await emit("partial", {"source": document.name, "invoices": partial})
        return await answer.value()


@node
async def lay_out(state: SharedState) -> None:
    invoices = [asdict(invoice) for found in state[FOUND] for invoice in found]
    state[OUTPUT] = json.dumps(invoices, indent=2, ensure_ascii=False, default=str)  # dates and decimals as text


flow = AsyncFlow(
    read >> Each(extract, over=DOCUMENTS, into=FOUND, concurrency=4, name="extract") >> lay_out, name="invoices"
)


# ---- the command line ----------------------------------------------------------------------------------------


async def main(args: list[str], model: str | None) -> None:
    if model is not None:
        AgentFlow.registry.set_default(model)
    console = Console(stderr=True)
    growing: dict[str, object] = {}
    with Live(console=console, transient=True) as live:
        async with flow.stream({"args": args}) as events:
            async for event in events:
                if event.kind == "partial" and console.is_terminal:
                    growing[str(event.data["source"])] = event.data["invoices"]
                    live.update(JSON.from_data(growing))
    print(events.result.state[OUTPUT])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Extract invoices from texts as JSON.")
    parser.add_argument("args", nargs="+", metavar="FILE", help="a text or a folder of texts; - is standard input")
    parser.add_argument("--model", help="one that answers in the shape of a schema; `agentflow models` lists them")
    said = parser.parse_args()
    try:
        asyncio.run(main(said.args, said.model))
    except AgentFlowError as error:
        sys.exit(f"error: {error.__cause__ or error}")
    except KeyboardInterrupt:
        sys.exit("\nstopped")
