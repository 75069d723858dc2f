"""What tests of export ask: a quantised folder, the model it stands for, and what others' runtimes say of a file.

quantized(folder, "w4g32", tmp_path)      as Quantize writes it, by rounding
dequantized(folder)                       a model of transformers with those weights
onnx_logits(folder, tokens)               of onnxruntime; `exact`: with inputs of MatMulNBits left as they are
greedy_onnx(folder, prompts, count)       of onnxruntime-genai
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from agentflow.mcp.compression.checkpoint import Checkpoint
from agentflow.mcp.compression.export import build_worker
from agentflow.mcp.compression.export.full_precision import FullPrecision
from agentflow.mcp.compression.quantization.stage import quantize
from agentflow.mcp.compression.recipe import Quantize
from agentflow.mcp.compression.work import Work

NOTHING = torch.zeros((0, 8), dtype=torch.int64)


def work_of(scratch: Path) -> Work:
    """Of a stage that needs no texts."""
    scratch.mkdir(exist_ok=True)
    return Work(calibration=NOTHING, training=NOTHING, evaluation=NOTHING, scratch=scratch, teacher=scratch)


def build_here(job: dict[str, str], scratch: Path, check: Callable[[], None]) -> None:
    """The builder in this very process, which has imported what it needs: a second instead of eight."""
    build_worker.build(job)


def quantized(source: Path, scheme: str, target: Path, *, ignore: tuple[str, ...] = ("lm_head",)) -> Path:
    quantize(Quantize(scheme, ignore=ignore), source, target, work_of(target.parent / "scratch"))
    return target


def dequantized(folder: Path) -> Any:
    """A decoder of transformers, in float32."""
    from transformers import AutoConfig, AutoModelForCausalLM

    checkpoint = Checkpoint.open(folder)
    source = FullPrecision(checkpoint)
    config = AutoConfig.from_pretrained(folder)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    weights = {name: source.load(name) for name in source}
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected
    assert set(missing) <= {"lm_head.weight"}  # which may be the embeddings' own
    model.tie_weights()
    return model


def hf_logits(model: Any, tokens: Sequence[int]) -> NDArray[np.float32]:
    with torch.no_grad():
        found: NDArray[np.float32] = model(torch.tensor([list(tokens)])).logits[0].numpy()
    return found


def hf_greedy(model: Any, prompt: Sequence[int], count: int) -> list[int]:
    with torch.no_grad():
        out = model.generate(
            torch.tensor([list(prompt)]), max_new_tokens=count, min_new_tokens=count, do_sample=False, pad_token_id=0
        )
    return [int(token) for token in out[0, len(prompt) :]]


def onnx_logits(folder: Path, tokens: Sequence[int], *, exact: bool = False) -> NDArray[np.float32]:
    """What the decoder says after each token: shape (len(tokens), vocabulary)."""
    import onnxruntime

    path = folder / "model.onnx"
    if exact:
        path = _exact(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options)
    feed: dict[str, NDArray[Any]] = {
        "input_ids": np.array([tokens], dtype=np.int64),
        "attention_mask": np.ones((1, len(tokens)), dtype=np.int64),
    }
    decoder = json.loads((folder / "genai_config.json").read_text())["model"]["decoder"]
    nothing = np.zeros((1, decoder["num_key_value_heads"], 0, decoder["head_size"]), dtype=np.float32)
    feed |= {given.name: nothing for given in session.get_inputs() if given.name.startswith("past_key_values")}
    found: NDArray[np.float32] = session.run(["logits"], feed)[0][0]
    return found


def _exact(path: Path) -> Path:
    model = onnx.load(str(path), load_external_data=False)
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "accuracy_level":
                attribute.i = 1
    place = path.with_name("exact.onnx.copy")
    place.write_bytes(model.SerializeToString())
    return place


def greedy_onnx(folder: Path, prompts: Sequence[Sequence[int]], count: int) -> list[list[int]]:
    import onnxruntime_genai

    model = onnxruntime_genai.Model(str(folder))
    return [_continued(onnxruntime_genai, model, prompt, count) for prompt in prompts]


def _continued(genai: Any, model: Any, prompt: Sequence[int], count: int) -> list[int]:
    length = len(prompt) + count
    params = genai.GeneratorParams(model)
    params.set_search_options(max_length=length, min_length=length, do_sample=False)
    generator = genai.Generator(model, params)
    generator.append_tokens(np.array([prompt], dtype=np.int32))
    out: list[int] = []
    while len(out) < count:
        generator.generate_next_token()
        out.append(int(generator.get_next_tokens()[0]))
    return out
