"""Who follows whom: paths written with `>>` and `.on()`, and the checks that run before anything else does.

    plan >> write >> judge                 a path; its head is where the flow starts
    judge.on("rewrite") >> write           one more edge, taken when judge returns "rewrite"
    judge.on("accept") >> (publish, notify) >> done >> END

A path is immutable and holds the vertices it names; a vertex holds no edges, so one vertex serves many flows at once.
`Graph` reads the statements of a flow once, refuses what cannot work (GraphError), and answers who follows whom.
"""

from __future__ import annotations

import copy
import difflib
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias, TypeVar

from agentflow.core.state import Key, key_name
from agentflow.errors import GraphError, NodeError

__all__ = [
    "DEFAULT",
    "END",
    "Dataflow",
    "End",
    "Graph",
    "Operand",
    "Parallel",
    "Path",
    "Region",
    "Vertex",
    "check_name",
]

DEFAULT: Final = "default"
"""The action of a node that returns None."""

V = TypeVar("V", bound="Vertex")
S = TypeVar("S", bound="Section")


class End:
    """Completes the innermost branch, nested flow or flow. There is one: `END`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "END"


END: Final = End()


@dataclass(frozen=True, slots=True)
class On:
    """Marks in a path which action the next edge carries."""

    action: str


Operand: TypeAlias = "Vertex | Path | End | tuple[Operand, ...]"
Part: TypeAlias = "Vertex | On | End"


def snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


class Vertex:
    """Something a path can pass through: a node, a parallel section, a whole flow.

    `name` is unique within a flow; a class that gives none is named after itself.
    """

    name: str = "vertex"
    maps_items = False
    """Whether the vertex does its work for many items; pictures show it."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "name" not in cls.__dict__:
            cls.name = snake_case(cls.__name__)

    def __rshift__(self, other: Operand) -> Path:
        return Path(self, operand(other))

    def __rrshift__(self, other: Operand) -> Path:
        return Path(operand(other), self)

    def on(self, action: str) -> Path:
        """The edge taken when this vertex returns `action`: `judge.on("again") >> write`."""
        return Path(self, On(_action(action)))

    def named(self: V, name: str) -> V:
        """The same under another name, as a vertex of its own: for using one node twice in a flow."""
        twin = copy.copy(self)
        twin.name = name
        return twin

    def actions(self) -> frozenset[str] | None:
        """The actions this vertex can return, None where that is not declared."""
        return None

    def inner_graph(self) -> Graph | None:
        """The graph of a nested flow, for pictures; None for everything else."""
        return None

    def item_graph(self) -> Graph | None:
        """The graph that every item of an `Each` runs through, where it is a flow's."""
        return None

    def keys_read(self) -> tuple[str, ...]:
        """The keys this vertex declares to read; a dataflow section is ordered by them."""
        return ()

    def keys_written(self) -> tuple[str, ...]:
        """The keys this vertex declares to write."""
        return ()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"


class Path:
    """An immutable sequence of vertices and actions, built by `>>` and `.on()`.

    Kept as a rope and flattened once: joining tuples at every `>>` would take quadratic time.
    """

    __slots__ = ("_left", "_right")

    def __init__(self, left: Path | Part, right: Path | Part) -> None:
        self._left = left
        self._right = right

    def __rshift__(self, other: Operand) -> Path:
        return Path(self, operand(other))

    def __rrshift__(self, other: Operand) -> Path:
        return Path(operand(other), self)

    def on(self, action: str) -> Path:
        """The edge taken when the last vertex of this path returns `action`."""
        return Path(self, On(_action(action)))

    def parts(self) -> list[Part]:
        """The vertices, actions and END of this path, in order."""
        found: list[Part] = []
        waiting: list[Path | Part] = [self]
        while waiting:
            part = waiting.pop()
            if isinstance(part, Path):
                waiting += (part._right, part._left)
            else:
                found.append(part)
        return found

    def __repr__(self) -> str:
        words = [f".on({p.action!r})" if isinstance(p, On) else f" >> {getattr(p, 'name', p)}" for p in self.parts()]
        return f"<Path {''.join(words).removeprefix(' >> ')}>"


def operand(value: object) -> Path | Part:
    """What `>>` takes, or a GraphError that says what to write instead."""
    if isinstance(value, Vertex | Path | End):
        return value
    if isinstance(value, tuple):
        return Parallel(*value)
    if isinstance(value, type) and issubclass(value, Vertex):
        raise GraphError(f"{value.__name__} is a class: write {value.__name__}() to make a node of it")
    if callable(value):
        name = getattr(value, "__name__", repr(value))
        raise GraphError(f"{name} is a plain function: decorate it with @node, or give it to Each({name}, over=…)")
    raise GraphError(f"a path is made of nodes, flows, tuples of them and END, not {type(value).__name__} {value!r}")


