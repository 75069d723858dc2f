"""The bound of a call: never below what it costs, and refused where there is none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.support.chat_recordings import CHAT, api_for, as_request, is_chat, plain_reading
from tests.support.recordings import recordings

from agentflow.errors import UnboundedCostError
from agentflow.llm.config.prices import Price, Rates
from agentflow.llm.content import Image, Raw, Text, ToolCall, ToolResult
from agentflow.llm.messages import EmbeddingRequest, Message, OutputFormat, Request, Tool, Usage
from agentflow.mcp.optimization.budget.bound import Tariff, most
from agentflow.mcp.optimization.budget.money import charged

PRICE = Price.flat(Rates(2.0, 8.0, 0.5, 2.5))
TARIFF = Tariff("m", [PRICE], max_output=1_000, context=50_000)


def request(text: str = "Hello", **said: Any) -> Request:
    return Request("m", (Message("user", text),), **said)


# ---- never below the truth


RATE = st.floats(0.01, 100)
SOMETIMES = st.none() | RATE


@given(
    st.text(max_size=200),
    st.integers(1, 5_000),
    st.builds(Rates, RATE, RATE, SOMETIMES, SOMETIMES, SOMETIMES),
    st.data(),
)
def test_no_usage_that_a_tokenizer_of_bytes_can_report_costs_more_than_the_bound(
    text: str, max_tokens: int, rates: Rates, data: st.DataObject
) -> None:
    """Any split of the prompt into plain, cached and written tokens, and any answer up to its limit."""
    price = Price.flat(rates)
    bound = most(request(text, max_tokens=max_tokens), Tariff("m", [price]))
    tokens = data.draw(st.integers(0, len(text.encode("utf-8", "replace")) + 20))
    cached = data.draw(st.integers(0, tokens))
    written = data.draw(st.integers(0, tokens - cached))
    hour = data.draw(st.integers(0, written))
    answer = data.draw(st.integers(0, max_tokens))
    usage = Usage(tokens, answer, cached_tokens=cached, cache_write_tokens=written, cache_write_1h_tokens=hour)
    cost = price.cost(usage)
    assert cost is None or charged(cost) <= bound


@given(st.text(min_size=1, max_size=100), st.text(min_size=1, max_size=100), st.integers(1, 500))
def test_more_of_anything_never_lowers_the_bound(text: str, more: str, tokens: int) -> None:
    plain = most(request(text, max_tokens=tokens), TARIFF)
    fuller: list[Mapping[str, Any]] = [
        {"n": 2},
        {"tools": (Tool("look", more, {"type": "object"}),)},
        {"output": OutputFormat("answer", {"type": "object", "description": more})},
        {"params": {"logit_bias": more}},
    ]
    assert all(most(request(text, max_tokens=tokens, **said), TARIFF) > plain for said in fuller)
    assert most(request(text + more, max_tokens=tokens), TARIFF) > plain
    assert most(request(text, max_tokens=tokens + 1), TARIFF) > plain


def test_what_tools_were_asked_and_answered_counts_byte_by_byte() -> None:
    turns = (
        Message("user", "Weather?"),
        Message("assistant", (ToolCall("c1", "weather", {"city": "x" * 500}),)),
        Message("tool", (ToolResult("c1", "y" * 700),)),
    )
    said = Request("m", turns, max_tokens=1)
    assert most(said, TARIFF) >= charged(1_200 * 2.5 / 1e6)


# ---- the length of the answer


def test_the_answer_is_bounded_by_the_call_then_by_the_entry_then_by_the_model() -> None:
    tariff = Tariff("m", [PRICE], max_tokens=300, max_output=1_000)
    of_call = most(request(max_tokens=500), tariff)
    of_entry = most(request(), tariff)
    of_model = most(request(), Tariff("m", [PRICE], max_output=1_000))
    assert of_call - of_entry == charged(200 * 8 / 1e6)
    assert of_model - of_call == charged(500 * 8 / 1e6)


@pytest.mark.parametrize(
    "params",
    [{"max_completion_tokens": 900}, {"maxOutputTokens": 900}, {"generationConfig": {"maxOutputTokens": 900}}],
)
def test_a_limit_among_the_parameters_counts_where_it_is_the_larger(params: Mapping[str, Any]) -> None:
    assert most(request(max_tokens=10, params=params), TARIFF) > most(request(max_tokens=899), TARIFF)


def test_parameters_of_the_entry_count_as_those_of_the_call() -> None:
    tariff = Tariff("m", [PRICE], params={"max_completion_tokens": 900})
    assert most(request(max_tokens=10), tariff) > most(request(max_tokens=899), TARIFF)


def test_an_answer_that_nothing_bounds_is_refused_with_what_to_do() -> None:
    with pytest.raises(UnboundedCostError, match="set max_tokens") as caught:
        most(request(), Tariff("m", [PRICE]))
    assert caught.value.model == "m"


# ---- what has no bytes


def test_a_picture_may_fill_the_context_unless_somebody_knows_better() -> None:
    said = Request("m", (Message("user", (Text("What is it?"), Image(b"\x89PNG\r\n\x1a\n"))),), max_tokens=1)
    whole = most(said, TARIFF)
    assert whole == charged((50_000 * 2.5 + 8) / 1e6)
    assert most(said, Tariff("m", [PRICE], context=50_000, media_tokens=1_500)) < whole / 10
    with pytest.raises(UnboundedCostError, match="state its context"):
        most(said, Tariff("m", [PRICE]))


def test_what_the_provider_keeps_of_earlier_turns_may_fill_the_context() -> None:
    said = request(max_tokens=1, params={"previous_response_id": "r1"})
    assert most(said, TARIFF) == charged((50_000 * 2.5 + 8) / 1e6)


def test_a_prompt_is_never_longer_than_the_context() -> None:
    assert most(request("x" * 1_000_000, max_tokens=1), TARIFF) == charged((50_000 * 2.5 + 8) / 1e6)


def test_tools_that_the_provider_runs_are_refused() -> None:
    search = Raw("openai", {"type": "web_search"})
    with pytest.raises(UnboundedCostError, match="ceiling"):
        most(request(max_tokens=1, tools=(search,)), TARIFF)


# ---- rates


def test_a_long_prompt_is_bounded_by_the_price_of_long_prompts() -> None:
    steps = Price({"": ((0, Rates(1.0, 2.0)), (1_000, Rates(3.0, 9.0)))})
    tariff = Tariff("m", [steps])
    assert most(request("x" * 2_000, max_tokens=1), tariff) > charged(2_000 * 3.0 / 1e6)
    assert most(request("x" * 10, max_tokens=1), tariff) < charged(1_000 * 1.0 / 1e6)


@pytest.mark.parametrize(
    "usage",
    [
        Usage(10_000, 1),
        Usage(10_000, 1, cached_tokens=10_000),
        Usage(10_000, 1, cache_write_tokens=10_000),
        Usage(10_000, 1, cache_write_tokens=10_000, cache_write_1h_tokens=10_000),
    ],
)
@pytest.mark.parametrize("dearest", ["input", "cached", "cache_write", "cache_write_1h"])
def test_the_bound_is_that_of_the_dearest_sort_of_prompt(usage: Usage, dearest: str) -> None:
    price = Price.flat(Rates(**{"input": 1.0, "output": 1.0, "cached": 1.0, "cache_write": 1.0, dearest: 9.0}))
    cost = price.cost(usage)
    assert cost is None or charged(cost) <= most(request("x" * 10_000, max_tokens=1), Tariff("m", [price]))


def test_a_price_that_changes_soon_counts_already() -> None:
    soon = Tariff("m", [PRICE, Price.flat(Rates(20.0, 80.0))], max_output=10)
    assert most(request(), soon) > 5 * most(request(), Tariff("m", [PRICE], max_output=10))


def test_a_service_tier_that_was_asked_for_counts_by_its_own_price() -> None:
    tiers = Price({"": ((0, Rates(1.0, 2.0)),), "priority": ((0, Rates(2.0, 4.0)),)})
    tariff = Tariff("m", [tiers], max_output=100)
    usual, dear = most(request(), tariff), most(request(params={"service_tier": "priority"}), tariff)
    assert 1.9 * usual < dear
    with pytest.raises(UnboundedCostError, match="service tier 'turbo'"):
        most(request(params={"service_tier": "turbo"}), tariff)


@pytest.mark.parametrize(
    "price", [[], [Price({})], [Price.flat(Rates(1.0))], [Price({"": ((0, Rates(1.0, 1.0)), (5, None))})]]
)
def test_a_price_that_nobody_knows_is_refused_with_what_to_do(price: list[Price]) -> None:
    with pytest.raises(UnboundedCostError, match=r"state its price in models\.yml"):
        most(request(max_tokens=1), Tariff("m", price))


def test_a_hedge_may_be_billed_too() -> None:
    assert most(request(), Tariff("m", [PRICE], max_output=9, requests=2)) == 2 * most(
        request(), Tariff("m", [PRICE], max_output=9)
    )


def test_embeddings_cost_what_they_read() -> None:
    price = Price.flat(Rates(0.1))
    texts = EmbeddingRequest("e", ("ab" * 50, "c"))
    assert charged(101 * 0.1 / 1e6) <= most(texts, Tariff("e", [price])) <= charged(200 * 0.1 / 1e6)


# ---- what real tokenizers make of real prompts


@pytest.mark.shared
def test_no_recorded_prompt_has_more_tokens_than_its_bound(shared: Path) -> None:
    """What the providers themselves have counted, tools, schemas and their hidden instructions included."""
    counted = 0
    for recording in recordings(shared / "cassettes", CHAT):
        if recording.status != 200 or not is_chat(recording):
            continue
        asked, usage = as_request(recording.request, api_for(recording)), plain_reading(recording).usage
        if usage is None:
            continue
        try:
            bound = most(replace(asked, max_tokens=1), Tariff("m", [Price.flat(Rates(1_000.0, 0.0))]))
        except UnboundedCostError:
            continue  # pictures, and tools of the provider's own
        counted += 1
        assert usage[0] <= bound / 1e6, recording.file
    assert counted > 30
