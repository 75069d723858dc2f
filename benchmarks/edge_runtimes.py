"""One model in every format and runtime: size, perplexity, KL, agreement, tokens a second, cold start, memory.

    python scripts/fixture_models.py && python benchmarks/edge_runtimes.py

The model is the one that the tests are run with. What is ours stands beside what the own quantisers of
onnxruntime-genai and llama.cpp make of the same weights. llama.cpp is measured in .venvs/llama, where it is compiled;
without it its rows are left out, saying so. Perplexities are of held-out windows, the same for all; one seed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from agentflow.mcp.compression.artifact import amounts
from agentflow.mcp.compression.artifact.manifest import Measures
from agentflow.mcp.compression.measurement.measuring import measure, measure_source
from agentflow.mcp.compression.measurement.reference import Reference
from agentflow.mcp.compression.measurement.speed import SpeedPlan

if TYPE_CHECKING:
    from agentflow.mcp.compression.recipe import Stage
    from agentflow.mcp.compression.work import Work
    from results import Report

ROOT = Path(__file__).resolve().parent.parent
LLAMA = ROOT / ".venvs" / "llama" / "bin" / "python"


SPEED = SpeedPlan(output_tokens=64, repeats=5, starts=3, threads=2)


@dataclass(frozen=True, slots=True)
class Plan:
    windows: int = 64
    length: int = 128
    calibration: int = 128
    prompts: int = 20
    written: int = 24
    speed: SpeedPlan = SPEED


TINY = Plan(
    windows=2, length=32, calibration=2, prompts=2, written=4,
    speed=SpeedPlan(output_tokens=4, repeats=1, starts=1, threads=1),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Made:
    """A way to write the model, who quantised it, and the runtimes that it is measured in."""

    name: str
    quantiser: str
    stages: tuple[Stage, ...]
    runtimes: tuple[str, ...]


def every_way() -> tuple[Made, ...]:
    from agentflow.mcp.compression.recipe import Export, Quantize

    onnx = ("onnxruntime", "onnxruntime-genai")
    own = [(scheme, method) for scheme in ("w4g32", "w4g64") for method in ("rtn", "gptq")] + [("w8g32", "rtn")]
    return (
        Made("ONNX fp32", "–", (Export("onnx:fp32"),), onnx),
        Made("ONNX int8", "onnxruntime-genai", (Export("onnx:int8"),), onnx),
        Made("ONNX int4", "onnxruntime-genai", (Export("onnx:int4"),), onnx),
        *(Made(f"ONNX {s}", f"ours, {m}", (Quantize(s, method=m), Export("onnx")), onnx[:1]) for s, m in own),  # type: ignore[arg-type]
        Made("compressed-tensors w4g64", "ours, gptq", (Quantize("w4g64", method="gptq"),), ("transformers",)),
        *(Made(f"GGUF {k}", "–" if k == "f16" else "llama.cpp", (Export(f"gguf:{k}"),), ("llama.cpp",))
          for k in ("f16", "q8_0", "q6_k", "q4_k_m", "q4_0", "q3_k")),
    )  # fmt: skip


TINY_WAYS = ("ONNX int4",)


def main() -> None:
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(msgspec.to_builtins(measured_here(json.loads(sys.argv[2])))))
        return
    from results import Report, note, options

    arguments = options(__doc__).parse_args()
    plan, begun = (TINY if arguments.tiny else Plan()), time.perf_counter()
    made = Report("edge_runtimes", "Edge runtimes", "One small model in every format, measured in every runtime.")
    with tempfile.TemporaryDirectory() as place:
        compare(made, plan, Path(place), only=TINY_WAYS if arguments.tiny else None, note=note)
    made.finish(arguments.output)
    note(f"edge_runtimes: {time.perf_counter() - begun:.0f} s")


def compare(
    report: Report, plan: Plan, place: Path, *, only: Sequence[str] | None, note: Callable[[str], None]
) -> None:
    source, texts = fixture()
    windows, calibration = windows_of(source, texts, plan)
    reference = reference_in(place, source, windows, plan)
    before = measure_source(source, reference, plan=plan.speed)
    size = sum(path.stat().st_size for path in source.glob("*.safetensors"))
    rows = [row_of("safetensors fp32", "–", size, before, before)]
    report.raw["source"] = msgspec.to_builtins(before)
    for way in every_way():
        if only is not None and way.name not in only:
            continue
        if "llama.cpp" in way.runtimes and not has_llama():
            note(f"edge_runtimes: {way.name} is left out: {LLAMA} has no llama_cpp")
            continue
        folder = written(way, source, place, calibration)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.suffix in SIZED)
        for kind in way.runtimes:
            found = measured_apart if kind == "llama.cpp" else measured_here
            measures = found({"folder": str(folder), "kind": kind, "place": str(place), "tiny": plan is TINY})
            rows.append(row_of(way.name, way.quantiser, size, measures, before))
            report.raw[f"{way.name}/{way.quantiser}/{kind}"] = {"bytes": size, **msgspec.to_builtins(measures)}
            note(f"edge_runtimes: {' | '.join(rows[-1])}")
    report.table("One model, every format", COLUMNS, rows, note=ABOUT)


SIZED = {".safetensors", ".onnx", ".data", ".gguf"}
COLUMNS = (
    "format, quantiser, runtime, size, perplexity, KL, top-1, greedy, tokens/s, first token, cold start, memory".split(
        ", "
    )
)
ABOUT = (
    "Perplexity beside the source's in transformers; KL in nats a token, top-1 and greedy agreement with it. Speed at "
    "batch 1, 16 tokens read and 64 written, 2 threads. Cold start: from the start of a process to its first token, "
    "files cached. Memory is the most that process has held. At this size memory and speed are the runtime's, not the "
    "model's; of a model that was trained this little, four bits cost less than they would cost a better one."
)


def row_of(name: str, quantiser: str, size: int, found: Measures, before: Measures) -> list[str]:
    speed = found.speed
    assert speed is not None
    assert found.perplexity is not None
    assert before.perplexity is not None
    rise = "" if found is before else f" ({amounts.change(found.perplexity / before.perplexity - 1.0)})"
    return [
        name, quantiser, found.runtime, amounts.size(size), f"{found.perplexity:.2f}{rise}",
        amounts.number(found.kl or 0.0), amounts.share(found.top1 or 0.0), amounts.share(found.greedy or 0.0),
        amounts.rate(speed.tokens_per_second), amounts.seconds(speed.time_to_first_token),
        amounts.seconds(speed.cold_start), amounts.size(speed.resident_bytes or 0),
    ]  # fmt: skip


# ---- what is measured --------------------------------------------------------------------------------------------


def fixture() -> tuple[Path, Mapping[str, list[str]]]:
    """The model of the tests, and its texts. Raises SystemExit where it was not trained."""
    path = ROOT / "scripts" / "fixture_models.py"
    spec = importlib.util.spec_from_file_location("fixture_models", path)
    assert spec is not None
    assert spec.loader is not None
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    folder = program.teacher()
    if not folder.is_dir():
        raise SystemExit("the model is not trained: python scripts/fixture_models.py")
    return folder, program.corpus()


def windows_of(source: Path, texts: Mapping[str, list[str]], plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    """Held-out windows and calibration windows, each (windows, length)."""
    from agentflow.mcp.compression.checkpoint import Checkpoint

    tokenizer = Checkpoint.open(source).tokenizer

    def cut(part: str, count: int) -> np.ndarray:
        ids: list[int] = []
        for text in texts[part]:
            ids += tokenizer(text)["input_ids"]
            if len(ids) >= count * plan.length:
                break
        return np.array(ids[: count * plan.length], np.int64).reshape(count, plan.length)

    return cut("held_out", plan.windows), cut("calibration", plan.calibration)


def reference_in(place: Path, source: Path | None, windows: np.ndarray, plan: Plan) -> Reference:
    """Computed where `source` is given; found again where it is None."""

    def opened() -> object:
        from agentflow.mcp.compression.measurement.source_model import SourceModel

        assert source is not None, "the reference is not there"
        return SourceModel(source)

    np.save(place / "windows.npy", windows)
    prompts = windows[: plan.prompts, : min(16, plan.length // 2)].tolist()
    return Reference.of(opened, windows, folder=place, prompts=prompts, greedy_tokens=plan.written)  # type: ignore[arg-type]


def measured_here(order: Mapping[str, object]) -> Measures:
    plan, place = (TINY if order["tiny"] else Plan()), Path(str(order["place"]))
    reference = reference_in(place, None, np.load(place / "windows.npy"), plan)
    return measure(Path(str(order["folder"])), reference, kind=str(order["kind"]), plan=plan.speed)


def measured_apart(order: Mapping[str, object]) -> Measures:
    """In the environment of llama.cpp, which has neither this package nor PyTorch."""
    command = [str(LLAMA), str(Path(__file__).resolve()), "--measure", json.dumps(order)]
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"llama.cpp failed: {done.stderr[-2000:]}")
    return msgspec.convert(json.loads(done.stdout.strip().splitlines()[-1]), Measures)


def has_llama() -> bool:
    command = [str(LLAMA), "-c", "import llama_cpp, msgspec, numpy"]
    return LLAMA.exists() and subprocess.run(command, capture_output=True, check=False).returncode == 0


# ---- how it is written -------------------------------------------------------------------------------------------


def written(way: Made, source: Path, place: Path, calibration: np.ndarray) -> Path:
    """The folder that the stages make of the source."""
    import torch

    from agentflow.mcp.compression.export.stage import export
    from agentflow.mcp.compression.quantization.stage import quantize
    from agentflow.mcp.compression.recipe import Export, Quantize
    from agentflow.mcp.compression.work import Work

    torch.set_num_threads(1)
    name = "".join(letter if letter.isalnum() else "-" for letter in f"{way.name} {way.quantiser}")
    (place / f"{name}-scratch").mkdir()
    windows = torch.from_numpy(calibration)
    work: Work = Work(
        calibration=windows, training=windows[:0], evaluation=windows[:0], scratch=place / f"{name}-scratch",
        teacher=source,
    )  # fmt: skip
    folder = source
    with llama_named():
        for number, stage in enumerate(way.stages):
            target = place / f"{name}-{number}"
            if isinstance(stage, Quantize):
                quantize(stage, folder, target, work)
            elif isinstance(stage, Export):
                export(stage, folder, target, work)
            folder = target
    return folder


@contextmanager
def llama_named() -> Iterator[None]:
    """llama.cpp's quantiser is found in its environment."""
    before = os.environ.get("AGENTFLOW_LLAMA_CPP_PYTHON")
    if LLAMA.exists():
        os.environ["AGENTFLOW_LLAMA_CPP_PYTHON"] = str(LLAMA)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("AGENTFLOW_LLAMA_CPP_PYTHON", None)
        else:
            os.environ["AGENTFLOW_LLAMA_CPP_PYTHON"] = before


if __name__ == "__main__":
    main()