class Section(Vertex):
    """A stretch of a flow that is entered and left whole; its action is always "default"."""

    named_by_user = False

    def named(self: S, name: str) -> S:
        twin = super().named(name)
        twin.named_by_user = True
        return twin

    def actions(self) -> frozenset[str]:
        return frozenset({DEFAULT})


class Parallel(Section):
    """Branches that run at the same time and join: the long form of a tuple in a path.

        (a, b >> c)  ==  Parallel(a, b >> c)

    `need` says how many branches must succeed: "all", "any" (the same as 1) or a number; once there are enough, the
    others are cancelled and their writes dropped. `on_error="raise"` fails the section at the first failing branch;
    "collect" drops a failed branch's writes and goes on while enough branches can still succeed ("all" then means all
    that do not fail, at least one). The collected errors are put under the key `errors`, where one is given.
    """

    def __init__(
        self,
        *branches: Operand,
        need: Literal["all", "any"] | int = "all",
        on_error: Literal["raise", "collect"] = "raise",
        errors: Key[list[NodeError]] | str | None = None,
        name: str | None = None,
    ) -> None:
        if not branches:
            raise GraphError("a parallel section needs at least one branch")
        self.branches = tuple(_parts(branch) for branch in branches)
        for parts in self.branches:
            if isinstance(parts[0], End):
                raise GraphError("a branch needs a node before its END")
        self.need = _need(need, len(branches))
        """How many branches must succeed, None for all."""
        self.on_error = _one_of("on_error", on_error, ("raise", "collect"))
        self.errors = None if errors is None else key_name(errors)
        self.named_by_user = name is not None
        self.name = name or f"({', '.join(head(parts).name for parts in self.branches)})"


class Dataflow(Section):
    """Nodes that each start as soon as what they read has been written: any acyclic shape, without edges.

        Dataflow(fetch, parse, rank, report)

    The order follows from what the nodes declare in `reads` and `writes`. What is read and written by nobody inside is
    an input of the section. Raises GraphError for a cycle, for two writers of one key, and for a node that declares
    nothing.
    """

    def __init__(self, *nodes: Vertex, name: str | None = None) -> None:
        if not nodes:
            raise GraphError("a dataflow section needs at least one node")
        for node in nodes:
            if isinstance(operand(node), Path | End | Section):
                raise GraphError("a dataflow section is made of single nodes: its order follows from reads and writes")
            _refuse_equal(node)
            if not node.keys_read() and not node.keys_written():
                raise GraphError(f"{node.name} declares neither reads nor writes, so a dataflow cannot place it")
        self.nodes = nodes
        self.writer = _writers(nodes)
        self.named_by_user = name is not None
        self.name = name or f"dataflow({', '.join(node.name for node in nodes)})"
        self.needs: Mapping[Vertex, tuple[Vertex, ...]] = {
            node: tuple({self.writer[key]: None for key in node.keys_read() if key in self.writer}) for node in nodes
        }
        _refuse_cycle(self.needs)

    def keys_read(self) -> tuple[str, ...]:
        """What the section takes from outside."""
        read = dict.fromkeys(key for node in self.nodes for key in node.keys_read())
        return tuple(key for key in read if key not in self.writer)

    def keys_written(self) -> tuple[str, ...]:
        return tuple(self.writer)


@dataclass(slots=True)
class Region:
    """A stretch of graph with one entrance: the whole flow, a branch of a parallel section, a dataflow's node."""

    start: Vertex
    section: Section | None = None
    last: Vertex | None = None
    """The vertex whose default edge leads to the join, for a branch that does not end in END."""
    vertices: list[Vertex] = field(default_factory=list)


