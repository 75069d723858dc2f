"""Every GGUF that we write, in llama.cpp: does it load, is its tokenizer ours, and how much is lost?

    python scripts/fixture_models.py && python benchmarks/gguf_proof.py

llama.cpp is compiled for it, once, in .venvs/llama; that takes some minutes and a C++ compiler. What it says is held
against transformers on the same weights: greedy tokens, perplexity on held-out windows, ids of texts.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
import venv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import torch

from agentflow.mcp.compression.checkpoint import Checkpoint
from agentflow.mcp.compression.export.full_precision import FullPrecision
from agentflow.mcp.compression.export.stage import export
from agentflow.mcp.compression.quantization.stage import quantize
from agentflow.mcp.compression.recipe import Export, Quantize
from agentflow.mcp.compression.work import Work

ROOT = Path(__file__).resolve().parent.parent
LLAMA = ROOT / ".venvs" / "llama"
PACKAGES = ("llama-cpp-python>=0.3.16", "gguf>=0.17", "msgspec>=0.19")
TYPES = ("f32", "f16", "q8_0", "q6_k", "q5_k", "q4_k_m", "q4_0", "q3_k")
TIE = 0.005  # nats between a token and the next best
CARRIED = (("w8g32", "gguf"), ("w4g32", "gguf"), ("w4g64", "gguf"), ("w4g32-asym", "gguf"), ("w4g32", "gguf:q4_k_m"))


@dataclass(frozen=True, slots=True)
class Plan:
    windows: int = 32
    length: int = 128
    prompts: int = 20
    written: int = 24
    texts: int = 200


TINY = Plan(windows=2, length=32, prompts=2, written=4, texts=4)


def main() -> None:
    results = _module(ROOT / "benchmarks" / "results.py")
    chosen = results.options(__doc__).parse_args()
    torch.set_num_threads(1)
    fixture = _module(ROOT / "scripts" / "fixture_models.py")
    if not fixture.teacher().is_dir():
        raise SystemExit("gguf_proof: the fixture is not trained: run scripts/fixture_models.py")
    os.environ["AGENTFLOW_LLAMA_CPP_PYTHON"] = python = llama_python(results.note)
    report = results.Report(
        "gguf_proof",
        "GGUF in llama.cpp",
        "Each type that `Export('gguf:…')` writes, loaded by an unmodified llama.cpp, beside transformers on the same "
        "weights. Rows that begin with w are codes that `Quantize` made, held against the dequantised model.",
    )
    with TemporaryDirectory() as place:
        measure(report, TINY if chosen.tiny else Plan(), fixture, Path(place), python)
    report.finish(chosen.output)


def llama_python(note: Any) -> str:
    """The Python of .venvs/llama, made where it is not there."""
    python = LLAMA / "bin" / "python"
    if not python.exists() or subprocess.run([str(python), "-c", "import llama_cpp"], capture_output=True).returncode:
        note(f"gguf_proof: compiling llama.cpp in {LLAMA}, which takes some minutes")
        venv.create(LLAMA, with_pip=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
    return str(python)


def measure(report: Any, plan: Plan, fixture: ModuleType, place: Path, python: str) -> None:
    teacher = fixture.teacher()
    tokenizer = Checkpoint.open(teacher).tokenizer
    texts = [piece for text in fixture.corpus()["held_out"] for piece in pieces(text)][: plan.texts]
    ids = [tokenizer(text)["input_ids"] for text in texts]
    stream = [token for text in fixture.corpus()["held_out"] for token in tokenizer(text)["input_ids"]]
    windows = [stream[at : at + plan.length] for at in range(0, plan.windows * plan.length, plan.length)]
    prompts = [stream[at * 500 : at * 500 + 24] for at in range(plan.prompts)]
    made = {f"gguf:{kind}": written(teacher, f"gguf:{kind}", place / kind) for kind in TYPES}
    references = dict.fromkeys(made, teacher)
    for scheme, target in CARRIED:
        name = f"{scheme} → {target}"
        source = place / f"{scheme}-source"
        if not source.exists():
            quantize(Quantize(scheme), teacher, source, work_of(place))
        references[name], made[name] = source, written(source, target, place / f"{scheme}-{target.replace(':', '-')}")
    job = {"files": {name: str(folder / "model.gguf") for name, folder in made.items()}, "windows": windows,
           "prompts": prompts, "count": plan.written, "texts": texts}  # fmt: skip
    answers = asked(python, job, place)
    expected = {folder: of_transformers(folder, windows, prompts, plan.written) for folder in set(references.values())}
    tell(report, made, {name: (answers[name], expected[references[name]]) for name in made}, ids)
    perplexities = {name: answers[name]["perplexity"] for name in made}
    report.raw = {"llama_cpp_python": answers["version"], "perplexity": perplexities}


def tell(report: Any, made: Mapping[str, Path], pairs: Mapping[str, tuple[Any, Any]], ids: Sequence[list[int]]) -> None:
    rows = []
    for name, (got, reference) in pairs.items():
        size = (made[name] / "model.gguf").stat().st_size
        change = 100 * (got["perplexity"] / reference["perplexity"] - 1)
        rows.append([name, f"{size / 1e6:.2f}", f"{got['perplexity']:.3f}", f"{change:+.3f} %",
                     f"{100 * same(got['greedy'], reference['greedy']):.1f} %"])  # fmt: skip
    columns = ["written as", "MB", "perplexity", "against transformers", "greedy tokens that are the same"]
    report.table("Every type, loaded by llama.cpp", columns, rows)
    for kind in ("gguf:f32", "gguf:f16"):
        got, reference = pairs[kind]
        agreement = same(*before_ties(got["greedy"], reference))
        report.promise(f"greedy tokens of {kind}, up to a tie", limit=1, measured=agreement, unit="of transformers'",
                       at_least=True, beside=f"all: {same(got['greedy'], reference['greedy']):.3f}")  # fmt: skip
    for name in (f"{scheme} → {target}" for scheme, target in CARRIED if target == "gguf"):
        got, reference = pairs[name]
        change = 100 * abs(got["perplexity"] / reference["perplexity"] - 1)
        report.promise(f"change of perplexity by carrying {name}", limit=0.5, measured=change, unit="%")
    equal = sum(each == own for each, own in zip(pairs["gguf:f32"][0]["ids"], ids, strict=True)) / len(ids)
    report.promise("texts of the same token ids", limit=1, measured=equal, unit=f"of {len(ids)}", at_least=True)


def pieces(text: str) -> list[str]:
    """Of several kinds: code as it is, and what tokenizers stumble over."""
    odd = (
        "  \n\t\n  ",
        "naïve café — 中文 🎉🎉",
        "x=1;;;\r\n\r\n",
        "123456789 12,345.6",
        "I'll we've DON'T 's",
        " leading",
    )
    return [text[300:900], text[900:1400], *(f"{each}{text[:20]}" for each in odd)]


def same(left: Sequence[list[int]], right: Sequence[list[int]]) -> float:
    pairs = [pair for one, other in zip(left, right, strict=True) for pair in zip(one, other, strict=True)]
    return sum(one == other for one, other in pairs) / len(pairs)


def before_ties(greedy: list[list[int]], reference: Mapping[str, Any]) -> tuple[list[list[int]], list[list[int]]]:
    """Each text up to where transformers itself hardly prefers its token: there, llama.cpp's 16-bit inputs decide."""
    ends = [next((at for at, margin in enumerate(each) if margin < TIE), len(each)) for each in reference["margins"]]
    ours = [each[:end] for each, end in zip(greedy, ends, strict=True)]
    return ours, [each[:end] for each, end in zip(reference["greedy"], ends, strict=True)]


