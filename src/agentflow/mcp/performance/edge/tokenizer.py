"""Text to tokens and back: the tokenizer.json of a model, its chat template, and a stream without broken letters.

    tokenizer = EdgeTokenizer(folder)
    tokenizer.encode("Hello")                   [15339]
    tokenizer.prompt(messages)                  the tokens of a conversation, up to where the model is to answer
    tokenizer.decode([15339])                   "Hello"
    stream = tokenizer.stream();  stream.feed(15339)  →  "Hello" or "" while a letter is unfinished;  stream.flush()

A model without a chat template is a base model: one message is its text and nothing else; of several each is announced
("User: …"). It needs neither transformers nor PyTorch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tokenizers import Tokenizer

from agentflow.errors import ArtifactError, BadRequestError, UnsupportedError
from agentflow.llm.content import Json, Text
from agentflow.llm.messages import Message
from agentflow.mcp.performance.edge.chat_template import ChatTemplate
from agentflow.mcp.performance.edge.json_file import json_object

__all__ = ["EdgeTokenizer", "TextStream"]

_ANNOUNCED: Final[Mapping[str, str]] = {"user": "User: ", "assistant": "Assistant: "}
_UNFINISHED: Final = "\N{REPLACEMENT CHARACTER}"


class EdgeTokenizer:
    """Raises ArtifactError where the folder's tokenizer.json is missing or damaged."""

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        folder = folder.parent if folder.is_file() else folder
        self._folder = folder
        file = folder / "tokenizer.json"
        if not file.is_file():
            raise ArtifactError(folder, "it has no tokenizer.json")
        try:
            self.library: Tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:
            raise ArtifactError(folder, f"its tokenizer.json cannot be read: {str(error)[:200]}") from error
        self.library.no_truncation()
        self.library.no_padding()
        settings = json_object(folder / "tokenizer_config.json")
        special = _special(settings)
        self.template = ChatTemplate.of(folder, settings, special)
        self.end_tokens = self._end_tokens(special)
        self._first = self._begin(settings, special)

    @property
    def vocabulary(self) -> int:
        """How many tokens it knows. A model may have more rows than that."""
        return int(self.library.get_vocab_size(with_added_tokens=True))

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """With `special`, what every text begins or ends with is added, as the model was trained."""
        tokens = list(self.library.encode(_whole(text), add_special_tokens=special).ids)
        if special and self._first is not None and tokens[:1] != [self._first]:
            return [self._first, *tokens]
        return tokens

    def encode_within(self, text: str, most: int) -> list[int]:
        """At most so many tokens: what is too long is cut at the end of the text, special tokens stay."""
        found = self.library.encode(_whole(text), add_special_tokens=False)
        room = most - self.library.num_special_tokens_to_add(is_pair=False)
        if len(found.ids) > room:
            found.truncate(room)
        return list(self.library.post_process(found).ids)

    def decode(self, tokens: Sequence[int], *, special: bool = False) -> str:
        """Special tokens are left out unless they are asked for. What is no text becomes U+FFFD."""
        return str(self.library.decode(list(tokens), skip_special_tokens=not special))

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Raises BadRequestError where the template refuses them, UnsupportedError for anything but text."""
        told = [{"role": message.role, "content": _words(message)} for message in messages]
        if self.template is not None:
            return self.encode(self.template.render(told), special=False)
        return self.encode(_plain(told))

    def stream(self) -> TextStream:
        return TextStream(self)

    def _end_tokens(self, special: Mapping[str, str]) -> frozenset[int]:
        """What ends an answer: the first of the places where models say it."""
        said = (
            _at(json_object(self._folder / "genai_config.json"), "model", "eos_token_id"),
            json_object(self._folder / "generation_config.json").get("eos_token_id"),
            json_object(self._folder / "config.json").get("eos_token_id"),
        )
        for each in said:
            if isinstance(each, int):
                return frozenset({each})
            if isinstance(each, list) and each:
                return frozenset(token for token in each if isinstance(token, int))
        token = self.library.token_to_id(special.get("eos_token", ""))
        return frozenset() if token is None else frozenset({token})

    def _begin(self, settings: Mapping[str, Json], special: Mapping[str, str]) -> int | None:
        """The token before every text, where the tokenizer itself does not add it though its settings want it."""
        if settings.get("add_bos_token") is not True:
            return None
        token: int | None = self.library.token_to_id(special.get("bos_token", ""))
        return token


class TextStream:
    """Tokens that come one by one, as text: what it gives, put together, is what the tokens say together.

    Text is held back while its last letter is unfinished. Tokens are decoded with some before them, because a tokenizer
    may drop the space that a text begins with.
    """

    def __init__(self, tokenizer: EdgeTokenizer) -> None:
        self._tokenizer = tokenizer
        self._tokens: list[int] = []
        self._said = 0  # tokens whose text is given away already

    def feed(self, token: int) -> str:
        self._tokens.append(token)
        return self._news(finished=False)

    def flush(self) -> str:
        """What was held back, unfinished as it is."""
        return self._news(finished=True)

    def _news(self, *, finished: bool) -> str:
        before = self._tokenizer.decode(self._tokens[: self._said])
        now = self._tokenizer.decode(self._tokens)
        if len(now) <= len(before) or (now.endswith(_UNFINISHED) and not finished):
            return ""
        self._tokens = self._tokens[self._said :]
        self._said = len(self._tokens)
        return now[len(before) :]


def _whole(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadRequestError("the text holds half a character (a lone surrogate), which no model reads") from None
    return text


def _words(message: Message) -> str:
    for part in message.parts:
        if not isinstance(part, Text):
            raise UnsupportedError(f"a model on this machine reads text alone, and a {type(part).__name__} was given")
    return message.text


def _plain(told: Sequence[Mapping[str, str]]) -> str:
    if len(told) == 1:
        return told[0]["content"]
    said = [f"{_ANNOUNCED.get(each['role'], '')}{each['content']}" for each in told]
    return "\n\n".join([*said, _ANNOUNCED["assistant"].rstrip()])


def _special(settings: Mapping[str, Json]) -> dict[str, str]:
    """bos_token, eos_token, …: a text, or an object that holds one."""
    found = {}
    for name, value in settings.items():
        text = value.get("content") if isinstance(value, Mapping) else value
        if name.endswith("_token") and isinstance(text, str):
            found[name] = text
    return found


def _at(data: Mapping[str, Json], outer: str, inner: str) -> Json:
    section = data.get(outer)
    return section.get(inner) if isinstance(section, Mapping) else None
