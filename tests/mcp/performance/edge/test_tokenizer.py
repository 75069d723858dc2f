"""Text to tokens and back: as transformers has it, letter by letter whole, and with templates that can do no harm."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.edge_models import tiny_folder

from agentflow.errors import ArtifactError, BadRequestError, UnsupportedError
from agentflow.llm.content import Image, Text
from agentflow.llm.messages import Message
from agentflow.mcp.performance.edge.chat_template import ChatTemplate
from agentflow.mcp.performance.edge.tokenizer import EdgeTokenizer

CHAT = (
    "{{ bos_token }}{% for message in messages %}{% if message.role == 'tool' %}{{ raise_exception('no tools') }}"
    "{% endif %}<{{ message.role }}>{{ message.content | trim }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% generation %}{% endgeneration %}{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer() -> EdgeTokenizer:
    return EdgeTokenizer(tiny_folder())


def _with(tmp_path: Path, **settings: object) -> Path:
    folder = tmp_path / "m"
    shutil.copytree(tiny_folder(), folder, ignore=shutil.ignore_patterns("*.safetensors"))
    said = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**said, **settings}))
    return folder


@given(st.lists(st.integers(0, 299), max_size=60))
def test_a_stream_says_what_the_tokens_say_together(tokens: list[int]) -> None:
    """Whatever the tokens: unfinished letters, special tokens, none at all."""
    tokenizer = EdgeTokenizer(tiny_folder())
    stream = tokenizer.stream()
    pieces = [stream.feed(token) for token in tokens]
    assert "".join(pieces) + stream.flush() == tokenizer.decode(tokens)


@given(st.text(max_size=30))
def test_a_text_survives_and_no_letter_is_broken(text: str) -> None:
    tokenizer = EdgeTokenizer(tiny_folder())
    tokens = tokenizer.encode(text)
    stream = tokenizer.stream()
    pieces = [stream.feed(token) for token in tokens]
    assert "".join(pieces) + stream.flush() == text == tokenizer.decode(tokens)
    if "\N{REPLACEMENT CHARACTER}" not in text:
        assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)


def test_spaces_between_sentencepiece_tokens_are_not_lost(tmp_path: Path) -> None:
    """Llama 2's decoder drops the space before a text; in the middle of a stream it is no text's beginning."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    library = Tokenizer(models.WordLevel({"▁one": 0, "▁two": 1, "▁three": 2, "s": 3, "[U]": 4}, unk_token="[U]"))
    library.pre_tokenizer = pre_tokenizers.Metaspace()
    library.decoder = decoders.Metaspace()
    library.save(str(tmp_path / "tokenizer.json"))
    stream = EdgeTokenizer(tmp_path).stream()
    assert [stream.feed(token) for token in (0, 1, 3, 2)] == ["one", " two", "s", " three"]


def test_tokens_of_a_conversation_are_those_of_transformers(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    folder = _with(tmp_path, chat_template=CHAT)
    messages = [("system", " Be brief. "), ("user", "the tide\n\nrises"), ("assistant", "falls"), ("user", "é?")]
    told = [{"role": role, "content": words} for role, words in messages]
    theirs = AutoTokenizer.from_pretrained(folder).apply_chat_template(
        told, add_generation_prompt=True, tokenize=True, return_dict=False
    )
    assert EdgeTokenizer(folder).prompt([Message(role, words) for role, words in messages]) == theirs


def test_a_template_in_a_file_of_its_own_is_found(tmp_path: Path) -> None:
    folder = _with(tmp_path)
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}!{% endfor %}")
    tokenizer = EdgeTokenizer(folder)
    assert tokenizer.decode(tokenizer.prompt([Message("user", "a"), Message("user", "b")])) == "a!b!"


def test_what_a_template_refuses_is_a_bad_request(tmp_path: Path) -> None:
    tokenizer = EdgeTokenizer(_with(tmp_path, chat_template=CHAT))
    with pytest.raises(BadRequestError, match="no tools"):
        tokenizer.prompt([Message("tool", "x")])


@pytest.mark.parametrize(
    "hostile",
    [
        "{{ messages.__class__.__mro__ }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.popen('id') }}",
        "{{ messages.append(1) }}",
        "{% include '/etc/passwd' %}",
        "{{ range(10000000) | list }}",
        "{{ 'x' | attr('__class__') | attr('__mro__') | first }}{{ 1 // 0 }}",
    ],
)
def test_a_template_can_touch_nothing(hostile: str) -> None:
    """It fails, or finds nothing: no class, no module, no file, and the messages stay as they are."""
    messages = [{"role": "user", "content": "a"}]
    with pytest.raises(BadRequestError):
        print(ChatTemplate(hostile, {}).render(messages))  # type: ignore[arg-type]
    assert messages == [{"role": "user", "content": "a"}]


def test_a_template_that_is_none_is_an_artifact_error() -> None:
    with pytest.raises(ArtifactError, match="does not parse"):
        ChatTemplate("{% for %}", {})


def test_a_base_model_goes_on_from_the_text_itself(tokenizer: EdgeTokenizer) -> None:
    assert tokenizer.decode(tokenizer.prompt([Message("user", "the tide")])) == "the tide"
    several = [Message("system", "Brief."), Message("user", "a"), Message("assistant", "b"), Message("user", "c")]
    assert tokenizer.decode(tokenizer.prompt(several)) == "Brief.\n\nUser: a\n\nAssistant: b\n\nUser: c\n\nAssistant:"


def test_a_picture_is_refused(tokenizer: EdgeTokenizer) -> None:
    with pytest.raises(UnsupportedError, match="Image"):
        tokenizer.prompt([Message("user", (Text("look"), Image(b"\x89PNG\r\n\x1a\n", media_type="image/png")))])


def test_end_tokens_are_those_of_the_generation_config(tmp_path: Path) -> None:
    folder = _with(tmp_path)
    assert EdgeTokenizer(folder).end_tokens == {1}
    (folder / "generation_config.json").write_text('{"eos_token_id": [1, 7]}')
    assert EdgeTokenizer(folder).end_tokens == {1, 7}


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json", "generation_config.json"])
def test_a_damaged_file_is_named(file: str, tmp_path: Path) -> None:
    folder = _with(tmp_path)
    (folder / file).write_text('{"version": ')
    with pytest.raises(ArtifactError, match=file):
        EdgeTokenizer(folder)


def test_a_folder_without_tokenizer_is_an_artifact_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"tokenizer\.json"):
        EdgeTokenizer(tmp_path)


def test_half_a_character_is_a_bad_request(tokenizer: EdgeTokenizer) -> None:
    with pytest.raises(BadRequestError, match="surrogate"):
        tokenizer.encode("\ud83e")
