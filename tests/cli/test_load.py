"""Finding a flow in a file, and what is said when it cannot be found."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from agentflow.cli.load import load_flow, read_target
from agentflow.errors import ConfigurationError, FlowFileError

TWO = """
from agentflow import *
@node
async def a(s): pass
article = AsyncFlow(a, name='one')
essay = Flow(a, name='two')
"""


def _said(text: str) -> str:
    with pytest.raises(FlowFileError) as raised:
        load_flow(text)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_colon_splits_off_a_name_and_nothing_else(place: Path) -> None:
    assert (read_target("a/flow.py:main").name, read_target("a/flow.py").name) == ("main", None)
    assert read_target("C:\\flow.py").name is None
    (place / "odd:name").touch()
    assert read_target("odd:name").file == Path("odd:name")


def test_the_variable_flow_wins_over_others(place: Path) -> None:
    (place / "f.py").write_text(TWO + "flow = AsyncFlow(article, name='three')\n")
    assert load_flow("f.py").name == "three"
    assert load_flow("f.py:essay").name == "two"


def test_one_flow_under_two_names_is_one_flow(place: Path) -> None:
    (place / "f.py").write_text(
        "from agentflow import *\n@node\nasync def a(s): pass\nx = AsyncFlow(a, name='x')\ny = x\n"
    )
    assert load_flow("f.py").name == "x"


def test_several_flows_without_a_name_are_listed(place: Path) -> None:
    (place / "f.py").write_text(TWO)
    assert _said("f.py") == "f.py holds 2 flows, article, essay: say which one, as in f.py:article"


def test_an_unknown_name_gets_the_nearest(place: Path) -> None:
    (place / "f.py").write_text(TWO)
    assert _said("f.py:artikle") == "f.py has no flow 'artikle': did you mean article?"
    assert _said("f.py:zzz") == "f.py has no flow 'zzz': there is article, essay"


def test_a_file_without_a_flow(place: Path) -> None:
    (place / "f.py").write_text("x = 1\n")
    assert _said("f.py").startswith("f.py holds no flow: assign one at its top level")


def test_a_missing_file_gets_the_nearest_there_is(place: Path) -> None:
    (place / "flow.py").touch()
    assert _said("flwo.py") == "there is no file flwo.py: did you mean flow.py?"
    assert "agentflow init" in _said("nothing/x.py")


def test_a_folder_and_another_kind_of_file(place: Path) -> None:
    (place / "notes.txt").touch()
    assert "is a folder" in _said(".")
    assert _said("notes.txt") == "notes.txt is no Python file: a flow file ends in .py"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("x = 1\ny = x.z\n", "f.py:2: AttributeError: 'int' object has no attribute 'z'"),
        ("x = (\n", "f.py:1:5: SyntaxError: '(' was never closed"),
        ("import nosuchthing\n", "f.py:1: No module named 'nosuchthing'; install it into "),
        ("import sys\nsys.exit(3)\n", "f.py:2: the file ends the program when it is imported"),
        ("from agentflow import *\nflow = AsyncFlow()\n", "f.py:2: flow 'flow' is empty"),
        ("x = '\0'\n", "f.py: "),
    ],
)
def test_a_file_that_fails_to_import_says_where(place: Path, source: str, said: str) -> None:
    (place / "f.py").write_text(source)
    assert _said("f.py").startswith(said)


def test_a_configuration_error_of_the_file_stays_one(place: Path) -> None:
    (place / "f.py").write_text("from agentflow import AgentFlow\nAgentFlow.init('nowhere.yml')\n")
    with pytest.raises(ConfigurationError, match=r"nowhere\.yml: there is no such file"):
        load_flow("f.py")


def test_neighbours_can_be_imported_and_nothing_is_left_behind(place: Path) -> None:
    folder = place / "flows"
    folder.mkdir()
    (folder / "neighbour_of_f.py").write_text("NAME = 'near'\n")
    (folder / "f.py").write_text(
        "from dataclasses import dataclass\nfrom agentflow import *\nfrom neighbour_of_f import NAME\n"
        "@dataclass\nclass In:\n    x: int\n@node\nasync def a(s): pass\nflow = AsyncFlow(a, name=NAME, inputs=In)\n"
    )
    assert load_flow("flows/f.py").name == "near"
    del sys.modules["neighbour_of_f"]
    cached = folder / "__pycache__"
    assert not cached.exists() or not list(cached.glob("f.*"))
