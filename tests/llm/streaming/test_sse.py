"""The event-stream parser: the standard's rules, and the same events whatever the cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.errors import ProtocolError
from agentflow.llm.streaming.sse import ServerSentEvent, SSEParser


def parse(
    body: bytes, *, piece: int | None = None, close: bool = False, parser: SSEParser | None = None
) -> list[ServerSentEvent]:
    parser = parser or SSEParser()
    step = piece or len(body) or 1
    events = [event for start in range(0, len(body), step) for event in parser.feed(body[start : start + step])]
    return events + (parser.close() if close else [])


def data(body: bytes) -> list[str]:
    return [event.data for event in parse(body)]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_every_line_end_ends_a_line(end: bytes) -> None:
    assert data(b"data: a" + end + end + b"data: b" + end + end) == ["a", "b"]


def test_mixed_line_ends_in_one_stream() -> None:
    assert data(b"data: a\r\n\ndata: b\r\r\ndata: c\n\r") == ["a", "b", "c"]


def test_crlf_split_between_two_feeds_is_one_line_end() -> None:
    parser = SSEParser()
    assert parser.feed(b"data: a\r") == []
    assert parser.feed(b"\ndata: b\r") == []
    assert [event.data for event in parser.feed(b"\n\r\n")] == ["a\nb"]


def test_an_event_ended_by_cr_is_handed_out_without_waiting_for_lf() -> None:
    parser = SSEParser()
    assert [event.data for event in parser.feed(b"data: a\r\r")] == ["a"]
    assert parser.feed(b"\n") == []


def test_data_lines_are_joined_by_newlines() -> None:
    assert data(b"data: a\ndata:b\ndata\ndata:  c\n\n") == ["a\nb\n\n c"]


def test_an_empty_data_line_is_an_event_with_empty_data() -> None:
    assert data(b"data\n\ndata:\n\n") == ["", ""]


def test_an_event_without_data_is_dropped_and_its_name_forgotten() -> None:
    assert parse(b"event: ping\n\ndata: a\n\n") == [ServerSentEvent("a")]


def test_comments_and_unknown_fields_are_ignored() -> None:
    assert data(b": OPENROUTER PROCESSING\n\nfoo: bar\ndata: a\n:\n\n") == ["a"]


def test_event_id_and_retry_are_read() -> None:
    first, second = parse(b"event: e\nid: 7\nretry: 250\ndata: a\n\ndata: b\n\n")
    assert first == ServerSentEvent("a", "e", "7", 250)
    assert second == ServerSentEvent("b", "message", "7", None), "the id lasts, the rest does not"


def test_an_id_with_null_and_a_retry_that_is_no_number_are_ignored() -> None:
    assert parse(b"id: a\0b\nretry: soon\nretry: -1\ndata: a\n\n") == [ServerSentEvent("a")]


def test_a_byte_order_mark_is_ignored_at_the_very_start_only() -> None:
    bom = b"\xef\xbb\xbf"
    assert data(bom + b"data: a\n\n") == ["a"]
    assert data(b"data: a\n\n" + bom + b"data: b\n\ndata: " + bom + b"c\n\n") == ["a", "\ufeffc"]
    assert [event.data for event in parse(bom + b"data: a\n\n", piece=1)] == ["a"]


def test_unicode_line_separators_stay_in_the_data() -> None:
    text = '{"a":"1\u20282\u20293\x854\x0b5\x0c6\x1c7"}'
    assert data(f"data: {text}\n\n".encode()) == [text]


def test_bytes_that_are_no_utf8_become_replacement_characters() -> None:
    assert data(b"data: a\xffb\n\n") == ["a\ufffdb"]


def test_an_unfinished_event_is_handed_out_on_close_only() -> None:
    parser = SSEParser()
    assert parser.feed(b"data: a\n\ndata: [DONE]") == [ServerSentEvent("a")]
    assert parser.close() == [ServerSentEvent("[DONE]")]
    assert parser.close() == []


def test_close_of_a_stream_that_ended_well_or_never_began_gives_nothing() -> None:
    assert parse(b"", close=True) == []
    assert [event.data for event in parse(b"data: a\n\n", close=True)] == ["a"]


@pytest.mark.parametrize("piece", [1, 7, 10_000])
def test_a_line_over_the_cap_is_a_protocol_error_that_says_so(piece: int) -> None:
    body = b"data: " + b"x" * 200 + b"\n\n"
    with pytest.raises(ProtocolError, match=r"more than 100 bytes"):
        parse(body, piece=piece, parser=SSEParser(max_line=100))


def test_a_line_that_never_ends_is_stopped_at_the_cap() -> None:
    with pytest.raises(ProtocolError, match=r"1,000 bytes"):
        parse(b"x" * 10_000, piece=100, parser=SSEParser(max_line=1000))


def test_an_event_of_many_lines_is_stopped_at_its_cap() -> None:
    parser = SSEParser(max_event=100)
    assert parser.feed(b"data: " + b"x" * 49 + b"\ndata: " + b"y" * 50 + b"\n\n")[0].data.startswith("x")
    with pytest.raises(ProtocolError, match=r"event with more than 100 bytes"):
        parse(b"data: 0123456789\n" * 100, piece=17, parser=parser)


def test_a_line_of_exactly_the_cap_passes() -> None:
    line = b"data: 1234"
    assert [event.data for event in SSEParser(max_line=len(line)).feed(line + b"\n\n")] == ["1234"]


lines = st.one_of(
    st.binary(max_size=6).filter(lambda line: b"\r" not in line and b"\n" not in line),
    st.text(max_size=6).map(
        lambda text: ("data: " + text.replace("\r", "").replace("\n", "")).encode("utf-8", "surrogatepass")
    ),
    st.sampled_from([b"", b"", b"event: e", b"id: 1", b"retry: 5", b": c", b"data", b"\xef\xbb\xbfdata: x", b"data:a"]),
)
bodies = st.lists(st.tuples(lines, st.sampled_from([b"\n", b"\r\n", b"\r"])), max_size=12).map(
    lambda parts: b"".join(line + end for line, end in parts)
)


@given(bodies, st.binary(max_size=5), st.lists(st.integers(min_value=0, max_value=120), max_size=8))
def test_any_cutting_of_the_bytes_gives_the_same_events(body: bytes, tail: bytes, cuts: list[int]) -> None:
    """The parser's one law: pieces carry no meaning."""
    body += tail
    whole = parse(body, close=True)
    assert parse(body, piece=1, close=True) == whole
    parser, events, start = SSEParser(), [], 0
    for cut in [*sorted(cut for cut in cuts if cut <= len(body)), len(body)]:
        events += parser.feed(body[start:cut])
        start = cut
    assert events + parser.close() == whole


@given(st.lists(st.text(alphabet=st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]))))
def test_what_is_written_as_events_is_read_back(texts: list[str]) -> None:
    body = "".join(f"data: {text}\n\n" for text in texts).encode()
    assert [event.data for event in parse(body, piece=3)] == texts
