"""Nodes whose exec runs in worker processes: another process must be able to import them."""

from __future__ import annotations

import os
from pathlib import Path
from threading import Lock

from agentflow import AsyncNode, Key, Node, RetryPolicy, SharedState, node
from agentflow.core.robustness import idempotency_key

NUMBER = Key[int]("number")
RESULT = Key[object]("result")
NOTE = Key[str]("note")


class Scale(Node[int, int], on="process"):
    """prep and post here, exec there, with the attributes of the node."""

    def __init__(self, factor: int) -> None:
        super().__init__(retry=RetryPolicy(max_attempts=1), timeout=60.0)
        self.factor = factor

    def prep(self, state: SharedState) -> int:
        return state[NUMBER]

    def exec(self, number: int) -> int:
        return self.factor * number

    def post(self, state: SharedState, number: int, result: int) -> None:
        state[RESULT] = (result, os.getpid())


class Slow(AsyncNode[int, int]):
    """Of an async class, which says nothing of processes itself."""

    async def prep(self, state: SharedState) -> int:
        return state[NUMBER]

    async def exec(self, number: int) -> tuple[int, int]:
        return 2 * number, os.getpid()

    async def post(self, state: SharedState, number: int, result: tuple[int, int]) -> None:
        state[RESULT] = result


class Locked(Node[None, None], on="process"):
    def __init__(self) -> None:
        self.lock = Lock()


@node(reads=NUMBER, writes=RESULT, on="process")
def square(number: int) -> tuple[int, int]:
    return number * number, os.getpid()


@node(reads=("number", "note"), writes=("result", "pid"), on="process")
def pair(number: int, note: str) -> tuple[str, int]:
    return f"{note}{number}", os.getpid()


@node(reads=NOTE, writes=RESULT, on="process", retry=RetryPolicy(max_attempts=2, base_delay=0.0))
def dies_once(note: str) -> int:
    if not Path(note).exists():
        Path(note).touch()
        os.kill(os.getpid(), 9)
    return os.getpid()


@node(reads=NUMBER, writes=RESULT, on="process", timeout=60.0)
def key(_: int) -> str | None:
    return idempotency_key()


def key_at_hand() -> str | None:
    return idempotency_key()
