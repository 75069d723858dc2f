"""A model's own way of writing a conversation down: its chat template, run where it can touch nothing.

    template = ChatTemplate.of(folder, …)    chat_template.jinja, or chat_template in tokenizer_config.json; else None
    template.render([{"role": "user", "content": "Hello"}])   →   "<|user|>\\nHello<|end|>\\n<|assistant|>\\n"

A template is a program that came with a model, so it runs in Jinja's sandbox: it reads what it is given, changes
nothing, and reaches no file and no module. What transformers offers to templates is offered here: `raise_exception`,
`strftime_now`, `tojson`, `{% break %}` and `{% generation %}`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from agentflow.errors import ArtifactError, BadRequestError
from agentflow.llm.content import Json

__all__ = ["ChatTemplate"]

_LONGEST: Final = 1 << 20  # characters of a template


class _Generation(Extension):
    """`{% generation %}` marks the model's own words for training; here it is nothing."""

    tags = {"generation"}  # noqa: RUF012  # as Jinja declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """`special` are the tokens that a template may name: bos_token, eos_token, …

    Raises ArtifactError for a text that is no template.
    """

    def __init__(self, text: str, special: Mapping[str, str], *, source: str = "the chat template") -> None:
        if len(text) > _LONGEST:
            raise ArtifactError(source, f"its chat template has more than {_LONGEST:,} characters")
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation]
        )
        environment.filters["tojson"] = _tojson
        environment.globals.update(raise_exception=_refuse, strftime_now=_strftime_now)
        self._special = dict(special)
        try:
            self._template = environment.from_string(text)
        except jinja2.TemplateError as error:
            raise ArtifactError(source, f"its chat template does not parse: {error}") from error

    @classmethod
    def of(cls, folder: Path, settings: Mapping[str, Json], special: Mapping[str, str]) -> ChatTemplate | None:
        """The template beside a tokenizer; `settings` are what tokenizer_config.json says."""
        file = folder / "chat_template.jinja"
        if file.is_file():
            return cls(file.read_text(encoding="utf-8"), special, source=str(folder))
        said = settings.get("chat_template")
        if isinstance(said, Sequence) and not isinstance(said, str):  # several, by name
            named = {each["name"]: each["template"] for each in said if isinstance(each, Mapping)}
            said = named.get("default")
        return cls(said, special, source=str(folder)) if isinstance(said, str) else None

    def render(self, messages: Sequence[Mapping[str, Json]], *, answer: bool = True) -> str:
        """The conversation as the model knows it, up to where it is to answer. Raises BadRequestError where the
        template refuses the messages."""
        try:
            return self._template.render(
                messages=messages, tools=None, documents=None, add_generation_prompt=answer, **self._special
            )
        except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError, RecursionError) as error:
            raise BadRequestError(f"the model's chat template refuses these messages: {error}") from error


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Without Jinja's escapes for HTML, which no model was trained on."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _refuse(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


_strftime_now: Callable[[str], str] = lambda shape: datetime.now().strftime(shape)  # noqa: E731
