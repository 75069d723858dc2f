"""The config.json that goes with exported weights: the source's, without what is no longer so."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["plain_config"]


def plain_config(config: Mapping[str, Any], *, dtype: str | None = None) -> str:
    """Without its `quantization_config`; with the type of the weights, where it is another now."""
    kept = {key: value for key, value in config.items() if key != "quantization_config"}
    if dtype is not None:
        kept |= {"dtype": dtype} if "torch_dtype" not in kept else {"torch_dtype": dtype, "dtype": dtype}
    return json.dumps(kept, indent=2, ensure_ascii=False) + "\n"
