"""Other systems by name: what an installed package offers in the entry-point group `agentflow.integrations`.

    integration("valkey", "defaults.shared")   ──▶  the function that makes one of its settings

models.yml can so name a system without an import, and nothing of it is loaded before it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from typing import Final, cast

from agentflow.errors import ConfigurationError, describe

__all__ = ["integration"]

_GROUP: Final = "agentflow.integrations"


def integration(name: str, where: str) -> Callable[..., object]:
    """Raises ConfigurationError for a name that nobody offers; `where` is the place in models.yml that names it."""
    from importlib.metadata import entry_points

    known = {entry.name: entry for entry in entry_points(group=_GROUP)}
    if name not in known:
        close = get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(sorted(known)) or 'none'}"
        raise ConfigurationError(
            f"{where}: there is no integration {name!r}; {hint} (others come with the package that offers them)"
        )
    try:
        return cast("Callable[..., object]", known[name].load())
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(
            f"{where}: the integration {name!r} ({known[name].value}) does not load: {describe(error)}"
        ) from error
