"""`quantization_config`, as vLLM and transformers read it from config.json.

One group of layers for each width: "Linear" where there is but one, the names of its layers where there are several.
The layers that were left alone are named one by one under `ignore`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from agentflow.mcp.compression.checkpoint import Checkpoint
from agentflow.mcp.compression.quantization.layers import Layers
from agentflow.mcp.compression.scheme import Scheme

__all__ = ["configuration", "write_config"]


def write_config(checkpoint: Checkpoint, layers: Layers, folder: Path) -> None:
    """The source's config.json, with what was done."""
    config = dict(checkpoint.config) | {"quantization_config": configuration(layers)}
    (folder / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def configuration(layers: Layers) -> dict[str, object]:
    by_scheme: dict[Scheme, list[str]] = {}
    for name, scheme in layers.schemes.items():
        by_scheme.setdefault(scheme, []).append(name)
    several = len(by_scheme) > 1
    rounded = any(scheme.activation_bits for scheme in by_scheme)
    return {
        "quant_method": "compressed-tensors",
        "format": "int-quantized" if rounded else "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": {
            f"group_{number}": _group(scheme, names if several else ["Linear"])
            for number, (scheme, names) in enumerate(by_scheme.items())
        },
        "ignore": list(layers.ignored),
        "kv_cache_scheme": None,
        "global_compression_ratio": None,
        "version": version("compressed-tensors"),
    }


def _group(scheme: Scheme, targets: list[str]) -> Mapping[str, object]:
    return {
        "targets": targets,
        "weights": {
            "num_bits": scheme.bits,
            "type": "int",
            "symmetric": scheme.symmetric,
            "strategy": "group" if scheme.group else "channel",
            "group_size": scheme.group,
            "dynamic": False,
        },
        "input_activations": _inputs(scheme),
        "output_activations": None,
    }


def _inputs(scheme: Scheme) -> Mapping[str, object] | None:
    if scheme.activation_bits is None:
        return None
    return {
        "num_bits": scheme.activation_bits,
        "type": "int",
        "symmetric": True,
        "strategy": "tensor" if scheme.static else "token",
        "dynamic": not scheme.static,
    }
