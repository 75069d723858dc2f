"""What a shared limiter gives: a reservation to come, and the reservation."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from types import TracebackType
from typing import Any

from agentflow.core.robustness.buckets import Need
from agentflow.integrations.valkey.share import Share

__all__ = ["SharedReservation", "SharedReserving"]


class SharedReservation:
    """What a call took. The first of `settle`, `cancel` and `release` counts; all are synchronous and raise nothing."""

    __slots__ = ("_close", "closed", "holder", "need", "share", "waited")

    def __init__(
        self, close: Callable[[SharedReservation, Need], None], holder: str, need: Need, share: Share | None
    ) -> None:
        self._close = close
        self.holder = holder
        self.need = need
        self.share = share  # None where the store granted it
        self.closed = False
        self.waited = 0.0

    def settle(
        self, *, input_tokens: int | None = None, output_tokens: int | None = None, tokens: int | None = None
    ) -> None:
        """The call has ended and took this much; None is as much as was reserved.

        `tokens` is the sum, for those who know no more: what it differs by is put down to the output where output was
        reserved, else to the input.
        """
        _, _, asked, answer = self.need
        if tokens is not None and input_tokens is None and output_tokens is None:
            input_tokens = min(asked, tokens) if answer else tokens
            output_tokens = tokens - input_tokens
        more_in = 0 if input_tokens is None else max(0, input_tokens) - asked
        more_out = 0 if output_tokens is None else max(0, output_tokens) - answer
        self._close(self, (0, more_in + more_out, more_in, more_out))

    def release(self) -> None:
        """It was sent, and nobody knows what it took: as much as was reserved."""
        self._close(self, (0, 0, 0, 0))

    def cancel(self) -> None:
        """It was never sent: all is given back."""
        need = self.need
        self._close(self, (-need[0], -need[1], -need[2], -need[3]))


class SharedReserving:
    """A reservation to come: `reservation = await it`, or `async with it as reservation`, once.

    At the end of the block the reservation is released, unless it was settled or cancelled inside.
    """

    __slots__ = ("_held", "_need", "_take", "_timeout")

    def __init__(
        self,
        take: Callable[[Need, float | None], Coroutine[Any, Any, SharedReservation]],
        need: Need,
        timeout: float | None,
    ) -> None:
        self._take = take
        self._need = need
        self._timeout = timeout
        self._held: SharedReservation | None = None

    def __await__(self) -> Generator[Any, None, SharedReservation]:
        return self._take(self._need, self._timeout).__await__()

    async def __aenter__(self) -> SharedReservation:
        self._held = held = await self
        return held

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._held is not None:
            self._held.release()
