"""Logging: where a record was written, one line each whatever it holds, and no key in any of them."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.clock import VirtualClock
from agentflow.core import AsyncFlow, SharedState, node, observe
from agentflow.core.observability.logs.lines import JsonLines, Redacting, TextLines
from agentflow.core.observability.logs.setup import BindScope, configure_logging

KEY = "sk-proj-4f9aB81xQz77LmNp20rT"


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What is logged as JSON while a test runs."""
    stream = io.StringIO()
    with configure_logging(json=True, level="DEBUG", stream=stream):
        yield stream


def read(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def record(message: object = "hello", *args: object, **extra: object) -> logging.LogRecord:
    return logging.getLogger("shop").makeRecord(
        "shop", logging.INFO, "shop.py", 1, message, args, None, extra=extra or None
    )


class Told:
    """Watches, so that runs have scopes."""

    inline = True

    def observe(self, event: object) -> None: ...


# ---- where a record was written ------------------------------------------------------------------------------


def test_every_loggers_records_say_in_which_run_and_node_they_were_written(lines: io.StringIO) -> None:
    @node
    async def pay(state: SharedState) -> None:
        logging.getLogger("some.library").info("paid %d", 3)

    with observe(Told()):
        VirtualClock().run(AsyncFlow(pay, name="shop").run({}, run_id="r1", tenant="acme"))
    [line] = [each for each in read(lines) if each["logger"] == "some.library"]
    assert {name: line[name] for name in ("message", "run_id", "node", "path", "tenant")} == {
        "message": "paid 3",
        "run_id": "r1",
        "node": "pay",
        "path": "shop/pay#1",
        "tenant": "acme",
    }
    assert line["span"] > 0


def test_the_same_holds_in_a_sync_nodes_thread(lines: io.StringIO) -> None:
    @node
    def pay(state: SharedState) -> None:
        logging.getLogger("shop").info("paid")

    with observe(Told()):
        VirtualClock().run(AsyncFlow(pay, name="shop").run({}, run_id="r1"))
    [line] = [each for each in read(lines) if each["logger"] == "shop"]
    assert (line["run_id"], line["path"]) == ("r1", "shop/pay#1")


def test_outside_of_a_run_nothing_is_bound(lines: io.StringIO) -> None:
    logging.getLogger("shop").warning("closed")
    [line] = read(lines)
    assert set(line) == {"time", "level", "logger", "message"}


def test_what_a_record_says_of_itself_stays() -> None:
    said = record(node="till", path="shop/till")
    assert BindScope().filter(said)
    assert (vars(said)["node"], vars(said)["run_id"]) == ("till", "")


# ---- JSON ----------------------------------------------------------------------------------------------------


def test_a_line_says_when_how_bad_who_and_what() -> None:
    said = record("paid %s", "cash", order=7, basket={"apples": 2})
    said.created = 1_800_000_000.125
    assert json.loads(JsonLines().format(said)) == {
        "time": "2027-01-15T08:00:00.125000Z",
        "level": "INFO",
        "logger": "shop",
        "message": "paid cash",
        "order": 7,
        "basket": {"apples": 2},
    }


def test_an_extra_does_not_take_the_place_of_what_a_line_says() -> None:
    line = json.loads(JsonLines().format(record(time="noon", level="low", exception="none")))
    assert (line["extra.time"], line["extra.level"], line["extra.exception"]) == ("noon", "low", "none")
    assert line["level"] == "INFO"


def test_an_exception_is_told_with_its_traceback(lines: io.StringIO) -> None:
    try:
        raise ValueError("no luck")
    except ValueError:
        logging.getLogger("shop").exception("failed", stack_info=True)
    [line] = read(lines)
    assert line["message"] == "failed"
    assert line["exception"].startswith("Traceback (most recent call last):")
    assert line["exception"].endswith("ValueError: no luck")
    assert "Stack (most recent call last):" in line["stack"]


class Raising:
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize("formatter", [JsonLines(), TextLines()], ids=["json", "text"])
@pytest.mark.parametrize(
    "said",
    [
        record("%d items", "three"),
        record("%s", Raising()),
        record(Raising()),
        record(None),
        record("half \ud800"),
        record("a", odd=Raising(), endless=float("inf"), b=b"\xff", big=10**5000, none=None),
        record("a\nb\r\x1b[31m\x00"),
        record("%(name)s", {"name": {1, 2}}),
        record("a", run_id=3, path=None),
    ],
)
def test_odd_values_make_no_formatter_fail(formatter: logging.Formatter, said: logging.LogRecord) -> None:
    line = formatter.format(said)
    assert line.replace("\n    ", " ").count("\n") == 0
    line.encode("ascii" if isinstance(formatter, JsonLines) else "utf-8", "backslashreplace")


def test_an_exception_without_words_makes_no_formatter_fail() -> None:
    said = record("failed")
    try:
        raise Mute
    except Mute:
        said.exc_info = sys.exc_info()
    assert "Mute" in json.loads(JsonLines().format(said))["exception"]


@given(st.text(), st.dictionaries(st.text(min_size=1), st.text() | st.floats() | st.binary() | st.none()))
def test_any_record_is_one_line_of_json(message: str, extra: dict[str, object]) -> None:
    said = record(message)
    for name, value in extra.items():
        vars(said).setdefault(name, value)
    line = JsonLines().format(said)
    assert line.isascii()
    assert "\n" not in line
    assert isinstance(json.loads(line), dict)


def test_ten_megabytes_become_a_line_that_says_so() -> None:
    huge = "x" * 10_000_000
    said = record(huge, attachment=huge, many=[huge] * 100)
    try:
        raise ValueError(huge + " the end")
    except ValueError:
        said.exc_info = sys.exc_info()
    line = JsonLines().format(said)
    assert len(line) < 500_000
    read_back = json.loads(line)
    assert read_back["message"].endswith("… (10,000,000 characters)")
    assert read_back["exception"].endswith("the end")
    assert len(TextLines().format(said)) < 100_000


# ---- text ----------------------------------------------------------------------------------------------------


def test_a_line_for_people_says_the_same() -> None:
    said = record("paid %d", 3, run_id="r1", path="shop/pay#1")
    said.created = 1_800_000_000.125
    assert TextLines().format(said) == "2027-01-15T08:00:00.125000Z INFO    shop: paid 3  [r1 shop/pay#1]"


def test_no_message_looks_like_two() -> None:
    """A line break is followed by blanks, and what moves a terminal's cursor is written out."""
    text = TextLines().format(record("a\n2027-01-15T08:00:00Z ERROR shop: forged\r\x1b[2K"))
    assert [line[:4] for line in text.split("\n")[1:]] == ["    "]
    assert "\\x0d\\x1b[2K" in text


# ---- no key comes out ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("formatter", [JsonLines(), TextLines(), Redacting(logging.Formatter("%(message)s"))])
def test_no_key_comes_out_of_a_message_an_argument_an_extra_or_an_exception(formatter: logging.Formatter) -> None:
    said = record(f"key {KEY}, %s, %s", KEY, {"header": f"Bearer {KEY}"}, api_key="hunter2!", deep=[{"a": KEY}])
    try:
        try:
            raise ValueError(f"refused {KEY}")
        except ValueError as error:
            raise RuntimeError("wrapped") from error
    except RuntimeError:
        said.exc_info = sys.exc_info()
    said.stack_info = f"Stack: {KEY}"
    line = formatter.format(said)
    assert KEY not in line
    assert "hunter2" not in line
    assert "[redacted:" in line


@pytest.mark.parametrize("before", range(32_760, 32_770, 3))
def test_a_key_where_a_text_is_cut_does_not_come_out_in_part(before: int) -> None:
    for tail in ("", "y" * 10_000):
        line = JsonLines().format(record("x" * before + " " + KEY + tail, also="x" * before + " " + KEY + tail))
        assert KEY[:12] not in line


@pytest.mark.parametrize("behind", range(32_755, 32_770, 3))
def test_a_key_where_a_tracebacks_beginning_is_cut_does_not_come_out_in_part(behind: int) -> None:
    said = record("failed")
    for more in (0, 4_096):
        said.exc_text = f"{'y' * 9_000} {KEY}{' x' * ((behind + more) // 2)}"
        assert KEY[-12:] not in JsonLines().format(said)


# ---- setting it up -------------------------------------------------------------------------------------------


def test_a_second_call_takes_the_place_of_the_first_and_the_end_restores_what_was() -> None:
    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    first, second = io.StringIO(), io.StringIO()
    configure_logging(stream=first)
    with configure_logging(level=logging.ERROR, stream=second):
        logging.getLogger("shop").error("once")
        logging.getLogger("shop").warning("not at all")
    assert first.getvalue() == ""
    assert second.getvalue().count("\n") == 1
    assert (root.level, root.handlers) == before


def test_closing_twice_is_closing_once() -> None:
    level = logging.getLogger().level
    configured = configure_logging(stream=io.StringIO(), level="ERROR")
    configured.close()
    configured.close()
    assert logging.getLogger().level == level


def test_a_level_that_nobody_knows_changes_nothing() -> None:
    handlers = list(logging.getLogger().handlers)
    with pytest.raises(ValueError, match="LOUD"):
        configure_logging(level="LOUD")
    assert logging.getLogger().handlers == handlers


def test_a_line_that_cannot_be_written_is_counted_and_printed_nowhere(capsys: pytest.CaptureFixture[str]) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    with configure_logging(stream=Full()) as configured:
        logging.getLogger("shop").info("key %s", KEY)
        assert configured.lost == 1
    assert capsys.readouterr() == ("", "")


def test_a_stream_that_knows_ascii_alone_gets_the_rest_spelled_out() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii", write_through=True)
    with configure_logging(stream=stream):
        logging.getLogger("shop").info("Käse")
        assert b"K\\xe4se" in raw.getvalue()
