"""Text that the student writes itself, so that it is corrected where it really goes wrong (GKD, arXiv:2306.13649).

windows (rows, length)  ─▶  the first tokens stay: the prompt  ─▶  the student samples the rest, one token at a time
"""

from __future__ import annotations

from inspect import signature
from typing import Any

import torch
from torch import nn

__all__ = ["continued"]


def continued(model: nn.Module, prompts: torch.Tensor, length: int, *, temperature: float = 1.0) -> torch.Tensor:
    """`prompts`, shape (rows, some), continued by sampling to (rows, length).

    The model reads each token once: it keeps keys and values. Draws from PyTorch's generator of the model's device, and
    leaves the model in the mode it was in. No gradient flows through the sampling, as in the paper.
    """
    was = model.training
    model.eval()
    try:
        with torch.no_grad():
            return _continued(model, prompts, length, temperature)
    finally:
        model.train(was)


def _continued(model: Any, prompts: torch.Tensor, length: int, temperature: float) -> torch.Tensor:
    from transformers import DynamicCache

    keeping = {_cache_name(model): DynamicCache(config=model.config)}  # which the model fills
    tokens, new = prompts, prompts
    while tokens.shape[1] < length:
        said = model(input_ids=new, use_cache=True, logits_to_keep=1, **keeping)
        chances = torch.softmax(said.logits[:, -1].float() / temperature, dim=-1)
        new = torch.multinomial(chances, 1)
        tokens = torch.cat([tokens, new], dim=1)
    return tokens


def _cache_name(model: Any) -> str:
    """transformers called it past_key_values until 5.24 or so."""
    return "cache" if "cache" in signature(model.forward).parameters else "past_key_values"
