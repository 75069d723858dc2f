"""What a model cannot do is an error before anything is sent; what nobody knows is left to the provider."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from agentflow.errors import ConfigurationError, UnsupportedError
from agentflow.llm.config.capabilities import check
from agentflow.llm.config.model import ModelConfig
from agentflow.llm.config.registry import ModelRegistry
from agentflow.llm.config.schema import Capability
from agentflow.llm.content import Audio, Document, Image, Part, Raw, Reasoning, Text, ToolCall, ToolResult
from agentflow.llm.messages import EmbeddingRequest, Message, OutputFormat, Request, Thinking, Tool

PNG = b"\x89PNG\r\n\x1a\n"


def model(*can: Capability, max_output: int | None = None, known: bool = True) -> ModelConfig:
    return ModelConfig("small", "lab", "small-1", capabilities=frozenset(can) if known else None, max_output=max_output)


def asked(*parts: Part, **fields: object) -> Request:
    content = parts or "Hello"
    return Request("small-1", (Message("user", content),), **fields)  # type: ignore[arg-type]


NEEDS: list[tuple[Request | EmbeddingRequest, Capability]] = [
    (asked(Text("What is this?"), Image(PNG)), "image"),
    (asked(Document("report.pdf")), "document"),
    (asked(Audio("speech.wav")), "audio"),
    (asked(ToolResult("call-1", (Text("a chart"), Image(PNG)))), "image"),
    (asked(tools=(Tool("weather"),)), "tools"),
    (asked(tools=(Raw("google", {"googleSearch": {}}),)), "tools"),
    (asked(output=OutputFormat("person", {"type": "object"})), "schema"),
    (asked(thinking=Thinking(effort="low")), "thinking"),
    (asked(thinking=Thinking(budget=1024)), "thinking"),
    (asked(thinking=Thinking(show=True)), "thinking"),
    (EmbeddingRequest("small-1", ("a", "b")), "embed"),
]


@pytest.mark.parametrize(("request_", "needed"), NEEDS)
def test_what_a_model_cannot_do_is_an_error_that_says_what_to_do(
    request_: Request | EmbeddingRequest, needed: Capability
) -> None:
    with pytest.raises(UnsupportedError, match=rf"^small is asked .*add {needed} to its capabilities"):
        check(request_, model())


@pytest.mark.parametrize(("request_", "needed"), NEEDS)
def test_what_a_model_can_do_passes(request_: Request | EmbeddingRequest, needed: Capability) -> None:
    check(request_, model(needed))


@pytest.mark.parametrize(("request_", "needed"), NEEDS)
def test_a_model_that_nobody_described_is_asked_anything(
    request_: Request | EmbeddingRequest, needed: Capability
) -> None:
    check(request_, model(known=False))


@pytest.mark.parametrize(
    "request_",
    [
        asked(),
        asked(Text("a"), Reasoning(text="b"), ToolCall("1", "weather"), ToolResult("1", "sunny"), Raw("x", {})),
        asked(thinking=Thinking(effort="none")),
        asked(thinking=Thinking(budget=0)),
        asked(thinking=Thinking(show=False)),
        asked(output=OutputFormat("any")),
    ],
)
def test_what_needs_no_ability_passes_everywhere(request_: Request) -> None:
    """Earlier turns of another model, any JSON object, and the wish not to think."""
    check(request_, model())


def test_an_embedding_model_answers_no_prompt() -> None:
    with pytest.raises(UnsupportedError, match="small is a model for embeddings"):
        check(asked(), model("embed"))


def test_more_tokens_than_a_model_can_give_are_an_error() -> None:
    with pytest.raises(UnsupportedError, match="at most 1,000 tokens, and max_tokens is 1,001"):
        check(asked(max_tokens=1001), model(max_output=1000, known=False))
    check(asked(max_tokens=1000), model(max_output=1000))
    check(asked(max_tokens=10**9), model())


def test_the_error_names_models_that_can(tmp_path: Path) -> None:
    (tmp_path / "models.yml").write_text(
        "models: {mine: {provider: local, capabilities: [audio]}, deaf: {provider: local, capabilities: []}}"
    )
    registry = ModelRegistry.load(environ={}, cwd=tmp_path, home=tmp_path)
    with pytest.raises(
        UnsupportedError, match=r"^deaf is asked to listen .* models that can: mine, gemini-3\.8-flash,"
    ):
        check(asked(Audio("a.wav")), registry.describe("deaf"), registry.models_with)
    with pytest.raises(UnsupportedError, match=r"text-embedding-3-small"):
        check(EmbeddingRequest("gpt-4o", ("a",)), registry.describe("gpt-4o"), registry.models_with)


@pytest.mark.parametrize(
    ("regions", "demand", "works"),
    [
        (("eu",), "eu", True),
        (("eu",), " eu , ch", True),
        (("eu", "us"), "eu", False),
        (("us",), "eu", False),
        ((), "eu", False),
        (("eu",), "", False),
    ],
)
def test_a_request_is_worked_on_where_it_says_and_nowhere_else(
    regions: tuple[str, ...], demand: str, works: bool
) -> None:
    config = ModelConfig("m", "lab", "m-1", regions=regions)
    check(asked(), config)
    request = asked(metadata={"residency": demand})
    if works:
        check(request, config)
    else:
        with pytest.raises(UnsupportedError, match="may only be worked on in"):
            check(request, config)


def test_it_is_an_error_of_the_configuration() -> None:
    assert issubclass(UnsupportedError, ConfigurationError)


def test_a_request_of_words_costs_next_to_nothing() -> None:
    """Under a microsecond is the promise; the bound leaves room for a busy machine."""
    request, config = asked(max_tokens=5), model("image", max_output=100)
    best = 1.0
    for _ in range(5):
        start = time.process_time()
        for _ in range(2000):
            check(request, config)
        best = min(best, (time.process_time() - start) / 2000)
    assert best < 5e-6
