"""Questions on a terminal: asked right away, asked again where the answer does not fit, left for later."""

from __future__ import annotations

import json
import os
from pathlib import Path


def test_a_question_is_asked_right_away_and_the_run_goes_on(terminal, asks: Path, place: Path) -> None:
    screen = terminal("run", "ask.py")
    asked = screen.until("1 publish | 2 discard > ")
    assert "? Publish this?  (judge)" in asked
    assert "title  Tides" in asked
    assert "draft  The moon pulls the sea." in asked
    screen.type("publish\n")
    assert screen.end() == 0
    assert screen.shown.rstrip().endswith("publish")
    assert "done in " in screen.shown
    assert (place / "calls.txt").read_text() == "write\n"


def test_what_does_not_fit_is_said_and_asked_again(terminal, asks: Path) -> None:
    screen = terminal("run", "ask.py")
    screen.until("1 publish | 2 discard > ")
    screen.type("perhaps\n")
    assert '"perhaps" will not do; wanted is publish | discard' in screen.until("1 publish | 2 discard > ")
    screen.type("2\n")
    assert screen.end() == 0
    assert screen.shown.rstrip().endswith("discard")


def test_several_questions_come_one_after_the_other(terminal, asks: Path) -> None:
    screen = terminal("run", "ask.py:two", width=160)
    assert "(1 of 2, judge)" in screen.until("1 publish | 2 discard > ")
    screen.type("pub\n")
    assert "? Tell the readers?  (2 of 2, notify)" in screen.until("yes/no > ")
    screen.type("y\n")
    assert screen.end() == 0
    assert screen.shown.rstrip().endswith("publish, True")
    assert "4 node visits" in screen.shown


def test_ctrl_d_and_an_empty_line_leave_it_for_later(terminal, asks: Path, invoke) -> None:
    for keys in ("\x04", "\n"):
        screen = terminal("run", "ask.py")
        screen.until("1 publish | 2 discard > ")
        screen.type(keys)
        assert screen.end() == 4
        assert "it asks: Publish this? (publish | discard)" in screen.shown
        assert "agentflow answer " in screen.shown
    assert invoke("answer", "last", "publish").stdout == "publish\n"


def test_what_was_answered_before_one_was_left_is_kept(terminal, asks: Path, invoke) -> None:
    for keys, code in (("\x04", 4), ("\x03", 130)):
        screen = terminal("run", "ask.py:two")
        screen.until("1 publish | 2 discard > ")
        screen.type("publish\n")
        screen.until("yes/no > ")
        screen.type(keys)
        assert screen.end() == code
        assert "Traceback" not in screen.shown
        assert invoke("answer", "last", "yes").stdout == "publish, True\n"


def test_ctrl_c_at_a_question_leaves_the_run_parked_and_says_how_to_go_on(terminal, asks: Path, invoke) -> None:
    screen = terminal("run", "ask.py")
    screen.until("1 publish | 2 discard > ")
    screen.type("\x03")
    assert screen.end() == 130
    [run] = json.loads(invoke("runs", "--json").stdout)
    assert screen.shown.splitlines()[-1] == f"interrupted; the run waits; to go on: agentflow runs resume {run['id']}"
    assert run["status"] == "waiting"


def test_no_ask_asks_nothing(terminal, asks: Path) -> None:
    screen = terminal("run", "ask.py", "--no-ask")
    assert screen.end() == 4
    assert "1 publish | 2 discard > " not in screen.shown


def test_questions_stay_out_of_the_output(terminal, asks: Path, place: Path) -> None:
    with (place / "out.json").open("wb") as out:
        screen = terminal("run", "ask.py", "--json", stdout=out.fileno())
        screen.until("1 publish | 2 discard > ")
        screen.type("discard\n")
        assert screen.end() == 0
    assert json.loads((place / "out.json").read_text())["output"] == "discard"


def test_answer_asks_on_a_terminal_too(terminal, asks: Path, invoke) -> None:
    assert invoke("run", "ask.py:two").exit_code == 4
    screen = terminal("answer", "last")
    screen.until("1 publish | 2 discard > ")
    screen.type("discard\n")
    screen.until("yes/no > ")
    screen.type("no\n")
    assert screen.end() == 0
    assert screen.shown.rstrip().endswith("discard, False")


def test_a_node_that_refuses_an_answer_asks_again(terminal, place: Path) -> None:
    """Only the node knows that a title is too long."""
    (place / "f.py").write_text(
        "from agentflow import *\n@node(writes='output')\nasync def a():\n"
        "    title = await interrupt('Title?', schema=str)\n"
        "    while len(title) > 4:\n        title = await interrupt('Shorter?', schema=str)\n    return title\n"
        "flow = AsyncFlow(a)\n"
    )
    screen = terminal("run", "f.py")
    screen.until("text > ")
    screen.type("Of tides\n")
    assert "? Shorter?" in screen.until("text > ")
    screen.type("Tide\n")
    assert screen.end() == 0
    assert screen.shown.rstrip().endswith("Tide")


def test_what_a_model_wrote_cannot_move_the_cursor(terminal, place: Path) -> None:
    (place / "f.py").write_text(
        "from agentflow import *\n@node(writes='output')\nasync def a():\n"
        "    return await interrupt('Ok\\x1b[2J?', {'draft': 'gone\\x1b[1A\\x07'}, schema=bool)\nflow = AsyncFlow(a)\n"
    )
    screen = terminal("run", "f.py")
    assert "Ok [2J?" in (asked := screen.until("yes/no > "))
    assert "gone [1A" in asked
    screen.type("y\n")
    assert screen.end() == 0


def test_a_terminal_that_cannot_be_typed_at_is_asked_nothing(asks: Path, spawn) -> None:
    ours, theirs = os.openpty()
    process = spawn("run", "ask.py", stderr=theirs)
    assert process.wait(60) == 4
    os.close(ours)
    os.close(theirs)
