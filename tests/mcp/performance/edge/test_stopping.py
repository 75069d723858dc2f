"""Stop strings: nothing of them is ever shown, wherever the borders of the pieces lie."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agentflow.mcp.performance.edge.stopping import StopScanner

PIECES = st.lists(st.text("ab\n", max_size=4), max_size=12)
STOPS = st.lists(st.text("ab\n", max_size=4), max_size=3)


def _told(pieces: list[str], stops: list[str]) -> tuple[str, bool]:
    scanner = StopScanner(stops)
    told = ""
    for piece in pieces:
        told += scanner.feed(piece)
        if scanner.stopped:
            break
    return told + scanner.flush(), scanner.stopped


@given(PIECES, STOPS)
def test_what_is_told_ends_before_the_first_stop_string(pieces: list[str], stops: list[str]) -> None:
    text = "".join(pieces)
    # As soon as one is complete, the answer is over: what comes later in the same piece is looked at too.
    for end in range(len(pieces) + 1):
        so_far = "".join(pieces[:end])
        places = [so_far.find(stop) for stop in stops if stop and stop in so_far]
        if places:
            assert _told(pieces, stops) == (so_far[: min(places)], True)
            return
    assert _told(pieces, stops) == (text, False)


@given(PIECES, STOPS)
def test_what_was_told_is_never_taken_back(pieces: list[str], stops: list[str]) -> None:
    """At every moment, the text told so far is the beginning of the answer as it will end."""
    answer, _ = _told(pieces, stops)
    scanner = StopScanner(stops)
    told = ""
    for piece in pieces:
        told += scanner.feed(piece)
        assert answer.startswith(told)


def test_a_beginning_that_comes_to_nothing_is_told_after_all() -> None:
    scanner = StopScanner(["END"])
    assert [scanner.feed(piece) for piece in ("one E", "N", "VY", " E")] == ["one ", "", "ENVY", " "]
    assert scanner.flush() == "E"
