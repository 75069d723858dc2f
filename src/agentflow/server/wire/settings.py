"""What chats and completions ask for alike: how the answer is chosen, where it ends, whether it streams.

What a model here would not hear is refused rather than passed over; what says nothing (a penalty of 0, no bias), what
is but a hint (user, service_tier) and what nothing here does (store) is taken and left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, TypeAlias

from msgspec import Meta, Struct

from agentflow.llm.content import Json
from agentflow.server.wire.reading import refuse

__all__ = [
    "Amount",
    "Bias",
    "Count",
    "Penalty",
    "Share",
    "Stop",
    "StreamOptions",
    "Temperature",
    "params_of",
    "stop_of",
]

Amount: TypeAlias = Annotated[int, Meta(ge=1)]
Count: TypeAlias = Annotated[int, Meta(ge=1, le=128)]
Temperature: TypeAlias = Annotated[float, Meta(ge=0, le=2)]
Share: TypeAlias = Annotated[float, Meta(ge=0, le=1)]
Penalty: TypeAlias = Annotated[float, Meta(ge=-2, le=2)]
Bias: TypeAlias = dict[str, Annotated[float, Meta(ge=-100, le=100)]]
Stop: TypeAlias = str | list[str]

_MOST_STOPS: Final = 16  # OpenAI takes 4, others more


class StreamOptions(Struct):
    """`include_obfuscation` pads chunks against whoever counts their bytes; on loopback nobody does."""

    include_usage: bool = False
    include_obfuscation: bool = False


def stop_of(stop: Stop | None) -> tuple[str, ...] | None:
    """The words at which an answer ends; None where nothing is said. Raises Refusal."""
    if stop is None:
        return None
    words = (stop,) if isinstance(stop, str) else tuple(stop)
    if not all(words):
        refuse("stop", "an empty text stops every answer before it begins")
    if len(words) > _MOST_STOPS:
        refuse("stop", f"there are {len(words)} texts, and at most {_MOST_STOPS} are allowed")
    return words or None


def params_of(**said: Json) -> Mapping[str, Json]:
    """What goes to the provider as it stands, if it says anything."""
    return {name: value for name, value in said.items() if value}
