"""The shared state: typed reads, atomic writes, views that join without losing anything, and JSON."""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.core import Key, SharedState, StateDiff
from agentflow.errors import ContextError, SerializationError, StateConflict, StateError, StateKeyError

TOPIC = Key[str]("topic")
COUNT = Key[int]("count", reduce=operator.add)
SEEN = Key[list[str]]("seen", reduce=operator.add, initial=list)


# ---- reading and writing


def test_a_key_and_its_name_are_the_same_place() -> None:
    state = SharedState()
    state[TOPIC] = "tides"

    assert state["topic"] == state[TOPIC] == "tides"
    assert TOPIC in state
    assert "topic" in state
    assert 5 not in state
    assert list(state) == ["topic"]


def test_it_starts_with_what_it_is_given_under_keys_or_names() -> None:
    given_values = {"topic": "tides"}
    state = SharedState(given_values)
    given_values["topic"] = "waves"

    assert state == {"topic": "tides"}
    assert SharedState({TOPIC: "tides"}) == state


def test_a_missing_key_is_a_key_error_that_names_the_nearest() -> None:
    state = SharedState({"topic": "tides"})

    with pytest.raises(StateKeyError, match="did you mean 'topic'") as caught:
        state["topci"]
    assert isinstance(caught.value, KeyError)
    assert (caught.value.key, caught.value.suggestions) == ("topci", ("topic",))


def test_get_gives_none_or_the_default_for_what_is_not_there() -> None:
    state = SharedState({"count": 0})

    assert state.get(TOPIC) is None
    assert state.get(TOPIC, "none") == "none"
    assert state.get("count", 5) == 0


def test_an_empty_state_is_truthy() -> None:
    assert SharedState()
    assert len(SharedState()) == 0


def test_deleting_removes_and_deleting_what_is_not_there_is_an_error() -> None:
    state = SharedState({"topic": "tides"})
    del state[TOPIC]

    assert TOPIC not in state
    with pytest.raises(StateKeyError):
        del state[TOPIC]


def test_it_is_a_whole_mutable_mapping() -> None:
    state = SharedState({"a": 1, "b": 2})
    state.update({"c": 3})

    assert state.pop("a") == 1
    assert state.pop("a", None) is None
    assert state.setdefault("b", 9) == 2
    assert sorted(state.items()) == [("b", 2), ("c", 3)]
    state.clear()
    assert state == {}


@pytest.mark.parametrize("wrong", [5, None, ("topic",), b"topic"])
def test_what_is_no_key_is_refused_by_name(wrong: Any) -> None:
    with pytest.raises(StateError, match="a key of the state is a Key or a str"):
        SharedState()[wrong]
    with pytest.raises(StateError, match="a key of the state is a Key or a str"):
        SharedState()[wrong] = 1
    with pytest.raises(StateError, match="a key of the state is a Key or a str"):
        SharedState({wrong: 1})


def test_a_key_needs_a_name() -> None:
    with pytest.raises(ValueError, match="needs a name"):
        Key[str]("")


def test_the_repr_shows_names_and_no_values() -> None:
    assert repr(SharedState({"secret": "hunter2"})) == "SharedState(secret)"
    assert repr(TOPIC) == "Key('topic')"


def test_values_are_never_copied() -> None:
    words = ["a"]
    state = SharedState({"words": words})

    assert state["words"] is words
    assert state.snapshot()["words"] is words
    assert state.view()["words"] is words


# ---- modify and add


def test_modify_replaces_a_value_by_what_the_function_makes_of_it() -> None:
    state = SharedState({"count": 1})

    assert state.modify(COUNT, lambda count: count + 1) == 2
    assert state[COUNT] == 2
    with pytest.raises(StateKeyError):
        state.modify(TOPIC, str.upper)


def test_a_failing_modify_leaves_the_value_and_lets_others_in() -> None:
    state = SharedState({"count": 1})

    def fail(count: int) -> int:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        state.modify(COUNT, fail)
    with ThreadPoolExecutor(1) as other:
        assert other.submit(state.modify, COUNT, lambda count: count + 1).result(5) == 2


def in_threads(count: int, work: Callable[[int], None]) -> None:
    """Run `work(0)`, `work(1)`, … in threads that all start at the same moment."""
    gate = threading.Barrier(count)

    def run(index: int) -> None:
        gate.wait(10)
        work(index)

    with ThreadPoolExecutor(count) as pool:
        for done in [pool.submit(run, index) for index in range(count)]:
            done.result(30)


def test_modify_is_atomic_between_threads() -> None:
    state = SharedState({"count": 0})

    def work(_: int) -> None:
        for _ in range(500):
            state.modify(COUNT, lambda count: [count, *range(5)][0] + 1)

    in_threads(8, work)
    assert state[COUNT] == 8 * 500