class Graph:
    """The statements of one flow, read and checked.

    `edges[vertex]` maps actions to the next vertex or END, `regions` starts with the flow's own, `branches` maps a
    parallel section to the regions of its branches. Raises GraphError, before anything runs, for: two targets of one
    action, a dangling `.on()`, a node in two sections, edges into or out of a section, unreachable nodes, names used
    twice, actions a node does not declare, and joins that can never fire.
    """

    def __init__(self, name: str, statements: Sequence[Operand]) -> None:
        if not statements:
            raise GraphError(f"flow {name!r} is empty: give it a node or a path")
        check_name(name, "flow")
        self.name = name
        paths = [_parts(statement) for statement in statements]
        self.home: dict[Vertex, Region] = {}
        self.edges: dict[Vertex, dict[str, Vertex | End]] = {}
        self.branches: dict[Parallel, list[Region]] = {}
        self.flow = Region(start=head(paths[0]))
        self._find_sections(paths)
        for parts in paths:
            self._settle(parts, self.flow)
            self._link(parts)
        self._check_names()
        self._check_reachable()
        self._check_actions()
        self._check_joins()

    @property
    def start(self) -> Vertex:
        return self.flow.start

    def vertices(self) -> Iterator[Vertex]:
        return iter(self.home)

    def final_actions(self) -> frozenset[str] | None:
        """The actions the flow can end with; None where one of its last nodes does not declare them."""
        found: set[str] = set()
        for vertex in self.flow.vertices:
            edges = self.edges[vertex]
            declared = vertex.actions()
            if edges:
                found |= {action for action, target in edges.items() if target is END}
            elif declared is None:
                return None
            else:
                found |= declared
        return frozenset(found)

    # ---- reading the statements

    def _find_sections(self, paths: Sequence[Sequence[Part]]) -> None:
        """Settle the vertices of all sections first: statements may mention them before or after."""
        waiting = deque(part for parts in paths for part in parts)
        found: set[Section] = set()
        while waiting:
            section = waiting.popleft()
            if not isinstance(section, Section) or section in found:
                continue
            found.add(section)
            if isinstance(section, Dataflow):
                for node in section.nodes:
                    self._settle([node], Region(node, section), strict=True)
            elif isinstance(section, Parallel):
                self.branches[section] = [self._read_branch(parts, section) for parts in section.branches]
                waiting += (part for parts in section.branches for part in parts)

    def _read_branch(self, parts: Sequence[Part], section: Parallel) -> Region:
        region = Region(head(parts), section)
        self._settle(parts, region, strict=True)
        self._link(parts)
        region.last = self._open_end(parts)
        return region

    def _settle(self, parts: Sequence[Part], region: Region, *, strict: bool = False) -> None:
        for part in parts:
            if not isinstance(part, Vertex):
                continue
            _refuse_equal(part)
            home = self.home.setdefault(part, region)
            if strict and home is not region:
                raise GraphError(
                    f"{part.name} stands in two sections or branches: use {part.name}.named(…) for the second"
                )
            if part not in self.edges:
                self.edges[part] = {}
                home.vertices.append(part)

    def _link(self, parts: Sequence[Part]) -> None:
        source: Vertex | None = None
        action: str | None = None
        for position, part in enumerate(parts):
            if isinstance(part, On):
                if action is not None:
                    raise GraphError(
                        f".on({action!r}) is followed by .on({part.action!r}): one action leads to one node"
                    )
                action = part.action
                continue
            if source is not None:
                self._add_edge(source, action or DEFAULT, part)
            action = None
            if isinstance(part, End):
                if position < len(parts) - 1:
                    raise GraphError(f"nothing follows END, but here {_name(parts[position + 1])} does")
                return
            source = part
        if action is not None:
            raise GraphError(
                f".on({action!r}) of {source.name if source else '?'} leads nowhere: add >> node or >> END"
            )

    def _add_edge(self, source: Vertex, action: str, target: Vertex | End) -> None:
        known = self.edges[source].get(action)
        if known is not None and known is not target:
            raise GraphError(
                f"{source.name} on {action!r} leads to {_name(known)} and to {_name(target)}: "
                f"one action has one target (use .on() for others, a tuple for both at once)"
            )
        self._check_crossing(source, target)
        self.edges[source][action] = target

    def _check_crossing(self, source: Vertex, target: Vertex | End) -> None:
        """Sections are entered and left whole."""
        out = self.home[source]
        if isinstance(out.section, Dataflow):
            raise GraphError(f"{source.name} stands in {out.section.name}, where reads and writes are the only edges")
        into = out if isinstance(target, End) else self.home[target]
        if out is into:
            return
        edge = f"{source.name} >> {_name(target)}"
        if out.section is not None and into.section is out.section:
            raise GraphError(f"{edge} leads into another branch of {out.section.name}: they meet at its join alone")
        if into.section is not None and not self._within(source, into.section):
            raise GraphError(f"{edge} jumps into the section {into.section.name}: enter it as a whole")
        where = out.section.name if out.section else ""
        raise GraphError(f"{edge} escapes from the section {where}: leave it through its join (or END)")

    def _within(self, vertex: Vertex, section: Section) -> bool:
        """Whether `vertex` stands somewhere inside `section`, at any depth."""
        region = self.home[vertex]
        while region.section is not None:
            if region.section is section:
                return True
            region = self.home[region.section]
        return False

    def _open_end(self, parts: Sequence[Part]) -> Vertex | None:
        """The last vertex of a branch, where its default edge is still free: it leads to the join."""
        last = parts[-1]
        if isinstance(last, Vertex) and DEFAULT not in self.edges[last]:
            self.edges[last][DEFAULT] = END
            return last
        return None

    # ---- checking them

    def _check_names(self) -> None:
        taken: dict[str, Vertex] = {}
        for vertex in self.home:
            if isinstance(vertex, Section) and not vertex.named_by_user:
                continue
            check_name(vertex.name, "node")
            rival = taken.setdefault(vertex.name, vertex)
            if rival is not vertex:
                raise GraphError(
                    f"two nodes of flow {self.name!r} are named {vertex.name!r}: give one another name "
                    f"(name=… or .named(…)); a run's history is kept by name"
                )

    def _check_reachable(self) -> None:
        for region in (self.flow, *(region for regions in self.branches.values() for region in regions)):
            seen = self._reach(region.start)
            lost = [vertex.name for vertex in region.vertices if vertex not in seen]
            if lost:
                raise GraphError(
                    f"nothing leads to {', '.join(lost)} in flow {self.name!r} (it starts at {self.start.name})"
                )

    def _reach(self, start: Vertex) -> set[Vertex]:
        seen = {start}
        waiting = [start]
        while waiting:
            for target in self.edges[waiting.pop()].values():
                if isinstance(target, Vertex) and target not in seen:
                    seen.add(target)
                    waiting.append(target)
        return seen

    def _check_actions(self) -> None:
        for vertex, edges in self.edges.items():
            declared = vertex.actions()
            if declared is None:
                continue
            open_end = vertex is self.home[vertex].last
            for action in edges:
                if action not in declared and not (action == DEFAULT and open_end):
                    near = difflib.get_close_matches(action, declared, n=1)
                    hint = f"; did you mean {near[0]!r}?" if near else ""
                    known = ", ".join(map(repr, sorted(declared)))
                    raise GraphError(f"{vertex.name} never returns {action!r}: it declares {known}{hint}")

    def _check_joins(self) -> None:
        for section, regions in self.branches.items():
            endless = [region for region in regions if not self._can_end(region)]
            if len(regions) - len(endless) < (section.need or len(regions)):
                names = ", ".join(region.start.name for region in endless)
                raise GraphError(
                    f"the join of {section.name} can never fire: the branch of {names} has no way to its end "
                    f'(add .on("…") >> END)'
                )

    def _can_end(self, region: Region) -> bool:
        return any(not self.edges[vertex] or END in self.edges[vertex].values() for vertex in self._reach(region.start))


