"""A student that learns to write what its teacher wrote: on the answer's tokens alone, asked as it will be asked."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from agentflow.errors import CompressionError, RecipeError
from agentflow.llm.messages import Message
from agentflow.mcp.compression.checkpoint import Checkpoint
from agentflow.mcp.compression.distillation.recorded import RecordedAnswer, Turn
from agentflow.mcp.compression.distillation.sequence import AnswerLesson, Written, distil_answers, written
from agentflow.mcp.compression.distillation.teaching import Teaching
from agentflow.mcp.performance.edge.tokenizer import EdgeTokenizer

COLOURS = {"sky": "blue", "grass": "green", "snow": "white", "coal": "black"}
TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }} </s> {% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)
TEACHING = Teaching(steps=40, learning_rate=1e-2, batch=8, length=24, warmup=4, evaluate_every=20)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def students(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A Llama of two layers that has learnt nothing: with a chat template, and without."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = ["<unk>", "</s>", "<user>", "<system>", "<assistant>", "User:", "Assistant:", "of", "what", "is", "colour"]
    words += [*COLOURS, *COLOURS.values(), "now", "please", "today"]
    library = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    library.pre_tokenizer = WhitespaceSplit()
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=32, eos_token_id=1, bos_token_id=None, pad_token_id=None,
        initializer_range=0.1,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    folders = {}
    for kind in ("chat", "base"):
        folders[kind] = folder = tmp_path_factory.mktemp(kind)
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=library, eos_token="</s>", unk_token="<unk>")
        tokenizer.chat_template = TEMPLATE if kind == "chat" else None
        tokenizer.save_pretrained(folder)
        model.save_pretrained(folder)
    return folders


def answer(text: str, said: str, *, system: str = "", at: float = 0.0) -> RecordedAnswer:
    turns = (*((Turn("system", system),) if system else ()), Turn("user", text))
    return RecordedAnswer(messages=turns, answer=said, model="large", at=at, run=f"{text} {at}")


def answers() -> list[RecordedAnswer]:
    tails = ["", " now", " please", " today", " now please"]
    asked = [(f"colour of {thing} is what{tail}", colour) for tail in tails for thing, colour in COLOURS.items()]
    return [answer(text, colour, at=float(number)) for number, (text, colour) in enumerate(asked)]


@pytest.mark.parametrize("kind", ["chat", "base"])
@pytest.mark.parametrize("system", ["", "of what"])
def test_a_prompt_is_the_one_that_the_edge_asks(students: dict[str, Path], kind: str, system: str) -> None:
    tokenizer = Checkpoint.open(students[kind]).tokenizer
    found = written(answer("colour of sky", "blue", system=system), tokenizer)
    asked = [*([Message("system", system)] if system else []), Message("user", "colour of sky")]
    assert found.tokens[: found.answer] == EdgeTokenizer(students[kind]).prompt(asked)
    assert tokenizer.decode(found.tokens[found.answer :]) == "blue </s>"


def test_the_loss_is_of_the_answers_tokens_alone(students: dict[str, Path]) -> None:
    from agentflow.mcp.compression.distillation.stage import decoder

    model = decoder(Checkpoint.open(students["base"]))
    texts = [Written([8, 9, 10, 15, 1], 3), Written([8, 12, 16, 1], 2)]
    total = 0.0
    with torch.no_grad():
        found = AnswerLesson(texts, texts, batch=2, seed=0).judged(model, texts)
        every = [model(torch.tensor([text.tokens])).logits[0].log_softmax(dim=-1) for text in texts]
    for text, logits in zip(texts, every, strict=True):
        total -= sum(float(logits[place - 1, text.tokens[place]]) for place in range(text.answer, len(text.tokens)))
    assert found["loss"] == pytest.approx(total / 4, rel=1e-5)


def test_it_learns_to_write_the_answers_and_to_end(students: dict[str, Path], tmp_path: Path) -> None:
    every = answers()
    record = distil_answers(
        students["chat"], every[:16], tmp_path / "taught", TEACHING, scratch=tmp_path / "s", held_out=every[16:]
    )
    assert record.facts["held_out_top1"] == 1.0
    assert isinstance(record.facts["held_out_loss"], float)
    assert math.exp(record.facts["held_out_loss"]) < 1.5
    assert record.facts["learnt"] == 14
    from transformers import LlamaForCausalLM

    taught = Checkpoint.open(tmp_path / "taught")
    model: Any = LlamaForCausalLM.from_pretrained(taught.folder)
    prompt = written(every[17], taught.tokenizer)
    said = model.generate(
        torch.tensor([prompt.tokens[: prompt.answer]]), max_new_tokens=5, do_sample=False, pad_token_id=1
    )
    assert said[0].tolist() == prompt.tokens


def test_killed_and_run_again_it_comes_out_the_same(students: dict[str, Path], tmp_path: Path) -> None:
    seen: list[int] = []

    def kill() -> None:
        seen.append(1)
        if len(seen) == 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distil_answers(students["base"], answers(), tmp_path / "a", TEACHING, scratch=tmp_path / "s", check=kill)
    again = distil_answers(students["base"], answers(), tmp_path / "a", TEACHING, scratch=tmp_path / "s")
    distil_answers(students["base"], answers(), tmp_path / "b", TEACHING, scratch=tmp_path / "t")
    assert again.facts["resumed"] == [20]
    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()


def test_what_is_too_long_is_left_out_and_told(students: dict[str, Path], tmp_path: Path) -> None:
    long = answer("what " * 40, "blue", at=-1.0)
    brief = Teaching(steps=1, evaluate_every=1, length=24)
    record = distil_answers(students["base"], [long, *answers()], tmp_path / "a", brief, scratch=tmp_path / "s")
    assert record.facts["too_long"] == 1
    assert any("1 of 21 conversations" in note for note in record.notes)
    with pytest.raises(CompressionError, match="no conversation"):
        distil_answers(students["base"], [long, long], tmp_path / "b", brief, scratch=tmp_path / "t")


def test_a_student_that_does_not_write_is_refused(students: dict[str, Path], tmp_path: Path) -> None:
    import json
    import shutil

    shutil.copytree(students["base"], tmp_path / "encoder")
    config = json.loads((tmp_path / "encoder/config.json").read_text())
    (tmp_path / "encoder/config.json").write_text(json.dumps({**config, "architectures": ["BertModel"]}))
    with pytest.raises(RecipeError, match="does not write"):
        distil_answers(tmp_path / "encoder", answers(), tmp_path / "a", TEACHING, scratch=tmp_path / "s")
