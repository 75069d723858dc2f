"""The part of `gguf_proof` that runs llama.cpp, in its own environment: no AgentFlow, no PyTorch.

    .venvs/llama/bin/python gguf_proof_worker.py JOB.json ANSWER.json

For each file: its perplexity on windows, what it writes greedily after prompts, and what ids it gives to texts.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import llama_cpp  # pyright: ignore[reportMissingImports]
import numpy as np


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    answer = {name: found(file, job) for name, file in job["files"].items()}
    answer["version"] = llama_cpp.__version__
    Path(sys.argv[2]).write_text(json.dumps(answer), encoding="utf-8")


def found(file: str, job: dict[str, Any]) -> dict[str, Any]:
    model = llama_cpp.Llama(file, n_ctx=512, n_threads=1, n_threads_batch=1, logits_all=True, verbose=False)
    answer = {
        "perplexity": perplexity(model, job["windows"]),
        "greedy": [greedy(model, prompt, job["count"]) for prompt in job["prompts"]],
        "ids": [model.tokenize(text.encode(), add_bos=False, special=False) for text in job["texts"]],
    }
    model.close()
    return answer


def perplexity(model: Any, windows: list[list[int]]) -> float:
    total, count = 0.0, 0
    for window in windows:
        model.reset()
        model.eval(window)
        logits = np.array(model.scores[: len(window) - 1], dtype=np.float64)
        logits -= logits.max(axis=-1, keepdims=True)
        said = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        total -= said[np.arange(len(window) - 1), window[1:]].sum()
        count += len(window) - 1
    return math.exp(total / count)


def greedy(model: Any, prompt: list[int], count: int) -> list[int]:
    model.reset()
    model.eval(prompt)
    out: list[int] = []
    while len(out) < count:
        out.append(int(np.argmax(model.scores[model.n_tokens - 1])))
        model.eval(out[-1:])
    return out


if __name__ == "__main__":
    main()
