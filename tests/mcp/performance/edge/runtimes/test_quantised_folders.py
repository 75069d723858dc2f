"""Folders that `Quantize` wrote, run by transformers: with zero points, too, which it reads in one way only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.support.tiny_models import tiny_decoder

from agentflow.mcp.compression.checkpoint import Checkpoint
from agentflow.mcp.compression.quantization.packed import read_quantized
from agentflow.mcp.compression.quantization.stage import quantize
from agentflow.mcp.compression.recipe import Quantize
from agentflow.mcp.compression.work import Work
from agentflow.mcp.performance.edge.opening import open_runtime

TOKENS = list(range(3, 40))


@pytest.mark.parametrize("scheme", ["w4g32", "w4g32-asym", "w8"])
def test_what_is_run_are_the_codes_that_were_written(tmp_path: Path, scheme: str) -> None:
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    source, target = tiny_decoder(tmp_path / "model"), tmp_path / "quantised"
    windows = torch.zeros((1, 8), dtype=torch.int64)
    work = Work(calibration=windows, training=windows, evaluation=windows, scratch=tmp_path / "scratch", teacher=source)
    quantize(Quantize(scheme), source, target, work)
    model = AutoModelForCausalLM.from_pretrained(source).eval()
    decoded = read_quantized(Checkpoint.open(target))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name in decoded:
                weight.copy_(decoded[name].dequantize())
        wanted = model(torch.tensor([TOKENS])).logits[0].numpy()
    runtime = open_runtime(target, kind="transformers", threads=1)
    np.testing.assert_allclose(runtime.score(TOKENS), wanted, atol=2e-3)
    runtime.close()
