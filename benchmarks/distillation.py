"""Is a distilled student worth more than the same student trained alone, for as many steps, for as much compute?

    python benchmarks/distillation.py --tokens 5000000 --seeds 3          hours on a CPU; --device cuda: minutes
    python benchmarks/distillation.py --tiny                              shows that it runs, measures nothing

The teacher is the fixture of the tests (`scripts/fixture_models.py`), trained on for `--tokens` on the text that the
students see: the standard library's sources and, until there are enough tokens, those of installed packages. A student
has half of its layers. "Equal compute" counts what the teacher reads to the distilled student, so that the other one
gets so many more steps. Everything is judged on whole files that neither saw.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Literal

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))

import fixture_models
import torch

from agentflow.mcp.compression.checkpoint import Checkpoint
from agentflow.mcp.compression.distillation.compute import Cost
from agentflow.mcp.compression.distillation.logits import LogitLesson
from agentflow.mcp.compression.distillation.outcome import write_student
from agentflow.mcp.compression.distillation.stage import decoder, schedule_of
from agentflow.mcp.compression.distillation.students import copied, fresh, which_layers
from agentflow.mcp.compression.distillation.training import train
from agentflow.mcp.compression.recipe import Distill
from results import Report, note, options

LENGTH = 128
INTRO = (
    "A teacher of {teacher:.1f} million parameters and students with {kept} of its {layers} layers ({student:.1f}"
    " million), all trained on {tokens:.1f} million tokens ({distinct:.1f} million different ones); means over {seeds}"
    " seeds, with the standard deviation. Perplexity is of held-out text, KL(teacher ‖ student) in nats a token, top-1"
    " how often both hold the same token the likeliest. The teacher has learnt from as many tokens as its students:"
    " where a student by itself gets further than its teacher, being taught can bring it nearer to the teacher, and no"
    " further."
)


@dataclass(frozen=True, slots=True)
class Way:
    """How a student comes to be: where it begins, what it learns from, and what it may spend."""

    name: str
    begins: Literal["copied", "fresh"]
    learns: Distill | None  # None: from the text alone
    spends: Literal["nothing", "steps", "compute"] = "steps"


def ways(stage: Distill) -> Sequence[Way]:
    return (
        Way("copied, not trained", "copied", None, "nothing"),
        Way("fresh, text alone, equal steps", "fresh", None),
        Way("fresh, text alone, equal compute", "fresh", None, "compute"),
        Way("fresh, distilled", "fresh", stage),
        Way("copied, text alone, equal steps", "copied", None),
        Way("copied, text alone, equal compute", "copied", None, "compute"),
        Way("**copied, distilled**", "copied", stage),
        Way("copied, distilled, reverse KL", "copied", replace(stage, divergence="reverse_kl")),
        Way("copied, distilled, JSD", "copied", replace(stage, divergence="jsd")),
        Way("copied, distilled, a quarter on its own text", "copied", replace(stage, on_policy=0.25)),
    )


class Laboratory:
    """Texts and folders that all students share."""

    def __init__(self, folder: Path, stage: Distill, device: str) -> None:
        self.folder = folder
        self.stage = stage
        self.device = device
        self.tokenizer = Checkpoint.open(fixture_models.teacher()).tokenizer
        self.training = self._windows(sources(), stage.steps * stage.batch)
        self.evaluation = self._windows(iter(fixture_models.corpus()["held_out"]), min(256, len(self.training)))
        self.teacher = folder / "teacher"

    def teach(self) -> None:
        """The fixture, trained on from the text alone."""
        model = decoder(Checkpoint.open(fixture_models.teacher()), self.device)
        self._train(model, self.stage, None, self.folder / "teaching", write=self.teacher)

    def student(self, way: Way, seed: int) -> Mapping[str, float]:
        """What was measured of it, against the teacher."""
        place = self.folder / f"{way.name}-{seed}".replace("*", "").replace(" ", "-")
        copied(self.teacher, place / "copied", self.kept)
        if way.begins == "fresh":
            fresh(place / "copied", place / "fresh", seed=seed)
        model = decoder(Checkpoint.open(place / way.begins), self.device)
        stage = replace(way.learns or self.stage, seed=seed, steps=self._steps(way, place / "copied"))
        if way.spends != "nothing":
            self._train(model, stage, self._teacher() if way.learns else None, place / "scratch")
        judge = LogitLesson(self.stage, self._teacher(), self.training, self.evaluation, device=self.device)
        with torch.no_grad():
            measured = judge.evaluate(model.eval())
        shutil.rmtree(place)
        return measured

    @property
    def kept(self) -> tuple[int, ...]:
        layers = Checkpoint.open(self.teacher).layers
        return which_layers(layers, layers // 2)

    def _teacher(self) -> Any:
        return decoder(Checkpoint.open(self.teacher), self.device)

    def _steps(self, way: Way, student: Path) -> int:
        if way.spends != "compute":
            return self.stage.steps
        mine, theirs = Cost.of(Checkpoint.open(student), LENGTH), Cost.of(Checkpoint.open(self.teacher), LENGTH)
        return round(self.stage.steps * mine.distilling(theirs) / mine.training)

    def _train(self, model: Any, stage: Distill, teacher: Any, scratch: Path, *, write: Path | None = None) -> None:
        lesson = LogitLesson(stage, teacher, self.training, self.evaluation[:8], device=self.device)
        course = train(model, lesson, schedule_of(stage), scratch=scratch, key=repr(stage))
        if write is not None:
            write_student(model, Checkpoint.open(fixture_models.teacher()), write, course, {})

    def _windows(self, texts: Iterator[str], most: int) -> torch.Tensor:
        """Up to `most` windows, each of one text."""
        found: list[torch.Tensor] = []
        count = 0
        for text in texts:
            pieces = [text[at : at + 20_000] for at in range(0, len(text), 20_000)]
            for piece in pieces:
                ids = torch.tensor(self.tokenizer(piece, verbose=False)["input_ids"])
                found.append(ids[: len(ids) // LENGTH * LENGTH].view(-1, LENGTH))
                count += len(found[-1])
            if count >= most:
                break
        return torch.cat(found)[:most]


def sources() -> Iterator[str]:
    """What the fixture was trained on, then the sources of installed packages."""
    yield from fixture_models.corpus()["train"]
    for path in sorted(Path(sysconfig.get_path("purelib")).rglob("*.py")):
        if 2_000 < path.stat().st_size < 200_000:
            yield path.read_text(encoding="utf-8", errors="ignore")


def row(way: Way, measured: Sequence[Mapping[str, float]]) -> list[str]:
    perplexities = [2.718281828459045 ** each["cross_entropy"] for each in measured]
    return [
        way.name,
        _spread(perplexities, 2),
        _spread([each["kl"] for each in measured], 4),
        _spread([100 * each["top1"] for each in measured], 1),
    ]


def _spread(values: Sequence[float], digits: int) -> str:
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{deviation}"


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--tokens", type=int, default=5_000_000, help="that each student sees (%(default)s)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=16, help="windows a step (%(default)s)")
    parser.add_argument("--ways", type=int, default=10, help="how many of the students, from the first (%(default)s)")
    parser.add_argument("--processes", type=int, default=1, help="students that are trained at once (%(default)s)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    tokens, seeds = (6 * 4 * LENGTH, 1) if arguments.tiny else (arguments.tokens, arguments.seeds)
    batch = 4 if arguments.tiny else arguments.batch
    steps = max(1, tokens // (batch * LENGTH))
    stage = Distill(steps=steps, batch=batch, length=LENGTH, warmup=min(100, steps // 4), evaluate_every=steps)
    folder = Path(mkdtemp(prefix="distillation-"))
    try:
        laboratory = Laboratory(folder, stage, arguments.device)
        measure(laboratory, seeds, arguments.ways, arguments.processes).finish(arguments.output)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def measure(laboratory: Laboratory, seeds: int, count: int, processes: int) -> Report:
    stage = laboratory.stage
    chosen = ways(stage)[:count]
    note(f"teaching the teacher for {stage.steps} steps")
    laboratory.teach()
    measured: dict[str, list[Mapping[str, float]]] = {}
    jobs = [(way, seed) for way in chosen for seed in range(seeds)]
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        students = pool.map(laboratory.student, *zip(*jobs, strict=True))
        for (way, seed), found in zip(jobs, students, strict=True):
            measured.setdefault(way.name, []).append(found)
            note(f"seed {seed}, {way.name}: {dict(found)}")
    teacher = Checkpoint.open(laboratory.teacher)
    copied(laboratory.teacher, laboratory.folder / "shape", laboratory.kept)
    intro = INTRO.format(
        teacher=teacher.parameters / 1e6,
        student=Checkpoint.open(laboratory.folder / "shape").parameters / 1e6,
        kept=len(laboratory.kept),
        layers=teacher.layers,
        tokens=stage.steps * stage.batch * LENGTH / 1e6,
        distinct=laboratory.training.numel() / 1e6,
        seeds=seeds,
    )
    report = Report("distillation", "Distillation", intro, raw={"measured": measured})
    if laboratory.device.startswith("cuda"):
        report.machine = torch.cuda.get_device_name(laboratory.device)
    report.table(
        "Students", ["student", "perplexity", "KL", "top-1 %"], [row(way, measured[way.name]) for way in chosen]
    )
    _promise(report, measured)
    return report


def _promise(report: Report, measured: Mapping[str, Sequence[Mapping[str, float]]]) -> None:
    """The worst seed counts."""
    ours = measured["**copied, distilled**"]
    for other in ("fresh, text alone, equal steps", "fresh, text alone, equal compute"):
        pairs = zip(ours, measured[other], strict=True)
        worst = max(one["cross_entropy"] - two["cross_entropy"] for one, two in pairs)
        report.promise(f"copied and distilled against {other}", limit=0.0, measured=worst, unit="nats a token")
    pairs = zip(ours, measured["copied, text alone, equal compute"], strict=True)
    report.promise(
        "its KL against copied, text alone, equal compute",
        limit=1.0,
        measured=max(one["kl"] / two["kl"] for one, two in pairs),
        unit="×",
    )


if __name__ == "__main__":
    main()
