"""Which server is which, and what an option may change of it."""

from __future__ import annotations

import pytest

from agentflow.errors import BadRequestError, ConfigurationError
from agentflow.llm.content import Json
from agentflow.llm.messages import Request, Thinking
from agentflow.llm.providers.base import ProviderSettings
from agentflow.llm.providers.efforts import BUDGETS, effort_of
from agentflow.llm.providers.openai.dialects import DIALECTS, Dialect, dialect_of, thinking_fields


def chosen(base_url: str, **options: Json) -> Dialect:
    return dialect_of(ProviderSettings("lab", "openai", options=options), base_url)


@pytest.mark.parametrize(
    ("base_url", "name"),
    [
        ("https://api.openai.com/v1", "openai"),
        ("https://me.openai.azure.com/openai/v1", "azure"),
        ("https://me.services.ai.azure.com/openai/v1", "azure"),
        ("https://api.moonshot.ai/v1", "moonshot"),
        ("https://api.moonshot.cn/v1", "moonshot"),
        ("https://api.deepseek.com", "deepseek"),
        ("https://api.z.ai/api/paas/v4", "zai"),
        ("https://open.bigmodel.cn/api/paas/v4", "zai"),
        ("https://openrouter.ai/api/v1", "openrouter"),
        ("https://api.groq.com/openai/v1", "groq"),
        ("https://api.mistral.ai/v1", "mistral"),
        ("https://api.x.ai/v1", "xai"),
        ("https://api.together.xyz/v1", "together"),
        ("https://api.fireworks.ai/inference/v1", "fireworks"),
        ("https://api.cerebras.ai/v1", "cerebras"),
        ("http://127.0.0.1:11434/v1", "ollama"),
        ("http://127.0.0.1:8000/v1", "compatible"),
        ("https://API.OPENAI.COM/v1", "openai"),
        ("https://api.openai.com.evil.example/v1", "compatible"),
        ("https://openai.azure.com.evil.example/v1", "compatible"),
        ("https://host:notaport/v1", "compatible"),
        ("", "compatible"),
    ],
)
def test_the_host_says_which_server_it_is(base_url: str, name: str) -> None:
    assert chosen(base_url).name == name


def test_the_option_wins_over_the_host() -> None:
    assert chosen("https://api.openai.com/v1", dialect="vllm") is DIALECTS["vllm"]


def test_what_is_usual_for_a_kind_wins_over_the_host_alone() -> None:
    settings = ProviderSettings("m", "moonshot")
    assert dialect_of(settings, "https://proxy/v1", usual="moonshot").name == "moonshot"


def test_every_field_is_an_option() -> None:
    """For the one server that differs from its row."""
    made = chosen("http://127.0.0.1:8000/v1", stream_options=False, max_tokens_field="limit", efforts={"low": "lo"})
    assert (made.name, made.stream_options, made.max_tokens_field) == ("compatible", False, "limit")
    assert made.efforts == {"low": "lo"}
    assert made.n == DIALECTS["compatible"].n


def test_options_of_others_do_not_matter() -> None:
    assert chosen("https://host/v1", max_connections=3, organization="o") is DIALECTS["compatible"]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("n", "yes"), ("schema", "xml"), ("efforts", ["low"]), ("dialect", "x"), ("seed_field", "")),
        *(("tool_ids", "ten"), ("returned", "all"), ("max_tokens_field", "")),
    ],
)
def test_a_wrong_option_is_refused_by_name(option: str, value: Json) -> None:
    with pytest.raises(ConfigurationError, match=f"'lab': {option}"):
        chosen("https://host/v1", **{option: value})


def test_budgets_and_efforts_are_two_words_for_one_thing() -> None:
    """Each effort's budget is that effort, and one token more is the next."""
    assert [effort_of(Thinking(budget=BUDGETS[effort])) for effort in ("none", "low", "medium", "high")] == [
        "none",
        "low",
        "medium",
        "high",
    ]
    assert [effort_of(Thinking(budget=budget)) for budget in (1, 1025, 8193, 10**6)] == [
        "low",
        "medium",
        "high",
        "high",
    ]
    assert effort_of(Thinking("max", budget=0)) == "max", "the effort is the plainer word"
    assert effort_of(Thinking()) is None


def test_a_switch_alone_says_no_effort() -> None:
    dialect = chosen("https://host/v1", thinking="switch")
    request = Request("m", ())
    assert thinking_fields(request, Thinking("high"), dialect) == {"thinking": {"type": "enabled"}}
    assert thinking_fields(request, Thinking("none"), dialect) == {"thinking": {"type": "disabled"}}


def test_a_server_without_a_word_for_thinking_refuses() -> None:
    dialect = chosen("https://host/v1", thinking="none")
    with pytest.raises(BadRequestError, match="use params"):
        thinking_fields(Request("m", ()), Thinking("high"), dialect)
    assert thinking_fields(Request("m", ()), Thinking(), dialect) == {}