def head(parts: Sequence[Part]) -> Vertex:
    first = parts[0]
    if not isinstance(first, Vertex):
        raise GraphError(f"a path starts with a node, not with {first!r}")
    return first


def _parts(statement: object) -> tuple[Part, ...]:
    value = operand(statement)
    return tuple(value.parts()) if isinstance(value, Path) else (value,)


def _refuse_equal(vertex: Vertex) -> None:
    """A vertex is the object itself, so two that compare equal (dataclasses do) would be taken for one."""
    if type(vertex).__eq__ is not object.__eq__:
        raise GraphError(
            f"{vertex.name} compares by value, but a node is the object itself: drop __eq__ or use @dataclass(eq=False)"
        )


def check_name(name: str, kind: str) -> None:
    """Raises GraphError for a name that would make the ids of steps, `flow/write#2!wait:1`, say several things."""
    if not name or any(mark in name for mark in "/#!"):
        raise GraphError(f"{name!r} is no name for a {kind}: names are not empty and hold none of / # !")


def _name(part: Part) -> str:
    return part.name if isinstance(part, Vertex) else f".on({part.action!r})" if isinstance(part, On) else "END"


def _action(action: str) -> str:
    if not isinstance(action, str) or not action:
        raise GraphError(f".on() takes the action as a str that is not empty, not {action!r}")
    return action


C = TypeVar("C")


def _one_of(option: str, value: C, allowed: Sequence[C]) -> C:
    if value not in allowed:
        raise GraphError(f"{option} is {' or '.join(map(repr, allowed))}, not {value!r}")
    return value


def _need(need: Literal["all", "any"] | int, branches: int) -> int | None:
    if need == "all":
        return None
    number = 1 if need == "any" else need
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= branches:
        raise GraphError(f'need is "all", "any" or a number from 1 to the {branches} branches there are, not {need!r}')
    return number


def _writers(nodes: Sequence[Vertex]) -> dict[str, Vertex]:
    writer: dict[str, Vertex] = {}
    for node in nodes:
        for key in node.keys_written():
            rival = writer.setdefault(key, node)
            if rival is not node:
                raise GraphError(f"{rival.name} and {node.name} both write {key!r}: a dataflow has one writer a key")
    return writer


def _refuse_cycle(needs: Mapping[Vertex, tuple[Vertex, ...]]) -> None:
    """Raise GraphError naming the nodes that wait for each other (Kahn's algorithm)."""
    waiting = dict(needs)
    while ready := [node for node, before in waiting.items() if not any(other in waiting for other in before)]:
        for node in ready:
            del waiting[node]
    if waiting:
        raise GraphError(f"these nodes wait for each other: {', '.join(node.name for node in waiting)}")
