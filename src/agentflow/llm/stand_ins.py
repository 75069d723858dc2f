"""The models that stand in for another one, in the order in which they are asked.

    model fails ──StandIns(request, error)──▶ the next one for such an error that can do what is asked, or None
    answer is recorded ──StandIns.named──▶ the one that gave it

Each is given away once, and its own stand-ins are not asked: no list can go in circles. One without a key, or that
cannot do it, is passed over, and the error has a note of that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from agentflow.core.robustness.notes import add_notes
from agentflow.errors import ConfigurationError
from agentflow.llm.attempts import Substitute
from agentflow.llm.config.model import StandIn
from agentflow.llm.fallbacks import stands_in
from agentflow.llm.messages import Request

__all__ = ["StandIns"]


class StandIns:
    """Those of one question. `make` asks a model, by its name, what another one was asked, and raises
    ConfigurationError where it cannot be asked."""

    __slots__ = ("_asked", "_left", "_make")

    def __init__(self, first: str, stand_ins: Sequence[StandIn], make: Callable[[str, Request], Substitute]) -> None:
        self._left = deque(stand_ins)
        self._asked = {first}
        self._make = make

    def __call__(self, request: Request, error: Exception) -> Substitute | None:
        """The next one for this error."""
        while self._left:
            stand_in = self._left.popleft()
            if stand_in.model in self._asked or not stands_in(stand_in.when, error):
                continue
            self._asked.add(stand_in.model)
            try:
                return self._make(stand_in.model, request)
            except ConfigurationError as unable:
                add_notes(error, [f"{stand_in.model} could not stand in: {unable}"])
        return None

    def named(self, model: str, request: Request) -> Substitute | None:
        """The one of that name, and those before it are given away, too. None where there is none that can be asked."""
        names = [stand_in.model for stand_in in self._left]
        if model not in names:
            return None
        for _ in range(names.index(model) + 1):
            self._asked.add(self._left.popleft().model)
        try:
            return self._make(model, request)
        except ConfigurationError:
            return None
