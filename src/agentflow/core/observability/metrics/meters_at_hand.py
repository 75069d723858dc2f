"""Which meters an event is about: looked up once by name, and then at hand.

    at_hand.of(event)                  those of its node, flow, model, tool, or of the attempts at its model
    at_hand.nodes_of("article")        {"write": …, "judge": …}, which a run of that flow looks its nodes up in

A flow within a flow is a visit of a node of the outer one, as that is where it stands. The items of an `Each` called
`look` are visits of `look[]`, so that they are not mixed up with its own. At most as many of a kind are at hand as a
metric may have series; of what is beyond, meters are made for the moment.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, TypeVar

from agentflow.core.observability.events import ExecutionEvent
from agentflow.core.observability.metrics.families import Families
from agentflow.core.observability.metrics.span_meters import ATTEMPT, FLOW, MODEL, NODE, TOOL, SpanMeters, Spec, text

__all__ = ["ITEM", "MetersAtHand", "asked", "flow_of"]

K = TypeVar("K")

ITEM: Final = "[]"


class MetersAtHand:
    """The meters of nodes, flows, models, attempts and tools. Not made for several threads at once."""

    def __init__(self, families: Families) -> None:
        self._families = families
        self._flows: dict[str, SpanMeters] = {}
        self._nodes: dict[str, dict[str, SpanMeters]] = {}
        self.models: dict[tuple[str, str], SpanMeters] = {}
        self._attempts: dict[tuple[str, str], SpanMeters] = {}
        self._tools: dict[str, SpanMeters] = {}
        self._room = families.most  # for nodes of all flows

    def of(self, event: ExecutionEvent) -> SpanMeters:
        what = event.kind.partition("_")[0]
        if what == "node" or (what == "flow" and event.parent is not None):
            is_item = event.path.rfind("/") > event.path.rfind("#")  # its path ends in the number of the item
            return self.node(event, event.node + ITEM if is_item else event.node)
        if what == "flow":
            return self.flow(event)
        if what == "tool":
            tool = text(event.data.get("tool"))
            return self._tools.get(tool) or self._kept(self._tools, tool, TOOL, {"tool": tool}, tool)
        kept, spec = (self.models, MODEL) if what == "model" else (self._attempts, ATTEMPT)
        provider, model = key = asked(event.data)
        return kept.get(key) or self._kept(kept, key, spec, {"provider": provider, "model": model}, model)

    def flow(self, event: ExecutionEvent) -> SpanMeters:
        """Of the outermost flow."""
        flow = flow_of(event)
        return self._flows.get(flow) or self._kept(self._flows, flow, FLOW, {"flow": flow}, flow)

    def node(self, event: ExecutionEvent, node: str) -> SpanMeters:
        flow = flow_of(event)
        at_hand = self.nodes_of(flow)
        found = at_hand.get(node)
        if found is None:
            found = SpanMeters(self._families, NODE, {"flow": flow, "node": node}, node)
            if self._room > 0 and flow in self._nodes:
                self._room -= 1
                found.keep()
                at_hand[node] = found
        return found

    def nodes_of(self, flow: str) -> dict[str, SpanMeters]:
        at_hand = self._nodes.get(flow)
        if at_hand is None:
            at_hand = {}
            if len(self._nodes) < self._families.most:
                self._nodes[flow] = at_hand
        return at_hand

    def nodes(self) -> Iterator[SpanMeters]:
        """All nodes at hand."""
        for at_hand in self._nodes.values():
            yield from at_hand.values()

    def _kept(
        self, at_hand: dict[K, SpanMeters], key: K, spec: Spec, labels: Mapping[str, str], name: str
    ) -> SpanMeters:
        """New meters, at hand from now on if there is room."""
        meters = SpanMeters(self._families, spec, labels, name)
        if len(at_hand) < self._families.most:
            at_hand[key] = meters
        return meters


def flow_of(event: ExecutionEvent) -> str:
    """The name of the outermost flow."""
    return event.path.partition("/")[0]


def asked(data: Mapping[str, object]) -> tuple[str, str]:
    """Provider and model, as they are configured."""
    return text(data.get("provider")), text(data.get("model"))
