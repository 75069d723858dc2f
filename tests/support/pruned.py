"""What tests of pruning ask of a model folder: its answers, its perplexity, and the work a stage is given.

work_of(tmp_path, windows)      with nothing but calibration windows
logits(folder, windows)         of an unmodified transformers
planted(folder, {name: tensor}) the same folder with some weights replaced
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tests.support.trained import teacher_folder, texts

from agentflow.mcp.compression.blocks import Block, Blocks
from agentflow.mcp.compression.checkpoint import Checkpoint
from agentflow.mcp.compression.work import Work

LENGTH = 128  # tokens, as the fixture was trained


def work_of(scratch: Path, windows: torch.Tensor) -> Work:
    return Work(calibration=windows, training=windows, evaluation=windows, scratch=scratch, teacher=scratch)


def logits(folder: Path, windows: torch.Tensor) -> torch.Tensor:
    from transformers import AutoModelForCausalLM

    model, told = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not any(told.values()), told  # no weight is missing, none is left over, none is of another shape
    with torch.no_grad():
        found: torch.Tensor = model.eval()(windows).logits
    return found


def perplexity(folder: Path, windows: torch.Tensor) -> float:
    said = logits(folder, windows)[:, :-1].flatten(0, 1)
    return math.exp(torch.nn.functional.cross_entropy(said, windows[:, 1:].flatten()))


def planted(folder: Path, weights: Mapping[str, torch.Tensor]) -> Path:
    """The folder, changed where it lies; a name that is not there is an error."""
    path = folder / "model.safetensors"
    there = load_file(path)
    assert weights.keys() <= there.keys()
    save_file({**there, **weights}, path, metadata={"format": "pt"})
    return folder


@cache
def windows_of(part: str, count: int) -> torch.Tensor:
    """Some of the fixture's texts, (count, LENGTH)."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(teacher_folder(), model_max_length=1 << 30)
    stream: list[int] = []
    for text in texts(part):
        stream += [0, *tokenizer(text)["input_ids"]]
        if len(stream) > 8 * count * LENGTH:
            break
    pieces = torch.tensor(stream[: len(stream) // LENGTH * LENGTH]).view(-1, LENGTH)
    return pieces[torch.randperm(len(pieces), generator=torch.Generator().manual_seed(0))[:count]]


@cache
def layers_of_the_fixture(part: str, count: int) -> Mapping[str, tuple[torch.Tensor, torch.Tensor]]:
    """Of the trained model, each linear layer's weights (out, in), and its inputs (tokens, in) on some of its texts."""
    found: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def visit(block: Block) -> None:
        seen: dict[str, list[torch.Tensor]] = {name: [] for name in block.linears()}
        with block.inputs_of(lambda name, given: seen[name].append(given)):
            block.run()
        found.update({name: (linear.weight.data, torch.cat(seen[name])) for name, linear in block.linears().items()})

    Blocks(Checkpoint.open(teacher_folder())).walk(windows_of(part, count), visit)
    return found
