"""The mutants of a module: each is its whole text with one small thing wrong, and says which.

    mutants, count = mutants_of(text)
    for mutant in mutants:
        mutant.was, mutant.now        `if now < self._until:`, `if now <= self._until:`
        mutant.text                   the module, for `compile`

mutmut finds the places and makes the changes (its operators: numbers, strings, comparisons, arithmetic, `and`/`or`,
`is`, `in`, assignments, arguments, lambdas, `break`, conditional expressions). Three operators are added that it
lacks and that a state machine needs: the condition of `if` and `while` turned round, a call for its effect left out,
and what is returned replaced by None. Its trampolines are not used, so decorated functions (properties, context
managers) and what stands outside of functions are mutated too.

Left alone: types, protocols, docstrings, `__all__`, `__slots__`, `if TYPE_CHECKING`, and the wording of errors in
`raise`.
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from random import Random
from typing import Final

import libcst as cst
import libcst.matchers as m
from libcst.metadata import CodeRange, MetadataWrapper, PositionProvider
from mutmut.mutation.file_mutation import Mutation, MutationVisitor, deep_replace
from mutmut.mutation.mutators import mutation_operators
from mutmut.mutation.pragma_handling import IgnoredCode

_QUIET: Final = (
    m.If(test=m.Name("TYPE_CHECKING"))
    | m.ClassDef(bases=[m.ZeroOrMore(), m.Arg(m.Name("Protocol")), m.ZeroOrMore()])
    | m.Assign(targets=[m.AssignTarget(m.Name("__all__") | m.Name("__slots__"))])
    | m.Assign(value=m.Call(func=m.Name("TypeVar") | m.Name("ParamSpec")))
    | m.AnnAssign(annotation=m.Annotation(annotation=m.Name("TypeAlias")))
)
_SCOPES: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@dataclass(frozen=True, slots=True)
class Mutant:
    """`lines` are those of the statements that it changes, in the module as it was."""

    number: int
    within: str
    line: int
    was: str
    now: str
    lines: frozenset[int]
    text: str


# ---- the operators that mutmut lacks ---------------------------------------------------------------------------------


def condition_turned(node: cst.If | cst.While) -> Iterator[cst.CSTNode]:
    if m.matches(node.test, m.Name("True") | m.Name("TYPE_CHECKING") | m.UnaryOperation(operator=m.Not())):
        return  # an endless loop has other mutants; a `not` is taken away by mutmut
    if m.matches(node.test, m.Comparison(comparisons=[m.ComparisonTarget(operator=m.Is() | m.IsNot() | m.In())])):
        return  # mutmut turns these round itself
    test = node.test.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])
    yield node.with_changes(test=cst.UnaryOperation(operator=cst.Not(), expression=test))


def call_left_out(node: cst.Expr) -> Iterator[cst.CSTNode]:
    if m.matches(node.value, m.Call() | m.Await(expression=m.Call())):
        yield cst.Pass()


def nothing_returned(node: cst.Return) -> Iterator[cst.CSTNode]:
    if node.value is not None and not m.matches(node.value, m.Name("None")):
        yield node.with_changes(value=cst.Name("None"), whitespace_after_return=cst.SimpleWhitespace(" "))


_OPERATORS: Final = [
    *mutation_operators,
    (cst.If, condition_turned),
    (cst.While, condition_turned),
    (cst.Expr, call_left_out),
    (cst.Return, nothing_returned),
]


class _Visitor(MutationVisitor):
    """mutmut's, without the bounds that its trampolines set."""

    quiet: frozenset[cst.CSTNode] = frozenset()

    def _skip_node_and_children(self, node: cst.CSTNode) -> bool:
        if node in self.quiet:
            return True
        if isinstance(node, cst.FunctionDef) and node.decorators:
            return False
        return bool(super()._skip_node_and_children(node))


# ---- from a text to its mutants --------------------------------------------------------------------------------------