def written(source: Path, target: str, folder: Path) -> Path:
    export(Export(target), source, folder, work_of(folder.parent))
    return folder


def work_of(place: Path) -> Work:
    nothing = torch.zeros((0, 8), dtype=torch.int64)
    return Work(calibration=nothing, training=nothing, evaluation=nothing, scratch=place, teacher=place)


def asked(python: str, job: Mapping[str, object], place: Path) -> dict[str, Any]:
    (place / "job.json").write_text(json.dumps(job), encoding="utf-8")
    worker = str(Path(__file__).with_name("gguf_proof_worker.py"))
    subprocess.run([python, "-I", worker, str(place / "job.json"), str(place / "answer.json")], check=True)
    answer: dict[str, Any] = json.loads((place / "answer.json").read_text(encoding="utf-8"))
    return answer


def of_transformers(folder: Path, windows: list[list[int]], prompts: list[list[int]], count: int) -> dict[str, Any]:
    """With the weights of the folder, dequantised where they are codes."""
    from transformers import AutoConfig, AutoModelForCausalLM

    source = FullPrecision(Checkpoint.open(folder))
    config = AutoConfig.from_pretrained(folder)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()  # type: ignore[no-untyped-call]
    model.load_state_dict({name: source.load(name) for name in source})
    with torch.no_grad():
        tokens = torch.tensor(windows)
        said = model(tokens).logits[:, :-1].flatten(0, 1)
        loss = torch.nn.functional.cross_entropy(said, tokens[:, 1:].flatten())
        runs = [greedily(model, prompt, count) for prompt in prompts]
    tokens_of, margins_of = zip(*runs, strict=True)
    return {"perplexity": math.exp(float(loss)), "greedy": list(tokens_of), "margins": list(margins_of)}


def greedily(model: Any, prompt: list[int], count: int) -> tuple[list[int], list[float]]:
    """What it writes, and by how much each token is ahead of the next best, in nats."""
    out, margins = list(prompt), []
    for _ in range(count):
        best = model(torch.tensor([out])).logits[0, -1].topk(2)
        out.append(int(best.indices[0]))
        margins.append(float(best.values[0] - best.values[1]))
    return out[len(prompt) :], margins


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
