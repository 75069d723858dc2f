"""A tokenizer.json as llama.cpp's metadata: byte-level BPE with the one pattern of splitting that it was trained with.

    tokenizer.json ─▶ tokens, types, merges, `pre` (which of llama.cpp's own patterns), special tokens, chat template

llama.cpp splits text by patterns of its own, chosen by name. A tokenizer whose pattern has no name there would split
text otherwise than in training, silently; it is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf import GGUFWriter, TokenType

from agentflow.errors import ModelFolderError, RecipeError

__all__ = ["GgufTokenizer"]

_ENDS = r"\s+(?!\S)|\s+"
_PUNCTUATED = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
_CONTRACTED = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
# The name that llama.cpp gives to a pattern, by the pattern.
_SPLITS: Mapping[str, str] = {
    _CONTRACTED + r"\p{N}{1,3}|" + _PUNCTUATED + _ENDS: "llama-bpe",
    _CONTRACTED + r"\p{N}|" + _PUNCTUATED + _ENDS: "qwen2",
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*|\p{{N}}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|" + _ENDS: "tekken",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class GgufTokenizer:
    """`tokens` and `types` are as long as the model's vocabulary; what the tokenizer does not know is unused."""

    tokens: Sequence[str]
    types: Sequence[TokenType]
    merges: Sequence[str]
    pre: str
    special: Mapping[str, int]  # bos, eos, pad, unk → id
    begins: bool  # whether the tokenizer puts bos before every text
    ends: bool
    chat_template: str | None
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, folder: Path, config: Mapping[str, Any]) -> GgufTokenizer:
        """Raises ModelFolderError where tokenizer.json is missing or damaged, RecipeError where llama.cpp has no such
        tokenizer."""
        found = _json(folder / "tokenizer.json")
        if found is None:
            raise ModelFolderError(folder, "it has no tokenizer.json, which gguf is written from")
        settings = _json(folder / "tokenizer_config.json") or {}
        model = found["model"]
        if model.get("type") != "BPE" or model.get("byte_fallback"):
            raise RecipeError(f"gguf: the tokenizer is {model.get('type')} of no byte level; export the model as onnx")
        special = _special(config, settings, found)
        tokens, types = _vocabulary(found, int(config["vocab_size"]))
        begins, ends = _put_around(folder, special)
        return cls(
            tokens=tokens,
            types=types,
            merges=[merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]],
            pre=_pre(found),
            special=special,
            begins=begins,
            ends=ends,
            chat_template=_chat_template(folder, settings),
            notes=_notes(found),
        )

    def write(self, writer: GGUFWriter) -> None:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        writer.add_token_merges(self.merges)
        for name, add in (("bos", writer.add_bos_token_id), ("eos", writer.add_eos_token_id),
                          ("pad", writer.add_pad_token_id), ("unk", writer.add_unk_token_id)):  # fmt: skip
            if name in self.special:
                add(self.special[name])
        writer.add_add_bos_token(self.begins)
        writer.add_add_eos_token(self.ends)
        if self.chat_template is not None:
            writer.add_chat_template(self.chat_template)


def _vocabulary(found: Mapping[str, Any], size: int) -> tuple[list[str], list[TokenType]]:
    tokens = [f"[PAD{index}]" for index in range(size)]
    types = [TokenType.UNUSED] * size
    added = {each["id"]: each for each in found.get("added_tokens", ())}
    known = {**{index: token for token, index in found["model"]["vocab"].items()},
             **{index: each["content"] for index, each in added.items()}}  # fmt: skip
    if known and max(known) >= size:
        raise RecipeError(f"gguf: the tokenizer has the token {max(known)}, and the model knows {size} tokens")
    for index, token in known.items():
        tokens[index] = token
        types[index] = TokenType.NORMAL
        if index in added:
            types[index] = TokenType.CONTROL if added[index].get("special") else TokenType.USER_DEFINED
    return tokens, types


def _pre(found: Mapping[str, Any]) -> str:
    steps = _steps(found.get("pre_tokenizer"))
    last = steps[-1] if steps else {}
    name = None
    if last.get("type") == "ByteLevel" and not last.get("add_prefix_space"):
        name = _name_of(steps[:-1], by_words=bool(last.get("use_regex", True)))
    if name is None:
        known = ", ".join(["gpt-2", "smollm", *_SPLITS.values()])
        raise RecipeError(f"gguf: llama.cpp has no name for how the tokenizer splits text (known: {known}); "
                          "export the model as onnx")  # fmt: skip
    return name


def _name_of(before: Sequence[Mapping[str, Any]], *, by_words: bool) -> str | None:
    """Of the steps before the bytes, which themselves may split by words, as GPT-2's do."""
    match before:
        case []:
            return "gpt-2" if by_words else None
        case [{"type": "Digits", "individual_digits": True}]:
            return "smollm" if by_words else None
        case [{"type": "Split", "pattern": {"Regex": str(pattern)}, "behavior": "Isolated"}]:
            return None if by_words else _SPLITS.get(pattern)
    return None


def _steps(found: Any) -> list[Any]:
    if not isinstance(found, Mapping):
        return []
    steps = found.get("pretokenizers") if found.get("type") == "Sequence" else [found]
    return list(steps or ())


def _notes(found: Mapping[str, Any]) -> tuple[str, ...]:
    normalizer = found.get("normalizer")
    if normalizer is None:
        return ()
    if normalizer.get("type") == "NFC":
        return ("the tokenizer normalises text to NFC; llama.cpp does not, so give it such text",)
    raise RecipeError(f"gguf: the tokenizer changes text first ({normalizer.get('type')}), which llama.cpp does not")


def _special(config: Mapping[str, Any], settings: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, int]:
    """The model's own word on it, else the tokenizer's."""
    ids = {each["content"]: each["id"] for each in found.get("added_tokens", ())}
    special = {}
    for name in ("bos", "eos", "pad", "unk"):
        told = config.get(f"{name}_token_id")
        first = told[0] if isinstance(told, list) and told else told
        token = settings.get(f"{name}_token")
        text = token.get("content") if isinstance(token, Mapping) else token
        index = first if isinstance(first, int) else ids.get(text or "")
        if index is not None and 0 <= index < int(config["vocab_size"]):
            special[name] = index
    return special


def _put_around(folder: Path, special: Mapping[str, int]) -> tuple[bool, bool]:
    from tokenizers import Tokenizer

    try:
        ids = Tokenizer.from_file(str(folder / "tokenizer.json")).encode("a").ids
    except Exception as error:  # its one class of errors is Exception itself
        raise ModelFolderError(folder, f"its tokenizer.json cannot be read: {error}") from error
    first, last = (ids[0], ids[-1]) if ids else (None, None)
    return first is not None and first == special.get("bos"), last is not None and last == special.get("eos")


def _chat_template(folder: Path, settings: Mapping[str, Any]) -> str | None:
    path = folder / "chat_template.jinja"
    if path.exists():
        return path.read_text(encoding="utf-8")
    found = settings.get("chat_template")
    if isinstance(found, list):  # several, by name
        found = next((each.get("template") for each in found if each.get("name") == "default"), None)
    return found if isinstance(found, str) else None


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ModelFolderError(path.parent, f"its {path.name} cannot be read: {error}") from error
