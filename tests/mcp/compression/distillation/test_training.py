"""A training that is killed, torn or cancelled comes out as one that was never disturbed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from agentflow.errors import CompressionError, ShortageError
from agentflow.mcp.compression.distillation.order import Order, mixed
from agentflow.mcp.compression.distillation.training import Course, Schedule, train
from agentflow.mcp.compression.work import CancelledWork

ROOT = Path(__file__).resolve().parents[4]
torch.set_num_threads(1)


class Line:
    """Learns y = 2x with noise and dropout: whatever is drawn at random must come back after a crash."""

    def __init__(self, seed: int = 0) -> None:
        self.order = Order(40, batch=8, seed=seed)
        self.x = torch.randn(40, 4, generator=torch.Generator().manual_seed(1))

    def loss(self, model: nn.Module, step: int) -> torch.Tensor:
        x = self.x[self.order.at(step)]
        y: torch.Tensor = model(x)
        return ((y - 2 * x) ** 2).mean() + 0.01 * torch.randn(()).abs()

    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        return {"loss": float(((model(self.x) - 2 * self.x) ** 2).mean())}


class Worsening(Line):
    """Its evaluations get better until step 6 and worse from there on."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[int, dict[str, torch.Tensor]] = {}
        self.at = 0

    def loss(self, model: nn.Module, step: int) -> torch.Tensor:
        self.at = step + 1
        return super().loss(model, step)

    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        self.seen[self.at] = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        return {"loss": float(abs(self.at - 6) + 1)}


def student() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.2), nn.Tanh(), nn.Linear(16, 4))


SCHEDULE = Schedule(steps=20, learning_rate=0.01, warmup=3, evaluate_every=5)


