"""A task that a BERT of two layers learns in a second: one of three words in a text decides its label."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from agentflow.mcp.compression.distillation.recorded import RecordedAnswer, Turn

WORDS = "mail reader chess board audio mixer game player letter box song card".split()


def student_at(folder: Path) -> Path:
    """A BERT of two layers that has learnt nothing, in the layout of sentence-transformers."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocabulary = {word: number for number, word in enumerate([*marks, *WORDS])}
    library = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    library.pre_tokenizer = Whitespace()
    library.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    PreTrainedTokenizerFast(
        tokenizer_object=library, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(folder)
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=16, initializer_range=0.2,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    (folder / "modules.json").write_text("[]")
    (folder / "LICENSE").write_text("MIT")
    return folder


def answers(count: int, *, label: Callable[[int], str] | None = None) -> list[RecordedAnswer]:
    """Each text has one of three words that decides its label."""
    draw = torch.Generator().manual_seed(5)
    found = []
    for number in range(count):
        first, second = (int(each) for each in torch.randint(3, len(WORDS), (2,), generator=draw))
        key = number % 3
        text = f"{WORDS[first]} {WORDS[key]} {WORDS[second]}"
        said = ["Mail", "games.", "sound"][key] if label is None else label(number)
        turns = (Turn("system", "Name the section."), Turn("user", text))
        found.append(RecordedAnswer(messages=turns, answer=said, model="large", at=float(number), run=str(number)))
    return found
