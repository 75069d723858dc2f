"""The tier in memory: its bound holds always, and what leaves is what saves the least."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow.mcp.performance.caching.memory import Item, Memory

BARE = Item("", 0, 0.0).size  # bytes that an item takes beside its content


def item(size: int = 100, worth: float = 0.0, *labels: str) -> Item[str]:
    return Item("x", size - BARE if size > BARE else 0, worth, labels)


def room(count: int, size: int = 1000) -> Memory[str]:
    return Memory(count * size)


steps = st.lists(
    st.tuples(
        st.sampled_from(["put", "get", "drop"]), st.sampled_from("abcdefgh"), st.integers(1, 3000), st.floats(0, 1)
    ),
    max_size=60,
)


@settings(max_examples=150)
@given(steps, st.integers(0, 6000))
def test_the_bound_holds_after_every_step(steps: list[tuple[str, str, int, float]], most: int) -> None:
    """And what it says of its bytes is what is in it; nothing is found that was not put, or was replaced."""
    memory: Memory[int] = Memory(most)
    values: dict[str, int] = {}
    for number, (what, name, size, worth) in enumerate(steps):
        if what == "put":
            values[name] = number
            assert memory.put(name, Item(number, size, worth)) == (size + BARE <= most)
        elif what == "drop":
            values.pop(name, None)
            memory.drop(name)
        else:
            assert memory.get(name) in (None, values.get(name))
        inside = [*memory._trial.values(), *memory._proven.values()]
        assert memory.bytes == sum(each.size for each in inside) <= most
        assert len(memory) == len(inside)


def test_what_is_worth_the_least_a_byte_leaves_first() -> None:
    """Of all that is on trial, an answer that cost a cent goes before one that cost a dollar, and a long one before a
    short one of the same price."""
    memory = room(3)
    memory.put("dear", item(1000, 1.0))
    memory.put("cheap", item(1000, 0.01))
    memory.put("short", item(900, 0.02))
    memory.put("new", item(1000, 0.5))
    assert [name for name in ("dear", "cheap", "short", "new") if memory.get(name)] == ["dear", "short", "new"]
    memory = room(3)
    memory.put("long", item(2000, 0.1))
    memory.put("short", item(500, 0.1))
    memory.put("new", item(1000, 0.1))
    assert memory.get("long") is None
    assert memory.get("short")


def test_of_equals_the_oldest_leaves() -> None:
    """As where nobody knows a price: then it is a plain LRU."""
    memory = room(3)
    for name in "abc":
        memory.put(name, item(1000))
    memory.put("d", item(1000))
    assert [name for name in "abcd" if memory.get(name)] == ["b", "c", "d"]


def test_what_is_asked_once_does_not_drive_out_what_is_asked_again() -> None:
    """A thousand questions pass through, and the one that was found before stays."""
    memory = room(10)
    memory.put("daily", item(1000))
    assert memory.get("daily")
    for number in range(1000):
        memory.put(str(number), item(1000))
    assert memory.get("daily")
    assert len(memory) == 10


def test_what_was_proven_long_ago_makes_room_as_well() -> None:
    """Only four fifths of the bytes are kept for what has proven itself; the oldest of that is on trial again."""
    memory = room(10)
    for number in range(10):
        memory.put(str(number), item(1000))
        memory.get(str(number))
    for number in range(10, 14):
        memory.put(str(number), item(1000))
    alive = [number for number in range(14) if memory.get(str(number))]
    assert {2, 3, 4, 5, 6, 7, 8, 9} <= set(alive)
    assert not {0, 1} <= set(alive)


def test_labels_name_what_is_dropped() -> None:
    """All of them must be there; none at all is everything."""
    memory = room(10)
    memory.put("a", item(1000, 0.0, "x", "y"))
    memory.put("b", item(1000, 0.0, "x"))
    memory.get("b")
    assert memory.drop_labelled(["x", "y"]) == 1
    assert memory.get("b")
    assert memory.drop_labelled([]) == 1
    assert memory.bytes == 0