def test_add_is_atomic_between_threads() -> None:
    state = SharedState()

    def work(index: int) -> None:
        for number in range(100):
            state.add(SEEN, [f"{index}.{number}"])

    in_threads(8, work)
    assert len(set(state[SEEN])) == 800


def test_reading_the_whole_while_others_write_never_fails() -> None:
    state = SharedState()

    def work(index: int) -> None:
        for number in range(200):
            state[f"{index}.{number % 7}"] = number
            dict(state.items())
            list(state)
            if number % 3 == 0:
                del state[f"{index}.{number % 7}"]
            state.to_json()

    in_threads(6, work)


def test_add_folds_through_the_reducer_from_the_initial_value() -> None:
    state = SharedState()
    state.add(SEEN, ["a"])
    state.add(SEEN, ["b"])
    state.add(COUNT, 5)

    assert state[SEEN] == ["a", "b"]
    assert state[COUNT] == 5  # without `initial`, the first contribution is the start


def test_the_initial_value_is_made_anew_each_time() -> None:
    one, other = SharedState(), SharedState()
    one.add(SEEN, ["a"])
    other.add(SEEN, ["b"])

    assert (one[SEEN], other[SEEN]) == (["a"], ["b"])


def test_adding_to_a_key_without_a_reducer_says_how_to_declare_one() -> None:
    with pytest.raises(StateError, match=r"Key\('topic', reduce=…\)"):
        SharedState().add(TOPIC, "tides")


# ---- views and joins


def test_a_view_reads_its_parent_and_keeps_its_writes_to_itself() -> None:
    root = SharedState({"topic": "tides"})
    left, right = root.view(), root.view()
    left["topic"] = "waves"

    assert (left["topic"], right["topic"], root["topic"]) == ("waves", "tides", "tides")


def test_a_join_merges_the_writes_of_all_branches() -> None:
    root = SharedState({"topic": "tides"})
    left, right = root.view(), root.view()
    left["a"], right["b"] = 1, 2
    root.join([("left", left), ("right", right)])

    assert root == {"topic": "tides", "a": 1, "b": 2}


def test_two_branches_that_assigned_one_key_conflict_and_nothing_is_applied() -> None:
    root = SharedState({"draft": "old"})
    left, right = root.view(), root.view()
    left["other"] = 1
    left["draft"], right["draft"] = "x", "x"  # even to the same value: nobody could know

    with pytest.raises(StateConflict) as caught:
        root.join([("left", left), ("right", right)])
    assert (caught.value.key, caught.value.writers) == ("draft", ("left", "right"))
    assert root == {"draft": "old"}


def test_an_assignment_and_an_addition_conflict_in_either_order() -> None:
    for first, second in (("left", "right"), ("right", "left")):
        root = SharedState()
        views = {"left": root.view(), "right": root.view()}
        views["left"][SEEN] = ["assigned"]
        views["right"].add(SEEN, ["added"])

        with pytest.raises(StateConflict) as caught:
            root.join([(first, views[first]), (second, views[second])])
        assert caught.value.writers == (first, second)


def test_modify_in_a_branch_counts_as_an_assignment() -> None:
    root = SharedState({"count": 1})
    left, right = root.view(), root.view()
    left.modify(COUNT, lambda count: count + 1)
    right.modify(COUNT, lambda count: count + 1)

    with pytest.raises(StateConflict, match="'count'"):
        root.join([("left", left), ("right", right)])


def test_additions_are_folded_in_branch_order() -> None:
    root = SharedState({"seen": ["root"]})
    views = [root.view() for _ in range(3)]
    for index in (2, 0, 1):
        views[index].add(SEEN, [f"{index}a"])
        views[index].add(SEEN, [f"{index}b"])
    assert views[1][SEEN] == ["root", "1a", "1b"]  # a branch sees its own additions, and no sibling's

    root.join([(str(index), view) for index, view in enumerate(views)])
    assert root[SEEN] == ["root", "0a", "0b", "1a", "1b", "2a", "2b"]


def test_additions_pass_through_nested_joins_as_additions() -> None:
    root = SharedState({"seen": ["root"]})
    outer, sibling = root.view(), root.view()
    sibling.add(SEEN, ["sibling"])
    inner = [outer.view(), outer.view()]
    inner[0].add(SEEN, ["x"])
    inner[1].add(SEEN, ["y"])
    outer.join([("x", inner[0]), ("y", inner[1])])
    root.join([("outer", outer), ("sibling", sibling)])

    assert root[SEEN] == ["root", "x", "y", "sibling"]


