"""Random models of a few thousand parameters, in every architecture that can be taken apart, with a tokenizer.

folder = tiny_decoder(tmp_path / "m", "Qwen3ForCausalLM", tied=True)      a Hugging Face folder
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch

ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
SIZES = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}


def tiny_decoder(folder: Path, architecture: str = "LlamaForCausalLM", *, tied: bool = False, seed: int = 0,
                 dtype: torch.dtype = torch.float32, **changes: Any) -> Path:  # fmt: skip
    """Write a model with random weights. `changes` go into its config."""
    import transformers

    torch.manual_seed(seed)
    config_type = getattr(transformers, architecture.replace("ForCausalLM", "Config"))
    config = config_type(**{**SIZES, "tie_word_embeddings": tied, "bos_token_id": 0, "eos_token_id": 1, **changes})
    model = getattr(transformers, architecture)(config).to(dtype)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(("bias", "norm.weight")):  # which are made as zeros and ones: nothing would be tested
                weight.add_(torch.randn_like(weight) * 0.1)
    model.save_pretrained(folder)
    _tokenizer().save_pretrained(folder)
    return folder


@cache
def _tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=SIZES["vocab_size"],
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["the tide rises and the tide falls, the moon pulls the sea"] * 4, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
