"""A resource that a pool has lent, until it is given back.

    lease = await pool.acquire()
    lease.resource.send(…)
    lease.release()                       or lease.invalidate(), if it must not be used again; `with lease:` does either

A lease that is forgotten (collected by the garbage collector before it is given back) gives its slot back and warns.
What it held is closed and not lent again: nobody knows in which state it was left, or who still uses it.
"""

from __future__ import annotations

import sys
import traceback
import warnings
from collections.abc import Generator
from types import FrameType, TracebackType
from typing import Any, Final, Generic, Protocol, TypeVar

from agentflow.core.robustness.pool_slots import Claim, Entry

__all__ = ["Acquiring", "Lease", "Lender", "Trace"]

R = TypeVar("R")

_OWN: Final = __name__.rpartition(".")[0] + "."  # frames of ours say nothing
_FRAMES: Final = 12  # of a trace: enough to find the caller, and cheap


class Trace:
    """Where and when a resource was acquired."""

    __slots__ = ("_stack", "since")

    def __init__(self, since: float) -> None:
        self.since = since
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_globals.get("__name__", "").startswith(_OWN):
            frame = frame.f_back
        frames = traceback.walk_stack(frame)
        self._stack = traceback.StackSummary.extract(frames, limit=_FRAMES, lookup_lines=False)
        self._stack.reverse()  # the innermost call last, as in any traceback

    def __str__(self) -> str:
        return "".join(self._stack.format()).rstrip()


class Lender(Protocol[R]):
    """The pool, as a lease sees it."""

    @property
    def discard_on(self) -> tuple[type[BaseException], ...]: ...

    def take_now(self) -> Lease[R] | Claim[R]:
        """A lease, or the claim that `take_slowly` goes on with."""
        ...

    async def take_slowly(self, claim: Claim[R], timeout: float | None) -> Lease[R]: ...

    def take_back(self, entry: Entry[R], lending: int, why: str | None) -> None:
        """From any thread; without effect where that lending is over."""
        ...

    def lost(self, entry: Entry[R], lending: int) -> str:
        """The lease was collected: from any thread, between any two instructions. Returns what to warn of."""
        ...


class Lease(Generic[R]):
    """`release` and `invalidate` are synchronous, cannot raise, and only the first of them counts; any thread may call
    them. As a context manager it releases, or invalidates if the block ends with one of the pool's `discard_on`."""

    __slots__ = ("_ended", "_entry", "_lender", "_lending")

    def __init__(self, lender: Lender[R], entry: Entry[R]) -> None:
        entry.lending += 1
        self._lender = lender
        self._entry = entry
        self._lending = entry.lending
        self._ended = False  # whether this lease was given back; the pool may hear of it a moment later

    @property
    def resource(self) -> R:
        """What was lent. RuntimeError once it is given back: somebody else may have it by now."""
        if self.released:
            raise RuntimeError("the lease was released, so its resource may be somebody else's")
        return self._entry.resource

    @property
    def released(self) -> bool:
        return self._ended or self._entry.lending != self._lending

    def release(self) -> None:
        """Give it back, for the next one to use."""
        self._ended = True
        self._lender.take_back(self._entry, self._lending, None)

    def invalidate(self) -> None:
        """Give it back to be closed: it is broken, or in a state that nobody knows."""
        self._ended = True
        self._lender.take_back(self._entry, self._lending, "invalidated")

    def __enter__(self) -> Lease[R]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        why = "discard_on" if error is not None and isinstance(error, self._lender.discard_on) else None
        self._ended = True
        self._lender.take_back(self._entry, self._lending, why)

    def __del__(self) -> None:
        if not self.released:
            message = self._lender.lost(self._entry, self._lending)
            warnings.warn(message, ResourceWarning, stacklevel=2, source=self)


class Acquiring(Generic[R]):
    """`await` gives a lease; `async with` gives the resource itself, until the block ends."""

    __slots__ = ("_lease", "_lender", "_timeout")

    def __init__(self, lender: Lender[R], timeout: float | None) -> None:
        self._lender = lender
        self._timeout = timeout
        self._lease: Lease[R] | None = None

    def __await__(self) -> Generator[Any, None, Lease[R]]:
        return self._take().__await__()

    async def _take(self) -> Lease[R]:
        taken = self._lender.take_now()
        return taken if isinstance(taken, Lease) else await self._lender.take_slowly(taken, self._timeout)

    async def __aenter__(self) -> R:
        if self._lease is not None:
            raise RuntimeError("this acquire() is in use already: call pool.acquire() for each block")
        taken = self._lender.take_now()
        lease = taken if isinstance(taken, Lease) else await self._lender.take_slowly(taken, self._timeout)
        self._lease = lease
        return lease._entry.resource

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.__exit__(kind, error, trace)
