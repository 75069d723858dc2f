"""A person decides in the middle, and what was booked is given back when it cannot be paid: a trip.

    agentflow run examples/approve.py Oslo              asks on the terminal; or leaves the run parked, and
    agentflow answer last yes                           answers it, today or next week
    agentflow run examples/approve.py Oslo -i budget=100    too dear: what was booked is undone, in reverse order

    flight ─▶ hotel ─▶ approve ─yes─▶ pay ─▶ END
                          └────no──▶ give_up: all is given back

Kill it anywhere and say `agentflow runs resume last`: nothing is booked twice.
"""

from __future__ import annotations

from typing import Literal

from agentflow import END, AsyncFlow, AsyncNode, Key, SharedState, idempotency_key, interrupt, node

ARGS, OUTPUT, BUDGET = Key[list[str]]("args"), Key[str]("output"), Key[int]("budget")
BOOKINGS = Key[dict[str, int]]("bookings")


class Book(AsyncNode[str, int]):
    """Books something, under a key that is the same however often the process dies in between."""

    def __init__(self, what: str, price: int) -> None:
        super().__init__(name=what)
        self.price = price

    async def prep(self, state: SharedState) -> str:
        return " ".join(state[ARGS]) or "Oslo"

    async def exec(self, where: str) -> int:
        print(f"booking a {self.name} in {where} (key {str(idempotency_key())[:8]})")
        return self.price

    async def post(self, state: SharedState, where: str, price: int) -> None:
        state[BOOKINGS] = {**state.get(BOOKINGS, {}), self.name: price}

    async def compensate(self, where: str, price: int) -> None:
        print(f"giving back the {self.name} in {where}")


@node
async def approve(state: SharedState) -> Literal["yes", "no"]:
    total = sum(state[BOOKINGS].values())
    go = await interrupt(f"Spend {total} euros?", state[BOOKINGS], schema=bool, timeout=7 * 86_400, default=False)
    return "yes" if go else "no"


@node
async def pay(state: SharedState) -> None:
    total = sum(state[BOOKINGS].values())
    if total > state.get(BUDGET, 1_000):
        raise ValueError(f"{total} euros are more than there are")
    state[OUTPUT] = f"paid {total} euros for {' and '.join(state[BOOKINGS])}"


@node
async def give_up(state: SharedState) -> None:
    raise ValueError("nobody wanted to go")


flow = AsyncFlow(
    Book("flight", 300) >> Book("hotel", 450) >> approve,
    approve.on("yes") >> pay >> END,
    approve.on("no") >> give_up >> END,
    name="trip",
)
