"""What an answer is worth to the one who asked: its text, or a value of a type.

Response ──text_of──▶ str            ContentFilterError where there is none, because it was blocked
         ──value_of──▶ Person        from the text, or from the call of the tool that stands for the answer
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeVar

from agentflow.errors import ContentFilterError, OutputError
from agentflow.llm.content import Json, ToolCall
from agentflow.llm.messages import Response

__all__ = ["Decoder", "answer_call", "answer_text", "blocked", "text_of", "value_of"]

T_co = TypeVar("T_co", covariant=True)


class Decoder(Protocol[T_co]):
    """What an `OutputType` does here: `decode` raises a ValueError that says what does not fit."""

    @property
    def name(self) -> str: ...

    def decode(self, text: str) -> T_co: ...

    def partial(self, value: Json) -> Mapping[str, Json]: ...


def text_of(response: Response) -> str:
    """The text. Raises ContentFilterError where the provider blocked all of it."""
    text = response.text
    if not text and response.finish_reason == "content_filter":
        raise blocked(response)
    return text


def value_of(response: Response, output: Decoder[T_co]) -> T_co:
    """The typed answer. Raises OutputError where it does not fit, and ContentFilterError."""
    text = answer_text(response, output.name)
    if not text and response.finish_reason == "content_filter":
        raise blocked(response)
    try:
        return output.decode(text)
    except ValueError as misfit:
        problem = str(misfit)
    if response.finish_reason == "length":
        problem += " (it was cut off at max_tokens)"
    raise OutputError(
        problem, raw=text, provider=response.provider, model=response.model, request_id=response.request_id
    )


def answer_text(response: Response, tool: str) -> str:
    """Where a typed answer stands: in the call of the tool of that name, else in the text."""
    call = answer_call(response, tool)
    return response.text if call is None else call.json


def answer_call(response: Response, tool: str) -> ToolCall | None:
    """The call that gives the answer, where the model was asked to answer through a tool."""
    return next((call for call in response.tool_calls if call.name == tool), None)


def blocked(response: Response) -> ContentFilterError:
    return ContentFilterError(
        "the provider blocked the answer: change the prompt, or ask another model",
        provider=response.provider,
        model=response.model,
        request_id=response.request_id,
    )
