"""The neutral log format: what is read and written, and what a file that is none says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from agentflow.errors import ConfigurationError
from agentflow.mcp.optimization.cost import Call, UsageLog

LINE = '{"at": 1764201600.0, "run": "a", "model": "gpt-4o", "input_tokens": 812, "output_tokens": 40, "cost": 0.00243}'


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    calls = [
        Call(at=20.0, model="b", embedding=(0.5, 0.25), score=1.0, slack=90_000.0),
        Call(at=10.0, model="a", run="r", fingerprint="f", cost=0.5, temperature=0.0, propensity=0.25),
    ]
    UsageLog(calls).write(tmp_path / "log.jsonl")
    assert list(UsageLog.read(tmp_path / "log.jsonl")) == sorted(calls, key=lambda call: call.at)


def test_calls_are_in_the_order_of_time_and_can_begin_later(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text(f"{LINE.replace('1764201600', '1764300000')}\n\n{LINE}\n")
    assert [call.at for call in UsageLog.read(tmp_path / "log.jsonl")] == [1764201600.0, 1764300000.0]
    assert len(UsageLog.read(tmp_path / "log.jsonl", since=1764250000.0)) == 1


def test_fields_that_a_later_format_adds_are_no_error(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text(LINE.replace('"run"', '"colour": "blue", "run"'))
    assert UsageLog.read(tmp_path / "log.jsonl")[0].run == "a"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "no call of a log"),
        ('{"at": 1.0}', "`model`"),
        ('{"at": "now", "model": "a"}', "$.at"),
        (LINE.replace("0.00243", '0.1, "currency": "EUR"'), "US dollars"),
        (LINE.replace("812", "-1"), "`input_tokens` is less than 0"),
        (LINE.replace("0.00243", "-1"), "no amount of dollars"),
        (LINE.replace('"cost"', '"score": 3, "cost"'), "`score` is not between 0 and 1"),
    ],
)
def test_a_line_that_is_no_call_is_named(tmp_path: Path, line: str, said: str) -> None:
    file = tmp_path / "log.jsonl"
    file.write_text(f"{LINE}\n{line}\n")
    with pytest.raises(ConfigurationError) as failure:
        UsageLog.read(file)
    assert said in str(failure.value)
    assert f"{file}:2" in str(failure.value)


def test_a_file_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        UsageLog.read(tmp_path / "none.jsonl")


def test_a_log_in_another_currency_is_refused_in_code_too() -> None:
    with pytest.raises(ConfigurationError, match="'CNY'"):
        UsageLog([Call(at=0.0, model="a", cost=1.0, currency="CNY")])


def test_the_time_that_a_log_covers_is_never_less_than_an_hour() -> None:
    log = UsageLog([Call(at=0.0, model="a"), Call(at=60.0, model="a")])
    assert log.seconds == 3_600.0
    assert log.is_short
    assert UsageLog([]).days == pytest.approx(1 / 24)


def test_reading_a_log_loads_no_numpy_and_an_analysis_without_it_says_what_to_install() -> None:
    program = (
        "import sys\n"
        "from agentflow.errors import MissingExtraError\n"
        "from agentflow.mcp.optimization.cost import CostOptimizer, UsageLog\n"
        "log = UsageLog([])\n"
        "assert not {'numpy', 'scipy', 'matplotlib'} & set(sys.modules)\n"
        "import importlib.util, agentflow.mcp.optimization.cost.optimizer as optimizer\n"
        "optimizer.find_spec = lambda name: None\n"
        "try: CostOptimizer(log)\n"
        "except MissingExtraError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "pip install 'agentflow-engine[learn]'" in done.stdout