def mutants_of(text: str, *, sample: int | None = None, random: Random | None = None) -> tuple[list[Mutant], int]:
    """The mutants of a module in its order, or so many of them drawn by `random`; and how many there are."""
    source = _Source(text)
    numbers: Sequence[int] = range(len(source.mutations))
    if sample is not None and random is not None and sample < len(numbers):
        numbers = sorted(random.sample(numbers, sample))
    return [source.mutant(number) for number in numbers], len(source.mutations)


class _Source:
    """A module's text, parsed once, and what may be changed in it."""

    def __init__(self, text: str) -> None:
        wrapper = MetadataWrapper(cst.parse_module(text))
        visitor = _Visitor(_OPERATORS, IgnoredCode(set(), set(), set()))
        visitor.quiet = frozenset(_quiet(wrapper.module))
        wrapper.visit(visitor)
        self.text, self.lines, self.module = text, text.splitlines(), wrapper.module
        self.places = wrapper.resolve(PositionProvider)
        self.starts = [0, *accumulate(len(line) for line in text.splitlines(keepends=True))]
        self.tree = ast.parse(text)
        self.statements = _statements(text)
        self.mutations = sorted(visitor.mutations, key=self._place)

    def mutant(self, number: int) -> Mutant:
        text = self._changed(self.mutations[number])
        first, old, new = _difference(self.lines, text.splitlines())
        changed = range(first, first + max(len(old), 1))
        touched = (each for each in self.statements if each.start < changed.stop and changed.start < each.stop)
        lines = frozenset(line for each in touched for line in each)
        return Mutant(number, _within(self.tree, first), first, _joined(old), _joined(new), lines, text)

    def _changed(self, mutation: Mutation) -> str:
        """By cutting the old words out of the text, or where these cannot be found in it, the slow and sure way."""
        place = self.places.get(mutation.original_node)
        if place is not None:
            start = self.starts[place.start.line - 1] + place.start.column
            end = self.starts[place.end.line - 1] + place.end.column
            if self.text[start:end] == self.module.code_for_node(mutation.original_node):
                return self.text[:start] + self.module.code_for_node(mutation.mutated_node) + self.text[end:]
        changed = deep_replace(self.module, mutation.original_node, mutation.mutated_node)
        assert isinstance(changed, cst.Module)
        return changed.code

    def _place(self, mutation: Mutation) -> tuple[int, int]:
        place: CodeRange | None = self.places.get(mutation.original_node)
        return (place.start.line, place.start.column) if place else (0, 0)


def _quiet(module: cst.Module) -> Iterator[cst.CSTNode]:
    """Whatever is a string within a `raise`, and all of the other silent places."""
    yield from m.findall(module, _QUIET)
    for node in m.findall(module, m.Raise()):
        yield from m.findall(node, m.SimpleString())


def _difference(old: list[str], new: list[str]) -> tuple[int, list[str], list[str]]:
    """The number of the first line that differs, and the lines that differ in both."""
    head = 0
    while head < min(len(old), len(new)) and old[head] == new[head]:
        head += 1
    tail = 0
    while tail < min(len(old), len(new)) - head and old[-1 - tail] == new[-1 - tail]:
        tail += 1
    return head + 1, old[head : len(old) - tail], new[head : len(new) - tail]


def _joined(lines: list[str]) -> str:
    return " ".join(stripped for line in lines if (stripped := line.strip()))


def _statements(text: str) -> list[range]:
    """The lines of each logical line: what runs as a whole, or not at all."""
    found, first = [], 0
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.COMMENT, tokenize.NL, tokenize.INDENT, tokenize.DEDENT):
            continue
        first = first or token.start[0]
        if token.type == tokenize.NEWLINE:
            found.append(range(first, token.end[0] + 1))
            first = 0
    return found


def _within(tree: ast.Module, line: int) -> str:
    """The function, method or class that a line lies in: "Bucket.take"; empty for the module itself."""
    names: list[str] = []
    body: list[ast.stmt] = tree.body
    while around := [each for each in body if isinstance(each, _SCOPES) and _holds(each, line)]:
        names.append(around[0].name)
        body = around[0].body
    return ".".join(names)


def _holds(node: ast.stmt, line: int) -> bool:
    return node.lineno <= line <= (node.end_lineno or node.lineno)
