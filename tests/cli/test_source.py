"""Where a run's flow came from: one line of a shell, there and back."""

from __future__ import annotations

import pytest

from agentflow.cli.source import Source


@pytest.mark.parametrize(
    ("source", "line"),
    [
        (Source("/work/f.py:flow"), "/work/f.py:flow"),
        (Source("/work/f.py:flow", "stage/x"), "/work/f.py:flow --model stage/x"),
        (Source("/a folder/it's.py:flow", "a model"), """'/a folder/it'"'"'s.py:flow' --model 'a model'"""),
    ],
)
def test_there_and_back(source: Source, line: str) -> None:
    assert (str(source), Source.read(line)) == (line, source)


@pytest.mark.parametrize("line", ["/it's.py:flow", "a b c", "f.py --other x"])
def test_any_other_line_is_a_target_as_it_stands(line: str) -> None:
    assert Source.read(line) == Source(line)
