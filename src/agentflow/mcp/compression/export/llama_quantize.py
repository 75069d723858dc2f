"""The far side of `gguf_model`: llama.cpp's own quantiser, in a process and perhaps an environment of its own.

    PYTHON -I llama_quantize.py JOB.json ANSWER.json        {"source": "f32.gguf", "target": "out.gguf", "type": 15}

It is run as a file by a Python that has llama_cpp and may not have this package, so it imports nothing of it.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path

__all__ = ["main"]


def main(arguments: list[str]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    job = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    import llama_cpp  # pyright: ignore[reportMissingImports]

    llama_cpp.llama_backend_init()
    options = llama_cpp.llama_model_quantize_default_params()
    options.ftype = job["type"]
    options.nthread = job["threads"]
    code = llama_cpp.llama_model_quantize(job["source"].encode(), job["target"].encode(), options)
    if code:
        sys.exit(f"llama_model_quantize failed with {code}")
    Path(arguments[1]).write_text(json.dumps({"version": llama_cpp.__version__}), encoding="utf-8")


def _end_with_parent() -> None:
    while os.read(0, 1):  # nothing comes; the pipe ends when the parent does
        pass  # sys.stdin has a lock, over which an interpreter that ends would stumble
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
