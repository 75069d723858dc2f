"""Trains the small language model that compression is tested on: a Llama of 3.4 million parameters and its tokenizer.

    the standard library's sources ──▶ train | calibration | held out   (whole files)
                         train ──▶ BPE tokenizer of 2,048 pieces ──▶ 1 million tokens ──▶ build/fixtures/KEY/teacher

No model can be fetched where the tests run, so one is trained on text that every machine with Python has. It takes some
minutes on two cores and is kept until this file, the text or PyTorch changes. Run it with the Python of .venv.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
import shutil
import sys
import sysconfig
import time
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SEED = 7
WINDOW = 128  # tokens
BATCH = 16
STEPS = 500  # × BATCH × WINDOW = 1.02 million tokens
RATE = 0.004
VOCABULARY = 2048
SPECIAL = ("<s>", "</s>", "<pad>")


def corpus() -> dict[str, list[str]]:
    """The texts, one a file: `train`, `calibration` (drawn from what was trained on), `held_out` (never seen)."""
    folder = Path(sysconfig.get_path("stdlib"))
    packages = ("", "asyncio", "collections", "concurrent", "email", "html", "http", "importlib", "json", "logging",
                "multiprocessing", "unittest", "urllib", "xml")  # fmt: skip
    paths = sorted(path for package in packages for path in (folder / package).glob("*.py"))
    texts = [path.read_text(encoding="utf-8") for path in paths if 2_000 < path.stat().st_size < 200_000]
    random.Random(SEED).shuffle(texts)
    held_out = len(texts) // 10
    return {"held_out": texts[:held_out], "train": texts[held_out:], "calibration": texts[held_out : 2 * held_out]}


def key() -> str:
    """Changes with this program, the text it reads and the library that trains."""
    from importlib.metadata import version

    facts = hashlib.sha256(Path(__file__).read_bytes())
    for name in ("torch", "transformers", "tokenizers"):
        facts.update(f"{name} {version(name)} ".encode())
    for text in corpus()["train"]:
        facts.update(hashlib.sha256(text.encode()).digest())
    return facts.hexdigest()[:16]


def teacher() -> Path:
    """Where the trained model lies, or will lie."""
    folder = Path(os.environ.get("AGENTFLOW_FIXTURES", ROOT / "build" / "fixtures"))
    return folder / key() / "teacher"


def main() -> int:
    target = teacher()
    if target.exists():
        return 0
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(mkdtemp(dir=target.parent))
    try:
        train(folder)
        folder.rename(target)
    except OSError:
        if not target.exists():  # another process was faster
            raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def train(folder: Path) -> None:
    """Write model and tokenizer into `folder`, as `transformers` does."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(SEED)
    tokenizer = tokenizer_of(corpus()["train"])
    stream = torch.tensor([token for text in corpus()["train"] for token in [0, *tokenizer(text)["input_ids"]]])
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=256,
            intermediate_size=512,
            num_hidden_layers=4,
            num_attention_heads=8,
            num_key_value_heads=4,
            max_position_embeddings=512,
            tie_word_embeddings=False,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=2,
        )
    )
    begun = time.monotonic()
    generator = torch.Generator().manual_seed(SEED)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.01)
    for step in range(STEPS):
        starts = torch.randint(len(stream) - WINDOW, (BATCH,), generator=generator)
        batch = torch.stack([stream[start : start + WINDOW] for start in starts])
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / 40) * (0.02 + 0.98 * (1 + math.cos(math.pi * step / STEPS)) / 2)
        optimizer.step()
        optimizer.zero_grad()
        if step % 100 == 99:
            seconds = time.monotonic() - begun
            print(f"fixture: step {step + 1} of {STEPS}, loss {loss.item():.3f}, {seconds:.0f} s", flush=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "LICENSE").write_text("Trained on the sources of Python's standard library: PSF License Version 2.\n")
    (folder / "training.json").write_text(json.dumps({"tokens": STEPS * BATCH * WINDOW, "seed": SEED}))


def tokenizer_of(texts: list[str]) -> Any:
    """Byte-level BPE, as Llama 3's: every text survives it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", model_max_length=512
    )


if __name__ == "__main__":
    sys.exit(main())
