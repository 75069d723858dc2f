"""Outcome tables in the forms in which people keep them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from agentflow.errors import ConfigurationError
from agentflow.mcp.optimization.router.learning.reading import Columns, read_table


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines), "utf-8")
    return path


def test_a_wide_table_is_read_without_being_told(tmp_path: Path) -> None:
    """Qualities, and beside them what each answer cost and said; numbers that are no qualities are left alone."""
    file = write(
        tmp_path / "outcomes.csv",
        "sample_id,prompt,a/small,large,a/small|total_cost,large|total_cost,large_response",
        '17,"What, then?",True,False,0.002,0.04,"eight letters or so"',
        "18,Why?,0.5,1,0.001,0.03,",
    )
    table = read_table(file)
    assert table.models == ("a/small", "large")
    assert table.texts == ("What, then?", "Why?")
    assert table.quality.tolist() == [[1, 0], [0.5, 1]]
    assert table.cost.tolist() == [[0.002, 0.04], [0.001, 0.03]]
    assert table.output_tokens[0, 1] == 5
    assert np.isnan(table.output_tokens[1]).all()
    assert set(table.groups) == {"outcomes"}


def test_columns_can_be_said_and_renamed(tmp_path: Path) -> None:
    file = write(tmp_path / "t.tsv", "frage\tm1\tm2\tfach", "Wie?\t7\t10\tbio", "Wo?\t\tnan\tgeo")
    table = read_table(file, Columns(text="frage", models={"fast": "m1", "strong": "m2"}, group="fach", scale=10))
    assert table.models == ("fast", "strong")
    assert table.quality[0].tolist() == [0.7, 1.0]
    assert np.isnan(table.quality[1]).all()
    assert table.groups == ("bio", "geo")


def test_rows_of_a_log_are_one_decision_each(tmp_path: Path) -> None:
    rows = [
        {"text": "a", "model": "small", "score": 1, "cost": 0.01, "propensity": 0.8},
        {"text": "a", "model": "large", "score": 0.5, "cost": 0.1, "propensity": 0.2},
    ]
    file = write(tmp_path / "log.jsonl", *map(json.dumps, rows))
    table = read_table(file, Columns(model="model"))
    assert len(table) == 2
    assert table.quality[0, 0] == 1
    assert np.isnan(table.quality[0, 1])
    assert table.propensity[1, 1] == 0.2


def test_a_long_table_without_propensities_joins_the_models_of_a_text(tmp_path: Path) -> None:
    rows = [{"text": "a", "model": "small", "score": True}, {"text": "a", "model": "large", "score": False}]
    table = read_table(write(tmp_path / "long.json", json.dumps(rows)), Columns(model="model"))
    assert table.quality.tolist() == [[1, 0]]


def test_files_of_a_folder_are_groups_and_may_know_other_models(tmp_path: Path) -> None:
    write(tmp_path / "one.csv", "prompt,a,b", "x,1,0")
    write(tmp_path / "two.csv", "prompt,b,c", "y,yes,no")
    table = read_table(tmp_path)
    assert table.models == ("a", "b", "c")
    assert table.groups == ("one", "two")
    assert np.isnan(table.quality[0, 2])
    assert table.quality[1, 1:].tolist() == [1, 0]


def test_prompts_may_be_longer_than_csv_expects_and_hold_any_line_break(tmp_path: Path) -> None:
    """The limit of the csv module is left as it was."""
    before = csv.field_size_limit()
    prompt = "x" * 200_000 + "\u2028y\x0cz"
    table = read_table(write(tmp_path / "t.csv", "prompt,m", f"{prompt},1"))
    assert table.texts == (prompt,)
    assert csv.field_size_limit() == before


@pytest.mark.parametrize(
    ("content", "columns", "complaint"),
    [
        ("a,b\n1,0", None, "which column is the text"),
        ("prompt,b\nx,7", None, "None holds qualities"),
        ("prompt,b\nx,1", Columns(text="q"), "no column 'q'"),
        ("prompt,b\nx,1", Columns(models=["c"]), "no column 'c'"),
        ("prompt,b\nx,1", Columns(model="m"), "a long table"),
        ("prompt,b\n", None, "no rows"),
        ("prompt,b\nx,2", Columns(models=["b"]), "from 0 to 1"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, content: str, columns: Columns | None, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        read_table(write(tmp_path / "t.csv", content), columns)


def test_what_is_not_there_or_not_its_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no file or folder"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(ConfigurationError, match="not what its ending says"):
        read_table(write(tmp_path / "t.jsonl", "{"))
    with pytest.raises(ConfigurationError, match="list of objects"):
        read_table(write(tmp_path / "t.json", "{}"))