def test_a_deletion_is_a_tombstone_that_the_join_applies() -> None:
    root = SharedState({"topic": "tides", "draft": "…"})
    left, right = root.view(), root.view()
    del left["topic"]

    assert "topic" not in left
    assert "topic" not in list(left)
    assert right["topic"] == "tides"
    root.join([("left", left), ("right", right)])
    assert root == {"draft": "…"}


def test_a_deletion_conflicts_with_anothers_write() -> None:
    root = SharedState({"topic": "tides"})
    left, right = root.view(), root.view()
    del left["topic"]
    right["topic"] = "waves"

    with pytest.raises(StateConflict, match="'topic'"):
        root.join([("left", left), ("right", right)])


def test_a_key_written_and_deleted_by_one_branch_still_counts_as_its_write() -> None:
    root = SharedState()
    outer, sibling = root.view(), root.view()
    inner = outer.view()
    inner["draft"] = "x"
    del inner["draft"]
    outer.join([("inner", inner)])
    sibling["draft"] = "y"

    with pytest.raises(StateConflict, match="'draft'"):
        root.join([("outer", outer), ("sibling", sibling)])


def test_what_was_written_in_a_view_is_what_it_owns() -> None:
    root = SharedState({"topic": "tides"})
    view = root.view()
    view["a"] = 1
    del view["topic"]
    view.add(SEEN, ["x"])

    assert view.own_writes() == {"a", "topic", "seen"}


# The property: whatever the shape of forks and joins, the state equals what a sequential reader of the program expects.

NAMES = ("k0", "k1", "k2")
KEYS = {name: Key[tuple[int, ...]](name, reduce=operator.add, initial=tuple) for name in NAMES}


@dataclass(frozen=True)
class Op:
    kind: str
    name: str = ""
    value: int = 0
    branches: tuple[tuple[Op, ...], ...] = ()


operations = st.builds(
    Op, st.sampled_from(["set", "add", "add", "delete", "modify"]), st.sampled_from(NAMES), st.integers(0, 9)
)


def forks(inner: st.SearchStrategy[tuple[Op, ...]]) -> st.SearchStrategy[tuple[Op, ...]]:
    fork = st.lists(inner, min_size=1, max_size=3).map(lambda found: Op("fork", branches=tuple(found)))
    return st.lists(operations | fork, max_size=4).map(tuple)


programs = st.recursive(st.lists(operations, max_size=3).map(tuple), forks, max_leaves=8)


def perform(program: tuple[Op, ...], state: SharedState) -> None:
    for op in program:
        if op.kind == "fork":
            views = [state.view() for _ in op.branches]
            for branch, view in zip(op.branches, views, strict=True):
                perform(branch, view)
            state.join([(f"b{index}", view) for index, view in enumerate(views)])
        elif op.kind == "add":
            state.add(KEYS[op.name], (op.value,))
        elif op.kind == "set":
            state[KEYS[op.name]] = (op.value,)
        elif op.name in state:
            if op.kind == "delete":
                del state[KEYS[op.name]]
            else:
                state.modify(KEYS[op.name], lambda value, op=op: (*value, op.value))  # type: ignore[misc]  # op is bound


class Conflict(Exception):
    pass


Values = dict[str, tuple[int, ...]]
Effects = dict[str, tuple[str, tuple[int, ...] | None]]
"""What a branch did to a name: ("set", the value or None for deleted), or ("add", all it added)."""


def expected(program: tuple[Op, ...], seen: Values) -> Effects:
    """The naive model: run everything in one thread on a plain dictionary, remembering what was assigned and added."""
    effects: Effects = {}

    def assign(name: str, value: tuple[int, ...] | None) -> None:
        effects[name] = ("set", value)
        if value is None:
            seen.pop(name, None)
        else:
            seen[name] = value

    def add(name: str, value: tuple[int, ...]) -> None:
        kind, so_far = effects.get(name, ("add", ()))
        seen[name] = seen.get(name, ()) + value
        effects[name] = ("set", seen[name]) if kind == "set" else ("add", (so_far or ()) + value)

    for op in program:
        if op.kind == "fork":
            done = [expected(branch, dict(seen)) for branch in op.branches]
            for name in NAMES:
                kinds = [effect[name][0] for effect in done if name in effect]
                if kinds.count("set") > 1 or len(set(kinds)) > 1:
                    raise Conflict
            for effect in done:
                for name, (kind, value) in effect.items():
                    if kind == "add":
                        assert value is not None
                        add(name, value)
                    else:
                        assign(name, value)
        elif op.kind == "add":
            add(op.name, (op.value,))
        elif op.kind == "set":
            assign(op.name, (op.value,))
        elif op.name in seen:
            assign(op.name, None if op.kind == "delete" else (*seen[op.name], op.value))
    return effects


