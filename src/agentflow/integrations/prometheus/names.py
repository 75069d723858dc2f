"""Names and label values as Prometheus takes them, whatever they were.

    "model_calls", counter      ──▶  agentflow_model_calls (its sample: agentflow_model_calls_total)
    "Orders.perHour", gauge     ──▶  agentflow_orders_per_hour
    label "user-agent"          ──▶  user_agent

Two names that become one are the caller's affair (families.py): here each is looked at alone. Values of labels may be
any text; what no UTF-8 can hold (half a surrogate pair) becomes a question mark.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final, Literal

from agentflow.errors import ConfigurationError
from agentflow.integrations.prometheus.catalogue import UNITS

__all__ = ["Kind", "checked_prefix", "family_name", "label_names", "label_value", "number", "unit_of"]

Kind = Literal["counter", "gauge", "histogram"]

_RESERVED: Final = ("_total", "_created", "_bucket", "_count", "_sum", "_gcount", "_gsum", "_info")
_LONGEST: Final = 1024  # characters of a label's value: what is beyond says nothing in a graph
_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def family_name(prefix: str, name: str) -> str:
    """The name of the family: snake case, the prefix before it, none of the endings that Prometheus adds itself."""
    plain = _snake(name)
    while plain.endswith(_RESERVED):
        plain = plain[: plain.rindex("_")].rstrip("_")
    return f"{prefix}_{plain or 'unnamed'}"


def unit_of(family: str) -> str:
    """The base unit that the name ends in, or nothing."""
    return next((unit for unit in UNITS if family.endswith(f"_{unit}")), "")


def label_names(labels: Iterable[str], taken: Iterable[str] = ()) -> Mapping[str, str]:
    """The name that each label gets, all different: a second one that would be the same gets a number.

    `taken` are names that mean something else, such as a histogram's `le`.
    """
    used = set(taken)
    names: dict[str, str] = {}
    for label in sorted(labels):
        plain = _snake(label) or "label"
        name, number = plain, 2
        while name in used:
            name, number = f"{plain}_{number}", number + 1
        used.add(name)
        names[label] = name
    return names


def label_value(value: object) -> str:
    """Any text, of a length that can be shown."""
    text = str(value)
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST - 1]}…"
    return text.encode("utf-8", "replace").decode("utf-8")


def number(bound: float) -> str:
    """A bound of a bucket as it stands in `le`: `0.1`, `1.0`, `+Inf`, as other clients write it."""
    return "+Inf" if bound == float("inf") else repr(float(bound))


def checked_prefix(prefix: str) -> str:
    """The first part of all names. Raises ConfigurationError for what cannot begin one."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", prefix):
        raise ConfigurationError(f"prefix must be words in lower case joined by underscores, not {prefix!r}")
    return prefix


def _snake(name: str) -> str:
    """Lower case, digits and single underscores; it begins with a letter."""
    plain = re.sub(r"[^a-z0-9]+", "_", _CAMEL.sub("_", name).lower()).strip("_")
    return f"n{plain}" if plain[:1].isdigit() else plain
