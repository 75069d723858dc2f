"""Quantised models of 100 million parameters on a GPU: trained there, compressed there, loaded by transformers.

    python benchmarks/compression_gpu.py --seconds 150 --output build/benchmarks

A Llama of 100 million parameters learns from the Python sources that the machine has, for so many seconds; then each
method quantises it on the GPU, unmodified transformers loads what was written, and perplexity, divergence, agreement,
tokens a second and time are measured against bfloat16. Needs a CUDA device; it is no part of `make bench`.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shutil
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch

from agentflow.mcp.compression.quantization.stage import quantize
from agentflow.mcp.compression.recipe import Quantize
from agentflow.mcp.compression.work import Work
from results import Report

VOCABULARY, LENGTH, BATCH = 16_384, 512, 48
INTRO = (
    "A Llama of {parameters:.0f} million parameters, trained there on {tokens:.0f} million tokens of Python (of"
    " {stream:.1f} million: most were seen several times), quantised there layer by layer, loaded by unmodified"
    " transformers {transformers} on PyTorch {torch}. Perplexity, KL and first choices are against float32, on 32"
    " held-out windows of 512 tokens."
)
SCHEMES = [
    ("w4g128", "rtn"),
    ("w4g128", "hqq"),
    ("w4g128", "gptq"),
    ("w4g128", "awq"),
    ("w3g128", "rtn"),
    ("w3g128", "gptq"),
    ("w8a8", "rtn"),
    ("w8a8", "smoothquant"),
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=150.0)
    parser.add_argument("--output", type=Path, default=Path("build/benchmarks"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a rehearsal of seconds, on any device")
    given = parser.parse_args()
    scratch = Path(mkdtemp(prefix="compression-gpu-"))
    try:
        found = measured(scratch, given)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    report(found).finish(given.output)
    return 0


def report(found: dict[str, Any]) -> Report:
    """What was measured, as a page has it."""
    training, machine, rows = found["training"], found["machine"], found["rows"]
    made = Report(
        "compression_gpu",
        "Quantised on a GPU",
        INTRO.format(
            parameters=training["parameters"] / 1e6,
            tokens=training["tokens"] / 1e6,
            stream=training["stream"] / 1e6,
            **machine,
        ),
        raw=found,
        machine=machine["device"],
    )
    names = ["weights", "MB", "perplexity", "KL", "top-1", "tok/s", "tok/s × 32", "seconds to make"]
    made.table("One seed", names, [cells(row, rows[0]) for row in rows], note=(
        "transformers decodes the weights before each layer runs, so that nothing is gained in speed there: these files"
        " are for servers with kernels for them. Head and embedding stay in float32, which is most of the small files."
    ))  # fmt: skip
    return made


def cells(row: dict[str, Any], base: dict[str, Any]) -> list[str]:
    rise = row["perplexity"] / base["perplexity"] - 1
    return [
        row["name"],
        f"{row['bytes'] / 1e6:.0f}",
        f"{row['perplexity']:.2f} ({rise:+.2%})",
        f"{row['kl']:.4f}",
        f"{row['top1']:.1%}",
        f"{row['tokens_per_second_1']:.0f}",
        f"{row['tokens_per_second_32']:.0f}",
        f"{row['seconds']:.1f}" if "seconds" in row else "–",
    ]


def measured(scratch: Path, given: argparse.Namespace) -> dict[str, Any]:
    texts = sources(20_000_000 if not given.tiny else 400_000)
    cut = max(len(texts) // 20, 1)
    held_out, train = texts[:cut], texts[cut:]
    tokenizer = tokenizer_of(train)
    told: dict[str, Any] = {"machine": machine(given.device)}
    folder = scratch / "model"
    told["training"] = trained(folder, train, tokenizer, given)
    stream = tokens_of(held_out, tokenizer)
    rows = 32 if not given.tiny else 2
    windows = stream[: rows * LENGTH].view(rows, LENGTH)
    calibration = tokens_of(train[:400], tokenizer)[: 64 * LENGTH].view(-1, LENGTH)[: 2 if given.tiny else 64]
    reference = logits_of(loaded(folder, given.device, torch.float32), windows)
    told["rows"] = [row("fp32", folder, given.device, torch.float32, windows, reference, {}, given.tiny)]
    told["rows"].append(row("bf16", folder, given.device, torch.bfloat16, windows, reference, {}, given.tiny))
    for scheme, method in SCHEMES:
        target = scratch / f"{scheme}-{method}"
        facts = quantized(folder, target, scheme, method, calibration, scratch, given.device)
        name = f"{scheme} {method}"
        told["rows"].append(row(name, target, given.device, torch.bfloat16, windows, reference, facts, given.tiny))
        shutil.rmtree(target)
    return told


def quantized(
    folder: Path, target: Path, scheme: str, method: str, calibration: torch.Tensor, scratch: Path, device: str
) -> dict[str, Any]:
    place = scratch / "stage"
    place.mkdir(exist_ok=True)
    empty = torch.zeros((0, LENGTH), dtype=torch.int64)
    work = Work(calibration=calibration, training=empty, evaluation=empty, scratch=place, teacher=folder, device=device)
    begun = time.monotonic()
    quantize(Quantize(scheme, method=method), folder, target, work)  # type: ignore[arg-type]
    return {"seconds": time.monotonic() - begun}


def row(
    name: str, folder: Path, device: str, dtype: torch.dtype, windows: torch.Tensor, reference: torch.Tensor,
    facts: dict[str, Any], tiny: bool,
) -> dict[str, Any]:  # fmt: skip
    model = loaded(folder, device, dtype)
    said = logits_of(model, windows)
    found = {
        "name": name,
        "bytes": sum(path.stat().st_size for path in folder.glob("*.safetensors")),
        **quality(said, reference, windows),
        "tokens_per_second_1": speed(model, 1, device, tiny),
        "tokens_per_second_32": speed(model, 32, device, tiny),
        **facts,
    }
    print(json.dumps(found), flush=True)
    del model
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
    return found


def quality(said: torch.Tensor, reference: torch.Tensor, windows: torch.Tensor) -> dict[str, float]:
    """Perplexity, KL(fp32 ‖ this) in nats a token, the share of equal first choices."""
    nll = kl = top1 = 0.0
    for ours, theirs, ids in zip(said, reference, windows, strict=True):
        mine, his = ours.log_softmax(-1), theirs.log_softmax(-1)
        nll -= mine[:-1].gather(1, ids[1:, None]).mean().item()
        kl += (his.exp() * (his - mine)).sum(-1).mean().item()
        top1 += (mine.argmax(-1) == his.argmax(-1)).float().mean().item()
    count = len(windows)
    return {"perplexity": math.exp(nll / count), "kl": kl / count, "top1": top1 / count}


def logits_of(model: Any, windows: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([model(ids[None].to(model.device)).logits.float().cpu() for ids in windows])


def speed(model: Any, batch: int, device: str, tiny: bool) -> float:
    """Tokens a second of greedy writing, the best of three, 16 tokens of prompt."""
    length = 8 if tiny else 128
    ids = torch.randint(3, VOCABULARY, (batch, 16), generator=torch.Generator().manual_seed(0)).to(device)
    best = 0.0
    for _ in range(1 if tiny else 3):
        begun = time.monotonic()
        with torch.no_grad():
            model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, min_new_tokens=length,
                           max_new_tokens=length, pad_token_id=2)  # fmt: skip
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        best = max(best, batch * length / (time.monotonic() - begun))
    return best


def loaded(folder: Path, device: str, dtype: torch.dtype) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).to(device).eval()


def trained(folder: Path, texts: list[str], tokenizer: Any, given: argparse.Namespace) -> dict[str, Any]:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    small = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4}
    large = {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 12}
    sizes = small if given.tiny else large
    special = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2, "tie_word_embeddings": False}
    config = LlamaConfig(
        vocab_size=VOCABULARY, num_key_value_heads=4, max_position_embeddings=LENGTH, **special, **sizes
    )
    model = LlamaForCausalLM(config).to(given.device)
    stream = tokens_of(texts, tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05)
    begun, step, batch = time.monotonic(), 0, 2 if given.tiny else BATCH
    loss = torch.zeros(())
    while (share := (time.monotonic() - begun) / given.seconds) < 1:
        starts = torch.randint(len(stream) - LENGTH, (batch,))
        ids = torch.stack([stream[at : at + LENGTH] for at in starts]).to(given.device, non_blocking=True)
        with torch.autocast(given.device.partition(":")[0], dtype=torch.bfloat16):
            loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(1.0, (step + 1) / 200) * (0.02 + 0.98 * (1 + math.cos(math.pi * share)) / 2)
        optimizer.step()
        optimizer.zero_grad()
        step += 1
    model.float().cpu().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    parameters = sum(weight.numel() for weight in model.parameters())
    seen = step * batch * LENGTH
    facts = {"parameters": parameters, "steps": step, "tokens": seen, "loss": loss.item(), "stream": len(stream)}
    print(json.dumps(facts), flush=True)
    return facts


def sources(most: int) -> list[str]:
    """Python files of this machine, of `most` characters together, in an order that does not depend on it."""
    found, size = list[str](), 0
    for path in python_files():
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        if 1_000 < len(text) < 200_000:
            found.append(text)
            size += len(text)
        if size > most:
            break
    random.Random(0).shuffle(found)
    return found


def python_files() -> Iterator[Path]:
    for name in ("stdlib", "purelib"):
        yield from sorted(Path(sysconfig.get_path(name)).rglob("*.py"))


def tokens_of(texts: list[str], tokenizer: Any) -> torch.Tensor:
    encoded = tokenizer._tokenizer.encode_batch(texts, add_special_tokens=False)
    return torch.tensor([token for each in encoded for token in [0, *each.ids]])


def tokenizer_of(texts: list[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<s>", "</s>", "<pad>"]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    first, last, padding = special
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=first, eos_token=last, pad_token=padding)


def machine(device: str) -> dict[str, str]:
    import transformers

    card = torch.cuda.get_device_name() if device.startswith("cuda") else device
    return {"device": card, "torch": torch.__version__, "transformers": transformers.__version__}


if __name__ == "__main__":
    sys.exit(main())