def trained(scratch: Path, schedule: Schedule = SCHEDULE, key: str = "one") -> tuple[nn.Module, Course]:
    model = student()
    return model, train(model, Line(), schedule, scratch=scratch, key=key)


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_training_lowers_the_loss_and_tells_its_course(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    model = student()
    course = train(model, Line(), SCHEDULE, scratch=tmp_path, key="one", progress=lambda *each: told.append(each))
    assert [each.step for each in course.evaluations] == [0, 5, 10, 15, 20]
    assert course.evaluations[-1].loss < course.evaluations[0].loss
    assert len(course.losses) == course.steps == course.taken == 20
    assert told[-1] == ("training", 20, 20)
    assert not course.resumed


def test_the_learning_rate_rises_in_a_line_and_falls_along_a_cosine() -> None:
    schedule = Schedule(steps=100, learning_rate=1.0, warmup=10)
    rates = [schedule.rate(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(rates[9], rel=0.03)
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[-1] == pytest.approx(0.02, abs=0.001)


def test_each_example_comes_once_an_epoch() -> None:
    order = Order(10, batch=3, seed=4)
    epoch = torch.cat([order.at(step) for step in range(3)])
    assert len(set(epoch.tolist())) == 9
    again = Order(10, batch=3, seed=4)
    assert torch.equal(again.at(7), order.at(7))
    assert not torch.equal(torch.cat([order.at(step) for step in range(3, 6)]), epoch)
    assert Order(2, batch=8, seed=0).at(5).tolist() in ([0, 1], [1, 0])


def test_seeds_for_other_purposes_are_others() -> None:
    assert len({mixed(0, "a"), mixed(0, "b"), mixed(1, "a"), mixed(0, "a", 1), mixed(0, "a1")}) == 5


@pytest.mark.parametrize("at", [1, 5, 7, 13, 20])
def test_one_cancelled_anywhere_goes_on_to_the_same_weights(tmp_path: Path, at: int) -> None:
    """Bit for bit, and with the same curve; PyTorch's own generator is left as it was."""
    whole, course = trained(tmp_path / "whole")
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls > at:
            raise CancelledWork

    with pytest.raises(CancelledWork):
        train(student(), Line(), SCHEDULE, scratch=tmp_path / "cut", key="one", check=check)
    torch.manual_seed(999)  # whatever else the process draws
    before = torch.random.get_rng_state()
    model = student()
    again = train(model, Line(), SCHEDULE, scratch=tmp_path / "cut", key="one")
    assert same(model, whole)
    assert (again.losses, again.evaluations) == (course.losses, course.evaluations)
    assert again.resumed == ([(at - 1) // 5 * 5])
    torch.manual_seed(999)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_what_is_finished_is_not_trained_again(tmp_path: Path) -> None:
    whole, course = trained(tmp_path)
    steps: list[int] = []
    model = student()
    again = train(model, Line(), SCHEDULE, scratch=tmp_path, key="one", check=lambda: steps.append(1))
    assert not steps
    assert same(model, whole)
    assert again.losses == course.losses


PROGRAM = """
import os, signal, sys
from pathlib import Path
from safetensors.torch import save_file
from tests.mcp.compression.distillation.test_training import Line, SCHEDULE, student
from agentflow.mcp.compression.distillation.training import train

def life(at):  # of a process that is killed while it tells of step `at`
    def told(what, done, of):
        if done == at:
            os.kill(os.getpid(), signal.SIGKILL)

    model = student()
    course = train(model, Line(), SCHEDULE, scratch=Path(sys.argv[1]), key="one", progress=told)
    save_file(dict(model.state_dict()), sys.argv[2])
    print(course.resumed, flush=True)

for at in (8, 16, -1):
    child = os.fork()  # PyTorch is loaded once
    if child == 0:
        life(at)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def test_one_killed_twice_comes_out_as_one_that_was_not(tmp_path: Path) -> None:
    """SIGKILL, in processes of their own; the third finishes."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "scratch"), str(tmp_path / "out")],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines() == [str(-signal.SIGKILL), str(-signal.SIGKILL), "[5, 15]", "0"], done.stderr
    whole, _ = trained(tmp_path / "whole")
    found = load_file(tmp_path / "out")
    assert all(torch.equal(found[name], tensor) for name, tensor in whole.state_dict().items())


@pytest.mark.parametrize("harm", ["short", "flipped", "no tensors", "no json", "half a json", "left over"])
def test_a_torn_snapshot_is_passed_over_for_the_one_before(tmp_path: Path, harm: str) -> None:
    whole, _ = trained(tmp_path / "whole")
    trained(tmp_path / "cut")
    tensors, record = tmp_path / "cut" / "000000020.safetensors", tmp_path / "cut" / "000000020.json"
    match harm:
        case "short":
            tensors.write_bytes(tensors.read_bytes()[:-7])
        case "flipped":
            data = bytearray(tensors.read_bytes())
            data[-3] ^= 1
            tensors.write_bytes(data)
        case "no tensors":
            tensors.unlink()
        case "no json":
            record.unlink()
        case "half a json":
            record.write_text(record.read_text()[:20])
        case _:
            record.unlink()
            tensors.rename(tensors.with_suffix(".partial"))
    model = student()
    again = train(model, Line(), SCHEDULE, scratch=tmp_path / "cut", key="one")
    assert again.resumed == [15]
    assert same(model, whole)
    assert sorted(path.name for path in (tmp_path / "cut").iterdir()) == [
        "000000015.json", "000000015.safetensors", "000000020.json", "000000020.safetensors",
    ]  # fmt: skip


def test_where_every_snapshot_is_damaged_it_begins_anew(tmp_path: Path) -> None:
    whole, _ = trained(tmp_path)
    for path in tmp_path.glob("*.safetensors"):
        path.write_bytes(b"")
    model, course = trained(tmp_path)
    assert not course.resumed
    assert same(model, whole)


def test_another_trainings_snapshots_are_never_continued(tmp_path: Path) -> None:
    """Nor do they push out what the new training writes, though they are further on."""
    trained(tmp_path, key="another")
    whole, _ = trained(tmp_path / "whole")
    calls = iter(range(100))

    def check() -> None:
        if next(calls) == 12:
            raise CancelledWork

    with pytest.raises(CancelledWork):
        train(student(), Line(), SCHEDULE, scratch=tmp_path, key="one", check=check)
    model, course = trained(tmp_path)
    assert course.resumed == [10]
    assert same(model, whole)


def test_snapshots_are_few_and_hold_no_pickle(tmp_path: Path) -> None:
    trained(tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["000000015.json", "000000015.safetensors", "000000020.json", "000000020.safetensors"]
    assert json.loads((tmp_path / "000000020.json").read_text())["key"] == "one"


def test_patience_ends_it_and_the_best_weights_are_taken(tmp_path: Path) -> None:
    schedule = Schedule(steps=30, learning_rate=0.01, evaluate_every=2, patience=3)
    model, lesson = student(), Worsening()
    course = train(model, lesson, schedule, scratch=tmp_path, key="one")
    assert (course.steps, course.best, course.taken) == (12, 6, 6)
    assert all(torch.equal(tensor, lesson.seen[6][name]) for name, tensor in model.state_dict().items())
    again = student()
    train(again, Worsening(), schedule, scratch=tmp_path, key="one")
    assert same(again, model)


def test_without_patience_the_last_weights_are_taken(tmp_path: Path) -> None:
    schedule = Schedule(steps=10, learning_rate=0.01, evaluate_every=2)
    model, lesson = student(), Worsening()
    assert train(model, lesson, schedule, scratch=tmp_path, key="one").taken == 10
    assert all(torch.equal(tensor, lesson.seen[10][name]) for name, tensor in model.state_dict().items())


class Broken(Line):
    def __init__(self, value: float, *, gradient: bool = False) -> None:
        super().__init__()
        self.value, self.gradient = value, gradient

    def loss(self, model: nn.Module, step: int) -> torch.Tensor:
        loss = super().loss(model, step)
        if step != 6:
            return loss
        return (loss - loss.detach()).abs().sqrt() + 1 if self.gradient else loss * self.value


@pytest.mark.parametrize(
    ("lesson", "what"),
    [
        (Broken(float("nan")), "loss is nan"),
        (Broken(float("inf")), "loss is inf"),
        (Broken(0, gradient=True), "gradient is"),
    ],
)
def test_a_loss_that_is_no_number_is_said_with_its_step(tmp_path: Path, lesson: Line, what: str) -> None:
    model = student()
    with pytest.raises(CompressionError, match=rf"the {what}.* at step 7 of 20.*learning rate below 0\.01"):
        train(model, lesson, SCHEDULE, scratch=tmp_path, key="one")
    assert all(bool(tensor.isfinite().all()) for tensor in model.state_dict().values())


def test_a_full_disk_is_a_shortage_and_the_training_goes_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = trained(tmp_path / "whole")

    def full(tensors: dict[str, torch.Tensor], path: Path) -> None:
        save_file(tensors, path)
        if "000000010" in str(path):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("agentflow.mcp.compression.distillation.snapshots.save_file", full)
    with pytest.raises(ShortageError, match="goes on from its last snapshot"):
        trained(tmp_path / "cut")
    monkeypatch.undo()
    assert not list((tmp_path / "cut").glob("*.partial"))
    model, course = trained(tmp_path / "cut")
    assert course.resumed == [5]
    assert same(model, whole)


def test_what_is_not_trained_is_not_stored(tmp_path: Path) -> None:
    def half() -> nn.Module:
        model = student()
        model[0].requires_grad_(False)  # type: ignore[index]
        return model

    model, again = half(), half()
    train(model, Line(), SCHEDULE, scratch=tmp_path, key="one")
    stored = load_file(tmp_path / "000000020.safetensors")
    assert sorted(name for name in stored if name.startswith("model.")) == ["model.3.bias", "model.3.weight"]
    train(again, Line(), SCHEDULE, scratch=tmp_path, key="one")
    assert same(model, again)


def test_tied_weights_are_kept_once_and_stay_tied(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.one = nn.Linear(4, 4)
            self.other = nn.Linear(4, 4, bias=False)
            self.other.weight = self.one.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.other(self.one(x))
            return y

    model, again = Tied(), Tied()
    train(model, Line(), SCHEDULE, scratch=tmp_path, key="one")
    train(again, Line(), SCHEDULE, scratch=tmp_path, key="one")
    assert same(model, again)
    assert again.other.weight is again.one.weight
