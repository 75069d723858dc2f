"""Boxes and lines of a graph: nothing overlaps, edges go to the right, loops run below."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow.cli.tracing.layout import laid_out

NAMES = "abcdefgh"


def test_a_chain_goes_to_the_right() -> None:
    found = laid_out({"a": (50, 20), "b": (60, 20), "c": (50, 20)}, [("a", "b"), ("b", "c")])
    assert found.places["a"][0] < found.places["b"][0] < found.places["c"][0]
    assert len({y for _, y in found.places.values()}) == 1
    assert not any(line.back for line in found.lines)


def test_an_edge_that_leads_back_runs_below_everything() -> None:
    found = laid_out({"a": (50, 20), "b": (50, 20)}, [("a", "b"), ("b", "a"), ("b", "b")])
    assert [line.back for line in found.lines] == [False, True, True]
    assert max(y for _, y in found.lines[1].points) > 20
    assert found.height >= max(y for line in found.lines for _, y in line.points)


def test_an_edge_over_several_layers_passes_the_boxes_between() -> None:
    found = laid_out(dict.fromkeys("abc", (50, 20)), [("a", "b"), ("b", "c"), ("a", "c")])
    [_, knot, _] = found.lines[2].points
    x, y = found.places["b"]
    assert x <= knot[0] <= x + 50
    assert not y <= knot[1] <= y + 20


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES)), max_size=20))
def test_no_two_boxes_overlap_whatever_the_edges(edges) -> None:
    sizes = {name: (40.0 + 10 * at, 20.0 + 5 * at) for at, name in enumerate(NAMES)}
    found = laid_out(sizes, edges)
    assert set(found.places) == set(NAMES)
    assert len(found.lines) == len(edges)
    boxes = [(x, y, x + sizes[name][0], y + sizes[name][1]) for name, (x, y) in found.places.items()]
    for at, one in enumerate(boxes):
        assert one[0] >= 0
        assert one[1] >= -1e-6
        assert one[2] <= found.width + 1e-6
        assert one[3] <= found.height + 1e-6
        for two in boxes[at + 1 :]:
            assert one[2] <= two[0] or two[2] <= one[0] or one[3] <= two[1] or two[3] <= one[1]


def test_nothing_is_laid_out_as_nothing() -> None:
    assert (laid_out({}, []).width, laid_out({}, []).height) == (0.0, 0.0)