@given(programs, st.dictionaries(st.sampled_from(NAMES), st.tuples(st.integers(0, 9))))
def test_any_shape_of_branches_joins_like_a_sequential_fold_or_conflicts(
    program: tuple[Op, ...], start: Values
) -> None:
    wanted = dict(start)
    state = SharedState(start)
    try:
        expected(program, wanted)
    except Conflict:
        with pytest.raises(StateConflict):
            perform(program, state)
    else:
        perform(program, state)
        assert state.snapshot() == wanted


# ---- snapshot and diff


def test_a_snapshot_does_not_move_with_the_state() -> None:
    state = SharedState({"a": 1})
    before = state.snapshot()
    state["a"], state["b"] = 2, 3

    assert before == {"a": 1}


def test_a_diff_lists_what_changed_and_what_is_gone() -> None:
    state = SharedState({"same": 1, "changed": 1, "gone": 1})
    before = state.snapshot()
    state["changed"], state["new"] = 2, 3
    del state["gone"]

    assert state.diff(before) == StateDiff({"changed": 2, "new": 3}, frozenset({"gone"}))
    assert not state.diff(state)
    assert state.diff(SharedState()).changed == state.snapshot()


def test_values_that_cannot_be_compared_count_as_changed() -> None:
    class Array:
        def __eq__(self, other: object) -> bool:
            raise ValueError("ambiguous")

        __hash__ = None  # type: ignore[assignment]  # like an array

    one = Array()
    assert not SharedState({"a": one}).diff({"a": one})
    assert SharedState({"a": Array()}).diff({"a": one})


# ---- context


def test_the_context_is_typed_by_its_argument() -> None:
    @dataclass
    class Deps:
        name: str

    state = SharedState({"a": 1}, context=Deps("db"))

    assert state.context(Deps).name == "db"
    assert state.view().context(Deps).name == "db"
    with pytest.raises(ContextError, match=r"a Deps; start it with run\(…, context=str"):
        state.context(str)
    with pytest.raises(ContextError, match="no context"):
        SharedState().context(Deps)


def test_the_context_is_never_stored() -> None:
    state = SharedState({"a": 1}, context="a secret client")

    assert "secret" not in state.to_json()
    assert "secret" not in repr(state)
    assert state.snapshot() == {"a": 1}


# ---- JSON

text = st.text(st.characters(codec="utf-8"))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(text, json_values, max_size=5))
def test_json_gives_an_equal_state_back(values: Mapping[str, object]) -> None:
    state = SharedState(values)
    again = SharedState.from_json(state.to_json().encode())

    assert again.snapshot() == state.snapshot()
    assert again == state
    assert again.to_json(indent=2) == state.to_json(indent=2)


class Text(str):
    pass


@pytest.mark.parametrize(
    ("value", "where", "why"),
    [
        ({1, 2}, "a", "a set"),
        ((1, 2), "a", "a tuple"),
        ([0, {"b": object()}], r"a\[1\]\.b", "an? object"),
        (float("nan"), "a", "not a JSON number"),
        (float("inf"), "a", "not a JSON number"),
        ({1: "x"}, "a", "str keys, not int"),
        (Text("x"), "a", "a Text"),
        (b"x", "a", "a bytes"),
        (["\ud800"], r"a\[0\]", "lone surrogate"),
        ({"\ud800": 1}, "a", "str keys"),
        ([10**5000], "state", "too large"),
    ],
)
def test_what_would_not_come_back_equal_is_refused_where_it_stands(value: object, where: str, why: str) -> None:
    with pytest.raises(SerializationError, match=f"^{where}: .*{why}"):
        SharedState({"a": value}).to_json()


def test_a_value_that_contains_itself_is_refused() -> None:
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(SerializationError, match=r"^a\[0\]: the value contains itself"):
        SharedState({"a": loop}).to_json()


def test_one_value_at_two_places_is_not_a_circle() -> None:
    twice = [1]
    assert SharedState.from_json(SharedState({"a": [twice, twice]}).to_json())["a"] == [[1], [1]]


def test_nesting_beyond_all_limits_is_refused_both_ways() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(SerializationError, match="state"):
        SharedState({"a": deep}).to_json()
    while deep:  # taken apart by hand: freeing it at once would recurse as deeply
        deep = deep.pop()  # type: ignore[assignment]  # lists all the way down
    with pytest.raises(SerializationError, match="not JSON"):
        SharedState.from_json('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}")


@pytest.mark.parametrize("bad", ["", "{", "[1]", "5", '{"a": NaN}', '{"a": Infinity}', b"\xff\xfe{"])
def test_what_is_not_a_json_object_is_refused(bad: str | bytes) -> None:
    with pytest.raises(SerializationError, match=r"^state: "):
        SharedState.from_json(bad)


def test_from_json_takes_a_context() -> None:
    assert SharedState.from_json("{}", context=5).context(int) == 5
