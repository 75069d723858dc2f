"""The far side of `builder.build`: calls the model builder of onnxruntime-genai, in a process of its own.

    python -m agentflow.mcp.compression.export.build_worker JOB.json ANSWER.json

It imports PyTorch and the whole model into memory, prints much, and keeps what it has: none of that is wanted in the
process that compresses.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

__all__ = ["build", "main"]


def build(job: Mapping[str, str]) -> None:
    """`source` and `target` are folders, `cache` one that is not used, `precision` is fp32, int8 or int4; what else
    stands in `job` are options of the builder. Called by its command line, which stays the same between versions."""
    own = ("source", "target", "precision", "cache")
    options = [f"{name}={value}" for name, value in job.items() if name not in own]
    arguments = ["-m", job["source"], "-o", job["target"], "-p", job["precision"], "-e", "cpu", "-c", job["cache"]]
    before = sys.argv
    sys.argv = ["builder", *arguments, "--extra_options", "hf_remote=false", *options]
    try:
        runpy.run_module("onnxruntime_genai.models.builder", run_name="__main__")
    finally:
        sys.argv = before


def main(arguments: list[str]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    build(json.loads(Path(arguments[0]).read_text(encoding="utf-8")))
    Path(arguments[1]).write_text("{}", encoding="utf-8")


def _end_with_parent() -> None:
    while os.read(0, 1):  # nothing comes; the pipe ends when the parent does
        pass  # sys.stdin has a lock, over which an interpreter that ends would stumble
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
